"""Operations of an intervention: what becomes of an activation a and a value v, element by element.

An operation is a function of two tensors of one shape, found by its name in configurations. It
may use methods of its arguments only, so that reading a configuration loads no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Operation:
    """A named operation: its meaning as a formula, and the function (a, v) -> new a."""

    name: str
    meaning: str
    function: "Callable[[Tensor, Tensor], Tensor]"


OPERATIONS: dict[str, Operation] = {}
# a * scale + added: what several plans do to one layer's neurons at once.
AFFINE = ("set", "add", "scale")


def operation(name: str, meaning: str) -> Callable:
    """Register a function as the operation of a name."""

    def register(function: Callable) -> Callable:
        if name in OPERATIONS:
            raise ValueError(f"operation {name!r} is there already: {OPERATIONS[name].meaning}")
        OPERATIONS[name] = Operation(name, meaning, function)
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
