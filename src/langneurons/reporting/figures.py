"""Figures of the results as SVG and PNG.

Mondal et al. 2025 draw neurons per language (figures 2-7), pairwise overlap (8-13), layer x
language (14-19) and perplexity change (1, 20-24); their code also draws three-set Venn diagrams.
Gurgurov et al. 2025 draw overlap by language family, the success of language forcing as source x
target, the identified languages at every step of deactivation, and the logit lens by layer.
Every function takes values and a stem and writes stem.svg and stem.png; equal input gives equal
files. Counts are in cividis, changes in a diverging map centred at 0 (orange is worse), categories
in the colours of Okabe and Ito: all are told apart without colour vision. Numbers on colours have a
contrast of 4.5:1. Axes show names and codes, and every figure says of how many units its numbers
are. Labels are text, in any script (`lettering`).
"""

import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

from langneurons.base.io import atomic
from langneurons.reporting.lettering import FAMILY, letter, one_line
from langneurons.reporting.tables import BASELINE, expected_overlap, matrix, thin_evidence

if TYPE_CHECKING:
    from langneurons.selection.table import NeuronTable

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAX_ADAPTERS = 4  # adapters up to which task scores are drawn as points with intervals
MAX_NUMBERED = 21  # rows or columns up to which cells hold their numbers
CELL = 0.44  # inches, side of a numbered cell
STYLE = {
    "font.family": FAMILY,
    "text.parse_math": False,
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
        title, note = one_line(title), one_line(note)
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
        letter(figure)
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
    """Return name and code of a language; long ones in lines, so that panels keep their room."""
    name = one_line((names or {}).get(lang) or "")
    return textwrap.fill(f"{name} ({lang})" if name and name != lang else lang, 24)


def _room(labels: Iterable[object], most: int = 40, usual: int = 8) -> float:
    """Return the inches that the longest label takes beyond a usual one, in lines of `most`."""
    lines = (line for label in labels for line in textwrap.wrap(one_line(label), most))
    return 0.09 * max(0, max(map(len, lines), default=0) - usual)


def _with_names(frame: pd.DataFrame, names: Mapping[str, str] | None) -> pd.DataFrame:
    """Return a matrix of languages with names beside its codes; many columns keep their codes."""
    kept = frame.set_axis([_named(lang, names) for lang in frame.index], axis=0)
    if frame.shape[1] <= MAX_NUMBERED:
        kept = kept.set_axis([_named(lang, names) for lang in frame.columns], axis=1)
    return kept


def _head(text: object, width: int) -> str:
    """Return a panel's title, broken into lines of at most `width` characters."""
    return textwrap.fill(one_line(text), width)


def _units(numbers: Iterable[object], unit: str) -> str:
    """Return how many units numbers are of: `n = 16 documents`, or the range over languages."""
    found = sorted({int(one) for one in numbers if one == one})
    if not found:
        return ""
    plain = unit if found[-1] != 1 else unit.removesuffix("s")
    low, high = found[0], found[-1]
    return f"n = {low:,} {plain}" if low == high else f"n = {low:,} to {high:,} {plain}"


def _plain(axis: Axes, grid: str = "x") -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color="0.88", linewidth=0.6)
    axis.set_axisbelow(True)


