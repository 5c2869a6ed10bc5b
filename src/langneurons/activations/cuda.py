"""The fused counting loop of `activations.kernels` on a GPU: one launch per layer and site.

Compiled at first use by NVRTC, which comes with PyTorch's CUDA wheels, so neither a toolkit nor a
compiler is needed. A block of threads owns 32 neurons, a lane each, and its warps take the blocks
of the corpus in turn. A lane adds its neuron's values token after token in float64, as the CPU loop
does, so that all integers, those of the sums too, are the CPU's. Histograms are counted in shared
memory with the neuron as the fast axis (a lane always meets the same bank: no conflicts), and
written to the device's memory once. Nothing is read back by the host.

Bytes moved: the activations once, and where there is a histogram its touched counts once.
"""

import ctypes
import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

from langneurons.activations.histogram import KEY_MIN, N_BINS, N_REGULAR, N_SIGN, SHIFT

log = logging.getLogger(__name__)
LANES = 32
MAX_WARPS = 16
WARPS = 8

SOURCE = (
    f"""
#define N_BINS {N_BINS}
#define SHIFT {SHIFT}
#define BELOW {KEY_MIN - 1}
#define TOP {N_REGULAR}
#define ZERO {N_SIGN}
#define LANES {LANES}
#define MAX_WARPS {MAX_WARPS}
"""
    r"""
#define LIMB 1099511627776.0

__device__ __forceinline__ int bits_of(unsigned short value) { return (int)value << 16; }
__device__ __forceinline__ int bits_of(float value) { return __float_as_int(value); }

// x (tokens, neurons) with `stride` values between tokens; mask (tokens); rows: n_rows + 1 borders
// in tokens; accumulators as in langneurons.activations.kernels.accumulate.
template <typename Value, bool HISTOGRAM>
__device__ void body(
    const Value* __restrict__ x, int stride, const unsigned char* __restrict__ mask,
    const long long* __restrict__ rows, int n_rows, int n_neurons,
    long long* positive, long long* limbs, float* extremes, int* histogram)
{
    // Loads under way at a time: what hides the memory's latency where there is little to compute.
    constexpr int UNROLL = HISTOGRAM ? 8 : 16;
    constexpr unsigned FULL = (1u << UNROLL) - 1;
    // The counts of the bins, and when these are written, what the warps hand to the first.
    __shared__ long long space[HISTOGRAM ? N_BINS * LANES / 2 : MAX_WARPS * LANES];
    int* counts = (int*)space;
    const int lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y;
    const int neuron = blockIdx.x * LANES + lane;
    const bool inside = neuron < n_neurons;
    const Value* column = x + (inside ? neuron : n_neurons - 1);
    if (HISTOGRAM) {
        for (int bin = warp; bin < N_BINS; bin += warps) counts[bin * LANES + lane] = 0;
        __syncthreads();
    }
    int count = 0;
    bool damaged = false;
    const float infinity = __int_as_float(0x7F800000), none = __int_as_float(0x7FC00000);
    float low = infinity, high = -infinity;
    long long sums[6] = {0, 0, 0, 0, 0, 0};
    for (int row = warp; row < n_rows; row += warps) {
        double moments[3] = {0.0, 0.0, 0.0};
        auto add = [&](int bits) {
            const float value = __int_as_float(bits);
            const double wide = (double)value;
            count += value > 0.0f;
            moments[0] += wide;
            moments[1] += wide * wide;
            moments[2] += fabs(wide);
            low = fminf(low, value);
            high = fmaxf(high, value);
            if (HISTOGRAM) {
                int magnitude = ((bits & 0x7FFFFFFF) >> SHIFT) - BELOW;
                magnitude = min(max(magnitude, 0), TOP);
                const int bin = ZERO + (magnitude ^ (bits >> 31));
                atomicAdd(&counts[bin * LANES + lane], 1);
            }
        };
        const int start = (int)rows[row], stop = (int)rows[row + 1];
        const Value* next = column + (long long)start * stride;
        for (int token = start; token < stop; token += LANES) {
            // One bit for each of 32 tokens: it is there and counts.
            const int mine = token + lane;
            unsigned kept = __ballot_sync(0xFFFFFFFFu, mine < stop && mask[mine]);
            for (int group = 0; group < LANES / UNROLL; group++) {
                if ((kept & FULL) == FULL) {
                    // All loads are under way before the first value is used.
                    Value values[UNROLL];
                    #pragma unroll
                    for (int k = 0; k < UNROLL; k++) values[k] = next[k * stride];
                    asm volatile("" ::: "memory");
                    #pragma unroll
                    for (int k = 0; k < UNROLL; k++) add(bits_of(values[k]));
                } else {
                    #pragma unroll 1
                    for (int k = 0; k < UNROLL; k++)
                        if (kept >> k & 1) add(bits_of(next[k * stride]));
                }
                kept >>= UNROLL;
                next += UNROLL * stride;
            }
        }
        damaged |= moments[2] != moments[2];
        #pragma unroll
        for (int moment = 0; moment < 3; moment++) {
            const double whole = floor(moments[moment]);
            sums[2 * moment] += (long long)whole;
            sums[2 * moment + 1] += (long long)rint((moments[moment] - whole) * LIMB);
        }
    }
    __syncthreads();
    if (HISTOGRAM) {
        for (int bin = warp; bin < N_BINS; bin += warps) {
            const int seen = counts[bin * LANES + lane];
            if (inside && seen) histogram[(long long)neuron * N_BINS + bin] += seen;
        }
        __syncthreads();
    }
    #pragma unroll
    for (int item = 0; item < 7; item++) {
        space[warp * LANES + lane] = item == 6 ? count : sums[item];
        __syncthreads();
        if (warp == 0 && inside) {
            long long total = 0;
            for (int other = 0; other < warps; other++) total += space[other * LANES + lane];
            if (item == 6) positive[neuron] += total;
            else limbs[(long long)item * n_neurons + neuron] += total;
        }
        __syncthreads();
    }
    float* lows = (float*)space;
    float* highs = lows + MAX_WARPS * LANES;
    // fminf and fmaxf pass over a NaN; the reader of the extremes must see it.
    lows[warp * LANES + lane] = damaged ? none : low;
    highs[warp * LANES + lane] = high;
    __syncthreads();
    if (warp == 0 && inside) {
        low = extremes[neuron];
        high = extremes[n_neurons + neuron];
        damaged = low != low;
        for (int other = 0; other < warps; other++) {
            const float value = lows[other * LANES + lane];
            damaged |= value != value;
            low = fminf(low, value);
            high = fmaxf(high, highs[other * LANES + lane]);
        }
        extremes[neuron] = damaged ? none : low;
        extremes[n_neurons + neuron] = damaged ? none : high;
    }
}

#define KERNEL(NAME, VALUE, HISTOGRAM)                                                             \
    extern "C" __global__ void NAME(                                                               \
        const VALUE* __restrict__ x, int stride, const unsigned char* __restrict__ mask,           \
        const long long* __restrict__ rows, int n_rows, int n_neurons,                             \
        long long* positive, long long* limbs, float* extremes, int* histogram)                    \
    {                                                                                              \
        body<VALUE, HISTOGRAM>(                                                                    \
            x, stride, mask, rows, n_rows, n_neurons, positive, limbs, extremes, histogram);       \
    }

KERNEL(float32_histogram, float, true)
KERNEL(float32_plain, float, false)
KERNEL(bfloat16_histogram, unsigned short, true)
KERNEL(bfloat16_plain, unsigned short, false)
"""
)
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
NAMES = tuple(f"{dtype}_{kind}" for dtype in DTYPES.values() for kind in ("histogram", "plain"))


