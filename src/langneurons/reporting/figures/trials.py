"""Figures of trials: methods beside their controls, and changes against doses."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from langneurons.reporting.figures.canvas import (
    OKABE_ITO,
    PAGE,
    add_legend,
    add_panels,
    add_tip,
    canvas,
    count_of,
    extra_width,
    plain_axes,
    with_interval,
    wrapped,
)
from langneurons.reporting.hypotheses import other_changes, own_changes
from langneurons.reporting.labels import Labels
from langneurons.reporting.lettering import one_line
from langneurons.reporting.tables.trials import trials_of
from langneurons.reporting.trials import Trial, draw_means, mean_of, over_targets

OWN, OTHERS = "the language that is taken out", "the other languages"
CONTROL = "the same, under random controls"
COLOURS = {OWN: OKABE_ITO[0], OTHERS: OKABE_ITO[1], CONTROL: "0.55"}


@dataclass(frozen=True)
class Row:
    """A method in a figure: means with intervals, its targets, and the mean of each random draw."""

    name: str
    own: tuple[float, float, float]
    others: tuple[float, float, float]
    targets: Mapping[str, float]
    draws: Sequence[float]


def row_of(name: str, trial: Trial) -> Row:
    """Return what a figure shows of a method."""
    results = trial.results
    mean = over_targets(own_changes(trial), results["seed"])
    rest = over_targets(other_changes(trial), results["seed"])
    ends = [one.interval(results["confidence"])[:2] for one in (mean, rest)]
    targets = dict(zip(trial.targets, (one.value for one in own_changes(trial)), strict=True))
    draws = [one for means in draw_means(trial).values() for one in means]
    return Row(
        name,
        (mean.value, *ends[0]),
        (rest.value, *ends[1]),
        targets,
        draws,
    )


def _keys(*names: str) -> list[Line2D]:
    """Return the entries of a legend."""
    marks = {CONTROL: "|"}
    return [
        Line2D([], [], color=COLOURS[name], marker=marks.get(name, "o"), linestyle="", label=name)
        for name in names
    ]


def draw_methods(
    rows: Sequence[Row],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str],
    note: str = "",
) -> None:
    """Draw each method's change of the target, of the others, and of targets under controls."""
    height = 1.3 + 0.52 * len(rows)
    width = min(PAGE, 5.6 + extra_width([row.name for row in rows]))
    with canvas(stem, width, height, title, note) as figure:
        axis = figure.subplots()
        axis.axvline(0.0, color="0.3", linewidth=0.8, zorder=1)
        for place, row in enumerate(rows):
            if place % 2 == 0:
                axis.axhspan(place - 0.5, place + 0.5, color="0.96", zorder=0, linewidth=0)
            _draw_row(axis, place, row, names)
        axis.set_yticks(range(len(rows)), [one_line(row.name) for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(
            "change of the negative log-likelihood, nats per token (0: untouched model)"
        )
        plain_axes(axis)
        add_legend(figure, _keys(OWN, OTHERS, CONTROL), "text that is read")


def _draw_row(axis: Axes, place: int, row: Row, names: Mapping[str, str]) -> None:
    for (value, low, high), what, shift in (
        (row.own, OWN, -0.18),
        (row.others, OTHERS, 0.06),
    ):
        colour = COLOURS[what]
        axis.hlines(place + shift, low, high, color=colour, linewidth=1.6, zorder=3)
        axis.plot(value, place + shift, "o", color=colour, markersize=6, zorder=4)
        said = with_interval(value, low, high)
        add_tip(axis, value, place + shift, f"{one_line(row.name)}, {what}: {said}")
    for lang, value in row.targets.items():
        axis.plot(
            value, place - 0.18, "o", color=COLOURS[OWN], markersize=2.6, alpha=0.55, zorder=3
        )
        add_tip(
            axis, value, place - 0.18, f"{one_line(row.name)}, {names.get(lang, lang)}: {value:.3g}"
        )
    if row.draws:
        heights = np.full(len(row.draws), place + 0.28)
        axis.plot(row.draws, heights, "|", color=COLOURS[CONTROL], markersize=7, zorder=2)
        text = f"{len(row.draws)} random draws, mean {np.mean(row.draws):.3g}"
        add_tip(axis, float(np.mean(row.draws)), place + 0.28, f"{one_line(row.name)}: {text}")


def draw_doses(
    panels: Sequence[tuple[str, Sequence[float], Sequence[Sequence[float]]]],
    title: str,
    stem: str | os.PathLike,
    note: str = "",
) -> None:
    """Draw the mean change of targets and of the others against the dose, a panel per method.

    A panel is a name, the doses, and rows (mean, low, high) of own, then of the others' changes.
    """
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    with canvas(stem, min(PAGE, 2.4 * columns + 0.4), 0.9 + 1.9 * lines, title, note) as figure:
        axes = add_panels(figure, lines, columns, len(panels), sharex=True, sharey=True)
        for number, (axis, (name, doses, rows)) in enumerate(zip(axes, panels, strict=True)):
            axis.axhline(0.0, color="0.3", linewidth=0.8)
            for what, part in ((OWN, rows[: len(doses)]), (OTHERS, rows[len(doses) :])):
                values = np.array([[0.0, 0.0, 0.0], *part])
                x = np.array([0.0, *doses])
                axis.fill_between(x, values[:, 1], values[:, 2], color=COLOURS[what], alpha=0.18)
                axis.plot(x, values[:, 0], "o-", color=COLOURS[what], markersize=3.5, linewidth=1.4)
                for dose, row in zip(doses, part, strict=True):
                    said = with_interval(row[0], row[1], row[2])
                    add_tip(axis, dose, row[0], f"{one_line(name)}, {what}, dose {dose:g}: {said}")
            axis.set_title(wrapped(name, 26))
            if number + columns >= len(panels):
                axis.set_xlabel("dose")
                axis.tick_params(labelbottom=True)
            if number % columns == 0:
                axis.set_ylabel("nats per token")
            plain_axes(axis, "both")
        add_legend(figure, _keys(OWN, OTHERS), "text that is read")


def methods_compared(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw every method on trial on a set."""
    rows, documents = [], []
    for names, trial in trials_of(files, labels):
        rows.append(row_of(labels.of("methods", names["method"]), trial))
        documents += [own_changes(trial)[0].units]
    rows.sort(key=lambda row: row.others[0] - row.own[0])
    confidence = labels.results["confidence"]
    note = (
        f"Large dots: means over languages, {confidence:.0%} intervals; small: single languages."
        f" {count_of(documents, 'test documents')} a language; settings chosen on others."
    )
    title = f"{labels.of('models', cell['model'])}: what taking out a language does"
    draw_methods(rows, title, stem, labels.language_names, note)


def changes_by_dose(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the changes of every method on trial on a set at each dose."""
    panels, confidence, meaning = [], labels.results["confidence"], ""
    for names, trial in trials_of(files, labels):
        meaning = trial.dose_is
        rows: list[tuple[float, float, float]] = []
        for whose in (True, False):
            for dose in trial.doses():
                estimates = [
                    trial.change(t, t, dose)
                    if whose
                    else mean_of(list(trial.others(t, dose).values()))
                    for t in trial.targets
                ]
                mean = over_targets(estimates, labels.results["seed"])
                rows.append((mean.value, *mean.interval(confidence)[:2]))
        panels.append((labels.of("methods", names["method"]), trial.doses(), rows))
    note = f"Dose: {meaning}. Bands: {confidence:.0%} intervals over languages and documents."
    title = f"{labels.of('models', cell['model'])}: changes by dose"
    draw_doses(panels, title, stem, note)
