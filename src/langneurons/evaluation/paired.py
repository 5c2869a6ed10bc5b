"""Student's t for changes of the same units with and without an intervention.

Apart from the other intervals (`langneurons.reporting.uncertainty`), because jobs stop reading by
it: what an interval of a table is changes then what is read.
"""

import numpy as np

from langneurons.evaluation.power import smallest_p

Bounds = tuple[float, float]


def at_each_look(confidence: float, looks: int) -> float:
    """Return the confidence at each planned look that keeps the error rate over all (Bonferroni).

    Whichever look ends the reading, the interval at it holds with the confidence asked for, and p
    times the number of looks is a p of the whole.
    """
    return 1 - (1 - confidence) / looks


def student(
    estimate: np.ndarray,
    error: np.ndarray,
    freedom: float | np.ndarray,
    confidence: float,
    floor: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return low, high and the two-sided p of estimates with standard errors.

    p is not below `floor`; where the floor is not below 1 - confidence the interval holds 0.
    Without spread (error 0) there is no interval: NaN.
    """
    from scipy.special import stdtr, stdtrit

    estimate, error = np.broadcast_arrays(
        np.asarray(estimate, np.float64), np.asarray(error, np.float64)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        half = stdtrit(freedom, 0.5 + confidence / 2) * np.where(error > 0, error, np.nan)
        t = np.where(estimate == 0, 0.0, np.abs(estimate) / error)
        p = 2 * stdtr(freedom, -t)
    low, high = estimate - half, estimate + half
    if floor >= 1 - confidence:
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    p = np.where(np.isnan(estimate), np.nan, np.maximum(p, floor))
    return low, high, p


def bounded(
    estimate: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    p: np.ndarray,
    alike: np.ndarray,
    units: int,
    bounds: Bounds,
    confidence: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return limits within the bounds; where all units are alike, the exact ones, and their p.

    If none of n units differs, at most a share u = 1 - (tail)^(1/n) of all units does, by as much
    as the bounds allow. p is the level at which that interval reaches 0.
    """
    least, most = bounds
    unseen = 1 - ((1 - confidence) / 2) ** (1 / units)
    low = np.where(alike, estimate - (estimate - least) * unseen, np.maximum(low, least))
    high = np.where(alike, estimate + (most - estimate) * unseen, np.minimum(high, most))
    far = np.where(estimate >= 0, -least, most)  # how far an unseen unit may lie beyond 0
    size = np.abs(estimate)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(size > 0, size / (size + far), 0.0)
    exact = np.minimum(1.0, 2 * (1 - share) ** units)
    return low, high, np.where(alike, np.maximum(exact, smallest_p(units)), p)


def paired_ratio_change(
    baseline: np.ndarray,
    changed: np.ndarray,
    weights: np.ndarray,
    confidence: float,
    bounds: Bounds | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return change, low, high and p of sum(changed) / sum(weights) against the baseline.

    `baseline` and `weights` are (n,), `changed` is (n, conditions); the units (documents) are
    paired. All results are (conditions,). `bounds` are those of a unit's change.
    """
    baseline, weights = (np.asarray(one, dtype=np.float64) for one in (baseline, weights))
    difference = np.asarray(changed, dtype=np.float64) - baseline[:, None]
    if not len(weights) or weights.sum() <= 0:
        raise ValueError("a ratio needs at least one unit of positive weight")
    kept = weights > 0
    difference, weights = difference[kept], weights[kept]
    change, n = difference.sum(axis=0) / weights.sum(), len(weights)
    if n < 2:
        nan = np.full_like(change, np.nan)
        return change, nan, nan, np.ones_like(change)
    rest = difference - change * weights[:, None]
    error = np.sqrt((rest**2).sum(axis=0) * n / (n - 1)) / weights.sum()
    error = np.where(error > 1e-12 * np.abs(change), error, 0.0)  # what rounding leaves
    low, high, p = student(change, error, n - 1, confidence, smallest_p(n))
    if bounds is not None:
        low, high, p = bounded(change, low, high, p, error == 0, n, bounds, confidence)
    return change, low, high, p
