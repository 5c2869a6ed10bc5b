"""Average precision against its definition, threshold by threshold."""

import numpy as np
import pytest

from langneurons.selection import average_precision as precision
from langneurons.selection.average_precision import average_precision


def by_hand(values: np.ndarray, wanted: np.ndarray) -> float:
    """Sum of (rise of recall) x precision over the distinct thresholds, from the highest down."""
    result, recall = 0.0, 0.0
    for threshold in sorted(set(values.tolist()), reverse=True):
        chosen = values >= threshold
        found = (chosen & wanted).sum()
        result += (found / wanted.sum() - recall) * found / chosen.sum()
        recall = found / wanted.sum()
    return result


def every_by_hand(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    classes = range(labels.max() + 1)
    return np.array([[by_hand(column, labels == k) for column in values.T] for k in classes])


def items(n_classes: int, per_class: int, n_scores: int = 9, ties: str = "none"):
    rng = np.random.default_rng(n_classes)
    labels = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n_classes)])
    labels = rng.permutation(np.concatenate([labels, np.repeat(labels, per_class)]))
    values = rng.normal(size=(len(labels), n_scores)) + 0.3 * labels[:, None]
    if ties == "rounded":
        values = np.round(values, 1)
    if ties == "zeros":
        values = np.where(rng.random(values.shape) < 0.7, 0.0, values)
        values[:, 0], values[:, 1] = 3.0, np.where(rng.random(len(labels)) < 0.5, 0.0, -0.0)
    return values, labels


@pytest.mark.parametrize("ties", ["none", "rounded", "zeros"])
@pytest.mark.parametrize("n_classes, per_class", [(1, 3), (2, 4), (7, 5), (18, 3)])
def test_it_equals_the_definition(n_classes, per_class, ties):
    values, labels = items(n_classes, per_class, ties=ties)
    expected = every_by_hand(values, labels)
    np.testing.assert_allclose(average_precision(values, labels), expected, rtol=0, atol=1e-12)


def test_known_values():
    labels = np.array([0, 0, 1, 1])
    columns = {
        "apart": ([4, 3, 2, 1], (1, (1 / 3 + 2 / 4) / 2)),
        "in turn": ([4, 2, 3, 1], ((1 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2)),
        "all equal": ([5, 5, 5, 5], (0.5, 0.5)),
    }
    values = np.array([column for column, _ in columns.values()], float).T
    expected = np.array([pair for _, pair in columns.values()]).T
    np.testing.assert_allclose(average_precision(values, labels), expected, atol=1e-15)


def test_only_the_order_of_the_values_matters():
    values, labels = items(5, 6, ties="rounded")
    found = average_precision(values, labels)
    np.testing.assert_array_equal(average_precision(np.exp(3 * values) - 7, labels), found)
    assert abs(average_precision(-values, labels) - found).max() > 0.1


def test_order_of_items_classes_and_scores_changes_nothing():
    rng = np.random.default_rng(1)
    values, labels = items(6, 7, n_scores=30, ties="rounded")
    found = average_precision(values, labels)
    order = rng.permutation(len(labels))
    np.testing.assert_array_equal(average_precision(values[order], labels[order]), found)
    renamed = rng.permutation(6)
    np.testing.assert_array_equal(average_precision(values, renamed[labels])[renamed], found)
    columns = rng.permutation(30)
    np.testing.assert_array_equal(average_precision(values[:, columns], labels), found[:, columns])


@pytest.mark.parametrize("block", [1, 7, 30, 64])
def test_blocks_of_scores_change_nothing(block, monkeypatch):
    values, labels = items(4, 6, n_scores=30)
    found = average_precision(values, labels)
    monkeypatch.setattr(precision, "BLOCK", block)
    np.testing.assert_array_equal(average_precision(values, labels), found)


@pytest.mark.parametrize(
    "values, labels, message",
    [
        (np.zeros((2, 3)), [0, 2], r"classes without an item: \[1\]"),
        (np.zeros((0, 3)), [], "classes without an item"),
        (np.zeros((2, 3)), [0], "one row for each"),
        (np.array([[1.0], [np.nan]]), [0, 1], "not finite"),
    ],
)
def test_what_has_no_average_precision_is_refused(values, labels, message):
    with pytest.raises(ValueError, match=message):
        average_precision(values, np.array(labels, np.int64))
