"""Interventions: values written into chosen neurons while the model runs.

A configured intervention (steps of set / add / scale on the neurons of a language) is resolved
against a neuron table and activation statistics into a `Plan`: per layer and site, index and value
vectors. `applied` hooks the plan into a model. Per layer it is one gather and one scatter on the
last axis, precomputed on the layer's device, whatever the number of neurons.

Steps act in their order, also on neurons that they share: arithmetic such as "deactivate the
source, then add the target's mean" gives a shared neuron 0 + mean.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from langneurons.adapters import MlpSites

if TYPE_CHECKING:
    from langneurons.config.interventions import Step
    from langneurons.neurons import NeuronTable
    from langneurons.statistics import Statistics

log = logging.getLogger(__name__)


class NoEffect(RuntimeError):
    """An intervention that did not fire, or that changed nothing."""


@dataclass(frozen=True)
class Write:
    """One operation on neurons of one layer: a <- v, a + v or a * v at `index`."""

    layer: int
    site: str
    operation: str
    index: np.ndarray
    value: np.ndarray
    tokens: str = "all"


@dataclass
class Plan:
    """The writes of an intervention, in order; `empty` if no neuron is touched."""

    name: str
    writes: list[Write] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether no neuron is touched."""
        return not self.writes

    @property
    def neurons(self) -> int:
        """Number of (layer, neuron) pairs written."""
        return len({(w.layer, int(i)) for w in self.writes for i in w.index})

    @property
    def first_layer(self) -> int | None:
        """The lowest layer that is touched."""
        return min((write.layer for write in self.writes), default=None)


def resolve(
    name: str,
    steps: "Sequence[Step]",
    target: str,
    table: "NeuronTable",
    statistics: "Mapping[str, Statistics]",
    quantiles: str = "corrected",
    source: str | None = None,
) -> Plan:
    """Turn an intervention's steps into a plan for one target language.

    `statistics` by language must hold the languages whose values are written; `quantiles` is the
    protocol's choice; `source` is the language that a step may name so. A target without neurons
    gives an empty plan and a warning.
    """
    plan, roles = Plan(name), {"target": target, "source": source}
    for step in steps:
        lang = roles.get(step.neurons, step.neurons)
        if lang is None:
            raise ValueError(f"intervention {name!r}: neurons of the source, but there is none")
        if lang not in table.languages:
            raise ValueError(
                f"intervention {name!r}: no neurons of {lang!r} in this selection; its languages:"
                f" {', '.join(table.languages)}"
            )
        values = _values(step, lang, table, statistics, quantiles)
        first, last = step.layers or (0, table.n_layers - 1)
        if first >= table.n_layers:
            raise ValueError(
                f"intervention {name!r}: layers {first}-{last} of a model of {table.n_layers}"
            )
        for layer, index in enumerate(table.indices(lang)):
            if len(index) and first <= layer <= last:
                value = values if np.isscalar(values) else values[layer, index]
                value = np.broadcast_to(np.asarray(value, np.float64), index.shape).copy()
                if not np.isfinite(value).all():
                    raise ValueError(f"intervention {name!r}: value in layer {layer} not finite")
                write = Write(layer, step.site, step.operation, index, value, step.tokens)
                plan.writes.append(write)
    if plan.empty:
        log.warning(
            "NO NEURONS: %s of %s overwrites nothing, its results equal the untouched model's",
            name,
            target,
        )
    return plan


def _values(step: "Step", lang, table, statistics, quantiles) -> float | np.ndarray:
    if step.statistic is None:
        return float(step.value) * step.coefficient
    source = lang if step.statistic_language == "neurons" else step.statistic_language
    site = step.statistic_site or step.site
    if source not in statistics:
        raise ValueError(f"no activation statistics of {source!r} are among the inputs")
    one = statistics[source]
    if one.shape != (table.n_layers, table.d_mlp):
        raise ValueError(f"{one.path}: shape {one.shape}, neuron table of another model")
    if step.statistic == "mean_difference":
        others = [statistics[k].mean(site) for k in table.languages if k != source]
        values = one.mean(site) - np.mean(others, axis=0)
    elif step.statistic.startswith("p") and quantiles == "paper":
        values = one.batch_quantile(int(step.statistic[1:]) / 100, site)
    else:
        values = one.value(step.statistic, site)
    return values * step.coefficient


