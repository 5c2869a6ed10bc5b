"""Histograms of values against the values themselves."""

import numpy as np
import pytest
import torch

from langneurons.activations import histogram as bins
from langneurons.models.nonlinearities import gelu, relu, silu

LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.999, 1.0)


def draws(name: str, size: int = 5001) -> np.ndarray:
    rng = np.random.default_rng(0)
    return {
        "normal": lambda: rng.normal(size=size),
        "heavy": lambda: rng.standard_cauchy(size) * 10,
        "lognormal": lambda: rng.lognormal(-5, 4, size),
        "zeros": lambda: rng.normal(size=size) * (rng.random(size) < 0.1) + 0.0,
        "negative": lambda: -0.2 - rng.exponential(0.01, size),
        "discrete": lambda: rng.integers(-4, 5, size) / 4,
        "constant": lambda: np.full(size, -1.3),
        "one": lambda: rng.normal(size=1),
        "two": lambda: np.array([-3.0, 5.0]),
    }[name]().astype(np.float32)


DISTRIBUTIONS = "normal heavy lognormal zeros negative discrete constant one two".split()


def count(values: np.ndarray) -> np.ndarray:
    return np.bincount(bins.bin_index(values), minlength=bins.N_BINS)


def test_bins_cover_every_number_and_ascend():
    edges = bins.EDGES
    assert edges[0] == -np.inf and edges[-1] == np.inf and len(edges) == bins.N_BINS + 1
    assert (np.diff(edges) > 0).all() and (edges == -edges[::-1]).all()
    tiny, huge = np.float32(1e-45), np.finfo(np.float32).max
    values = np.float32([-np.inf, -huge, -1e3, -1, -1e-9, -tiny, 0, tiny, 2, 1e3, huge, np.inf])
    index = bins.bin_index(values)
    assert index[0] == 0 and index[-1] == bins.N_BINS - 1
    assert (np.diff(index) >= 0).all()
    assert (edges[index] <= values).all() and (values <= edges[index + 1]).all()


def test_bins_equal_a_search_in_the_edges():
    values = np.concatenate([draws(name) for name in DISTRIBUTIONS] + [np.float32([-0.0])])
    positive = np.searchsorted(bins.EDGES, values, side="right") - 1
    # A negative value on an edge lies in the bin below it: bins mirror each other.
    negative = np.searchsorted(bins.EDGES, values, side="left") - 1
    expected = np.where(np.signbit(values), negative, positive)
    np.testing.assert_array_equal(bins.bin_index(values), expected)


def test_an_octave_has_equal_bins_of_an_eighth():
    low = np.searchsorted(bins.EDGES, 1.0)
    np.testing.assert_array_equal(bins.EDGES[low : low + 9], 1 + np.arange(9) / 8)
    np.testing.assert_array_equal(bins.bin_width(np.float32([1.5, 2.5, -5.0])), [1 / 8, 1 / 4, 0.5])


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantile_error_is_at_most_the_width_of_the_bin(name):
    values = draws(name)
    ordered = np.sort(values).astype(np.float64)
    low, high = ordered[0], ordered[-1]
    # A bin is no wider than what was seen of it, so the open bins are finite.
    index = bins.bin_index(np.float32(ordered))
    width = np.minimum(bins.EDGES[index + 1], high) - np.maximum(bins.EDGES[index], low)
    for q in LEVELS:
        rank = q * (len(values) - 1)
        neighbours = [int(np.floor(rank)), int(np.ceil(rank))]
        error = abs(bins.quantile(count(values), q, low, high) - np.quantile(ordered, q))
        assert error <= width[neighbours].max() + 1e-12, q


def test_quantiles_of_narrow_bins_are_precise():
    values = draws("normal", 100_001)
    for q in (0.1, 0.5, 0.9):
        found = bins.quantile(count(values), q, values.min(), values.max())
        assert found == pytest.approx(np.quantile(values, q), abs=2e-3)


def test_quantiles_of_tensors_are_the_same_bits():
    names = ("normal", "heavy", "lognormal", "zeros", "negative", "discrete", "constant", "one")
    values = [draws(name) for name in names]
    counts = np.stack([np.bincount(bins.bin_index(x), minlength=bins.N_BINS) for x in values])
    counts = np.concatenate([counts, np.zeros_like(counts[:1])]).astype(np.int32)
    low = np.array([*(x.min() for x in values), 0], np.float32)
    high = np.array([*(x.max() for x in values), 0], np.float32)
    extremes = torch.from_numpy(low), torch.from_numpy(high)
    for q in LEVELS:
        found = bins.quantile_tensor(torch.from_numpy(counts), q, *extremes)
        np.testing.assert_array_equal(found.numpy(), bins.quantile(counts, q, low, high))
    with pytest.raises(ValueError, match="between 0 and 1"):
        bins.quantile_tensor(torch.from_numpy(counts), 1.5, *extremes)


