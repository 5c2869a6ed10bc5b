"""Two runs side by side: identical ones, and ones that differ in one key; two shared folders."""

import copy
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from inprocess import run
from scipy import stats
from test_workflow import save_tiny_model

import langneurons as ln
from langneurons.base.errors import InputError
from langneurons.base.io import read_parquet, write_parquet
from langneurons.cli import main
from langneurons.config import build
from langneurons.jobs.stages import STAGES
from langneurons.reporting.compare import compare
from langneurons.reporting.compare_page import sentences

CONFIG = {
    "name": "compared",
    "models": {"m": {"source": {"kind": "local", "path": "tiny"}, "dtype": "float32"}},
    "language_sets": {"three": ["en", "fr", "vi"]},
    "corpus": {
        "source": {"kind": "mini"},
        "tokens": 1500,
        "heldout_tokens": 600,
        "heldout_fraction": 0.2,
        "block_size": 64,
        "heldout_block_size": 64,
    },
    "selections": {
        "varied": {"method": "mean_difference", "rate": 0.05},
        "kept": {"method": "magnitude"},
    },
    "interventions": {"zero": {"operation": "set", "value": 0}},
    "perplexity": {"interventions": ["zero"], "tokens": 300},
    "lss": {
        "source": {"kind": "mini"},
        "interventions": ["zero"],
        "selections": ["varied"],
        "limit": 6,
    },
    "tasks": {
        "xcopa": {
            "source": {"kind": "mini"},
            "languages": ["vi"],
            "interventions": ["zero"],
            "limit": 12,
        },
    },
}
RULES = ("select_neurons", "measure_perplexity", "measure_lss", "evaluate_task")


