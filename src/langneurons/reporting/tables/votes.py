"""The table of how many selections give each neuron to a language, beside chance."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from langneurons.reporting.cells import VOTERS

if TYPE_CHECKING:
    from langneurons.selection.table import NeuronTable


def votes(tables: "Iterable[tuple[Mapping, NeuronTable]]") -> pd.DataFrame:
    """Return a row per model, set, language and number of votes: neurons that have so many.

    Selections of neurons vote, random ones aside; sets with fewer than three have no row. chance:
    how many neurons would have that many votes if each selection drew its number of neurons of
    each layer at random, independently of the others.
    """
    groups: dict[tuple[str, str], list[NeuronTable]] = {}
    for labels, table in tables:
        if table.units == "neurons" and table.metadata.get("method") != "random":
            groups.setdefault((labels["model"], labels["languages"]), []).append(table)
    rows: list[dict[str, Any]] = []
    for (model, languages), members in groups.items():
        if len(members) < VOTERS:
            continue
        for lang in members[0].languages:
            masks = np.stack([table.mask(lang) for table in members])
            found = np.bincount(masks.sum(axis=0).ravel(), minlength=len(members) + 1)
            chance = by_chance(masks.sum(axis=2), masks.shape[2])
            for number in range(1, len(members) + 1):
                row: dict[str, Any] = {"model": model, "languages": languages, "lang": lang}
                row |= {"selections": len(members), "votes": number}
                rows.append(row | {"neurons": int(found[number]), "chance": chance[number]})
    columns = ["model", "languages", "lang", "selections", "votes", "neurons", "chance"]
    return pd.DataFrame(rows, columns=columns)


def by_chance(sizes: np.ndarray, width: int) -> list[float]:
    """Return how many neurons have 0, 1, ... votes on average if selections draw independently.

    sizes: neurons by selection and layer; width: neurons of a layer.
    """
    selections, n_layers = sizes.shape
    shares = np.zeros((selections + 1, n_layers))
    shares[0] = 1.0
    for share in sizes / width:
        shares[1:] = shares[1:] * (1 - share) + shares[:-1] * share
        shares[0] *= 1 - share
    return [float(one) for one in width * shares.sum(axis=1)]
