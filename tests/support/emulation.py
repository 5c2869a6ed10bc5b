"""CUDA kernels on a CPU, in one thread: those of a block take turns between their meetings.

Blocks run one after the other; a thread runs until it waits for others of its block or warp.
"""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

CXX = shutil.which("g++")
FLAGS = ["-std=c++20", "-O1", "-shared", "-fPIC", "-w"]
HEADER = r"""
#include <algorithm>
#include <bit>
#include <cmath>
#include <ucontext.h>
#include <vector>
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
using std::max;
using std::min;
struct Place { int x, y; };
struct Meeting { int size, here = 0, number = 0; };
struct Warp { Meeting meeting{32}; unsigned votes = 0; };
Place threadIdx, blockIdx, blockDim;
ucontext_t scheduler;
std::vector<ucontext_t> threads;
Meeting everybody;
std::vector<Warp> all_warps;
// A thread that is not the last to come lets the others run.
void meet(Meeting& meeting) {
    const int number = meeting.number;
    if (++meeting.here == meeting.size) { meeting.here = 0; meeting.number++; }
    else while (meeting.number == number)
        swapcontext(&threads[threadIdx.y * 32 + threadIdx.x], &scheduler);
}
void __syncthreads() { meet(everybody); }
unsigned __ballot_sync(unsigned, bool vote) {
    Warp& warp = all_warps[threadIdx.y];
    warp.votes |= (unsigned)vote << threadIdx.x;
    meet(warp.meeting);
    const unsigned result = warp.votes;
    meet(warp.meeting);
    warp.votes = 0;
    meet(warp.meeting);
    return result;
}
void atomicAdd(int* place, int value) { *place += value; }
float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
int __float_as_int(float value) { return std::bit_cast<int>(value); }
"""
LAUNCH = r"""
#include <functional>
std::function<void()> work;
int running;
void enter() {
    work();
    running--;
    setcontext(&scheduler);  // for good
}
template <typename Kernel, typename... Arguments>
void launch(Kernel kernel, int blocks, int warps, Arguments... arguments) {
    blockDim = {32, warps};
    work = [=] { kernel(arguments...); };
    static std::vector<char> stacks;
    stacks.resize((size_t)32 * warps * 65536);
    for (int number = 0; number < blocks; number++) {
        blockIdx = {number, 0};
        everybody = {32 * warps};
        all_warps.assign(warps, Warp());
        running = 32 * warps;
        std::vector<bool> ended(running);
        threads.resize(running);
        for (int thread = 0; thread < 32 * warps; thread++) {
            getcontext(&threads[thread]);
            threads[thread].uc_stack.ss_sp = &stacks[(size_t)thread * 65536];
            threads[thread].uc_stack.ss_size = 65536;
            makecontext(&threads[thread], enter, 0);
        }
        while (running)
            for (int thread = 0; thread < 32 * warps; thread++) {
                if (ended[thread]) continue;
                threadIdx = {thread % 32, thread / 32};
                const int before = running;
                swapcontext(&scheduler, &threads[thread]);
                ended[thread] = running < before;
            }
    }
}
"""
EXPORT = r"""
extern "C" void launch_NAME(
    int blocks, int warps, const void* x, int stride, const unsigned char* mask,
    const long long* rows, int n_rows, int n_neurons, long long* positive, long long* limbs,
    float* extremes, int* histogram)
{
    launch(NAME, blocks, warps, (const VALUE*)x, stride, mask, rows, n_rows, n_neurons, positive,
           limbs, extremes, histogram);
}
"""


def emulate(source: str, names: dict[str, str], folder: Path) -> dict[str, Callable]:
    """Return kernels by name, called as PyTorch calls compiled ones; names to types of x."""
    exports = [
        EXPORT.replace("NAME", name).replace("VALUE", value) for name, value in names.items()
    ]
    path = folder / "kernels.cpp"
    path.write_text("\n".join([HEADER, source, LAUNCH, *exports]))
    library = path.with_suffix(".so")
    subprocess.run([CXX, *FLAGS, str(path), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))

    def kernel(name: str) -> Callable:
        function = getattr(loaded, f"launch_{name}")

        def call(grid, block, args) -> None:
            assert grid[1:] == (1, 1) and block[0] == 32 and block[2] == 1
            assert all(isinstance(one, (int, torch.Tensor)) for one in args)
            plain = [
                ctypes.c_void_p(one.data_ptr()) if isinstance(one, torch.Tensor) else one
                for one in args
            ]
            function(grid[0], block[1], *plain)

        return call

    return {name: kernel(name) for name in names}
