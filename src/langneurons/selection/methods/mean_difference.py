"""Mean difference: how far a neuron's mean in a language lies above its mean in the others.

nu_k = mean_k - mean of the other languages' means (the monolinguality of Deng et al. 2025, there of
sparse features). The top round(rate L d) neurons of each language.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.method import SelectionBase, lowest, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable


class MeanDifference(SelectionBase):
    """Neurons whose mean in a language exceeds that in the others by most."""

    method: Literal["mean_difference"]
    statistic: Literal["mean", "abs_mean"] = Field("mean", description="Mean that is compared.")
    rate: float = Field(0.00125, gt=0, le=1, description="Share of neurons kept per language.")
    site: Literal["gate", "act", "product"] = Field("act", description="Site of the mean.")

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The compared site."""
        return (self.site,)

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return rows with column score (the difference)."""
        if len(statistics) < 2:
            raise ValueError(f"only {', '.join(statistics)}: there is no other language")
        means = np.stack([one.value(self.statistic, self.site) for one in statistics.values()])
        total = means.sum(axis=0)
        chosen = []
        for lang, own in zip(statistics, means, strict=True):
            difference = own - (total - own) / (len(means) - 1)
            kept = lowest(-difference, round(self.rate * own.size))
            chosen.append(rows(lang, kept, own.shape[1], score=difference.ravel()[kept]))
        return stacked(chosen)
