from math import comb, sqrt

import numpy as np
import pytest

from langneurons.evaluation import power
from langneurons.evaluation.paired import paired_ratio_change
from langneurons.reporting import uncertainty as u


def test_counts_draw_n_of_n():
    counts = np.concatenate(list(u.resampling_counts(7, 50, seed=1)))
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()


def test_counts_are_chunked_to_the_same_number_of_replicates(monkeypatch):
    monkeypatch.setattr(u, "CHUNK", 20)
    parts = list(u.resampling_counts(7, 5, seed=1))
    assert [len(part) for part in parts] == [2, 2, 1]


def test_mean_interval_by_hand():
    # Mean 2, standard error 2 / sqrt(3) / ... of 1, 2, 3: sd 1; t of 2 degrees at 97.5 %: 4.302653.
    mean, low, high = u.mean_interval(np.array([1.0, 2.0, 3.0]), 0.95)
    assert mean == 2.0
    assert (low, high) == (
        pytest.approx(2 - 4.302653 / sqrt(3), abs=1e-6),
        pytest.approx(2 + 4.302653 / sqrt(3), abs=1e-6),
    )


def test_mean_interval_of_columns_equals_each_column():
    values = np.random.default_rng(0).normal(size=(30, 3))
    together = u.mean_interval(values, 0.9)
    alone = u.mean_interval(values[:, 1], 0.9)
    np.testing.assert_allclose([part[1] for part in together], alone)


def test_one_value_has_no_interval():
    mean, low, high = u.mean_interval(np.array([3.0]), 0.95)
    assert mean == 3.0
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize("n", [4, 12, 60])
def test_intervals_cover_as_often_as_they_say(n):
    generator = np.random.default_rng(3)
    _, low, high = u.mean_interval(generator.normal(size=(n, 3000)), 0.9)
    assert 0.88 < ((low <= 0) & (high >= 0)).mean() < 0.92


def test_intervals_of_ratios_cover_as_often_as_they_say():
    generator = np.random.default_rng(4)
    hits = []
    for _ in range(400):
        weights = generator.integers(5, 40, 12).astype(float)
        changed = weights[:, None] * generator.normal(0.3, 1, size=(12, 5))
        _, low, high, _ = paired_ratio_change(np.zeros(12), changed, weights, 0.95)
        hits.append((low <= 0.3) & (high >= 0.3))
    assert 0.92 < np.mean(hits) < 0.975


def test_paired_ratio_change_by_hand():
    # Changes 2, 9 of 1 and 9 tokens: ratio 1.1; rests 0.9 and -0.9, error sqrt(1.62 * 2) / 10, so
    # 0.18; t of 1 degree at 97.5 %: 12.7062. Two documents cannot reject, so 0 lies inside.
    baseline, tokens = np.array([2.0, 30.0]), np.array([1, 9])
    changed = np.array([[4.0, 2.0], [39.0, 30.0]])
    change, low, high, p = paired_ratio_change(baseline, changed, tokens, 0.95)
    np.testing.assert_allclose(change, [1.1, 0.0])
    assert (low[0], high[0]) == (
        pytest.approx(1.1 - 12.7062 * 0.18, abs=1e-4),
        pytest.approx(1.1 + 12.7062 * 0.18, abs=1e-4),
    )
    assert p[0] == 0.5
    # Nothing changed in any document: no spread, no interval, no evidence.
    assert np.isnan([low[1], high[1]]).all() and p[1] == 1.0


def test_an_interval_that_excludes_zero_needs_enough_documents():
    # A change of -0.033 that two documents share nearly: the interval holds 0, as p = 0.5 says.
    change, low, high, p = u.paired_difference([0.0, 0.0], [-0.0330, -0.0331], 0.95)
    assert change == pytest.approx(-0.03305) and p == 0.5
    assert low < change < 0.0 == high


def test_pairing_removes_what_both_conditions_share():
    generator = np.random.default_rng(0)
    baseline, noise = generator.normal(0, 100, 50), generator.normal(0, 0.1, 50)
    change, low, high, p = u.paired_difference(baseline, baseline + 1 + noise, 0.95)
    assert 0.9 < low < change < high < 1.1
    assert p == 2.0**-49


