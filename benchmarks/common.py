"""What the benchmarks share: the model, interleaved timing, tables."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def parser(description: str) -> argparse.ArgumentParser:
    """Return a command line with the options that every benchmark has."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--repeats", type=int, default=7, help="runs of each variant")
    result.add_argument("--threads", type=int, default=2, help="CPU threads")
    result.add_argument(
        "--model",
        default=str(ROOT / "resources/models/gemma3-270m"),
        help="folder of a model in the layout of the hub",
    )
    return result


def set_threads(number: int) -> None:
    """Limit the CPU threads; call before torch or numba is imported."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(number)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def load(path: str):
    """Return a model in float32 in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM

    if not Path(path, "config.json").exists():
        raise SystemExit(f"{path}: no model there; run `make demo` first or pass --model FOLDER")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device).eval()


def synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleaved(
    variants: dict[str, Callable[[], object]], repeats: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Run the variants in turn, after one warm-up each; return medians and all times, seconds.

    Taking turns keeps a slow minute of the machine from falling on one variant.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for run in range(repeats + 1):
        for name, work in variants.items():
            synchronize()
            begin = time.perf_counter()
            work()
            synchronize()
            if run:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}, times


def paired_ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    """Return the median over rounds of one variant's time over another's in the same round."""
    pairs = zip(times[name], times[base], strict=True)
    return statistics.median(own / other for own, other in pairs)


def machine() -> str:
    """Return one line about the machine and the versions."""
    import torch

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else model
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def table(title: str, header: list[str], rows: list[list[object]], note: str = "") -> str:
    """Return a Markdown table under a title, with the machine it was made on."""
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", *([note, ""] if note else []), f"({machine()})", ""])


def publish(name: str, text: str) -> None:
    """Print a result and keep it in benchmarks/results."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
