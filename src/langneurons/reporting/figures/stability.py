"""Stability of selections: agreement with the whole text against tokens, and of two halves."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from langneurons.reporting.figures.canvas import (
    MARKERS,
    OKABE_ITO,
    PAGE,
    add_legend,
    add_panels,
    add_tip,
    canvas,
    count_of,
    extra_width,
    name_of,
    plain_axes,
    rows_and_columns,
    with_interval,
    wrapped,
)
from langneurons.reporting.labels import Labels
from langneurons.reporting.lettering import one_line
from langneurons.reporting.records import stability_records
from langneurons.reporting.tables.stability import stability_summary
from langneurons.selection.stability_settings import KINDS

LINES = ("-", "--", ":", "-.")


def draw_stability(
    summary: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
    confidence: float = 0.95,
) -> None:
    """Draw agreement against tokens, a panel per selection, a line per language.

    `summary` is what `stability_summary` returns for `confidence`, of one model and language set.
    In the strip on the right stand two halves against each other, with the range of the draws.
    """
    selections = list(dict.fromkeys(summary["selection"]))
    langs = [lang for lang in order if lang in set(summary["lang"])]
    rows, columns = rows_and_columns(len(selections), 2)
    shown = [name_of(lang, names) for lang in langs]
    halves = summary[summary["kind"] == "halves"]
    note = (
        "Lines: the beginning of the text against all of it. Strip on the right: two random halves"
        f" against each other, mean and middle {confidence:.0%} of the draws"
        f" ({count_of(halves['draws'], 'draws')})."
    )
    size = (min(PAGE, 3.0 * columns + 1.3 + extra_width(shown, usual=14)), 2.3 * rows + 0.4)
    with canvas(stem, *size, title, note) as figure:
        axes = add_panels(figure, rows, columns, len(selections), sharey=True)
        handles: list[Line2D] = []
        for axis, selection in zip(axes, selections, strict=True):
            panel = summary[summary["selection"] == selection]
            directions = "cosine" in panel and panel["cosine"].notna().any()
            measure = "cosine" if directions else "jaccard"
            most = float(panel["tokens"].max())
            handles = []
            for number, lang in enumerate(langs):
                own = panel[panel["lang"] == lang]
                style: dict[str, Any] = {
                    "color": OKABE_ITO[number % 7],
                    "marker": MARKERS[number % 7],
                }
                if number >= 7:  # colours and marks begin again
                    style["markerfacecolor"] = "white"
                curve = own[own["kind"] == "budget"].sort_values("tokens")
                (line,) = axis.plot(
                    curve["tokens"],
                    curve[measure],
                    linestyle=LINES[number // 7 % len(LINES)],
                    markersize=3,
                    label=shown[number].replace("\n", " "),
                    **style,
                )
                handles.append(line)
                for _, one in curve.iterrows():
                    said = f"{lang}, {int(one['tokens']):,} tokens: {one[measure]:.3f}"
                    add_tip(axis, one["tokens"], one[measure], said)
                for _, one in own[own["kind"] == "halves"].iterrows():
                    at = most * (1.08 + 0.3 * (number + 1) / (len(langs) + 1))
                    axis.vlines(at, one["low"], one["high"], color=style["color"], linewidth=1.2)
                    axis.plot([at], [one[measure]], markersize=3.5, linestyle="", **style)
                    said = with_interval(one[measure], one["low"], one["high"])
                    add_tip(axis, at, one[measure], f"{lang}, halves: {said}")
            axis.axvline(1.06 * most, color="0.6", linewidth=0.8)
            axis.set_xlim(0, 1.4 * most)
            axis.set_ylim(0, 1.04)
            ticks = [most * part for part in (0, 0.5, 1)]
            texts = [f"{round(tick):,}" for tick in ticks]
            axis.set_xticks([*ticks, 1.23 * most], [*texts, "halves"])
            axis.set_xlabel("tokens of a language")
            axis.set_title(wrapped(one_line(selection), 36))
            axis.set_ylabel("cosine" if directions else "Jaccard index")
            plain_axes(axis, "y")
        add_legend(figure, handles)


def stability_of_selections(
    files: list[str], cell: dict[str, str], labels: Labels, stem: str
) -> None:
    """Draw the stability of every selection on one language set."""
    confidence = labels.results["confidence"]
    summary = labels.shown(stability_summary(stability_records(files, labels), confidence))
    summary = summary[summary["kind"].isin(KINDS)]
    of = labels.of("models", cell["model"])
    title = f"{of}: selections on parts of the text"
    names = labels.language_names
    draw_stability(summary, labels.order(cell["languages"]), title, stem, names, confidence)
