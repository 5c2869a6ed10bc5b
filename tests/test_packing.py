"""Histograms in frames: whole, to the bit, and a bin of each layer without the rest."""

import numpy as np
import pytest

from langneurons.activations import frames as packing
from langneurons.activations import histogram as bins
from langneurons.activations.frames import GROUPS, WIDTH, around, pack, unpack
from langneurons.activations.statistics import Statistics, histogram_arrays
from langneurons.base.io import DamagedFile

LARGEST = 2**31 - 1
COUNTS = {
    "zeros": np.zeros((2, 3, bins.N_BINS)),
    "largest": np.full((1, 2, bins.N_BINS), LARGEST),
    "steps": np.where(np.arange(bins.N_BINS) % 2, LARGEST, 0)[None, None],
    "poisson": np.random.default_rng(0).poisson(1000, (3, 70, bins.N_BINS)),
    "any": np.random.default_rng(1).integers(0, LARGEST, (2, 130, bins.N_BINS)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_come_back_to_the_bit(name):
    counts = COUNTS[name].astype(np.int32)
    packed, ends = pack(counts)
    assert packed.dtype == np.uint8 and packed.ndim == 1 and ends[-1, -1] == len(packed)
    found = unpack(packed, ends, counts.shape, "a file")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, counts)


@pytest.mark.parametrize("name", COUNTS)
def test_a_bin_of_each_layer_is_read_from_one_frame_each(name):
    counts = COUNTS[name].astype(np.int32)
    packed, ends = pack(counts)
    taken = []

    def read(start, end):
        taken.append(end - start)
        return packed[start:end]

    n_layers, d_mlp = counts.shape[:2]
    for number in (0, 1, WIDTH - 1, WIDTH, bins.N_SIGN, bins.N_BINS - 2, bins.N_BINS - 1):
        wanted = (number + np.arange(n_layers) * WIDTH) % bins.N_BINS
        taken.clear()
        below, within = around(read, ends, wanted, d_mlp, "a file")
        assert len(taken) == n_layers and sum(taken) < len(packed)
        for layer, one in enumerate(wanted):
            own = counts[layer].astype(np.int64)
            np.testing.assert_array_equal(below[layer], own[:, :one].sum(1))
            np.testing.assert_array_equal(within[layer], own[:, one])


def test_smooth_counts_are_less_than_half_their_size():
    expected = 1e4 * np.exp(-(np.linspace(-3, 3, bins.N_BINS) ** 2))
    counts = np.random.default_rng(0).poisson(expected, (2, 500, bins.N_BINS)).astype(np.int32)
    assert pack(counts)[0].nbytes < counts.nbytes / 2.3


def test_damaged_counts_name_the_file():
    counts = COUNTS["poisson"].astype(np.int32)
    packed, ends = pack(counts)
    for broken in (packed[:-3], np.zeros(len(packed), np.uint8)):
        with pytest.raises(DamagedFile, match="a file"):
            unpack(broken, ends, counts.shape, "a file")
    last = np.full(3, bins.N_BINS - 1)
    with pytest.raises(DamagedFile, match="a file"):
        around(lambda start, end: packed[start : end - 3], ends, last, 70, "a file")


def measured(values: np.ndarray) -> Statistics:
    """Statistics of values (n_layers, d_mlp, tokens): the gate's histogram and extremes."""
    counts = np.apply_along_axis(
        lambda row: np.bincount(bins.bin_index(row), minlength=bins.N_BINS), -1, values
    )
    arrays = histogram_arrays("gate", counts.astype(np.int32))
    arrays["gate.extremes"] = np.stack([values.min(-1), values.max(-1)], axis=1)
    header = {"n_layers": values.shape[0], "d_mlp": values.shape[1], "tokens": values.shape[2]}
    header |= {"sites": ["gate"], "histograms": ["gate"], "nonlinearity": "silu"}
    return Statistics(arrays, header)


def test_one_threshold_per_layer_gives_what_the_formula_gives(monkeypatch):
    """Edges, values between them, values outside, of neurons that cross the threshold or do not."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 130, 300)) * np.logspace(-4, 3, 130)[:, None]
    values[:, ::3] = np.round(values[:, ::3] * 4) / 4
    values[:, 1::7] = values[:, 1::7, :1]
    values = values.astype(np.float32)
    one = measured(values)
    whole = one.histogram("gate")
    low, high = one.min("gate"), one.max("gate")
    monkeypatch.setattr(Statistics, "histogram", lambda *_: pytest.fail("read as a whole"))
    edges = bins.EDGES[np.isfinite(bins.EDGES)]
    for number in range(40):
        threshold = rng.choice(edges, (4, 1)) if number % 2 else rng.normal(size=(4, 1)) * 0.3
        if number == 4:
            threshold[:] = -1e9
        if number == 5:
            threshold[:] = 1e9
        found = one.exceedance(threshold, "gate")
        expected = bins.exceedance(whole, threshold, low, high)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(
        one.exceedance(0.25, "gate"), one.exceedance([[0.25]] * 4, "gate")
    )


def test_counts_of_a_layer_are_pooled_beside_the_frames(monkeypatch):
    values = np.random.default_rng(2).normal(size=(3, 20, 200)).astype(np.float32)
    one = measured(values)
    monkeypatch.setattr(packing, "planes", lambda *_: pytest.fail("frames were read"))
    for q in (0.1, 0.9):
        by_layer = one.pooled_quantile(q, "gate", by_layer=True)[:, 0]
        exact = np.quantile(values.reshape(3, -1), q, axis=1)
        assert (abs(by_layer - exact) <= bins.bin_width(exact)).all()
        model = one.pooled_quantile(q, "gate")
        assert (model == model[0]).all()
        assert abs(model[0, 0] - np.quantile(values, q)) <= bins.bin_width(np.quantile(values, q))
    assert GROUPS * WIDTH >= bins.N_BINS > (GROUPS - 1) * WIDTH
