"""Selections by how a quantity is spread over languages, against loops over neurons."""

import numpy as np
import pytest
from test_selection import (
    D_MLP,
    LANGUAGES,
    N_LAYERS,
    as_sets,
    from_counts,
    from_values,
    gates,
    lape_by_hand,
    random_counts,
    run,
)

from langneurons.selection.methods.lape import bar, entropy

SIZE = N_LAYERS * D_MLP


def counts_of(n_languages: int) -> dict:
    """Languages of which each has neurons of its own, and some share theirs."""
    rng = np.random.default_rng(n_languages)
    result = {}
    for k in range(n_languages):
        share = rng.beta(0.5, 4.0, (N_LAYERS, D_MLP))
        share[:, (3 * k) % D_MLP] = 0.9 - 0.01 * k
        result[f"l{k:02d}"] = from_counts(f"l{k:02d}", (share * 10_000).astype(int), 10_000)
    return result


@pytest.mark.parametrize("n_languages", [18, 21])
@pytest.mark.parametrize("rate", [0.01, 0.02, 0.03, 0.04, 0.05])
def test_lape_of_many_languages_at_the_swept_rates(n_languages, rate):
    statistics = counts_of(n_languages)
    expected = lape_by_hand(statistics, rate, 0.95, 0.95)
    table = run("lape", statistics, rate=rate)
    assert as_sets(table) == {lang: set(one) for lang, one in expected.items()}
    assert table.unique == round(rate * SIZE)


@pytest.mark.parametrize("filter_level, assign_level", [(0.95, 0.95), (0.6, 0.9), (0.9, 0.6)])
@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_lape_per_language_equals_the_definition(rate, filter_level, assign_level):
    statistics = random_counts(1)
    p = np.stack([one.probability("act").ravel() for one in statistics.values()])
    share = p / np.where(p.sum(axis=0) > 0, p.sum(axis=0), 1)
    scores = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=0)
    passes = (p > bar(p, filter_level)).any(axis=0)
    options = {"filter_level": filter_level, "assign_level": assign_level, "rate": rate}
    table = run("lape", statistics, per_language=True, **options)
    for k, lang in enumerate(sorted(statistics)):
        own = [j for j in range(SIZE) if passes[j] and p[k, j] > bar(p, assign_level)]
        own.sort(key=lambda j: (round(scores[j], 12), j))
        assert as_sets(table)[lang] == set(own[: round(rate * SIZE)])
    assert 0 < table.counts().max() <= round(rate * SIZE)
    common = run("lape", statistics, **options)
    assert len(table.frame) >= len(common.frame) and table.unique >= common.unique


@pytest.mark.parametrize("statistic", ["abs_mean", "mean"])
def test_lave_is_lape_of_mean_activations(statistic):
    raw = {lang: gates(lang).astype(np.float64) for lang in LANGUAGES[:3]}
    act = {lang: x / (1 + np.exp(-x)) for lang, x in raw.items()}
    size = abs if statistic == "abs_mean" else np.asarray
    value = np.stack([size(x).mean(axis=0).ravel() for x in act.values()])
    if statistic == "mean":
        assert (value < 0).any()
        value = np.where(value < 0, 0, value)
    levels = {"rate": 0.3, "filter_level": 0.6, "assign_level": 0.7}
    statistics = {lang: from_values(lang, x) for lang, x in raw.items()}
    table = run("lave", statistics, statistic=statistic, **levels)
    scores = [
        -sum(v / sum(column) * np.log(v / sum(column)) for v in column if v > 0)
        if sum(column)
        else 0.0
        for column in value.T
    ]
    passes = [j for j in range(value.shape[1]) if max(value[:, j]) > bar(value, 0.6)]
    kept = sorted(passes, key=lambda j: scores[j])[: round(0.3 * value.shape[1])]
    for k, lang in enumerate(raw):
        assert as_sets(table)[lang] == {j for j in kept if value[k, j] > bar(value, 0.7)}
    flat = table.frame["layer"].to_numpy() * value.shape[1] // N_LAYERS + table.frame["neuron"]
    np.testing.assert_allclose(table.frame["score"], np.array(scores)[flat], atol=1e-9)
    assert "value" in table.frame and len(table.frame) > 3


