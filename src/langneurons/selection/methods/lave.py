"""LAVE: LAPE with activation values in place of probabilities (a baseline of Tang et al. 2024).

Per neuron v_k = the mean activation in language k, v'_k = v_k / sum v, LAVE = - sum v'_k ln v'_k;
bars, ranking and assignment as in LAPE, over all v. The paper does not say what becomes of negative
means, of which the usual nonlinearities give many: `abs_mean` takes the mean absolute activation,
which has none, `mean` counts them as zero.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.methods.lape import MeasuredEntropy

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics


class Lave(MeasuredEntropy):
    """Neurons of lowest entropy of their mean activations over the languages."""

    method: Literal["lave"]
    column: ClassVar[str] = "value"
    statistic: Literal["abs_mean", "mean"] = Field(
        "abs_mean", description="abs_mean: of the absolute values; mean: negative means as zero."
    )
    site: Literal["gate", "act", "product"] = Field("act", description="Site of the means.")

    def quantity(self, one: "Statistics") -> np.ndarray:
        """Return the activation value whose entropy is taken, (n_layers, d_mlp)."""
        return np.maximum(one.value(self.statistic, self.site), 0.0)
