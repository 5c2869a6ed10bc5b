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
from dataclasses import dataclass
from typing import Any, Literal
from xml.sax.saxutils import escape

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from langneurons.base.errors import present
from langneurons.base.io import atomic
from langneurons.base.languages import parts_of
from langneurons.reporting.lettering import FAMILY, letter, one_line

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAX_ADAPTERS = 4  # adapters up to which task scores are drawn as points with intervals
MAX_NUMBERED = 21  # rows or columns up to which cells hold their numbers


TARGET = 12  # points around a mark in which a pointer meets it
PAGE = 7.2  # inches, the text width of a page; no figure is wider, so its letters keep their size
CELL, LEAST = 0.36, 0.297  # inches, side of a numbered cell: usual, and where its number just fits
GAP = 0.18  # inches between panels
NARROW = 1.95  # inches that a panel's title and scale need
NAMES = 1.05  # inches that the names of rows take
STYLE: Any = {
    "font.family": FAMILY,
    "text.parse_math": False,
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "figure.titlesize": 8.5,
    "axes.linewidth": 0.6,
    "axes.unicode_minus": True,
    "svg.hashsalt": "langneurons",
    "svg.fonttype": "path",
    "path.simplify": True,
}


class Sheet(Figure):
    """A figure whose marks say their values: `tips` are text by axes and place in its data."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.tips: list[tuple[Axes, tuple[float, float, float, float], str]] = []

    def spots(self) -> list[tuple[float, float, float, float, str]]:
        """Return each tip with its place in points from the upper left: x, y, width, height."""
        found, scale = [], 72 / self.dpi
        total = self.get_figheight() * 72
        for axis, (x, y, width, height), text in self.tips:
            corners = [(x, y), (x + width, y + height)]
            (left, low), (right, high) = axis.transData.transform(corners) * scale
            left, right, low, high = *sorted((left, right)), *sorted((low, high))
            # What has no extent, such as a point, gets room for a pointer.
            if width == 0:
                left, right = left - TARGET / 2, right + TARGET / 2
            if height == 0:
                low, high = low - TARGET / 2, high + TARGET / 2
            found.append((left, total - high, right - left, high - low, text))
        return found


def add_tip(axis: Axes, x: float, y: float, text: str, width: float = 0, height: float = 0) -> None:
    """Let a mark at x, y (data) say something; width and height (data) are 0 of a point."""
    figure: Any = axis.get_figure()
    figure.tips.append((axis, (x, y, width, height), text))


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """Return a number and its interval as a tip says them."""
    text = f"{value:.{digits}f}"
    if low == low and high == high:
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text.replace("-", "\N{MINUS SIGN}")


def _titled(svg: str, spots: Sequence[tuple[float, float, float, float, str]]) -> str:
    """Return an SVG in which rectangles above the marks hold what a pointer is told."""
    if not spots:
        return svg
    rows = [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
        f"<title>{escape(text)}</title></rect>"
        for x, y, width, height, text in spots
    ]
    group = f'<g class="tips" fill="none" pointer-events="all">{"".join(rows)}</g>\n'
    body, end, rest = svg.rpartition("</svg>")
    return f"{body}{group}{end}{rest}"


@contextmanager
def canvas(
    stem: str | os.PathLike, width: float, height: float, title: str = "", note: str = ""
) -> Iterator[Sheet]:
    """Yield a figure of the given inches; save it as stem.svg and stem.png afterwards."""
    with matplotlib.rc_context(STYLE):
        columns = max(20, int(width * 13))
        title, note = one_line(title), one_line(note)
        title, note = textwrap.fill(title, columns), textwrap.fill(note, int(columns * 1.15))
        lines = (title.count("\n") + 1 if title else 0) + (note.count("\n") + 1 if note else 0)
        figure = Sheet(figsize=(width, height + 0.15 * lines), layout="constrained")
        FigureCanvasAgg(figure)
        engine: Any = figure.get_layout_engine()
        engine.set(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.04)
        if title:
            figure.suptitle(title)
        if note:
            figure.supxlabel(note, fontsize=7, color="0.25")
        yield figure
        letter(figure)
        metadata = {"svg": {"Date": None}, "png": {"Software": None}}
        for kind in ("svg", "png"):
            with atomic(f"{os.fspath(stem)}.{kind}") as temporary:
                figure.savefig(temporary, format=kind, dpi=200, metadata=metadata[kind])
                if kind == "svg":
                    text = temporary.read_text(encoding="utf-8")
                    temporary.write_text(_titled(text, figure.spots()), encoding="utf-8")


def rows_and_columns(number: int, most: int) -> tuple[int, int]:
    """Return rows and columns for `number` panels, at most `most` side by side."""
    columns = max(1, min(number, most))
    return max(1, math.ceil(number / columns)), columns


def add_panels(figure: Figure, rows: int, columns: int, used: int, **options: Any) -> list[Axes]:
    """Return the first `used` panels of a grid; the others are removed."""
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for axis in axes[used:]:
        axis.remove()
    return list(axes[:used])


def name_of(lang: str, names: Mapping[str, str] | None) -> str:
    """Return name and code of a language; long ones in lines, so that panels keep their room.

    The name of a variant says which one it is, so its code is that of the language.
    """
    name = one_line((names or {}).get(lang) or "")
    text = f"{name} ({parts_of(lang)[0]})" if name and name != lang else lang
    return textwrap.fill(text, 28)


def lines_in(labels: Iterable[str]) -> float:
    """Return how much higher rows are than those with labels of one line, by the longest label."""
    most = max((label.count("\n") + 1 for label in labels), default=1)
    return max(1.0, 0.75 * most)


def extra_width(labels: Iterable[object], most: int = 40, usual: int = 8) -> float:
    """Return the inches that the longest label takes beyond a usual one, in lines of `most`."""
    lines = (line for label in labels for line in textwrap.wrap(one_line(label), most))
    return 0.062 * max(0, max(map(len, lines), default=0) - usual)


def with_names(frame: pd.DataFrame, names: Mapping[str, str] | None) -> pd.DataFrame:
    """Return a matrix of languages with names beside its codes; many columns keep their codes."""
    kept = frame.set_axis([name_of(lang, names) for lang in frame.index], axis=0)
    if frame.shape[1] <= MAX_NUMBERED:
        kept = kept.set_axis([name_of(lang, names) for lang in frame.columns], axis=1)
    return kept


def wrapped(text: object, width: int) -> str:
    """Return a panel's title, broken into lines of at most `width` characters."""
    return textwrap.fill(one_line(text), width)


