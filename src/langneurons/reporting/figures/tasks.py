"""Figures of task scores."""

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from langneurons.base.words import UNTOUCHED
from langneurons.evaluation.power import thin_evidence
from langneurons.reporting.figures.canvas import (
    CELL,
    MARKERS,
    OKABE_ITO,
    PAGE,
    add_colour_bar,
    add_legend,
    add_panels,
    add_tip,
    canvas,
    change_norm,
    colour_keys,
    colour_map,
    count_of,
    described_scale,
    draw_cells,
    extra_width,
    is_numbered,
    layout_of,
    name_of,
    plain_axes,
    with_interval,
    with_names,
    wrapped,
)
from langneurons.reporting.figures.sweeps import draw_layer_curves
from langneurons.reporting.labels import Labels
from langneurons.reporting.lettering import one_line
from langneurons.reporting.records import scores_of
from langneurons.reporting.tables.tasks import by_layer, own_language

MAX_ADAPTERS = 4  # adapters up to which task scores are drawn as points with intervals


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
    changed = scores[scores["intervention"] != UNTOUCHED]
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
    line = max(0.22, 0.11 * len(interventions) + 0.07)
    width = 2.6 + 2.4 * len(heads) + extra_width(interventions)
    width += extra_width((name_of(lang, names) for lang in langs), 24, 14)
    size = (min(PAGE, width), len(lines) * (0.65 + line * len(langs)) + 0.4)
    note = (
        f"Lines: {confidence:.0%} intervals over items, {count_of(changed['n'], 'items')} per"
        f" language. Filled markers: significant after Holm over the task and metric (level"
        f" {alpha:g}). In parentheses: score of the untouched model."
    )
    for few in thin_evidence(scores, alpha, "items", ("metric",)):
        note += f" {few}"
    with canvas(stem, max(4.8, size[0]), size[1], title, note) as figure:
        axes = figure.subplots(len(lines), len(heads), squeeze=False, sharex="row", sharey="row")
        for row, (metric, adapter) in enumerate(lines):
            of_metric = changed[(changed["metric"] == metric) & (changed["adapter"] == adapter)]
            baseline = of_metric.groupby("lang")["baseline"].first()
            labels = [
                f"{name_of(lang, names)}  ({baseline.get(lang, math.nan):.3f})" for lang in langs
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
                    axis.set_title(wrapped(head, 36))
                plain_axes(axis)
            axes[row, 0].set_ylim(len(langs) - 0.5, -0.5)
            if adapters != ["base"]:
                label = wrapped(adapter, 18)
                axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
        add_legend(figure, colour_keys(interventions, 5, line=True), "intervention")


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
    cmap = colour_map("PuOr")
    values = np.concatenate([frame.to_numpy().ravel() for _, frame, _ in panels])
    norm, extend = change_norm(values)
    page = layout_of([with_names(frame, names) for _, frame, _ in panels])
    note = (
        f"Points of {metric}, {count_of(scores['n'], 'items')} per language. Bold: significant"
        f" (Holm over the task and metric, level {alpha:g}); italics: not. Framed: a language's own"
        " neurons."
    )
    for few in thin_evidence(scores, alpha, "items", ()):
        note += f" {few}"
    with canvas(stem, page.width, page.height, title, note) as figure:
        axes = add_panels(figure, page.rows, page.columns, len(panels))
        for number, (axis, (name, frame, weak)) in enumerate(zip(axes, panels, strict=True)):
            text = None
            if is_numbered(frame):
                text = frame.map(lambda one: "" if math.isnan(one) else f"{one:+.1f}")
                text = text.map(lambda one: one.replace("-", "\N{MINUS SIGN}")).to_numpy()
            draw_cells(axis, with_names(frame, names), cmap, norm, text, weak)
            for row, lang in enumerate(frame.index):
                if lang in frame.columns:
                    corner = (frame.columns.get_loc(lang) - 0.5, row - 0.5)
                    axis.add_patch(Rectangle(corner, 1, 1, fill=False, linewidth=1.3, zorder=3))
            axis.set_title(wrapped(name, max(24, int(page.across * 13))))
            axis.set_xlabel("target: neurons that are overwritten")
            if number % page.columns == 0:
                axis.set_ylabel("evaluated language")
        _points_bar(figure, axes, cmap, norm, extend)


def _points_bar(
    figure: Figure, axes: Sequence[Axes], cmap: Colormap, norm: Normalize, extend: str
) -> None:
    label, scale = "difference to the untouched model (points)", described_scale(norm, extend)
    add_colour_bar(figure, axes, cmap, norm, f"{label}\n{scale}" if scale else label, extend)


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
    cmap = colour_map("PuOr")
    norm, extend = change_norm(np.concatenate([frame.to_numpy().ravel() for frame, _ in panels]))
    across = CELL * len(interventions)
    label = 0.052 * max(len(row) for row in rows)
    tall = [0.19 * len(frame) + 0.9 for frame, _ in panels]
    note = (
        f"{count_of(changed['n'], 'items')} per language. Bold: significant (Holm over the task and"
        f" metric, level {alpha:g}); italics: not. Columns: interventions; rows: fine-tuned"
        " neurons, and whose are overwritten."
    )
    for few in thin_evidence(changed, alpha, "items", ("metric",)):
        note += f" {few}"
    width = max(3.5, min(PAGE, across + label + 0.5))
    with canvas(stem, width, sum(tall) + 0.7, title, note) as figure:
        ratios = [len(frame) for frame, _ in panels]
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios).ravel()
        for axis, (metric, lang), (frame, weak) in zip(axes, cells, panels, strict=True):
            text = frame.map(lambda one: "" if math.isnan(one) else f"{one:+.1f}")
            text = text.map(lambda one: one.replace("-", "\N{MINUS SIGN}")).to_numpy()
            frame = frame.set_axis([one_line(one) for one in frame.columns], axis=1)
            draw_cells(axis, frame, cmap, norm, text, weak)
            axis.set_title(f"{name_of(lang, names)}: {metric.replace('_', ' ')}")
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
        said = with_interval(*(one[f"difference{end}"] for end in ("", "_low", "_high")))
        text = f"{lang}, {one['intervention']}: {said}, p {one['p_holm']:.2g} after Holm"
        add_tip(axis, one["difference"], y, f"{text}, {int(one['n'])} items")


