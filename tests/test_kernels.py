"""The counting loop: numba, torch and the CUDA kernel (its source run on a CPU) against numpy.

The kernel is compiled by g++ with the few things of CUDA that it uses emulated; without g++ its
tests are skipped. Where there is a GPU, the same tests run on it.
"""

import ctypes
import re
from contextlib import nullcontext
from importlib import metadata

import emulation
import numpy as np
import pytest
import torch

from langneurons.activations import cuda
from langneurons.activations.histogram import N_BINS, bin_index
from langneurons.activations.kernels import LIMB, MOMENTS, accumulate, accumulate_torch

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ROWS = np.array([0, 5, 5, 9, 16])  # one block is empty


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The CUDA kernels as functions on CPU tensors."""
    if emulation.CXX is None:
        pytest.skip("g++ is needed to run the CUDA kernel's source on a CPU")
    types = {"float32": "float", "bfloat16": "unsigned short"}
    names = {name: types[name.split("_")[0]] for name in cuda.NAMES}
    return emulation.emulate(cuda.SOURCE, names, tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def emulated(compiled, monkeypatch):
    """`accumulate_cuda`, launching on the CPU."""
    monkeypatch.setattr(cuda, "_kernels", lambda index: compiled)
    monkeypatch.setattr(cuda, "_index", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return cuda.accumulate_cuda


@pytest.fixture(params=["numba", "torch", "cuda"])
def kernel(request):
    """Each implementation in turn."""
    if request.param == "cuda":
        return request.getfixturevalue("emulated")
    return {"numba": accumulate, "torch": accumulate_torch}[request.param]


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
    kernel(x, mask, torch.from_numpy(rows).to(x.device), *into)
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
    if kernel is not accumulate_torch:
        np.testing.assert_array_equal(limbs, expected[1])


def test_calls_add_up_to_one_call(kernel):
    x, mask = activations()
    into = empty(x.shape[1])
    run(kernel, x[9:], mask[9:], np.array([0, 7]), into)
    run(kernel, x[:9], mask[:9], np.array([0, 5, 9]), into)
    for found, expected in zip(into, run(kernel, x, mask), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_masked_tokens_are_never_seen(kernel):
    x, mask = activations()
    expected = run(kernel, x, mask)
    for filler in (7e4, -7e4, float("nan"), float("inf")):
        filled = x.clone()
        filled[~mask] = filler
        for found, value in zip(run(kernel, filled, mask), expected, strict=True):
            np.testing.assert_array_equal(found, value)


def test_nothing_to_count_changes_nothing(kernel):
    x, mask = activations()
    for found, before in zip(run(kernel, x, mask & False), empty(200), strict=True):
        np.testing.assert_array_equal(found, before)


def test_without_a_histogram_the_rest_is_the_same(kernel):
    x, mask = activations()
    found = run(kernel, x, mask, into=empty(200, histogram=False))
    assert found[3].shape == (0, N_BINS)
    for one, expected in zip(found[:3], run(kernel, x, mask)[:3], strict=True):
        np.testing.assert_array_equal(one, expected)


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


# Borders of blocks, of the 32 tokens of a vote and of the 8 or 16 of a load, on, before and after.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("histogram", [True, False])
@pytest.mark.parametrize(
    ("tokens", "neurons", "rows"),
    [
        (1, 1, [0, 1]),
        (33, 31, [0, 33]),
        (64, 32, [0, 31, 64]),
        (130, 33, [0, 0, 63, 127, 128, 130, 130]),
        (150, 70, [*range(0, 150, 8), 150]),
    ],
)
def test_cuda_kernel_has_the_integers_of_the_cpu(emulated, tokens, neurons, rows, histogram, dtype):
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, neurons, generator=generator).mul(torch.logspace(-5, 3, neurons))
    x = x.to(dtype)
    x[::4], x[1::6] = x[0].clone(), -0.0  # ties, and zeros below zero
    for mask in (torch.ones(tokens).bool(), torch.rand(tokens, generator=generator) < 0.8):
        both = [empty(neurons, histogram) for _ in range(2)]
        for _ in range(2):  # onto what is there
            found = run(emulated, x, mask, np.array(rows), both[0])
            expected = run(accumulate, x, mask, np.array(rows), both[1])
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("warps", [1, 2, 16])
def test_cuda_kernel_does_not_depend_on_its_warps(emulated, warps):
    x, mask = activations(torch.bfloat16)
    rows = torch.arange(17)
    into = empty(x.shape[1])
    emulated(x, mask, rows, *into, warps=warps)
    for one, other in zip(into, run(accumulate, x, mask, rows.numpy()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_cuda_kernel_reads_a_slice_where_it_lies(emulated):
    wide = activations(neurons=400)[0]
    x, mask = wide[:, 100:300], activations()[1]
    for one, other in zip(run(emulated, x, mask), run(accumulate, x, mask), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_cuda_kernel_compiles_for_gpus_that_are_not_here(architecture):
    """Shared memory stays below the 48 KB that every launch may have; no register spills."""
    try:
        files = metadata.files("nvidia-cuda-nvrtc")
    except metadata.PackageNotFoundError:
        pytest.skip("NVRTC (requirements-nvrtc.txt) is not installed")
    found = {one.name.split(".so")[0]: one.locate() for one in files if ".so" in one.name}
    ctypes.CDLL(str(found["libnvrtc-builtins"]), mode=ctypes.RTLD_GLOBAL)
    log = []
    binary = cuda.compile_source(
        ctypes.CDLL(str(found["libnvrtc"])), architecture, ("--ptxas-options=-v",), log.append
    )
    assert binary.startswith(b"\x7fELF") and all(name.encode() in binary for name in cuda.NAMES)
    assert len(re.findall("0 bytes spill stores, 0 bytes spill loads", log[0])) == len(cuda.NAMES)
    assert max(map(int, re.findall(r"(\d+) bytes smem", log[0]))) < 48 * 1024


def test_without_the_kernel_torch_operations_count_and_the_log_says_so(caplog, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    cuda._kernels.cache_clear()
    assert not cuda.available(torch.device("cuda", 0))
    assert "using the slower torch implementation" in caplog.text
    cuda._kernels.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gpu_equals_cpu(dtype):
    x, mask = activations(dtype)
    assert cuda.available(torch.device("cuda"))
    found, expected = run(accumulate, x.cuda(), mask.cuda()), run(accumulate, x, mask)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
