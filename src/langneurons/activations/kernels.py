"""The fused counting loop: everything kept about a layer's activations, in one pass over them.

For x of shape (tokens, neurons), a mask of the tokens that count, and rows = blocks of the corpus,
per neuron: the number of x > 0; sums of x, x**2 and |x|; minimum and maximum (NaN once a NaN was
seen); the histogram of `langneurons.activations.histogram`.

Sums are exact under any order of merging: a block's float64 sum (tokens in order) is split into
two int64 limbs, whole part and 2**-40 fraction, and limbs add as integers. So neither the number
of shards nor the order in which they are merged shows in a file.

`accumulate` picks the numba loop on CPU and the kernel of `langneurons.activations.cuda` on an
NVIDIA GPU, which give the same integers throughout; on any other device torch operations do it, to
the same counts and bins, and to the same sums within float64 rounding.
"""

import numba
import numpy as np
import torch

from langneurons.activations import cuda
from langneurons.activations.cuda import accumulate_cuda
from langneurons.activations.histogram import KEY_MIN, N_BINS, N_REGULAR, N_SIGN, SHIFT

LIMB = 2.0**40
MOMENTS = ("sum", "square", "absolute")
CHUNK = 128
SHIFT_32 = np.int32(SHIFT)
BELOW_32 = np.int32(KEY_MIN - 1)
TOP_32 = np.int32(N_REGULAR)
ZERO_32 = np.int32(N_SIGN)


@numba.njit(parallel=True, cache=True, nogil=True)
def _accumulate(
    x: np.ndarray,
    bits: np.ndarray,
    mask: np.ndarray,
    rows: np.ndarray,
    positive: np.ndarray,
    limbs: np.ndarray,
    extremes: np.ndarray,
    histogram: np.ndarray,
) -> None:
    """Add x (tokens, neurons) to the accumulators; `rows` are the block borders in tokens."""
    n_neurons = x.shape[1]
    with_histogram = histogram.shape[0] > 0
    n_chunks = (n_neurons + CHUNK - 1) // CHUNK
    for chunk in numba.prange(n_chunks):
        start = chunk * CHUNK
        width = min(CHUNK, n_neurons - start)
        count = np.zeros(CHUNK, np.int32)
        low = np.full(CHUNK, np.inf, np.float32)
        high = np.full(CHUNK, -np.inf, np.float32)
        total = np.zeros(CHUNK, np.float64)
        square = np.zeros(CHUNK, np.float64)
        absolute = np.zeros(CHUNK, np.float64)
        index = np.zeros(CHUNK, np.int32)
        damaged = np.zeros(CHUNK, np.bool_)
        for row in range(rows.shape[0] - 1):
            for j in range(CHUNK):
                total[j] = 0.0
                square[j] = 0.0
                absolute[j] = 0.0
            for token in range(rows[row], rows[row + 1]):
                if not mask[token]:
                    continue
                values = x[token, start : start + width]
                for j in range(width):
                    value = values[j]
                    wide = np.float64(value)
                    count[j] += np.int32(value > 0)
                    total[j] += wide
                    square[j] += wide * wide
                    absolute[j] += abs(wide)
                    low[j] = min(low[j], value)
                    high[j] = max(high[j], value)
                if with_histogram:
                    keys = bits[token, start : start + width]
                    for j in range(width):
                        magnitude = ((keys[j] & np.int32(0x7FFFFFFF)) >> SHIFT_32) - BELOW_32
                        magnitude = min(max(magnitude, np.int32(0)), TOP_32)
                        negative = keys[j] >> np.int32(31)
                        index[j] = ZERO_32 + (magnitude ^ negative)
                    for j in range(width):
                        histogram[start + j, index[j]] += 1
            for j in range(width):
                damaged[j] |= np.isnan(absolute[j])
                for moment in range(3):
                    if moment == 0:
                        value64 = total[j]
                    elif moment == 1:
                        value64 = square[j]
                    else:
                        value64 = absolute[j]
                    whole = np.floor(value64)
                    limbs[moment, 0, start + j] += np.int64(whole)
                    limbs[moment, 1, start + j] += np.int64(np.rint((value64 - whole) * LIMB))
        for j in range(width):
            positive[start + j] += count[j]
            extremes[0, start + j] = min(extremes[0, start + j], low[j])
            extremes[1, start + j] = max(extremes[1, start + j], high[j])
            # Comparisons pass over a NaN; the reader of the extremes must see it.
            if damaged[j]:
                extremes[0, start + j] = np.nan
                extremes[1, start + j] = np.nan


