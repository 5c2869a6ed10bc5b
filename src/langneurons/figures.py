"""Figures of the results as SVG and PNG.

Mondal et al. 2025 draw neurons per language (figures 2-7), pairwise overlap (8-13), layer x
language (14-19) and perplexity change (1, 20-24); their code also draws three-set Venn diagrams.
Gurgurov et al. 2025 draw overlap by language family, the success of language forcing as source x
target, the identified languages at every step of deactivation, and the logit lens by layer.
Every function takes values and a stem and writes stem.svg and stem.png; equal input gives equal
files. Counts are in cividis, changes in a diverging map centred at 0 (orange is worse), categories
in the colours of Okabe and Ito: all are told apart without colour vision. Matrices are labelled
with language codes, lists with English names.
"""

import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, PowerNorm, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from langneurons.io import atomic
from langneurons.tables import BASELINE, matrix

if TYPE_CHECKING:
    from langneurons.neurons import NeuronTable

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAX_ADAPTERS = 4  # adapters up to which task scores are drawn as points with intervals
MAX_NUMBERED = 21  # rows or columns up to which cells hold their numbers
CELL = 0.44  # inches, side of a numbered cell
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "figure.titlesize": 10,
    "axes.linewidth": 0.6,
    "axes.unicode_minus": True,
    "svg.hashsalt": "langneurons",
    "svg.fonttype": "path",
    "path.simplify": True,
}


# Canvas ----------------------------------------------------------------------------------------


@contextmanager
def _canvas(
    stem: str | os.PathLike, width: float, height: float, title: str = "", note: str = ""
) -> Iterator[Figure]:
    """Yield a figure of the given inches; save it as stem.svg and stem.png afterwards."""
    with matplotlib.rc_context(STYLE):
        columns = max(20, int(width * 11))
        title, note = textwrap.fill(title, columns), textwrap.fill(note, int(columns * 1.15))
        lines = (title.count("\n") + 1 if title else 0) + (note.count("\n") + 1 if note else 0)
        figure = Figure(figsize=(width, height + 0.18 * lines), layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.04)
        if title:
            figure.suptitle(title)
        if note:
            figure.supxlabel(note, fontsize=8, color="0.25")
        yield figure
        metadata = {"svg": {"Date": None}, "png": {"Software": None}}
        for kind in ("svg", "png"):
            with atomic(f"{os.fspath(stem)}.{kind}") as temporary:
                figure.savefig(temporary, format=kind, dpi=200, metadata=metadata[kind])


def _grid(number: int, most: int) -> tuple[int, int]:
    """Return rows and columns for `number` panels, at most `most` side by side."""
    columns = max(1, min(number, most))
    return max(1, math.ceil(number / columns)), columns


def _panels(figure: Figure, rows: int, columns: int, used: int, **options) -> list[Axes]:
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for axis in axes[used:]:
        axis.remove()
    return list(axes[:used])


def _named(lang: str, names: Mapping[str, str] | None) -> str:
    name = (names or {}).get(lang)
    return f"{name} ({lang})" if name and name != lang else lang


def _plain(axis: Axes, grid: str = "x") -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color="0.88", linewidth=0.6)
    axis.set_axisbelow(True)


def _short(value: float) -> str:
    """Return a change in at most five characters: 0.02, −0.13, 4.1, 57, 3e5."""
    size = abs(value)
    if not math.isfinite(value):
        return "" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if size >= 9999.5:
        text = f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    else:
        text = f"{value:.{2 if size < 0.995 else 1 if size < 9.95 else 0}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


# Heat maps -------------------------------------------------------------------------------------


def _ink(cmap: Colormap, norm: Normalize, value: float, faint: bool = False) -> str:
    """Return the text colour that stands out from the cell's colour (WCAG relative luminance)."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in cmap(norm(value))[:3]
    )
    dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.2
    if faint:
        return "0.82" if dark else "0.38"
    return "white" if dark else "black"


def _heat_map(
    axis: Axes,
    frame: pd.DataFrame,
    cmap: Colormap,
    norm: Normalize,
    text: np.ndarray | None = None,
    faint: np.ndarray | None = None,
) -> None:
    """Draw a frame as cells with its index and columns as labels; `text` fills the cells."""
    values = np.ma.masked_invalid(frame.to_numpy(np.float64))
    axis.imshow(values, cmap=cmap, norm=norm, aspect="auto", interpolation="nearest")
    axis.set_xticks(range(frame.shape[1]), frame.columns)
    axis.set_yticks(range(frame.shape[0]), frame.index)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xticks(np.arange(frame.shape[1] + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(frame.shape[0] + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=0.8)
    axis.tick_params(which="minor", length=0)
    if max((len(str(label)) for label in frame.columns), default=0) > 4:
        axis.tick_params(axis="x", labelrotation=90)
    if text is None:
        return
    for (row, column), label in np.ndenumerate(text):
        weak = bool(faint is not None and faint[row, column])
        bad = values.mask is not np.ma.nomask and np.ma.getmaskarray(values)[row, column]
        axis.text(
            column,
            row,
            label,
            ha="center",
            va="center",
            fontsize=8,
            fontstyle="italic" if weak else "normal",
            color="0.25" if bad else _ink(cmap, norm, values[row, column], weak),
        )


def _cmap(name: str) -> Colormap:
    return matplotlib.colormaps[name].with_extremes(bad="0.9")


def _numbered(frame: pd.DataFrame) -> bool:
    return max(frame.shape) <= MAX_NUMBERED


def _side(n: int) -> float:
    """Return the inches that n rows or columns of a heat map take."""
    return n * (CELL if n <= MAX_NUMBERED else 0.24)


def _bar(figure: Figure, axes, cmap: Colormap, norm: Normalize, label: str):
    mappable = ScalarMappable(norm=norm, cmap=cmap)
    bar = figure.colorbar(mappable, ax=axes, label=label, fraction=0.05, pad=0.02, aspect=30)
    bar.outline.set_linewidth(0.4)
    return bar


# Neurons ---------------------------------------------------------------------------------------


def draw_neurons(
    counts: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw neurons per language, bars with their values, one group of bars per selection.

    `counts` has lang, selection, neurons. Groups have their own scale: selections differ in size
    by orders of magnitude.
    """
    selections = list(dict.fromkeys(counts["selection"]))
    langs = [lang for lang in order if lang in set(counts["lang"])]
    rows, columns = _grid(len(selections), 4)
    width, height = 1.4 + 2.5 * columns, rows * (0.75 + 0.24 * len(langs))
    with _canvas(stem, max(4.5, width), height, title) as figure:
        axes = _panels(figure, rows, columns, len(selections), sharey=True)
        for number, (axis, selection) in enumerate(zip(axes, selections, strict=True)):
            own = counts[counts["selection"] == selection].set_index("lang")["neurons"]
            own = own.reindex(langs)
            places = np.arange(len(langs))
            colour = OKABE_ITO[number % len(OKABE_ITO)]
            axis.barh(places, own.fillna(0), height=0.72, color=colour)
            top = max(float(own.max()) if own.notna().any() else 0.0, 1.0)
            for place, value in zip(places, own, strict=True):
                if not math.isnan(value):
                    end = value + 0.02 * top
                    axis.text(end, place, f"{int(value):,}", va="center", fontsize=8)
            axis.set_xlim(0, 1.3 * top)
            axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axis.set_title(textwrap.fill(str(selection), 30))
            axis.set_yticks(places, [_named(lang, names) for lang in langs])
            axis.set_xlabel("neurons")
            axis.tick_params(axis="y", length=0)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylim(len(langs) - 0.4, -0.6)


