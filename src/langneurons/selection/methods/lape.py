"""LAPE: language activation probability entropy (Tang et al. 2024, section 2.2).

Per neuron p_k = P(a > 0) in language k, p'_k = p_k / sum p, LAPE = - sum p'_k ln p'_k. The bar is
the k-th smallest of all p (neurons x languages), k = round(q N). Neurons without a language
strictly above the filter bar are out. The round(rate L d) neurons with the lowest entropy are
kept; each belongs to every language whose probability is strictly above the assignment bar.

With `per_language` the share is kept for each language instead: of the neurons above its bars, the
round(rate L d) of lowest entropy. So languages that fire less under the common bar (English in many
models) get as many neurons as others, as far as there are any.

The code of Rahmanisa et al. 2025 divides by the tokens of a chat template that it does not apply,
so that p_k falls with the number of sentences per token: `unread_tokens` per block repeats that.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.method import SelectionBase, exclusive, lowest, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable


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


class LowestEntropy(SelectionBase):
    """Neurons of lowest entropy over the languages of a quantity of theirs."""

    column: ClassVar[str]
    rate: float = Field(0.01, gt=0, le=1, description="Share of the model's neurons kept.")
    per_language: bool = Field(
        False, description="Keep that share for each language, not over all of them."
    )
    filter_level: float = Field(
        0.95, gt=0, lt=1, description="Quantile of all probabilities that one language must exceed."
    )
    assign_level: float = Field(
        0.95, gt=0, lt=1, description="Quantile above which a neuron belongs to a language."
    )
    ties: Literal["first", "include"] = Field(
        "first", description="At the cut-off: the lower index first, or keep all equal ones."
    )
    exclusive: bool = Field(False, description="Keep only neurons that one language claims.")

    def lowest(self, langs: list[str], quantity: np.ndarray) -> "pd.DataFrame":
        """Return the rows of a quantity (languages, n_layers, d_mlp)."""
        scores = entropy(quantity)
        scores[(quantity <= bar(quantity, self.filter_level)).all(axis=0)] = np.inf
        number, ties = round(self.rate * scores.size), self.ties == "include"
        threshold = bar(quantity, self.assign_level)
        common = None if self.per_language else lowest(scores, number, ties)
        chosen = []
        for lang, own in zip(langs, quantity, strict=True):
            claimed = own > threshold
            if common is None:
                kept = lowest(np.where(claimed, scores, np.inf), number, ties)
            else:
                kept = common[claimed.ravel()[common]]
            columns = {"score": scores.ravel()[kept], self.column: own.ravel()[kept]}
            chosen.append(rows(lang, kept, scores.shape[1], **columns))
        return exclusive(stacked(chosen)) if self.exclusive else stacked(chosen)


class MeasuredEntropy(LowestEntropy):
    """Neurons of lowest entropy of what the statistics hold of them."""

    site: str = Field("act", description="Site of the quantity.")
    unread_tokens: float = Field(
        0.0,
        ge=0,
        description="Tokens that each packed block adds to what is divided by, without having been"
        " read; with corpus.packing: document a block is a sentence. The code of Rahmanisa et al."
        " 2025 adds 23 with Qwen2.5, 13 with SeaLLMs, 2 with Gemma 2.",
    )

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The counted site."""
        return (self.site,)

    def quantity(self, one: "Statistics") -> np.ndarray:
        """Return what the entropy is taken of, (n_layers, d_mlp)."""
        raise NotImplementedError

    def _divided(self, one: "Statistics") -> np.ndarray:
        """Return the quantity, a mean over tokens, with the unread ones in its denominator."""
        if not self.unread_tokens:
            return self.quantity(one)
        return self.quantity(one) * one.tokens / (one.tokens + self.unread_tokens * one.blocks)

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return rows with columns score (entropy) and the quantity that it is taken of."""
        quantity = np.stack([self._divided(one) for one in statistics.values()])
        return self.lowest(list(statistics), quantity)


class Lape(MeasuredEntropy):
    """Neurons of lowest language activation probability entropy."""

    method: Literal["lape"]
    column: ClassVar[str] = "probability"
    site: Literal["gate", "act"] = Field("act", description="Site whose sign is counted.")

    def quantity(self, one: "Statistics") -> np.ndarray:
        """Return the activation probability, (n_layers, d_mlp)."""
        return one.probability(self.site)
