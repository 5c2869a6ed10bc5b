"""Figure of methods compared by answers: scores beside the untouched model and random controls."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from langneurons.reporting.figures.canvas import (
    OKABE_ITO,
    PAGE,
    add_legend,
    add_tip,
    canvas,
    count_of,
    extra_width,
    plain_axes,
    with_interval,
)
from langneurons.reporting.labels import Labels
from langneurons.reporting.lettering import one_line
from langneurons.reporting.records import answer_records
from langneurons.reporting.tables.answers import KINDS, Answers, shown_row

METHOD, TARGET = "the method, with interval", "the method, single languages"
BEFORE, RANDOM = "the untouched model", "random controls"
MARKS = {METHOD: ("o", 6.0), TARGET: ("o", 2.6), BEFORE: ("D", 4.0), RANDOM: ("|", 8.0)}
COLOURS = {METHOD: OKABE_ITO[0], TARGET: OKABE_ITO[0], BEFORE: OKABE_ITO[1], RANDOM: "0.45"}


@dataclass(frozen=True)
class Row:
    """A method in the figure: its score with interval, those of targets, and what stands beside."""

    name: str
    score: tuple[float, float, float]
    targets: Mapping[str, float]
    untouched: float
    control: float


def draw_answers(
    rows: Sequence[Row],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str],
    note: str = "",
) -> None:
    """Draw the score of each method, of the untouched model and of random controls."""
    width = min(PAGE, 5.6 + extra_width([row.name for row in rows]))
    with canvas(stem, width, 1.3 + 0.46 * len(rows), title, note) as figure:
        axis = figure.subplots()
        for place, row in enumerate(rows):
            if place % 2 == 0:
                axis.axhspan(place - 0.5, place + 0.5, color="0.96", zorder=0, linewidth=0)
            _draw_row(axis, place, row, names)
        axis.set_yticks(range(len(rows)), [one_line(row.name) for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(-0.03, 1.03)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("score of an answer (1: relevant, in the target language)")
        plain_axes(axis)
        shown = [METHOD, TARGET, BEFORE]
        if any(not isnan(row.control) for row in rows):
            shown.append(RANDOM)
        add_legend(figure, [_key(name) for name in shown], "answers of")


def _key(name: str) -> Line2D:
    mark, size = MARKS[name]
    return Line2D(
        [], [], color=COLOURS[name], marker=mark, markersize=size, linestyle="", label=name
    )


def _draw_row(axis: Axes, place: int, row: Row, names: Mapping[str, str]) -> None:
    value, low, high = row.score
    axis.hlines(place - 0.1, low, high, color=COLOURS[METHOD], linewidth=1.6, zorder=3)
    points = [(METHOD, value, -0.1, with_interval(value, low, high))]
    points += [
        (TARGET, own, 0.1, f"{names.get(lang, lang)}: {own:.3g}")
        for lang, own in row.targets.items()
    ]
    points += [
        (BEFORE, row.untouched, -0.1, f"untouched: {row.untouched:.3g}"),
        (RANDOM, row.control, 0.1, f"random controls: {row.control:.3g}"),
    ]
    for what, x, shift, said in points:
        if isnan(x):
            continue
        mark, size = MARKS[what]
        strength = 0.55 if what == TARGET else 1.0
        order = 4 if what == METHOD else 3
        axis.plot(
            *(x, place + shift, mark),
            color=COLOURS[what],
            markersize=size,
            alpha=strength,
            zorder=order,
        )
        add_tip(axis, x, place + shift, f"{one_line(row.name)}, {said}")


def methods_by_answers(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw every method that is compared by answers on a set, under a protocol."""
    rows, questions = [], []
    protocol = labels.protocols[cell["protocol"]]
    for names, frame, metadata in answer_records(files, labels):
        if names["protocol"] != cell["protocol"]:
            continue
        answers = Answers(frame, metadata)
        parts = [answers.parts(target) for target in answers.targets]
        joined = {kind: pd.concat([one[kind] for one in parts]) for kind in KINDS}
        whole = shown_row(joined, protocol, labels.results)
        single = [shown_row(one, protocol, labels.results)["score"] for one in parts]
        score = (whole["score"], whole["low"], whole["high"])
        own = dict(zip(answers.targets, single, strict=True))
        name = labels.of("methods", names["method"])
        rows.append(Row(name, score, own, whole["untouched"], whole["control"]))
        questions.append(whole["questions"])
    rows.sort(key=lambda row: -row.score[0])
    judged = "" if metadata["judge"] else " No judge: relevant is what does not repeat itself."
    note = (
        f"{labels.results['confidence']:.0%} intervals over"
        f" {count_of(questions, 'test questions')}; settings were chosen on"
        f" {'the same' if protocol['tuning'] == 'paper' else 'others'}.{judged}"
    )
    title = f"{labels.of('models', cell['model'])}: answers in the target language"
    draw_answers(rows, title + labels.under(cell["protocol"]), stem, labels.language_names, note)