def draw_overlap(
    table: "NeuronTable",
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    families: Mapping[str, str] | None = None,
) -> None:
    """Draw how many neurons two languages share (diagonal: their own) and the Jaccard index.

    With `families` languages stand by family, in the order of each family's first language, lines
    between them.
    """
    langs = [lang for lang in order if lang in table.languages]
    if families is not None:
        langs, borders = by_family(langs, families)
    shared = table.overlap().loc[langs, langs]
    jaccard = 100 * table.jaccard().loc[langs, langs].to_numpy(np.float64)
    np.fill_diagonal(jaccard, np.nan)
    jaccard = pd.DataFrame(jaccard, langs, langs)
    side, cmap = max(2.4, _side(len(langs))), _cmap("cividis")
    highest = np.nanmax(jaccard.to_numpy(), initial=0.0)
    with _canvas(stem, 2 * side + 2.6, side + 0.75, title) as figure:
        axes = _panels(figure, 1, 2, 2)
        norm = PowerNorm(0.5, 0, max(1, int(shared.to_numpy().max(initial=0))))
        text = shared.map(str).to_numpy() if _numbered(shared) else None
        _heat_map(axes[0], shared, cmap, norm, text)
        axes[0].set_title("Shared neurons (diagonal: own)")
        bar = _bar(figure, axes[0], cmap, norm, "neurons (square-root scale)")
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        norm = Normalize(0, highest if highest > 0 else 1.0)
        text = jaccard.map(lambda one: "" if math.isnan(one) else f"{one:.1f}").to_numpy()
        text = text if _numbered(jaccard) else None
        _heat_map(axes[1], jaccard, cmap, norm, text)
        axes[1].set_title("Jaccard index: shared / union, in %")
        _bar(figure, axes[1], cmap, norm, "Jaccard index (%)")
        for axis in axes if families is not None else ():
            _separate(axis, langs, borders, families)


def by_family(langs: Sequence[str], families: Mapping[str, str]) -> tuple[list[str], list[int]]:
    """Return languages grouped by family, and the places at which a new family begins.

    Families follow the order of their first language; a language of no family stands alone.
    """
    groups: dict[str, list[str]] = {}
    for lang in langs:
        groups.setdefault(families.get(lang) or f"({lang})", []).append(lang)
    starts = np.cumsum([len(members) for members in groups.values()])[:-1]
    return [lang for members in groups.values() for lang in members], starts.tolist()


def _separate(
    axis: Axes, langs: Sequence[str], borders: Sequence[int], families: Mapping[str, str]
) -> None:
    """Draw lines between families, and their names above the columns."""
    for border in borders:
        axis.axvline(border - 0.5, color="black", linewidth=1.4)
        axis.axhline(border - 0.5, color="black", linewidth=1.4)
    edges = [0, *borders, len(langs)]
    above = axis.secondary_xaxis("top")
    places = [(first + last - 1) / 2 for first, last in zip(edges, edges[1:], strict=False)]
    names = [families.get(langs[first]) or langs[first] for first in edges[:-1]]
    above.set_xticks(places, names, rotation=90, fontsize=7.5)
    above.tick_params(length=0)
    above.spines[:].set_visible(False)


