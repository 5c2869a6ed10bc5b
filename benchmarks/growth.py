"""How cost grows with tokens, neurons, languages and interventions: seconds and bytes, with a line.

Measured with the package's own functions on small models of random weights and on synthetic
statistics; one thread, and seconds of the processor, which other work on the machine disturbs
least; of each point the least of the repeats. Per size:

    tokens         `collect` (three sites, gate histogram) over a corpus; the file of one language
                   against the tokens that it counts, up to a thousand million (synthetic)
    neurons        the counting loop on one layer's activations, three sites; accumulators held
    languages      LAPE on statistics files, reading them included; memory at the peak
    interventions  perplexity of held-out text under so many plans; the parquet files that are kept

Through the points goes a line of least squares; the largest distance of a point from it is given as
a share of the largest value. A file grows with the logarithm of the tokens, since what it holds are
counters; bytes of it are per neuron. The constants are carried to a model of 70B on paper: what a
formula gives there, not a measurement.
"""

import logging
import tempfile
import time
from pathlib import Path

from common import ROOT, parser, publish, set_threads, synthetic_statistics, table
from selection import _child

IMAGES = ROOT / "docs" / "images"
MODEL = {
    "vocab_size": 512,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
BLOCK = 256
# Llama-3.1-70B: 80 layers of 28,672 neurons; parameters that take part in a forward pass.
PAPER = {"layers": 80, "neurons": 28_672, "parameters": 70e9, "languages": 100, "tokens": 1e9}
HELDOUT = 1e6  # tokens per language
GPU_RATE = 0.6 * 989e12  # the goal's share of an H100's dense bf16 peak, flop/s


def main() -> None:
    """Measure, fit, draw, write."""
    options = parser(__doc__, repeats=5)
    options.add_argument("--images", type=Path, default=IMAGES, help="where the plot goes")
    given = options.parse_args()
    set_threads(1)
    logging.getLogger("langneurons").setLevel(logging.ERROR)
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        found = {
            "tokens": _tokens(given.repeats, folder),
            "neurons": _neurons(given.repeats),
            "languages": _languages(given.repeats, folder),
            "interventions": _interventions(given.repeats, folder),
        }
    fits = {
        what: {kind: fit(_scale(what, kind)(points[0]), points[1]) for kind, points in one.items()}
        for what, one in found.items()
    }
    draw(found, fits, given.images / "growth")
    rows = []
    for what, kinds in found.items():
        for kind, (sizes, values) in kinds.items():
            constant, slope, off = fits[what][kind]
            size = "n" if _straight(what, kind) else "log10 n"
            rows.append(
                [
                    what,
                    kind,
                    f"{sizes[0]:,} - {sizes[-1]:,}",
                    f"{values[0]:.3g} - {values[-1]:.3g}",
                    f"{constant:.3g} + {slope:.3g} {size}",
                    f"{off:.1%}",
                ]
            )
    header = ["n", "cost", "n, from - to", "cost, from - to", "line", "farthest point"]
    text = table("Growth", header, rows, f"{given.repeats} repeats, the least of each.")
    publish("growth", text + "\n" + _on_paper(found, fits))


def _straight(what: str, kind: str) -> bool:
    return not (what == "tokens" and kind == "bytes")


def _scale(what: str, kind: str):
    """Return what of the size the line goes along: itself, or its decimal logarithm."""
    import numpy as np

    return np.asarray if _straight(what, kind) else np.log10


def fit(sizes, values) -> tuple[float, float, float]:
    """Return constant and slope of the least-squares line, and its largest miss as a share."""
    import numpy as np

    slope, constant = np.polyfit(np.asarray(sizes, float), np.asarray(values, float), 1)
    missed = np.abs(constant + slope * np.asarray(sizes, float) - values)
    return float(constant), float(slope), float(missed.max() / np.max(values))


def _least(function, repeats: int) -> float:
    """Return the least processor seconds of a call, after one to warm up."""
    function()
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def _model(neurons: int = 1024):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**MODEL, intermediate_size=neurons))
    return model.eval().requires_grad_(False)


def _corpus(blocks: int):
    """Return random tokens as a corpus, a document of 64 tokens after the other."""
    import numpy as np

    from langneurons.data.corpus import Corpus, Part

    tokens = np.random.default_rng(0).integers(8, MODEL["vocab_size"], (blocks, BLOCK), np.int32)
    document = np.arange(tokens.size, dtype=np.int32).reshape(tokens.shape) // 64
    scored = np.ones(tokens.shape, bool)
    scored[:, 0] = False
    document[:, 0] = -1
    names = [f"d{k}" for k in range(int(document.max()) + 1)]
    lengths = np.full(blocks, BLOCK, np.int32)
    part = Part(tokens, lengths, document, scored, names, [256] * len(names))
    header = {"lang": "xx", "tokenizer_hash": "t", "corpus_hash": "c", "bos": "block"}
    return Corpus("xx", part, part, header)


