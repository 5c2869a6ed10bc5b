"""Plans that only scale what neurons write: the factor of each neuron at the down projection.

The down projection W reads the product p of a layer, (..., d_mlp). A plan that multiplies p at
neurons S by s adds (s - 1) W[:, S] p[S] to what W writes, so it is a low-rank change of W. Scaling
the site `act` scales the product, since the product is linear in it. Setting `act`, `product` or
`gate` to 0 is s = 0: the nonlinearities are 0 at 0, which is checked. Whatever else a plan writes
is refused with the reason.
"""

import numpy as np
import torch

from langneurons.base.errors import InputError
from langneurons.interventions.hooks import check_depth
from langneurons.interventions.plan import Plan, Write
from langneurons.models.families import NO_EXPORT
from langneurons.models.sites import MlpSites

# Where what hooks alone can do is still reached.
HOOKS = "`langneurons steer`, or an export to nnsight, runs it with hooks"


def factors(plan: Plan, sites: MlpSites) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return by layer the neurons, ascending int64 (n,), and their factors, float64 (n,) not 1.

    Raises:
        InputError: The plan writes nothing, or something that is not such a factor.
    """
    check_depth(sites, plan)
    check_experts(plan, sites, "a LoRA")
    found: dict[int, np.ndarray] = {}
    for write in plan.writes:
        _check(plan.name, write, sites)
        whole = found.setdefault(write.layer, np.ones(sites.d_mlp))
        whole[write.index] *= write.value if write.operation == "scale" else 0.0
    kept = {}
    for layer, whole in sorted(found.items()):
        index = np.flatnonzero(whole != 1.0)
        if len(index):
            kept[layer] = index, whole[index]
    if not kept:
        raise InputError(
            f"plan {plan.name!r} changes nothing, so that there is nothing to export; name a"
            " language that has neurons."
        )
    return kept


def check_everywhere(name: str, write: Write, what: str) -> None:
    """Refuse a write that depends on the token, or on the other tokens of the sequence."""
    if write.tokens != "all":
        raise InputError(
            f"plan {name!r} writes at {write.tokens} tokens only, and {what} acts on every token;"
            f" legal: tokens: all. {HOOKS}."
        )
    if write.factor is not None:
        raise InputError(
            f"plan {name!r} writes {write.factor.name}, which every sequence has its own value of,"
            f" and {what} is the same for all; legal: a number or a statistic. {HOOKS}."
        )


def check_experts(plan: Plan, sites: MlpSites, what: str) -> None:
    """Refuse neurons of experts, which no module of the model has by itself."""
    if sites.experts and any(write.site != "residual" for write in plan.writes):
        raise InputError(NO_EXPORT.format(model=type(sites.backbone).__name__, what=what))


def _check(name: str, write: Write, sites: MlpSites) -> None:
    """Refuse a write that is not a factor of the product."""
    check_everywhere(name, write, "a LoRA")
    if write.site == "residual":
        raise InputError(
            f"plan {name!r} writes into the residual stream, which no LoRA of the down projection"
            " reaches; export it to steer or control-vector."
        )
    if len(write.index) and int(write.index.max()) >= sites.d_mlp:
        raise InputError(
            f"plan {name!r} writes neuron {int(write.index.max())} of a model with {sites.d_mlp}"
            " neurons per layer; it is a plan of another model."
        )
    if write.operation == "set" and not write.value.any():
        _check_zero(name, write, sites)
    elif write.operation == "scale" and (write.site != "gate" or not write.value.any()):
        _check_zero(name, write, sites)
    else:
        raise InputError(_why(name, write, sites))


def _check_zero(name: str, write: Write, sites: MlpSites) -> None:
    """Refuse zeros before a nonlinearity that does not keep them."""
    if write.site != "gate":
        return
    nonlinearity = sites.act[write.layer]
    if bool(nonlinearity(torch.zeros(1)).any()):
        raise InputError(
            f"plan {name!r} sets the input of {type(nonlinearity).__name__} to 0, which it does not"
            " map to 0; write at site act."
        )


def _why(name: str, write: Write, sites: MlpSites) -> str:
    """Return why a write is not a factor of the product, and what is nearest to it."""
    start = f"plan {name!r}: {write.operation} at site {write.site} is not a LoRA"
    if write.operation in ("set", "add"):
        same = write.site == "product" or (write.site == "act" and not sites.gated)
        if same:
            return (
                f"{start}: it needs the constant W_down v, which is a bias, and adapters of vLLM"
                f" and llama.cpp have none. Nearest: set 0, or scale by a number. {HOOKS}."
            )
        return (
            f"{start}: what it changes depends on the token. Nearest: set 0, or scale at site act"
            f" or product. {HOOKS}."
        )
    if write.operation == "scale":
        return f"{start}: the nonlinearity follows. Scale at site act or product. {HOOKS}."
    return f"{start}: it is not linear. Nearest: set 0, or scale by a number. {HOOKS}."