def test_p_is_calibrated_when_nothing_changed():
    generator = np.random.default_rng(1)
    zero, noise = np.zeros(12), generator.normal(size=(12, 4000))
    p = paired_ratio_change(zero, noise, np.ones(12), 0.95)[3]
    assert 0.04 < (p < 0.05).mean() < 0.06


def test_one_document_gives_no_evidence():
    change, low, _, p = paired_ratio_change([1.0], [[3.0]], [2], 0.95)
    assert change == 1.0 and np.isnan(low) and p == 1.0


def test_documents_without_tokens_are_no_units():
    with pytest.raises(ValueError, match="positive weight"):
        paired_ratio_change([0.0], [[0.0]], [0], 0.95)
    change, low, high, p = paired_ratio_change([1.0, 0.0], [[2.0], [0.0]], [1, 0], 0.9)
    assert change == 1.0 and np.isnan([low, high]).all() and p == 1


# Interval and test -------------------------------------------------------------------------------


def agree(low, high, p, level):
    """Return whether intervals exclude 0 exactly where p is below the level."""
    low, high, p = (np.atleast_1d(one) for one in (low, high, p))
    outside = (low > 0) | (high < 0)
    known = ~np.isnan(low)
    return (outside == (p < level))[known].all()


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
def test_intervals_and_tests_agree_on_random_small_samples(confidence):
    generator = np.random.default_rng(11)
    level = 1 - confidence
    for trial in range(120):
        n = int(generator.integers(2, 16))
        shift, spread = generator.normal(0, 1), generator.exponential(0.5)
        changed = generator.normal(shift, spread, size=(n, 6))
        weights = generator.integers(1, 30, n).astype(float)
        _, low, high, p = paired_ratio_change(np.zeros(n), changed, weights, confidence)
        assert agree(low, high, p, level)
        # Scores in 0..1 with many equal ones, as F1 has them.
        scores = np.round(generator.beta(0.3, 0.3, size=(2, n)) * 2) / 2
        for baseline, after in (scores, (scores[0], scores[0]), (np.zeros(n), np.full(n, 0.5))):
            _, low, high, p = u.paired_difference(baseline, after, confidence, u.CHANGES)
            assert agree(low, high, p, level)
            assert -1 <= low < high <= 1 and p >= 2.0 ** (1 - n)
        lost, won = generator.multinomial(n, [0.2, 0.5, 0.3])[:2]
        low, high, p = u.paired_proportions(lost, won, n, confidence)
        assert agree(low, high, p, level)
        assert -1 <= low[0] <= (won - lost) / n <= high[0] <= 1 and low[0] < high[0]
        others = [(generator.normal(k * shift, 1, n + k), np.ones(n + k)) for k in range(2)]
        _, low, high, p = u.unpaired_ratio_change(*others, confidence)
        assert agree(low, high, p, level)
        sums = generator.integers(0, 9, size=(2, n, 2)).astype(float)
        _, (_, low, high, p) = u.aggregate_change(
            *sums, lambda one: one[..., 0] / (1 + one.sum(axis=-1)), 100, confidence, trial
        )
        assert agree(low, high, p, level)


@pytest.mark.parametrize("n", range(2, 14))
def test_all_tables_of_paired_scores_agree_with_mcnemar(n):
    cells = [(lost, won) for lost in range(n + 1) for won in range(n + 1 - lost)]
    lost, won = np.array(cells).T
    for confidence in (0.9, 0.95, 0.99):
        low, high, p = u.paired_proportions(lost, won, n, confidence)
        assert agree(low, high, p, 1 - confidence)
        assert (low < high).all()
        np.testing.assert_allclose(p, [u.mcnemar(b, c) for b, c in cells])


def test_paired_proportions_by_hand():
    # No pair differs: the score interval is z^2 / (n + z^2) to either side (Tango 1998).
    z2 = 1.959963984540054**2
    low, high, p = u.paired_proportions(0, 0, 8, 0.95)
    assert (low[0], high[0]) == pytest.approx((-z2 / (8 + z2), z2 / (8 + z2)))
    assert p == 1.0
    # Tango's own example: 1 against 7 of 14 pairs, 95 %: -0.7119 to -0.0207... and its mirror.
    low, high, _ = u.paired_proportions(1, 7, 14, 0.95)
    mirrored = u.paired_proportions(7, 1, 14, 0.95)
    assert (low[0], high[0]) == pytest.approx((-mirrored[1][0], -mirrored[0][0]))
    assert low[0] == 0.0  # McNemar: p = 18 / 256 = 0.07


