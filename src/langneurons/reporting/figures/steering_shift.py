"""Figures of the Language Steering Shift."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize

from langneurons.reporting.figures.canvas import (
    MARKERS,
    OKABE_ITO,
    PAGE,
    add_colour_bar,
    add_legend,
    add_panels,
    add_tip,
    canvas,
    colour_keys,
    colour_map,
    count_of,
    draw_cells,
    extra_width,
    is_numbered,
    layout_of,
    plain_axes,
    short_number,
    with_interval,
    with_names,
    wrapped,
)
from langneurons.reporting.figures.sweeps import draw_layer_curves
from langneurons.reporting.labels import Labels
from langneurons.reporting.lettering import one_line
from langneurons.reporting.records import lss_matrices
from langneurons.reporting.tables.steering_shift import ALL, lss_cells, lss_summary, matrix


def draw_lss(
    panels: Sequence[tuple[str, pd.DataFrame]],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
    facts: Iterable[object] = (),
) -> None:
    """Draw LSS in 0..1, rows base languages and columns target languages, a panel per selection.

    A panel is a title and a frame base x target (`tables.steering_shift.matrix`). NaN cells are
    grey. `facts` holds the number of facts of the cells.
    """
    cmap, norm = colour_map("cividis"), Normalize(0.0, 1.0)
    page = layout_of([with_names(frame, names) for _, frame in panels])
    counts = count_of((one for one in facts if one), "facts")
    note = f"{counts} per cell." if counts else ""
    with canvas(stem, page.width, page.height, title, note) as figure:
        axes = add_panels(figure, page.rows, page.columns, len(panels))
        for number, (axis, (name, frame)) in enumerate(zip(axes, panels, strict=True)):
            text = frame.map(short_number).to_numpy() if is_numbered(frame) else None
            draw_cells(axis, with_names(frame, names), cmap, norm, text)
            axis.set_title(wrapped(name, max(24, int(page.across * 13))))
            axis.set_xlabel("target: neurons that are overwritten")
            if number % page.columns == 0:
                axis.set_ylabel("base: language of the premise")
            else:
                axis.tick_params(labelleft=False)
        add_colour_bar(figure, axes, cmap, norm, "share of facts that shift to the target (LSS)")


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
    note = f"Lines: {confidence:.0%} intervals over facts, {count_of(summary['facts'], 'facts')}."
    width = min(PAGE, 5.0 + extra_width(selections) + extra_width(factors, 400))
    with canvas(stem, width, height, title, note) as figure:
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
            axis.plot(own["lss"], heights, marker, color=colour, markersize=4.5)
            for height, (name, one) in zip(heights, own.iterrows(), strict=True):
                said = with_interval(one["lss"], one["low"], one["high"])
                text = f"{one_line(name)}, {one_line(selection)}: {said}, {one['facts']} facts"
                add_tip(axis, one["lss"], height, text)
        axis.set_yticks(range(len(factors)), [one_line(one) for one in factors])
        axis.set_ylim(len(factors) - 0.5, -0.5)
        axis.set_xlim(-0.02, 1.02)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("LSS, mean over base and target languages")
        plain_axes(axis)
        add_legend(figure, colour_keys(selections, 5), "neurons")


def _title(cell: dict[str, str], labels: Labels, what: str) -> str:
    model = labels.of("models", cell["model"])
    return f"{model}: Language Steering Shift{what}{labels.under(cell['protocol'])}"


def _means(
    files: list[str], cell: dict[str, str], labels: Labels, interventions: Collection[str]
) -> pd.DataFrame:
    """Return the mean shift over all cells of each intervention and selection."""
    matrices = lss_matrices(files, labels, cell["protocol"], interventions)
    summary = lss_summary(matrices, labels.results, labels.controls)
    return summary[summary["target"] == ALL].drop_duplicates(["intervention", "selection"])


def shift_matrix(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the shift of every selection on a set under one intervention."""
    langs, panels, facts = labels.order(cell["languages"]), [], []
    matrices = lss_matrices(files, labels, cell["protocol"], [cell["intervention"]])
    for names, frame, metadata in matrices:
        cells = lss_cells(frame, metadata, labels.results)
        panels.append((labels.of("selections", names["selection"]), matrix(cells, langs)))
        facts += list(cells["n"])
    name = labels.of("interventions", cell["intervention"])
    title = _title(cell, labels, f", intervention {name}")
    draw_lss(panels, title, stem, labels.language_names, facts)


def shift_by_intervention(
    files: list[str], cell: dict[str, str], labels: Labels, stem: str
) -> None:
    """Draw the mean shift of every intervention, with random neurons beside it."""
    swept = {name for members in labels.sweeps.values() for name in members.values()}
    names = [name for name in labels.sequence["interventions"] if name not in swept]
    means = labels.shown(_means(files, cell, labels, names))
    title = _title(cell, labels, " by intervention")
    draw_lss_factors(means, title, stem, labels.results["confidence"])


def shift_by_layer(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the mean shift by the layers that are overwritten."""
    sweep = {name: layers for layers, name in labels.sweeps[cell["sweep"]].items()}
    means = _means(files, cell, labels, sweep)
    curves = labels.shown(means.assign(layers=means["intervention"].map(sweep), value=means["lss"]))
    note = (
        f"Bands: {labels.results['confidence']:.0%} intervals over facts,"
        f" n = {means['facts'].max()} facts."
    )
    title = _title(cell, labels, f", {cell['sweep']} by layer")
    curves = curves.rename(columns={"selection": "curve"})
    value = "LSS, mean over base and target languages"
    draw_layer_curves(curves, value, title, stem, limits=(-0.02, 1.02), note=note)
