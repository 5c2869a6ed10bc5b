"""Selection at the size of an 8B model: 32 layers x 14336 neurons x 21 languages.

Synthetic statistics files (see common.py) are written once. Then each method runs as the workflow's
job does, in a process of its own: read the files, `run_selection`, write the neuron table. Seconds
of reading and of the rest are medians over the repeats; those of the processor are of all threads,
and say more where other work runs beside it. Peak memory is that of the process.

Then LAPE's neurons must be those of a reference that is written out here in float64 and whole
sorts; the scores of Act Prob 90p must lie between whole counts on both sides of the threshold, with
no neuron left out whose score is surely higher (first language); the random ones must be as many as
LAPE's in every language and layer. Otherwise the script ends with an error.
"""

import multiprocessing
import signal
import sys
import tempfile
import time
from pathlib import Path

from common import median, parser, peak_memory, publish, set_threads, synthetic_statistics, table

LAPE, ACT_PROB = "LAPE, 1 %", "Act Prob 90p, threshold per layer"
METHODS = {
    LAPE: {"method": "lape", "rate": 0.01},
    ACT_PROB: {
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
        number = _child(_checked, folder, name)
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
    from langneurons.activations.statistics import Statistics
    from langneurons.selection.run import run_selection
    from langneurons.selection.table import NeuronTable

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


def _checked(folder: Path, name: str) -> int:
    """Return the number of neurons after comparing them with the reference."""
    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

    own = NeuronTable.from_parquet(folder / f"{name}.parquet")
    statistics = [Statistics.read(path) for path in sorted(folder.glob("*.safetensors"))]
    if name == LAPE:
        same = _lape(own, statistics)
    elif "like" in METHODS[name]:
        frames = (own.frame, NeuronTable.from_parquet(folder / f"{LAPE}.parquet").frame)
        sizes = [frame.groupby(["lang", "layer"]).size().to_dict() for frame in frames]
        same = sizes[0] == sizes[1]
    else:
        same = _exceedance(own, statistics[0])
    if not same:
        raise SystemExit(f"{name}: other neurons than the reference's")
    return own.unique


def _lape(own, statistics) -> bool:
    """Compare with probabilities, entropies and the bar from whole sorts in float64."""
    import numpy as np

    p = np.stack([one.positive("act") / one.tokens for one in statistics])
    share = p / p.sum(0)
    entropy = -np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), 0).sum(0)
    bar = np.sort(p, axis=None)[round(0.95 * p.size) - 1]
    order = np.lexsort((np.arange(entropy.size), entropy.ravel()))
    able = (p > bar).any(0).ravel()
    kept = order[able[order]][: round(METHODS[LAPE]["rate"] * entropy.size)]
    expected = {
        (one.lang, *divmod(int(place), entropy.shape[1]))
        for one, own_p in zip(statistics, p.reshape(len(p), -1), strict=True)
        for place in kept[own_p[kept] > bar]
    }
    return expected == set(own.frame[["lang", "layer", "neuron"]].itertuples(index=False))


def _exceedance(own, one) -> bool:
    """Compare the scores of a language with whole counts on both sides of the threshold's bin."""
    import numpy as np

    rows, whole = own.frame[own.frame["lang"] == one.lang], one.histogram("gate")
    if len(rows) != round(METHODS[ACT_PROB]["rate"] * whole.shape[0] * whole.shape[1]):
        return False
    lowest = rows["score"].min()
    for layer, counts in enumerate(whole):
        of_layer = rows[rows["layer"] == layer]
        counts = counts.astype(np.int64)
        pooled = counts.sum(0).cumsum() / counts.sum()
        place = int(np.searchsorted(pooled, 0.9))
        above = counts[:, ::-1].cumsum(1)[:, ::-1] / one.tokens
        chosen, score = of_layer["neuron"].to_numpy(), of_layer["score"].to_numpy()
        left = np.setdiff1d(np.arange(len(counts)), chosen)
        right = (above[chosen, place + 1] <= score + 1e-12).all()
        right &= (score <= above[chosen, place] + 1e-12).all()
        if not (right and (above[left, place + 1] <= lowest + 1e-12).all()):
            return False
    return True


if __name__ == "__main__":
    main()
