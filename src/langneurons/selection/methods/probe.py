"""Probe: the weights of a logistic regression that tells a language's documents from the others'.

Its inputs are the means of the residual stream over each document, every dimension divided by its
standard deviation; documents of the language and those of the others have the same weight in sum.
The loss is mean log loss + penalty / 2 |w|^2. The direction is what of the difference of means lies
along w, taken back to the units of the stream.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.direction import DirectionBase, along, difference
from langneurons.selection.method import More

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics


class Probe(DirectionBase):
    """A linear probe for the language of a document."""

    method: Literal["probe"]
    penalty: float = Field(0.01, gt=0, description="Weight of the squared length of w.")

    @property
    def needs_document_means(self) -> tuple[str, ...]:
        """The residual stream."""
        return ("residual",)

    def direction(
        self, layer: int, own: "Statistics", others: "list[Statistics]", more: More
    ) -> np.ndarray:
        """Return the difference of means along the probe's weights."""
        parts = [one.document_means("residual", layer + 1) for one in (own, *others)]
        inputs = np.concatenate(parts)
        label = np.repeat([1.0, 0.0], [len(parts[0]), len(inputs) - len(parts[0])])
        spread = inputs.std(axis=0)
        scaled = (inputs - inputs.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        weights = logistic(scaled, label, self.penalty)
        axis = weights / np.where(spread > 0, spread, 1.0)
        return along(axis, difference(layer, own, others))


def logistic(inputs: np.ndarray, label: np.ndarray, penalty: float) -> np.ndarray:
    """Return the weights of a regularised logistic regression with balanced classes, (d,).

    inputs: (n, d); label: 1 or 0, (n,). The intercept is not penalised.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    n = len(label)
    share = np.where(label > 0, label.sum(), n - label.sum())
    weight = 1.0 / (2.0 * share)
    sign = np.where(label > 0, 1.0, -1.0)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (inputs @ theta[:-1] + theta[-1])
        slope = -sign * weight * expit(-margin)
        value = float(weight @ np.logaddexp(0.0, -margin) + penalty / 2 * theta[:-1] @ theta[:-1])
        return value, np.append(inputs.T @ slope + penalty * theta[:-1], slope.sum())

    start = np.zeros(inputs.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return found.x[:-1]
