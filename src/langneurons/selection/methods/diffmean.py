"""DiffMean: the mean of a language's residual stream minus that of others, layer by layer.

With `of: mlp` it is the difference of the mean outputs of the layer's MLP instead, which decomposes
over neurons: W_down (mean product - mean of the others' mean products). Where a norm follows the
MLP (Gemma 2 and 3) that difference lies before the norm.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.base.errors import present
from langneurons.selection.direction import DirectionBase, difference
from langneurons.selection.method import More

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics


class DiffMean(DirectionBase):
    """Differences of means."""

    method: Literal["diffmean"]
    of: Literal["stream", "mlp"] = Field(
        "stream", description="Of the residual stream, or of what the layer's MLP adds to it."
    )

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The stream; for the MLP also its product, and the stream for its width."""
        return ("residual",) if self.of == "stream" else ("product", "residual")

    @property
    def needs_more(self) -> tuple[str, ...]:
        """The weights, of the MLP."""
        return () if self.of == "stream" else ("weights",)

    def direction(
        self, layer: int, own: "Statistics", others: "list[Statistics]", more: More
    ) -> np.ndarray:
        """Return the difference after a layer, or of what its MLP adds."""
        if self.of == "stream":
            return difference(layer, own, others)
        means = [one.mean("product")[layer] for one in (own, *others)]
        down = present(more.weights, "no weights").layer(layer).astype(np.float64)
        return down @ (means[0] - np.mean(means[1:], axis=0))
