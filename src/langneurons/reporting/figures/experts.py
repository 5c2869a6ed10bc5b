"""Figure of how much more often a language's tokens are routed to each expert."""

import os
from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import MaxNLocator

from langneurons.reporting.figures.canvas import (
    PAGE,
    add_colour_bar,
    add_panels,
    add_tip,
    canvas,
    change_norm,
    colour_map,
    described_scale,
    ink_on,
    name_of,
    rows_and_columns,
)
from langneurons.reporting.figures.neurons import read_on
from langneurons.reporting.labels import Labels
from langneurons.reporting.records import neuron_tables, statistics
from langneurons.reporting.tables.experts import PLACE, experts_of
from langneurons.selection.method import contrasts
from langneurons.selection.table import NeuronTable

TALL = 8.0  # inches of all panels together


def draw_experts(
    frequency: Mapping[str, np.ndarray],
    table: NeuronTable,
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw layers x experts by language: its frequency minus the mean of the other languages'.

    frequency: by language (n_layers, n_experts), in the order of the panels; table: the experts
    that belong to each language, which are marked.
    """
    langs = list(frequency)
    values = 100 * contrasts(np.stack([frequency[lang] for lang in langs]))
    n_layers, n_experts = values.shape[1:]
    (norm, extend), cmap = change_norm(values), colour_map("PuOr_r")
    rows, columns = rows_and_columns(len(langs), 3 if len(langs) <= 9 else 4)
    across = min((PAGE - 0.6) / columns, max(1.8, 0.1 * n_experts))
    down = min(max(1.0, 0.09 * n_layers), max(0.7, TALL / rows - 0.4))
    own = experts_of(table)
    rings = "Rings: experts that belong to the language."
    note = " ".join(filter(None, [rings, read_on(table), described_scale(norm, extend)]))
    width = max(4.5, min(PAGE, 0.6 + columns * across))
    with canvas(stem, width, rows * (down + 0.3) + 0.9, title, note) as figure:
        axes = add_panels(figure, rows, columns, len(langs), sharex=True, sharey=True)
        for number, (axis, lang) in enumerate(zip(axes, langs, strict=True)):
            panel = values[number]
            axis.imshow(panel, cmap=cmap, norm=norm, aspect="auto", interpolation="nearest")
            places = own[own["lang"] == lang][PLACE].to_numpy(np.int64)
            inks = [ink_on(cmap, norm, float(panel[layer, expert])) for layer, expert in places]
            axis.scatter(
                places[:, 1], places[:, 0], s=9, facecolors="none", edgecolors=inks, lw=0.8
            )
            for layer, expert in places:
                said = f"{panel[layer, expert]:+.3g}".replace("-", "\N{MINUS SIGN}")
                text = f"{lang}, layer {layer}, expert {expert}: {said} points"
                add_tip(axis, expert - 0.5, layer - 0.5, text, 1, 1)
            axis.set_title(name_of(lang, names))
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        for axis in axes[::columns]:
            axis.set_ylabel("layer")
        for axis in axes[-columns:]:
            axis.set_xlabel("expert")
            axis.tick_params(labelbottom=True)
        label = "frequency minus the mean of the others', percentage points"
        add_colour_bar(figure, axes, cmap, norm, label, extend)


def experts_by_language(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the frequencies of experts of a set, and those that a selection gives to languages."""
    ((names, table),) = neuron_tables([one for one in files if one.endswith(".parquet")], labels)
    measured = statistics(one for one in files if not one.endswith(".parquet"))
    found = {one.lang: one.expert_frequency() for _, one in measured}
    order = [lang for lang in labels.order(cell["languages"]) if lang in found]
    title = (
        f"{labels.of('models', names['model'])},"
        f" {labels.of('selections', names['selection'])}: frequency of experts by language"
    )
    by_lang = {lang: found[lang] for lang in order}
    draw_experts(by_lang, table, title, stem, labels.language_names)
