"""Attribution: neurons on which the likelihood of few languages depends.

Of each language q = |sum over tokens of a dL/da| per predicted token: the change of the negative
log-likelihood, to first order, when the neuron is zeroed (attribution patching). Its entropy over
languages takes the place of that of the activation probability; all else is as in LAPE.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from langneurons.base.errors import present
from langneurons.selection.method import More
from langneurons.selection.methods.lape import LowestEntropy

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable


class AttributionEntropy(LowestEntropy):
    """Neurons of lowest entropy of their attributions."""

    method: Literal["attribution"]
    column: ClassVar[str] = "attribution"

    @property
    def needs_more(self) -> tuple[str, ...]:
        """The attributions."""
        return ("attributions",)

    def select_by(
        self,
        statistics: "dict[str, Statistics]",
        tables: "dict[str, NeuronTable]",
        more: More,
    ) -> "pd.DataFrame":
        """Return rows with columns score (entropy) and attribution (|mean|, nats per token)."""
        found = present(more.attributions, "no attributions")
        means = np.stack([np.abs(found[lang].mean()) for lang in statistics])
        return self.lowest(list(statistics), means)
