"""Results in the order and under the names of the configuration."""

import numpy as np
import pandas as pd
import pytest
from labelled import labels
from scored import counts

from langneurons.base.io import DamagedFile, write_parquet
from langneurons.reporting.layouts import in_sequence, names_of
from langneurons.reporting.records import (
    evaluation_files,
    in_order,
    perplexity_matrices,
    protocols,
)
from langneurons.reporting.tables.tasks import task_scores

RESULTS = {"bootstrap": 50, "confidence": 0.95, "alpha": 0.05, "seed": 0}
SHOW = labels(
    **{
        "tasks": {"t": "T"},
        "adapters": {"base": "base", "x+none": "X: none"},
        "languages": ["vi", "en"],
        "selections": {"lape": "LAPE", "control": "control"},
        "sets": {"en-vi": "two"},
        "interventions": {"p90": "P90", "zero": "0"},
        "sequence": {
            "models": ["m"],
            "language_sets": ["two"],
            "selections": ["lape", "control"],
            "interventions": ["zero", "p90"],
            "tasks": ["t"],
        },
        "protocols": {
            "corrected": {"evaluation": "corrected", "perplexity": "corrected"},
            "site": {"evaluation": "intervention_site", "perplexity": "intervention_site"},
            "answers": {"evaluation": "corrected", "perplexity": "corrected"},
        },
    }
)


def test_scores_follow_the_configuration():
    rows = [
        ("en", "none", "none", "none"),
        ("en", "en-vi", "lape", "zero"),
        ("en", "en-vi", "lape", "p90"),
        ("vi", "en-vi", "control", "zero"),
        ("vi", "en-vi", "lape", "zero"),
        ("vi", "none", "none", "none"),
    ]
    frame = pd.DataFrame(rows, columns=["lang", "langset", "selection", "intervention"])
    frame = frame.assign(task="t", metric="accuracy", adapter="base", mean=range(6))
    assert in_order(frame, SHOW)["mean"].tolist() == [5, 4, 3, 0, 1, 2]


def test_a_result_belongs_to_every_protocol_that_agrees_on_its_points(tmp_path):
    path = tmp_path / "results/m/evaluation/corrected/base/t/vi.parquet"
    assert protocols(path, "evaluation", SHOW) == ["corrected", "answers"]
    path = tmp_path / "results/m/evaluation/intervention_site/base/t/vi.parquet"
    assert protocols(path, "evaluation", SHOW) == ["site"]


def test_records_of_a_corpus_metric_hold_its_counts(tmp_path):
    path = tmp_path / "results/m/evaluation/corrected/base/flores/fr.parquet"
    names = ("lang", "langset", "selection", "intervention", "target", "item", "prediction", "gold")
    found = counts("chrf++", "une barque", ["une barque rouge"]) | dict.fromkeys(names, "x")
    metadata = {"model": "m", "adapter": "base", "task": "flores", "lang": "fr"}
    metadata["metrics"] = ["chrf++"]
    write_parquet(path, pd.DataFrame([found]), metadata)
    ((_, frame, _),) = evaluation_files([str(path)])
    assert list(frame) == list(found)
    del found["chrf++:char1_match"]
    write_parquet(path, pd.DataFrame([found]), metadata)
    with pytest.raises(DamagedFile, match="lacks the columns chrf\\+\\+:char1_match"):
        evaluation_files([str(path)])


def test_records_of_a_metric_of_groups_have_it_at_the_first_of_each(tmp_path):
    path = tmp_path / "results/m/evaluation/corrected/base/flores/fr.parquet"
    metadata = {"model": "m", "adapter": "base", "task": "flores", "lang": "fr"}
    metadata["metrics"] = ["mean_bleu", "sentence_bleu"]
    labels = ["none"] * 4, ["all", "lape", "zero", "en"]
    names = ("langset", "selection", "intervention", "target")
    rows = [
        dict(zip(names, condition, strict=True))
        | {"item": str(i), "mean_bleu": mean, "sentence_bleu": 0.5}
        for condition, shift in zip(labels, (0.0, -0.1), strict=True)
        for i, mean in enumerate([0.5 + shift, np.nan, 0.3 + shift, np.nan, 0.1 + shift])
    ]
    frame = pd.DataFrame(rows).assign(prediction="x", gold="y", lang="fr")
    write_parquet(path, frame, metadata)
    ((_, read, _),) = evaluation_files([str(path)])
    read = read.assign(task="flores", adapter="base")
    scores = task_scores(read, RESULTS)
    own = scores.set_index(["metric", "intervention"])
    assert own.loc[("mean_bleu", "zero"), "n"] == 3
    assert own.loc[("mean_bleu", "zero"), "mean"] == pytest.approx(0.2)
    assert own.loc[("mean_bleu", "zero"), "difference"] == pytest.approx(-0.1)
    assert own.loc[("sentence_bleu", "zero"), "n"] == 5
    write_parquet(path, frame.assign(sentence_bleu=np.nan), metadata)
    with pytest.raises(DamagedFile, match="sentence_bleu is not finite"):
        evaluation_files([str(path)])


