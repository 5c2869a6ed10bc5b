"""Experts of a mixture that are specific to languages: LAPE over experts.

Per expert f_k = the share of the tokens of language k that the router sends to it, as in arXiv
2510.04694 and 2601.14050. As of LAPE's neurons (Tang et al. 2024, section 2.2): f'_k = f_k / sum f
and the entropy is - sum f'_k ln f'_k. Experts without a language strictly above the filter bar, a
quantile of all f (experts x languages), are out. The round(rate L E) experts with the lowest
entropy are kept; each belongs to every language whose f is strictly above the assignment bar.

The rows are all neurons of these experts, so an intervention acts on whole experts: zero takes what
the expert writes out of the stream, at the tokens that are routed to it.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.experts import neurons_of
from langneurons.selection.methods.lape import LowestEntropy

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable


class Experts(LowestEntropy):
    """All neurons of the experts whose tokens are fewest languages'."""

    method: Literal["experts"]
    column: ClassVar[str] = "frequency"
    rate: float = Field(0.01, gt=0, le=1, description="Share of the model's experts kept.")
    per_language: bool = Field(
        False, description="Keep that share for each language, not over all of them."
    )
    filter_level: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="Quantile of all frequencies of experts that one language must exceed.",
    )
    assign_level: float = Field(
        0.95, gt=0, lt=1, description="Quantile above which an expert belongs to a language."
    )
    exclusive: bool = Field(False, description="Keep only experts that one language claims.")

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return a row per neuron, with columns score (entropy) and frequency of its expert."""
        frequency = np.stack([one.expert_frequency() for one in statistics.values()])
        chosen = self.lowest(list(statistics), frequency)
        first = next(iter(statistics.values()))
        return neurons_of(chosen, first.shape[1] // first.n_experts)
