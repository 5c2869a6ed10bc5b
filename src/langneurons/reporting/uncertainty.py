"""Intervals and tests for means, paired changes and matrices of them; each interval with its test.

An interval excludes 0 exactly where its test gives p below 1 - confidence:

- means and ratios over units (documents, items): Student's t on the units' differences, with the
  linearised standard error of a ratio (Cochran 1977, 6.4); two samples: Welch (1947);
- scores of summed counts and averages of cells: Student's t with the bootstrap's standard error;
- 0/1 scores: McNemar's exact test, and the score interval of paired proportions (Tango 1998, which
  is Wilson's for differences); Wilson (1927) for a single proportion.

No test of n units gives p below 2 / 2^n, the least p of a test that flips the signs of units: three
items prove nothing. Where that is above 1 - confidence, the interval holds 0. Scores in 0..1 that
are equal in all units have no spread; the interval is then the exact one (Clopper and Pearson 1934)
of the share of units that may differ. Holm (1979) runs over families of tests.
"""

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

import numpy as np

from langneurons.evaluation.paired import Bounds, bounded, paired_ratio_change, student
from langneurons.evaluation.power import smallest_p, smallest_p_of_two

CHUNK = 4_000_000  # entries of the count matrix held at once (32 MB)
SCORES = (0.0, 1.0)  # the least and the greatest score of an item
CHANGES = (-1.0, 1.0)


# Student's t ------------------------------------------------------------------------------------


def mean_interval(
    values: np.ndarray, confidence: float, bounds: Bounds | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, low and high of `values` (n,) or (n, columns).

    With fewer than two values there is no interval (NaN), nor where all are equal and no bounds
    are known.
    """
    values = np.asarray(values, dtype=np.float64)
    mean = values.mean(axis=0) if len(values) else np.full(values.shape[1:], np.nan)
    if len(values) < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    low, high, p = student(mean, error, len(values) - 1, confidence)
    if bounds is not None:
        alike = values.max(axis=0) == values.min(axis=0)
        low, high, _ = bounded(mean, low, high, p, alike, len(values), bounds, confidence)
    return mean, low, high


def paired_difference(
    baseline: np.ndarray, changed: np.ndarray, confidence: float, bounds: Bounds | None = None
) -> tuple[float, float, float, float]:
    """Return mean(changed - baseline), low, high and p; the units (n,) are paired."""
    column = np.asarray(changed, dtype=np.float64)[:, None]
    found = paired_ratio_change(baseline, column, np.ones(len(column)), confidence, bounds)
    change, low, high, p = (float(one[0]) for one in found)
    return change, low, high, p


def unpaired_ratio_change(
    baseline: tuple[np.ndarray, np.ndarray],
    changed: tuple[np.ndarray, np.ndarray],
    confidence: float,
) -> tuple[float, float, float, float]:
    """Return change, low, high and p of sum(values) / sum(weights) between two samples.

    Each sample is (values, weights) of its own units.
    """
    ratios, variances, sizes = [], [], []
    for values, weights in (baseline, changed):
        values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
        n, ratio = len(values), values.sum() / weights.sum()
        rest = ((values - ratio * weights) ** 2).sum()
        variances.append(rest * n / (n - 1) / weights.sum() ** 2 if n > 1 else math.nan)
        ratios.append(ratio)
        sizes.append(n)
    change, variance = ratios[1] - ratios[0], sum(variances)
    if min(sizes) < 2:
        return float(change), math.nan, math.nan, 1.0
    parts = sum(one**2 / (n - 1) for one, n in zip(variances, sizes, strict=True))
    freedom = variance**2 / parts if parts > 0 else min(sizes) - 1
    error = np.sqrt(variance)
    low, high, p = student(change, error, freedom, confidence, smallest_p_of_two(*sizes))
    return float(change), float(low), float(high), float(p)


# Bootstrap ---------------------------------------------------------------------------------------


def resampling_counts(n: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Yield float64 (chunk, n): how often each of n units is drawn in each replicate."""
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // max(n, 1))
    for start in range(0, replicates, rows):
        size = min(rows, replicates - start)
        drawn = generator.integers(0, n, size=(size, n))
        drawn += np.arange(size)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=size * n)
        yield counts.reshape(size, n).astype(np.float64)


