"""Figures of neurons and of activations."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from langneurons.base.errors import present
from langneurons.reporting.figures.canvas import (
    CELL,
    NAMES,
    OKABE_ITO,
    PAGE,
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
    lines_in,
    name_of,
    plain_axes,
    rows_and_columns,
    short_number,
    upper_end,
    whole_ticks,
    with_names,
    wrapped,
)
from langneurons.reporting.labels import Labels
from langneurons.reporting.lettering import one_line
from langneurons.reporting.records import neuron_tables, statistics
from langneurons.reporting.tables.neurons import (
    UNMEASURED,
    activation_statistics,
    expected_overlap,
    neuron_counts,
)

if TYPE_CHECKING:
    from langneurons.selection.table import NeuronTable


def draw_neurons(
    counts: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
    note: str = "",
) -> None:
    """Draw neurons per language, bars with their values, one group of bars per selection.

    `counts` has lang, selection, neurons. Groups have their own scale: selections differ in size
    by orders of magnitude. `note` says of how many tokens they were selected (`read_on`).
    """
    selections = list(dict.fromkeys(counts["selection"]))
    langs = [lang for lang in order if lang in set(counts["lang"])]
    rows, columns = rows_and_columns(len(selections), 3)
    heads = max(wrapped(selection, 28).count("\n") for selection in selections)
    shown = [name_of(lang, names) for lang in langs]
    below = 0.18 * lines_in(shown) * len(langs)
    width, height = 1.2 + 2.0 * columns, rows * (0.65 + 0.14 * heads + below)
    with canvas(stem, max(4.5, width), height, title, note) as figure:
        axes = add_panels(figure, rows, columns, len(selections), sharey=True)
        for number, (axis, selection) in enumerate(zip(axes, selections, strict=True)):
            own = counts[counts["selection"] == selection].set_index("lang")["neurons"]
            own = own.reindex(langs)
            places = np.arange(len(langs))
            colour = OKABE_ITO[number % len(OKABE_ITO)]
            axis.barh(places, own.fillna(0), height=0.72, color=colour)
            top = max(float(own.max()) if own.notna().any() else 0.0, 1.0)
            for place, value in zip(places, own, strict=True):
                if not math.isnan(value):
                    end = value + 0.02 * top
                    axis.text(end, float(place), f"{int(value):,}", va="center", fontsize=7)
                    text = f"{langs[place]}, {one_line(selection)}: {int(value):,} neurons"
                    add_tip(axis, 0, place - 0.36, text, value, 0.72)
            axis.set_xlim(0, 1.3 * top)
            whole_ticks(axis.xaxis, top, 3)
            axis.set_title(wrapped(selection, 28))
            axis.set_yticks(places, shown)
            axis.set_xlabel("neurons")
            axis.tick_params(axis="y", length=0)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylim(len(langs) - 0.4, -0.6)


def read_on(table: "NeuronTable") -> str:
    """Return on how many tokens per language the neurons of a table were selected."""
    tokens = table.metadata.get("tokens") or {}
    return (
        f"Selected on text of {count_of(tokens.values(), 'tokens')} per language." if tokens else ""
    )


def draw_overlap(
    table: "NeuronTable",
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    families: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw how many neurons two languages share (diagonal: their own) and the Jaccard index.

    A third panel sets the shared ones beside chance: how many two random sets with as many neurons
    in each layer share. With `families` languages stand by family, in the order of each family's
    first language, lines between them.
    """
    langs = [lang for lang in order if lang in table.languages]
    if families is not None:
        langs, borders = by_family(langs, families)
    shared = table.overlap().loc[langs, langs]
    jaccard = 100 * table.jaccard().loc[langs, langs].to_numpy(np.float64)
    np.fill_diagonal(jaccard, np.nan)
    jaccard = pd.DataFrame(jaccard, langs, langs)
    chance = expected_overlap(table).loc[langs, langs].to_numpy(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(chance > 0, shared.to_numpy(np.float64) / chance, np.nan)
    np.fill_diagonal(times, np.nan)
    cmap = colour_map("cividis")
    page = layout_of([with_names(shared, names)] * 3, most=2)
    pairs = chance[~np.eye(len(langs), dtype=bool)]
    note = read_on(table)
    if pairs.size:
        least, mean, greatest = map(short_number, (pairs.min(), pairs.mean(), pairs.max()))
        note += (
            f" Chance: random sets with as many neurons in each layer share {least} to {greatest},"
            f" {mean} on average."
        )
    top = max(1, int(shared.to_numpy().max(initial=0)))
    highest = np.nanmax(jaccard.to_numpy(), initial=0.0)
    most = np.nanmax(np.where(np.isfinite(times), times, np.nan), initial=0.0)
    panels = (
        (shared, PowerNorm(0.5, 0, top), str, "Shared neurons (diagonal: own)"),
        (
            jaccard,
            Normalize(0, highest if highest > 0 else 1.0),
            lambda one: "" if math.isnan(one) else f"{one:.1f}",
            "Jaccard index: shared / union, in %",
        ),
        (
            pd.DataFrame(times, langs, langs),
            PowerNorm(0.5, 0, max(1.0, most)),
            short_number,
            "Shared, in multiples of chance",
        ),
    )
    bars = ("neurons (square-root scale)", "Jaccard index (%)", "times chance (square-root scale)")
    height = page.height + 0.5 * (page.rows - 1)  # each panel has a scale of its own
    with canvas(stem, page.width, height, title, note) as figure:
        axes = add_panels(figure, page.rows, page.columns, 3)
        for number, (axis, (frame, norm, shown, head), label) in enumerate(
            zip(axes, panels, bars, strict=True)
        ):
            text = frame.map(shown).to_numpy() if is_numbered(frame) else None
            draw_cells(axis, with_names(frame, names), cmap, norm, text)
            axis.set_title(head)
            bar = add_colour_bar(figure, axis, cmap, norm, label)
            if frame is not jaccard:
                whole_ticks(bar.ax.xaxis, upper_end(norm))
            if number % page.columns:
                axis.tick_params(labelleft=False)
        if families is not None:
            for axis in axes:
                _separate(axis, langs, borders, families)


def by_family(langs: Sequence[str], families: Mapping[str, str]) -> tuple[list[str], list[int]]:
    """Return languages grouped by family, and the places at which a new family begins.

    Families follow the order of their first language; a language of no family stands alone.
    """
    groups: dict[str, list[str]] = {}
    for lang in langs:
        groups.setdefault(families.get(lang) or f"({lang})", []).append(lang)
    starts = np.cumsum([len(members) for members in groups.values()])[:-1]
    return [lang for members in groups.values() for lang in members], starts.tolist()


def _separate(
    axis: Axes, langs: Sequence[str], borders: Sequence[int], families: Mapping[str, str]
) -> None:
    """Draw lines between families, and their names above the columns."""
    for border in borders:
        axis.axvline(border - 0.5, color="black", linewidth=1.4)
        axis.axhline(border - 0.5, color="black", linewidth=1.4)
    edges = [0, *borders, len(langs)]
    above = axis.secondary_xaxis("top")
    places = [(first + last - 1) / 2 for first, last in zip(edges, edges[1:], strict=False)]
    names = [families.get(langs[first]) or langs[first] for first in edges[:-1]]
    above.set_xticks(places, names, rotation=90, fontsize=7)
    above.tick_params(length=0)
    above.spines[:].set_visible(False)


def draw_layers(
    table: "NeuronTable",
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw neurons per layer and language, and above it the distinct neurons of each layer."""
    langs = [lang for lang in order if lang in table.languages]
    counts = table.layer_counts().loc[langs]
    distinct = table.frame.drop_duplicates(["layer", "neuron"])["layer"].value_counts()
    distinct = distinct.reindex(range(table.n_layers), fill_value=0)
    cmap, norm = colour_map("cividis"), Normalize(0, max(1, int(counts.to_numpy().max(initial=0))))
    numbered = is_numbered(counts)
    room = PAGE - NAMES - 0.7
    across = min(room, table.n_layers * (CELL if numbered else 0.2))
    counts.index = [name_of(lang, names) for lang in langs]
    below = max(0.9, len(langs) * 0.21 * lines_in(counts.index))
    width = NAMES + 0.7 + max(2.0, across)
    with canvas(stem, width, below + 1.5, title, read_on(table)) as figure:
        profile, axis = figure.subplots(2, 1, sharex=True, height_ratios=[1.0, below])
        profile.bar(range(table.n_layers), distinct, width=0.8, color="0.45")
        profile.set_ylabel("distinct\nneurons")
        whole_ticks(profile.yaxis, max(1, distinct.max()), 3)
        profile.set_ylim(0, max(1, 1.08 * distinct.max()))
        plain_axes(profile, "y")
        text = counts.map(str).to_numpy() if numbered else None
        draw_cells(axis, counts, cmap, norm, text)
        profile.tick_params(axis="x", which="both", length=0, labelbottom=False)
        step = 1 if numbered else max(1, math.ceil(table.n_layers / 16))
        ticks = list(range(0, table.n_layers, step))
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.tick_params(axis="x", labelrotation=0)
        axis.set_xlabel("layer (0 is nearest to the input)")
        bar = add_colour_bar(figure, axis, cmap, norm, "neurons", beside=True)
        whole_ticks(bar.ax.yaxis, upper_end(norm))


# Centres of the circles and of the regions, keyed by membership (first, second, third).
_CIRCLES = ((-0.52, 0.3), (0.52, 0.3), (0.0, -0.6))
_REGIONS = {
    (1, 0, 0): (-0.98, 0.5),
    (0, 1, 0): (0.98, 0.5),
    (0, 0, 1): (0.0, -1.15),
    (1, 1, 0): (0.0, 0.68),
    (1, 0, 1): (-0.58, -0.34),
    (0, 1, 1): (0.58, -0.34),
    (1, 1, 1): (0.0, 0.0),
}


def venn_counts(masks: Sequence[np.ndarray]) -> dict[tuple[int, int, int], int]:
    """Return how many neurons lie in each of the seven regions of three sets."""
    code = sum(mask.astype(np.int64) << place for place, mask in enumerate(masks))
    found = np.bincount(np.ravel(code), minlength=8)
    return {key: int(found[key[0] + 2 * key[1] + 4 * key[2]]) for key in _REGIONS}


def draw_venn(
    table: "NeuronTable",
    triples: Sequence[Sequence[str]],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw one panel per triple of languages: counts in the seven regions of three circles."""
    if not triples:
        raise ValueError("no triples of languages to draw; name them under results.venn")
    rows, columns = rows_and_columns(len(triples), 3)
    note = f"Numbers are neurons; areas are not to scale. {read_on(table)}"
    with canvas(stem, max(3.5, 2.4 * columns), 2.4 * rows, title, note) as figure:
        for axis, triple in zip(
            add_panels(figure, rows, columns, len(triples)), triples, strict=True
        ):
            masks = [table.mask(lang) for lang in triple]
            for lang, mask, (x, y), colour in zip(
                triple, masks, _CIRCLES, OKABE_ITO[:3], strict=True
            ):
                axis.add_patch(Circle((x, y), 0.9, color=colour, alpha=0.22, linewidth=0))
                axis.add_patch(Circle((x, y), 0.9, fill=False, edgecolor=colour, linewidth=1.2))
                label = f"{name_of(lang, names)}\n{int(mask.sum()):,}"
                place = (x * 1.75, 1.24) if y > 0 else (0.0, -1.55)
                up = "bottom" if y > 0 else "top"
                axis.text(*place, label, ha="center", va=up, fontsize=7)
            for key, number in venn_counts(masks).items():
                axis.text(*_REGIONS[key], f"{number:,}", ha="center", va="center", fontsize=7)
            axis.set(xlim=(-1.75, 1.75), ylim=(-2.15, 1.85), aspect="equal")
            axis.axis("off")


def draw_activations(
    frame: pd.DataFrame,
    order: Sequence[str],
    title: str,
    stem: str | os.PathLike,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw per language the ranges between quantiles and the mean, averaged over all neurons.

    `frame` is what `tables.activation_statistics` returns; one panel per model.
    """
    frame = frame if "model" in frame else frame.assign(model="")
    models = list(dict.fromkeys(frame["model"]))
    langs = [lang for lang in order if lang in set(frame["lang"])]
    site = str(frame["site"].iloc[0]) if "site" in frame else "activation"
    ranges = (
        ("p05", "p95", 1.2, "5-95 %"),
        ("p10", "p90", 3.2, "10-90 %"),
        ("p25", "p75", 7.0, "25-75 %"),
    )
    shades = ("#56B4E9", "#0072B2", "#003B5C")
    handles: list[Line2D] = []
    rows, columns = rows_and_columns(len(models), 3)
    shown = [name_of(lang, names) for lang in langs]
    below = 0.18 * lines_in(shown) * len(langs)
    size = (max(4.8, 1.8 + 1.8 * columns), rows * (0.7 + below) + 0.1)
    tokens = count_of(frame["tokens"], "tokens") if "tokens" in frame else ""
    note = f"Per neuron over {tokens} of a language, then averaged over neurons." if tokens else ""
    with canvas(stem, *size, title, note) as figure:
        axes = add_panels(figure, rows, columns, len(models), sharey=True)
        for axis, model in zip(axes, models, strict=True):
            own = frame[frame["model"] == model].set_index("lang").reindex(langs)
            places = np.arange(len(langs))
            handles = []
            for (low, high, width, name), shade in zip(ranges, shades, strict=True):
                # Quantiles that the statistics lack (a thin run) leave no range.
                if low not in own or high not in own:
                    continue
                lines = axis.hlines(places, own[low], own[high], color=shade, linewidth=width)
                lines.set_capstyle("butt")
                handles.append(Line2D([], [], color=shade, linewidth=width, label=name))
            axis.plot(
                own["mean"], places, "o", color="#E69F00", markeredgecolor="white", markersize=5.5
            )
            axis.axvline(0, color="0.3", linewidth=0.8, zorder=0)
            axis.set_yticks(places, shown)
            axis.tick_params(axis="y", length=0)
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.set_xlabel(f"{site}, averaged over neurons")
            axis.set_title(wrapped(model, 36) if len(models) > 1 else "")
            plain_axes(axis)
        axes[0].set_ylim(len(langs) - 0.4, -0.6)
        handles.append(
            Line2D([], [], color="#E69F00", marker="o", linestyle="", markersize=5.5, label="mean")
        )
        add_legend(figure, handles)


# By cell ---------------------------------------------------------------------------------------


def _one_table(files: list[str], labels: Labels) -> tuple[str, "NeuronTable"]:
    """Return the labels of model and selection, and the only neuron table."""
    ((names, table),) = neuron_tables(files, labels)
    model, selection = labels.of("models", names["model"]), names["selection"]
    return f"{model}, {labels.of('selections', selection)}", table


def neurons_per_language(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the neurons per language of every selection on a set."""
    tables = neuron_tables(files, labels)
    title = f"{labels.of('models', cell['model'])}: neurons per language"
    counts, langs = labels.shown(neuron_counts(tables)), labels.order(cell["languages"])
    draw_neurons(counts, langs, title, stem, labels.language_names, read_on(tables[0][1]))


def shared_neurons(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the neurons that languages share."""
    of, table = _one_table(files, labels)
    families = labels.families if labels.results["group_by"] == "family" else None
    title, langs = f"{of}: neurons that languages share", labels.order(cell["languages"])
    draw_overlap(table, langs, title, stem, families, labels.language_names)


def neurons_by_layer(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the neurons by language and layer."""
    of, table = _one_table(files, labels)
    title, langs = f"{of}: neurons by language and layer", labels.order(cell["languages"])
    draw_layers(table, langs, title, stem, labels.language_names)


def three_languages(files: list[str], cell: dict[str, str], labels: Labels, stem: str) -> None:
    """Draw the neurons that three languages share."""
    of, table = _one_table(files, labels)
    triples = [one for one in labels.results["venn"] if set(one) <= set(table.languages)]
    draw_venn(table, triples, f"{of}: neurons of three languages", stem, labels.language_names)


def activations_by_language(
    files: list[str], cell: dict[str, str], labels: Labels, stem: str
) -> None:
    """Draw the distribution of activations by language."""
    frame = labels.shown(activation_statistics(statistics(files), present(labels.site, UNMEASURED)))
    title = f"{labels.of('models', cell['model'])}: activations by language"
    draw_activations(frame, labels.order(), title, stem, labels.language_names)
