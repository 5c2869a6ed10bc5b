"""Tables of neurons, of their overlap and of activations."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from langneurons.base.errors import present
from langneurons.reporting.labels import Labels
from langneurons.reporting.records import Names, neuron_tables, statistics
from langneurons.reporting.tables.votes import votes
from langneurons.reporting.tables.write import write_table

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

UNMEASURED = "statistics.histograms: empty, so there are no quantiles to show"
QUANTITIES = ("mean", "p75", "p90", "p95", "p05", "p10", "p25")


def neuron_counts(tables: "Iterable[tuple[Mapping, NeuronTable]]") -> pd.DataFrame:
    """Return one row per table and language; what describes a whole table repeats in its rows."""
    rows = []
    for labels, table in tables:
        multiplicity, alone = table.multiplicity(), exclusive_shares(table)
        whole = {
            "unique": table.unique,
            "pairs": len(table.frame),
            "exactly_one_language": int(multiplicity.get(1, 0)),
            "max_languages": int(multiplicity.index.max()) if len(multiplicity) else 0,
        }
        for lang, number in table.counts().items():
            own = {"neurons": int(number), "exclusive": alone[lang]} | _experts(table, lang)
            rows.append({**labels, "lang": lang, **own, **whole})
    return pd.DataFrame(rows)


def _experts(table: "NeuronTable", lang: str) -> dict[str, int]:
    """Return how many experts hold a language's neurons; nothing of a dense model."""
    if "expert" not in table.frame:
        return {}
    own = table.frame[table.frame["lang"] == lang]
    return {"experts": len(own.drop_duplicates(["layer", "expert"]))}


def exclusive_shares(table: "NeuronTable") -> pd.Series:
    """Return the share of each language's neurons that belong to no other; NaN without any."""
    alone = ~table.frame.duplicated(["layer", "neuron"], keep=False)
    own = table.frame["lang"][alone].value_counts()
    counts = table.counts()
    return (own.reindex(counts.index, fill_value=0) / counts.where(counts > 0)).astype(float)