@pytest.mark.parametrize("level", [0.0, 0.25, 0.8])
def test_lap_is_strictly_above_its_bar(level):
    statistics = random_counts() | {"xx": from_counts("xx", np.zeros((N_LAYERS, D_MLP), int), 9)}
    statistics["de"].arrays["act.positive"][0, 0] = level * statistics["de"].tokens
    statistics["de"].header["tokens"] = 100_000  # so that the level is met exactly
    statistics["de"].arrays["act.positive"][0, 0] = round(level * 100_000)
    table = run("lap", statistics, bar=level)
    for lang, one in statistics.items():
        p = one.positive("act").ravel() / one.tokens
        assert as_sets(table)[lang] == {j for j in range(SIZE) if p[j] > level}
    assert 0 not in as_sets(table)["de"] and table.counts()["xx"] == 0
    assert len(table.frame)


@pytest.mark.parametrize("statistic, site", [("mean", "act"), ("abs_mean", "gate")])
def test_mean_difference_equals_the_definition(statistic, site):
    raw = {lang: gates(lang).astype(np.float64) for lang in LANGUAGES}
    values = {lang: x / (1 + np.exp(-x)) if site == "act" else x for lang, x in raw.items()}
    size = abs if statistic == "abs_mean" else np.asarray
    means = {lang: size(x).mean(axis=0).ravel() for lang, x in values.items()}
    statistics = {lang: from_values(lang, x) for lang, x in raw.items()}
    table = run("mean_difference", statistics, statistic=statistic, site=site, rate=0.2)
    for lang, own in means.items():
        rest = [means[other] for other in means if other != lang]
        difference = own - sum(rest) / len(rest)
        largest = np.argsort(-difference)[: round(0.2 * own.size)]
        assert as_sets(table)[lang] == set(largest)
        found = table.frame.loc[table.frame["lang"] == lang, "score"]
        np.testing.assert_allclose(found, difference[np.sort(largest)], atol=1e-9)


def alignment_by_hand(statistics, rate, penalty, level):
    """{lang: {flat index: languages above the bar}} and the scores, neuron by neuron."""
    languages = sorted(statistics)
    p = np.stack([statistics[k].probability("act").ravel() for k in languages])
    threshold = bar(p, level)
    owners = [sum(p[k, j] > threshold for k in range(len(p))) for j in range(p.shape[1])]
    scores = entropy(p) / np.log(len(p)) - penalty * p.max(axis=0)
    able = [j for j in range(p.shape[1]) if owners[j]]
    kept = sorted(able, key=lambda j: (round(scores[j], 12), j))[: round(rate * p.shape[1])]
    sets = {
        lang: {j: owners[j] for j in kept if p[k, j] > threshold}
        for k, lang in enumerate(languages)
    }
    return sets, scores


@pytest.mark.parametrize("penalty", [0.0, 0.1, 2.0])
@pytest.mark.parametrize(
    "keep", [("specific",), ("related",), ("general",), ("specific", "related", "general")]
)
def test_alignment_equals_the_definition(penalty, keep):
    statistics = random_counts(2)
    for one in statistics.values():  # general neurons, and never-active ones stay
        one.arrays["act.positive"][0, 20:28] = round(0.95 * one.tokens)
    expected, scores = alignment_by_hand(statistics, 0.4, penalty, 0.6)
    options = {"rate": 0.4, "penalty": penalty, "level": 0.6, "keep": keep}
    table = run("alignment", statistics, **options)
    numbers = {"specific": {1}, "general": {4}, "related": {2, 3}}
    allowed = set().union(*(numbers[name] for name in keep))
    for lang, own in expected.items():
        assert as_sets(table)[lang] == {j for j, number in own.items() if number in allowed}
    for row in table.frame.itertuples():
        flat = row.layer * D_MLP + row.neuron
        assert row.owners == expected[row.lang][flat]
        assert row.score == pytest.approx(scores[flat], abs=1e-9)
    assert len(table.frame) > 0 or (keep == ("general",) and penalty < 2)


def test_alignment_sweeps_to_the_largest_penalty_without_general_neurons():
    statistics = random_counts(2)
    for one in statistics.values():
        one.arrays["act.positive"][0, 20:28] = round(0.95 * one.tokens)
    options = {"rate": 0.2, "level": 0.6}

    def general(penalty):
        every = ("specific", "related", "general")
        frame = run("alignment", statistics, penalty=penalty, keep=every, **options).frame
        return int((frame["owners"] == 4).sum())

    harmless = [step for step in range(201) if not general(step / 1000)]
    assert 0 in harmless
    swept = run("alignment", statistics, **options)
    fixed = run("alignment", statistics, penalty=max(harmless) / 1000, **options)
    assert as_sets(swept) == as_sets(fixed)
    np.testing.assert_array_equal(swept.frame["score"], fixed.frame["score"])


@pytest.mark.parametrize("method", ["mean_difference", "alignment"])
def test_one_language_has_no_others(method):
    with pytest.raises(ValueError, match="only en: "):
        run(method, {"en": from_values("en", gates("en"))})
