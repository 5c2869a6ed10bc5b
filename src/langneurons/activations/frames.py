"""Histograms on disk: in frames of a few bins of a layer, so that some are read without the rest.

Neighbouring bins hold similar counts: a frame keeps the differences along its bins (zigzag coded:
small numbers of either sign become small numbers), one bin of all neurons after the other, as byte
planes in zstd. Before them it keeps, for each neuron, how many values lie below its first bin. So
P(a > t) of a layer's neurons for one t takes one frame of the layer, of `GROUPS`.
"""

from collections.abc import Callable

import numpy as np

from langneurons.activations.histogram import N_BINS
from langneurons.base.io import DamagedFile, damaged

WIDTH = 48
GROUPS = -(-N_BINS // WIDTH)
BELOW = 2  # rows of a frame that hold the values below it: low and high half of 64 bits
PLANES = 4
LEVEL = 3  # of zstd: the smallest files, and little slower than 1


def compress(array: np.ndarray) -> np.ndarray:
    """Return the bytes of an integer array, lowest plane first, in zstd; uint8 (bytes,)."""
    import pyarrow as pa

    width = array.dtype.itemsize
    planes = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(-1, width).T
    codec = pa.Codec("zstd", compression_level=LEVEL)
    return np.frombuffer(codec.compress(np.ascontiguousarray(planes)), np.uint8)


def planes(packed: np.ndarray, number: int, width: int, path: str) -> np.ndarray:
    """Return the bytes of so many integers of a width in bytes, uint8 (width, number)."""
    import pyarrow as pa

    try:
        raw = pa.decompress(pa.py_buffer(np.ascontiguousarray(packed)), width * number, "zstd")
        return np.frombuffer(raw, np.uint8).reshape(width, -1)
    except (OSError, ValueError) as error:
        raise DamagedFile(damaged(path, f"packed counts: {error}")) from error


def decompress(packed: np.ndarray, shape: tuple[int, ...], dtype: type, path: str) -> np.ndarray:
    """Return the integers that `compress` packed."""
    width = np.dtype(dtype).itemsize
    found = planes(packed, int(np.prod(shape, dtype=np.int64)), width, path)
    return np.ascontiguousarray(found.T).view(dtype).reshape(shape)


def pack(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compress int32 counts (n_layers, d_mlp, N_BINS).

    Returns the frames, uint8 (bytes,), and where each ends, int64 (n_layers, GROUPS).
    """
    frames, ends, total = [], np.empty((len(histogram), GROUPS), np.int64), 0
    for layer, counts in enumerate(histogram):
        below = np.zeros(counts.shape[0], np.int64)
        for group in range(GROUPS):
            own = counts[:, group * WIDTH : (group + 1) * WIDTH].T
            steps: np.ndarray = np.diff(np.asarray(own, np.int32), axis=0, prepend=np.int32(0))
            rows = np.concatenate(
                [
                    below.astype("<i8").view("<u4").reshape(-1, BELOW).T,
                    ((steps << 1) ^ (steps >> 31)).view(np.uint32),
                ]
            )
            frames.append(compress(rows))
            total += len(frames[-1])
            ends[layer, group] = total
            below += own.sum(axis=0, dtype=np.int64)
    return np.concatenate(frames), ends


def _frame(packed: np.ndarray, group: int, d_mlp: int, path: str) -> np.ndarray:
    """Return the byte planes of a frame, (4, rows * d_mlp)."""
    rows = BELOW + min(WIDTH, N_BINS - group * WIDTH)
    return planes(packed, rows * d_mlp, PLANES, path)


def unpack(
    packed: np.ndarray, ends: np.ndarray, shape: tuple[int, int, int], path: str
) -> np.ndarray:
    """Return the counts that `pack` packed, int32 (n_layers, d_mlp, N_BINS)."""
    from langneurons.activations.loops import undo

    result = np.empty(shape, np.int32)
    start = 0
    for layer in range(shape[0]):
        for group in range(GROUPS):
            end = int(ends[layer, group])
            found = _frame(packed[start:end], group, shape[1], path)
            own = result[layer, :, group * WIDTH : (group + 1) * WIDTH]
            undo(found[:, BELOW * shape[1] :], own)
            start = end
    return result


def around(
    read: Callable[[int, int], np.ndarray],
    ends: np.ndarray,
    bins: np.ndarray,
    d_mlp: int,
    path: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts below one bin of each layer, and in it, int64 (n_layers, d_mlp).

    read: returns the bytes of the frames from a place to another; bins: int (n_layers,).
    """
    starts = np.concatenate([[0], ends.ravel()[:-1]]).reshape(ends.shape)
    below, within = np.empty((2, len(ends), d_mlp), np.int64)
    for layer, number in enumerate(bins):
        group, place = divmod(int(number), WIDTH)
        packed = read(int(starts[layer, group]), int(ends[layer, group]))
        found = _frame(packed, group, d_mlp, path)
        codes = np.ascontiguousarray(found.T).view("<u4").reshape(-1, d_mlp)
        before = codes[0].astype(np.int64) + (codes[1].astype(np.int64) << 32)
        steps = codes[BELOW : BELOW + place + 1]
        steps = (steps >> 1).view(np.int32) ^ -(steps & 1).view(np.int32)
        counts = steps.cumsum(axis=0, dtype=np.int64)
        below[layer] = before + counts[:-1].sum(axis=0)
        within[layer] = counts[-1]
    return below, within
