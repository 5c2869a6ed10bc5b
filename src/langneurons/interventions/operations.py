"""Operations of an intervention: what becomes of an activation a and a value v, element by element.

An operation is a function of two tensors of one shape, found by its name in configurations. It
may use methods of its arguments only, so that reading a configuration loads no torch. An operation
`along` a direction acts on the whole vector h of the residual stream at a token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Operation:
    """A named operation: its meaning as a formula, and the function (a, v) -> new a.

    along: whether the function is (h, u, c) -> new h, in float64, of vectors (..., dimensions), a
    unit vector u and a coefficient c.
    """

    name: str
    meaning: str
    function: "Callable[..., Tensor]"
    along: bool = False


OPERATIONS: dict[str, Operation] = {}
# a * scale + added: what several plans do to one layer's neurons at once.
AFFINE = ("set", "add", "scale")
# Those that have strengths other than 1 (`langneurons.interventions.strength`).
LINES = (*AFFINE, "project_out")


def operation(name: str, meaning: str, along: bool = False) -> Callable:
    """Register a function as the operation of a name."""

    def register(function: Callable) -> Callable:
        if name in OPERATIONS:
            raise ValueError(f"operation {name!r} is there already: {OPERATIONS[name].meaning}")
        OPERATIONS[name] = Operation(name, meaning, function, along)
        return function

    return register


@operation("set", "a = v")
def _set(_activation: "Tensor", value: "Tensor") -> "Tensor":
    return value


@operation("add", "a = a + v")
def _add(activation: "Tensor", value: "Tensor") -> "Tensor":
    return activation + value


@operation("scale", "a = a * v")
def _scale(activation: "Tensor", value: "Tensor") -> "Tensor":
    return activation * value


@operation("at_least", "a = max(a, v), so that nothing is lowered")
def _at_least(activation: "Tensor", value: "Tensor") -> "Tensor":
    return activation.maximum(value)


@operation("at_most", "a = min(a, v)")
def _at_most(activation: "Tensor", value: "Tensor") -> "Tensor":
    return activation.minimum(value)


@operation(
    "project_out",
    "h = h - c (h . u) u, of a vector h of the residual stream, with c the coefficient and u the"
    " direction at length 1",
    along=True,
)
def _project_out(stream: "Tensor", unit: "Tensor", coefficient: "Tensor | float") -> "Tensor":
    return stream - coefficient * (stream * unit).sum(-1, keepdim=True) * unit
