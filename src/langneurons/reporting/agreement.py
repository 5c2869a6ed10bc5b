"""Agreement of a language's neurons in draws of slices: a value, and how draws vary around it."""

import numpy as np
import pandas as pd


def measure_of(frame: pd.DataFrame) -> str:
    """Return the column that measures agreement: cosine of directions, Jaccard of neurons."""
    return "cosine" if frame["cosine"].notna().any() else "jaccard"


def replicated(own: pd.DataFrame, measure: str, comparison: bool) -> tuple[float, np.ndarray]:
    """Return the measure of one language's records of a kind, and each draw's change of it.

    Of a comparison it is that of draw 0, which has all slices. Its bootstrap draws repeat slices,
    so they agree less than the whole does: their changes are taken from their own mean. Draws
    without neurons are left out; one draw says nothing of the others, so it has no change.
    """
    own = own.sort_values("draw")
    values = own[measure].to_numpy(np.float64)
    value = float(values[0]) if comparison else _mean(values)
    drawn = values[1:] if comparison else values
    if not comparison and len(drawn) == 1:
        return value, np.full(1, np.nan)
    return value, drawn - _mean(drawn)


def ends(value: float, changes: np.ndarray, confidence: float, measure: str) -> tuple[float, float]:
    """Return the range that holds a share of the draws, within the measure's own limits.

    NaN of fewer than two draws.
    """
    known = changes[~np.isnan(changes)]
    if len(known) < 2:
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    least = -1 if measure == "cosine" else 0
    low, high = np.clip(value + np.quantile(known, [tail, 1 - tail]), least, 1)
    return float(low), float(high)


def mean_over(parts: list[tuple[float, np.ndarray]]) -> tuple[float, np.ndarray]:
    """Return the mean over languages, and its change in each draw, which all languages share."""
    values = _mean(np.array([value for value, _ in parts]))
    changes = np.array([own for _, own in parts])
    known = ~np.isnan(changes)
    sums, counts = np.where(known, changes, 0).sum(axis=0), known.sum(axis=0)
    return values, np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