def _short(value: float) -> str:
    """Return a change in at most five characters: 0.02, −0.13, 4.1, 57, 6.5k, 30k, 2.1M.

    From 1000 on in thousands, millions and so on; past 1e15 as a power of ten.
    """
    size = abs(value)
    if not math.isfinite(value):
        return "" if math.isnan(value) else "∞" if value > 0 else "−∞"
    for power, letter_ in ((15, None), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if size >= 999.5 * 10.0 ** (power - 3):
            if letter_ is None:
                text = f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
            else:
                part = value / 10.0**power
                text = f"{part:.{1 if abs(part) < 9.95 else 0}f}{letter_}"
            return text.replace("-", "−")
    text = f"{value:.{2 if size < 0.995 else 1 if size < 9.95 else 0}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _count_ticks(top: float, most: int = 5) -> list[int]:
    """Return whole numbers from 0 to `top`, at most about `most` of them, each once."""
    ticks = MaxNLocator(most, integer=True).tick_values(0, top)
    return sorted({int(tick) for tick in ticks if tick <= top and tick == int(tick)})


def _whole_ticks(axis, top: float, most: int = 5) -> None:
    """Put whole numbers on an axis of counts."""
    axis.set_major_locator(FixedLocator(_count_ticks(top, most)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_locator(NullLocator())


def _keys(labels: Sequence[object], size: float, line: bool = False) -> list[Line2D]:
    """Return a coloured marker for each label, in the order of the colours."""
    return [
        Line2D(
            [],
            [],
            color=OKABE_ITO[number % 7],
            marker=MARKERS[number % 7],
            markersize=size,
            linestyle="-" if line else "",
            label=one_line(label),
        )
        for number, label in enumerate(labels)
    ]


def _legend(figure: Figure, handles: Sequence, title: str = "", place: str = "", **more) -> None:
    """Draw a legend outside the panels; labels are text, whatever they begin with."""
    labels = [handle.get_label() for handle in handles]
    legend = figure.legend(
        handles=handles,
        labels=[f" {label}" if label.startswith("_") else label for label in labels],
        loc=place or "outside right center",
        frameon=False,
        title=title or None,
        **more,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(textwrap.fill(label, 40))


# Heat maps -------------------------------------------------------------------------------------


def luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2)."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _ink(cmap: Colormap, norm: Normalize, value: float) -> str:
    """Return black or white, whichever stands out more: at least 4.58:1 on any colour."""
    light = luminance(cmap(norm(value)))
    return "black" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "white"


def _heat_map(
    axis: Axes,
    frame: pd.DataFrame,
    cmap: Colormap,
    norm: Normalize,
    text: np.ndarray | None = None,
    weak: np.ndarray | None = None,
) -> None:
    """Draw a frame as cells with its index and columns as labels; `text` fills the cells.

    With `weak` (bool), cells that are not weak are bold, and weak ones in italics.
    """
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
        face = {}
        if weak is not None:
            face = {"fontstyle": "italic"} if weak[row, column] else {"fontweight": "bold"}
        bad = values.mask is not np.ma.nomask and np.ma.getmaskarray(values)[row, column]
        axis.text(
            column,
            row,
            label,
            ha="center",
            va="center",
            fontsize=8,
            color="black" if bad else _ink(cmap, norm, values[row, column]),
            **face,
        )


def _cmap(name: str) -> Colormap:
    return matplotlib.colormaps[name].with_extremes(bad="0.9")


def _numbered(frame: pd.DataFrame) -> bool:
    return max(frame.shape) <= MAX_NUMBERED


def _side(n: int) -> float:
    """Return the inches that n rows or columns of a heat map take."""
    return n * (CELL if n <= MAX_NUMBERED else 0.24)


def _bar(figure: Figure, axes, cmap: Colormap, norm: Normalize, label: str, extend="neither"):
    mappable = ScalarMappable(norm=norm, cmap=cmap)
    label = "\n".join(textwrap.fill(line, 40) for line in label.split("\n"))
    bar = figure.colorbar(
        mappable, ax=axes, label=label, fraction=0.05, pad=0.02, aspect=30, extend=extend
    )
    bar.outline.set_linewidth(0.4)
    return bar


# Neurons ---------------------------------------------------------------------------------------


def draw_neurons(
    counts: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
    note: str = "",
) -> None:
    """Draw neurons per language, bars with their values, one group of bars per selection.

    `counts` has lang, selection, neurons. Groups have their own scale: selections differ in size
    by orders of magnitude. `note` says of how many tokens they were selected (`read_on`).
    """
    selections = list(dict.fromkeys(counts["selection"]))
    langs = [lang for lang in order if lang in set(counts["lang"])]
    rows, columns = _grid(len(selections), 4)
    width, height = 1.4 + 2.5 * columns, rows * (0.75 + 0.24 * len(langs))
    with _canvas(stem, max(4.5, width), height, title, note) as figure:
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
            _whole_ticks(axis.xaxis, top, 3)
            axis.set_title(_head(selection, 30))
            axis.set_yticks(places, [_named(lang, names) for lang in langs])
            axis.set_xlabel("neurons")
            axis.tick_params(axis="y", length=0)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylim(len(langs) - 0.4, -0.6)


def read_on(table: "NeuronTable") -> str:
    """Return on how many tokens per language the neurons of a table were selected."""
    tokens = table.metadata.get("tokens") or {}
    return (
        f"Selected on text of {_units(tokens.values(), 'tokens')} per language." if tokens else ""
    )


def draw_overlap(
    table: "NeuronTable",
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    families: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw how many neurons two languages share (diagonal: their own) and the Jaccard index.

    A third panel sets the shared ones beside chance: how many two random sets with as many neurons
    in each layer share. With `families` languages stand by family, in the order of each family's
    first language, lines between them.
    """
    langs = [lang for lang in order if lang in table.languages]
    if families is not None:
        langs, borders = by_family(langs, families)
    shared = table.overlap().loc[langs, langs]
    jaccard = 100 * table.jaccard().loc[langs, langs].to_numpy(np.float64)
    np.fill_diagonal(jaccard, np.nan)
    jaccard = pd.DataFrame(jaccard, langs, langs)
    chance = expected_overlap(table).loc[langs, langs].to_numpy(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(chance > 0, shared.to_numpy(np.float64) / chance, np.nan)
    np.fill_diagonal(times, np.nan)
    side, cmap = max(2.4, _side(len(langs))), _cmap("cividis")
    pairs = chance[~np.eye(len(langs), dtype=bool)]
    note = read_on(table)
    if pairs.size:
        note += (
            f" Chance: random sets with as many neurons in each layer share {_short(pairs.min())}"
            f" to {_short(pairs.max())}, {_short(pairs.mean())} on average."
        )
    top = max(1, int(shared.to_numpy().max(initial=0)))
    highest = np.nanmax(jaccard.to_numpy(), initial=0.0)
    most = np.nanmax(np.where(np.isfinite(times), times, np.nan), initial=0.0)
    panels = (
        (shared, PowerNorm(0.5, 0, top), str, "Shared neurons (diagonal: own)"),
        (
            jaccard,
            Normalize(0, highest if highest > 0 else 1.0),
            lambda one: "" if math.isnan(one) else f"{one:.1f}",
            "Jaccard index: shared / union, in %",
        ),
        (
            pd.DataFrame(times, langs, langs),
            PowerNorm(0.5, 0, max(1.0, most)),
            _short,
            "Shared, in multiples of chance",
        ),
    )
    bars = ("neurons (square-root scale)", "Jaccard index (%)", "times chance (square-root scale)")
    with _canvas(stem, 3 * side + 5.6, side + 1.4, title, note) as figure:
        axes = _panels(figure, 1, 3, 3)
        for axis, (frame, norm, shown, head), label in zip(axes, panels, bars, strict=True):
            text = frame.map(shown).to_numpy() if _numbered(frame) else None
            _heat_map(axis, _with_names(frame, names), cmap, norm, text)
            axis.set_title(head)
            bar = _bar(figure, axis, cmap, norm, label)
            if frame is not jaccard:
                _whole_ticks(bar.ax.yaxis, norm.vmax)
        for axis in axes[1:]:
            axis.tick_params(labelleft=False)
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
    with _canvas(stem, max(2.5, across) + 2.8, below + 1.9, title, read_on(table)) as figure:
        profile, axis = figure.subplots(2, 1, sharex=True, height_ratios=[1.0, below])
        profile.bar(range(table.n_layers), distinct, width=0.8, color="0.45")
        profile.set_ylabel("distinct\nneurons")
        _whole_ticks(profile.yaxis, max(1, distinct.max()), 3)
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
        _whole_ticks(bar.ax.yaxis, norm.vmax)


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
    note = f"Numbers are neurons; areas are not to scale. {read_on(table)}"
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
                axis.text(*place, label, ha="center", va=up, fontsize=8.5)
            for key, number in venn_counts(masks).items():
                axis.text(*_REGIONS[key], f"{number:,}", ha="center", va="center", fontsize=8.5)
            axis.set(xlim=(-1.75, 1.75), ylim=(-2.15, 1.85), aspect="equal")
            axis.axis("off")


# Perplexity ------------------------------------------------------------------------------------


def change_norm(values: np.ndarray, ratios: bool = False) -> tuple[Normalize, str]:
    """Return a colour scale symmetric about 0, and at which ends values lie beyond it.

    Few cells (5 %) that are more than four times the next largest do not stretch the scale: they
    have the colour of its end (`extend` of a colour bar: neither, min, max or both). With `ratios`
    (changes that grow by factors, as of perplexity) the scale is symmetric-logarithmic where the
    largest change exceeds ten times the median of those that are not tiny; four decades are told
    apart.
    """
    finite = values[np.isfinite(values)]
    sizes = np.sort(np.abs(finite))[::-1]
    limit = float(sizes[0]) if len(sizes) else 0.0
    if limit == 0:
        return Normalize(-1.0, 1.0), "neither"
    for place in range(min(max(1, len(sizes) // 20), len(sizes) - 1)):
        if sizes[place] > 4 * sizes[place + 1] > 0:
            limit = float(sizes[place + 1])
    ends = bool(finite.min() < -limit), bool(finite.max() > limit)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max"}
    found = extend.get(ends, "both")
    inside = sizes[(sizes <= limit) & (sizes > limit * 1e-4)]
    if ratios and limit > 10 * float(np.median(inside)):
        threshold = min(10.0 ** (math.ceil(math.log10(limit)) - 4), limit / 2)
        return SymLogNorm(threshold, linscale=1.0, vmin=-limit, vmax=limit, base=10), found
    return Normalize(-limit, limit), found


def _change_ticks(norm: Normalize) -> list[float] | None:
    if not isinstance(norm, SymLogNorm):
        return None
    low = math.ceil(math.log10(norm.linthresh) - 1e-9)
    high = math.floor(math.log10(norm.vmax) + 1e-9)
    positive = [10.0**power for power in range(low, high + 1)] or [norm.linthresh]
    return [-tick for tick in reversed(positive)] + [0.0] + positive


def _described_scale(norm: Normalize, extend: str) -> str:
    """Return what a reader must know of a scale of changes; "" of a plain one."""
    found = []
    if isinstance(norm, SymLogNorm):
        found.append(f"symmetric-log scale, linear within ±{_short(norm.linthresh)}")
    if extend != "neither":
        found.append(f"cells beyond ±{_short(norm.vmax)} have the colour of the end")
    return "; ".join(found)


def draw_perplexity(
    panels: Sequence[tuple[str, pd.DataFrame]],
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    results: Mapping[str, float],
    value: str = "nll_change",
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw the change of NLL or of perplexity, rows deactivated and columns evaluated.

    A panel is a title and cells as `tables.perplexity_change` returns them; all share one scale.
    `value` is nll_change (cross-entropy) or ppl_change; `results` holds alpha and confidence.
    """
    alpha = results["alpha"]
    frames = [(name, matrix(cells, value, order)) for name, cells in panels]
    weak = [~(matrix(cells, "p_holm", order).to_numpy() < alpha) for _, cells in panels]
    values = np.concatenate([frame.to_numpy().ravel() for _, frame in frames])
    cmap, (norm, extend) = _cmap("PuOr_r"), change_norm(values, value == "ppl_change")
    across = max(2.6, _side(max(frame.shape[1] for _, frame in frames)))
    down = max(2.0, _side(max(frame.shape[0] for _, frame in frames)) * 0.8)
    rows, columns = _grid(len(frames), max(1, int(21 // (across + 0.6))))
    documents = [one for _, cells in panels for one in cells["documents"]]
    note = f"Held-out text, {_units(documents, 'documents')} per language."
    if any(_numbered(frame) for _, frame in frames):
        found = [int((~one).sum()) for one in weak]
        note += (
            f" Bold: different from 0 (paired t over documents, Holm over a panel, level {alpha:g}:"
            f" {', '.join(map(str, found))} of {weak[0].size} cells); italics: not."
        )
    few = {name: thin_evidence(cells, alpha, "documents", ()) for name, cells in panels}
    for text in dict.fromkeys(text for texts in few.values() for text in texts):
        named = ", ".join(str(name) for name, texts in few.items() if text in texts)
        note += f" {named}: {text[0].lower()}{text[1:]}"
    size = (columns * (across + 0.6) + 2.4, rows * (down + 1.6))
    with _canvas(stem, *size, title, note) as figure:
        axes = _panels(figure, rows, columns, len(frames))
        for number, (axis, (name, frame)) in enumerate(zip(axes, frames, strict=True)):
            text = frame.map(_short).to_numpy() if _numbered(frame) else None
            _heat_map(axis, _with_names(frame, names), cmap, norm, text, weak[number])
            axis.set_title(_head(name, max(24, int(across * 11))))
            axis.set_xlabel("evaluated language")
            if number % columns == 0:
                axis.set_ylabel("language whose neurons are overwritten")
            else:
                axis.tick_params(labelleft=False)
        shown = {
            "nll_change": "change of NLL (nats per token)",
            "ppl_change": "change of perplexity",
        }
        scale = _described_scale(norm, extend)
        label = f"{shown[value]}\n{scale}" if scale else shown[value]
        bar = _bar(figure, axes, cmap, norm, label, extend)
        ticks = _change_ticks(norm)
        if ticks is not None:
            bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
            bar.ax.yaxis.set_minor_locator(NullLocator())


# Language Steering Shift -----------------------------------------------------------------------


def draw_lss(
    panels: Sequence[tuple[str, pd.DataFrame]],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
    facts: Iterable[object] = (),
) -> None:
    """Draw LSS in 0..1, rows base languages and columns target languages, a panel per selection.

    A panel is a title and a frame base x target (`lss_tables.matrix`); NaN cells stay grey. `facts`
    holds the number of facts of the cells.
    """
    cmap, norm = _cmap("cividis"), Normalize(0.0, 1.0)
    across = max(2.6, _side(max(frame.shape[1] for _, frame in panels)))
    down = max(2.0, _side(max(frame.shape[0] for _, frame in panels)) * 0.8)
    rows, columns = _grid(len(panels), max(1, int(21 // (across + 0.6))))
    counts = _units((one for one in facts if one), "facts")
    note = f"{counts} per cell." if counts else ""
    size = (columns * (across + 0.6) + 2.4, rows * (down + 1.6))
    with _canvas(stem, *size, title, note) as figure:
        axes = _panels(figure, rows, columns, len(panels))
        for number, (axis, (name, frame)) in enumerate(zip(axes, panels, strict=True)):
            text = frame.map(_short).to_numpy() if _numbered(frame) else None
            _heat_map(axis, _with_names(frame, names), cmap, norm, text)
            axis.set_title(_head(name, max(24, int(across * 11))))
            axis.set_xlabel("target: neurons that are overwritten")
            if number % columns == 0:
                axis.set_ylabel("base: language of the premise")
        _bar(figure, axes, cmap, norm, "share of facts that shift to the target (LSS)")


def draw_lss_factors(
    summary: pd.DataFrame, title: str, stem: str | os.PathLike, confidence: float = 0.95
) -> None:
    """Draw mean LSS of each intervention with its interval, one colour per selection.

    `summary` holds intervention, selection, lss, low, high, facts: one row of each pair.
    """
    factors, selections = (
        list(dict.fromkeys(summary[key])) for key in ("intervention", "selection")
    )
    step = 0.76 / len(selections)
    height = 0.9 + len(factors) * max(0.3, 0.16 * len(selections) + 0.08)
    note = f"Lines: {confidence:.0%} intervals over facts, {_units(summary['facts'], 'facts')}."
    width = 6.6 + _room(selections) + _room(factors, 400)
    with _canvas(stem, width, height, title, note) as figure:
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
            axis.plot(own["lss"], heights, marker, color=colour, markersize=5)
        axis.set_yticks(range(len(factors)), [one_line(one) for one in factors])
        axis.set_ylim(len(factors) - 0.5, -0.5)
        axis.set_xlim(-0.02, 1.02)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("LSS, mean over base and target languages")
        _plain(axis)
        _legend(figure, _keys(selections, 5), "neurons")


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
    names: Mapping[str, str] | None = None,
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
    size = (3 * (across + 0.6) + 2.4, len(selections) * (down + 1.8))
    colours, norm = _cmap("cividis"), Normalize(0, 100)
    asked = _units((one for _, pairs in selections for one in pairs["n"]), "questions")
    note = (
        f"Per cent of answers, {asked} per cell. Diagonal: the question's own language is forced."
    )
    with _canvas(stem, *size, title, note) as figure:
        axes = _panels(figure, len(selections), 3, len(frames))
        for number, (axis, (name, frame)) in enumerate(zip(axes, frames, strict=True)):
            text = _percent(frame) if _numbered(frame) else None
            _heat_map(axis, _with_names(frame, names), colours, norm, text)
            axis.set_title(_head(name, max(24, int(across * 9))))
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
    size = (columns * (_side(widest) + 1.8) + 0.9, rows * (0.32 * tallest + 2.2))
    colours, norm = _cmap("cividis"), Normalize(0, 100)
    answers = _units((one for _, table in selections for one in table["n"]), "answers")
    note = (
        f"{answers} per row. Columns: identified language (und: no letter); the last is the share"
        " of degenerate ones."
    )
    with _canvas(stem, *size, title, note) as figure:
        axes = _panels(figure, rows, columns, len(frames))
        for axis, (name, frame) in zip(axes, frames, strict=True):
            shown = frame.set_axis([_named(lang, names) for lang in frame.columns], axis=1)
            _heat_map(axis, shown, colours, norm, _percent(frame))
            axis.set_title(_head(name, 40))
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
    note = (
        f"Means over {_units(layers['prompts'], 'prompts')} per language. Dotted, right axis:"
        " entropy in nats. Layer 0 is nearest to the input."
    )
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
        _legend(figure, handles)


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
    prompts = _units(touched.groupby(["selection", "target", "layer"])["prompts"].sum(), "prompts")
    note = (
        "Solid: neurons written; dashed: untouched. Means over the prompts of the other languages,"
        f" {prompts}."
    )
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
        _legend(figure, axes[0].get_legend_handles_labels()[0])


def _finish(axis: Axes, title: str) -> None:
    axis.set_title(_head(title, 36))
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
    confidence: float = 0.95,
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
    width = 1.9 + 3.0 * len(heads) + _room(interventions)
    width += _room((_named(lang, names) for lang in langs), 24, 14)
    size = (width, len(lines) * (0.8 + line * len(langs)) + 0.4)
    note = (
        f"Lines: {confidence:.0%} intervals over items, {_units(changed['n'], 'items')} per"
        f" language. Filled markers: significant after Holm over the task and metric (level"
        f" {alpha:g}). In parentheses: score of the untouched model."
    )
    for few in thin_evidence(scores, alpha, "items", ("metric",)):
        note += f" {few}"
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
                    axis.set_title(_head(head, 36))
                _plain(axis)
            axes[row, 0].set_ylim(len(langs) - 0.5, -0.5)
            if adapters != ["base"]:
                label = _head(adapter, 18)
                axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
        _legend(figure, _keys(interventions, 5, line=True), "intervention")


def draw_targets(
    scores: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    alpha: float = 0.05,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw 100 x difference to the untouched model: evaluated (rows) x target languages.

    `scores` is what `tables.task_scores` returns, of one intervention and language set; the first
    metric is drawn, one panel per selection, and per adapter where there are several.
    """
    scores = scores[scores["metric"] == scores["metric"].iloc[0]]
    metric = scores["metric"].iloc[0].replace("_", " ")
    panels = []
    keys = ["selection"]
    if "adapter" in scores and scores["adapter"].nunique() > 1:
        keys = ["adapter", "selection"]
    for named, part in scores.groupby(keys, sort=False):
        selection = ", ".join(map(str, named))
        wide, p = (
            part.pivot(index="lang", columns="target", values=value)
            for value in ("difference", "p_holm")
        )
        place = {"index": [lang for lang in order if lang in wide.index]}
        place["columns"] = [lang for lang in order if lang in wide.columns]
        wide, p = 100 * wide.reindex(**place), p.reindex(**place)
        panels.append((selection, wide, ~(p.to_numpy() < alpha)))
    cmap = _cmap("PuOr")
    values = np.concatenate([frame.to_numpy().ravel() for _, frame, _ in panels])
    norm, extend = change_norm(values)
    across = max(2.4, max(_side(frame.shape[1]) for _, frame, _ in panels))
    down = max(2.3, 0.8 * max(_side(frame.shape[0]) for _, frame, _ in panels))
    rows, columns = _grid(len(panels), max(1, int(21 // (across + 0.6))))
    note = (
        f"Points of {metric}, {_units(scores['n'], 'items')} per language. Bold: significant (Holm"
        f" over the task and metric, level {alpha:g}); italics: not. Framed: a language's own"
        " neurons."
    )
    for few in thin_evidence(scores, alpha, "items", ()):
        note += f" {few}"
    size = (columns * (across + 0.6) + 2.6, rows * (down + 1.7))
    with _canvas(stem, *size, title, note) as figure:
        axes = _panels(figure, rows, columns, len(panels))
        for number, (axis, (name, frame, weak)) in enumerate(zip(axes, panels, strict=True)):
            text = None
            if _numbered(frame):
                text = frame.map(lambda one: "" if math.isnan(one) else f"{one:+.1f}")
                text = text.map(lambda one: one.replace("-", "\N{MINUS SIGN}")).to_numpy()
            _heat_map(axis, _with_names(frame, names), cmap, norm, text, weak)
            for row, lang in enumerate(frame.index):
                if lang in frame.columns:
                    corner = (frame.columns.get_loc(lang) - 0.5, row - 0.5)
                    axis.add_patch(Rectangle(corner, 1, 1, fill=False, linewidth=1.3, zorder=3))
            axis.set_title(_head(name, max(24, int(across * 11))))
            axis.set_xlabel("target: neurons that are overwritten")
            if number % columns == 0:
                axis.set_ylabel("evaluated language")
        _points_bar(figure, axes, cmap, norm, extend)


def _points_bar(figure: Figure, axes, cmap: Colormap, norm: Normalize, extend: str) -> None:
    label, scale = "difference to the untouched model (points)", _described_scale(norm, extend)
    _bar(figure, axes, cmap, norm, f"{label}\n{scale}" if scale else label, extend)


def draw_layer_curves(
    curves: pd.DataFrame,
    value: str,
    title: str,
    stem: str | os.PathLike,
    zero: float | None = None,
    limits: tuple[float, float] | None = None,
    note: str = "",
) -> None:
    """Draw curves over layers with their bands, one panel per `panel` if there is that column.

    `curves` holds curve, layers (such as 03 or 00-08), value, low, high; `zero` draws a line;
    `note` says what bands are of.
    """
    places = sorted(set(curves["layers"].dropna()))
    single = all("-" not in place for place in places)
    every = 1 if len(places) <= 18 or not single else 5
    curves = curves if "panel" in curves else curves.assign(panel="")
    panels = list(curves.groupby("panel", sort=False))
    names = list(dict.fromkeys(curves["curve"]))
    rows, columns = _grid(len(panels), 3)
    width = min(5.2, max(3.4, 0.2 * len(places) + 0.9))
    size = (columns * width + 1.9 + _room(names, usual=14), rows * 2.9 + 0.4)
    with _canvas(os.path.splitext(stem)[0], *size, title, note) as figure:
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
            axis.set_title(_head(panel, 40))
            if limits is not None:
                axis.set_ylim(*limits)
            _plain(axis, "y")
        for axis in axes[::columns]:
            axis.set_ylabel(value)
        _legend(figure, _keys(names, 4, line=True), "neurons")


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
        one_line(f"{adapter} | {column}" if several[adapter] else adapter)
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
    norm, extend = change_norm(np.concatenate([frame.to_numpy().ravel() for frame, _ in panels]))
    across = 0.44 * len(interventions)
    label = 0.062 * max(len(row) for row in rows)
    tall = [0.23 * len(frame) + 1.0 for frame, _ in panels]
    note = (
        f"{_units(changed['n'], 'items')} per language. Bold: significant (Holm over the task and"
        f" metric, level {alpha:g}); italics: not. Columns: interventions; rows: fine-tuned"
        " neurons, and whose are overwritten."
    )
    for few in thin_evidence(changed, alpha, "items", ("metric",)):
        note += f" {few}"
    with _canvas(stem, across + label + 1.8, sum(tall) + 0.3, title, note) as figure:
        ratios = [len(frame) for frame, _ in panels]
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios).ravel()
        for axis, (metric, lang), (frame, weak) in zip(axes, cells, panels, strict=True):
            text = frame.map(lambda one: "" if math.isnan(one) else f"{one:+.1f}")
            text = text.map(lambda one: one.replace("-", "\N{MINUS SIGN}")).to_numpy()
            frame = frame.set_axis([one_line(one) for one in frame.columns], axis=1)
            _heat_map(axis, frame, cmap, norm, text, weak)
            axis.set_title(f"{_named(lang, names)}: {metric.replace('_', ' ')}")
        _points_bar(figure, list(axes), cmap, norm, extend)


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
    tokens = _units(frame["tokens"], "tokens") if "tokens" in frame else ""
    note = f"Per neuron over {tokens} of a language, then averaged over neurons." if tokens else ""
    with _canvas(stem, *size, title, note) as figure:
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
            axis.set_title(_head(model, 36) if len(models) > 1 else "")
            _plain(axis)
        axes[0].set_ylim(len(langs) - 0.4, -0.6)
        handles.append(
            Line2D([], [], color="#E69F00", marker="o", linestyle="", markersize=5.5, label="mean")
        )
        _legend(figure, handles)


def draw_curves(curves: Mapping[str, pd.DataFrame], title: str, stem: str | os.PathLike) -> None:
    """Draw loss and accuracy on the training rows over the steps, one line per adapter.

    `curves` by label are what `finetune.finetune` returns.
    """
    note = "One run per line; averaged over the steps between two points."
    with _canvas(stem, 8.5, 3.4 + 0.12 * len(curves), title, note) as figure:
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
                    label=one_line(label),
                )
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.set_xlabel("step")
            axis.set_ylabel(f"training {key}")
            _plain(axis, "y")
        _legend(figure, axes[0].get_lines(), place="outside lower center", ncols=2)
