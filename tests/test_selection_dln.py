"""DLN against its definition: every bipartition of the languages tried, every overlap summed."""

import itertools

import numpy as np
import pytest
from test_collect import measure
from test_selection import LANGUAGES, N_LAYERS, from_values, gates, run
from tiny import tiny_model

from langneurons.activations.histogram import N_BINS
from langneurons.activations.loops import bipartitions
from langneurons.selection.methods.dln import Dln, _owners

WIDTH = 12  # neurons of a layer of `gates`


def by_trying(share: np.ndarray) -> tuple[np.ndarray, float, list[frozenset]]:
    """Return the overlaps, the smallest largest overlap across two groups, and all such groups."""
    k = len(share)
    overlap = np.array([[np.minimum(a, b).sum() for b in share] for a in share])
    costs = {}
    for size in range(1, k):
        for group in itertools.combinations(range(k), size):
            rest = [j for j in range(k) if j not in group]
            costs[frozenset(group)] = max(overlap[i, j] for i in group for j in rest)
    least = min(costs.values())
    pairs = np.array([overlap[i, j] for i, j in itertools.combinations(range(k), 2)])
    return pairs, least, [one for one, cost in costs.items() if cost <= least + 1e-6]


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_the_best_of_all_bipartitions(seed):
    rng = np.random.default_rng(seed)
    k, n, bins = 2 + seed % 5, 30, 12
    share = rng.dirichlet(np.full(bins, 0.3), (k, n)).astype(np.float32)
    pairs = k * (k - 1) // 2
    overlaps, cost = np.empty((n, pairs), np.float32), np.empty(n, np.float32)
    group = np.empty((n, k), bool)
    bipartitions(share, overlaps, cost, group)
    for i in range(n):
        expected, least, best = by_trying(share[:, i].astype(np.float64))
        np.testing.assert_allclose(overlaps[i], expected, atol=1e-5)
        assert cost[i] == pytest.approx(least, abs=1e-5)
        assert frozenset(np.flatnonzero(group[i]).tolist()) in best


def statistics():
    return {lang: from_values(lang, gates(lang)) for lang in LANGUAGES}


@pytest.mark.parametrize("level", [0.1, 0.3])
@pytest.mark.parametrize("most", [None, 1])
def test_neurons_are_those_of_the_definition(level, most):
    known = statistics()
    langs = sorted(known)
    share = {}
    for lang, one in known.items():
        counts = one.histogram("gate").astype(np.float64)
        share[lang] = counts / counts.sum(axis=2, keepdims=True)
    every, cost, groups = [], {}, {}
    for layer, neuron in itertools.product(range(N_LAYERS), range(WIDTH)):
        own = np.stack([share[lang][layer, neuron] for lang in langs])
        pairs, cost[layer, neuron], groups[layer, neuron] = by_trying(own)
        every += pairs.tolist()
    bar = np.quantile(np.float32(every), level)
    table = run("dln", known, level=level, **({} if most is None else {"most": most}))
    found = {}
    for row in table.frame.itertuples():
        found.setdefault((row.layer, row.neuron), set()).add(langs.index(row.lang))
    for place, one in cost.items():
        sizes = {min(len(group), len(langs) - len(group)) for group in groups[place]}
        if one < bar - 1e-5 and (most is None or max(sizes) <= most):
            assert place in found, place
        elif one > bar + 1e-5 or (most is not None and min(sizes) > most):
            assert place not in found, place
    for place, owners in found.items():
        whole = set(range(len(langs)))
        assert frozenset(owners) in groups[place] or frozenset(whole - owners) in groups[place]
        assert len(owners) <= len(langs) - len(owners)
    assert found


def test_a_neuron_of_one_language_is_that_languages():
    raw = {lang: gates(lang) for lang in LANGUAGES[:4]}
    raw[LANGUAGES[2]][:, 1, 5] += 60  # apart from all others
    known = {lang: from_values(lang, one) for lang, one in raw.items()}
    table = run("dln", known, level=0.02, most=1)
    own = table.frame[table.frame["lang"] == LANGUAGES[2]]
    assert (1, 5) in set(zip(own["layer"].tolist(), own["neuron"].tolist(), strict=True))


def test_groups_of_one_size_go_to_the_more_active():
    group = np.array([[True, True, False, False], [True, False, False, False]])
    mean = np.array([[0.0, 0.1, 2.0, 3.0], [0.0, 0.1, 2.0, 3.0]])
    assert _owners(group, mean).tolist() == [
        [False, False, True, True],
        [True, False, False, False],
    ]
    assert _owners(~group, mean).tolist() == _owners(group, mean).tolist()


def test_a_layers_histogram_is_that_of_the_whole(tmp_path):
    one = measure(tiny_model("llama"))
    one.write(tmp_path / "xx.safetensors")
    read = type(one).read(tmp_path / "xx.safetensors")
    for each, site in itertools.product((one, read), ("gate", "act", "product")):
        for layer in range(2):
            own = each.layer_histogram(layer, site)
            np.testing.assert_allclose(own, each.histogram(site)[layer])
            assert own.shape == (48, N_BINS)


def test_what_it_needs():
    needs = Dln(method="dln")
    assert needs.needs_sites == needs.needs_histograms == ("gate",)
    with pytest.raises(ValueError, match="needs other languages"):
        run("dln", {LANGUAGES[0]: statistics()[LANGUAGES[0]]})
