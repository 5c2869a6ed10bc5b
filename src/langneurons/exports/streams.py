"""Plans on the residual stream as one vector per layer, for tools that know nothing else."""

from dataclasses import dataclass

import numpy as np

from langneurons.base.errors import InputError
from langneurons.exports.scaling import HOOKS, check_everywhere
from langneurons.interventions.hooks import check_depth
from langneurons.interventions.plan import Plan
from langneurons.models.sites import MlpSites


@dataclass(frozen=True)
class StreamWrite:
    """What happens to h after a layer: h + vector, or h without its part along a unit vector.

    vector: float32 (d_model,); along: whether h loses (h . vector) vector in place of the sum.
    """

    vector: np.ndarray
    along: bool = False


def stream_writes(plan: Plan, sites: MlpSites) -> dict[int, StreamWrite]:
    """Return by layer what a plan does to the residual stream after it.

    Raises:
        InputError: The plan writes nothing, elsewhere than into the residual stream, or more than
            one vector per layer can do.
    """
    check_depth(sites, plan)
    found: dict[int, StreamWrite] = {}
    for write in plan.writes:
        check_everywhere(plan.name, write, "a steering vector")
        if write.site != "residual":
            raise InputError(
                f"plan {plan.name!r} writes at site {write.site}, and a steering vector is added to"
                " the residual stream; export it to lora or nnsight, or give directions (docs/"
                "exports.md)."
            )
        if len(write.index) and int(write.index.max()) >= sites.d_model:
            raise InputError(
                f"plan {plan.name!r} writes dimension {int(write.index.max())} of a model with"
                f" {sites.d_model}; it is a plan of another model."
            )
        vector = np.zeros(sites.d_model)
        vector[write.index] = write.value
        if write.operation == "add":
            made = StreamWrite(vector.astype(np.float32))
        elif write.operation == "project_out" and write.amount == 1.0:
            made = StreamWrite(vector.astype(np.float32), along=True)
        else:
            share = f" a share of {write.amount:g}" if write.operation == "project_out" else ""
            raise InputError(
                f"plan {plan.name!r}: {write.operation}{share} at site residual is not one vector"
                f" that is added; legal: add, and project_out with coefficient 1. {HOOKS}."
            )
        earlier = found.get(write.layer)
        if earlier is not None and (earlier.along or made.along):
            raise InputError(
                f"plan {plan.name!r}: several operations in layer {write.layer}, of which one is"
                f" project_out; only sums of vectors are one vector. {HOOKS}."
            )
        if earlier is not None:
            made = StreamWrite(earlier.vector + made.vector)
        found[write.layer] = made
    kept = {layer: one for layer, one in sorted(found.items()) if one.vector.any()}
    if not kept:
        raise InputError(
            f"plan {plan.name!r} changes nothing, so that there is nothing to export; name a"
            " language that has a direction."
        )
    return kept
