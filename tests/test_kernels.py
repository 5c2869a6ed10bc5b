"""The counting loop: numba against torch against plain numpy."""

import numpy as np
import pytest
import torch

from langneurons.histogram import N_BINS, bin_index
from langneurons.kernels import LIMB, MOMENTS, accumulate, accumulate_torch

KERNELS = [accumulate, accumulate_torch]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ROWS = np.array([0, 5, 5, 9, 16])  # one block is empty


def activations(dtype=torch.float32, neurons=200) -> tuple[torch.Tensor, torch.Tensor]:
    """More neurons than a chunk, over many octaves, with zeros of both signs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, neurons, generator=generator)
    x *= torch.logspace(-5, 3, neurons)
    x[3, ::5], x[4, ::7] = 0.0, -0.0
    return x.to(dtype), torch.rand(16, generator=generator) < 0.7


def empty(neurons: int, histogram: bool = True, device="cpu") -> list[torch.Tensor]:
    return [
        torch.zeros(neurons, dtype=torch.int64, device=device),
        torch.zeros(len(MOMENTS), 2, neurons, dtype=torch.int64, device=device),
        torch.tensor([[np.inf], [-np.inf]], device=device).repeat(1, neurons),
        torch.zeros(neurons if histogram else 0, N_BINS, dtype=torch.int32, device=device),
    ]


def run(kernel, x, mask, rows=ROWS, into=None) -> list[np.ndarray]:
    into = into or empty(x.shape[1], device=x.device)
    kernel(x, mask, rows, *into)
    return [tensor.cpu().numpy() for tensor in into]


def reference(x: torch.Tensor, mask: torch.Tensor, rows=ROWS) -> list[np.ndarray]:
    wide, kept = x.double().numpy(), mask.numpy()
    limbs = np.zeros((3, 2, x.shape[1]), np.int64)
    for start, stop in zip(rows, rows[1:], strict=False):
        block = wide[start:stop][kept[start:stop]]
        for moment, values in enumerate((block, block**2, abs(block))):
            total = np.zeros(x.shape[1])
            for token in values:
                total = total + token
            limbs[moment, 0] += np.floor(total).astype(int)
            limbs[moment, 1] += np.rint((total - np.floor(total)) * LIMB).astype(int)
    block = wide[kept]
    counts = [np.bincount(bin_index(column), minlength=N_BINS) for column in block.T]
    extremes = np.stack([block.min(axis=0), block.max(axis=0)])
    return [(block > 0).sum(axis=0), limbs, extremes, np.stack(counts)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_equal_numpy(kernel, dtype):
    x, mask = activations(dtype)
    positive, limbs, extremes, histogram = run(kernel, x, mask)
    expected = reference(x, mask)
    np.testing.assert_array_equal(positive, expected[0])
    np.testing.assert_array_equal(extremes, expected[2])
    np.testing.assert_array_equal(histogram, expected[3])
    totals, exact = (one[:, 0] + one[:, 1] / LIMB for one in (limbs, expected[1]))
    np.testing.assert_allclose(totals, exact, rtol=1e-12, atol=1e-11)
    assert (limbs[:, 1] >= 0).all()
    if kernel is accumulate:
        np.testing.assert_array_equal(limbs, expected[1])


@pytest.mark.parametrize("kernel", KERNELS)
def test_calls_add_up_to_one_call(kernel):
    x, mask = activations()
    into = empty(x.shape[1])
    run(kernel, x[9:], mask[9:], np.array([0, 7]), into)
    run(kernel, x[:9], mask[:9], np.array([0, 5, 9]), into)
    for found, expected in zip(into, run(kernel, x, mask), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_masked_tokens_are_never_seen(kernel):
    x, mask = activations()
    expected = run(kernel, x, mask)
    for filler in (7e4, -7e4, float("nan"), float("inf")):
        filled = x.clone()
        filled[~mask] = filler
        for found, value in zip(run(kernel, filled, mask), expected, strict=True):
            np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_to_count_changes_nothing(kernel):
    x, mask = activations()
    for found, before in zip(run(kernel, x, mask & False), empty(200), strict=True):
        np.testing.assert_array_equal(found, before)


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_a_histogram_the_rest_is_the_same(kernel):
    x, mask = activations()
    found = run(kernel, x, mask, into=empty(200, histogram=False))
    assert found[3].shape == (0, N_BINS)
    for one, expected in zip(found[:3], run(kernel, x, mask)[:3], strict=True):
        np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows_in_the_extremes_and_stays(kernel, bad):
    x, _ = activations()
    x[2, 150] = bad
    mask, into = torch.ones(16, dtype=torch.bool), empty(200)
    run(kernel, x, mask, into=into)
    assert into[2][:, 150].isnan().all() == np.isnan(bad)
    run(kernel, activations()[0], mask, into=into)
    broken = ~into[2].isfinite().all(dim=0)
    assert broken.nonzero().flatten().tolist() == [150]


def test_strided_input_counts_like_a_copy():
    x, mask = activations(neurons=400)
    for found, expected in zip(
        run(accumulate, x[:, ::2], mask), run(accumulate, x[:, ::2].clone(), mask), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gpu_equals_cpu(dtype):
    x, mask = activations(dtype)
    found, expected = run(accumulate, x.cuda(), mask.cuda()), run(accumulate, x, mask)
    for index in (0, 2, 3):
        np.testing.assert_array_equal(found[index], expected[index])
    totals, exact = (one[:, 0] + one[:, 1] / LIMB for one in (found[1], expected[1]))
    np.testing.assert_allclose(totals, exact, rtol=1e-12, atol=1e-11)
