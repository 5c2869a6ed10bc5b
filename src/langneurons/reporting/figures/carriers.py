"""Figure of how many neurons of each layer carry a language's direction."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from langneurons.base.errors import present
from langneurons.reporting.figures.canvas import (
    OKABE_ITO,
    PAGE,
    add_legend,
    add_panels,
    add_tip,
    canvas,
    plain_axes,
)
from langneurons.reporting.labels import Labels
from langneurons.reporting.lettering import one_line
from langneurons.reporting.records import neuron_tables

COLOUR = OKABE_ITO[0]
MANY = 400  # points of a panel, beyond which lines of single languages are not drawn


def draw_carriers(
    carriers: Mapping[str, Mapping[str, Sequence[int]]],
    d_mlp: int,
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw over layers how many neurons carry the levels of the languages' directions.

    `carriers` holds by language and level (per cent) a number per layer; one panel per level.
    """
    names = names or {}
    levels = list(next(iter(carriers.values())))
    n_layers = len(next(iter(carriers.values()))[levels[0]])
    width = min(PAGE, 1.9 + len(levels) * min(3.2, max(2.0, 0.11 * n_layers + 1.0)))
    note = f"Dashed: all {d_mlp:,} neurons of a layer."
    single, marker = n_layers * len(carriers) <= MANY, "o" if n_layers <= 40 else ""
    note += " Thin lines: single languages." if single else ""
    with canvas(stem, width, 2.6, title, note) as figure:
        axes = add_panels(figure, 1, len(levels), len(levels), sharey=True)
        for axis, level in zip(axes, levels, strict=True):
            values = np.array([own[level] for own in carriers.values()], np.float64)
            layers = np.arange(n_layers)
            axis.fill_between(
                layers, values.min(0), values.max(0), color=COLOUR, alpha=0.15, linewidth=0
            )
            if single:
                axis.plot(layers, values.T, color=COLOUR, linewidth=0.6, alpha=0.45)
            middle = np.median(values, axis=0)
            axis.plot(layers, middle, f"{marker}-", color=COLOUR, linewidth=1.8, markersize=3.5)
            _add_tips(axis, middle, values, [one_line(names.get(k) or k) for k in carriers])
            axis.axhline(d_mlp, color="0.3", linewidth=0.8, linestyle="--")
            axis.set_yscale("log")
            axis.set_ylim(0.8, 1.6 * d_mlp)
            axis.set_title(f"{level} % of the direction")
            axis.set_xlabel("layer (0 is nearest to the input)")
            axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            plain_axes(axis, "y")
        axes[0].set_ylabel("neurons that carry it")
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes[0].yaxis.set_minor_locator(NullLocator())
        number = len(carriers)
        shade = Patch(color=COLOUR, alpha=0.15, linewidth=0, label="least to most")
        line = Line2D([], [], color=COLOUR, marker=marker or None, markersize=3.5, label="median")
        add_legend(figure, [line, shade], f"{number} language{'s' if number != 1 else ''}")


def _add_tips(axis: Axes, middle: np.ndarray, values: np.ndarray, names: Sequence[str]) -> None:
    for layer, value in enumerate(middle):
        own = values[:, layer]
        fewest, most = int(own.argmin()), int(own.argmax())
        text = f"layer {layer}: median {value:,g}, from {own[fewest]:,g} ({names[fewest]})"
        add_tip(axis, layer, value, f"{text} to {own[most]:,g} ({names[most]})")


def neurons_that_carry(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw how many neurons carry the directions of the languages of a set."""
    ((names, table),) = neuron_tables(files, labels)
    found = present(table.metadata.get("carriers"), "carriers: the selection has none")
    carriers = {lang: found[lang] for lang in labels.order(cell["languages"]) if lang in found}
    title = (
        f"{labels.of('models', names['model'])},"
        f" {labels.of('selections', names['selection'])}: neurons that carry a language's direction"
    )
    draw_carriers(carriers, table.d_mlp, title, stem, labels.language_names)
