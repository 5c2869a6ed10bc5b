"""Loops over histograms of millions of neurons, each in one pass: unpacking, P(a > t).

The formulas are those of `langneurons.activations.histogram`; there they are written out for any
shape.
"""

import numba
import numpy as np

CHUNK = 64


@numba.njit(parallel=True, cache=True, nogil=True)
def undo(planes: np.ndarray, result: np.ndarray) -> None:
    """Fill int32 counts (neurons, bins) from uint8 planes (4, bins * neurons), lowest byte first.

    A plane holds one bin of all neurons after the other; the numbers are differences between
    neighbouring bins, zigzag coded.
    """
    n_neurons, n_bins = result.shape
    for chunk in numba.prange((n_neurons + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        width = min(CHUNK, n_neurons - start)
        running = np.zeros(CHUNK, np.int32)
        for column in range(n_bins):
            base = column * n_neurons + start
            for j in range(width):
                code = np.uint32(planes[0, base + j])
                code |= np.uint32(planes[1, base + j]) << np.uint32(8)
                code |= np.uint32(planes[2, base + j]) << np.uint32(16)
                code |= np.uint32(planes[3, base + j]) << np.uint32(24)
                step = np.int32(code >> np.uint32(1)) ^ -np.int32(code & np.uint32(1))
                running[j] += step
                result[start + j, column] = running[j]


@numba.njit(parallel=True, cache=True, nogil=True)
def exceedance(
    histogram: np.ndarray,
    threshold: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    edges: np.ndarray,
    result: np.ndarray,
) -> None:
    """Fill P(a > threshold) of each row of histogram (neurons, bins); the rest is (neurons,).

    Only the bin of the threshold, or the two that meet there, are shared out.
    """
    n_neurons, n_bins = histogram.shape
    for i in numba.prange(n_neurons):
        t, total, above = threshold[i], 0.0, 0.0
        for column in range(n_bins):
            count = histogram[i, column]
            if count == 0:
                continue
            total += count
            if low[i] > t:
                above += count
            elif high[i] > t and edges[column + 1] >= t:
                if edges[column] > t:
                    above += count
                    continue
                lower = min(max(edges[column], low[i]), high[i])
                upper = min(max(edges[column + 1], low[i]), high[i])
                if upper > lower:
                    above += count * min(max((upper - t) / (upper - lower), 0.0), 1.0)
                elif lower > t:
                    above += count
        result[i] = above / total if total > 0 else np.nan


@numba.njit(parallel=True, cache=True, nogil=True)
def bipartitions(
    share: np.ndarray, overlaps: np.ndarray, cost: np.ndarray, group: np.ndarray
) -> None:
    """Fill of each neuron the overlaps of pairs of languages and its two groups of languages.

    share: float32 (languages, neurons, bins), distributions. overlaps: float32 (neurons, pairs),
    pairs (0, 1), (0, 2), ..., (1, 2), ...; cost: float32 (neurons,), the largest overlap across
    the groups; group: bool (neurons, languages), one of them. Ties go to the earlier language.
    """
    n_languages, n_neurons, n_bins = share.shape
    for i in numba.prange(n_neurons):
        similar = np.zeros((n_languages, n_languages), np.float32)
        pair = 0
        for a in range(n_languages):
            for b in range(a + 1, n_languages):
                total = np.float32(0.0)
                for column in range(n_bins):
                    total += min(share[a, i, column], share[b, i, column])
                similar[a, b] = similar[b, a] = total
                overlaps[i, pair] = total
                pair += 1
        # The largest spanning tree, by Prim: what joins last by least parts the languages.
        joined = np.zeros(n_languages, np.bool_)
        parent = np.zeros(n_languages, np.int64)
        weight = similar[0].copy()
        order = np.zeros(n_languages, np.int64)
        joined[0] = True
        for place in range(1, n_languages):
            best = -1
            for b in range(n_languages):
                if not joined[b] and (best < 0 or weight[b] > weight[best]):
                    best = b
            joined[best] = True
            order[place] = best
            for b in range(n_languages):
                if not joined[b] and similar[best, b] > weight[b]:
                    weight[b] = similar[best, b]
                    parent[b] = best
        weakest = order[1]
        for place in range(2, n_languages):
            if weight[order[place]] < weight[weakest]:
                weakest = order[place]
        cost[i] = weight[weakest]
        for b in range(n_languages):
            group[i, b] = False
        for place in range(1, n_languages):
            b = order[place]
            group[i, b] = b == weakest or group[i, parent[b]]
