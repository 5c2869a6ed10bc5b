"""Slices of statistics, their sums, and selections made again on them, against sums by hand."""

import copy
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from labelled import labels
from scipy.stats import t as scipy_t
from test_collect import EVERYTHING, assert_same, measure, one_thread, tiny_corpus  # noqa: F401
from test_config import GOOD
from test_selection import from_counts, lape_by_hand
from test_variants import raw
from tiny import tiny_model

from langneurons.activations.merging import PooledStatistics, joined, merge
from langneurons.activations.settings import StatisticsConfig
from langneurons.activations.statistics import Mismatch, Statistics
from langneurons.activations.stored import KeptArrays
from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import write_parquet
from langneurons.config.load import build
from langneurons.jobs.parameters import stage
from langneurons.jobs.stages import STAGES
from langneurons.jobs.stages.activations import slice_files, slice_names
from langneurons.jobs.statistics import check_slices
from langneurons.reporting.agreement import ends, mean_over, replicated
from langneurons.reporting.figures.stability import draw_stability
from langneurons.reporting.hypotheses import Evidence, judged
from langneurons.reporting.kinds import KINDS
from langneurons.reporting.tables.stability import stability_summary, tabulate_stability
from langneurons.selection.method import More
from langneurons.selection.methods import METHODS
from langneurons.selection.stability import OtherSet, agreement, draws, measure_stability
from langneurons.selection.stability_settings import (
    BOOTSTRAP,
    BUDGET,
    HALVES,
    StabilityConfig,
    compared,
    matched,
)
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
        "statistics": {"slices": 10, "batch_blocks": 1},
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
            statistics={"slices": 4, "shards": 2, "batch_blocks": 1, "document_means": ["act"]},
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


# Other sets ---------------------------------------------------------------------------------------


def test_languages_are_matched_by_themselves_or_by_their_base():
    native, romanised = ["en", "hi", "zh", "de"], ["en", "fr", "hi@romanised", "zh@romanised"]
    pairs = matched(native, romanised)
    assert pairs == {"en": "en", "hi": "hi@romanised", "zh": "zh@romanised"}
    assert compared(pairs) == {"hi": "hi@romanised", "zh": "zh@romanised"}
    assert matched(romanised, native)["hi@romanised"] == "hi"
    same = matched(["en", "hi"], ["hi", "en", "fr"])
    assert same == compared(same) == {"en": "en", "hi": "hi"}
    assert matched(["hi", "hi@a"], ["hi", "hi@b"]) == {"hi": "hi", "hi@a": "hi@b"}
    assert matched(["en"], ["fr"]) == {}
    with pytest.raises(ValueError, match="hi of one and hi@a, hi@b of the other are all 'hi'"):
        matched(["en", "hi"], ["hi@a", "hi@b"])


def another(seed, same, languages=("de@x", "en@x", "fr@x")):
    found = sliced_counts(seed, languages)
    pairs = {lang.partition("@")[0]: lang for lang in languages}
    return OtherSet("order", found, pairs, same)


def test_another_set_is_compared_on_all_slices_and_on_draws_of_both():
    slices, other = sliced_counts(1), another(2, True)
    lape = {"lape": selection("lape", **LAPE)}
    frame = measure_stability(lape, slices, SETTINGS, More(), [other])
    plain = frame[frame["kind"] != "order"].reset_index(drop=True)
    pd.testing.assert_frame_equal(plain, measured(slices))
    drawn = [range(N_SLICES), *[d[2] for d in draws(SETTINGS, N_SLICES) if d[0] == BOOTSTRAP]]
    own = frame[frame["kind"] == "order"].set_index(["draw", "lang"])
    assert set(own.index) == {(n, lang) for n in range(5) for lang in ("de", "en", "fr")}
    for number, chosen in enumerate(drawn):
        tables = [
            lape["lape"].select({k: summed([v[i] for i in chosen]) for k, v in one.items()})
            for one in (slices, other.slices)
        ]
        for lang in ("de", "en", "fr"):
            one, two = (
                set(map(tuple, t[t["lang"] == name][["layer", "neuron"]].to_numpy()))
                for t, name in zip(tables, (lang, f"{lang}@x"), strict=True)
            )
            row = own.loc[number, lang]
            assert row["other"] == f"{lang}@x" and row["shared"] == len(one & two)
            assert row["jaccard"] == pytest.approx(len(one & two) / len(one | two))
            by_layer = [
                [sum(layer == k for k, _ in part) for layer in range(3)] for part in (one, two)
            ]
            expected = sum(a * b for a, b in zip(*by_layer, strict=True)) / 40
            assert row["chance"] == pytest.approx(expected / (len(one) + len(two) - expected))
    apart = measure_stability(lape, slices, SETTINGS, More(), [another(2, False)])
    apart = apart[apart["kind"] == "order"].set_index(["draw", "lang"])
    assert apart.loc[0].equals(own.loc[0]) and not apart.loc[1:].equals(own.loc[1:])


