"""PCA: the line along which a language and the others vary most.

The first principal component of the residual stream of tokens, half of them of the language, half
of the others (each of these with the same weight): the covariance of that mixture follows from
second moments. The direction is what of the difference of means lies along that line.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np

from langneurons.selection.direction import SecondMoments, along, difference
from langneurons.selection.method import More

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics


class Pca(SecondMoments):
    """The first principal component of the language and the others."""

    method: Literal["pca"]

    def direction(
        self, layer: int, own: "Statistics", others: "list[Statistics]", more: More
    ) -> np.ndarray:
        """Return the difference of means along the first principal component."""
        row = layer + 1
        moments = [one.second_moment(row) for one in (own, *others)]
        means = [one.mean("residual")[row] for one in (own, *others)]
        second = (moments[0] + np.mean(moments[1:], axis=0)) / 2
        middle = (means[0] + np.mean(means[1:], axis=0)) / 2
        _, vectors = np.linalg.eigh(second - np.outer(middle, middle))
        return along(vectors[:, -1], difference(layer, own, others))