def draw_layers(
    table: "NeuronTable",
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw neurons per layer and language, and above it the distinct neurons of each layer."""
    langs = [lang for lang in order if lang in table.languages]
    counts = table.layer_counts().loc[langs]
    distinct = table.frame.drop_duplicates(["layer", "neuron"])["layer"].value_counts()
    distinct = distinct.reindex(range(table.n_layers), fill_value=0)
    cmap, norm = _cmap("cividis"), Normalize(0, max(1, int(counts.to_numpy().max(initial=0))))
    numbered = _numbered(counts)
    across = table.n_layers * (CELL if numbered else max(0.13, min(0.24, 9 / table.n_layers)))
    below = max(0.9, len(langs) * 0.27)
    counts.index = [_named(lang, names) for lang in langs]
    with _canvas(stem, max(2.5, across) + 2.8, below + 1.9, title) as figure:
        profile, axis = figure.subplots(2, 1, sharex=True, height_ratios=[1.0, below])
        profile.bar(range(table.n_layers), distinct, width=0.8, color="0.45")
        profile.set_ylabel("distinct\nneurons")
        profile.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        profile.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        profile.set_ylim(0, max(1, 1.08 * distinct.max()))
        _plain(profile, "y")
        text = counts.map(str).to_numpy() if numbered else None
        _heat_map(axis, counts, cmap, norm, text)
        profile.tick_params(axis="x", which="both", length=0, labelbottom=False)
        step = 1 if numbered else max(1, math.ceil(table.n_layers / 16))
        ticks = list(range(0, table.n_layers, step))
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.tick_params(axis="x", labelrotation=0)
        axis.set_xlabel("layer (0 is nearest to the input)")
        bar = _bar(figure, axis, cmap, norm, "neurons")
        bar.locator = MaxNLocator(5, integer=True)
        bar.update_ticks()


# Centres of the circles and of the regions, keyed by membership (first, second, third).
_CIRCLES = ((-0.52, 0.3), (0.52, 0.3), (0.0, -0.6))
_REGIONS = {
    (1, 0, 0): (-0.98, 0.5),
    (0, 1, 0): (0.98, 0.5),
    (0, 0, 1): (0.0, -1.15),
    (1, 1, 0): (0.0, 0.68),
    (1, 0, 1): (-0.58, -0.34),
    (0, 1, 1): (0.58, -0.34),
    (1, 1, 1): (0.0, 0.0),
}


def venn_counts(masks: Sequence[np.ndarray]) -> dict[tuple[int, int, int], int]:
    """Return how many neurons lie in each of the seven regions of three sets."""
    code = sum(mask.astype(np.int64) << place for place, mask in enumerate(masks))
    found = np.bincount(np.ravel(code), minlength=8)
    return {key: int(found[key[0] + 2 * key[1] + 4 * key[2]]) for key in _REGIONS}


def draw_venn(
    table: "NeuronTable",
    triples: Sequence[Sequence[str]],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw one panel per triple of languages: counts in the seven regions of three circles."""
    if not triples:
        raise ValueError("no triples of languages to draw; name them under results.venn")
    rows, columns = _grid(len(triples), 4)
    note = "Numbers are neurons; areas are not to scale."
    with _canvas(stem, max(3.6, 2.9 * columns), 2.9 * rows, title, note) as figure:
        for axis, triple in zip(_panels(figure, rows, columns, len(triples)), triples, strict=True):
            masks = [table.mask(lang) for lang in triple]
            for lang, mask, (x, y), colour in zip(
                triple, masks, _CIRCLES, OKABE_ITO[:3], strict=True
            ):
                axis.add_patch(Circle((x, y), 0.9, color=colour, alpha=0.22, linewidth=0))
                axis.add_patch(Circle((x, y), 0.9, fill=False, edgecolor=colour, linewidth=1.2))
                label = f"{_named(lang, names)}\n{int(mask.sum()):,}"
                place = (x * 1.75, 1.24) if y > 0 else (0.0, -1.55)
                up = "bottom" if y > 0 else "top"
                axis.text(*place, label, ha="center", va=up, fontsize=8.5, color=colour)
            for key, number in venn_counts(masks).items():
                axis.text(*_REGIONS[key], f"{number:,}", ha="center", va="center", fontsize=8.5)
            axis.set(xlim=(-1.75, 1.75), ylim=(-2.15, 1.85), aspect="equal")
            axis.axis("off")


# Perplexity ------------------------------------------------------------------------------------


def change_norm(values: np.ndarray, ratios: bool = False) -> Normalize:
    """Return a colour scale symmetric about 0; symmetric-logarithmic where the range is wide.

    Wide: the largest change exceeds ten times the median of the changes that are not tiny. With
    `ratios` (changes that grow by factors, as of perplexity) all four decades are told apart.
    """
    sizes = np.abs(values[np.isfinite(values)])
    limit = float(sizes.max(initial=0.0))
    if limit == 0:
        return Normalize(-1.0, 1.0)
    large = sizes[sizes > limit * 1e-4]
    typical = float(np.median(large))
    if limit <= 10 * typical:
        return Normalize(-limit, limit)
    # Linear, thus pale, up to the decade of the typical change; at most four decades above.
    lowest = math.ceil(math.log10(limit)) - 4
    threshold = 10.0 ** (lowest if ratios else max(math.ceil(math.log10(typical)), lowest))
    return SymLogNorm(min(threshold, limit / 2), linscale=1.0, vmin=-limit, vmax=limit, base=10)


def _change_ticks(norm: Normalize) -> list[float] | None:
    if not isinstance(norm, SymLogNorm):
        return None
    low = math.ceil(math.log10(norm.linthresh) - 1e-9)
    high = math.floor(math.log10(norm.vmax) + 1e-9)
    positive = [10.0**power for power in range(low, high + 1)] or [norm.linthresh]
    return [-tick for tick in reversed(positive)] + [0.0] + positive


def draw_perplexity(
    panels: Sequence[tuple[str, pd.DataFrame]],
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    alpha: float = 0.05,
    value: str = "nll_change",
) -> None:
    """Draw the change of NLL or of perplexity, rows deactivated and columns evaluated.

    A panel is a title and cells as `tables.perplexity_change` returns them; all share one scale.
    `value` is nll_change (cross-entropy) or ppl_change.
    """
    frames = [(name, matrix(cells, value, order)) for name, cells in panels]
    weak = [~(matrix(cells, "p_holm", order).to_numpy() < alpha) for _, cells in panels]
    values = np.concatenate([frame.to_numpy().ravel() for _, frame in frames])
    cmap, norm = _cmap("PuOr_r"), change_norm(values, value == "ppl_change")
    across = max(2.6, _side(max(frame.shape[1] for _, frame in frames)))
    down = max(2.0, _side(max(frame.shape[0] for _, frame in frames)) * 0.8)
    rows, columns = _grid(len(frames), max(1, int(21 // (across + 0.6))))
    note = f"Grey italics: not significant (bootstrap over documents, Holm, level {alpha:g})."
    note = note if any(_numbered(frame) for _, frame in frames) else ""
    size = (columns * (across + 0.6) + 1.2, rows * (down + 0.8))
    with _canvas(stem, *size, title, note) as figure:
        axes = _panels(figure, rows, columns, len(frames))
        for number, (axis, (name, frame)) in enumerate(zip(axes, frames, strict=True)):
            text = frame.map(_short).to_numpy() if _numbered(frame) else None
            _heat_map(axis, frame, cmap, norm, text, weak[number])
            axis.set_title(textwrap.fill(str(name), max(24, int(across * 11))))
            axis.set_xlabel("evaluated language")
            if number % columns == 0:
                axis.set_ylabel("language whose neurons are overwritten")
        shown = {
            "nll_change": "change of NLL (nats per token)",
            "ppl_change": "change of perplexity",
        }
        bar = _bar(figure, axes, cmap, norm, shown[value])
        ticks = _change_ticks(norm)
        if ticks is not None:
            bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
            bar.ax.yaxis.set_major_formatter(
                FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))
            )
            bar.ax.yaxis.set_minor_locator(NullLocator())


# Language Steering Shift -----------------------------------------------------------------------


def draw_lss(
    panels: Sequence[tuple[str, pd.DataFrame]], title: str, stem: str | os.PathLike
) -> None:
    """Draw LSS in 0..1, rows base languages and columns target languages, a panel per selection.

    A panel is a title and a frame base x target (`lss_tables.matrix`); NaN cells stay grey.
    """
    cmap, norm = _cmap("cividis"), Normalize(0.0, 1.0)
    across = max(2.6, _side(max(frame.shape[1] for _, frame in panels)))
    down = max(2.0, _side(max(frame.shape[0] for _, frame in panels)) * 0.8)
    rows, columns = _grid(len(panels), max(1, int(21 // (across + 0.6))))
    with _canvas(stem, columns * (across + 0.6) + 1.2, rows * (down + 0.8), title) as figure:
        axes = _panels(figure, rows, columns, len(panels))
        for number, (axis, (name, frame)) in enumerate(zip(axes, panels, strict=True)):
            text = frame.map(_short).to_numpy() if _numbered(frame) else None
            _heat_map(axis, frame, cmap, norm, text)
            axis.set_title(textwrap.fill(str(name), max(24, int(across * 11))))
            axis.set_xlabel("target: neurons that are overwritten")
            if number % columns == 0:
                axis.set_ylabel("base: language of the premise")
        _bar(figure, axes, cmap, norm, "share of facts that shift to the target (LSS)")


def draw_lss_factors(summary: pd.DataFrame, title: str, stem: str | os.PathLike) -> None:
    """Draw mean LSS of each intervention with its interval, one colour per selection.

    `summary` holds intervention, selection, lss, low, high: one row of each pair.
    """
    factors, selections = (
        list(dict.fromkeys(summary[key])) for key in ("intervention", "selection")
    )
    step = 0.76 / len(selections)
    height = 0.9 + len(factors) * max(0.3, 0.16 * len(selections) + 0.08)
    with _canvas(stem, 6.6, height, title) as figure:
        axis = figure.subplots()
        for place in range(0, len(factors), 2):
            axis.axhspan(place - 0.5, place + 0.5, color="0.96", zorder=0, linewidth=0)
        for number, selection in enumerate(selections):
            own = summary[summary["selection"] == selection].set_index("intervention")
            places = [factors.index(name) for name in own.index]
            offset = (number - (len(selections) - 1) / 2) * step
            colour, marker = OKABE_ITO[number % 7], MARKERS[number % 7]
            heights = np.asarray(places) + offset
            axis.hlines(heights, own["low"], own["high"], color=colour, linewidth=1.3)
            axis.plot(own["lss"], heights, marker, color=colour, markersize=5, label=str(selection))
        axis.set_yticks(range(len(factors)), factors)
        axis.set_ylim(len(factors) - 0.5, -0.5)
        axis.set_xlim(-0.02, 1.02)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("LSS, mean over base and target languages")
        _plain(axis)
        figure.legend(loc="outside right center", frameon=False, title="neurons")


# Generation -----------------------------------------------------------------------------------

CURVES = (
    ("mass_own", "prompt's language"),
    ("mass_target", "target"),
    ("mass_english", "English"),
    ("mass_others", "other languages of the set"),
)


def _percent(frame: pd.DataFrame) -> np.ndarray:
    return frame.map(lambda one: "" if math.isnan(one) else f"{one:.0f}").to_numpy()


def _matrix(pairs: pd.DataFrame, value: str, order: Sequence[str]) -> pd.DataFrame:
    """Return per cent, source (rows) x target (columns), in the given order."""
    wide = 100 * pairs.pivot(index="source", columns="target", values=value)
    rows = [lang for lang in order if lang in wide.index]
    return wide.loc[rows, [lang for lang in order if lang in wide.columns]]


def draw_forcing(
    selections: Sequence[tuple[str, pd.DataFrame]],
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
) -> None:
    """Draw success, success without degenerate answers, and the untouched model, by selection.

    One row of panels per selection; cells are per cent of answers in the target language.
    """
    values = (
        ("success", "in the target language"),
        ("intact", "the same, not degenerate"),
        ("baseline", "untouched model"),
    )
    frames = [
        (f"{name}: {what}", _matrix(pairs, value, order))
        for name, pairs in selections
        for value, what in values
    ]
    first = frames[0][1]
    across, down = max(2.4, _side(first.shape[1])), max(2.0, 0.8 * _side(first.shape[0]))
    size = (3 * (across + 0.6) + 1.2, len(selections) * (down + 1.0))
    colours, norm = _cmap("cividis"), Normalize(0, 100)
    note = "Per cent of answers. Diagonal: the language of the question itself is forced."
    with _canvas(stem, *size, title, note) as figure:
        axes = _panels(figure, len(selections), 3, len(frames))
        for number, (axis, (name, frame)) in enumerate(zip(axes, frames, strict=True)):
            numbered = max(frame.shape) <= MAX_NUMBERED
            _heat_map(axis, frame, colours, norm, _percent(frame) if numbered else None)
            axis.set_title(textwrap.fill(name, max(24, int(across * 9))))
            axis.set_xlabel("target language")
            if number % 3 == 0:
                axis.set_ylabel("language of the question")
        _bar(figure, axes, colours, norm, "answers in the target language (%)")


def draw_fallback(
    selections: Sequence[tuple[str, pd.DataFrame]],
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
    most: int = 12,
) -> None:
    """Draw which languages answers are in while more languages' neurons are overwritten.

    One panel per selection: steps (rows) x identified language (columns). Languages outside `order`
    are summed up, but for `most` in all.
    """
    frames = []
    for name, table in selections:
        wide = 100 * table.pivot(index="step", columns="language", values="share")
        first = table.drop_duplicates("step").set_index("step")
        known = [lang for lang in order if lang in wide]
        others = wide.drop(columns=known).max().sort_values(ascending=False, kind="stable")
        kept = [*known, *sorted(others.index[: max(0, most - len(known))])]
        shown = wide[kept].assign(rest=wide.drop(columns=kept).sum(axis=1))
        shown.index = [
            "untouched" if step == 0 else f"+ {_named(first.loc[step, 'added'], names)}"
            for step in wide.index
        ]
        shown["degenerate"] = 100 * first["degenerate"].to_numpy()
        frames.append((name, shown))
    widest = max(frame.shape[1] for _, frame in frames)
    tallest = max(frame.shape[0] for _, frame in frames)
    rows, columns = _grid(len(frames), max(1, int(18 // (_side(widest) + 1.8))))
    size = (columns * (_side(widest) + 1.8) + 0.9, rows * (0.32 * tallest + 1.5))
    colours, norm = _cmap("cividis"), Normalize(0, 100)
    note = (
        "Columns: identified language (und: no letter); the last is the share of degenerate ones."
    )
    with _canvas(stem, *size, title, note) as figure:
        axes = _panels(figure, rows, columns, len(frames))
        for axis, (name, frame) in zip(axes, frames, strict=True):
            _heat_map(axis, frame, colours, norm, _percent(frame))
            axis.set_title(name)
            axis.axvline(frame.shape[1] - 1.5, color="black", linewidth=1.2)
            axis.set_ylabel("neurons overwritten, cumulated")
        _bar(figure, axes, colours, norm, "share of answers (%)")


def draw_lens(
    layers: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw what the untouched model would say at each layer, a panel per prompt language.

    Curves: probability on tokens of the prompt's language, of English, of the set's others; dotted,
    on the right axis, the entropy in nats.
    """
    layers = layers[layers["target"] == BASELINE]
    langs = [lang for lang in order if lang in set(layers["lang"])]
    rows, columns = _grid(len(langs), 5)
    note = "Dotted, right axis: entropy in nats. Layer 0 is nearest to the input."
    with _canvas(stem, 2.7 * columns + 1.8, 2.3 * rows + 0.5, title, note) as figure:
        axes = _panels(figure, rows, columns, len(langs), sharex=True, sharey=True)
        highest = 1.05 * float(layers["entropy"].max())
        handles = []
        for place, (axis, lang) in enumerate(zip(axes, langs, strict=True)):
            own = layers[layers["lang"] == lang].sort_values("layer")
            handles = []
            for number, (key, label) in enumerate(CURVES):
                if key == "mass_target":
                    continue
                (line,) = axis.plot(
                    own["layer"],
                    own[key],
                    color=OKABE_ITO[number],
                    marker=MARKERS[number],
                    markersize=3,
                    label=label,
                )
                handles.append(line)
            _finish(axis, _named(lang, names))
            right = axis.twinx()
            (line,) = right.plot(
                own["layer"], own["entropy"], ":", color="0.35", label="entropy (right)"
            )
            handles.append(line)
            right.set_ylim(0, highest)
            right.spines["top"].set_visible(False)
            last = place % columns == columns - 1 or place == len(langs) - 1
            right.tick_params(labelright=last)
        figure.legend(handles=handles, loc="outside right center", frameon=False)


def draw_lens_change(
    layers: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw the same with (solid) and without (dashed) an intervention.

    One panel per selection and target, averaged over the prompts of the other languages.
    """
    touched = layers[layers["target"] != BASELINE]
    touched = touched[touched["lang"] != touched["target"]]
    plain_rows = layers[layers["target"] == BASELINE].set_index(["lang", "layer"])
    frames = []
    for (selection, target), part in touched.groupby(["selection", "target"], sort=False):
        before = plain_rows.loc[pd.MultiIndex.from_frame(part[["lang", "layer"]])]
        mean = part.groupby("layer")[["mass_own", "mass_target", "mass_english"]].mean()
        without = before.groupby(level="layer")[["mass_own", "mass_english"]].mean()
        frames.append((f"{selection}: {_named(target, names)}", mean, without))
    rows, columns = _grid(len(frames), 4)
    note = "Solid: neurons written; dashed: untouched. Mean over prompts of the other languages."
    with _canvas(stem, 3.1 * columns + 2.2, 2.5 * rows + 0.5, title, note) as figure:
        axes = _panels(figure, rows, columns, len(frames), sharex=True, sharey=True)
        for axis, (name, mean, without) in zip(axes, frames, strict=True):
            for number, (key, label) in enumerate(CURVES[:3]):
                colour = OKABE_ITO[number]
                axis.plot(mean.index, mean[key], color=colour, marker=MARKERS[number], markersize=3)
                axis.lines[-1].set_label(label)
                if key in without:
                    axis.plot(without.index, without[key], "--", color=colour, linewidth=1.0)
            _finish(axis, name)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False)


def _finish(axis: Axes, title: str) -> None:
    axis.set_title(title)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("layer")
    axis.set_ylabel("probability")
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _plain(axis, "y")
    axis.label_outer()


# Tasks and activations -------------------------------------------------------------------------


def draw_tasks(
    scores: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
    alpha: float = 0.05,
) -> None:
    """Draw differences to the untouched model with intervals, for one task.

    `scores` is what `tables.task_scores` returns (selections and interventions may be labels).
    One row of panels per metric and adapter, one column per selection, one colour per intervention;
    with more than `MAX_ADAPTERS` adapters a heat map per metric and language instead.
    """
    changed = scores[scores["intervention"] != BASELINE]
    if changed.empty:
        raise ValueError("no intervened condition among the task scores")
    several = changed["langset"].nunique() > 1
    column_of = changed["selection"].astype(str)
    if several:
        column_of = column_of + ", " + changed["langset"].astype(str)
    changed = changed.assign(column=column_of)
    if "adapter" not in changed:
        changed = changed.assign(adapter="base")
    heads, metrics, adapters, interventions = (
        list(dict.fromkeys(changed[key])) for key in ("column", "metric", "adapter", "intervention")
    )
    if len(adapters) > MAX_ADAPTERS:
        _draw_task_matrix(changed, order, title, stem, names, alpha)
        return
    lines = [(metric, adapter) for metric in metrics for adapter in adapters]
    langs = [lang for lang in order if lang in set(changed["lang"])]
    step = 0.76 / len(interventions)
    line = max(0.26, 0.13 * len(interventions) + 0.08)
    size = (1.9 + 3.0 * len(heads), len(lines) * (0.8 + line * len(langs)) + 0.4)
    note = (
        "Filled markers: significant after Holm over the task and metric "
        f"(level {alpha:g}). In parentheses: score of the untouched model."
    )
    with _canvas(stem, max(5.0, size[0]), size[1], title, note) as figure:
        axes = figure.subplots(len(lines), len(heads), squeeze=False, sharex="row", sharey="row")
        for row, (metric, adapter) in enumerate(lines):
            of_metric = changed[(changed["metric"] == metric) & (changed["adapter"] == adapter)]
            baseline = of_metric.groupby("lang")["baseline"].first()
            labels = [
                f"{_named(lang, names)}  ({baseline.get(lang, math.nan):.3f})" for lang in langs
            ]
            for column, head in enumerate(heads):
                axis = axes[row, column]
                axis.axvline(0, color="0.3", linewidth=0.8, zorder=1)
                for place in range(0, len(langs), 2):
                    axis.axhspan(place - 0.5, place + 0.5, color="0.96", zorder=0, linewidth=0)
                for number, intervention in enumerate(interventions):
                    own = of_metric[
                        (of_metric["column"] == head) & (of_metric["intervention"] == intervention)
                    ].set_index("lang")
                    offset = (number - (len(interventions) - 1) / 2) * step
                    _whiskers(axis, own, langs, offset, number, alpha)
                axis.set_yticks(range(len(langs)), labels)
                axis.tick_params(axis="y", length=0)
                axis.xaxis.set_major_locator(MaxNLocator(3))
                axis.set_xlabel(f"difference in {metric.replace('_', ' ')}")
                if row == 0:
                    axis.set_title(textwrap.fill(head, 36))
                _plain(axis)
            axes[row, 0].set_ylim(len(langs) - 0.5, -0.5)
            if adapters != ["base"]:
                label = textwrap.fill(adapter, 18)
                axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
        handles = [
            Line2D(
                [], [], color=OKABE_ITO[k % 7], marker=MARKERS[k % 7], markersize=5, label=str(name)
            )
            for k, name in enumerate(interventions)
        ]
        figure.legend(
            handles=handles, loc="outside right center", frameon=False, title="intervention"
        )


def draw_targets(
    scores: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    alpha: float = 0.05,
) -> None:
    """Draw 100 x difference to the untouched model: evaluated (rows) x target languages.

    `scores` is what `tables.task_scores` returns, of one intervention and language set; the first
    metric is drawn, one panel per selection.
    """
    scores = scores[scores["metric"] == scores["metric"].iloc[0]]
    metric = scores["metric"].iloc[0].replace("_", " ")
    panels = []
    for selection, part in scores.groupby("selection", sort=False):
        wide, p = (
            part.pivot(index="lang", columns="target", values=value)
            for value in ("difference", "p_holm")
        )
        place = {"index": [lang for lang in order if lang in wide.index]}
        place["columns"] = [lang for lang in order if lang in wide.columns]
        wide, p = 100 * wide.reindex(**place), p.reindex(**place)
        panels.append((str(selection), wide, ~(p.to_numpy() < alpha)))
    cmap = _cmap("PuOr")
    norm = change_norm(np.concatenate([frame.to_numpy().ravel() for _, frame, _ in panels]))
    across = max(2.4, max(_side(frame.shape[1]) for _, frame, _ in panels))
    down = max(2.3, 0.8 * max(_side(frame.shape[0]) for _, frame, _ in panels))
    rows, columns = _grid(len(panels), max(1, int(21 // (across + 0.6))))
    note = (
        f"Points of {metric}. Grey italics: not significant (Holm over the task and metric, level"
        f" {alpha:g}). Framed: a language's own neurons."
    )
    size = (columns * (across + 0.6) + 1.4, rows * (down + 0.9))
    with _canvas(stem, *size, title, note) as figure:
        axes = _panels(figure, rows, columns, len(panels))
        for number, (axis, (name, frame, weak)) in enumerate(zip(axes, panels, strict=True)):
            text = None
            if _numbered(frame):
                text = frame.map(lambda one: "" if math.isnan(one) else f"{one:+.1f}")
                text = text.map(lambda one: one.replace("-", "\N{MINUS SIGN}")).to_numpy()
            _heat_map(axis, frame, cmap, norm, text, weak)
            for row, lang in enumerate(frame.index):
                if lang in frame.columns:
                    corner = (frame.columns.get_loc(lang) - 0.5, row - 0.5)
                    axis.add_patch(Rectangle(corner, 1, 1, fill=False, linewidth=1.3, zorder=3))
            axis.set_title(textwrap.fill(name, max(24, int(across * 11))))
            axis.set_xlabel("target: neurons that are overwritten")
            if number % columns == 0:
                axis.set_ylabel("evaluated language")
        _bar(figure, axes, cmap, norm, "difference to the untouched model (points)")


def draw_layer_curves(
    curves: pd.DataFrame,
    value: str,
    title: str,
    stem: str | os.PathLike,
    zero: float | None = None,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw curves over layers with their bands, one panel per `panel` if there is that column.

    `curves` holds curve, layers (such as 03 or 00-08), value, low, high; `zero` draws a line.
    """
    places = sorted(set(curves["layers"].dropna()))
    single = all("-" not in place for place in places)
    every = 1 if len(places) <= 18 or not single else 5
    curves = curves if "panel" in curves else curves.assign(panel="")
    panels = list(curves.groupby("panel", sort=False))
    names = list(dict.fromkeys(curves["curve"]))
    rows, columns = _grid(len(panels), 3)
    width = min(5.2, max(3.4, 0.2 * len(places) + 0.9))
    size = (columns * width + 1.9, rows * 2.9 + 0.4)
    with _canvas(os.path.splitext(stem)[0], *size, title) as figure:
        axes = _panels(figure, rows, columns, len(panels), sharey=True)
        for axis, (panel, own) in zip(axes, panels, strict=True):
            if zero is not None:
                axis.axhline(zero, color="0.3", linewidth=0.8, zorder=1)
            for number, name in enumerate(names):
                one = own[own["curve"] == name].set_index("layers").reindex(places)
                x, colour = np.arange(len(places)), OKABE_ITO[number % 7]
                low, high = (one[key].to_numpy(np.float64) for key in ("low", "high"))
                axis.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
                marker = MARKERS[number % 7]
                axis.plot(x, one["value"], marker, color=colour, markersize=3.5, linestyle="-")
            labels = [str(int(place)) if single else place for place in places]
            axis.set_xticks(range(0, len(places), every), labels[::every])
            axis.tick_params(axis="x", labelrotation=0 if single else 90)
            axis.set_xlabel("layer" if single else "layers")
            axis.set_title(textwrap.fill(str(panel), 40))
            if limits is not None:
                axis.set_ylim(*limits)
            _plain(axis, "y")
        for axis in axes[::columns]:
            axis.set_ylabel(value)
        handles = [
            Line2D([], [], color=OKABE_ITO[k % 7], marker=MARKERS[k % 7], markersize=4, label=name)
            for k, name in enumerate(names)
        ]
        figure.legend(handles=handles, loc="outside right center", frameon=False, title="neurons")


def _draw_task_matrix(
    changed: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None,
    alpha: float,
) -> None:
    """Draw differences to the untouched model, rows adapters and columns interventions."""
    interventions = list(dict.fromkeys(changed["intervention"]))
    metrics = list(dict.fromkeys(changed["metric"]))
    langs = [lang for lang in order if lang in set(changed["lang"])]
    several = changed.groupby("adapter")["column"].nunique() > 1
    rows = [
        f"{adapter} | {column}" if several[adapter] else adapter
        for adapter, column in zip(changed["adapter"], changed["column"], strict=True)
    ]
    changed = changed.assign(row=rows)
    cells = [(metric, lang) for metric in metrics for lang in langs]
    panels = []
    for metric, lang in cells:
        of = changed[(changed["metric"] == metric) & (changed["lang"] == lang)]
        kept = list(dict.fromkeys(of["row"]))
        wide = of.pivot(index="row", columns="intervention", values="difference")
        weak = of.pivot(index="row", columns="intervention", values="p_holm")
        place = {"index": kept, "columns": interventions}
        panels.append((100 * wide.reindex(**place), ~(weak.reindex(**place).to_numpy() < alpha)))
    cmap = _cmap("PuOr")
    norm = change_norm(np.concatenate([frame.to_numpy().ravel() for frame, _ in panels]))
    across = 0.44 * len(interventions)
    label = 0.062 * max(len(row) for row in rows)
    tall = [0.23 * len(frame) + 1.0 for frame, _ in panels]
    note = (
        f"Grey italics: not significant (Holm over the task and metric, level {alpha:g})."
        " Columns: interventions; rows: fine-tuned neurons, and whose are overwritten."
    )
    with _canvas(stem, across + label + 1.8, sum(tall) + 0.3, title, note) as figure:
        ratios = [len(frame) for frame, _ in panels]
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios).ravel()
        for axis, (metric, lang), (frame, weak) in zip(axes, cells, panels, strict=True):
            text = frame.map(lambda one: "" if math.isnan(one) else f"{one:+.1f}")
            text = text.map(lambda one: one.replace("-", "\N{MINUS SIGN}")).to_numpy()
            _heat_map(axis, frame, cmap, norm, text, weak)
            axis.set_title(f"{_named(lang, names)}: {metric.replace('_', ' ')}")
        _bar(figure, list(axes), cmap, norm, "difference to the untouched model (points)")


def _whiskers(
    axis: Axes, own: pd.DataFrame, langs: Sequence[str], offset: float, number: int, alpha: float
) -> None:
    colour, marker = OKABE_ITO[number % 7], MARKERS[number % 7]
    for place, lang in enumerate(langs):
        if lang not in own.index:
            continue
        one = own.loc[lang]
        y = place + offset
        ends = [one["difference_low"], one["difference_high"]]
        axis.plot(ends, [y, y], color=colour, linewidth=1.2, zorder=2, solid_capstyle="butt")
        fill = colour if one["p_holm"] < alpha else "white"
        axis.plot(
            one["difference"],
            y,
            marker,
            color=colour,
            markerfacecolor=fill,
            markersize=4.2,
            markeredgewidth=1.0,
            zorder=3,
        )


def draw_activations(
    frame: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw per language the ranges between quantiles and the mean, averaged over all neurons.

    `frame` is what `tables.activation_statistics` returns; one panel per model.
    """
    frame = frame if "model" in frame else frame.assign(model="")
    models = list(dict.fromkeys(frame["model"]))
    langs = [lang for lang in order if lang in set(frame["lang"])]
    site = str(frame["site"].iloc[0]) if "site" in frame else "activation"
    ranges = (("p05", "p95", 1.2, "5-95 %"), ("p10", "p90", 3.2, "10-90 %"))
    ranges = (*ranges, ("p25", "p75", 7.0, "25-75 %"))
    shades = ("#56B4E9", "#0072B2", "#003B5C")
    handles: list[Line2D] = []
    rows, columns = _grid(len(models), 3)
    size = (max(5.5, 2.6 + 3.0 * columns), rows * (0.8 + 0.25 * len(langs)) + 0.1)
    with _canvas(stem, *size, title) as figure:
        axes = _panels(figure, rows, columns, len(models), sharey=True)
        for axis, model in zip(axes, models, strict=True):
            own = frame[frame["model"] == model].set_index("lang").reindex(langs)
            places = np.arange(len(langs))
            handles = []
            for (low, high, width, name), shade in zip(ranges, shades, strict=True):
                # Quantiles that the statistics lack (a thin run) leave no range.
                if low not in own or high not in own:
                    continue
                lines = axis.hlines(places, own[low], own[high], color=shade, linewidth=width)
                lines.set_capstyle("butt")
                handles.append(Line2D([], [], color=shade, linewidth=width, label=name))
            axis.plot(
                own["mean"], places, "o", color="#E69F00", markeredgecolor="white", markersize=5.5
            )
            axis.axvline(0, color="0.3", linewidth=0.8, zorder=0)
            axis.set_yticks(places, [_named(lang, names) for lang in langs])
            axis.tick_params(axis="y", length=0)
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.set_xlabel(f"{site}, averaged over neurons")
            axis.set_title(textwrap.fill(str(model), 36) if len(models) > 1 else "")
            _plain(axis)
        axes[0].set_ylim(len(langs) - 0.4, -0.6)
        handles.append(
            Line2D([], [], color="#E69F00", marker="o", linestyle="", markersize=5.5, label="mean")
        )
        figure.legend(handles=handles, loc="outside right center", frameon=False)


def draw_curves(curves: Mapping[str, pd.DataFrame], title: str, stem: str | os.PathLike) -> None:
    """Draw loss and accuracy on the training rows over the steps, one line per adapter.

    `curves` by label are what `finetune.finetune` returns.
    """
    with _canvas(stem, 8.5, 3.2 + 0.12 * len(curves), title) as figure:
        axes = figure.subplots(1, 2)
        for axis, key in zip(axes, ("loss", "accuracy"), strict=True):
            for number, (label, frame) in enumerate(curves.items()):
                style = ("-", "--", ":")[number // 7 % 3]
                axis.plot(
                    frame["step"],
                    frame[key],
                    style,
                    color=OKABE_ITO[number % 7],
                    # Curves that coincide show as bands inside each other.
                    linewidth=1.3 + 0.7 * max(0, min(len(curves), 7) - 1 - number),
                    label=label,
                )
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.set_xlabel("step")
            axis.set_ylabel(f"training {key}")
            _plain(axis, "y")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=2)