def test_quantile_shapes_order_and_empty_histograms():
    stacked = np.stack(
        [count(draws("normal")), count(draws("negative")), count(draws("normal")) * 0]
    )
    low, high = np.array([-9.0, -2.0, 0.0]), np.array([9.0, -0.1, 0.0])
    found = np.stack([bins.quantile(stacked, q, low, high) for q in LEVELS])
    assert found.shape == (len(LEVELS), 3)
    assert np.isnan(found[:, 2]).all() and (np.diff(found[:, :2], axis=0) >= 0).all()
    assert np.isnan(bins.exceedance(stacked, 0.0, low, high)[2])
    with pytest.raises(ValueError, match=r"1\.5"):
        bins.quantile(stacked, 1.5, low, high)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_exceedance_is_exact_at_edges_up_to_values_on_them(name):
    values = draws(name)
    for edge in bins.EDGES[1:-1:3]:
        found = bins.exceedance(count(values), edge, values.min(), values.max())
        expected = (values > edge).mean() if edge < 0 else (values >= edge).mean()
        assert found == pytest.approx(expected, abs=1e-12), edge


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_exceedance_error_is_at_most_the_share_of_the_bin(name):
    values = draws(name)
    for threshold in np.float32([-200.3, -1.3, -0.21, -1e-4, 3e-4, 0.33, 1.01, 7.7, 300.1]):
        found = bins.exceedance(count(values), threshold, values.min(), values.max())
        share = (bins.bin_index(values) == bins.bin_index(threshold)).mean()
        assert abs(found - (values > threshold).mean()) <= share + 1e-12, threshold


def test_thresholds_broadcast_over_histograms():
    values = [draws("normal"), draws("negative")]
    stacked = np.stack([count(one) for one in values])
    low, high = [one.min() for one in values], [one.max() for one in values]
    found = bins.exceedance(stacked, np.array([1.0, -0.25]), low, high)
    expected = [(values[0] >= 1.0).mean(), (values[1] > -0.25).mean()]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_image_of_simple_functions():
    np.testing.assert_array_equal(bins.image(lambda x: x), np.eye(bins.N_BINS))
    np.testing.assert_array_equal(bins.image(np.negative), np.eye(bins.N_BINS)[::-1])
    expected = np.eye(bins.N_BINS)
    expected[: bins.N_SIGN] = 0
    expected[: bins.N_SIGN, bins.N_SIGN] = 1
    np.testing.assert_array_equal(bins.image(relu), expected)


def bounds_of_image(function, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest value each value can take on after its bin is mapped and binned."""
    index = bins.bin_index(values)
    edges = np.clip(bins.EDGES, -256, 256)
    grid = edges[index][:, None] + np.linspace(0, 1, 257) * np.diff(edges)[index][:, None]
    images = np.float32(function(grid))
    lower = bins.EDGES[bins.bin_index(images.min(axis=1))]
    return lower, bins.EDGES[bins.bin_index(images.max(axis=1)) + 1]


@pytest.mark.parametrize("function", [relu, silu, gelu, np.square], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["normal", "zeros", "negative"])
def test_image_keeps_quantiles_within_its_bound(function, name):
    values = draws(name, 3001)
    exact = np.float32(function(values.astype(np.float64)))
    low, high = exact.min(), exact.max()
    matrix = bins.image(function)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    histogram = count(values) @ matrix
    lower, upper = (np.clip(np.sort(b), low, high) for b in bounds_of_image(function, values))
    for q in LEVELS[1:-1]:
        rank = q * (len(values) - 1)
        found = bins.quantile(histogram, q, low, high)
        # One rank of slack: shares of counts add up only to rounding.
        assert lower[int(np.floor(rank)) - 1] <= found <= upper[int(np.ceil(rank)) + 1], q


@pytest.mark.parametrize("function", [silu, gelu], ids=lambda f: f.__name__)
def test_image_of_a_function_that_falls_and_rises(function):
    values = draws("normal", 100_001)
    exact = function(values.astype(np.float64))
    histogram = count(values) @ bins.image(function)
    for q in (0.05, 0.25, 0.5, 0.9):
        found = bins.quantile(histogram, q, exact.min(), exact.max())
        assert found == pytest.approx(np.quantile(exact, q), abs=8e-3)
    for threshold in (-0.1, 0.0, 0.7):
        found = bins.exceedance(histogram, threshold, exact.min(), exact.max())
        assert found == pytest.approx((exact > threshold).mean(), abs=8e-3)
