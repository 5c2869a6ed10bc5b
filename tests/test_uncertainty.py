from itertools import product
from math import comb, sqrt

import numpy as np
import pytest

from langneurons import uncertainty as u


def test_counts_draw_n_of_n():
    counts = np.concatenate(list(u.resampling_counts(7, 50, seed=1)))
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()


def test_counts_are_chunked_to_the_same_number_of_replicates(monkeypatch):
    monkeypatch.setattr(u, "CHUNK", 20)
    parts = list(u.resampling_counts(7, 5, seed=1))
    assert [len(part) for part in parts] == [2, 2, 1]


def test_bootstrap_is_deterministic_and_depends_on_the_seed():
    values = np.random.default_rng(0).normal(size=40)
    first, again = (u.bootstrap_mean(values, 300, 0.95, 5) for _ in range(2))
    other = u.bootstrap_mean(values, 300, 0.95, 6)
    assert first == again
    assert first[1] != other[1]


def test_bootstrap_mean_agrees_with_every_resample_of_three_values():
    values = np.array([0.0, 1.0, 5.0])
    means = sorted(np.mean(draw) for draw in product(values, repeat=3))  # all 27, equally likely
    mean, low, high = u.bootstrap_mean(values, 40_000, 0.8, 0)
    assert mean == 2.0
    assert low == pytest.approx(means[2])  # 10 % of 27 lies within the third value
    assert high == pytest.approx(means[-3])


def test_bootstrap_mean_of_columns_equals_each_column():
    values = np.random.default_rng(0).normal(size=(30, 3))
    together = u.bootstrap_mean(values, 200, 0.9, 2)
    alone = u.bootstrap_mean(values[:, 1], 200, 0.9, 2)
    np.testing.assert_allclose([part[1] for part in together], alone)


def test_one_value_has_no_interval():
    mean, low, high = u.bootstrap_mean(np.array([3.0]), 100, 0.95, 0)
    assert mean == 3.0
    assert np.isnan([low, high]).all()


def test_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(3)
    hits = 0
    for trial in range(300):
        _, low, high = u.bootstrap_mean(generator.normal(size=60), 300, 0.9, trial)
        hits += low <= 0 <= high
    assert 0.82 < hits / 300 < 0.96


def test_paired_ratio_change_weights_documents_by_tokens():
    baseline, tokens = np.array([2.0, 30.0]), np.array([1, 9])
    changed = np.array([[4.0, 2.0], [39.0, 30.0]])
    change, low, high, p = u.paired_ratio_change(baseline, changed, tokens, 500, 0.95, 0)
    np.testing.assert_allclose(change, [(43 - 32) / 10, 0.0])
    # Resamples hold document 1 only (2 / 1), document 2 only (9 / 9) or both.
    assert (low[0], high[0]) == (1.0, 2.0)
    assert (low[1], high[1], p[1]) == (0.0, 0.0, 1.0)


def test_pairing_removes_what_both_conditions_share():
    generator = np.random.default_rng(0)
    baseline = generator.normal(0, 100, 50)
    change, low, high, p = u.paired_difference(baseline, baseline + 1, 999, 0.95, 0)
    assert (change, low, high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert p == pytest.approx(1 / 1000)


def test_p_is_calibrated_when_nothing_changed():
    generator = np.random.default_rng(1)
    zero, noise = np.zeros(80), generator.normal(size=(80, 400))
    p = u.paired_ratio_change(zero, noise, np.ones(80), 400, 0.95, 0)[3]
    assert 0.02 < (p < 0.05).mean() < 0.10


def test_one_document_gives_no_evidence():
    change, low, _, p = u.paired_ratio_change([1.0], [[3.0]], [2], 100, 0.95, 0)
    assert change == 1.0 and np.isnan(low) and p == 1.0


def test_documents_without_tokens():
    with pytest.raises(ValueError, match="positive weight"):
        u.paired_ratio_change([0.0], [[0.0]], [0], 100, 0.95, 0)
    change, low, high, _ = u.paired_ratio_change([1.0, 0.0], [[2.0], [0.0]], [1, 0], 99, 0.9, 0)
    assert change == low == high == 1.0


def test_bootstrap_p_counts_by_hand():
    # Distances from the estimate 2: 0, 1, 2, 3; two are at least 2.
    assert u.bootstrap_p(np.array([2.0]), np.array([[2.0], [1.0], [0.0], [5.0]])) == [3 / 5]


def test_replicates_let_holm_reach_the_level():
    n = u.resolving_replicates(1000, 441, 0.05)
    assert 441 / (n + 1) < 0.05
    assert u.resolving_replicates(1000, 3, 0.05) == 1000


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
    order = generator.permutation(80)
    settings = (4000, 0.95, 0)
    change, low, high, p = u.unpaired_ratio_change((values, weights), (shifted, weights), *settings)
    assert change == pytest.approx(0.2)
    assert low < change < high
    # The order of the second sample's units does not matter: nothing is paired.
    other = u.unpaired_ratio_change((values, weights), (shifted[order], weights[order]), *settings)
    assert other[0] == pytest.approx(change)
    assert other[1:3] == pytest.approx((low, high), abs=0.02)
    paired = u.paired_ratio_change(values, shifted[:, None], weights, *settings)
    assert high - low > 5 * float(paired[2][0] - paired[1][0])
    assert p > float(paired[3][0])
    # Two samples of independent units: the variances add.
    spread = (high - low) / (2 * 1.96)
    ratio = values.sum() / weights.sum()
    single = np.sqrt(((values - ratio * weights) ** 2).sum()) / weights.sum()
    assert spread == pytest.approx(np.sqrt(2) * single, rel=0.1)


def test_aggregates_of_sums_equal_means_where_the_score_is_a_mean():
    generator = np.random.default_rng(4)
    baseline, changed = generator.normal(size=(2, 25))
    counts = [np.stack([values, np.ones(25)], axis=1) for values in (baseline, changed)]

    def mean(sums):
        return sums[..., 0] / sums[..., 1]

    own, change = u.aggregate_change(*counts, mean, 400, 0.9, 7)
    assert own == pytest.approx([float(x) for x in u.bootstrap_mean(changed, 400, 0.9, 7)])
    assert change == pytest.approx(u.paired_difference(baseline, changed, 400, 0.9, 7))
    alone, nothing = u.aggregate_change(None, counts[1], mean, 400, 0.9, 7)
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
