"""Counts of a neuron table beside those of a published mask of the same model and languages.

Both are reduced to the same counts, in neurons: per language and layer, distinct per layer, shared
by each pair of languages, and of exactly 1, 2, ... languages. Every number that is compared is a
function of these, so that it means the same on both sides. Nothing here is an estimate, so no
number has an interval.
"""

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from langneurons.selection.table import NeuronTable

ANY = "any"
TOTALS, LANGUAGES, PAIRS, LAYERS = (
    "Neurons in all",
    "Neurons per language",
    "Shared neurons",
    "Neurons per layer",
)
PAIR = " + "  # joins the languages of a pair; no code holds a space
SHARES = ("first_two_layers", "last_quarter", "jaccard")


@dataclass(frozen=True)
class Counts:
    """Counts of one table; languages in any order."""

    languages: tuple[str, ...]
    layers: np.ndarray  # (languages, n_layers): neurons of a language
    distinct: np.ndarray  # (n_layers,)
    shared: np.ndarray  # (languages, languages): the diagonal is a language's own
    multiplicity: dict[int, int]  # number of languages: neurons that belong to as many

    @classmethod
    def of(cls, table: "NeuronTable") -> "Counts":
        """Return the counts of a neuron table."""
        alone = table.frame.drop_duplicates(["layer", "neuron"])
        return cls(
            tuple(table.languages),
            table.layer_counts().to_numpy(np.int64),
            np.bincount(alone["layer"], minlength=table.n_layers),
            table.overlap().to_numpy(np.int64),
            {int(number): int(n) for number, n in table.multiplicity().items()},
        )

    @property
    def unique(self) -> int:
        """Number of distinct neurons."""
        return int(self.distinct.sum())

    @property
    def neurons(self) -> np.ndarray:
        """Neurons of each language."""
        return self.layers.sum(axis=1)

    def jaccard(self) -> np.ndarray:
        """Return shared / union of each pair of languages (0 where both are empty)."""
        union = self.neurons[:, None] + self.neurons[None, :] - self.shared
        return self.shared / np.where(union > 0, union, 1)

    def first_two_layers(self) -> float:
        """Return the share of the distinct neurons that lie in the first two layers."""
        return float(self.distinct[:2].sum()) / max(self.unique, 1)

    def last_quarter(self) -> float:
        """Return the share of the distinct neurons in the last quarter of the layers, rounded."""
        start = len(self.distinct) - round(len(self.distinct) / 4)
        return float(self.distinct[start:].sum()) / max(self.unique, 1)


def read_counts(folder: str | os.PathLike, files: Mapping[str, str]) -> dict[str, Counts]:
    """Return the counts of every mask of the CSV files `layers`, `shared` and `multiplicity`."""
    frames = {
        key: dict(list(pd.read_csv(Path(folder) / name, keep_default_na=False).groupby("mask")))
        for key, name in files.items()
    }
    masks = {}
    for mask, layers in frames["layers"].items():
        table = layers.pivot(index="language", columns="layer", values="neurons")
        languages = [lang for lang in layers["language"].unique() if lang != ANY]
        shared = pd.DataFrame(0, index=languages, columns=languages)
        for one in frames["shared"][mask].itertuples():
            shared.loc[one.language, one.other] = shared.loc[one.other, one.language] = one.neurons
        matrix = shared.to_numpy(np.int64).copy()
        own = table.loc[languages].to_numpy(np.int64)
        np.fill_diagonal(matrix, own.sum(axis=1))
        many = frames["multiplicity"][mask]
        masks[mask] = Counts(
            tuple(languages),
            own,
            table.loc[ANY].to_numpy(np.int64),
            matrix,
            dict(zip(many["languages"].tolist(), many["neurons"].tolist(), strict=True)),
        )
    return masks


def cells(counts: Counts) -> list[dict[str, Any]]:
    """Return every number that is compared: item, lang (`en + vi` for a pair), metric, value."""
    totals = {
        "unique": counts.unique,
        "pairs": int(counts.neurons.sum()),
        "one_language": counts.multiplicity.get(1, 0),
        "most_languages": max(counts.multiplicity, default=0),
        "first_two_layers": counts.first_two_layers(),
        "last_quarter": counts.last_quarter(),
    }
    found = [(TOTALS, "", metric, value) for metric, value in totals.items()]
    own = zip(counts.languages, counts.neurons.tolist(), strict=True)
    found += [(LANGUAGES, lang, "neurons", value) for lang, value in own]
    jaccard = counts.jaccard()
    for (i, one), (j, other) in itertools.combinations(enumerate(counts.languages), 2):
        pair = PAIR.join(sorted((one, other)))
        found.append((PAIRS, pair, "shared", int(counts.shared[i, j])))
        found.append((PAIRS, pair, "jaccard", float(jaccard[i, j])))
    layers = enumerate(counts.distinct.tolist())
    found += [(LAYERS, "", f"layer_{layer}", value) for layer, value in layers]
    return [
        {"item": item, "lang": lang, "metric": metric, "value": float(value)}
        for item, lang, metric, value in found
    ]


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Return the rank correlation of two vectors; NaN where one of them is constant."""
    ranks = [pd.Series(np.asarray(values)).rank().to_numpy() for values in (one, other)]
    if len(ranks[0]) < 3 or any(np.ptp(values) == 0 for values in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def correlations(published: Counts, ours: Counts) -> dict[str, float]:
    """Return rank correlations of the counts of two tables on the same languages.

    Over languages, over pairs of languages (Jaccard), over layers (distinct neurons), and over the
    layers of each language, averaged over languages; those over layers only at equal depth.
    """
    order = [ours.languages.index(lang) for lang in published.languages]
    pairs = np.triu_indices(len(order), 1)
    result = {
        "languages": spearman(published.neurons, ours.neurons[order]),
        "jaccard": spearman(
            published.jaccard()[pairs], ours.jaccard()[np.ix_(order, order)][pairs]
        ),
        "layers": float("nan"),
        "layers_of_a_language": float("nan"),
    }
    if len(published.distinct) == len(ours.distinct):
        result["layers"] = spearman(published.distinct, ours.distinct)
        each = [spearman(*two) for two in zip(published.layers, ours.layers[order], strict=True)]
        if not np.isnan(each).all():
            result["layers_of_a_language"] = float(np.nanmean(each))
    return result