def test_a_set_is_itself_under_another_name():
    slices = sliced_counts(3)
    renamed = {f"{lang}@x": [_renamed(one, f"{lang}@x") for one in v] for lang, v in slices.items()}
    other = OtherSet("order", renamed, {lang: f"{lang}@x" for lang in slices}, True)
    frame = measure_stability(
        {"lape": selection("lape", **LAPE)}, slices, SETTINGS, More(), [other]
    )
    assert (frame.loc[frame["kind"] == "order", "jaccard"] == 1).all()
    other.slices["de@x"].pop()
    with pytest.raises(ValueError, match="languages of"):
        measure_stability({"lape": selection("lape", **LAPE)}, slices, SETTINGS, More(), [other])


def _renamed(one, lang):
    return Statistics(one.arrays, one.header | {"lang": lang}, "renamed")


def compared_config(**comparisons):
    given = config(stability={"selections": ["lape", "write"], "comparisons": comparisons})
    given["language_sets"] = {
        "native": ["en", "hi", "es"],
        "changed": ["en", "hi@random", "fr"],
        "wide": ["en", "hi", "es", "fr"],
        "apart": ["fr", "vi"],
        "twice": ["fr", "hi@random", "hi@shuffled"],
    }
    given["corpus"]["variants"] = {
        "random": {"kind": "random_tokens"},
        "shuffled": {"kind": "shuffled_words"},
    }
    given["selections"]["write"]["language_sets"] = ["native", "wide", "changed"]
    return given


def test_a_comparison_follows_from_the_configuration():
    made = build(compared_config(tokens=["native", "changed"], set=["native", "wide"]))
    folder = made.directory("native")
    cell = {"model": "tiny", "langset": folder, "selection": "lape"}
    one, two = stage(made, "measure_stability", **cell)["comparisons"]
    assert one["pairs"] == {"hi": "hi@random"} and one["unmatched"] == ["es", "fr"]
    assert not one["same"] and one["languages"] == ["en", "fr", "hi@random"]
    assert two["pairs"] == {"en": "en", "es": "es", "hi": "hi"} and two["same"]
    assert two["unmatched"] == ["fr"]
    cell["langset"] = made.directory("wide")
    assert stage(made, "measure_stability", **cell)["comparisons"] == []


@pytest.mark.parametrize(
    ("comparisons", "said"),
    [
        ({"order": ["native", "wider"]}, "Did you mean 'wide'?"),
        ({"order": ["native", "native"]}, "'native' and 'native' are the same languages"),
        ({"order": ["native", "apart"]}, "have no language in common, nor variants of one"),
        ({"order": ["native", "twice"]}, "hi of one and hi@random, hi@shuffled of the other"),
        ({"halves": ["native", "wide"]}, "'halves' is a kind of draw"),
        ({"a/b": ["native", "wide"]}, "name 'a/b': names hold letters"),
    ],
)
def test_comparisons_of_nothing_are_refused(comparisons, said):
    with pytest.raises(ConfigError) as error:
        build(compared_config(**comparisons))
    assert said in str(error.value)


def test_a_comparison_that_no_selection_is_made_on_is_refused():
    given = compared_config(order=["native", "wide"])
    for name in ("ap", "control", "both", "effect"):
        del given["selections"][name]
    given["selections"]["lape"]["language_sets"] = ["native", "changed"]
    given["selections"]["write"]["language_sets"] = ["changed"]
    with pytest.raises(ConfigError, match="no selection of `stability` is measured on 'native'"):
        build(given)


def test_the_range_of_a_comparison_lies_around_all_slices():
    own = pd.DataFrame({"draw": [0, 2, 1, 3], "jaccard": [0.8, 0.5, 0.6, 0.7]})
    value, changes = replicated(own, "jaccard", True)
    assert value == 0.8 and list(changes) == pytest.approx([0.0, -0.1, 0.1])
    assert ends(value, changes, 1.0, "jaccard") == pytest.approx((0.7, 0.9))
    assert ends(0.05, changes, 1.0, "jaccard") == pytest.approx((0.0, 0.15))
    assert ends(0.05, changes, 1.0, "cosine") == pytest.approx((-0.05, 0.15))
    value, changes = replicated(own, "jaccard", False)
    assert value == pytest.approx(0.65) and len(changes) == 4
    mean, together = mean_over([(0.8, np.array([0.1, -0.1])), (0.4, np.array([0.1, np.nan]))])
    assert mean == pytest.approx(0.6) and list(together) == pytest.approx([0.1, -0.1])
    assert np.isnan(ends(0.5, np.array([0.0]), 0.9, "jaccard")).all()