def compile_source(
    nvrtc: ctypes.CDLL,
    architecture: str,
    options: tuple[str, ...] = (),
    say: Callable[[str], None] = log.debug,
) -> bytes:
    """Return the machine code of the kernels for an architecture such as sm_90.

    What the compiler says goes to `say`.
    """
    flags = [f"--gpu-architecture={architecture}", *options]
    given = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    if nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), SOURCE.encode(), b"langneurons.cu", 0, None, None
    ):
        raise RuntimeError("NVRTC takes no program")
    try:
        code = nvrtc.nvrtcCompileProgram(program, len(flags), given)
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, text)
        said = text.value.decode(errors="replace")
        if code:
            raise RuntimeError(f"NVRTC: {said}")
        say(said)
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        binary = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, binary)
        return binary.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def _kernels(index: int) -> Any:
    """Return the kernels by name, loaded on a GPU; None, with a warning, where that fails."""
    if torch.version.hip:
        log.warning(
            "CUDA kernel unavailable: not an NVIDIA GPU; using the slower torch implementation"
        )
        return None
    try:
        from torch.cuda._utils import _cuda_load_module, _get_gpu_rtc_library

        with torch.cuda.device(index):
            architecture = "sm_{}{}".format(*torch.cuda.get_device_capability(index))
            binary = compile_source(_get_gpu_rtc_library(), architecture)
            kernels = _cuda_load_module(binary, list(NAMES))
    except Exception as error:
        log.warning(
            "CUDA kernel unavailable on GPU %d; using the slower torch implementation: %s",
            index,
            str(error).strip() or type(error).__name__,
        )
        return None
    log.info("counting kernel compiled for %s", architecture)
    return kernels


def available(device: torch.device) -> bool:
    """Whether a device runs the kernel; a reason against it is logged once."""
    return device.type == "cuda" and _kernels(_index(device)) is not None


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def accumulate_cuda(
    x: torch.Tensor,
    mask: torch.Tensor,
    rows: torch.Tensor,
    positive: torch.Tensor,
    limbs: torch.Tensor,
    extremes: torch.Tensor,
    histogram: torch.Tensor,
    warps: int | None = None,
) -> None:
    """Do the same as `kernels.accumulate` in one launch; shapes as there, all on one GPU."""
    if x.dtype not in DTYPES:
        x = x.float()
    if x.stride(-1) != 1 or x.stride(0) >= 2**31:
        x = x.contiguous()
    n_rows, n_neurons = len(rows) - 1, x.shape[1]
    if not x.numel() or not n_rows:
        return
    kind = "histogram" if histogram.shape[0] else "plain"
    with torch.cuda.device(x.device):
        _kernels(_index(x.device))[f"{DTYPES[x.dtype]}_{kind}"](
            grid=(-(-n_neurons // LANES), 1, 1),
            block=(LANES, min(warps or WARPS, n_rows, MAX_WARPS), 1),
            args=[
                x,
                x.stride(0),
                mask,
                rows,
                n_rows,
                n_neurons,
                positive,
                limbs,
                extremes,
                histogram,
            ],
        )