def test_paired_proportions_solve_the_score_equation():
    n, b, c, delta = 40, 3, 15, None
    low, high, _ = u.paired_proportions(b, c, n, 0.95)
    for delta in (low[0], high[0]):
        # The largest likelihood of rates (q + delta, q) of pairs won and lost, by search.
        rates = np.linspace(1e-9, (1 - abs(delta)) / 2 - 1e-9, 400_001) + max(0.0, -delta)
        with np.errstate(invalid="ignore", divide="ignore"):
            rest = (n - b - c) * np.log(1 - 2 * rates - delta)
            likelihood = c * np.log(rates + delta) + b * np.log(rates) + rest
        q = rates[np.nanargmax(likelihood)]
        score = (c - b - n * delta) / sqrt(n * (2 * q + delta - delta**2))
        assert abs(score) == pytest.approx(1.96, abs=2e-3)


def test_scores_that_are_all_alike_have_the_exact_interval():
    # None of 8 items changed: at most 1 - 0.025^(1/8) = 0.369 of all items do, up or down.
    change, low, high, p = u.paired_difference(np.zeros(8), np.zeros(8), 0.95, u.CHANGES)
    assert (change, low, high, p) == (0.0, pytest.approx(-0.3694, abs=1e-4), -low, 1.0)
    # All 8 rose from 0 to 1: an unseen item could fall by 2; p is that of 8 equal signs.
    change, low, high, p = u.paired_difference(np.zeros(8), np.ones(8), 0.95, u.CHANGES)
    assert (change, high, p) == (1.0, 1.0, 2.0**-7)
    assert low == pytest.approx(1 - 2 * 0.3694, abs=1e-4)
    mean, low, high = u.mean_interval(np.full(10, 0.25), 0.95, u.SCORES)
    share = 1 - 0.025**0.1
    assert (low, high) == pytest.approx((0.25 - 0.25 * share, 0.25 + 0.75 * share))


# What a number of units can show ---------------------------------------------------------------


@pytest.mark.parametrize("n, p", [(0, 1.0), (1, 1.0), (2, 0.5), (6, 2 / 64), (12, 2 / 4096)])
def test_smallest_p_is_that_of_equal_signs(n, p):
    assert power.smallest_p(n) == p


def test_smallest_p_of_two_samples():
    assert power.smallest_p_of_two(3, 3) == pytest.approx(2 / comb(6, 3))
    assert power.smallest_p_of_two(8, 9) == pytest.approx(2 / comb(17, 8))
    assert power.smallest_p_of_two(0, 9) == 1.0


@pytest.mark.parametrize(
    "family, level", [(81, 0.05), (1, 0.05), (32, 0.01), (441, 0.05), (2, 0.5)]
)
def test_units_needed_are_the_fewest_that_can_reach_the_level(family, level):
    n = power.units_needed(family, level)
    assert power.attainable(n, family, level)
    assert n == 2 or not power.attainable(n - 1, family, level)


def test_a_family_that_is_too_large_is_said_in_words():
    assert power.units_needed(81, 0.05) == 12
    assert power.shortfall(12, 81, 0.05, "documents") == ""
    assert power.shortfall(8, 81, 0.05, "documents") == (
        "With 8 documents no cell of 81 can reach 0.05: the smallest p is 0.0078, after Holm 0.63;"
        " use 12 documents or more."
    )
    # 12 documents that agree in every respect are significant in every cell of the family.
    p = np.full(81, u.paired_difference(np.zeros(12), np.arange(1.0, 13), 0.95)[3])
    assert (u.holm(np.full(81, max(p[0], power.smallest_p(12)))) < 0.05).all()