def overlap_counts(tables: "Iterable[tuple[Mapping, NeuronTable]]") -> pd.DataFrame:
    """Return one row per table and unordered pair of languages: shared neurons and Jaccard.

    chance: how many neurons two random sets with as many neurons in each layer share on average.
    """
    rows = []
    for labels, table in tables:
        shared, jaccard = table.overlap().to_numpy(), table.jaccard().to_numpy()
        chance = expected_overlap(table).to_numpy()
        for i, first in enumerate(table.languages):
            for j in range(i + 1, len(table.languages)):
                pair = {"lang": first, "other": table.languages[j]}
                values = {"shared": int(shared[i, j]), "chance": float(chance[i, j])}
                rows.append({**labels, **pair, **values, "jaccard": float(jaccard[i, j])})
    columns = ["lang", "other", "shared", "chance", "jaccard"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def expected_overlap(table: "NeuronTable") -> pd.DataFrame:
    """Return how many neurons two languages share if each draws its own number in each layer."""
    counts = table.layer_counts().to_numpy(np.float64)
    chance = counts @ counts.T / table.width
    return pd.DataFrame(chance, table.languages, table.languages)


def selection_overlap(tables: "Iterable[tuple[Mapping, NeuronTable]]") -> pd.DataFrame:
    """Return one row per model, language and pair of selections, of the same units, on one set.

    shared: neurons that both assign to the language; chance: how many they would share on average
    if both were random sets of these sizes, or, of a random selection, if it were drawn again: of
    the neurons that it may contain, in the layers that it follows.
    """
    rows: list[dict[str, Any]] = []
    groups: dict[tuple, list[tuple[Mapping, NeuronTable]]] = {}
    for labels, table in tables:
        groups.setdefault((labels["model"], labels["languages"]), []).append((labels, table))
    for (model, languages), members in groups.items():
        named = {names["selection"]: table for names, table in members}
        for (first, one), (second, other) in itertools.combinations(members, 2):
            if one.units != other.units:
                continue
            for lang in one.languages:
                masks = one.mask(lang), other.mask(lang)
                sizes = [int(mask.sum()) for mask in masks]
                shared = int((masks[0] & masks[1]).sum())
                union = sum(sizes) - shared
                row = {"model": model, "languages": languages, "lang": lang}
                row |= {"selection": first["selection"], "other": second["selection"]}
                row |= {"neurons": sizes[0], "other_neurons": sizes[1], "shared": shared}
                row |= {"chance": _chance(one, other, lang, named)}
                rows.append(row | {"jaccard": shared / union if union else math.nan})
    columns = ["model", "languages", "lang", "selection", "other", "neurons", "other_neurons"]
    return pd.DataFrame(rows, columns=[*columns, "shared", "chance", "jaccard"])


def _chance(
    one: "NeuronTable", other: "NeuronTable", lang: str, named: "Mapping[str, NeuronTable]"
) -> float:
    """Return how many neurons of a language two tables share on average; NaN if not known."""
    pair = one, other
    drawn = [table.metadata.get("method") == "random" for table in pair]
    if not any(drawn):
        sizes = [table.mask(lang).sum() for table in pair]
        return float(sizes[0] * sizes[1] / one.mask(lang).size)
    first, second = (
        _inclusion(table, lang, named) if random else table.mask(lang).astype(np.float64)
        for table, random in zip(pair, drawn, strict=True)
    )
    return math.nan if first is None or second is None else float((first * second).sum())


def _inclusion(
    table: "NeuronTable", lang: str, named: "Mapping[str, NeuronTable]"
) -> np.ndarray | None:
    """Return the probability of each neuron (n_layers, d_mlp) to be in a random selection."""
    mask, settings = table.mask(lang), json.loads(table.metadata.get("parameters", "{}"))
    free = np.ones_like(mask)
    if settings.get("like") is not None:
        like = named.get(settings["like"])
        if like is None:
            return None
        free[like.frame["layer"], like.frame["neuron"]] = False
        if settings.get("match", "layer") != "none":
            number, room = mask.sum(axis=1, keepdims=True), free.sum(axis=1, keepdims=True)
            return free * number / np.maximum(room, 1)
    return free * mask.sum() / max(free.sum(), 1)


def layer_counts(tables: "Iterable[tuple[Mapping, NeuronTable]]") -> pd.DataFrame:
    """Return one row per table and language with a column per layer (layer_0, layer_1, ...)."""
    frames = []
    for labels, table in tables:
        counts = table.layer_counts().rename(columns=lambda layer: f"layer_{layer}")
        counts = counts.rename_axis("lang").reset_index()
        for place, (key, value) in enumerate(labels.items()):
            counts.insert(place, key, value)
        frames.append(counts)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def activation_statistics(
    statistics: "Iterable[tuple[Mapping, Statistics]]", site: str
) -> pd.DataFrame:
    """Return one row per model and language: tokens, each statistic averaged over all neurons."""
    rows = []
    for labels, one in statistics:
        values = {name: float(np.mean(one.value(name, site))) for name in QUANTITIES}
        rows.append({**labels, "lang": one.lang, "site": site, "tokens": one.tokens, **values})
    return pd.DataFrame(rows)


# Written ---------------------------------------------------------------------------------------


def tabulate_neurons(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the tables of neurons, overlap and layers, of directions, and of what neurons carry."""
    every = neuron_tables(files, labels)
    tables = [one for one in every if one[1].units == "neurons"]
    if len(tables) < len(every):
        _tabulate_directions([one for one in every if one[1].units != "neurons"], labels, folder)
    if any("carriers" in table.metadata for _, table in tables):
        write_table(
            labels.shown(carrier_counts(tables)),
            folder / "carriers",
            "How many neurons carry a language's direction",
            "Neurons of a layer whose parts along the direction, the largest first, add up to 50"
            " and 90 per cent of its length: median, least and most over layers.",
        )
    write_table(
        labels.shown(neuron_counts(tables)),
        folder / "neurons",
        "Neurons per language",
        "exclusive: share of the language's neurons that belong to no other language of the set."
        " unique: distinct neurons; pairs: (language, neuron) pairs, as a neuron may have several.",
    )
    write_table(
        labels.shown(overlap_counts(tables)),
        folder / "overlap",
        "Neurons that two languages share",
        "chance: shared on average by random sets with as many neurons in each layer.",
    )
    pairs = labels.shown(selection_overlap(tables))
    write_table(
        pairs.assign(other=[labels.of("selections", one) for one in pairs["other"]]),
        folder / "selections",
        "Neurons that two selections share",
        "Of one language, on one language set; chance: shared on average by two random sets of"
        " these sizes, or with a control drawn anew from the neurons that it may contain.",
    )
    agreed = votes(tables)
    if len(agreed):
        write_table(
            labels.shown(agreed),
            folder / "votes",
            "Neurons by the number of selections that give them to a language",
            "Every selection of neurons votes, random ones aside, on sets with at least three."
            " chance: if each drew as many neurons in each layer, independently of the others."
            " Selections that read the same statistics agree beyond chance: compare methods.",
        )
    layers = labels.shown(layer_counts(tables))
    write_table(layers, folder / "layers", "Neurons per language and layer")


def carrier_counts(tables: "Iterable[tuple[Mapping, NeuronTable]]") -> pd.DataFrame:
    """Return a row per table with write scores and language: neurons that carry its direction."""
    rows = []
    for names, table in tables:
        for lang, levels in table.metadata.get("carriers", {}).items():
            row = {**names, "lang": lang, "layer_neurons": table.d_mlp}
            for level, counts in levels.items():
                row |= {f"carry_{level}": float(np.median(counts))}
                row |= {f"carry_{level}_least": min(counts), f"carry_{level}_most": max(counts)}
            rows.append(row)
    return pd.DataFrame(rows)


def direction_cosines(tables: "Iterable[tuple[Mapping, NeuronTable]]") -> pd.DataFrame:
    """Return a row per table and pair of languages: cosine of their directions, mean over layers.

    Layers in which one of the two has no direction are left out; length: mean of the first's.
    """
    rows = []
    for names, table in tables:
        values = {lang: table.values(lang) for lang in table.languages}
        for first, other in itertools.combinations(table.languages, 2):
            pair = values[first], values[other]
            lengths = [np.linalg.norm(one, axis=1) for one in pair]
            both = (lengths[0] > 0) & (lengths[1] > 0)
            dots = (pair[0] * pair[1]).sum(axis=1)[both]
            cosines = dots / (lengths[0] * lengths[1])[both]
            row = {**names, "lang": first, "other": other, "layers": int(both.sum())}
            row |= {"cosine": float(cosines.mean()) if both.any() else math.nan}
            for key, one in zip(("length", "other_length"), lengths, strict=True):
                row[key] = float(one[both].mean()) if both.any() else math.nan
            rows.append(row)
    return pd.DataFrame(rows)


def _tabulate_directions(
    tables: "list[tuple[Names, NeuronTable]]", labels: Labels, folder: Path
) -> None:
    write_table(
        labels.shown(direction_cosines(tables)),
        folder / "directions",
        "Directions of two languages",
        "cosine: mean over layers in which both languages have a direction; length: mean of the"
        " Euclidean length, in units of the residual stream.",
    )


def tabulate_activations(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the table of activations."""
    write_table(
        labels.shown(activation_statistics(statistics(files), present(labels.site, UNMEASURED))),
        folder / "activations",
        "Activation statistics, averaged over all neurons",
        "Quantiles from log-linear histograms, within the width of a bin.",
    )