def _tokens(repeats: int, folder: Path) -> dict:
    from common import IDENTITY

    from langneurons.activations.collect import collect
    from langneurons.activations.settings import StatisticsConfig
    from langneurons.models.language_model import LanguageModel

    model, sizes, seconds = _model(), [], []
    for blocks in (8, 16, 32, 64, 96):
        corpus = _corpus(blocks)
        sizes.append(blocks * BLOCK)
        seconds.append(
            _least(
                lambda c=corpus: collect(
                    LanguageModel(model, identity=IDENTITY), c, StatisticsConfig()
                ),
                repeats,
            )
        )
    counted, kept = [10**k for k in range(5, 10)], []
    for tokens in counted:
        path = folder / "one.safetensors"
        synthetic_statistics(2, 3584, tokens, "xx", 0).write(path)
        kept.append(path.stat().st_size / (2 * 3584))
    return {"seconds": (sizes, seconds), "bytes": (counted, kept)}


def _neurons(repeats: int) -> dict:
    import torch

    from langneurons.activations.histogram import N_BINS
    from langneurons.activations.kernels import MOMENTS, accumulate

    sizes, seconds, held = [1792, 3584, 7168, 14336, 28672], [], []
    generator = torch.Generator().manual_seed(0)
    mask, rows = torch.ones(2 * BLOCK, dtype=torch.bool), torch.tensor([0, BLOCK, 2 * BLOCK])
    for neurons in sizes:
        x = torch.randn(2 * BLOCK, neurons, generator=generator)
        sites = [
            [
                torch.zeros(neurons, dtype=torch.int64),
                torch.zeros(len(MOMENTS), 2, neurons, dtype=torch.int64),
                torch.tensor([[torch.inf], [-torch.inf]]).repeat(1, neurons),
                torch.zeros(neurons if site == "gate" else 0, N_BINS, dtype=torch.int32),
            ]
            for site in ("gate", "act", "product")
        ]

        def layer(x=x, sites=sites) -> None:
            for one in sites:
                accumulate(x, mask, rows, *one)

        seconds.append(_least(layer, repeats))
        held.append(sum(t.numel() * t.element_size() for one in sites for t in one))
    return {"seconds": (sizes, seconds), "bytes": (sizes, held)}


LAYERS, WIDTH = 8, 3584


def _languages(repeats: int, folder: Path) -> dict:
    sizes, seconds, held = [5, 10, 20, 40], [], []
    for number in range(sizes[-1]):
        one = synthetic_statistics(LAYERS, WIDTH, 1_000_000, f"l{number:02d}", number)
        one.write(folder / f"l{number:02d}.safetensors")
    for number in sizes:
        runs = [_child(_select, folder, number) for _ in range(repeats)]
        seconds.append(min(run[0] for run in runs))
        held.append(min(run[1] for run in runs))
    return {"seconds": (sizes, seconds), "bytes": (sizes, held)}


def _select(folder: Path, number: int) -> tuple[float, int]:
    """Return processor seconds of LAPE on so many files, and the peak memory of the process."""
    from common import peak_memory

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.run import run_selection

    def lape(paths: list[Path]) -> float:
        begin = time.process_time()
        statistics = [Statistics.read(path) for path in paths]
        run_selection({"method": "lape", "rate": 0.01}, {one.lang: one for one in statistics}, [])
        return time.process_time() - begin

    paths = sorted(folder.glob("l*.safetensors"))
    lape(paths[:2])  # loads the libraries
    return lape(paths[: max(number, 2)]), peak_memory()


def _interventions(repeats: int, folder: Path) -> dict:
    import numpy as np
    import pandas as pd

    from langneurons.base.io import write_parquet
    from langneurons.evaluation.perplexity import HeldOut, document_nll
    from langneurons.interventions.plan import Plan, Write
    from langneurons.models.language_model import LanguageModel

    model, corpus = _model(), _corpus(8)
    lm, generator = LanguageModel(model), np.random.default_rng(0)
    sites = lm.sites
    sizes, seconds, kept = [1, 2, 4, 8, 12], [], []
    plans = []
    for number in range(sizes[-1]):
        plan = Plan(f"p{number}")
        for layer in range(sites.n_layers):
            index = np.sort(generator.choice(sites.d_mlp, 10, replace=False))
            plan.writes.append(Write(layer, "act", "set", index, np.zeros(10)))
        plans.append(plan)

    def read(number: int) -> list[pd.DataFrame]:
        found = []
        for plan in plans[:number]:
            found.append(document_nll(lm, corpus, HeldOut(), 2048, plan))
        return found

    for number in sizes:
        seconds.append(_least(lambda n=number: read(n), repeats))
        total = 0
        for frame in read(number):
            path = folder / "one.parquet"
            write_parquet(path, frame, {})
            total += path.stat().st_size
        kept.append(total)
    return {"seconds": (sizes, seconds), "bytes": (sizes, kept)}