def from_draws(
    estimate: np.ndarray,
    draws: np.ndarray,
    units: int,
    confidence: float,
    bounds: Bounds | None = None,
    tested: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return low, high and p of an estimate with its bootstrap replicates (replicates, ...).

    The standard error is that of the replicates, corrected for n units. An estimate that is not
    `tested` against 0 (a score, not a change) has no floor of its p.
    """
    estimate = np.asarray(estimate, np.float64)
    if units < 2 or not len(draws):
        nan = np.full_like(estimate, np.nan)
        return nan, nan, np.ones_like(estimate)
    error = np.std(draws, axis=0) * math.sqrt(units / (units - 1))
    error = np.where(error > 1e-12 * np.abs(estimate), error, 0.0)
    floor = smallest_p(units) if tested else 0.0
    low, high, p = student(estimate, error, units - 1, confidence, floor)
    if bounds is not None:
        alike = error == 0
        low, high, p = bounded(estimate, low, high, p, alike, units, bounds, confidence)
    return low, high, p


def aggregate_change(
    baseline: np.ndarray | None,
    changed: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    replicates: int,
    confidence: float,
    seed: int,
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return (score, low, high) and (change, low, high, p) of scores (in 0..1) of summed counts.

    `changed` is (n, counts) or (n, conditions, counts), `baseline` (n, counts) of the same items;
    all are resampled jointly. `score` maps sums (..., counts) to scores (...,). Results are
    (conditions,) or numbers. Without a baseline the second is NaN. With fewer than two items there
    is no interval.
    """
    changed = np.asarray(changed, np.float64)
    single = changed.ndim == 2
    changed = changed[:, None] if single else changed
    n, conditions, k = changed.shape
    plain = np.zeros((n, k)) if baseline is None else np.asarray(baseline, np.float64)
    stacked = np.concatenate([changed.reshape(n, -1), plain], axis=1)

    def scored(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = score(sums[..., : conditions * k].reshape(*sums.shape[:-1], conditions, k))
        before = 0.0 if baseline is None else score(sums[..., conditions * k :])[..., None]
        return own, own - before

    nan = np.full(conditions, np.nan)
    value, change = scored(stacked.sum(axis=0))
    own: tuple[Any, ...] = (value, nan, nan)
    moved: tuple[Any, ...] = (change, nan, nan, np.ones(conditions))
    if n >= 2:
        parts = [scored(chunk @ stacked) for chunk in resampling_counts(n, replicates, seed)]
        draws, differences = (np.concatenate(part) for part in zip(*parts, strict=True))
        own = (value, *from_draws(value, draws, n, confidence, SCORES, tested=False)[:2])
        moved = (change, *from_draws(change, differences, n, confidence, CHANGES))
    if baseline is None:
        moved = (nan,) * 4
    if single:
        own, moved = (tuple(float(one[0]) for one in part) for part in (own, moved))
    return own, moved


# Proportions -------------------------------------------------------------------------------------


def mcnemar(b: int, c: int) -> float:
    """Return the exact two-sided p of b against c discordant pairs (binomial, one half)."""
    n, k = b + c, min(b, c)
    if n == 0:
        return 1.0
    log_terms = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
        for i in range(k + 1)
    )
    return min(1.0, 2 * math.fsum(math.exp(term) for term in log_terms))


def paired_proportions(
    lost: np.ndarray | int, won: np.ndarray | int, n: int, confidence: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return low, high and p of (won - lost) / n, of pairs of 0/1 scores; all (conditions,).

    `lost` pairs fell from 1 to 0, `won` pairs rose. Tango's score interval, widened to hold 0
    where McNemar's exact test does not reject; it has a width even if no pair differs.
    """
    lost, won = (np.atleast_1d(np.asarray(one, np.float64)) for one in (lost, won))
    z = NormalDist().inv_cdf(0.5 + confidence / 2)

    def score(delta: np.ndarray) -> np.ndarray:
        b = (2 * n - won + lost) * delta - won - lost
        c = -lost * delta * (1 - delta)
        rate = (np.sqrt(np.maximum(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * rate + delta * (1 - delta))
        return (won - lost - n * delta) / np.sqrt(np.maximum(variance, 1e-300))

    ends = []
    for wanted in (z, -z):  # the score falls as delta grows
        below, above = np.full(lost.shape, -1.0), np.full(lost.shape, 1.0)
        for _ in range(60):
            middle = (below + above) / 2
            under = score(middle) > wanted
            below, above = np.where(under, middle, below), np.where(under, above, middle)
        ends.append((below + above) / 2)
    p = np.array([mcnemar(int(b), int(c)) for b, c in zip(lost, won, strict=True)])
    weak = p >= 1 - confidence
    low = np.where(weak, np.minimum(ends[0], 0.0), ends[0])
    high = np.where(weak, np.maximum(ends[1], 0.0), ends[1])
    return low, high, p


def wilson(successes: float, n: int, confidence: float) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion."""
    if n == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = successes / n, z * z / n
    centre = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low, high = (centre - half) / (1 + spread), (centre + half) / (1 + spread)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm-corrected p: monotone in p, at most 1. NaN is not a test and stays NaN."""
    p = np.asarray(p, dtype=np.float64)
    result = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return result
