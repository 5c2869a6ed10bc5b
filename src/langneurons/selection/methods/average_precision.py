"""Average precision over documents (Kojima et al. 2024; Rahmanisa et al. 2025).

Each neuron's mean over a document is a score for "this document is of language k"; its average
precision for k, over the documents of all languages, tells how well it tells k from the others. A
neuron without a preference has about the share of k among the documents. Kojima et al. take the
neurons at both ends of the list in equal numbers; Rahmanisa et al. the top, as many as LAPE gives
to its largest language (`like`), or all that reach a threshold and do so in one language only.

Documents of which no token was counted are left out. Rahmanisa et al. round the means to half
precision first (`rounding: half`), which makes ties of values that differ here. Of equal neurons at
the cut-off those of lower (layer, neuron) are kept, as by their stable sort in falling order.
Their threshold is to be exceeded; here it is to be reached.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from langneurons.base.errors import present
from langneurons.selection.method import SelectionBase, exclusive, highest, lowest, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

SIZES = ("number", "rate", "like", "threshold")


class AveragePrecision(SelectionBase):
    """Neurons whose mean over a document tells a language's documents from the others'."""

    method: Literal["average_precision"]
    number: int | None = Field(
        None, ge=1, description="Neurons per language; at each end, where both are taken."
    )
    rate: float | None = Field(
        None, gt=0, le=1, description="The same as a share of the model's neurons."
    )
    like: str | None = Field(
        None, description="The same as the largest number that this selection gives to a language."
    )
    threshold: float | None = Field(
        None, gt=0, le=1, description="Average precision to reach (or, at the bottom, not to pass)."
    )
    side: Literal["top", "bottom", "both"] = Field(
        "top", description="Which end of the neurons, ordered by average precision, is taken."
    )
    rounding: Literal["none", "half"] = Field(
        "none", description="half: means are rounded to half precision first (the papers' code)."
    )
    exclusive: bool = Field(False, description="Drop neurons that are taken in another language.")
    site: Literal["gate", "act", "product"] = Field("act", description="Site of the means.")

    @model_validator(mode="after")
    def _one_size(self) -> "AveragePrecision":
        given = [key for key in SIZES if getattr(self, key) is not None]
        if len(given) != 1:
            named = " and ".join(given) or "none of them"
            raise ValueError(f"give one of {', '.join(SIZES)} (given: {named})")
        if self.threshold is not None and self.side == "both":
            raise ValueError("side: both takes a number, a rate or like, not a threshold")
        return self

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The selection that gives the number."""
        return () if self.like is None else (self.like,)

    @property
    def needs_document_means(self) -> tuple[str, ...]:
        """The scored site."""
        return (self.site,)

    def scores(self, statistics: "dict[str, Statistics]") -> np.ndarray:
        """Return the average precisions, float64 (languages, n_layers, d_mlp)."""
        from langneurons.selection.average_precision import (
            average_precision,  # numba: not for who reads settings
        )

        files = list(statistics.values())
        n_layers, d_mlp = files[0].shape
        sizes = [len(one.documents) for one in files]
        for one, size in zip(files, sizes, strict=True):
            if not size:
                raise ValueError(
                    f"{one.path}: no document of {one.lang} has a mean; average precision needs"
                    " some of every language. Check statistics.document_means."
                )
        labels = np.repeat(np.arange(len(files)), sizes)
        result = np.empty((len(files), n_layers, d_mlp))
        for layer in range(n_layers):
            means = np.concatenate([one.document_means(self.site, layer) for one in files])
            if self.rounding == "half":
                means = means.astype(np.float16).astype(np.float64)
            result[:, layer] = average_precision(means, labels)
        return result

    def _kept(self, scores: np.ndarray, number: int | None) -> np.ndarray:
        if self.threshold is not None:
            above = scores >= self.threshold if self.side == "top" else scores <= self.threshold
            return np.flatnonzero(above)
        number = present(number, f"average precision: give one of {', '.join(SIZES)}")
        found = []
        if self.side != "bottom":
            found.append(highest(scores, number))
        if self.side != "top":
            found.append(lowest(scores, number))
        return np.unique(np.concatenate(found))

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable]"
    ) -> "pd.DataFrame":
        """Return rows with column score (the average precision)."""
        scores = self.scores(statistics)
        number = self.number
        if self.like is not None:
            number = int(tables[self.like].counts()[list(statistics)].max())
        elif self.rate is not None:
            number = round(self.rate * scores[0].size)
        chosen = []
        for lang, own in zip(statistics, scores, strict=True):
            kept = self._kept(own, number)
            chosen.append(rows(lang, kept, own.shape[1], score=own.ravel()[kept]))
        return exclusive(stacked(chosen)) if self.exclusive else stacked(chosen)