def _on_paper(found: dict, fits: dict) -> str:
    """Return what the constants make of 70B x 100 languages x 1 B tokens."""
    neurons = PAPER["layers"] * PAPER["neurons"]
    tokens = PAPER["languages"] * PAPER["tokens"]
    forward = 2 * PAPER["parameters"] * tokens / GPU_RATE / 3600
    per_file = found["tokens"]["bytes"][1][-1] * neurons
    held = fits["neurons"]["bytes"][1] * neurons
    share = neurons / (LAYERS * WIDTH)
    selecting = fits["languages"]["seconds"][1] * PAPER["languages"] * share
    # What does not grow with the languages is the libraries, and no more of them are loaded.
    fixed, each, _ = fits["languages"]["bytes"]
    memory = fixed + each * PAPER["languages"] * share
    heldout = 2 * PAPER["parameters"] * HELDOUT / GPU_RATE
    rows = [
        [
            "statistics, GPU hours",
            f"2 x {PAPER['parameters']:.0e} x {tokens:.0e} / {GPU_RATE:.3g} flop/s",
            f"{forward:,.0f}",
        ],
        ["accumulators on the GPUs of a job", f"{held / neurons:,.0f} B per neuron", _size(held)],
        [
            "statistics files, all languages",
            f"{per_file / neurons:,.0f} B per neuron and language",
            _size(per_file * PAPER["languages"]),
        ],
        ["LAPE, processor seconds", "per neuron and language", f"{selecting:,.0f}"],
        ["LAPE, memory", "per neuron and language, and the libraries", _size(memory)],
        [
            "perplexity, GPU hours",
            f"100 interventions x 100 languages x {HELDOUT:.0e} tokens",
            f"{100 * 100 * heldout / 3600:,.0f}",
        ],
    ]
    note = (
        f"{PAPER['layers']} layers x {PAPER['neurons']:,} neurons. GPU hours are of one H100 at"
        " 60 % of its dense bfloat16 peak, the pass at 1.0 x of the bare forward pass: assumed, not"
        " measured. All of it is shared out over jobs by language, shard and intervention."
    )
    header = ["70B, 100 languages, 1 B tokens each: on paper", "from", "total"]
    return table("The same at 70B, on paper", header, rows, note)


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.3g} {unit}"
        number /= 1000
    raise AssertionError


def draw(found: dict, fits: dict, stem: Path) -> None:
    """Draw seconds above and bytes below, a column for each size; write stem.svg and stem.png."""
    import matplotlib

    matplotlib.use("agg")
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    from langneurons.reporting.figures.canvas import OKABE_ITO, STYLE

    titles = {
        "tokens": ("Statistics pass", "File of one language"),
        "neurons": ("Counting one layer", "Accumulators of one layer"),
        "languages": ("Selection (LAPE)", "Memory of selection"),
        "interventions": ("Perplexity", "Files of perplexity"),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 5.2), layout="constrained")
        axes = figure.subplots(2, 4)
        for column, (what, kinds) in enumerate(found.items()):
            for row, (kind, (sizes, values)) in enumerate(kinds.items()):
                ax, colour = axes[row, column], OKABE_ITO[row]
                unit = (
                    1e6 if kind == "bytes" and max(values) > 1e5 else 1e3 if kind == "bytes" else 1
                )
                shown = np.asarray(values) / unit
                ax.set_title(titles[what][row])
                ax.set_xlabel(what)
                ax.plot(sizes, shown, "o", color=colour, markersize=5, zorder=3)
                name = {1e6: "MB", 1e3: "kB", 1: "s of one core"}[unit]
                if _straight(what, kind):
                    constant, slope, _ = fits[what][kind]
                    line = np.array([0, max(sizes)])
                    ax.plot(line, (constant + slope * line) / unit, color="0.6", linewidth=1.2)
                    each = f"{_value(slope, kind)} per {what[:-1]}"
                    ax.set_xlim(0, max(sizes) * 1.06)
                    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
                    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
                else:
                    name += " per neuron"
                    constant, slope, _ = fits[what][kind]
                    line = np.array([min(sizes), max(sizes)])
                    ax.plot(
                        line, (constant + slope * np.log10(line)) / unit, color="0.6", linewidth=1.2
                    )
                    each = f"{_value(slope, kind)} per tenfold"
                    ax.set_xscale("log")
                    ax.minorticks_off()
                ax.annotate(each, (0.05, 0.93), xycoords="axes fraction", va="top", color="0.25")
                ax.set_ylim(0, max(shown) * 1.15)
                ax.set_ylabel(name)
                ax.spines[["top", "right"]].set_visible(False)
        stem.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(stem.with_suffix(".png"), dpi=160, metadata={"Software": None})


def _value(slope: float, kind: str) -> str:
    if kind == "bytes":
        return _size(slope)
    for unit, size in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if slope * size >= 1:
            return f"{slope * size:.3g} {unit}"
    return f"{slope * 1e9:.3g} ns"


if __name__ == "__main__":
    main()
