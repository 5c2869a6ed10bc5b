"""Figure of how many of a language's neurons are found again on other text and other sets."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from langneurons.reporting.agreement import ends, mean_over, measure_of, replicated
from langneurons.reporting.figures.canvas import (
    OKABE_ITO,
    PAGE,
    add_panels,
    add_tip,
    canvas,
    extra_width,
    plain_axes,
    rows_and_columns,
    with_interval,
    wrapped,
)
from langneurons.reporting.labels import Labels
from langneurons.reporting.lettering import one_line
from langneurons.reporting.records import stability_records
from langneurons.selection.stability_settings import HALVES, compared, matched

COLOUR, CHANCE = OKABE_ITO[0], "0.45"


@dataclass(frozen=True)
class Row:
    """A row of a panel: the mean over languages with its range, and each language."""

    name: str
    mean: tuple[float, float, float]
    languages: Mapping[str, float]
    random: bool = False


def rows_of(
    frame: pd.DataFrame, unmatched: Mapping[str, object], names: Mapping[str, str], share: float
) -> list[Row]:
    """Return the rows of one selection: halves, each comparison, chance.

    unmatched: the comparisons that were made; names: what stands beside each.
    """
    measure, found = measure_of(frame), []
    for kind in (HALVES, *names):
        own = frame[frame["kind"] == kind]
        if own.empty:
            continue
        parts = {
            lang: replicated(one, measure, kind in unmatched) for lang, one in own.groupby("lang")
        }
        value, changes = mean_over(list(parts.values()))
        values = {str(lang): one for lang, (one, _) in parts.items()}
        name = names.get(kind, "the other half of the text")
        found.append(Row(name, (value, *ends(value, changes, share, measure)), values))
    kept = frame[frame["kind"].isin(list(names)) & frame["chance"].notna()]
    if len(kept):
        values = {str(lang): float(one["chance"].mean()) for lang, one in kept.groupby("lang")}
        mean = float(np.mean(list(values.values())))
        found.append(Row("chance: random neurons", (mean, np.nan, np.nan), values, True))
    return found


def draw_comparisons(
    panels: Sequence[tuple[str, str, Sequence[Row]]],
    title: str,
    stem: str | os.PathLike,
    share: float = 0.95,
) -> None:
    """Draw a panel per selection: its name, what is measured, and its rows."""
    order = list(dict.fromkeys(row.name for _, _, rows in panels for row in rows))
    order.sort(
        key=lambda name: any(r.random for _, _, rows in panels for r in rows if r.name == name)
    )
    lines, columns = rows_and_columns(len(panels), 3)
    width = min(PAGE, 2.0 * columns + 1.2 + extra_width(order, usual=20))
    note = (
        f"Large dots: mean over languages; lines: middle {share:.0%} of draws of the text; small"
        " dots: languages. 1: the same neurons; 0: no neuron in common."
    )
    with canvas(stem, width, lines * (0.75 + 0.27 * len(order)), title, note) as figure:
        axes = add_panels(figure, lines, columns, len(panels), sharey=True, sharex=True)
        for number, (axis, (name, measure, rows)) in enumerate(zip(axes, panels, strict=True)):
            for row in rows:
                _draw_row(axis, order.index(row.name), row)
            axis.set_title(wrapped(name, 32))
            axis.set_yticks(range(len(order)), [one_line(one) for one in order])
            axis.set_ylim(len(order) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            axis.set_xlim(-0.02, 1.02)
            plain_axes(axis)
            if number + columns >= len(panels):
                axis.set_xlabel("cosine" if measure == "cosine" else "Jaccard index")
                axis.tick_params(labelbottom=True)


def _draw_row(axis: Axes, place: int, row: Row) -> None:
    value, low, high = row.mean
    colour = CHANCE if row.random else COLOUR
    for lang, one in row.languages.items():
        if not row.random:
            axis.plot(one, place + 0.2, "o", color=colour, markersize=3, alpha=0.5, clip_on=False)
            add_tip(axis, one, place + 0.2, f"{one_line(row.name)}, {lang}: {one:.3f}")
    if np.isnan(value):
        return
    if not np.isnan(low):
        axis.hlines(place - 0.1, low, high, color=colour, linewidth=1.6)
    axis.plot(
        value,
        place - 0.1,
        "|" if row.random else "o",
        color=colour,
        markersize=7 if row.random else 6,
        clip_on=False,
    )
    said = f"{value:.3f}" if np.isnan(low) else with_interval(value, low, high)
    add_tip(axis, value, place - 0.1, f"{one_line(row.name)}: {said}")


def _beside(name: str, labels: Labels) -> str:
    """Return what stands beside the row of a comparison: the other text, or the other set."""
    first, second = labels.comparisons[name]
    pairs = compared(matched(labels.order(first), labels.order(second)))
    texts = [two for one, two in pairs.items() if one != two]
    kinds = {labels.language_names.get(code, code).partition(", ")[2] for code in texts} - {""}
    if texts and len(kinds) == 1:
        return f"same languages: {kinds.pop()}"
    return f"set {second!r} ({len(labels.order(second))} languages)"


def comparisons_of_sets(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw, of every selection on a set, how many of its neurons are found again."""
    share, panels = labels.results["confidence"], []
    for names, frame, metadata in stability_records(files, labels):
        unmatched = metadata["unmatched"]
        if not unmatched:
            continue
        kept = {name: _beside(name, labels) for name in labels.comparisons if name in unmatched}
        rows = rows_of(frame, unmatched, kept, share)
        panels.append((labels.of("selections", names["selection"]), measure_of(frame), rows))
    of, number = labels.of("models", cell["model"]), len(labels.order(cell["languages"]))
    title = f"{of}, set {cell['languages']!r} ({number} languages): neurons that are found again"
    draw_comparisons(panels, title, stem, share)
