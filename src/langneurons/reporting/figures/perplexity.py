"""Figures of the change of perplexity and of cross-entropy."""

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from langneurons.evaluation.power import thin_evidence
from langneurons.reporting.figures.canvas import (
    add_colour_bar,
    add_panels,
    canvas,
    change_norm,
    change_ticks,
    colour_map,
    count_of,
    described_scale,
    draw_cells,
    is_numbered,
    layout_of,
    short_number,
    with_interval,
    with_names,
    wrapped,
)
from langneurons.reporting.labels import Labels
from langneurons.reporting.records import perplexity_matrices, read_as
from langneurons.reporting.tables.perplexity import matrix, perplexity_change


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
    cmap, (norm, extend) = colour_map("PuOr_r"), change_norm(values, value == "ppl_change")
    page = layout_of([with_names(frame, names) for _, frame in frames])
    documents = [one for _, cells in panels for one in cells["documents"]]
    note = f"Held-out text, {count_of(documents, 'documents')} per language."
    if any(is_numbered(frame) for _, frame in frames):
        found = [int((~one).sum()) for one in weak]
        note += (
            f" Bold: different from 0 (paired t over documents, Holm over a panel, level {alpha:g}:"
            f" {', '.join(map(str, found))} of {weak[0].size} cells); italics: not."
        )
    few = {name: thin_evidence(cells, alpha, "documents", ()) for name, cells in panels}
    for text in dict.fromkeys(text for texts in few.values() for text in texts):
        named = ", ".join(str(name) for name, texts in few.items() if text in texts)
        note += f" {named}: {text[0].lower()}{text[1:]}"
    with canvas(stem, page.width, page.height, title, note) as figure:
        axes = add_panels(figure, page.rows, page.columns, len(frames))
        for number, (axis, (name, frame)) in enumerate(zip(axes, frames, strict=True)):
            numbers = frame.map(short_number).to_numpy() if is_numbered(frame) else None
            tips = _tips(panels[number][1], frame, value)
            draw_cells(axis, with_names(frame, names), cmap, norm, numbers, weak[number], tips)
            axis.set_title(wrapped(name, max(24, int(page.across * 13))))
            axis.set_xlabel("evaluated language")
            if number % page.columns == 0:
                axis.set_ylabel("language whose neurons are overwritten")
            else:
                axis.tick_params(labelleft=False)
        shown = {
            "nll_change": "change of NLL (nats per token)",
            "ppl_change": "change of perplexity",
        }
        scale = described_scale(norm, extend)
        label = f"{shown[value]}\n{scale}" if scale else shown[value]
        bar = add_colour_bar(figure, axes, cmap, norm, label, extend)
        ticks = change_ticks(norm)
        if ticks is not None:
            bar.ax.xaxis.set_major_locator(FixedLocator(ticks))
            bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
            bar.ax.xaxis.set_minor_locator(NullLocator())


def _tips(cells: pd.DataFrame, frame: pd.DataFrame, value: str) -> np.ndarray:
    """Return what a pointer is told of each cell: value, interval, p and number of documents."""
    found = np.full(frame.shape, "", dtype=object)
    for (row, column), one in np.ndenumerate(frame.to_numpy()):
        own = cells[
            (cells["deactivated"] == frame.index[row])
            & (cells["evaluated"] == frame.columns[column])
        ]
        if len(own):
            cell = own.iloc[0]
            ends = (cell["low"], cell["high"]) if value == "nll_change" else (math.nan, math.nan)
            found[row, column] = (
                f"{with_interval(one, *ends)}, p {cell['p_holm']:.2g} after Holm,"
                f" {cell['documents']} documents"
            )
    return found


def change_of_perplexity(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the change of perplexity of every selection on a set under one intervention."""
    _change(files, cell, labels, stem, ("perplexity", "ppl_change"))


def change_of_cross_entropy(
    files: list[str], cell: dict[str, str], labels: Labels, stem: str
) -> None:
    """Draw the change of NLL of every selection on a set under one intervention."""
    _change(files, cell, labels, stem, ("NLL (cross-entropy)", "nll_change"))


def _change(
    files: list[str], cell: dict[str, str], labels: Labels, stem: str, drawn: tuple[str, str]
) -> None:
    matrices = perplexity_matrices(files, labels, cell["protocol"], [cell["intervention"]])
    panels = [
        (
            labels.of("selections", names["selection"]),
            perplexity_change(frame, labels.results, **read_as(metadata)),
        )
        for names, frame, metadata in matrices
    ]
    what, value = drawn
    title = f"{labels.of('models', cell['model'])}: change of {what}, intervention"
    title += f" {labels.of('interventions', cell['intervention'])}"
    title += labels.under(cell["protocol"])
    langs, names = labels.order(cell["languages"]), labels.language_names
    draw_perplexity(panels, langs, title, stem, labels.results, value, names)