# Shown --------------------------------------------------------------------------------------------


NOTHING = {"unmatched": {}}


def records():
    slices = sliced_counts(2)
    cell = {"model": "tiny", "languages": "de-en-fr", "selection": "lape"}
    return cell, measured(slices, SETTINGS.model_copy(update={"draws": 9}))


def test_the_table_holds_means_and_the_range_of_the_draws(tmp_path):
    cell, frame = records()
    table = stability_summary([(cell, frame, NOTHING)], 0.5)
    halves = table[(table["kind"] == HALVES) & (table["lang"] == "de")].iloc[0]
    values = sorted(frame[(frame["kind"] == HALVES) & (frame["lang"] == "de")]["jaccard"])
    assert halves["jaccard"] == pytest.approx(sum(values) / 9) and halves["draws"] == 9
    assert (halves["low"], halves["high"]) == (values[2], values[6])
    budget = table[table["kind"] == BUDGET]
    assert budget["low"].isna().all() and set(budget["share"]) == {0.5, 1.0}
    assert "cosine" not in table
    path = tmp_path / "results/tiny/stability/de-en-fr/lape.parquet"
    names = {"model": "tiny", "langset": "de-en-fr", "selection": "lape"}
    write_parquet(path, frame, names | NOTHING)
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
    summary = stability_summary([(cell, frame, NOTHING)], 0.95)
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


def test_table_and_figure_hold_comparisons(tmp_path):
    chosen = {"lape": selection("lape", **LAPE)}
    frame = measure_stability(chosen, sliced_counts(1), SETTINGS, More(), [another(2, True)])
    path = tmp_path / "results/tiny/stability/de-en-fr/lape.parquet"
    names = {"model": "tiny", "langset": "de-en-fr", "selection": "lape"}
    write_parquet(path, frame, names | {"unmatched": {"order": ["vi"]}})
    shown = labels(
        models={"tiny": "Tiny"},
        sets={"de-en-fr": "three"},
        language_sets={"three": ["de", "en", "fr"], "turned": ["de@x", "en@x", "fr@x"]},
        language_names={f"{lang}@x": f"{lang}, words turned" for lang in ("de", "en", "fr")},
        selections={"lape": "LAPE"},
        comparisons={"order": ["three", "turned"], "unmade": ["four", "five"]},
        results={"confidence": 0.95},
        sequence={"models": ["tiny"], "selections": ["lape"], "interventions": []},
    )
    tabulate_stability([str(path)], shown, tmp_path)
    table = pd.read_csv(tmp_path / "stability.csv")
    row = table[(table["kind"] == "order") & (table["lang"] == "de")].iloc[0]
    whole = frame[(frame["kind"] == "order") & (frame["draw"] == 0) & (frame["lang"] == "de")]
    assert row["jaccard"] == pytest.approx(whole["jaccard"].item()) and row["draws"] == 4
    assert row["other"] == "de@x" and row["low"] <= row["jaccard"] <= row["high"]
    said = (tmp_path / "stability.md").read_text()
    assert "order: three and turned (without a match: vi)" in said and "four" not in said
    cell = {"model": "tiny", "languages": "three"}
    KINDS["comparisons"].draw([str(path)], cell, shown, str(tmp_path / "drawn"))
    svg = (tmp_path / "drawn.svg").read_text()
    assert "the other half of the text:" in svg and "chance: random neurons:" in svg
    whole = frame[(frame["kind"] == "order") & (frame["draw"] == 0)]
    assert f"same languages: words turned, de: {row['jaccard']:.3f}" in svg
    assert f"same languages: words turned: {whole['jaccard'].mean():.3g}" in svg
    assert "set 'three' (3 languages)" in svg.replace("&#x27;", "'").replace("&apos;", "'")


# Hypotheses ---------------------------------------------------------------------------------------

HYPOTHESIS = dict.fromkeys(("method", "over", "variant", "selection", "comparison", "language_set"))
HYPOTHESIS |= {"says": "x", "measure": "jaccard", "selection": "lape", "direction": "above"}
DRAWN = {"kind": "order", "cosine": math.nan, "chance": 0.0}
AGREED = pd.DataFrame(
    [
        DRAWN | {"draw": draw, "lang": lang, "jaccard": base + change}
        for lang, base in (("aa", 0.9), ("bb", 0.8), ("cc", 0.7))
        for draw, change in enumerate((0.0, -0.11, -0.1, -0.09))
    ]
    + [DRAWN | {"kind": HALVES, "draw": 0, "lang": lang, "jaccard": 0.6} for lang in ("aa", "bb")]
)


