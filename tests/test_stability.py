"""Slices of statistics, their sums, and selections made again on them, against sums by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from labelled import labels
from test_collect import EVERYTHING, assert_same, measure, one_thread  # noqa: F401
from test_selection import from_counts, lape_by_hand
from test_variants import raw
from tiny import tiny_model

from langneurons.activations.merging import PooledStatistics, joined, merge
from langneurons.activations.statistics import Mismatch, Statistics
from langneurons.activations.stored import KeptArrays
from langneurons.base.errors import ConfigError
from langneurons.base.io import write_parquet
from langneurons.config.load import build
from langneurons.jobs.parameters import stage
from langneurons.jobs.stages import STAGES
from langneurons.jobs.stages.activations import slice_files, slice_names
from langneurons.reporting.figures.stability import draw_stability
from langneurons.reporting.kinds import KINDS
from langneurons.reporting.tables.stability import stability_summary, tabulate_stability
from langneurons.selection.method import More
from langneurons.selection.methods import METHODS
from langneurons.selection.stability import (
    BOOTSTRAP,
    BUDGET,
    HALVES,
    agreement,
    draws,
    measure_stability,
)
from langneurons.selection.stability_settings import StabilityConfig
from langneurons.selection.table import NeuronTable

N_SLICES = 6


def blocks(number):
    """Return header values of a part that covers one block."""
    return {"blocks": [number, number + 1], "corpus_blocks": N_SLICES, "batches": 1}


def sliced_counts(seed=0, languages=("de", "en", "fr"), same=False):
    """Return slices of counts by language; with `same` all of a language are equal."""
    rng = np.random.default_rng(seed)
    found = {}
    for lang in languages:
        base = rng.beta(0.3, 2.0, (3, 40))
        found[lang] = []
        for number in range(N_SLICES):
            tokens = 500 if same else int(rng.integers(400, 600))
            share = base if same else np.clip(base + rng.normal(0, 0.05, base.shape), 0, 1)
            counts = (share * tokens).astype(np.int64)
            found[lang].append(from_counts(lang, counts, tokens, **blocks(number)))
    return found


def summed(parts):
    """Return the statistics of parts, added by hand."""
    counts = sum(part.positive("act") for part in parts)
    return from_counts(parts[0].lang, counts, sum(part.tokens for part in parts))


def selection(method, **parameters):
    return METHODS[method].model_validate({"method": method, **parameters})


LAPE = {"rate": 0.1, "filter_level": 0.7, "assign_level": 0.7}
SETTINGS = StabilityConfig(selections=("lape",), draws=4, budgets=(0.5, 1.0))


def measured(slices, settings=SETTINGS, **selections):
    chosen = selections or {"lape": selection("lape", **LAPE)}
    return measure_stability(chosen, slices, settings, More())


# Slices -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_slices", [2, 4])
def test_slices_make_the_whole_to_the_bit(n_slices, tmp_path):
    model = tiny_model("llama")
    whole = measure(model)
    slices = [measure(model, shard=number, n_shards=n_slices) for number in range(n_slices)]
    assert_same(merge(slices), whole)
    assert sum(one.tokens for one in slices) == whole.tokens
    # Those of a shard are the shard, wherever it begins.
    half = n_slices // 2
    for shard in range(2):
        own = slices[shard * half : (shard + 1) * half]
        expected = measure(model, shard=shard, n_shards=2)
        assert_same(joined(reversed(own)), expected)
    with pytest.raises(Mismatch, match="expected 0"):
        merge(slices[1:])


def test_pooled_parts_are_the_sums_of_their_integers(tmp_path):
    model = tiny_model("llama")
    settings = EVERYTHING.model_copy(update={"batch_blocks": 1})
    whole = measure(model, settings)
    slices = [measure(model, settings, shard=number, n_shards=3) for number in range(3)]
    for number, one in enumerate(slices):
        one.write(tmp_path / f"{number}.safetensors")
    stored = [Statistics.read(tmp_path / f"{number}.safetensors") for number in range(3)]
    for one in stored:
        one.arrays = KeptArrays(one.arrays)
    everything = PooledStatistics(stored)
    twice = PooledStatistics([stored[2], stored[0], stored[2]])
    assert everything.tokens == whole.tokens and everything.blocks == whole.blocks
    for site, name in itertools.product(("gate", "act"), ("mean", "std", "abs_mean", "min", "max")):
        np.testing.assert_array_equal(everything.value(name, site), whole.value(name, site))
    np.testing.assert_array_equal(everything.positive("act"), whole.positive("act"))
    np.testing.assert_array_equal(everything.histogram("gate"), whole.histogram("gate"))
    for layer in range(whole.shape[0]):
        np.testing.assert_array_equal(
            everything.layer_histogram(layer, "gate"), whole.layer_histogram(layer, "gate")
        )
    threshold = whole.pooled_quantile(0.9, "gate", by_layer=True)
    np.testing.assert_array_equal(everything.pooled_quantile(0.9, "gate", by_layer=True), threshold)
    np.testing.assert_array_equal(
        everything.exceedance(threshold, "gate"), whole.exceedance(threshold, "gate")
    )
    np.testing.assert_array_equal(everything.quantile(0.9, "gate"), whole.quantile(0.9, "gate"))
    level = whole.header["batch_quantiles"][0]
    np.testing.assert_array_equal(everything.batch_quantile(level), whole.batch_quantile(level))
    # A part that is drawn twice counts twice.
    for array in ("positive", "sum", "square", "histogram_pooled"):
        expected = slices[0].arrays[f"gate.{array}"] + 2 * slices[2].arrays[f"gate.{array}"]
        np.testing.assert_array_equal(twice.arrays[f"gate.{array}"], expected)
    assert twice.tokens == slices[0].tokens + 2 * slices[2].tokens
    below, within = twice._around("gate", np.full(whole.shape[0], 150))
    counts = slices[0].histogram("gate") + 2 * slices[2].histogram("gate")
    np.testing.assert_array_equal(below, counts[..., :150].sum(-1))
    np.testing.assert_array_equal(within, counts[..., 150])
    with pytest.raises(ValueError, match="no means per document"):
        twice.document_means("act")
    assert twice.digest != everything.digest == PooledStatistics(stored[::-1]).digest


def test_parts_of_different_corpora_are_not_pooled():
    slices = sliced_counts()
    with pytest.raises(Mismatch, match="disagree on lang"):
        PooledStatistics([slices["de"][0], slices["en"][1]])


# Draws --------------------------------------------------------------------------------------------


def test_draws_are_halves_beginnings_and_bootstrap_samples():
    settings = StabilityConfig(selections=("a",), draws=50, budgets=(1.0, 0.2, 0.6))
    found = {kind: [] for kind in (HALVES, BUDGET, BOOTSTRAP)}
    for kind, number, chosen, other in draws(settings, 5):
        assert number == len(found[kind])
        found[kind].append((list(chosen), other))
    for one, two in found[HALVES]:
        assert len(one) == len(two) == 2 and not set(one) & set(two)
    assert {i for one, two in found[HALVES] for i in (*one, *two)} == set(range(5))
    assert [one for one, _ in found[BUDGET]] == [[0], [0, 1, 2], [0, 1, 2, 3, 4]]
    assert all(len(one) == 5 for one, _ in found[BOOTSTRAP])
    drawn = np.bincount([i for one, _ in found[BOOTSTRAP] for i in one], minlength=5)
    assert drawn.sum() == 250 and (abs(drawn - 50) < 6 * math.sqrt(40)).all()
    assert any(len(set(one)) < 5 for one, _ in found[BOOTSTRAP])
    again = [(kind, n, list(one)) for kind, n, one, _ in draws(settings, 5)]
    assert again == [(kind, n, list(one)) for kind, n, one, _ in draws(settings, 5)]
    other = settings.model_copy(update={"seed": 1})
    assert again != [(kind, n, list(one)) for kind, n, one, _ in draws(other, 5)]


@pytest.mark.parametrize("seed", range(20))
def test_records_are_those_of_sums_by_hand(seed):
    slices = sliced_counts(seed)
    frame = measured(slices).set_index(["kind", "draw", "lang"])

    def sets(chosen):
        statistics = {lang: summed([slices[lang][i] for i in chosen]) for lang in slices}
        found = lape_by_hand(statistics, *LAPE.values())
        return {lang: set(one) for lang, one in found.items()}

    whole = sets(range(N_SLICES))
    for kind, number, chosen, other in draws(SETTINGS, N_SLICES):
        first, second = sets(chosen), whole if other is None else sets(other)
        for lang in slices:
            row = frame.loc[kind, number, lang]
            one, two = first[lang], second[lang]
            assert (row["neurons"], row["other_neurons"]) == (len(one), len(two))
            assert row["shared"] == len(one & two)
            union = len(one | two)
            assert row["jaccard"] == len(one & two) / union if union else math.isnan(row["jaccard"])
            assert row["tokens"] == sum(slices[lang][i].tokens for i in chosen)
            assert row["share"] == pytest.approx(len(chosen) / N_SLICES)
    assert frame["cosine"].isna().all() and len(frame) == 3 * (4 + 2 + 4)
    whole = frame.sort_index().loc[BUDGET, 1]
    assert (whole["jaccard"].dropna() == 1).all() and (whole["shared"] == whole["neurons"]).all()
    assert (frame.loc[HALVES]["jaccard"] < 1).any()


def test_equal_slices_give_one_and_the_order_of_languages_changes_nothing():
    frame = measured(sliced_counts(same=True))
    assert (frame["jaccard"] == 1).all() and (frame["neurons"] > 0).all()
    slices = sliced_counts(3)
    turned = dict(reversed(slices.items()))
    pd.testing.assert_frame_equal(measured(slices), measured(turned))


def test_a_selection_is_made_with_those_that_it_depends_on():
    slices = sliced_counts(1)
    chosen = {
        "lape": selection("lape", **LAPE),
        "wide": selection("lape", **LAPE | {"rate": 0.3}),
        "both": selection("combined", selections=["lape", "wide"]),
    }
    both = measured(slices, **chosen)
    alone = measured(slices)
    pd.testing.assert_frame_equal(both, alone)  # the smaller rate is within the larger


def test_directions_are_compared_by_their_cosine():
    def table(values):
        rows = [("de", layer, k, v) for layer, row in enumerate(values) for k, v in enumerate(row)]
        frame = pd.DataFrame(rows, columns=["lang", "layer", "neuron", "score"])
        metadata = {"languages": ["de"], "n_layers": 2, "d_mlp": 8}
        return NeuronTable(frame, metadata | {"units": "dimensions", "width": 2})

    one, two = table([[1.0, 0.0], [3.0, 4.0]]), table([[1.0, 1.0], [6.0, 8.0]])
    found = agreement(one, two, "de")
    assert found["cosine"] == pytest.approx((1 / math.sqrt(2) + 1) / 2)
    assert agreement(one, one, "de")["cosine"] == pytest.approx(1)


# Configuration ------------------------------------------------------------------------------------


def config(**changes):
    given = {
        "statistics": {"slices": 10},
        "stability": {"selections": ["lape"]},
        "selections": {
            "lape": {"method": "lape"},
            "ap": {"method": "average_precision", "like": "lape"},
            "control": {"method": "random", "like": "lape"},
            "both": {"method": "combined", "selections": ["lape", "ap"]},
            "effect": {"method": "attribution"},
            "write": {"method": "write_score"},
        },
    }
    given["statistics"]["document_means"] = ["act"]
    return raw(**given | changes)


REFUSED = [
    ({"statistics": {}}, "stability: statistics.slices is 1; halves need 2 or more"),
    ({"statistics": {"slices": 3, "shards": 2}}, "slices: 3; each of the 2 shards holds whole"),
    ({"stability": {"selections": ["lapee"]}}, "'lapee' is not a known selection"),
    ({"stability": {"selections": ["control"]}}, "'control': it is drawn, and follows from no"),
    ({"stability": {"selections": ["both"]}}, "'both', which reads 'ap': average_precision reads"),
    ({"stability": {"selections": ["effect"]}}, "attribution reads attributions, of which no"),
    (
        {"stability": {"selections": ["lape"], "budgets": [0.25, 1.0]}},
        "stability.budgets: 0.25 of 10 slices is not whole slices; legal: multiples of 1/10",
    ),
    ({"stability": {"selections": ["lape"], "budgets": [0.5, 0.5]}}, "0.5 listed more than once"),
    ({"stability": {"selections": ["lape"], "language_sets": ["al"]}}, "Did you mean 'all'?"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_slices_cannot_answer_is_refused(changes, said):
    base = {"selections": {"lape": {"method": "lape"}}} if "statistics" in changes else {}
    with pytest.raises(ConfigError) as error:
        build(config(**base, **changes))
    assert said in str(error.value)


def test_a_shard_holds_whole_slices():
    made = build(config(stability={"selections": ["lape", "write"]}))
    assert slice_names(made) == [str(number) for number in range(10)]
    files = slice_files(made, "tiny", ["hi@random"])
    assert files[3] == "results/tiny/slices/hi@random/3.safetensors" and len(files) == 10
    sharded = build(
        config(
            statistics={"slices": 4, "shards": 2, "document_means": ["act"]},
            stability={"selections": ["lape"], "budgets": [0.5, 1]},
        )
    )
    assert slice_names(sharded, "1") == ["1.0", "1.1"]
    assert [path.split("/")[-1] for path in slice_files(sharded, "tiny", ["en"])] == [
        *("0.0.safetensors", "0.1.safetensors"),
        *("1.0.safetensors", "1.1.safetensors"),
    ]
    cells = list(STAGES["measure_stability"].cells(made))
    assert [cell["selection"] for cell in cells] == ["lape", "write"]
    parameters = stage(made, "measure_stability", **cells[0])
    assert parameters["selections"] == [["lape", made.selections["lape"].identity()]]


# Shown --------------------------------------------------------------------------------------------


def records():
    slices = sliced_counts(2)
    cell = {"model": "tiny", "languages": "de-en-fr", "selection": "lape"}
    return cell, measured(slices, SETTINGS.model_copy(update={"draws": 9}))


def test_the_table_holds_means_and_the_range_of_the_draws(tmp_path):
    cell, frame = records()
    table = stability_summary([(cell, frame)], 0.5)
    halves = table[(table["kind"] == HALVES) & (table["lang"] == "de")].iloc[0]
    values = sorted(frame[(frame["kind"] == HALVES) & (frame["lang"] == "de")]["jaccard"])
    assert halves["jaccard"] == pytest.approx(sum(values) / 9) and halves["draws"] == 9
    assert (halves["low"], halves["high"]) == (values[2], values[6])
    budget = table[table["kind"] == BUDGET]
    assert budget["low"].isna().all() and set(budget["share"]) == {0.5, 1.0}
    assert "cosine" not in table
    path = tmp_path / "results/tiny/stability/de-en-fr/lape.parquet"
    names = {"model": "tiny", "langset": "de-en-fr", "selection": "lape"}
    write_parquet(path, frame, names)
    shown = labels(
        models={"tiny": "Tiny"},
        sets={"de-en-fr": "three"},
        language_sets={"three": ["de", "en", "fr"]},
        selections={"lape": "LAPE"},
        results={"confidence": 0.95},
        sequence={"models": ["tiny"], "selections": ["lape"], "interventions": []},
    )
    tabulate_stability([str(path)], shown, tmp_path)
    cell = {"model": "tiny", "languages": "three"}
    KINDS["stability"].draw([str(path)], cell, shown, str(tmp_path / "drawn"))
    assert (tmp_path / "drawn.svg").stat().st_size > 0
    written = pd.read_csv(tmp_path / "stability.csv")
    assert set(written["selection"]) == {"LAPE"} and len(written) == 3 * (1 + 2 + 1)


def test_the_figure_has_a_line_and_a_mark_per_language(tmp_path, monkeypatch):
    from langneurons.reporting.figures import stability as drawn

    kept = {}
    plain = drawn.add_panels

    def panels(*given, **more):
        kept["axes"] = plain(*given, **more)
        return kept["axes"]

    monkeypatch.setattr(drawn, "add_panels", panels)
    cell, frame = records()
    summary = stability_summary([(cell, frame)], 0.95)
    draw_stability(summary, ["fr", "en", "de"], "Tiny", tmp_path / "stability", {"de": "German"})
    (axis,) = kept["axes"]
    curves = [line for line in axis.get_lines() if len(line.get_xdata()) == 2]
    budget = summary[summary["kind"] == BUDGET]
    for lang, line in zip(("fr", "en", "de"), curves, strict=False):
        own = budget[budget["lang"] == lang].sort_values("tokens")
        assert list(line.get_xdata()) == list(own["tokens"])
        assert list(line.get_ydata()) == list(own["jaccard"])
    marks = [line for line in axis.get_lines() if len(line.get_xdata()) == 1]
    assert len(marks) == 3 and (tmp_path / "stability.svg").stat().st_size > 0
    svg = (tmp_path / "stability.svg").read_text()
    assert "de, halves:" in svg and "German (de)" in svg


def test_slices_of_uneven_number_are_refused():
    slices = sliced_counts()
    slices["de"].pop()
    with pytest.raises(ValueError, match=r"languages of \[5, 6\] slices"):
        measured(slices)