# By cell ---------------------------------------------------------------------------------------


def _title(cell: dict[str, str], labels: Labels, what: str) -> str:
    task = labels.of("tasks", cell["task"])
    under = labels.under(cell["protocol"])
    return f"{labels.of('models', cell['model'])}: {task}{what}{under}"


def _on_set(scores: pd.DataFrame, cell: dict[str, str], labels: Labels) -> pd.Series:
    return scores["langset"].map(labels.sets) == cell["languages"]


def scores_under_interventions(
    files: list[str], cell: dict[str, str], labels: Labels, stem: str
) -> None:
    """Draw the scores with a language's own neurons overwritten, sweeps aside."""
    (path,) = files
    scores = scores_of(path)
    swept = [name for parts in labels.sweeps.values() for name in parts.values()]
    scores = labels.shown(own_language(scores[~scores["intervention"].isin(swept)]))
    title, results = _title(cell, labels, " under interventions"), labels.results
    levels = results["alpha"], results["confidence"]
    draw_tasks(scores, labels.order(), title, stem, labels.language_names, *levels)


def scores_by_target(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the scores, evaluated language x language whose neurons are overwritten."""
    (path,) = files
    scores = scores_of(path)
    shown = _on_set(scores, cell, labels) & (scores["intervention"] == cell["intervention"])
    name = labels.of("interventions", cell["intervention"])
    title, alpha = _title(cell, labels, f", intervention {name}"), labels.results["alpha"]
    scores = labels.shown(scores[shown])
    draw_targets(scores, labels.order(), title, stem, alpha, labels.language_names)


def scores_by_layer(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the scores by the layers that are overwritten."""
    (path,) = files
    scores = scores_of(path)
    metric = scores["metric"].iloc[0]
    sweep = {name: layers for layers, name in labels.sweeps[cell["sweep"]].items()}
    shown = scores[_on_set(scores, cell, labels) & (scores["metric"] == metric)]
    curves = by_layer(shown, sweep)
    curves["panel"] = curves["panel"].map(lambda one: labels.of("selections", one))
    title = _title(cell, labels, f", {cell['sweep']} by layer")
    value = f"difference in {metric.replace('_', ' ')} (points)"
    items = shown["n"].max()
    note = f"Means and quartiles over evaluated and target languages, n = {items} items each."
    draw_layer_curves(curves, value, title, stem, zero=0.0, note=note)
