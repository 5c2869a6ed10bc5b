"""LAP: neurons active on nearly every token of a language (a baseline of Tang et al. 2024).

A neuron belongs to a language where its activation probability is strictly above a bar. Nothing is
compared with other languages.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.method import SelectionBase, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable


class Lap(SelectionBase):
    """Neurons whose activation probability in a language is above a bar."""

    method: Literal["lap"]
    bar: float = Field(0.95, ge=0, lt=1, description="Probability that must be exceeded.")
    site: Literal["gate", "act"] = Field("act", description="Site whose sign is counted.")

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The counted site."""
        return (self.site,)

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return rows with column score (the probability)."""
        chosen = []
        for lang, one in statistics.items():
            probability = one.probability(self.site)
            kept = np.flatnonzero(probability > self.bar)
            score = probability.ravel()[kept]
            chosen.append(rows(lang, kept, one.shape[1], score=score))
        return stacked(chosen)
