"""Act Prob: neurons that most often exceed a threshold (Mondal et al. 2025, "Act Prob 90p").

relevance = P(a > t), the top round(rate L d) neurons of each language, without reference to other
languages. The paper's text and code leave open what t is; each reading is a value of `pool`:

- batch: the neuron's own quantile, averaged over batches (what the code does). Its relevance is
  1 - level up to the error of that average, so the ranking is close to noise.
- neuron: the neuron's own quantile over the corpus. Relevance is 1 - level for every neuron by
  definition; what ranks is the rounding of counts. Kept to show that the reading is empty.
- layer, model: one quantile of all activations of the layer, or of the model.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from langneurons.base.errors import nearest
from langneurons.selection.method import SelectionBase, lowest, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

THRESHOLDS = ("zero", "mean", "p75", "p90", "p95")


class Exceedance(SelectionBase):
    """Neurons of highest P(activation > threshold) in each language."""

    method: Literal["exceedance"]
    threshold: str = Field("p90", description="zero, mean, or a percentile p01 ... p99.")
    pool: Literal["batch", "neuron", "layer", "model"] = Field(
        "layer", description="Over what the threshold is taken; see the method's description."
    )
    rate: float = Field(0.00125, gt=0, le=1, description="Share of neurons kept per language.")
    site: Literal["gate", "act"] = Field("gate", description="Site that is compared.")

    @field_validator("threshold")
    @classmethod
    def _known(cls, value: str) -> str:
        percentile = value[:1] == "p" and value[1:].isdigit() and 0 < int(value[1:]) < 100
        if value not in ("zero", "mean") and not percentile:
            raise ValueError(
                f"threshold {value!r} is not zero, mean or p01-p99.{nearest(value, THRESHOLDS)}"
            )
        return value

    @model_validator(mode="after")
    def _measured(self) -> "Exceedance":
        if self.pool == "batch" and self.level is not None and self.site != "gate":
            raise ValueError(
                f"pool batch with site {self.site!r}: quantiles per batch are kept only of the"
                " gate. Set site: gate, or another pool."
            )
        return self

    @property
    def level(self) -> float | None:
        """The quantile level of the threshold, if it is a percentile."""
        return int(self.threshold[1:]) / 100 if self.threshold[0] == "p" else None

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The compared site."""
        return (self.site,)

    @property
    def needs_histograms(self) -> tuple[str, ...]:
        """The compared site, unless only signs are counted."""
        return () if self.threshold == "zero" else (self.site,)

    @property
    def needs_batch_quantiles(self) -> tuple[float, ...]:
        """The threshold's level, where it is averaged over batches."""
        return (self.level,) if self.pool == "batch" and self.level is not None else ()

    def relevance(self, one: "Statistics") -> np.ndarray:
        """Return P(a > threshold) per neuron, (n_layers, d_mlp)."""
        if self.threshold == "zero":
            return one.probability(self.site)
        level = self.level
        if level is None:
            mean = one.mean(self.site)
            pooled = {"layer": mean.mean(axis=1, keepdims=True), "model": mean.mean()}
            return one.exceedance(pooled.get(self.pool, mean), self.site)
        if self.pool == "batch":
            threshold = one.batch_quantile(level, self.site)
        elif self.pool == "neuron":
            threshold = one.quantile(level, self.site)
        else:
            threshold = one.pooled_quantile(level, self.site, by_layer=self.pool == "layer")
        return one.exceedance(threshold, self.site)

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return rows with column score (the relevance)."""
        chosen = []
        for lang, one in statistics.items():
            relevance = self.relevance(one)
            kept = lowest(-relevance, round(self.rate * relevance.size))
            chosen.append(rows(lang, kept, relevance.shape[1], score=relevance.ravel()[kept]))
        return stacked(chosen)
