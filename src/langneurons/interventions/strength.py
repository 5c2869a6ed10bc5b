"""An intervention at another strength: 0 leaves the model untouched, 1 is the intervention itself.

In between lies a + c (f(a) - a) for an operation f and a strength c, beyond 1 the same line goes
on: `set` to v becomes (1 - c) a + c v, `add` of v becomes c v, `scale` by s becomes 1 + c (s - 1),
and of `project_out` c times its share is taken out. Operations that are no line, at_least and
at_most, have one strength only.
"""

from dataclasses import replace

import numpy as np

from langneurons.base.errors import InputError
from langneurons.interventions.operations import LINES
from langneurons.interventions.plan import Plan, Write


def at_strength(plan: Plan, strength: float) -> Plan:
    """Return the plan at a strength; each of its writes moves so far along its own line.

    Raises:
        InputError: An operation is no line.
    """
    if strength == 1.0:
        return plan
    writes = [part for write in plan.writes for part in _moved(write, strength)]
    return Plan(plan.name, writes)


def _moved(write: Write, strength: float) -> list[Write]:
    if write.operation not in LINES:
        raise InputError(
            f"{write.operation}: has no strength other than 1; legal: {', '.join(LINES)}"
        )
    if write.operation == "project_out":
        return [replace(write, amount=write.amount * strength)]
    if write.operation == "add":
        return [replace(write, value=write.value * strength)]
    if write.operation == "scale":
        return [replace(write, value=1.0 + strength * (write.value - 1.0))]
    kept = np.full_like(np.asarray(write.value, np.float64), 1.0 - strength)
    scaled = replace(write, operation="scale", value=kept, factor=None)
    if not np.any(write.value):
        return [scaled]
    return [scaled, replace(write, operation="add", value=write.value * strength)]
