"""Log-linear histograms of activations on the leading bits of a float32.

The sign, the exponent and the first `MANTISSA_BITS` bits of the mantissa of a value are its bin:
no search and no range that depends on the data, and histograms of any two runs add. Between
2**MIN_EXPONENT and 2**MAX_EXPONENT each octave has 2**MANTISSA_BITS bins of equal width, so a
value is known to 12.5 % of itself; below, to 2**MIN_EXPONENT in absolute terms; above, to the
largest value seen (the idea of DDSketch, Masson et al. 2019, with bit-cheap bins).

Bins ascend with the value: index `N_SIGN - 1 - m` for negative and `N_SIGN + m` for non-negative
values of magnitude class m.

Quantile error bound: `quantile` returns, for an order statistic, a value inside the bin that
holds it, so the error is at most the bin's width (`bin_width`). Interpolating between two order
statistics as numpy does ("linear") keeps the larger of the two bounds. `exceedance` is exact at
bin edges (a value equal to a non-negative edge counts as above it) and off by at most the share of
the values in the threshold's own bin elsewhere.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

MANTISSA_BITS = 3
MIN_EXPONENT = -10
MAX_EXPONENT = 7
SHIFT = 23 - MANTISSA_BITS
KEY_MIN = (127 + MIN_EXPONENT) << MANTISSA_BITS
N_REGULAR = (MAX_EXPONENT - MIN_EXPONENT) << MANTISSA_BITS
N_SIGN = N_REGULAR + 1
N_BINS = 2 * N_SIGN


def bin_index(values: np.ndarray) -> np.ndarray:
    """Return the bin (int64) of each value; any shape."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32)
    magnitude = np.clip(((bits & 0x7FFFFFFF) >> SHIFT) - KEY_MIN + 1, 0, N_REGULAR)
    return np.where(bits < 0, N_SIGN - 1 - magnitude, N_SIGN + magnitude).astype(np.int64)


def bin_edges() -> np.ndarray:
    """Return the N_BINS + 1 ascending edges; the outermost are infinite."""
    classes = np.arange(N_REGULAR)
    octave, step = np.divmod(classes, 1 << MANTISSA_BITS)
    lower = np.ldexp(1 + step / (1 << MANTISSA_BITS), MIN_EXPONENT + octave)
    positive = np.concatenate([lower, [np.inf]])
    return np.concatenate([-positive[::-1], [0.0], positive])


EDGES = bin_edges()


def bin_width(values: np.ndarray) -> np.ndarray:
    """Return the width of the bin that holds each value: the quantile error bound there."""
    index = bin_index(values)
    return EDGES[index + 1] - EDGES[index]


