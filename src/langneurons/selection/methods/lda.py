"""LDA: the direction that tells a language from the others best, given how both vary.

Fisher's discriminant w = S^-1 (difference of means), where S is the mean of the covariances of the
language and of the others (of these the mean), shrunk: (1 - shrinkage) S + shrinkage (tr S / d) I.
The direction is what of the difference of means lies along w.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.direction import SecondMoments, along, difference
from langneurons.selection.method import More

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics


class Lda(SecondMoments):
    """Fisher's linear discriminant."""

    method: Literal["lda"]
    shrinkage: float = Field(
        0.1, ge=0, le=1, description="Weight of a covariance that is the same in all directions."
    )

    def direction(
        self, layer: int, own: "Statistics", others: "list[Statistics]", more: More
    ) -> np.ndarray:
        """Return the difference of means along the discriminant."""
        row, delta = layer + 1, difference(layer, own, others)
        within = [one.covariance(row) for one in (own, *others)]
        pooled = (within[0] + np.mean(within[1:], axis=0)) / 2
        size = len(pooled)
        round_ = np.trace(pooled) / size * np.eye(size)
        shrunk = (1 - self.shrinkage) * pooled + self.shrinkage * round_
        return along(np.linalg.lstsq(shrunk, delta, rcond=None)[0], delta)
