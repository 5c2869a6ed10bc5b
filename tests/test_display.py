"""Results in the order and under the names of the configuration."""

import pandas as pd
import pytest

from langneurons.corpus_metrics import counts
from langneurons.display import evaluation_files, in_order, protocols
from langneurons.io import DamagedFile, write_parquet

SHOW = {
    "tasks": {"t": "T"},
    "adapters": {"base": "base", "x+none": "X: none"},
    "order": ["vi", "en"],
    "selections": {"lape": "LAPE", "control": "control"},
    "labels": {"en-vi": "two"},
    "interventions": {"p90": "P90", "zero": "0"},
    "protocols": {
        "corrected": {"evaluation": "corrected", "perplexity": "corrected"},
        "site": {"evaluation": "intervention_site", "perplexity": "intervention_site"},
        "answers": {"evaluation": "corrected", "perplexity": "corrected"},
    },
}


def test_scores_follow_the_configuration():
    rows = [
        ("en", "none", "none", "none"),
        ("en", "two", "LAPE", "0"),
        ("en", "two", "LAPE", "P90"),
        ("vi", "two", "control", "0"),
        ("vi", "two", "LAPE", "0"),
        ("vi", "none", "none", "none"),
    ]
    frame = pd.DataFrame(rows, columns=["lang", "langset", "selection", "intervention"])
    frame = frame.assign(task="T", metric="accuracy", adapter="base", mean=range(6))
    assert in_order(frame, SHOW)["mean"].tolist() == [5, 4, 3, 0, 2, 1]


def test_a_result_belongs_to_every_protocol_that_agrees_on_its_points(tmp_path):
    path = tmp_path / "evaluation/corrected/base/t/vi.parquet"
    assert protocols(path, "evaluation", -4, SHOW) == ["corrected", "answers"]
    path = tmp_path / "evaluation/intervention_site/base/t/vi.parquet"
    assert protocols(path, "evaluation", -4, SHOW) == ["site"]


def test_records_of_a_corpus_metric_hold_its_counts(tmp_path):
    path = tmp_path / "m/evaluation/corrected/base/flores/fr.parquet"
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
