"""What the benchmarks share: model, text, synthetic statistics, interleaved timing, tables."""

import argparse
import logging
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CONFIG = ROOT / "config" / "config.yaml"


def parser(description: str, repeats: int = 7) -> argparse.ArgumentParser:
    """Return a command line with the options that every benchmark has."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--repeats", type=int, default=repeats, help=f"rounds, default {repeats}")
    result.add_argument("--threads", type=int, default=2, help="CPU threads, default 2")
    result.add_argument(
        "--model",
        default=str(ROOT / "resources/models/gemma3-270m"),
        help="folder of a model in the layout of the hub (scripts that run one)",
    )
    result.add_argument(
        "--processor-time",
        action="store_true",
        help="count seconds of the processor, all threads together: where other work runs beside"
        " it (statistics_pass, intervention)",
    )
    return result


def clock(given: argparse.Namespace) -> Callable[[], float]:
    """Return the clock that the options ask for."""
    return time.process_time if given.processor_time else time.perf_counter


def set_threads(number: int) -> None:
    """Limit the CPU threads; call before torch or numba is imported."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(number)
    # As in the rules (langneurons/runtime/job.py): idle threads of two pools must not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def load(path: str):
    """Return a model in float32, frozen, in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    if not Path(path, "config.json").exists():
        raise SystemExit(f"{path}: no model there; run `make demo` first or pass --model FOLDER")
    disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return model.to(device).eval().requires_grad_(False)


@contextmanager
def reading_each_time(active: bool = True) -> Iterator[None]:
    """Let the block read a beginning that requests share once for each of them, for comparison."""
    from langneurons.scoring import reading

    kept = reading.shareable
    if active:
        reading.shareable = lambda _config: False
    try:
        yield
    finally:
        reading.shareable = kept


def packed_corpus(model: str, n_blocks: int, lang: str = "en"):
    """Return the package's mini corpus, packed as config/config.yaml says, its first full blocks.

    Packed afresh with the model's own tokenizer, so no result of the workflow is needed.
    """
    from transformers import AutoTokenizer

    from langneurons.config import load_config
    from langneurons.data.corpus import Part, fetch_text, pack_corpus
    from langneurons.models.load import tokenizer_hash

    logging.getLogger("langneurons").setLevel(logging.ERROR)
    config = load_config(CONFIG).corpus
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, f"{lang}.jsonl")
        fetch_text(config, lang, text)
        corpus = pack_corpus(config, lang, text, tokenizer, tokenizer_hash(tokenizer))
    part = corpus.identification
    full = int((part.lengths == part.tokens.shape[1]).sum())
    if full < n_blocks:
        raise SystemExit(f"the mini corpus of {lang} fills {full} blocks, {n_blocks} asked for")
    kept = [array[:n_blocks] for array in (part.tokens, part.lengths, part.document, part.scored)]
    corpus.identification = Part(*kept, part.documents, part.document_bytes)
    return corpus


def demo_settings(**changes):
    """Return the statistics settings of config/config.yaml, with changes."""
    from langneurons.activations.settings import StatisticsConfig
    from langneurons.config import load_config

    settings = load_config(CONFIG).statistics.model_dump()
    settings.pop("shards")
    return StatisticsConfig(**(settings | changes))


IDENTITY = {"model": "benchmark", "revision": "none", "dtype": "float32", "quantization": "none"}


def token_batches(corpus, batch_blocks: int, device, array: str = "tokens") -> list:
    """Return the tokens (int64) or the mask `scored` in the batches of `collect`."""
    import torch

    values = torch.from_numpy(getattr(corpus.identification, array))
    values = values.long() if array == "tokens" else values
    return [batch.to(device) for batch in values.split(batch_blocks)]


DRAWN = 4


def synthetic_statistics(n_layers: int, d_mlp: int, tokens: int, lang: str, seed: int):
    """Return statistics that `tokens` draws per neuron would leave, three sites, gate histogram.

    A neuron's gate is a mixture of three normal distributions around its own centre with its own
    spread, one of them wide (the outliers of real gates). Counts per bin are Poisson draws around
    the expected ones, and sums follow from them, so both compress like measured ones; `product`
    is taken as 0.7 times the activation. Past the first DRAWN layers, a layer holds the neurons of
    one of these in another order: that saves time and changes nothing in size or cost.
    """
    import numpy as np
    import torch

    from langneurons.activations import histogram as bins
    from langneurons.activations.kernels import LIMB, MOMENTS
    from langneurons.activations.statistics import SCHEMA, SITES, Statistics, histogram_arrays

    generator = torch.Generator().manual_seed(seed)
    edges = torch.from_numpy(bins.EDGES)
    shape = (n_layers, d_mlp)
    histogram = np.empty((*shape, bins.N_BINS), np.int32)
    largest = 2.0 ** (bins.MAX_EXPONENT + 1)
    middle = edges.clamp(-largest, largest).unfold(0, 2, 1).mean(1)
    act = middle * middle.sigmoid()
    values = [
        power(value)
        for value in (middle, act, 0.7 * act)
        for power in (lambda x: x, torch.square, torch.abs)
    ]
    sums = np.empty((len(SITES) * len(MOMENTS), *shape))
    for layer in range(n_layers):
        if layer >= DRAWN:
            order = torch.randperm(d_mlp, generator=generator).numpy()
            histogram[layer] = histogram[layer % DRAWN][order]
            sums[:, layer] = sums[:, layer % DRAWN][:, order]
            continue
        centre = 0.4 * torch.randn(d_mlp, 1, generator=generator, dtype=torch.float64) - 0.8
        spread = 0.3 + 0.9 * torch.rand(d_mlp, 1, generator=generator, dtype=torch.float64)
        expected = torch.zeros(d_mlp, bins.N_BINS, dtype=torch.float64)
        for weight, width in ((0.7, 0.7), (0.29, 1.5), (0.01, 5.0)):
            below = torch.special.ndtr((edges - centre) / (spread * width))
            expected += tokens * weight * below.diff(dim=1)
        drawn = torch.poisson(expected.clamp_(min=0).float(), generator=generator).int()
        # Each neuron saw exactly `tokens` values; the fullest bin takes up the difference.
        fullest = drawn.argmax(1, keepdim=True)
        drawn.scatter_add_(1, fullest, (tokens - drawn.sum(1, keepdim=True)).int())
        histogram[layer] = drawn.numpy()
        sums[:, layer] = (drawn.double() @ torch.stack(values, 1)).T.numpy()
    seen = histogram > 0
    low, high = bins.EDGES[seen.argmax(-1)], bins.EDGES[bins.N_BINS - seen[..., ::-1].argmax(-1)]
    del seen
    extremes = np.clip(np.stack([low, high], axis=1), -largest, largest).astype(np.float32)
    positive = histogram[..., bins.N_SIGN :].sum(-1, dtype=np.int64)
    random = np.random.default_rng(seed)
    arrays = histogram_arrays("gate", histogram)
    del histogram
    for i, site in enumerate(SITES):
        arrays[f"{site}.positive"] = positive
        arrays[f"{site}.extremes"] = extremes
        for j, moment in enumerate(MOMENTS):
            # The fractions of the blocks' sums are what remains beside the whole parts.
            blocks = max(tokens // 512, 1)
            fraction = random.normal(blocks / 2, np.sqrt(blocks / 12), shape)
            whole = np.floor(sums[i * len(MOMENTS) + j] - fraction)
            limbs = np.stack([whole, np.maximum(fraction, 0) * LIMB])
            arrays[f"{site}.{moment}"] = limbs.astype(np.int64)
    header = IDENTITY | {
        "schema": SCHEMA,
        "lang": lang,
        "tokenizer_hash": "none",
        "corpus_hash": lang,
        "bos": "block",
        "nonlinearity": "silu",
        "n_layers": n_layers,
        "d_mlp": d_mlp,
        "sites": list(SITES),
        "histograms": ["gate"],
        "batch_quantiles": [],
        "batch_blocks": 8,
        "block_size": 512,
        "blocks": [0, tokens // 512],
        "corpus_blocks": tokens // 512,
        "batches": tokens // 4096,
        "tokens": tokens,
    }
    return Statistics(arrays, header, f"synthetic {lang}")


def synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleaved(
    variants: dict[str, Callable[[], object]],
    repeats: int,
    warm_up: bool = True,
    deadline: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Run the variants in turn, `repeats` rounds after one to warm up; return seconds by variant.

    Taking turns keeps a slow minute of the machine from falling on one variant; every other round
    runs backwards, so that no variant always follows the same one. After one round none is begun
    past the deadline (of time.monotonic()). With `clock=time.process_time` the seconds are those of
    the processor, all threads together.
    """
    if repeats < 1:
        raise SystemExit("--repeats must be at least 1")
    times: dict[str, list[float]] = {name: [] for name in variants}
    for run in range(0 if warm_up else 1, repeats + 1):
        if run > 1 and time.monotonic() > deadline:
            break
        for name in list(variants)[:: 1 if run % 2 else -1]:
            synchronize()
            begin = clock()
            variants[name]()
            synchronize()
            if run:
                times[name].append(clock() - begin)
    return times


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def ratios(times: dict[str, list[float]], name: str, base: str) -> tuple[str, str]:
    """Return the median ratio of a variant to another in the same round, and the range."""
    pairs = [own / other for own, other in zip(times[name], times[base], strict=True)]
    return f"{median(pairs):.3f}", f"{min(pairs):.3f}-{max(pairs):.3f}"


def timing_rows(times: dict[str, list[float]], base: str, n_tokens: int) -> list[list[str]]:
    """Return a row per variant: seconds per 1,000 tokens, ratio to `base`, its range."""
    return [
        [name, f"{median(values) / n_tokens * 1000:.3f}", *ratios(times, name, base)]
        for name, values in times.items()
    ]


TIMING_HEADER = ["variant", "s per 1,000 tokens", "ratio", "range"]


def peak_memory() -> int:
    """Return the most memory that this process held so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> str:
    """Return one line about the machine and the versions."""
    import torch
    import transformers

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*: (.+)", info.read_text())):
        name = found[1].strip()
    if torch.cuda.is_available():
        name = f"{torch.cuda.get_device_name(0)}, {name}"
    return (
        f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, transformers"
        f" {transformers.__version__}, Python {platform.python_version()}"
    )


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
