"""Table of the experts that a selection gives to languages."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from langneurons.reporting.labels import Labels
from langneurons.reporting.records import neuron_tables, statistics
from langneurons.reporting.tables.write import write_table

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

PLACE = ["layer", "expert"]
METHOD = "experts"
COLUMNS = ("lang", *PLACE, "tokens", "frequency", "weight", "entropy", "specific_to")


def experts_of(table: "NeuronTable") -> pd.DataFrame:
    """Return the (lang, layer, expert) of a table, with the other columns of the expert."""
    return table.frame.drop_duplicates(["lang", *PLACE]).drop(columns="neuron")


def expert_rows(
    tables: "Iterable[tuple[Mapping[str, str], NeuronTable]]",
    measured: "Mapping[tuple[str, str], Statistics]",
) -> pd.DataFrame:
    """Return a row per expert that a table gives to some language, and language of its set.

    measured: statistics by model and language.
    """
    rows: list[dict[str, Any]] = []
    named: Mapping[str, str] = {}
    for named, table in tables:
        own = experts_of(table)
        sums = {
            lang: [
                getattr(measured[named["model"], lang], f"expert_{what}")()
                for what in ("tokens", "frequency", "weight")
            ]
            for lang in table.languages
        }
        for (layer, expert), group in own.groupby(PLACE, sort=True):
            owners = [lang for lang in table.languages if lang in set(group["lang"])]
            for lang in table.languages:
                tokens, frequency, weight = (one[layer, expert] for one in sums[lang])
                row: dict[str, Any] = {**named, "lang": lang, "layer": layer, "expert": expert}
                row |= {"tokens": int(tokens), "frequency": float(frequency)}
                row |= {"weight": float(weight), "entropy": float(group["score"].iloc[0])}
                rows.append(row | {"specific_to": ", ".join(owners)})
    # Without an expert the table still has its columns.
    return pd.DataFrame(rows, columns=[*named, *COLUMNS])


def tabulate_experts(
    files: list[str], activations: list[str], labels: Labels, folder: Path
) -> None:
    """Write the table of experts."""
    tables = [one for one in neuron_tables(files, labels) if one[1].metadata["method"] == METHOD]
    models = {names["model"] for names, _ in tables}
    measured = {
        (names["model"], one.lang): one
        for names, one in statistics(activations)
        if names["model"] in models
    }
    write_table(
        labels.shown(expert_rows(tables, measured)),
        folder / "experts",
        "Experts of languages",
        "tokens: tokens of the language that are routed to the expert; frequency: their share of"
        " all; weight: routing weight, mean over all tokens; entropy: of the frequencies over the"
        " languages of the set, in nats; specific_to: the languages that the expert belongs to.",
    )
