"""Write score: the neurons that write a language's direction into the residual stream.

The mean output of a layer's MLP in a language minus that in the others is
d = W_down (mean product - mean of the others' mean products), so it is a sum over neurons. A
neuron's part along it is (W_down[:, i] . d / |d|) x (its difference of mean products); over all
neurons these parts add up to |d|. With `direction: residual`, d is the difference of the means of
the residual stream after the layer, to which attention and earlier layers add as well.

In Gemma 2 and 3 a norm follows the MLP, and d is taken before it. The scale of that norm differs
from layer to layer, so neurons are ranked within their layer, unless `pool` says otherwise.

Beside the neurons, the table holds how many of a layer's neurons carry half and nine tenths of |d|:
the smallest numbers of the highest parts whose sum reaches them.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.base.errors import present
from langneurons.selection.method import More, SelectionBase, contrasts, highest, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

SHARES = (50, 90)


class WriteScore(SelectionBase):
    """Neurons that write most of a language's direction."""

    method: Literal["write_score"]
    rate: float = Field(0.00125, gt=0, le=1, description="Share of neurons kept per language.")
    pool: Literal["layer", "model"] = Field(
        "layer", description="Keep that share in each layer, or over the model's layers."
    )
    direction: Literal["mlp", "residual"] = Field(
        "mlp", description="Difference of mean outputs of the MLP, or of the residual stream."
    )

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The product, and the residual stream where its direction is taken."""
        return ("product",) if self.direction == "mlp" else ("product", "residual")

    @property
    def needs_more(self) -> tuple[str, ...]:
        """The weights, which tell what a neuron writes."""
        return ("weights",)

    def select_by(
        self,
        statistics: "dict[str, Statistics]",
        tables: "dict[str, NeuronTable]",
        more: More,
    ) -> "pd.DataFrame":
        """Return rows with columns score (the part) and share (of the length of d)."""
        langs, weights = list(statistics), present(more.weights, "no weights")
        delta = contrasts(np.stack([one.mean("product") for one in statistics.values()]))
        streams = None
        if self.direction == "residual":
            streams = contrasts(np.stack([one.mean("residual")[1:] for one in statistics.values()]))
        _, n_layers, d_mlp = delta.shape
        parts, length = np.empty_like(delta), np.empty((len(langs), n_layers))
        for layer in range(n_layers):
            down = weights.layer(layer).astype(np.float64)
            written = delta[:, layer] @ down.T if streams is None else streams[:, layer]
            length[:, layer] = norm = np.linalg.norm(written, axis=1)
            unit = written / np.where(norm > 0, norm, 1.0)[:, None]
            parts[:, layer] = (unit @ down) * delta[:, layer]
        share = parts / np.where(length > 0, length, 1.0)[..., None]
        chosen = []
        for number, lang in enumerate(langs):
            kept = self._kept(parts[number])
            columns = {"score": parts[number].ravel()[kept], "share": share[number].ravel()[kept]}
            chosen.append(rows(lang, kept, d_mlp, **columns))
        frame = stacked(chosen)
        frame.attrs["carriers"] = {
            lang: {str(level): carriers(share[number], level / 100) for level in SHARES}
            for number, lang in enumerate(langs)
        }
        return frame

    def _kept(self, parts: np.ndarray) -> np.ndarray:
        if self.pool == "model":
            return highest(parts, round(self.rate * parts.size))
        width = parts.shape[1]
        number = round(self.rate * width)
        return np.concatenate([i * width + highest(one, number) for i, one in enumerate(parts)])


def carriers(share: np.ndarray, level: float) -> list[int]:
    """Return per layer the fewest neurons whose shares of the direction add up to a level.

    share: (n_layers, d_mlp). The number is d_mlp + 1 where all together do not reach it, which
    only a direction that the MLP does not write alone can show.
    """
    reached = np.sort(share, axis=1)[:, ::-1].cumsum(axis=1) >= level
    found = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, share.shape[1] + 1)
    return [int(one) for one in found]