def accumulate_torch(
    x: torch.Tensor,
    mask: torch.Tensor,
    rows: torch.Tensor,
    positive: torch.Tensor,
    limbs: torch.Tensor,
    extremes: torch.Tensor,
    histogram: torch.Tensor,
) -> None:
    """Do the same with torch operations, on any device; shapes as in `accumulate`.

    No shape depends on the data, so the host waits for nothing.
    """
    tokens, neurons = x.shape
    n_rows = len(rows) - 1
    if not x.numel() or not n_rows:
        return
    kept, values = mask[:, None], x.float()
    row_of = torch.bucketize(torch.arange(tokens, device=x.device), rows[1:], right=True)
    row_of.clamp_(max=n_rows - 1)
    count = ((values > 0) & kept).sum(0)
    wide = torch.where(kept, values, 0.0).double()
    more = torch.zeros_like(limbs)
    for moment, powers in enumerate((wide, wide * wide, wide.abs())):
        sums = torch.zeros(n_rows, neurons, dtype=torch.float64, device=x.device)
        sums.index_add_(0, row_of, powers)
        whole = sums.floor()
        more[moment, 0] = whole.long().sum(0)
        more[moment, 1] = ((sums - whole) * LIMB).round().long().sum(0)
    low = torch.where(kept, values, torch.inf).amin(0)
    high = torch.where(kept, values, -torch.inf).amax(0)
    index = None
    if histogram.shape[0]:
        bits = values.contiguous().view(torch.int32)
        magnitude = (((bits & 0x7FFFFFFF) >> SHIFT) - KEY_MIN + 1).clamp_(0, N_REGULAR)
        index = torch.where(bits < 0, N_SIGN - 1 - magnitude, N_SIGN + magnitude).long()
        index += torch.arange(neurons, device=x.device) * N_BINS
        ones = kept.to(histogram.dtype).expand(-1, neurons).reshape(-1)
    # Memory is asked for above; from here on nothing can stop half-way.
    positive += count
    limbs += more
    torch.minimum(extremes[0], low, out=extremes[0])
    torch.maximum(extremes[1], high, out=extremes[1])
    if index is not None:
        histogram.view(-1).index_add_(0, index.view(-1), ones)


def accumulate(
    x: torch.Tensor,
    mask: torch.Tensor,
    rows: torch.Tensor,
    positive: torch.Tensor,
    limbs: torch.Tensor,
    extremes: torch.Tensor,
    histogram: torch.Tensor,
) -> None:
    """Add activations to a layer's accumulators, in place.

    x: float tensor (tokens, neurons); mask: bool (tokens,); rows: int64, the ascending borders of
    the corpus blocks in tokens, from 0 to all; positive: int64 (neurons,); limbs: int64
    (3 moments, 2, neurons); extremes: float32 (2, neurons); histogram: int32 (neurons, N_BINS),
    or (0, N_BINS) for none. All on the device of x.
    """
    if x.device.type != "cpu":
        kernel = accumulate_cuda if cuda.available(x.device) else accumulate_torch
        kernel(x, mask, rows, positive, limbs, extremes, histogram)
        return
    values = x.float().contiguous().numpy()
    _accumulate(
        values,
        values.view(np.int32),
        mask.numpy(),
        rows.numpy(),
        positive.numpy(),
        limbs.numpy(),
        extremes.numpy(),
        histogram.numpy(),
    )