def count_of(numbers: Iterable[Any], unit: str) -> str:
    """Return how many units numbers are of: `n = 16 documents`, or the range over languages."""
    found = sorted({int(one) for one in numbers if one == one})
    if not found:
        return ""
    plain = unit if found[-1] != 1 else unit.removesuffix("s")
    low, high = found[0], found[-1]
    return f"n = {low:,} {plain}" if low == high else f"n = {low:,} to {high:,} {plain}"


def plain_axes(axis: Axes, grid: Literal["both", "x", "y"] = "x") -> None:
    """Leave out the frame above and on the right, and draw faint grid lines."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color="0.88", linewidth=0.6)
    axis.set_axisbelow(True)


def short_number(value: float) -> str:
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


def count_ticks(top: float, most: int = 5) -> list[int]:
    """Return whole numbers from 0 to `top`, at most about `most` of them, each once."""
    ticks = MaxNLocator(most, integer=True).tick_values(0, top)
    return sorted({int(tick) for tick in ticks if tick <= top and tick == int(tick)})


def whole_ticks(axis: Axis, top: float, most: int = 5) -> None:
    """Put whole numbers on an axis of counts."""
    axis.set_major_locator(FixedLocator(count_ticks(top, most)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_locator(NullLocator())


def colour_keys(labels: Sequence[object], size: float, line: bool = False) -> list[Line2D]:
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


def add_legend(
    figure: Figure, handles: Sequence, title: str = "", place: str = "", **more: Any
) -> None:
    """Draw a legend outside the panels; labels are text, whatever they begin with."""
    labels = [handle.get_label() for handle in handles]
    where: Any = place or "outside right center"
    legend = figure.legend(
        handles=handles,
        labels=[f" {label}" if label.startswith("_") else label for label in labels],
        loc=where,
        frameon=False,
        title=title or None,
        **more,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(textwrap.fill(label, 40))


def luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2)."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ink_on(cmap: Colormap, norm: Normalize, value: float) -> str:
    """Return black or white, whichever stands out more: at least 4.58:1 on any colour."""
    light = luminance(cmap(norm(value)))
    return "black" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "white"


def draw_cells(
    axis: Axes,
    frame: pd.DataFrame,
    cmap: Colormap,
    norm: Normalize,
    text: np.ndarray | None = None,
    weak: np.ndarray | None = None,
    tips: np.ndarray | None = None,
) -> None:
    """Draw a frame as cells with its index and columns as labels; `text` fills the cells.

    With `weak` (bool), cells that are not weak are bold, and weak ones in italics. `tips` are what
    a pointer is told of each cell, after its row and column; left out: its value.
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
    _cell_tips(axis, frame, tips)
    if text is None:
        return
    for (row, column), label in np.ndenumerate(text):
        face: dict[str, Any] = {}
        if weak is not None:
            face = {"fontstyle": "italic"} if weak[row, column] else {"fontweight": "bold"}
        bad = values.mask is not np.ma.nomask and np.ma.getmaskarray(values)[row, column]
        axis.text(
            column,
            row,
            label,
            ha="center",
            va="center",
            fontsize=7,
            color="black" if bad else ink_on(cmap, norm, float(values[row, column])),
            **face,
        )


