"""Sparse dimensions: those of the residual stream in which a language differs most from English.

In each layer the `number` dimensions of largest absolute difference of means are kept; the score is
the difference. arXiv 2510.07213 takes 400 dimensions at one layer, against English, and adds about
0.4 of the difference.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.base.errors import InputError
from langneurons.selection.direction import DirectionBase, difference
from langneurons.selection.method import More, highest

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics


class SparseDimensions(DirectionBase):
    """The dimensions of largest difference of means."""

    method: Literal["sparse_dimensions"]
    number: int = Field(400, ge=1, description="Dimensions that are kept in each layer.")

    def direction(
        self, layer: int, own: "Statistics", others: "list[Statistics]", more: More
    ) -> np.ndarray:
        """Return the difference of means in the kept dimensions, 0 elsewhere."""
        found = difference(layer, own, others)
        if self.number > len(found):
            raise InputError(
                f"sparse_dimensions: number: {self.number} of a residual stream of {len(found)};"
                f" legal: 1 to {len(found)}"
            )
        kept = np.zeros_like(found)
        chosen = highest(np.abs(found), self.number)
        kept[chosen] = found[chosen]
        return kept
