"""Training curves."""

import os
from collections.abc import Mapping

import pandas as pd
from matplotlib.ticker import MaxNLocator

from langneurons.base.io import read_records
from langneurons.reporting.figures.canvas import OKABE_ITO, PAGE, add_legend, canvas, plain_axes
from langneurons.reporting.labels import Labels
from langneurons.reporting.layouts import names_of
from langneurons.reporting.lettering import one_line


def draw_curves(curves: Mapping[str, pd.DataFrame], title: str, stem: str | os.PathLike) -> None:
    """Draw loss and accuracy on the training rows over the steps, one line per adapter.

    `curves` by label are what `finetune.finetune` returns.
    """
    note = "One run per line; averaged over the steps between two points."
    with canvas(stem, PAGE, 2.6 + 0.1 * len(curves), title, note) as figure:
        axes = figure.subplots(1, 2)
        for axis, key in zip(axes, ("loss", "accuracy"), strict=True):
            for number, (label, frame) in enumerate(curves.items()):
                style = ("-", "--", ":")[number // 7 % 3]
                axis.plot(
                    frame["step"],
                    frame[key],
                    style,
                    color=OKABE_ITO[number % 7],
                    # Curves that coincide show as bands inside each other.
                    linewidth=1.3 + 0.7 * max(0, min(len(curves), 7) - 1 - number),
                    label=one_line(label),
                )
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.set_xlabel("step")
            axis.set_ylabel(f"training {key}")
            plain_axes(axis, "y")
        add_legend(figure, axes[0].get_lines(), place="outside lower center", ncols=2)


def training_curves(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the curves of every adapter of one fine-tuning."""
    curves = {}
    for path in files:
        adapter = names_of(path, "curves")["adapter"]
        numbers = ("step", "loss", "accuracy", "learning_rate")
        curves[labels.of("adapters", adapter)] = read_records(path, (), numbers, adapter=adapter)[0]
    title = f"{labels.of('models', cell['model'])}: fine-tuning {cell['finetuning']}"
    draw_curves(curves, title + labels.under(cell["protocol"]), stem)
