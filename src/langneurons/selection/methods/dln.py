"""Distribution-aware neurons: those whose activation tells two groups of languages apart (DLN).

Of each neuron and pair of languages the overlap of their distributions is S_ij = sum over bins of
min(P_i, P_j): 1 for equal ones, 0 for apart ones. A neuron's cost is the largest overlap across
the two groups of languages that keep it smallest. These groups are the last two clusters of single
linkage, and the cost is the smallest edge of the largest spanning tree of S; so no partition has to
be tried. Neurons whose cost is below the `level` quantile of all overlaps, over neurons and pairs,
are kept (mjkmain/Distribution-aware-language-neurons, EMNLP 2026).

A neuron belongs to the languages of its smaller group; of two groups of one size, to that in which
it is more active. The bins are those of the statistics.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.method import SelectionBase, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable


class Dln(SelectionBase):
    """Neurons whose distributions in two groups of languages hardly overlap."""

    method: Literal["dln"]
    level: float = Field(
        0.01, gt=0, lt=1, description="Quantile of all overlaps below which a neuron is kept."
    )
    most: int | None = Field(
        None, ge=1, description="Languages that a neuron belongs to, at most; left out: any number."
    )
    site: Literal["gate", "act"] = Field("gate", description="Site whose distribution is compared.")

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The site that is compared."""
        return (self.site,)

    @property
    def needs_histograms(self) -> tuple[str, ...]:
        """The site that is compared."""
        return (self.site,)

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return rows with columns score (the cost) and owners (languages of the neuron)."""
        from langneurons.activations.loops import bipartitions

        langs, every = list(statistics), list(statistics.values())
        if len(langs) < 2:
            raise ValueError(f"only {', '.join(langs)}: the overlap needs other languages")
        n_layers, d_mlp = every[0].shape
        pairs = len(langs) * (len(langs) - 1) // 2
        overlaps = np.empty((n_layers, d_mlp, pairs), np.float32)
        cost = np.empty((n_layers, d_mlp), np.float32)
        own = np.empty((n_layers, d_mlp, len(langs)), bool)
        for layer in range(n_layers):
            counts = np.stack([one.layer_histogram(layer, self.site) for one in every])
            total = counts.sum(axis=2, keepdims=True, dtype=np.float64)
            share = (counts / np.maximum(total, 1.0)).astype(np.float32)
            bipartitions(share, overlaps[layer], cost[layer], own[layer])
        kept = np.flatnonzero(cost < np.quantile(overlaps, self.level))
        mean = np.stack([one.mean(self.site).ravel()[kept] for one in every])
        member = _owners(own.reshape(-1, len(langs))[kept], mean.T)
        number = member.sum(axis=1)
        few = number <= (len(langs) if self.most is None else self.most)
        chosen = []
        for k, lang in enumerate(langs):
            mine = member[:, k] & few
            columns = {"score": cost.ravel()[kept[mine]], "owners": number[mine]}
            chosen.append(rows(lang, kept[mine], d_mlp, **columns))
        return stacked(chosen)


def _owners(group: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the smaller group of each neuron, bool (n, languages); of equal ones the more active.

    group: one of the two; mean: the mean activation in each language.
    """
    size, languages = group.sum(axis=1), group.shape[1]
    inside = np.where(group, mean, 0.0).sum(axis=1) / np.maximum(size, 1)
    outside = np.where(group, 0.0, mean).sum(axis=1) / np.maximum(languages - size, 1)
    other = (size > languages - size) | ((2 * size == languages) & (outside > inside))
    return group ^ other[:, None]
