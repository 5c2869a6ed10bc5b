"""The file of statistics: packed, whole, and read back to the bit."""

import numpy as np
import pytest

from langneurons.io import DamagedFile
from langneurons.statistics import _unpack, pack


@pytest.mark.parametrize(
    "counts",
    [
        np.zeros((2, 3, 5)),
        np.full((1, 2, 4), 2**31 - 1),
        np.array([[[0, 2**31 - 1, 0, 1, 2**31 - 1]]]),
        np.random.default_rng(0).poisson(1000, (3, 7, 274)),
    ],
    ids=["zeros", "largest", "steps", "poisson"],
)
def test_counts_come_back_to_the_bit(counts):
    counts = counts.astype(np.int32)
    packed = pack(counts)
    assert packed.dtype == np.uint8 and packed.ndim == 1
    found = _unpack(packed, counts.shape, "a file")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, counts)


def test_smooth_counts_are_a_third_of_their_size():
    bins = np.exp(-(np.linspace(-3, 3, 274) ** 2))
    counts = np.random.default_rng(0).poisson(1e4 * bins, (2, 500, 274)).astype(np.int32)
    assert pack(counts).nbytes < counts.nbytes / 2.5


def test_damaged_counts_name_the_file():
    packed = pack(np.arange(40, dtype=np.int32).reshape(2, 2, 10))
    for broken in (packed[:-3], np.zeros(10, np.uint8)):
        with pytest.raises(DamagedFile, match="a file"):
            _unpack(broken, (2, 2, 10), "a file")
