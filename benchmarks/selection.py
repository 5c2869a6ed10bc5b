"""Selection at the size of an 8B model: 32 layers x 14336 neurons x 21 languages.

Synthetic statistics files (see common.py) are written once. Then each method runs as the workflow's
job does, in a process of its own: read the files, `run_selection`, write the neuron table. Seconds
of reading and of the rest are medians over the repeats; those of the processor are of all threads,
and say more where other work runs beside it. Peak memory is that of the process.
"""

import multiprocessing
import signal
import sys
import tempfile
import time
from pathlib import Path

from common import median, parser, peak_memory, publish, set_threads, synthetic_statistics, table

METHODS = {
    "LAPE, 1 %": {"method": "lape", "rate": 0.01},
    "Act Prob 90p, threshold per layer": {
        "method": "exceedance",
        "threshold": "p90",
        "pool": "layer",
        "rate": 0.00125,
    },
    "random, matched in frequency to LAPE": {
        "method": "random",
        "like": "lape",
        "match": "frequency",
    },
}
LAPE = "LAPE, 1 %"


def main() -> None:
    """Write the statistics, run the methods, print."""
    options = parser(__doc__, repeats=2)
    options.add_argument("--layers", type=int, default=32)
    options.add_argument("--neurons", type=int, default=14336)
    options.add_argument("--languages", type=int, default=21)
    options.add_argument("--tokens", type=int, default=1_000_000, help="tokens per language")
    options.add_argument(
        "--folder", help="where the statistics go (21 files of 170 MB), default a temporary one"
    )
    given = options.parse_args()
    set_threads(given.threads)
    # So that gigabytes do not stay behind when it is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        rows = _measure(given, Path(folder))
    note = (
        f"{given.layers} layers x {given.neurons} neurons x {given.languages} languages,"
        f" {given.tokens:,} tokens each (synthetic); {given.repeats} runs, medians. Goal: at most"
        " 5 s in all and 4 GB."
    )
    header = [
        "method",
        "s, reading",
        "s, selecting",
        "s of the processor",
        "neurons",
        "peak memory",
    ]
    publish("selection", table("Selection", header, rows, note))


def _measure(given, folder: Path) -> list[list[str]]:
    _child(_write, folder, given)
    rows = []
    for name in METHODS:
        runs = [_child(_select, folder, name) for _ in range(given.repeats)]
        reading, selecting, worked, peak = (
            median(list(values)) for values in zip(*runs, strict=True)
        )
        number = _child(_count, folder, name)
        rows.append(
            [
                name,
                f"{reading:.1f}",
                f"{selecting:.1f}",
                f"{worked:.1f}",
                f"{number:,}",
                f"{peak / 1e9:.1f} GB",
            ]
        )
    return rows


def _child(function, *arguments):
    """Call a function in a fresh process, so that its peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{function.__name__} ended with code {process.exitcode}") from None
    finally:
        process.terminate()
        process.join()


def _answer(sender, function, arguments) -> None:
    sender.send(function(*arguments))


def _write(folder: Path, given) -> None:
    for k in range(given.languages):
        lang = f"l{k:02d}"
        statistics = synthetic_statistics(given.layers, given.neurons, given.tokens, lang, k)
        statistics.write(folder / f"{lang}.safetensors")


def _select(folder: Path, name: str) -> tuple[float, float, float, int]:
    from langneurons.neurons import NeuronTable
    from langneurons.selection.run import run_selection
    from langneurons.statistics import Statistics

    begin, worked = time.perf_counter(), time.process_time()
    statistics = [Statistics.read(path) for path in sorted(folder.glob("*.safetensors"))]
    tables = []
    if "like" in METHODS[name]:
        tables = [NeuronTable.from_parquet(folder / f"{LAPE}.parquet")]
    middle = time.perf_counter()
    chosen = run_selection(METHODS[name], {one.lang: one for one in statistics}, tables)
    chosen.to_parquet(folder / f"{name}.parquet")
    worked = time.process_time() - worked
    return middle - begin, time.perf_counter() - middle, worked, peak_memory()


def _count(folder: Path, name: str) -> int:
    from langneurons.neurons import NeuronTable

    return NeuronTable.from_parquet(folder / f"{name}.parquet").unique


if __name__ == "__main__":
    main()
