"""The loops over histograms against the formulas of `langneurons.activations.histogram`."""

import numpy as np
import pytest
from test_collect import measure
from tiny import tiny_model

from langneurons.activations import histogram as bins
from langneurons.activations.loops import exceedance
from langneurons.activations.statistics import Statistics, _histogram


def drawn(neurons: int, tokens: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Values (neurons, tokens) over many octaves, some equal, and their histograms."""
    rng = np.random.default_rng(neurons)
    values = rng.normal(size=(neurons, tokens)) * np.logspace(-4, 3, neurons)[:, None]
    values[::3] = np.round(values[::3] * 4) / 4
    values[1::7] = values[1::7, :1]
    values = values.astype(np.float32)
    counts = [np.bincount(bins.bin_index(row), minlength=bins.N_BINS) for row in values]
    return values, np.array(counts, np.int32)


@pytest.mark.parametrize("kind", ["counts", "shares"])
def test_exceedance_is_the_formula(kind):
    values, counts = drawn(130)
    low, high = values.min(1).astype(float), values.max(1).astype(float)
    if kind == "shares":  # of the activation, whose bins may lie past its extremes
        counts = counts @ bins.image(lambda x: np.maximum(x, 0) - 0.1)
        low, high = np.maximum(low, 0) - 0.1, np.maximum(high, 0) - 0.1
    counts[5] = 0
    edges = bins.EDGES[np.isfinite(bins.EDGES)]
    rng = np.random.default_rng(1)
    thresholds = [
        low,
        high,
        np.median(values, axis=1),
        rng.choice(edges, 130),
        rng.normal(size=130),
    ]
    for threshold in (*thresholds, low - 1, high + 1):
        found = np.empty(130)
        exceedance(counts, threshold.astype(float), low, high, bins.EDGES, found)
        expected = bins.exceedance(counts, threshold, low, high)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_unpacked_histograms_of_few_languages_stay_in_memory():
    _histogram.cache_clear()
    one = measure(tiny_model("llama"))
    first = one.histogram("gate")
    assert one.histogram("gate") is first
    for other in [measure(tiny_model("llama")) for _ in range(4)]:
        np.testing.assert_array_equal(other.histogram("gate"), first)
    assert _histogram.cache_info().currsize == 2
    assert one.histogram("gate") is not first


def test_a_file_gives_one_threshold_per_layer_from_its_frames(tmp_path):
    one = measure(tiny_model("llama"))
    one.write(tmp_path / "one.safetensors")
    read = Statistics.read(tmp_path / "one.safetensors")
    whole = bins.exceedance(one.histogram("gate"), 0.1, one.min("gate"), one.max("gate"))
    np.testing.assert_allclose(read.exceedance(0.1, "gate"), whole, rtol=1e-12)
    threshold = read.pooled_quantile(0.9, "gate", by_layer=True)
    np.testing.assert_array_equal(
        read.exceedance(threshold, "gate"), one.exceedance(threshold, "gate")
    )
    assert abs(read.exceedance(threshold, "gate").mean(axis=1) - 0.1).max() < 0.05
