"""Average precision of every neuron for every language: one sort against scikit-learn's loop.

Means per document are drawn (normal, rounded to half precision as a means file of the papers is, so
that some are equal). Both must agree to 1e-12 on the neurons that the loop is run on. Then the
whole job at the size of an 8B model, in a process of its own: synthetic files of statistics with
means per document are written, read layer by layer, and the neurons selected, by each method that
reads documents and by LAPE.
"""

import multiprocessing
import signal
import sys
import tempfile
import time
from pathlib import Path

from common import (
    TIMING_HEADER,
    interleaved,
    median,
    parser,
    peak_memory,
    publish,
    ratios,
    set_threads,
    table,
)

METHODS = {
    "average precision, 0.125 %": {"method": "average_precision", "rate": 0.00125},
    "positive in every document": {"method": "document_sign"},
    "PLND, 10 % of a layer": {"method": "plnd", "site": "act"},
    "LAPE, 1 %": {"method": "lape", "rate": 0.01},
    "LAPE, 5 %": {"method": "lape", "rate": 0.05},
}
GOAL = 50


def main() -> None:
    """Compare with the loop, then run the job."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--layers", type=int, default=32)
    options.add_argument("--neurons", type=int, default=14336)
    options.add_argument("--languages", type=int, default=21)
    options.add_argument("--documents", type=int, default=100, help="per language, default 100")
    options.add_argument("--sample", type=int, default=20, help="neurons of the loop, default 20")
    options.add_argument("--folder", help="where the statistics go, default a temporary one")
    options.add_argument("--only", choices=["loop", "job"], help="one of the two parts")
    given = options.parse_args()
    set_threads(given.threads)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if given.only != "job":
        _against_the_loop(given)
    if given.only != "loop":
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            _job(given, Path(folder))


def _drawn(given, n_neurons: int):
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(given.languages), given.documents)
    values = rng.normal(size=(len(labels), n_neurons)) + 0.1 * rng.permutation(labels)[:, None]
    return values.astype(np.float16).astype(np.float64), labels


def _against_the_loop(given) -> None:
    import numpy as np

    from langneurons.selection.average_precision import average_precision

    try:
        from sklearn.metrics import average_precision_score
    except ImportError:
        print("scikit-learn is not installed (benchmarks/requirements.txt): the loop is left out")
        return
    n_neurons = 100 * given.sample
    values, labels = _drawn(given, n_neurons)
    wanted = [labels == k for k in range(given.languages)]
    found: dict[str, np.ndarray] = {}

    def loop() -> None:
        scores = [
            [average_precision_score(own, values[:, j]) for j in range(given.sample)]
            for own in wanted
        ]
        found["loop"] = np.array(scores)

    def ours() -> None:
        found["ours"] = average_precision(values, labels)

    times = interleaved({"scikit-learn, neuron by neuron": loop, "one sort": ours}, given.repeats)
    error = abs(found["ours"][:, : given.sample] - found["loop"]).max()
    if error > 1e-12:
        raise SystemExit(f"the two disagree by {error}")
    sizes = {"scikit-learn, neuron by neuron": given.sample, "one sort": n_neurons}
    each = {name: [s / sizes[name] for s in seconds] for name, seconds in times.items()}
    rows = [
        [
            name,
            f"{1000 * median(seconds):.3f}",
            *ratios(each, "scikit-learn, neuron by neuron", name),
        ]
        for name, seconds in each.items()
    ]
    faster = float(rows[1][2])
    note = (
        f"{given.languages} languages x {given.documents} documents; {given.sample} neurons by the"
        f" loop, {n_neurons} by ours; largest difference {error:.1e}. Goal: {GOAL} times as fast,"
        f" {'met' if faster >= GOAL else 'missed'}."
    )
    header = ["variant", "ms per neuron", "times as fast", TIMING_HEADER[-1]]
    publish("average_precision", table("Average precision", header, rows, note))


def _job(given, folder: Path) -> None:
    _child(_write, folder, given)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    rows = []
    for name in METHODS:
        runs = [_child(_select, folder, name) for _ in range(given.repeats)]
        reading, selecting, peak, number = (median(list(v)) for v in zip(*runs, strict=True))
        rows.append(
            [name, f"{reading:.1f}", f"{selecting:.1f}", f"{number:,}", f"{peak / 1e9:.1f} GB"]
        )
    note = (
        f"{given.layers} layers x {given.neurons} neurons x {given.languages} languages x"
        f" {given.documents} documents (synthetic, {size / 1e9:.1f} GB of files); {given.repeats}"
        " runs, medians."
    )
    header = ["method", "s, opening", "s, selecting", "neurons", "peak memory"]
    publish("selection_documents", table("Selection by documents", header, rows, note))


def _child(function, *arguments):
    """Call a function in a fresh process, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _write(folder: Path, given) -> None:
    """Write files of counts and sums per document alone; a third of the neurons have a bias."""
    import numpy as np
    from common import IDENTITY

    from langneurons.activations.statistics import LIMB, SCHEMA, Statistics

    shape, tokens = (given.layers, given.neurons), 30 * given.documents
    for k in range(given.languages):
        rng = np.random.default_rng(k)
        bias = np.maximum(rng.normal(size=shape, scale=0.2) - 0.1, 0)
        sums = np.empty((given.documents, *shape), np.int64)
        for i in range(given.documents):
            means = bias + rng.normal(size=shape, scale=0.1)
            sums[i] = np.rint(30 * means.astype(np.float16).astype(np.float64) * LIMB)
        positive = rng.binomial(tokens, np.clip(0.1 + bias, 0, 1))
        arrays = {
            "act.positive": positive,
            "act.extremes": np.zeros((shape[0], 2, shape[1]), np.float32),
            "act.document_sum": sums,
            "document_tokens": np.full(given.documents, 30),
        }
        header = IDENTITY | {
            "schema": SCHEMA,
            "lang": f"l{k:02d}",
            "tokenizer_hash": "none",
            "nonlinearity": "silu",
            "n_layers": shape[0],
            "d_mlp": shape[1],
            "sites": ["act"],
            "histograms": [],
            "batch_quantiles": [],
            "batch_blocks": 8,
            "block_size": 512,
            "bos": "block",
            "blocks": [0, 1],
            "tokens": tokens,
            "documents": [f"d{i}" for i in range(given.documents)],
        }
        Statistics(arrays, header).write(folder / f"l{k:02d}.safetensors")


def _select(folder: Path, name: str) -> tuple[float, float, int, int]:
    from langneurons.activations.statistics import Statistics
    from langneurons.selection.run import run_selection

    begin = time.perf_counter()
    statistics = [Statistics.read(path) for path in sorted(folder.glob("*.safetensors"))]
    middle = time.perf_counter()
    chosen = run_selection(METHODS[name], {one.lang: one for one in statistics})
    chosen.to_parquet(folder / "chosen.parquet")
    return middle - begin, time.perf_counter() - middle, peak_memory(), chosen.unique


if __name__ == "__main__":
    main()