def made(folder, config):
    """Run what is compared of a configuration."""
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(config))
    files = [file for rule in RULES for file in STAGES[rule].files(build(config))]
    return run(folder, path, tuple(files))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return two finished runs of one model; one selection of the second is twice as large."""
    folder = tmp_path_factory.mktemp("runs")
    one, other = folder / "one", folder / "other"
    one.mkdir()
    save_tiny_model(one / "tiny")
    made(one, CONFIG)
    shutil.copytree(one, other)
    changed = copy.deepcopy(CONFIG)
    changed["selections"]["varied"]["rate"] = 0.1
    for name in ("neurons", "perplexity", "lss", "evaluation"):
        shutil.rmtree(other / "results" / "m" / name)
    made(other, changed)
    return one, other


def test_a_run_equals_itself(runs):
    found = compare(runs[0], runs[0] / "results")
    assert found.tables["settings"].empty and found.tables["only"].empty
    assert (found.tables["masks"]["jaccard"] == 1).all()
    assert set(found.tables) == {"settings", "only", "masks", "perplexity", "steering", "scores"}
    for name in ("perplexity", "steering", "scores"):
        frame = found.tables[name]
        assert len(frame) and (frame["difference"] == 0).all() and not frame["differs"].any()
        assert (frame["first"] == frame["second"]).all() and set(frame["pairing"]) == {"paired"}


def test_one_key_changes_what_depends_on_it_alone(runs):
    tables = compare(*runs).tables
    settings = tables["settings"]
    assert set(settings["key"]) == {"selection.rate"}
    assert settings[["job", "first", "second"]].to_dict("records") == [
        {"job": "select_neurons", "first": "0.05", "second": "0.1"}
    ]
    masks = tables["masks"].set_index(["selection", "lang"])
    assert (masks.loc["kept", "jaccard"] == 1).all()
    assert (masks.loc["varied", "first"] <= masks.loc["varied", "second"]).all()
    for lang in ("en", "fr", "vi"):  # the same neurons and as many more
        row = masks.loc[("varied", lang)]
        assert row["jaccard"] == row["first"] / row["second"] < 0.6
    for name in ("perplexity", "scores"):
        frame = tables[name]
        assert (frame[frame["selection"] == "kept"]["difference"] == 0).all()
        assert (frame[frame["selection"] == "varied"]["difference"] != 0).any() or name == "scores"
    untouched = tables["scores"][tables["scores"]["intervention"] == "none"]
    assert len(untouched) and (untouched["difference"] == 0).all()


def neurons_of(folder, name):
    return ln.Neurons.load(folder / f"results/m/neurons/en-fr-vi/{name}.parquet")


def test_masks_by_hand(runs):
    left, right = (neurons_of(one, "varied") for one in runs)
    masks = compare(*runs).tables["masks"].set_index(["selection", "lang"])
    for lang in left.languages:
        sets = [
            set(
                zip(
                    *(one.frame[one.frame["lang"] == lang][k] for k in ("layer", "neuron")),
                    strict=True,
                )
            )
            for one in (left, right)
        ]
        row = masks.loc[("varied", lang)]
        assert (row["first"], row["second"]) == (len(sets[0]), len(sets[1]))
        assert row["jaccard"] == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))


PLACE = "results/m/perplexity/corrected/en-fr-vi/varied.parquet"


def changes(path, deactivated, evaluated):
    """Return the change of NLL and the tokens of each document."""
    frame = read_parquet(path)[0]
    own = frame[frame["evaluated"] == evaluated].set_index("document").sort_index()
    before, after = (own[own["deactivated"] == one] for one in ("none", deactivated))
    return (after["nll"] - before["nll"]).to_numpy(), after["tokens"].to_numpy()


def test_perplexity_by_hand_paired_over_documents(runs):
    cells = compare(*runs).tables["perplexity"]
    cells = cells[cells["selection"] == "varied"].set_index(["deactivated", "evaluated"])
    (left, tokens), (right, same) = (changes(one / PLACE, "fr", "vi") for one in runs)
    assert (tokens == same).all()
    row = cells.loc[("fr", "vi")]
    assert row["first"] == pytest.approx(left.sum() / tokens.sum())
    assert row["second"] == pytest.approx(right.sum() / tokens.sum())
    expected = (right - left).sum() / tokens.sum()
    assert row["difference"] == pytest.approx(expected)
    n, rest = len(tokens), right - left - expected * tokens
    error = np.sqrt(n / (n - 1) * (rest**2).sum()) / tokens.sum()
    half = stats.t(n - 1).ppf(0.975) * error
    assert (row["low"], row["high"]) == pytest.approx((expected - half, expected + half))
    assert row["differs"] == (row["low"] > 0 or row["high"] < 0)
    assert row["pairing"] == "paired" and row["documents"] == n


@pytest.fixture
def copied(runs, tmp_path):
    """Return copies of both runs, which a test may change."""
    return [shutil.copytree(one, tmp_path / one.name) for one in runs]


def rewritten(path, change):
    frame, metadata = read_parquet(path)
    write_parquet(path, change(frame), metadata)


def test_other_documents_are_not_paired_and_it_is_said(copied, capsys):
    one, other = copied
    rewritten(other / PLACE, lambda frame: frame.assign(document="x" + frame["document"]))
    cells = compare(one, other).tables["perplexity"]
    cells = cells[cells["selection"] == "varied"].set_index(["deactivated", "evaluated"])
    row = cells.loc[("fr", "vi")]
    assert set(cells["pairing"]) == {"unpaired"}
    pairs = [changes(folder / PLACE, "fr", "vi") for folder in copied]
    ratios = [one.sum() / tokens.sum() for one, tokens in pairs]
    variances = [
        ((one - ratio * tokens) ** 2).sum() * len(one) / (len(one) - 1) / tokens.sum() ** 2
        for (one, tokens), ratio in zip(pairs, ratios, strict=True)
    ]
    parts = [v**2 / (len(one) - 1) for v, (one, _) in zip(variances, pairs, strict=True)]
    freedom = sum(variances) ** 2 / sum(parts)
    half = stats.t(freedom).ppf(0.975) * np.sqrt(sum(variances))
    assert row["difference"] == pytest.approx(ratios[1] - ratios[0])
    assert row["high"] - row["low"] == pytest.approx(2 * half)
    assert main(["compare", str(one), str(other)]) == 0
    assert "9 are not of the same texts or items, and are not paired" in capsys.readouterr().out


def test_finished_parts_beside_the_models_are_no_results(copied):
    one, other = copied
    for folder in copied:
        part = folder / "results/.work/neurons/ab/cdef.parquet"
        part.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(part, pd.DataFrame({"x": [1]}), {"key": "of a part"})
    found = compare(one, other)
    assert found.tables["only"].empty and "settings" in found.tables


def test_without_logs_the_settings_are_not_compared(copied):
    one, other = copied
    shutil.rmtree(other / "logs")
    found = compare(one, other)
    assert "settings" not in found.tables and "not known" in " ".join(found.remarks)
    assert "no key differs" not in " ".join(sentences(found))


def test_samples_of_their_own_are_paired_by_condition(copied):
    one, other = copied
    for folder in copied:
        path = folder / PLACE
        frame, metadata = read_parquet(path)
        moved = frame["document"].where(frame["deactivated"] == "none", "w" + frame["document"])
        write_parquet(path, frame.assign(document=moved), metadata | {"sampled": True})
    cells = compare(one, other).tables["perplexity"]
    cells = cells[cells["selection"] == "varied"]
    plain = compare(one, other).tables["perplexity"]
    assert (cells["pairing"] == "paired").all() and cells["low"].notna().all()
    np.testing.assert_allclose(cells["difference"], cells["second"] - cells["first"], atol=1e-9)
    rewritten(other / PLACE, lambda frame: frame.assign(document="y" + frame["document"]))
    cells = compare(one, other).tables["perplexity"]
    cells = cells[cells["selection"] == "varied"]
    assert set(cells["pairing"]) == {"none: four samples"} and cells["low"].isna().all()
    assert not cells["differs"].any() and len(plain) == 18


def scores_by_hand(path, metric):
    frame = read_parquet(path)[0]
    own = frame[(frame["intervention"] == "zero") & (frame["selection"] == "varied")]
    return own.set_index("item").sort_index()[metric]


def test_reading_that_could_stop_at_several_looks_is_corrected_on_both_sides(copied):
    one, other = copied
    plain = compare(one, other).tables["perplexity"]
    for folder, looks in zip(copied, (2, 3), strict=True):
        frame, metadata = read_parquet(folder / PLACE)
        until = {"width": 0.1, "looks": looks, "taken": looks, "documents": {}}
        write_parquet(folder / PLACE, frame, metadata | {"until": until})
    cells = compare(one, other).tables["perplexity"]
    varied = (plain["selection"] == "varied").to_numpy()
    pd.testing.assert_frame_equal(cells[~varied].drop(columns="p_holm"),
                                  plain[~varied].drop(columns="p_holm"))  # fmt: skip
    cells, plain = cells[varied], plain[varied]
    np.testing.assert_allclose(cells["p"], np.minimum(1.0, 6 * plain["p"]))
    n = plain["documents"].to_numpy()
    wider = stats.t(n - 1).ppf(1 - 0.025 / 6) / stats.t(n - 1).ppf(0.975)
    widths = [(frame["high"] - frame["low"]).to_numpy() for frame in (cells, plain)]
    inside = (plain[["low", "high"]] != 0).all(axis=1).to_numpy()  # few documents: held at 0
    assert inside.sum() > 5
    np.testing.assert_allclose(widths[0][inside], (wider * widths[1])[inside])


def test_scores_by_hand_paired_or_not(copied):
    one, other = copied
    place = "results/m/evaluation/corrected/base/xcopa/vi.parquet"
    drawn = np.random.default_rng(0)

    def scored(frame):
        return frame.assign(accuracy=drawn.integers(0, 2, len(frame)).astype(float))

    for folder in copied:
        rewritten(folder / place, scored)
    left, right = (scores_by_hand(folder / place, "accuracy") for folder in copied)

    def row():
        frame = compare(one, other).tables["scores"]
        kept = frame[(frame["selection"] == "varied") & (frame["intervention"] == "zero")]
        return kept[kept["metric"] == "accuracy"].iloc[0]

    found = row()
    assert (found["first"], found["second"]) == (left.mean(), right.mean())
    assert found["difference"] == pytest.approx(right.mean() - left.mean())
    lost, won = int((right < left).sum()), int((right > left).sum())
    assert found["p"] == pytest.approx(stats.binomtest(min(lost, won), lost + won).pvalue)
    assert found["pairing"] == "paired" and found["items"] == 12
    rewritten(other / place, lambda frame: frame.assign(item="x" + frame["item"].astype(str)))
    found = row()
    assert found["pairing"] == "unpaired"
    test = stats.ttest_ind(right, left, equal_var=False)
    spread = np.sqrt(left.var(ddof=1) / 12 + right.var(ddof=1) / 12)
    assert (found["high"] - found["low"]) / 2 == pytest.approx(spread * stats.t(test.df).ppf(0.975))


def test_the_steering_shift_by_hand(copied):
    one, other = copied
    place = "results/m/lss/corrected/en-fr-vi/varied.parquet"
    drawn = np.random.default_rng(1)

    def moved(frame):
        return frame.assign(target_after=frame["target_after"] + drawn.normal(size=len(frame)))

    rewritten(other / place, moved)
    cells = compare(one, other).tables["steering"].set_index(["base", "target"])
    for base, target in cells.index:
        shifted = []
        for folder in copied:
            frame = read_parquet(folder / place)[0]
            own = frame[(frame["base"] == base) & (frame["target"] == target) & ~frame["tie"]]
            own = own.set_index("fact").sort_index()
            margin = (own["target_after"] - own["own_after"]) - (
                own["target_before"] - own["own_before"]
            )
            shifted.append((margin > 0).to_numpy(float))
        row = cells.loc[(base, target)]
        assert row["difference"] == pytest.approx(shifted[1].mean() - shifted[0].mean())
        assert row["facts"] == len(shifted[0]) and row["low"] <= row["difference"] <= row["high"]


def test_two_models_are_compared_under_their_folders(copied):
    one, other = copied
    (other / "results/m").rename(other / "results/n")
    for path in (other / "results/n").glob("**/*.parquet"):
        frame, metadata = read_parquet(path)
        write_parquet(path, frame, metadata | {"model": "n"} if "model" in metadata else metadata)
    found = compare(one / "results/m", other / "results/n")
    assert found.remarks[0] == "Different models: m and n."
    assert len(found.tables["masks"]) == 8 and "model" not in found.tables["masks"]


def test_the_command_prints_and_writes(runs, tmp_path, capsys):
    page, folder = tmp_path / "page.html", tmp_path / "csv"
    given = [str(one) for one in runs]
    assert main(["compare", *given, "--html", str(page), "--csv", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "Settings: 1 key differs (selection.rate)." in shown
    assert "Masks: 3 of 6 are equal" in shown
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and text.count("<table>") == 5
    assert text.count('class="differs"') == sum(
        int(one["differs"].sum()) for one in compare(*runs).tables.values() if "differs" in one
    )
    names = {"settings", "only", "masks", "perplexity", "steering", "scores"}
    assert {path.stem for path in folder.iterdir()} == names
    cells = pd.read_csv(folder / "perplexity.csv")
    expected = compare(*runs).tables["perplexity"]
    np.testing.assert_array_equal(cells["difference"], expected["difference"])


def test_what_cannot_be_compared_is_told(runs, tmp_path, capsys):
    neurons = neurons_of(runs[0], "varied")
    neurons.save(tmp_path / "n")
    statistics = ln.Statistics.load(runs[0] / "results/m/activations")
    statistics.save(tmp_path / "s")
    (tmp_path / "empty").mkdir()
    (tmp_path / "none/results").mkdir(parents=True)
    for first, second, words in (
        (runs[0], tmp_path / "empty", "empty: there are no results of a run in it"),
        (runs[0], tmp_path / "none", "none: there are no results of a run in it"),
        (runs[0], tmp_path / "n", "n: a shared folder, but the other one is not"),
        (tmp_path / "n", tmp_path / "s", "holds neurons, .* holds statistics"),
    ):
        with pytest.raises(InputError, match=words):
            compare(first, second)
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        compare(tmp_path / "nowhere", runs[0])


def test_shared_folders_are_compared(runs, tmp_path):
    for name, one in zip(("a", "b"), runs, strict=True):
        neurons_of(one, "varied").save(tmp_path / name)
    found = compare(tmp_path / "a", tmp_path / "b").tables
    assert found["settings"]["key"].tolist() == ["parameters.rate"]
    expected = compare(*runs).tables["masks"].set_index("selection").loc["varied"]
    assert found["masks"]["jaccard"].tolist() == expected["jaccard"].tolist()
    statistics = ln.Statistics.load(runs[0] / "results/m/activations")
    statistics.save(tmp_path / "s")
    rows = compare(tmp_path / "s", tmp_path / "s").tables["statistics"]
    assert len(rows) == 9 and (rows["largest_gap"] == 0).all()
    arrays = {"en": np.ones((2, 4), np.float32), "fr": np.eye(2, 4, dtype=np.float32)}
    turned = {lang: -one for lang, one in arrays.items()}
    for name, given in (("d", arrays), ("e", turned)):
        ln.Directions(given, "m", "residual_in", "x").save(tmp_path / name)
    rows = compare(tmp_path / "d", tmp_path / "e").tables["directions"]
    assert rows["mean_cosine"].tolist() == pytest.approx([-1, -1])
