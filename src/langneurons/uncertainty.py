"""Intervals and tests for means, paired changes and matrices of them.

Percentile bootstrap over documents or items: a replicate draws n of n with replacement, which is
one row of counts, so all replicates of all conditions are one matrix product
(replicates x n) @ (n x conditions). Paired tests resample the same documents in both conditions.
Exact McNemar for 0/1 scores, Holm (1979) over families of tests, Wilson (1927) for proportions.
"""

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np

CHUNK = 4_000_000  # entries of the count matrix held at once (32 MB)
MOST = 10_000  # replicates at most; p beyond what they resolve is a tail's
FEW = 10  # replicates in a tail below which its share is no estimate


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


def resolving_replicates(replicates: int, family: int, alpha: float) -> int:
    """Return enough replicates for a Holm-corrected bootstrap p to fall below alpha.

    The smallest bootstrap p is 1 / (replicates + 1) and Holm multiplies it by the number of tests:
    with too few replicates no test of a large matrix could ever be significant. No more than
    `MOST` are drawn for that; see `bootstrap_p` for what lies beyond.
    """
    return max(replicates, min(MOST, math.ceil(2 * family / alpha)))


def _interval(draws: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return low, high


def bootstrap_mean(
    values: np.ndarray, replicates: int, confidence: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, low and high of `values` (n,) or (n, columns).

    With fewer than two values there is no interval: low and high are NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    mean = values.mean(axis=0) if len(values) else np.full(values.shape[1:], np.nan)
    if len(values) < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    counts = resampling_counts(len(values), replicates, seed)
    draws = np.concatenate([chunk @ values for chunk in counts]) / len(values)
    return mean, *_interval(draws, confidence)


def paired_ratio_change(
    baseline: np.ndarray,
    changed: np.ndarray,
    weights: np.ndarray,
    replicates: int,
    confidence: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return change, low, high and p of sum(changed) / sum(weights) against the baseline.

    `baseline` and `weights` are (n,), `changed` is (n, conditions); units (documents) are
    resampled jointly in both. All results are (conditions,).
    """
    baseline, weights = (np.asarray(one, dtype=np.float64) for one in (baseline, weights))
    difference = np.asarray(changed, dtype=np.float64) - baseline[:, None]
    if not len(weights) or weights.sum() <= 0:
        raise ValueError("a ratio needs at least one unit of positive weight")
    change = difference.sum(axis=0) / weights.sum()
    if len(weights) < 2:
        nan = np.full_like(change, np.nan)
        return change, nan, nan, np.ones_like(change)
    draws = []
    for counts in resampling_counts(len(weights), replicates, seed):
        total = counts @ weights
        # A replicate that drew only units without weight has no ratio.
        with np.errstate(divide="ignore", invalid="ignore"):
            draws.append((counts @ difference) / np.where(total > 0, total, np.nan)[:, None])
    drawn = np.concatenate(draws)
    drawn = drawn[~np.isnan(drawn).all(axis=1)] if np.isnan(drawn).any() else drawn
    if not len(drawn):
        nan = np.full_like(change, np.nan)
        return change, nan, nan, np.ones_like(change)
    return change, *_interval(drawn, confidence), bootstrap_p(change, drawn, len(weights))


def unpaired_ratio_change(
    baseline: tuple[np.ndarray, np.ndarray],
    changed: tuple[np.ndarray, np.ndarray],
    replicates: int,
    confidence: float,
    seed: int,
) -> tuple[float, float, float, float]:
    """Return change, low, high and p of sum(values) / sum(weights) between two samples.

    Each sample is (values, weights) of its own units, resampled by itself.
    """
    draws, ratios = [], []
    for number, (values, weights) in enumerate((baseline, changed)):
        values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
        ratios.append(values.sum() / weights.sum())
        parts = [
            (counts @ values) / (counts @ weights)
            for counts in resampling_counts(len(values), replicates, seed + number)
        ]
        draws.append(np.concatenate(parts))
    change = ratios[1] - ratios[0]
    if min(len(baseline[0]), len(changed[0])) < 2:
        return float(change), math.nan, math.nan, 1.0
    drawn = draws[1] - draws[0]
    low, high = _interval(drawn, confidence)
    return float(change), float(low), float(high), float(bootstrap_p(np.asarray(change), drawn))


def bootstrap_p(estimate: np.ndarray, draws: np.ndarray, units: int | None = None) -> np.ndarray:
    """Return the two-sided p of `estimate` against 0: (1 + k) / (replicates + 1).

    k counts replicates at least as far from the estimate as the estimate is from 0 (Efron and
    Tibshirani 1993, ch. 16: the null distribution is the bootstrap's, shifted to 0).

    With `units`, the number of units that were resampled, p is never below 2 / 2**units, the
    smallest p of a test that flips signs of units: three items prove nothing. And of at least
    `MOST` replicates of which fewer than `FEW` lie beyond, it is the normal tail with the draws'
    standard deviation if that is smaller.
    """
    extreme = (np.abs(draws - estimate) >= np.abs(estimate)).sum(axis=0)
    p = (1 + extreme) / (len(draws) + 1)
    if units is not None and len(draws) >= MOST:
        spread = np.std(draws, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.abs(estimate) / spread
        tail = np.vectorize(lambda one: math.erfc(one / math.sqrt(2)))(np.nan_to_num(z))
        p = np.where((extreme < FEW) & (spread > 0), np.minimum(p, tail), p)
    if units is not None:
        p = np.maximum(p, 2.0 ** (1 - units))
    return np.where(np.isnan(estimate), np.nan, p)


def paired_difference(
    baseline: np.ndarray, changed: np.ndarray, replicates: int, confidence: float, seed: int
) -> tuple[float, float, float, float]:
    """Return mean(changed - baseline), low, high and bootstrap p; the units (n,) are paired."""
    column = np.asarray(changed, dtype=np.float64)[:, None]
    one = np.ones(len(column))
    results = paired_ratio_change(baseline, column, one, replicates, confidence, seed)
    change, low, high, p = (float(result[0]) for result in results)
    return change, low, high, p


def aggregate_change(
    baseline: np.ndarray | None,
    changed: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    replicates: int,
    confidence: float,
    seed: int,
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Return (score, low, high) and (change, low, high, p) of scores of summed counts.

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
    own, moved = (value, nan, nan), (change, nan, nan, np.ones(conditions))
    if n >= 2:
        parts = [scored(chunk @ stacked) for chunk in resampling_counts(n, replicates, seed)]
        draws, differences = (np.concatenate(part) for part in zip(*parts, strict=True))
        own = (value, *_interval(draws, confidence))
        moved = (change, *_interval(differences, confidence))
        moved += (bootstrap_p(change, differences, n),)
    if baseline is None:
        moved = (nan,) * 4
    if single:
        own, moved = (tuple(float(one[0]) for one in part) for part in (own, moved))
    return own, moved


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


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm-corrected p: monotone in p, at most 1. NaN is no test and stays NaN."""
    p = np.asarray(p, dtype=np.float64)
    result = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return result


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
