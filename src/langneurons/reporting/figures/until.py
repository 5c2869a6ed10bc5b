"""How much text a selection needed: agreement against tokens, and where reading stopped."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from langneurons.reporting.figures.canvas import (
    MARKERS,
    OKABE_ITO,
    PAGE,
    add_legend,
    add_tip,
    canvas,
    extra_width,
    name_of,
    plain_axes,
)
from langneurons.reporting.labels import Labels
from langneurons.reporting.records import until_records
from langneurons.reporting.tables.until import COMPARED, budgets_read


def draw_until(
    frame: pd.DataFrame,
    metadata: Mapping[str, Any],
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw the Jaccard index against the tokens that were read, on one language set.

    frame, metadata: the records of a model, of one language set. Tokens are means over languages,
    on a logarithmic axis that ends with the text.
    """
    langs = [lang for lang in order if lang in set(frame["lang"])]
    curve = budgets_read(frame, metadata).sort_values("slices")
    there = sum(metadata["there"][lang] for lang in langs) / len(langs)
    stopped = float(curve["tokens"].iloc[-1])
    shown = [name_of(lang, names) for lang in langs]
    threshold, left = metadata["jaccard"], 1 - metadata["read"] / metadata["slices"]
    width = min(PAGE, 4.6 + extra_width(shown, usual=14))
    with canvas(stem, width, 2.9, title, _said(metadata)) as figure:
        axis = figure.subplots()
        axis.set_xscale("log", base=2)
        handles: list[Line2D] = []
        for number, lang in enumerate(langs):
            own = frame[frame["lang"] == lang].sort_values("slices")
            face: dict[str, Any] = {"color": OKABE_ITO[number % 6], "marker": MARKERS[number % 7]}
            if number >= 6:  # colours begin again
                face["markerfacecolor"] = "white"
            label = shown[number].replace("\n", " ")
            places = list(curve["tokens"])
            values = [*own["jaccard"]]
            (line,) = axis.plot(places, values, markersize=3.5, linewidth=0.7, label=label, **face)
            handles.append(line)
            for place, (_, one) in zip(places, own.iterrows(), strict=True):
                said = f"{lang}, {int(one['tokens']):,} tokens: {one['jaccard']:.3f}"
                add_tip(axis, place, one["jaccard"], said)
        (mean,) = axis.plot(
            curve["tokens"], curve["jaccard"], color="black", linewidth=1.8, label="mean"
        )
        handles.append(mean)
        line = axis.axhline(
            threshold, color="0.2", linestyle="--", linewidth=1, label=f"threshold {threshold:g}"
        )
        handles.append(line)
        axis.axvline(stopped, color="0.2", linewidth=1)
        what = "stopped here" if metadata["stable"] and left else "end of the text"
        axis.annotate(
            what, (stopped, 0), (-3, 4), textcoords="offset points", rotation=90, ha="right"
        )
        if left:
            axis.axvspan(stopped, there, color="0.92", zorder=0)
            middle = (stopped * there) ** 0.5
            axis.annotate(f"not read: {left:.0%}", (middle, 0.03), ha="center")
        ticks = [there * 2.0**-power for power in range(metadata["slices"].bit_length() - 1)]
        axis.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value):,}"))
        axis.set_xlim(float(curve["tokens"].iloc[0]) / 1.15, there * 1.06)
        axis.set_ylim(0, 1.04)
        axis.set_xlabel("tokens read of a language")
        axis.set_ylabel("Jaccard index of the two parts")
        plain_axes(axis, "y")
        add_legend(figure, handles)


def _said(metadata: Mapping[str, Any]) -> str:
    """Return what was read, in words."""
    tokens, there = (sum(metadata[key].values()) for key in ("tokens", "there"))
    read = f"{tokens:,} of {there:,} tokens of all languages were read"
    if not metadata["stable"]:
        end = "the selection did not become stable"
    elif tokens == there:
        end = "the selection was stable at the end of the text"
    else:
        end = f"{there - tokens:,} ({1 - tokens / there:.0%}) were left"
    return f"Compared: {COMPARED[metadata['halves']]}. {read}; {end}."


def text_needed(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw how much text the selection needed on one language set."""
    ((_, frame, metadata),) = until_records(files, labels)
    folder = next(key for key, name in labels.sets.items() if name == cell["languages"])
    own = frame[frame["langset"] == folder]
    selection = labels.of("selections", labels.until or "")
    title = f"{labels.of('models', cell['model'])}: text that {selection} needed"
    order = labels.order(cell["languages"])
    draw_until(own, metadata, order, title, stem, labels.language_names)
