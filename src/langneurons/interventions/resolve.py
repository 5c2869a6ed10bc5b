"""Resolve an intervention: which neurons get which values, for one target language.

A configured intervention (steps: operations such as set, add, scale on the neurons of languages) is
resolved against a neuron table and activation statistics into a `langneurons.interventions.plan`:
per layer and site, index and value vectors.

Steps act in their order, also on neurons that they share: arithmetic such as "deactivate the
source, then add the target's mean" (Gurgurov et al. 2025) gives a shared neuron 0 + mean. The
policy `shared` leaves such neurons to the steps of one group, or to none. Values are numbers,
statistics of each neuron, or taken from the layer as it runs (`langneurons.interventions.factors`).

At site `residual` the units of the table are dimensions of the residual stream, layer l of the
table is the output of block l, and a value may also be the direction that the table gives a
language: its scores by dimension.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from langneurons.base.errors import InputError
from langneurons.interventions.factors import Factor
from langneurons.interventions.operations import OPERATIONS
from langneurons.interventions.plan import Plan, Write
from langneurons.interventions.settings import percentile, several
from langneurons.models.nonlinearities import minimum

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics
    from langneurons.interventions.settings import Step, Words
    from langneurons.selection.table import NeuronTable

log = logging.getLogger(__name__)
# What rounding to bfloat16 may put below the minimum of a nonlinearity.
ROUNDING = 1e-2


@dataclass(frozen=True)
class Intervention:
    """Named steps, and what is the same for all of them.

    shared: what becomes of neurons that steps share; quantiles: which value a percentile is, by the
    protocol (`corrected` or `paper`).
    """

    name: str
    steps: "Sequence[Step]"
    shared: str = "in_order"
    quantiles: str = "corrected"


def resolve(
    intervention: Intervention,
    target: str,
    table: "NeuronTable",
    statistics: "Mapping[str, Statistics]",
    source: str | None = None,
) -> Plan:
    """Return the plan of an intervention for one target, or a pair of source and target.

    `statistics` by language must hold the languages whose values are written. Without any neurons
    the plan is empty, with a warning.
    """
    name, steps = intervention.name, intervention.steps
    quantiles = intervention.quantiles
    plan = Plan(name)
    roles = {"target": target} | ({} if source is None else {"source": source})
    _check_units(intervention, table)
    masks = [_neurons(name, step, roles, table) for step in steps]
    whom = target if source is None else f"{source} to {target}"
    for number, (step, mask) in enumerate(
        zip(steps, _left(steps, masks, intervention.shared), strict=True)
    ):
        if not mask.any():
            log.info("%s of %s: step %d has no neurons to write", name, whom, number + 1)
        values = _values(intervention, step, roles, table, statistics)
        factor = None
        if step.factor is not None:
            ranks = quantiles if percentile(step.factor) is not None else "corrected"
            factor = Factor(step.factor, ranks)
        for layer in np.flatnonzero(mask.any(axis=1)).tolist():
            index = np.flatnonzero(mask[layer])
            value = values[layer, index] if isinstance(values, np.ndarray) else values
            value = np.broadcast_to(np.asarray(value, np.float64), index.shape).copy()
            if not np.isfinite(value).all():
                raise ValueError(f"intervention {name!r}: value in layer {layer} not finite")
            write = Write(layer, step.site, step.operation, index, value, step.tokens, factor)
            if OPERATIONS[step.operation].along:
                length = float(np.linalg.norm(value))
                if length == 0.0:
                    continue  # no direction of the language in this layer
                write = replace(write, value=value / length, amount=step.coefficient)
            plan.writes.append(write)
    if plan.empty:
        log.warning(
            "NO NEURONS: %s of %s overwrites nothing, its results equal the untouched model's",
            name,
            whom,
        )
    _warn_unreachable(plan, whom, statistics)
    return plan


def _check_units(intervention: Intervention, table: "NeuronTable") -> None:
    """Refuse a step on dimensions of the residual stream with a table of neurons, and inversely."""
    for step in intervention.steps:
        if step.units != table.units:
            own = "residual" if table.units == "dimensions" else "gate, act or product"
            raise InputError(
                f"intervention {intervention.name!r}: site {step.site} writes {step.units}, and the"
                f" selection holds {table.units}; legal with it: site {own}."
            )


def _languages(
    name: str, words: "Words | None", roles: Mapping[str, str], table: "NeuronTable"
) -> list[str]:
    """Return the languages behind roles and codes."""
    found = []
    for word in several(words or ()):
        if word == "others":
            found += [lang for lang in table.languages if lang != roles["target"]]
            continue
        if word == "source" and word not in roles:
            raise ValueError(
                f"intervention {name!r}: speaks of `source`, and no source language is given"
            )
        found.append(roles.get(word, word))
    return found


def _mask(name: str, lang: str, table: "NeuronTable") -> np.ndarray:
    if lang not in table.languages:
        raise ValueError(
            f"intervention {name!r}: no neurons of {lang!r} in this selection; its languages:"
            f" {', '.join(table.languages)}"
        )
    return table.mask(lang)


def _neurons(name: str, step: "Step", roles: Mapping[str, str], table: "NeuronTable") -> np.ndarray:
    """Return the neurons, or dimensions, of a step, bool (n_layers, width)."""
    mask = np.zeros((table.n_layers, table.width), bool)
    for lang in _languages(name, step.neurons, roles, table):
        mask |= _mask(name, lang, table)
    for lang in _languages(name, step.without, roles, table):
        mask &= ~_mask(name, lang, table)
    first, last = step.layers or (0, table.n_layers - 1)
    if last >= table.n_layers:
        raise InputError(
            f"intervention {name!r}: layers {first}-{last} of a model of {table.n_layers};"
            f" legal: layers 0 to {table.n_layers - 1}."
        )
    mask[:first] = False
    mask[last + 1 :] = False
    return mask


def _left(steps: "Sequence[Step]", masks: list[np.ndarray], shared: str) -> list[np.ndarray]:
    """Return the neurons that the policy leaves to each step."""
    if shared == "in_order":
        return masks
    groups: dict = {}
    for step, mask in zip(steps, masks, strict=True):
        groups[step.group] = groups.get(step.group, False) | mask
    left = []
    for step, mask in zip(steps, masks, strict=True):
        for group, members in groups.items():
            if group != step.group and (shared == "neither" or group == (shared,)):
                mask = mask & ~members
        left.append(mask)
    return left


def _values(
    intervention: Intervention,
    step: "Step",
    roles: Mapping[str, str],
    table: "NeuronTable",
    statistics: "Mapping[str, Statistics]",
) -> float | np.ndarray:
    if step.factor is not None:
        return step.coefficient
    if isinstance(step.value, float):
        return step.value * step.coefficient
    named = step.neurons if step.statistic_language == "neurons" else step.statistic_language
    lang = _languages(intervention.name, named, roles, table)[0]
    if step.direction is not None:
        return _direction(intervention.name, step, lang, table)
    site = step.statistic_site or step.site
    if lang not in statistics:
        raise ValueError(f"no activation statistics of {lang!r} are among the inputs")
    one = statistics[lang]
    before = 1 if site == "residual" else 0  # the row before the first layer is no layer's output
    if one.shape_of(site) != (table.n_layers + before, table.width):
        shape = one.shape_of(site)
        raise ValueError(f"{one.path}: shape {shape}, neuron table of another model")
    level = percentile(step.statistic)
    if step.statistic in ("mean_difference", "mean_of_others"):
        others = [statistics[k].mean(site) for k in table.languages if k != lang]
        if not others:
            raise ValueError(f"{step.statistic}: {lang} is the only language of its set")
        values = np.mean(others, axis=0)
        if step.statistic == "mean_difference":
            values = one.mean(site) - values
    elif level is not None and intervention.quantiles == "paper":
        values = one.batch_quantile(level / 100, site)
    else:
        values = one.value(step.value, site)
    return values[before:] * step.coefficient


def _direction(name: str, step: "Step", lang: str, table: "NeuronTable") -> np.ndarray:
    """Return the direction of a language in each layer, float64 (n_layers, d_model)."""
    _mask(name, lang, table)  # says which languages there are
    values = table.values(lang)
    if OPERATIONS[step.operation].along:
        return values  # at length 1 later, over the dimensions that are written
    if step.direction == "unit_direction":
        length = np.linalg.norm(values, axis=1, keepdims=True)
        values = values / np.where(length > 0, length, 1.0)
    return values * step.coefficient


def _warn_unreachable(plan: Plan, whom: str, statistics: "Mapping[str, Statistics]") -> None:
    """Warn of activations set to what the nonlinearity never gives, such as -1 after SiLU."""
    written = [
        write.value.min()
        for write in plan.writes
        if (write.site, write.operation, write.factor) == ("act", "set", None)
    ]
    if not written or not statistics:
        return
    nonlinearity = next(iter(statistics.values())).header["nonlinearity"]
    lowest = minimum(nonlinearity)
    if min(written) < lowest - ROUNDING:
        log.warning(
            "%s of %s sets activations as low as %.4g; %s gives none below %.4g",
            plan.name,
            whom,
            min(written),
            nonlinearity,
            lowest,
        )
