"""Figures of language forcing, fallback order and logit lens."""

import math
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from langneurons.base.words import UNTOUCHED
from langneurons.reporting.figures.canvas import (
    MARKERS,
    OKABE_ITO,
    add_colour_bar,
    add_legend,
    add_panels,
    add_tip,
    canvas,
    colour_map,
    count_of,
    draw_cells,
    is_numbered,
    layout_of,
    name_of,
    plain_axes,
    rows_and_columns,
    with_names,
    wrapped,
)
from langneurons.reporting.labels import Labels
from langneurons.reporting.records import generation_records, lens_records
from langneurons.reporting.tables.generation import fallback_shares, forcing_pairs, lens_layers

CURVES = (
    ("mass_own", "prompt's language"),
    ("mass_target", "target"),
    ("mass_english", "English"),
    ("mass_others", "other languages of the set"),
)


def _percent(frame: pd.DataFrame) -> np.ndarray:
    return frame.map(lambda one: "" if math.isnan(one) else f"{one:.0f}").to_numpy()


def _matrix(pairs: pd.DataFrame, value: str, order: Sequence[str]) -> pd.DataFrame:
    """Return per cent, source (rows) x target (columns), in the given order."""
    wide = 100 * pairs.pivot(index="source", columns="target", values=value)
    rows = [lang for lang in order if lang in wide.index]
    return wide.loc[rows, [lang for lang in order if lang in wide.columns]]