def test_mcnemar_by_hand():
    assert u.mcnemar(0, 0) == 1.0
    assert u.mcnemar(0, 5) == pytest.approx(2 / 32)
    assert u.mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert u.mcnemar(8, 2) == u.mcnemar(2, 8)
    assert u.mcnemar(4, 4) == 1.0
    exact = 2 * sum(comb(1000, k) for k in range(451)) / 2**1000
    assert u.mcnemar(450, 550) == pytest.approx(exact)


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 times 4 3 2 1 is .04 .06 .06 .04; monotone: .04 .06 .06 .06.
    np.testing.assert_allclose(u.holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(u.holm([0.9, 0.6]), [1, 1])


def test_holm_leaves_missing_tests_out():
    np.testing.assert_allclose(u.holm([np.nan, 0.01, 0.5]), [np.nan, 0.02, 0.5])
    assert u.holm([]).shape == (0,)


def test_wilson_by_hand():
    z = 1.959963984540054
    low, high = u.wilson(0, 10, 0.95)
    assert low == 0.0
    assert high == pytest.approx(z**2 / (10 + z**2))
    centre, half = 0.5, z * sqrt(0.25 / 20 + z * z / 1600) / (1 + z * z / 20)
    assert u.wilson(10, 20, 0.95) == pytest.approx((centre - half, centre + half))
    assert np.isnan(u.wilson(0, 0, 0.95)).all()


def test_unpaired_change_is_the_difference_of_two_ratios():
    generator = np.random.default_rng(0)
    weights = generator.integers(5, 50, 80).astype(float)
    values = weights * generator.normal(3.0, 0.5, 80)
    shifted = values + 0.2 * weights
    order, noise = generator.permutation(80), generator.normal(0, 0.1, (80, 1))
    change, low, high, p = u.unpaired_ratio_change((values, weights), (shifted, weights), 0.95)
    assert change == pytest.approx(0.2)
    assert low < change < high
    # The order of the second sample's units does not matter: nothing is paired.
    other = u.unpaired_ratio_change((values, weights), (shifted[order], weights[order]), 0.95)
    assert other[0] == pytest.approx(change)
    assert other[1:3] == pytest.approx((low, high))
    paired = paired_ratio_change(values, shifted[:, None] + noise, weights, 0.95)
    assert high - low > 5 * float(paired[2][0] - paired[1][0])
    assert p > float(paired[3][0])
    # Two samples of independent units: the variances add.
    spread = (high - low) / (2 * 1.96)
    ratio = values.sum() / weights.sum()
    single = np.sqrt(((values - ratio * weights) ** 2).sum()) / weights.sum()
    assert spread == pytest.approx(np.sqrt(2) * single, rel=0.1)


def test_aggregates_of_sums_equal_means_where_the_score_is_a_mean():
    generator = np.random.default_rng(4)
    baseline, changed = generator.uniform(size=(2, 25))
    counts = [np.stack([values, np.ones(25)], axis=1) for values in (baseline, changed)]

    def mean(sums):
        return sums[..., 0] / sums[..., 1]

    own, change = u.aggregate_change(*counts, mean, 20_000, 0.9, 7)
    assert own == pytest.approx([float(x) for x in u.mean_interval(changed, 0.9)], rel=0.02)
    assert change == pytest.approx(u.paired_difference(baseline, changed, 0.9), rel=0.03)
    alone, nothing = u.aggregate_change(None, counts[1], mean, 20_000, 0.9, 7)
    assert alone == own and np.isnan(nothing).all()


def test_aggregates_do_not_depend_on_the_order_of_items():
    generator = np.random.default_rng(5)
    counts = generator.integers(0, 9, size=(2, 40, 3)).astype(float)

    def ratio(sums):
        return sums[..., 0] * sums[..., 1] / (1 + sums[..., 2]) ** 2

    order = generator.permutation(40)
    (value, *_), (change, *_) = u.aggregate_change(*counts, ratio, 200, 0.95, 0)
    (other, *_), (again, *_) = u.aggregate_change(*counts[:, order], ratio, 200, 0.95, 0)
    assert value == pytest.approx(other) and change == pytest.approx(again)
    assert value == pytest.approx(float(ratio(counts[1].sum(axis=0))))
    one = counts[:, :1]
    (_, low, high), (_, below, above, p) = u.aggregate_change(*one, ratio, 200, 0.95, 0)
    assert np.isnan([low, high, below, above]).all() and p == 1
