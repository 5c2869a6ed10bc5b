"""LAPE: language activation probability entropy (Tang et al. 2024, section 2.2).

Per neuron p_k = P(a > 0) in language k, p'_k = p_k / sum p, LAPE = - sum p'_k ln p'_k. The bar is
the k-th smallest of all p (neurons x languages), k = round(q N). Neurons without a language
strictly above the filter bar are out. The round(rate L d) neurons with the lowest entropy are
kept; each belongs to every language whose probability is strictly above the assignment bar.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.base import SelectionBase, lowest, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.statistics import Statistics


def entropy(probability: np.ndarray) -> np.ndarray:
    """Return LAPE in nats; `probability` is (languages, ...). Never-active neurons give 0."""
    total = probability.sum(axis=0)
    share = probability / np.where(total > 0, total, 1.0)
    logarithm = np.log(np.where(share > 0, share, 1.0))
    return -(share * logarithm).sum(axis=0)


def bar(probability: np.ndarray, level: float) -> float:
    """Return the k-th smallest value with k = round(level * N), as `torch.kthvalue` counts."""
    k = min(max(round(level * probability.size), 1), probability.size)
    return float(np.partition(probability, k - 1, axis=None)[k - 1])


class Lape(SelectionBase):
    """Neurons of lowest language activation probability entropy."""

    method: Literal["lape"]
    rate: float = Field(0.01, gt=0, le=1, description="Share of the model's neurons kept.")
    filter_level: float = Field(
        0.95, gt=0, lt=1, description="Quantile of all probabilities that one language must exceed."
    )
    assign_level: float = Field(
        0.95, gt=0, lt=1, description="Quantile above which a neuron belongs to a language."
    )
    site: Literal["gate", "act"] = Field("act", description="Site whose sign is counted.")
    ties: Literal["first", "include"] = Field(
        "first", description="At the cut-off: the lower index first, or keep all equal ones."
    )
    exclusive: bool = Field(False, description="Keep only neurons that one language claims.")

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The counted site."""
        return (self.site,)

    def select(self, statistics: "dict[str, Statistics]", like=None) -> "pd.DataFrame":
        """Return rows with columns score (entropy) and probability."""
        languages = list(statistics)
        probability = np.stack([statistics[lang].probability(self.site) for lang in languages])
        scores = entropy(probability)
        scores[(probability <= bar(probability, self.filter_level)).all(axis=0)] = np.inf
        kept = lowest(scores, round(self.rate * scores.size), self.ties == "include")
        threshold = bar(probability, self.assign_level)
        flat = probability.reshape(len(languages), -1)[:, kept]
        claimed = flat > threshold
        if self.exclusive:
            claimed &= claimed.sum(axis=0) == 1
        return stacked(
            [
                rows(
                    lang,
                    kept[claimed[k]],
                    scores.shape[1],
                    score=scores.ravel()[kept[claimed[k]]],
                    probability=flat[k, claimed[k]],
                )
                for k, lang in enumerate(languages)
            ]
        )