def draw_forcing(
    selections: Sequence[tuple[str, pd.DataFrame]],
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw success, success without degenerate answers, and the untouched model, by selection.

    One row of panels per selection; cells are per cent of answers in the target language.
    """
    values = (
        ("success", "in the target language"),
        ("intact", "the same, not degenerate"),
        ("baseline", "untouched model"),
    )
    frames = [
        (f"{name}: {what}", _matrix(pairs, value, order))
        for name, pairs in selections
        for value, what in values
    ]
    page = layout_of([with_names(frame, names) for _, frame in frames], most=3)
    colours, norm = colour_map("cividis"), Normalize(0, 100)
    asked = count_of((one for _, pairs in selections for one in pairs["n"]), "questions")
    note = (
        f"Per cent of answers, {asked} per cell. Diagonal: the question's own language is forced."
    )
    with canvas(stem, page.width, page.height, title, note) as figure:
        axes = add_panels(figure, page.rows, page.columns, len(frames))
        for number, (axis, (name, frame)) in enumerate(zip(axes, frames, strict=True)):
            text = _percent(frame) if is_numbered(frame) else None
            draw_cells(axis, with_names(frame, names), colours, norm, text)
            axis.set_title(wrapped(name, max(24, int(page.across * 12))))
            axis.set_xlabel("target language")
            if number % page.columns == 0:
                axis.set_ylabel("language of the question")
            else:
                axis.tick_params(labelleft=False)
        add_colour_bar(figure, axes, colours, norm, "answers in the target language (%)")


def draw_fallback(
    selections: Sequence[tuple[str, pd.DataFrame]],
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
    most: int = 12,
) -> None:
    """Draw which languages answers are in while more languages' neurons are overwritten.

    One panel per selection: steps (rows) x identified language (columns). Languages outside `order`
    are summed up, but for `most` in all.
    """
    frames = []
    for name, table in selections:
        wide = 100 * table.pivot(index="step", columns="language", values="share")
        first = table.drop_duplicates("step").set_index("step")
        known = [lang for lang in order if lang in wide]
        others = wide.drop(columns=known).max().sort_values(ascending=False, kind="stable")
        kept = [*known, *sorted(others.index[: max(0, most - len(known))])]
        shown = wide[kept].assign(rest=wide.drop(columns=kept).sum(axis=1))
        shown.index = [
            "untouched" if step == 0 else f"+ {name_of(first.loc[step, 'added'], names)}"
            for step in wide.index
        ]
        shown["degenerate"] = 100 * first["degenerate"].to_numpy()
        frames.append((name, shown))
    page = layout_of([frame for _, frame in frames], most=1, names=1.3)
    tallest = max(frame.shape[0] for _, frame in frames)
    height = page.rows * (0.2 * tallest + 1.5) + 0.6
    colours, norm = colour_map("cividis"), Normalize(0, 100)
    answers = count_of((one for _, table in selections for one in table["n"]), "answers")
    note = (
        f"{answers} per row. Columns: identified language (und: no letter); the last is the share"
        " of degenerate ones."
    )
    with canvas(stem, page.width, height, title, note) as figure:
        axes = add_panels(figure, page.rows, 1, len(frames))
        for axis, (name, frame) in zip(axes, frames, strict=True):
            shown = frame.set_axis([name_of(lang, names) for lang in frame.columns], axis=1)
            draw_cells(axis, shown, colours, norm, _percent(frame))
            axis.set_title(wrapped(name, 40))
            axis.axvline(frame.shape[1] - 1.5, color="black", linewidth=1.2)
            axis.set_ylabel("neurons overwritten, cumulated")
        add_colour_bar(figure, axes, colours, norm, "share of answers (%)")


def draw_lens(
    layers: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw what the untouched model would say at each layer, a panel per prompt language.

    Curves: probability on tokens of the prompt's language, of English, of the set's others; dotted,
    on the right axis, the entropy in nats.
    """
    layers = layers[layers["target"] == UNTOUCHED]
    langs = [lang for lang in order if lang in set(layers["lang"])]
    rows, columns = rows_and_columns(len(langs), 3)
    note = (
        f"Means over {count_of(layers['prompts'], 'prompts')} per language. Dotted, right axis:"
        " entropy in nats. Layer 0 is nearest to the input."
    )
    with canvas(stem, 1.9 * columns + 1.5, 1.8 * rows + 0.4, title, note) as figure:
        axes = add_panels(figure, rows, columns, len(langs), sharex=True, sharey=True)
        highest = 1.05 * float(layers["entropy"].max())
        handles: list[Line2D] = []
        for place, (axis, lang) in enumerate(zip(axes, langs, strict=True)):
            own = layers[layers["lang"] == lang].sort_values("layer")
            handles = []
            for number, (key, label) in enumerate(CURVES):
                if key == "mass_target":
                    continue
                (line,) = axis.plot(
                    own["layer"],
                    own[key],
                    color=OKABE_ITO[number],
                    marker=MARKERS[number],
                    markersize=3,
                    label=label,
                )
                handles.append(line)
                for _, one in own.iterrows():
                    text = f"{name_of(lang, names)}, layer {one['layer']}, {label}: {one[key]:.3f}"
                    add_tip(axis, one["layer"], one[key], text)
            _finish(axis, name_of(lang, names))
            right = axis.twinx()
            (line,) = right.plot(
                own["layer"], own["entropy"], ":", color="0.35", label="entropy (right)"
            )
            handles.append(line)
            right.set_ylim(0, highest)
            right.spines["top"].set_visible(False)
            last = place % columns == columns - 1 or place == len(langs) - 1
            right.tick_params(labelright=last)
        add_legend(figure, handles)


def draw_lens_change(
    layers: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw the same with (solid) and without (dashed) an intervention.

    One panel per selection and target, averaged over the prompts of the other languages.
    """
    touched = layers[layers["target"] != UNTOUCHED]
    touched = touched[touched["lang"] != touched["target"]]
    plain_rows = layers[layers["target"] == UNTOUCHED].set_index(["lang", "layer"])
    frames = []
    for (selection, target), part in touched.groupby(["selection", "target"], sort=False):
        before = plain_rows.loc[pd.MultiIndex.from_frame(part[["lang", "layer"]])]
        mean = part.groupby("layer")[["mass_own", "mass_target", "mass_english"]].mean()
        without = before.groupby(level="layer")[["mass_own", "mass_english"]].mean()
        frames.append((f"{selection}: {name_of(target, names)}", mean, without))
    rows, columns = rows_and_columns(len(frames), 3)
    prompts = count_of(
        touched.groupby(["selection", "target", "layer"])["prompts"].sum(), "prompts"
    )
    note = (
        "Solid: neurons written; dashed: untouched. Means over the prompts of the other languages,"
        f" {prompts}."
    )
    with canvas(stem, 1.9 * columns + 1.5, 1.9 * rows + 0.4, title, note) as figure:
        axes = add_panels(figure, rows, columns, len(frames), sharex=True, sharey=True)
        for axis, (name, mean, without) in zip(axes, frames, strict=True):
            for number, (key, label) in enumerate(CURVES[:3]):
                colour = OKABE_ITO[number]
                axis.plot(mean.index, mean[key], color=colour, marker=MARKERS[number], markersize=3)
                axis.lines[-1].set_label(label)
                if key in without:
                    axis.plot(without.index, without[key], "--", color=colour, linewidth=1.0)
            _finish(axis, name)
        add_legend(figure, axes[0].get_legend_handles_labels()[0])


def _finish(axis: Axes, title: str) -> None:
    axis.set_title(wrapped(title, 36))
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("layer")
    axis.set_ylabel("probability")
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    plain_axes(axis, "y")
    axis.label_outer()


# By cell ---------------------------------------------------------------------------------------


def _judged(
    files: list[str],
    cell: dict[str, str],
    labels: Labels,
    table: Callable[[pd.DataFrame, Mapping], pd.DataFrame],
) -> list[tuple[str, pd.DataFrame]]:
    """Return a panel per selection: its label and the table of its records."""
    return [
        (labels.of("selections", names["selection"]), table(frame, labels.results))
        for names, frame in generation_records(files, labels, cell["protocol"])
    ]


def _named(cell: dict[str, str], labels: Labels, what: str) -> str:
    name = labels.of("interventions", cell["intervention"])
    return f"{labels.of('models', cell['model'])}: {what}, intervention {name}"


def success_of_forcing(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the success of language forcing."""
    panels = _judged(files, cell, labels, forcing_pairs)
    title, langs = _named(cell, labels, "language forcing"), labels.order(cell["languages"])
    draw_forcing(panels, langs, title, stem, labels.language_names)


def languages_of_answers(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the languages of answers under cumulative deactivation."""
    panels = _judged(files, cell, labels, fallback_shares)
    title, langs = _named(cell, labels, "languages of answers"), labels.order(cell["languages"])
    draw_fallback(panels, langs, title, stem, labels.language_names)


def lens_of_the_untouched_model(
    files: list[str], cell: dict[str, str], labels: Labels, stem: str
) -> None:
    """Draw what each layer of the untouched model would say."""
    ((_, frame, _),) = lens_records(files, labels, cell["protocol"])
    title = f"{labels.of('models', cell['model'])}: what each layer would say next"
    langs = labels.order(cell["languages"])
    draw_lens(lens_layers(frame), langs, title, stem, labels.language_names)


def lens_under_an_intervention(
    files: list[str], cell: dict[str, str], labels: Labels, stem: str
) -> None:
    """Draw what each layer would say with neurons written."""
    ((_, frame, _),) = lens_records(files, labels, cell["protocol"])
    kept = frame[frame["intervention"].isin([UNTOUCHED, cell["intervention"]])]
    title = _named(cell, labels, "what each layer would say next")
    layers, langs = labels.shown(lens_layers(kept)), labels.order(cell["languages"])
    draw_lens_change(layers, langs, title, stem, labels.language_names)