@pytest.mark.parametrize(
    "path, kind, names",
    [
        (
            "results/neurons/neurons/en-fr/lape.v2.parquet",
            "neurons",
            {"model": "neurons", "langset": "en-fr", "selection": "lape.v2"},
        ),
        (
            "/deep/er/results/m/judged/forcing/paper/en-fr/a+b/zero.parquet",
            "generation",
            {"model": "m", "analysis": "forcing", "variant": "paper", "langset": "en-fr"}
            | {"selection": "a+b", "intervention": "zero"},
        ),
        (
            "/deep/er/results/m/perplexity/paper/en-fr/a+b.parquet",
            "perplexity",
            {"model": "m", "variant": "paper", "langset": "en-fr", "selection": "a+b"},
        ),
        (
            "results/m/evaluation/corrected/x+y+target+lape+en-fr+vi/t/vi.parquet",
            "evaluation",
            {"model": "m", "variant": "corrected", "adapter": "x+y+target+lape+en-fr+vi"}
            | {"task": "t", "lang": "vi"},
        ),
    ],
)
def test_names_are_read_by_layout_whatever_they_hold(path, kind, names):
    assert names_of(path, kind) == names


def test_a_file_elsewhere_is_no_result():
    with pytest.raises(ValueError, match="does not lie where results of its kind do"):
        names_of("results/m/neurons/lape.parquet", "neurons")


def test_results_stand_in_the_order_of_the_configuration():
    folder = "results/m/judged/forcing/corrected/en-vi"
    paths = [f"{folder}/{s}/{i}.parquet" for s in ("control", "lape") for i in ("p90", "zero")]
    assert in_sequence(paths, "generation", SHOW.sequence) == [
        f"{folder}/{s}/{i}.parquet" for s in ("lape", "control") for i in ("zero", "p90")
    ]


def test_matrices_stand_in_the_order_of_the_configuration_each_with_its_untouched_model(tmp_path):
    names = {"interventions": ["p90", "zero"], "languages": ["en", "vi"], "sampled": False}
    for number, (langset, selection) in enumerate(
        (folder, name) for folder in ("en-fr", "en-vi") for name in ("control", "lape")
    ):
        rows = [
            {"intervention": name, "deactivated": lang, "evaluated": "en", "document": "d"}
            | {"nll": number + shift, "tokens": 3, "bytes": 9}
            for name, lang, shift in (
                *(("none", "none", 0.5), ("p90", "en", 0.1), ("zero", "en", 0.2)),
                *(("p90", "vi", 0.1), ("zero", "vi", 0.2)),
            )
        ]
        path = tmp_path / f"results/m/perplexity/corrected/{langset}/{selection}.parquet"
        about = names | {"model": "m", "langset": langset, "selection": selection}
        write_parquet(path, pd.DataFrame(rows), about)
    paths = [str(path) for path in sorted(tmp_path.rglob("*.parquet"))]
    found = perplexity_matrices(paths, SHOW, "corrected")
    keys = ("selection", "intervention", "languages")
    assert [tuple(cell[key] for key in keys) for cell, _, _ in found] == [
        (selection, name, folder)
        for selection in ("lape", "control")
        for name in ("zero", "p90")
        for folder in ("en-fr", "en-vi")
    ]
    for cell, frame, _ in found:
        base = 2 * (cell["languages"] == "en-vi") + (cell["selection"] == "lape")
        shift = {"p90": 0.1, "zero": 0.2}[cell["intervention"]]
        assert frame["deactivated"].tolist() == ["none", "en", "vi"]
        assert frame["nll"].tolist() == [base + 0.5, base + shift, base + shift]
        assert "intervention" not in frame
    (one,) = perplexity_matrices(paths[:1], SHOW, "corrected", ["zero"])
    assert one[0]["intervention"] == "zero" and len(one[1]) == 3
    write_parquet(paths[0], pd.DataFrame(rows)[:2], about | {"langset": "en-fr"} |
                  {"selection": "control"})  # fmt: skip
    with pytest.raises(DamagedFile, match="it holds no rows of intervention 'zero'"):
        perplexity_matrices(paths[:1], SHOW, "corrected")
