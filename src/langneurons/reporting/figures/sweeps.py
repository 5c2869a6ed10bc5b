"""Curves over the layers that are overwritten."""

import os

import numpy as np
import pandas as pd

from langneurons.reporting.figures.canvas import (
    MARKERS,
    OKABE_ITO,
    PAGE,
    add_legend,
    add_panels,
    add_tip,
    canvas,
    colour_keys,
    extra_width,
    plain_axes,
    rows_and_columns,
    with_interval,
    wrapped,
)
from langneurons.reporting.lettering import one_line


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
    rows, columns = rows_and_columns(len(panels), 2)
    width = min(3.4, max(2.4, 0.13 * len(places) + 0.7))
    size = (min(PAGE, columns * width + 1.4 + extra_width(names, usual=14)), rows * 2.2 + 0.3)
    with canvas(stem, *size, title, note) as figure:
        axes = add_panels(figure, rows, columns, len(panels), sharey=True)
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
                for at, (y, least, most) in enumerate(zip(one["value"], low, high, strict=True)):
                    if y == y:
                        said = with_interval(y, least, most)
                        add_tip(axis, at, y, f"{one_line(name)}, layer {places[at]}: {said}")
            labels = [str(int(place)) if single else place for place in places]
            axis.set_xticks(range(0, len(places), every), labels[::every])
            axis.tick_params(axis="x", labelrotation=0 if single else 90)
            axis.set_xlabel("layer" if single else "layers")
            axis.set_title(wrapped(panel, 40))
            if limits is not None:
                axis.set_ylim(*limits)
            plain_axes(axis, "y")
        for axis in axes[::columns]:
            axis.set_ylabel(value)
        add_legend(figure, colour_keys(names, 4, line=True), "neurons")
