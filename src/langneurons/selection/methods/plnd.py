"""Neurons important in every document (PLND; Zhao et al. 2024), from forward statistics.

In the paper a neuron's importance in a document is the norm of the change of the layer's output
without it, in sum over tokens: |h_j| times the norm of its column of the down projection. The
`rate` most important neurons of a layer count; those that count in every document of a language
are its neurons, and those that also are another language's are dropped.

Deviation: what is kept of a document is the mean of h_j over its tokens, so importance is taken
as its absolute value. This leaves out the norm of the column, and positive and negative
activations within a document cancel: a neuron that fires with both signs ranks too low.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.method import SelectionBase, exclusive, rows, stacked
from langneurons.selection.methods.document_sign import enough

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable


def largest(values: np.ndarray, number: int) -> np.ndarray:
    """Tell which values of each row are among its `number` largest; ties are in, zeros never."""
    bar = np.partition(values, -number, axis=1)[:, -number]
    return (values >= bar[:, None]) & (values > 0)


class Plnd(SelectionBase):
    """Neurons among the most important of their layer in all documents of a language."""

    method: Literal["plnd"]
    rate: float = Field(
        0.1, gt=0, le=1, description="Share of a layer's neurons that count in a document."
    )
    share: float = Field(
        1.0, gt=0, le=1, description="Share of the documents in which a neuron must count."
    )
    exclusive: bool = Field(True, description="Drop neurons that are another language's as well.")
    site: Literal["gate", "act", "product"] = Field("product", description="Site of the means.")

    @property
    def needs_document_means(self) -> tuple[str, ...]:
        """The ranked site."""
        return (self.site,)

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return rows with column score (the share of documents in which the neuron counts)."""
        chosen = []
        for lang, one in statistics.items():
            n_layers, d_mlp = one.shape
            number, counts = len(one.documents), []
            for layer in range(n_layers):
                values = abs(one.document_means(self.site, layer))
                counts.append(largest(values, max(round(self.rate * d_mlp), 1)).sum(axis=0))
            counted = np.concatenate(counts)
            kept = np.flatnonzero(counted >= enough(self.share, number))
            chosen.append(rows(lang, kept, d_mlp, score=counted[kept] / max(number, 1)))
        return exclusive(stacked(chosen)) if self.exclusive else stacked(chosen)
