"""Selection methods against references written out from the papers' definitions."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from langneurons.activations import histogram as bins
from langneurons.activations.statistics import LIMB, Mismatch, Statistics, histogram_arrays
from langneurons.selection.methods import METHODS
from langneurons.selection.methods.lape import bar, entropy
from langneurons.selection.run import run_selection
from langneurons.selection.table import NeuronTable

N_LAYERS, D_MLP = 3, 40
N_DOCUMENTS = 8
LANGUAGES = ("de", "en", "fr", "sw")


def header(lang: str, tokens: int, shape: tuple[int, int], **values) -> dict:
    same = {"model": "tiny", "revision": "0", "nonlinearity": "silu", "sites": ["gate", "act"]}
    layout = {"histograms": [], "batch_quantiles": [], "n_layers": shape[0], "d_mlp": shape[1]}
    return same | layout | {"lang": lang, "tokens": tokens} | values


def from_counts(lang: str, counts, tokens: int, **values) -> Statistics:
    counts = np.asarray(counts)
    arrays = {"act.positive": counts, "gate.positive": counts}
    return Statistics(arrays, header(lang, tokens, counts.shape, **values))


def from_values(lang: str, gate: np.ndarray, levels=(), n_batches: int = 1) -> Statistics:
    """Statistics of gate values (tokens, n_layers, d_mlp), made without the collecting code."""
    arrays = {}
    for site, x in (("gate", gate), ("act", gate / (1 + np.exp(-gate)))):
        arrays[f"{site}.positive"] = (x > 0).sum(axis=0)
        arrays[f"{site}.extremes"] = np.stack([x.min(axis=0), x.max(axis=0)], axis=1)
        for name, total in (("sum", x), ("square", x**2), ("absolute", abs(x))):
            arrays[f"{site}.{name}"] = limbs(total.sum(axis=0))
    flat = bins.bin_index(gate).reshape(len(gate), -1)
    counts = np.stack([np.bincount(column, minlength=bins.N_BINS) for column in flat.T])
    counts = counts.reshape(*gate.shape[1:], bins.N_BINS).astype(np.int32)
    arrays |= histogram_arrays("gate", counts)
    batches = np.split(gate, n_batches)
    sums = [sum(np.quantile(batch, q, axis=0) for batch in batches) for q in levels]
    if levels:
        arrays["gate.batch_quantiles"] = np.stack([limbs(total) for total in sums])
    values = {"histograms": ["gate"], "batch_quantiles": list(levels), "batches": n_batches}
    parts = np.array_split(gate.astype(np.float64), N_DOCUMENTS)
    arrays["document_tokens"] = np.array([len(part) for part in parts])
    for site, function in (("gate", lambda x: x), ("act", lambda x: x / (1 + np.exp(-x)))):
        sums = np.stack([function(part).sum(axis=0) for part in parts])
        arrays[f"{site}.document_sum"] = np.rint(sums * LIMB).astype(np.int64)
    values["documents"] = [f"d{i}" for i in range(N_DOCUMENTS)]
    return Statistics(arrays, header(lang, len(gate), gate.shape[1:], **values))


def limbs(total: np.ndarray) -> np.ndarray:
    whole = np.floor(total)
    return np.stack([whole, np.rint((total - whole) * LIMB)]).astype(np.int64)


def run(method: str, statistics: dict, *tables, **parameters) -> NeuronTable:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return run_selection({"method": method, **parameters}, statistics, tables)


def as_sets(table: NeuronTable) -> dict[str, set[int]]:
    flat = table.frame["layer"].to_numpy(np.int64) * table.d_mlp + table.frame["neuron"]
    return {lang: set(flat[table.frame["lang"] == lang]) for lang in table.languages}


def random_counts(seed: int = 0) -> dict[str, Statistics]:
    """Different token counts, never-active neurons, and exact copies that tie."""
    rng = np.random.default_rng(seed)
    result = {}
    for lang in LANGUAGES:
        tokens = int(rng.integers(50_000, 100_000))
        share = rng.beta(0.3, 2.0, (N_LAYERS, D_MLP))
        counts = (share * tokens).astype(np.int64)
        counts[1, 5:15] = 0
        # A copy in the last layer of a rate that no other language shares.
        counts[2, :10] = counts[0, :10]
        result[lang] = from_counts(lang, counts, tokens)
    return result


# ------------------------------------------------------------------------------------------ LAPE


def lape_by_hand(statistics, rate, filter_level, assign_level) -> dict[str, dict[int, float]]:
    """Section 2.2 of Tang et al. 2024, neuron by neuron: {lang: {flat index: entropy}}."""
    languages = sorted(statistics)
    p = [statistics[k].positive("act").ravel() / statistics[k].tokens for k in languages]
    everything = torch.tensor(np.stack(p)).flatten()
    size = len(p[0])
    bars = [
        everything.kthvalue(round(everything.numel() * level)).values.item()
        for level in (filter_level, assign_level)
    ]
    scores = []
    for j in range(size):
        total = sum(p[k][j] for k in range(len(languages)))
        score = 0.0
        for k in range(len(languages)):
            share = p[k][j] / total if total else 0.0
            score -= share * np.log(share) if share else 0.0
        passes = any(p[k][j] > bars[0] for k in range(len(languages)))
        scores.append(score if passes else np.inf)
    ranked = sorted(range(size), key=lambda j: (round(scores[j], 12), j))[: round(rate * size)]
    ranked = [j for j in ranked if scores[j] < np.inf]
    return {
        lang: {j: scores[j] for j in ranked if p[k][j] > bars[1]}
        for k, lang in enumerate(languages)
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "rate, filter_level, assign_level",
    [(0.01, 0.95, 0.95), (0.05, 0.95, 0.95), (0.3, 0.8, 0.9), (1.0, 0.5, 0.3)],
)
def test_lape_equals_the_definition(seed, rate, filter_level, assign_level):
    statistics = random_counts(seed)
    expected = lape_by_hand(statistics, rate, filter_level, assign_level)
    levels = {"filter_level": filter_level, "assign_level": assign_level}
    table = run("lape", statistics, rate=rate, **levels)
    assert as_sets(table) == {lang: set(one) for lang, one in expected.items()}
    assert sum(map(len, expected.values())) > 0
    for row in table.frame.itertuples():
        flat = row.layer * D_MLP + row.neuron
        assert row.score == pytest.approx(expected[row.lang][flat], abs=1e-9)
        one = statistics[row.lang]
        assert row.probability == one.positive("act")[row.layer, row.neuron] / one.tokens


def test_entropy_of_known_distributions():
    p = np.array([[0.5, 0.2, 0.0, 0.1], [0.5, 0.0, 0.0, 0.3]])
    quarter = -0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    np.testing.assert_allclose(entropy(p), [np.log(2), 0.0, 0.0, quarter], atol=1e-15)
    assert entropy(np.full((7, 1), 0.3)) == pytest.approx(np.log(7))


@pytest.mark.parametrize("size", [1, 2, 5, 90, 91, 1000])
@pytest.mark.parametrize("level", [0.01, 0.5, 0.95, 0.99])
def test_bar_is_the_kth_smallest(size, level):
    values = np.random.default_rng(size).integers(0, size, size) / 7
    k = min(max(round(level * size), 1), size)
    assert bar(values, level) == torch.tensor(values).kthvalue(k).values.item()


def ramp() -> dict[str, Statistics]:
    """p = 0, .1, ... .9 in language a, 0 in b; at level 0.75 the bar is the 15th of 20: 0.4."""
    counts = np.arange(10)[None] * 10
    return {"a": from_counts("a", counts, 100), "b": from_counts("b", counts * 0, 100)}


def test_lape_bars_are_strict_and_ties_go_to_the_lower_index():
    levels = {"filter_level": 0.75, "assign_level": 0.75}
    assert bar(np.stack([np.arange(10) / 10, np.zeros(10)]), 0.75) == 0.4
    for rate, kept in ((1.0, {5, 6, 7, 8, 9}), (0.2, {5, 6})):
        assert as_sets(run("lape", ramp(), rate=rate, **levels)) == {"a": kept, "b": set()}
    tied = run("lape", ramp(), rate=0.2, ties="include", **levels)
    assert as_sets(tied)["a"] == {5, 6, 7, 8, 9}


def test_lape_lists_and_warns_of_a_language_without_neurons():
    with pytest.warns(UserWarning, match="b has no neurons under lape"):
        table = run_selection({"method": "lape", "rate": 0.2}, ramp())
    assert table.languages == ["a", "b"] and table.counts().to_dict() == {"a": 1, "b": 0}


def test_lape_exclusive_drops_what_two_languages_claim():
    statistics = random_counts()
    levels = {"rate": 0.5, "filter_level": 0.6, "assign_level": 0.6}
    every = run("lape", statistics, **levels)
    owners = every.frame.groupby(["layer", "neuron"])["lang"].transform("size")
    assert (owners > 1).any()
    expected = every.frame[owners == 1].reset_index(drop=True)
    found = run("lape", statistics, exclusive=True, **levels).frame
    pd.testing.assert_frame_equal(found, expected)


# ------------------------------------------------------------------------------ Act Prob, sizes


def gates(lang: str, n_batches: int = 8, per_batch: int = 500) -> np.ndarray:
    """Gates whose rate of exceeding common thresholds differs clearly from neuron to neuron.

    The mean drifts from batch to batch, by an amount that differs between neurons, so that the
    mean of the batches' quantiles is not the neuron's quantile.
    """
    rng = np.random.default_rng(LANGUAGES.index(lang))
    shape = (N_LAYERS, 12)
    mean = rng.permutation(np.linspace(-2.0, 2.0, 36)).reshape(shape) + np.arange(3)[:, None]
    drift = rng.permutation(np.linspace(0.0, 3.0, 36)).reshape(shape)
    steps = np.linspace(-1, 1, n_batches)[:, None, None, None]
    noise = rng.normal(size=(n_batches, per_batch, *shape))
    return (mean + drift * steps + noise).reshape(-1, *shape).astype(np.float32)


def exceedance_by_hand(gate: np.ndarray, pool: str, q: float, n_batches: int) -> np.ndarray:
    if pool == "batch":
        threshold = np.mean([np.quantile(b, q, axis=0) for b in np.split(gate, n_batches)], axis=0)
    elif pool == "neuron":
        threshold = np.quantile(gate, q, axis=0)
    elif pool == "layer":
        layers = [np.quantile(gate[:, layer], q) for layer in range(N_LAYERS)]
        threshold = np.array(layers)[:, None]
    else:
        threshold = np.quantile(gate, q)
    return (gate > threshold).mean(axis=0)


@pytest.mark.parametrize("pool", ["batch", "neuron", "layer", "model"])
def test_act_prob_90p_equals_the_definition(pool):
    raw = {lang: gates(lang) for lang in LANGUAGES[:2]}
    statistics = {lang: from_values(lang, x, (0.9,), 8) for lang, x in raw.items()}
    table = run("exceedance", statistics, threshold="p90", pool=pool, rate=0.25)
    for lang, x in raw.items():
        expected = exceedance_by_hand(x, pool, 0.9, 8)
        found = table.frame[table.frame["lang"] == lang]
        assert len(found) == round(0.25 * 36)
        scores = expected[found["layer"], found["neuron"]]
        np.testing.assert_allclose(found["score"], scores, atol=0.02)
        # None that was left out is clearly better than one that was kept.
        kept = np.zeros_like(expected, bool)
        kept[found["layer"], found["neuron"]] = True
        assert expected[~kept].max() <= expected[kept].min() + 0.02
        if pool == "neuron":
            np.testing.assert_allclose(expected, 0.1, atol=1e-3)
        else:
            assert expected[kept].min() > expected[~kept].mean() + 0.02


def test_exceedance_over_zero_and_mean():
    gate = gates("en")
    statistics = {"en": from_values("en", gate)}
    means = {
        "neuron": gate.mean(axis=0),
        "layer": gate.mean(axis=(0, 2))[:, None],
        "model": gate.mean(),
    }
    cases = [("zero", pool, (gate > 0).mean(axis=0), 0.0) for pool in means]
    cases += [("mean", pool, (gate > mean).mean(axis=0), 0.02) for pool, mean in means.items()]
    for threshold, pool, expected, error in cases:
        frame = run("exceedance", statistics, threshold=threshold, pool=pool, rate=1.0).frame
        found = frame.sort_values(["layer", "neuron"])["score"].to_numpy().reshape(expected.shape)
        np.testing.assert_allclose(
            found, expected, atol=error + 1e-12, err_msg=f"{threshold} {pool}"
        )


def test_exceedance_of_the_activation():
    gate = gates("en")
    act = gate / (1 + np.exp(-gate))
    table = run("exceedance", {"en": from_values("en", gate)}, site="act", pool="model", rate=0.25)
    expected = (act > np.quantile(act, 0.9)).mean(axis=0)[
        table.frame["layer"], table.frame["neuron"]
    ]
    np.testing.assert_allclose(table.frame["score"], expected, atol=0.02)


def test_exceedance_of_signs_needs_no_histogram():
    method = METHODS["exceedance"](method="exceedance", threshold="zero", site="act", rate=0.1)
    assert (method.needs_sites, method.needs_histograms) == (("act",), ())
    assert len(method.select({"en": from_counts("en", np.arange(40).reshape(1, 40), 50)})) == 4


def test_exceedance_refuses_what_is_not_measured():
    with pytest.raises(ValidationError, match="pool batch with site 'act'"):
        run("exceedance", {}, pool="batch", site="act")
    with pytest.raises(ValidationError, match="'p9O' is not zero, mean or p01-p99"):
        run("exceedance", {}, threshold="p9O")
    with pytest.raises(ValueError, match=r"no batch quantile 0\.9"):
        run("exceedance", {"en": from_values("en", gates("en"))}, pool="batch")


@pytest.mark.parametrize("statistic", ["mean", "abs_mean", "max", "std"])
@pytest.mark.parametrize("site", ["gate", "act"])
def test_magnitude_keeps_the_largest(statistic, site):
    gate = gates("fr").astype(np.float64) - 2  # most means below zero
    x = gate if site == "gate" else gate / (1 + np.exp(-gate))
    expected = {
        "mean": x.mean(axis=0),
        "abs_mean": abs(x).mean(axis=0),
        "max": x.max(axis=0),
        "std": x.std(axis=0),
    }[statistic].ravel()
    options = {"statistic": statistic, "site": site, "rate": 0.2}
    table = run("magnitude", {"fr": from_values("fr", gate)}, **options)
    largest = np.argsort(-expected)[: round(0.2 * 36)]
    assert as_sets(table)["fr"] == set(largest)
    np.testing.assert_allclose(table.frame["score"], expected[np.sort(largest)], rtol=1e-6)


# ---------------------------------------------------------------------------------------- random


def mirrored() -> tuple[dict[str, Statistics], NeuronTable]:
    """Two languages over 2 x 400 neurons; the mirrored neurons fire often, others anyhow."""
    rng = np.random.default_rng(3)
    statistics, frames = {}, []
    for lang, per_layer in (("de", (30, 6)), ("en", (2, 14)), ("fr", (0, 0))):
        counts = rng.integers(0, 10_001, (2, 400))
        statistics[lang] = from_counts(lang, counts, 10_000)
        for layer, number in enumerate(per_layer):
            often = np.flatnonzero(counts[layer] > 8000)
            frame = {"lang": lang, "layer": layer, "neuron": rng.choice(often, number, False)}
            frames.append(pd.DataFrame(frame | {"score": 0.0}))
    metadata = {"languages": sorted(statistics), "n_layers": 2, "d_mlp": 400}
    return statistics, NeuronTable(pd.concat(frames), metadata)


@pytest.mark.parametrize("match", ["none", "layer", "frequency"])
@pytest.mark.parametrize("seed", range(3))
def test_random_mirrors_counts_and_avoids_the_mirrored(match, seed):
    statistics, like = mirrored()
    control = run("random", statistics, like, like="x", match=match, seed=seed)
    assert control.counts().to_dict() == {"de": 36, "en": 16, "fr": 0}
    if match != "none":
        pd.testing.assert_frame_equal(control.layer_counts(), like.layer_counts())
    taken = set().union(*as_sets(like).values())
    assert not taken & set().union(*as_sets(control).values())


def test_random_frequencies_are_near_the_mirrored():
    statistics, like = mirrored()
    gaps = {}
    for match in ("layer", "frequency"):
        control = run("random", statistics, like, like="x", match=match)
        pairs = []
        for lang in ("de", "en"):
            p = statistics[lang].probability("act")
            for layer in range(2):
                of = [np.sort(p[layer, t.indices(lang)[layer]]) for t in (like, control)]
                pairs.append(abs(of[0] - of[1]))
        gaps[match] = np.concatenate(pairs)
    # 20 neighbours and those drawn before span at most (20 + 30) / 350 of the probabilities.
    assert gaps["frequency"].max() < 0.15 and gaps["frequency"].mean() < 0.06
    assert gaps["layer"].mean() > 0.2


def test_random_with_one_neighbour_takes_the_nearest_free_one():
    counts = np.array([[10, 50, 90, 12, 47, 89, 55, 91]])
    frame = pd.DataFrame({"lang": "en", "layer": 0, "neuron": [0, 1, 2], "score": 0.0})
    like = NeuronTable(frame, {"languages": ["en"], "n_layers": 1, "d_mlp": 8})
    one = {"en": from_counts("en", counts, 100)}
    control = run("random", one, like, like="x", match="frequency", neighbours=1)
    # 12 is nearest to 10, 47 to 50; 89 and 91 are equally near to 90: the lower index.
    assert as_sets(control) == {"en": {3, 4, 5}}


def test_random_of_a_rate():
    statistics = random_counts()
    table = run("random", statistics, rate=0.1)
    assert table.counts().to_dict() == dict.fromkeys(LANGUAGES, 12)
    assert len({frozenset(one) for one in as_sets(table).values()}) == len(LANGUAGES)
    drawn = [
        set().union(*as_sets(run("random", statistics, rate=0.1, seed=s)).values())
        for s in range(40)
    ]
    assert set().union(*drawn) == set(range(N_LAYERS * D_MLP))


def test_random_depends_on_the_seed_and_on_nothing_else():
    statistics, like = mirrored()
    options = {"like": "x", "match": "frequency"}
    first = run("random", statistics, like, **options, seed=1)
    pd.testing.assert_frame_equal(
        first.frame, run("random", statistics, like, **options, seed=1).frame
    )
    assert as_sets(first) != as_sets(run("random", statistics, like, **options, seed=2))
    # A language's control is the same whatever other languages the set holds.
    alone = run("random", {"en": statistics["en"]}, like, **options, seed=1)
    assert as_sets(alone)["en"] == as_sets(first)["en"]


def test_random_refuses_a_layer_without_enough_free_neurons():
    frame = pd.DataFrame({"lang": "en", "layer": 1, "neuron": range(3), "score": 0.0})
    like = NeuronTable(frame, {"languages": ["en"], "n_layers": 2, "d_mlp": 5})
    one = {"en": from_counts("en", np.ones((2, 5), int), 9)}
    for match in ("layer", "frequency"):
        with pytest.raises(ValueError, match="layer 1: 3 neurons of en to mirror, but only 2"):
            run("random", one, like, like="x", match=match)


@pytest.mark.parametrize("wrong", [{}, {"like": "x", "rate": 0.1}])
def test_random_needs_one_of_like_and_rate(wrong):
    with pytest.raises(ValidationError, match="either `like` or `rate`"):
        run("random", random_counts(), **wrong)


# ----------------------------------------------------------------------------------- all methods

CHOICES = {
    "lape": {"rate": 0.3, "filter_level": 0.7, "assign_level": 0.7},
    "exceedance": {"rate": 0.2, "pool": "model"},
    "magnitude": {"rate": 0.2, "statistic": "std"},
    "random": {"rate": 0.2},
    "alignment": {"rate": 0.3, "level": 0.7},
    "average_precision": {"rate": 0.2},
    "dln": {"level": 0.3},
    "document_sign": {"share": 0.5},
    "lap": {"bar": 0.6},
    "lave": {"rate": 0.3, "filter_level": 0.7, "assign_level": 0.7},
    "mean_difference": {"rate": 0.2},
    "plnd": {"rate": 0.5, "share": 0.5, "site": "act"},
}
# These read a table, a file, weights or attributions as well; their tests are
# tests/test_selection_combined.py, tests/test_selection_written.py, tests/test_attribution.py.
# Those of directions are in tests/test_selection_directions.py.
OTHERS = {"combined", "published", "write_score", "attribution", "experts"}
OTHERS |= {"diffmean", "sparse_dimensions", "pca", "lda", "probe", "random_direction"}


def test_every_method_is_found_and_tested():
    assert set(METHODS) == CHOICES.keys() | OTHERS


@pytest.mark.parametrize("method", CHOICES)
def test_order_of_languages_changes_nothing(method):
    statistics = {lang: from_values(lang, gates(lang)) for lang in LANGUAGES[:3]}
    forward = run(method, statistics, **CHOICES[method])
    backward = run(method, dict(reversed(statistics.items())), **CHOICES[method])
    assert len(forward.frame) > 0
    pd.testing.assert_frame_equal(forward.frame, backward.frame)
    assert forward.metadata == backward.metadata
    assert forward.languages == sorted(statistics)


def test_table_says_how_it_was_made():
    statistics = random_counts()
    table = run("lape", statistics, rate=0.3, label="L", language_sets=["x"])
    parameters = json.loads(table.metadata["parameters"])
    assert table.metadata["method"] == "lape" and parameters["rate"] == 0.3
    assert not {"label", "language_sets"} & parameters.keys()
    assert table.metadata["tokens"] == {lang: one.tokens for lang, one in statistics.items()}
    assert (table.n_layers, table.d_mlp) == (N_LAYERS, D_MLP)


def test_statistics_of_different_models_are_refused():
    statistics = random_counts()
    statistics["fr"].header["model"] = "other"
    with pytest.raises(Mismatch, match="disagree on model: 'tiny' against 'other'"):
        run("lape", statistics)


def test_unknown_methods_and_parameters_are_refused():
    with pytest.raises(ValidationError, match="lapes"):
        run("lapes", random_counts())
    with pytest.raises(ValidationError, match="top_rate"):
        run("lape", random_counts(), top_rate=0.01)


def test_unread_tokens_of_each_block_lower_the_probabilities_of_short_sentences():
    """Two neurons alike in count per token: the language of more blocks falls under the bar."""
    counts = np.zeros((1, 40), np.int64)
    counts[0, :2] = 60
    files = {
        "aa": from_counts("aa", counts, 100, blocks=[0, 1]),
        "bb": from_counts("bb", counts, 100, blocks=[0, 10]),
    }
    plain = run("lape", files, rate=0.05)
    assert as_sets(plain) == {"aa": {0, 1}, "bb": {0, 1}}
    assert set(plain.frame["probability"]) == {0.6}
    made = run("lape", files, rate=0.05, unread_tokens=23, assign_level=0.96)
    own = made.frame.groupby("lang")["probability"].first()
    assert own["aa"] == pytest.approx(60 / 123)
    p = np.array([60 / 123, 60 / 330])
    assert made.frame["score"].iloc[0] == pytest.approx(-(p / p.sum() * np.log(p / p.sum())).sum())
    # k = round(0.96 * 80) = 77 of 80 values: 76 zeros, then twice 60/330.
    assert as_sets(made) == {"aa": {0, 1}, "bb": set()}