class Applied:
    """A plan that is hooked into a model; counts how often it fired and whether it changed values.

    Call `on_forward(prompt_mask)` before a forward pass where a write is limited to prompt or
    generated tokens.
    """

    def __init__(self, sites: MlpSites, plan: Plan):
        self.plan = plan
        self.fired: dict[int, int] = {}
        self.changed = False
        self._changes: list[torch.Tensor] = []
        self._prompt: torch.Tensor | None = None
        self._handles = []
        deepest = max((write.layer for write in plan.writes), default=-1)
        if deepest >= sites.n_layers:
            raise ValueError(f"plan writes layer {deepest} of a model of {sites.n_layers}")
        groups: dict[tuple[int, str], list[Write]] = {}
        for write in plan.writes:
            groups.setdefault((write.layer, write.site), []).append(write)
        for (layer, site), writes in sorted(groups.items()):
            device = next(sites.down[layer].parameters()).device
            operations = [_Operation(write, device) for write in writes]
            hook = self._hook(layer, operations)
            if site == "act":
                handle = sites.act[layer].register_forward_hook(
                    lambda _m, _i, output, hook=hook: hook(output)
                )
            else:
                module = sites.act[layer] if site == "gate" else sites.down[layer]
                handle = module.register_forward_pre_hook(
                    lambda _m, inputs, hook=hook: (hook(inputs[0]), *inputs[1:])
                )
            self._handles.append(handle)

    def _hook(self, layer: int, operations: "list[_Operation]") -> Callable:
        def apply(values: torch.Tensor) -> torch.Tensor:
            self.fired[layer] = self.fired.get(layer, 0) + 1
            if values.requires_grad:
                values = values.clone()
            for operation in operations:
                before = None if self.changed else values.index_select(-1, operation.index)
                operation(values, self._prompt)
                if before is not None:
                    after = values.index_select(-1, operation.index)
                    self.changed = not torch.equal(before, after)
            return values

        return apply

    def on_forward(self, prompt_mask: torch.Tensor) -> None:
        """Announce which tokens (batch, position) of the next forward pass are the prompt's."""
        self._prompt = prompt_mask

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class _Operation:
    """One write on a layer's values, in place on the last axis."""

    def __init__(self, write: Write, device: torch.device):
        self.operation, self.tokens = write.operation, write.tokens
        self.index = torch.from_numpy(write.index).to(device)
        self.value = torch.from_numpy(write.value).to(device=device, dtype=torch.float32)

    def __call__(self, values: torch.Tensor, prompt: torch.Tensor | None) -> None:
        value = self.value.to(values.dtype)
        if self.operation == "set":
            new = value.expand(*values.shape[:-1], -1)
        else:
            old = values.index_select(-1, self.index)
            new = old + value if self.operation == "add" else old * value
        if self.tokens != "all":
            if prompt is None:
                raise RuntimeError("a write limited to some tokens needs on_forward(prompt_mask)")
            chosen = prompt if self.tokens == "prompt" else ~prompt
            chosen = chosen.reshape(*values.shape[:-1], 1).to(values.device)
            new = torch.where(chosen, new, values.index_select(-1, self.index))
        values.index_copy_(-1, self.index, new)


@contextmanager
def applied(sites: MlpSites, plan: Plan, strict: bool = True) -> Iterator[Applied]:
    """Hook a plan into a model for the length of the block.

    On leaving, a plan with writes must have fired in every layer it touches and, if `strict`, must
    have changed at least one value; otherwise `NoEffect` says what did not happen. Hooks are
    removed in any case.
    """
    running = Applied(sites, plan)
    try:
        yield running
        layers = {write.layer for write in plan.writes}
        silent = sorted(layers - set(running.fired))
        if silent:
            raise NoEffect(
                f"intervention {plan.name!r}: no hook fired in layers {silent}; is the model"
                " compiled, or its adapter wrong (langneurons/adapters.py)?"
            )
        if layers and strict and not running.changed:
            raise NoEffect(
                f"intervention {plan.name!r}: {plan.neurons} neurons were written, and every value"
                " was already there; the result would equal the untouched model's."
            )
    finally:
        running.remove()
