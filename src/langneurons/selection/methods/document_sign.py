"""Language-activated neurons: positive in every document (the baseline of Rahmanisa et al. 2025).

A neuron belongs to a language where its mean over the document is above zero in every document of
the language, or in the stated share of them. Nothing is compared with other languages, so the sets
are large and overlap; no parameter sets their size.
"""

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.method import SelectionBase, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable


def enough(share: float, number: int) -> int:
    """Return how many of so many documents are the stated share, at least one."""
    return max(math.ceil(share * number - 1e-9), 1)


class DocumentSign(SelectionBase):
    """Neurons whose mean is positive in all documents of a language, or in a share of them."""

    method: Literal["document_sign"]
    share: float = Field(1.0, gt=0, le=1, description="Share of the documents it must hold for.")
    site: Literal["gate", "act", "product"] = Field("act", description="Site of the means.")

    @property
    def needs_document_means(self) -> tuple[str, ...]:
        """The site whose sign is taken."""
        return (self.site,)

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return rows with column score (the share of documents with a positive mean)."""
        chosen = []
        for lang, one in statistics.items():
            number = len(one.documents)
            layers = range(one.shape[0])
            counts = [(one.document_means(self.site, i) > 0).sum(axis=0) for i in layers]
            positive = np.concatenate(counts)
            kept = np.flatnonzero(positive >= enough(self.share, number))
            chosen.append(rows(lang, kept, one.shape[1], score=positive[kept] / max(number, 1)))
        return stacked(chosen)