def _cell_tips(axis: Axes, frame: pd.DataFrame, tips: np.ndarray | None) -> None:
    """Let every cell that has a value say its row, column, and value or tip."""
    for (row, column), value in np.ndenumerate(frame.to_numpy(np.float64)):
        if math.isnan(value):
            continue
        said = f"{value:.4g}".replace("-", "\N{MINUS SIGN}") if tips is None else tips[row, column]
        names = [one_line(label) for label in (frame.index[row], frame.columns[column])]
        add_tip(axis, column - 0.5, row - 0.5, f"{' → '.join(names)}: {said}", 1, 1)


def colour_map(name: str) -> Colormap:
    """Return a colour map with grey for missing values."""
    return matplotlib.colormaps[name].with_extremes(bad="0.9")


def is_numbered(frame: pd.DataFrame) -> bool:
    """Return whether the cells of a frame have room for their numbers."""
    return max(frame.shape) <= MAX_NUMBERED


@dataclass(frozen=True)
class Layout:
    """How matrices stand on a page: rows and columns of panels, and inches.

    across and down are of one matrix; width and height are of all, without title and note.
    """

    rows: int
    columns: int
    across: float
    down: float
    width: float
    height: float


def layout_of(frames: Sequence[pd.DataFrame], most: int = 99, names: float = NAMES) -> Layout:
    """Return how matrices of like size stand on a page, at most `most` side by side.

    names: inches that the names of rows take, once. Below stand the names of columns and a scale.
    """
    n, tall = (max(frame.shape[axis] for frame in frames) for axis in (1, 0))
    numbered = max(n, tall) <= MAX_NUMBERED
    least, usual = (LEAST, CELL) if numbered else (0.1, 0.17)
    room = PAGE - names - 0.1
    fit = int((room + GAP) / (max(n * least, NARROW) + GAP))
    rows, columns = rows_and_columns(len(frames), max(1, min(fit, most)))
    widest = (room - (columns - 1) * GAP) / columns
    across = max(NARROW, min(n * usual, widest))
    cell = across / n
    down = max(0.8, tall * max(0.8 * cell, 0.12))
    heads = 0.3 + 0.055 * min(24, max(len(str(c)) for frame in frames for c in frame.columns) + 8)
    width = min(PAGE, max(3.5, names + 0.1 + columns * across + (columns - 1) * GAP))
    return Layout(rows, columns, across, down, width, rows * (down + heads + 0.3) + 0.55)


def add_colour_bar(
    figure: Figure,
    axes: Axes | Sequence[Axes],
    cmap: Colormap,
    norm: Normalize,
    label: str,
    extend: str = "neither",
    beside: bool = False,
) -> Colorbar:
    """Draw the colour scale of some panels below them, or beside; return it."""
    mappable = ScalarMappable(norm=norm, cmap=cmap)
    label = "\n".join(textwrap.fill(line, 40 if beside else 90) for line in label.split("\n"))
    place: dict[str, Any] = {"location": "right", "aspect": 25, "pad": 0.02}
    if not beside:
        single = isinstance(axes, Axes) or len(axes) == 1
        place = {"location": "bottom", "aspect": 30 if single else 50, "pad": 0.02}
    bar = figure.colorbar(mappable, ax=axes, label=label, fraction=0.05, extend=extend, **place)
    bar.outline.set_linewidth(0.4)
    return bar


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


def upper_end(norm: Normalize) -> float:
    """Return the value at the upper end of a colour scale."""
    return present(norm.vmax, "a colour scale without an upper end")


def change_ticks(norm: Normalize) -> list[float] | None:
    """Return powers of ten and 0 for a symmetric-logarithmic scale, None for a linear one."""
    if not isinstance(norm, SymLogNorm):
        return None
    low = math.ceil(math.log10(norm.linthresh) - 1e-9)
    high = math.floor(math.log10(upper_end(norm)) + 1e-9)
    positive = [10.0**power for power in range(low, high + 1)] or [norm.linthresh]
    return [-tick for tick in reversed(positive)] + [0.0] + positive


def described_scale(norm: Normalize, extend: str) -> str:
    """Return what a reader must know of a scale of changes; "" of a plain one."""
    found = []
    if isinstance(norm, SymLogNorm):
        found.append(f"symmetric-log scale, linear within ±{short_number(norm.linthresh)}")
    if extend != "neither":
        found.append(f"cells beyond ±{short_number(upper_end(norm))} have the colour of the end")
    return "; ".join(found)