def _bounds(minimum: np.ndarray, maximum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper bin edges (..., N_BINS), cut to the range that was seen."""
    minimum = np.asarray(minimum, dtype=np.float64)[..., None]
    maximum = np.asarray(maximum, dtype=np.float64)[..., None]
    return np.clip(EDGES[:-1], minimum, maximum), np.clip(EDGES[1:], minimum, maximum)


def quantile(
    histogram: np.ndarray, q: float, minimum: np.ndarray, maximum: np.ndarray
) -> np.ndarray:
    """Estimate the q-quantile (numpy's "linear" definition) of each histogram.

    `histogram` is (..., N_BINS); `minimum` and `maximum` are the extremes seen, (...).
    Empty histograms give NaN.
    """
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"quantile {q!r} is not between 0 and 1")
    cumulative = np.cumsum(histogram, axis=-1, dtype=np.float64)
    total = cumulative[..., -1]
    rank = np.maximum(total - 1, 0) * q
    low = _order_statistic(histogram, cumulative, np.floor(rank), minimum, maximum)
    high = _order_statistic(histogram, cumulative, np.ceil(rank), minimum, maximum)
    result = low + (high - low) * (rank - np.floor(rank))
    return np.where(total > 0, result, np.nan)


def _order_statistic(
    histogram: np.ndarray,
    cumulative: np.ndarray,
    rank: np.ndarray,
    minimum: np.ndarray,
    maximum: np.ndarray,
) -> np.ndarray:
    """Place the value of 0-based rank evenly inside its bin."""
    index = (cumulative <= rank[..., None]).sum(axis=-1)
    index = np.minimum(index, N_BINS - 1)[..., None]
    count = np.take_along_axis(histogram, index, -1)[..., 0].astype(np.float64)
    before = np.take_along_axis(cumulative, index, -1)[..., 0] - count
    minimum = np.asarray(minimum, dtype=np.float64)
    maximum = np.asarray(maximum, dtype=np.float64)
    lower = np.clip(EDGES[index[..., 0]], minimum, maximum)
    upper = np.clip(EDGES[index[..., 0] + 1], minimum, maximum)
    share = (rank - before + 0.5) / np.maximum(count, 1e-300)
    return lower + (upper - lower) * np.clip(share, 0.0, 1.0)


@functools.cache
def _edges(device: "torch.device") -> "torch.Tensor":
    """Return the edges on a device: once, since the copy waits for all that is queued there."""
    import torch

    return torch.from_numpy(EDGES).to(device)


def quantile_tensor(
    histogram: "torch.Tensor", q: float, minimum: "torch.Tensor", maximum: "torch.Tensor"
) -> "torch.Tensor":
    """Do what `quantile` does, to the same bits, with tensors on their device; float64 (...)."""
    import torch

    if not 0.0 <= q <= 1.0:
        raise ValueError(f"quantile {q!r} is not between 0 and 1")
    edges = _edges(histogram.device)
    cumulative = histogram.cumsum(-1, dtype=torch.float64)
    total = cumulative[..., -1]
    rank = (total - 1).clamp(min=0) * q
    minimum, maximum = minimum.double(), maximum.double()

    def order_statistic(rank: "torch.Tensor") -> "torch.Tensor":
        index = (cumulative <= rank[..., None]).sum(-1, keepdim=True).clamp(max=N_BINS - 1)
        count = histogram.gather(-1, index)[..., 0].double()
        before = cumulative.gather(-1, index)[..., 0] - count
        lower = edges[index[..., 0]].clamp(minimum, maximum)
        upper = edges[index[..., 0] + 1].clamp(minimum, maximum)
        share = (rank - before + 0.5) / count.clamp(min=1e-300)
        return lower + (upper - lower) * share.clamp(0.0, 1.0)

    low, high = order_statistic(rank.floor()), order_statistic(rank.ceil())
    result = low + (high - low) * (rank - rank.floor())
    return torch.where(total > 0, result, torch.nan)


def exceedance(
    histogram: np.ndarray, threshold: np.ndarray, minimum: np.ndarray, maximum: np.ndarray
) -> np.ndarray:
    """Estimate P(a > threshold) of each histogram; `threshold` broadcasts to (...)."""
    lower, upper = _bounds(minimum, maximum)
    threshold = np.broadcast_to(np.asarray(threshold, np.float64), histogram.shape[:-1])[..., None]
    width = upper - lower
    above = np.where(
        width > 0,
        np.clip((upper - threshold) / np.where(width > 0, width, 1.0), 0.0, 1.0),
        (lower > threshold).astype(np.float64),
    )
    total = histogram.sum(axis=-1, dtype=np.float64)
    exceeding = np.einsum("...b,...b->...", histogram.astype(np.float64), above)
    return np.where(total > 0, exceeding / np.where(total > 0, total, 1.0), np.nan)


def image(function: Callable[[np.ndarray], np.ndarray], samples: int = 64) -> np.ndarray:
    """Return M (N_BINS, N_BINS): the share of each bin that `function` sends to each other bin.

    With `histogram @ M` the distribution of a pointwise function of a value follows from the
    distribution of the value: the activation's from the gate's, without a second histogram.
    Inside a bin values are taken as evenly spread, so the error is the width of the bin's image
    plus that of the target bin.
    """
    edges = np.clip(EDGES, -(2.0 ** (MAX_EXPONENT + 1)), 2.0 ** (MAX_EXPONENT + 1))
    offsets = (np.arange(samples) + 0.5) / samples
    points = edges[:-1, None] + (edges[1:] - edges[:-1])[:, None] * offsets
    target = bin_index(function(points))
    matrix = np.zeros((N_BINS, N_BINS))
    np.add.at(matrix, (np.repeat(np.arange(N_BINS), samples), target.ravel()), 1.0 / samples)
    return matrix
