"""Average precision of many scores for many classes at once: one sort per score.

AP = sum over thresholds t of (R_t - R_before) P_t, with precision P_t and recall R_t of
"value >= t" for one class against all others; equal values form one threshold, and nothing is
interpolated. The values are those of scikit-learn's `average_precision_score`.

Along the values in falling order, an element of class k whose threshold ends at rank r adds
(elements of k down to r) / r / (elements of k) to the AP of k and nothing to any other, so that a
walk over one sorted list gives every class.
"""

import numba
import numpy as np

BLOCK = 1024


@numba.njit(cache=True, nogil=True)
def _walk(
    values: np.ndarray,
    order: np.ndarray,
    labels: np.ndarray,
    sizes: np.ndarray,
    result: np.ndarray,
) -> None:
    """Fill result (classes, scores) from values (scores, items), rising along `order`."""
    n_items = values.shape[1]
    for row in range(values.shape[0]):
        seen = np.zeros(sizes.shape[0], np.int64)
        total = np.zeros(sizes.shape[0], np.float64)
        stop = n_items - 1
        while stop >= 0:
            threshold = values[row, order[row, stop]]
            start = stop
            while start >= 0 and values[row, order[row, start]] == threshold:
                seen[labels[order[row, start]]] += 1
                start -= 1
            for place in range(start + 1, stop + 1):
                label = labels[order[row, place]]
                total[label] += seen[label] / (n_items - 1 - start)
            stop = start
        for label in range(sizes.shape[0]):
            result[label, row] = total[label] / sizes[label]


def average_precision(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the AP of every score for every class, float64 (classes, scores).

    `values` is (items, scores), finite; `labels` holds the class 0, 1, ... of each item, and every
    class has an item. Neither the order of the items nor that of the scores plays a part.
    """
    values, labels = np.asarray(values, np.float64), np.asarray(labels, np.int64)
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise ValueError(f"values {values.shape} do not hold one row for each of {labels.shape}")
    sizes = np.bincount(labels)
    if not len(labels) or not sizes.all():
        raise ValueError(f"classes without an item: {np.flatnonzero(sizes == 0).tolist()}")
    if not np.isfinite(values).all():
        raise ValueError("values that are not finite have no rank")
    result = np.empty((len(sizes), values.shape[1]))
    for start in range(0, values.shape[1], BLOCK):
        block = np.ascontiguousarray(values[:, start : start + BLOCK].T)
        _walk(block, np.argsort(block, axis=1), labels, sizes, result[:, start : start + BLOCK])
    return result
