"""Alignment score: entropy less a bonus for strong activation (arXiv 2505.21505).

Per neuron score = H / ln K - penalty * max_k p_k, with H the entropy of LAPE over K languages. The
round(rate L d) neurons of lowest score are kept; each belongs to every language whose probability
is strictly above the bar, the `level` quantile of all probabilities. A neuron of one language is
`specific`, of all languages `general`, of a number between `related`; `keep` says which stay.

The larger the penalty, the more neurons that fire everywhere are let in. Left out, it is the
largest of 0, 0.001, ..., 0.2 under which no kept neuron is general (our reading: the paper sweeps
this range to that end); where there is none, 0. Neurons above the bar in no language are out.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.method import SelectionBase, lowest, rows, stacked
from langneurons.selection.methods.lape import bar, entropy

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

PENALTIES = np.arange(201) / 1000


class Alignment(SelectionBase):
    """Neurons of low entropy and strong activation, by how many languages they serve."""

    method: Literal["alignment"]
    rate: float = Field(0.01, gt=0, le=1, description="Share of the model's neurons kept.")
    penalty: float | None = Field(
        None, ge=0, description="Weight of the largest probability; swept if left out."
    )
    level: float = Field(
        0.95, gt=0, lt=1, description="Quantile above which a neuron belongs to a language."
    )
    keep: tuple[Literal["specific", "related", "general"], ...] = Field(
        ("specific", "related"), min_length=1, description="Neurons of one, of some, of all."
    )
    site: Literal["gate", "act"] = Field("act", description="Site whose sign is counted.")

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The counted site."""
        return (self.site,)

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return rows with columns score, probability, owners (languages above the bar)."""
        if len(statistics) < 2:
            raise ValueError(f"only {', '.join(statistics)}: the entropy needs other languages")
        probability = np.stack([one.probability(self.site) for one in statistics.values()])
        above = probability > bar(probability, self.level)
        owners = above.sum(axis=0).ravel()
        scores, kept = self._ranked(probability, owners)
        one, every = owners[kept] == 1, owners[kept] == len(probability)
        classes = {"specific": one, "general": every, "related": ~one & ~every}
        kept = kept[np.logical_or.reduce([classes[name] for name in self.keep])]
        chosen = []
        for lang, own, claims in zip(statistics, probability, above, strict=True):
            mine = kept[claims.ravel()[kept]]
            columns = {"score": scores[mine], "probability": own.ravel()[mine]}
            chosen.append(rows(lang, mine, own.shape[1], **columns, owners=owners[mine]))
        return stacked(chosen)

    def _ranked(self, probability: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the scores and the flat indices of the neurons of lowest score."""
        normalised = (entropy(probability) / np.log(len(probability))).ravel()
        normalised[owners == 0] = np.inf
        largest = probability.max(axis=0).ravel()
        number = round(self.rate * largest.size)
        tried = PENALTIES[::-1] if self.penalty is None else (self.penalty,)
        for penalty in tried:
            scores = normalised - penalty * largest
            kept = lowest(scores, number)
            if not (owners[kept] == len(probability)).any():
                break
        return scores, kept