def judged_by(comparison, threshold, frame=AGREED, **more):
    evidence = Evidence(
        {},
        {},
        {"bootstrap": 4000, "seed": 0, "confidence": 0.95, "alpha": 0.05},
        {("m", "set", "lape"): (frame, {"unmatched": {"order": []}})},
    )
    entry = HYPOTHESIS | {"comparison": comparison, "threshold": threshold} | more
    return judged({"h": entry}, evidence, {"set": "set", "other": "other"})


def test_jaccard_of_a_hypothesis_is_the_mean_over_languages():
    row = judged_by("order", 0.5).iloc[0]
    assert (
        row["value"] == pytest.approx(0.8) and row["units"] == 3 and row["about"] == "lape / order"
    )
    # By hand: variance over languages (drawn again) and over draws of slices, which all share.
    between = np.var([0.9, 0.8, 0.7]) / 3 + np.var([-0.01, 0.0, 0.01])
    half = scipy_t.ppf(0.975, 2) * math.sqrt(between * 3 / 2)
    assert row["low"] == pytest.approx(0.8 - half, abs=0.01)
    assert row["high"] == pytest.approx(0.8 + half, abs=0.01)
    assert row["verdict"] == "supported"
    assert judged_by("order", 0.79).iloc[0]["verdict"] == "undecided"
    assert judged_by("order", 0.5, direction="below").iloc[0]["verdict"] == "refuted"
    assert judged_by(HALVES, 0.5).iloc[0]["value"] == pytest.approx(0.6)
    assert judged_by("order", 0.5, language_set="other").empty
    assert judged_by("unmade", 0.5).empty
    none = AGREED.assign(jaccard=math.nan)
    assert judged_by("order", 0.5, none).iloc[0]["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"comparison": "orders"}, "'orders' is not a known comparison of `stability`"),
        ({"comparison": "halves", "selection": "ap"}, "'ap' is not a known selection of `stab"),
        ({"language_set": "wide"}, "'order' of selection 'lape' is not measured on 'wide'"),
        ({"selection": "write"}, "'order' of selection 'write' is not measured on any"),
        ({"selection": "write", "comparison": "halves"}, None),
        ({"comparison": None}, "comparison: missing; measure jaccard needs it"),
    ],
)
def test_hypotheses_of_comparisons_are_checked(changes, said):
    given = compared_config(order=["native", "wide"])
    given["selections"]["write"]["language_sets"] = ["native"]
    entry = {"says": "x", "measure": "jaccard", "selection": "lape", "comparison": "order"}
    given["hypotheses"] = {"h": entry | {"direction": "above", "threshold": 0.5} | changes}
    if said is None:
        assert "h" in build(given).hypotheses
        return
    with pytest.raises(ConfigError) as error:
        build(given)
    assert said in str(error.value)


def test_slices_of_uneven_number_are_refused():
    slices = sliced_counts()
    slices["de"].pop()
    with pytest.raises(ValueError, match=r"languages of \[5, 6\] slices"):
        measured(slices)


def test_slices_that_a_text_cannot_fill_are_refused():
    corpus = tiny_corpus(12)
    for batch_blocks in (1, 12):  # blocks of documents are shared out, however many make a batch
        check_slices(corpus, StatisticsConfig(slices=12, batch_blocks=batch_blocks))
    with pytest.raises(InputError, match=r"12 blocks of identification text, fewer than .*: 13"):
        check_slices(corpus, StatisticsConfig(slices=13, batch_blocks=1))
    corpus.identification.lengths[:] = corpus.identification.tokens.shape[1]
    with pytest.raises(InputError, match=r"3 batches of identification text, fewer than .*: 4"):
        check_slices(corpus, StatisticsConfig(slices=4, batch_blocks=4))


def test_more_slices_than_batches_are_refused_before_any_job():
    raw = copy.deepcopy(GOOD)
    raw["corpus"] = raw.get("corpus", {}) | {"tokens": 1000, "block_size": 101}
    raw["statistics"] = raw.get("statistics", {}) | {"batch_blocks": 5, "slices": 2}
    assert build(raw).statistics.slices == 2
    raw["statistics"]["slices"] = 3
    with pytest.raises(ConfigError, match="slices: 3 of 1000 tokens in batches of 500; .*up to 2"):
        build(raw)
