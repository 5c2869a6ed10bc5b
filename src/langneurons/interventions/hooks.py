"""Interventions: values written into chosen neurons while the model runs.

A configured intervention (steps: operations such as set, add, scale on the neurons of languages) is
resolved against a neuron table and activation statistics into a `Plan`: per layer and site, index
and value vectors. `applied` hooks a plan into a model: per layer one gather and one scatter on the
last axis, precomputed on the layer's device, whatever the number of neurons. `applied_rows` hooks
several plans, of which each row of a batch follows its own, at the cost of about one.

Steps act in their order, also on neurons that they share: arithmetic such as "deactivate the
source, then add the target's mean" (Gurgurov et al. 2025) gives a shared neuron 0 + mean. The
policy `shared` leaves such neurons to the steps of one group, or to none. Values are numbers,
statistics of each neuron, or taken from the layer as it runs (`langneurons.interventions.factors`).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import torch

from langneurons.interventions.factors import Factor
from langneurons.interventions.operations import AFFINE, OPERATIONS
from langneurons.interventions.settings import percentile, several
from langneurons.models.families import MlpSites
from langneurons.models.nonlinearities import minimum

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics
    from langneurons.interventions.settings import Step
    from langneurons.selection.table import NeuronTable

log = logging.getLogger(__name__)
SCOPES = ("all", "prompt", "generated")
# What rounding to bfloat16 may put below the minimum of a nonlinearity.
ROUNDING = 1e-2


class NoEffect(RuntimeError):
    """An intervention that did not fire, or that changed nothing."""


@dataclass(frozen=True)
class Write:
    """One operation (`langneurons.interventions.operations`) on neurons of one layer, at `index`.

    With a `factor`, v is `value` times the factor of the row's sequence.
    """

    layer: int
    site: str
    operation: str
    index: np.ndarray
    value: np.ndarray
    tokens: str = "all"
    factor: Factor | None = None

    def content(self) -> tuple:
        """Return what is done, without where: equal contents are equal operations."""
        arrays = (self.index.tobytes(), np.asarray(self.value, np.float64).tobytes())
        return (self.operation, self.tokens, self.factor, *arrays)


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
    def by_token(self) -> bool:
        """Whether what is written at a token depends on no other: no value of the layer itself."""
        return all(write.factor is None for write in self.writes)

    def begins(self, n_layers: int, of_prompts: bool = False) -> int:
        """Return the lowest layer that is touched, in prompts if so asked; n_layers if none is."""
        acting = self.of_prompts() if of_prompts else self.writes
        return min((write.layer for write in acting), default=n_layers)

    def of_prompts(self) -> list[Write]:
        """Return the writes that act on tokens of a prompt."""
        return [write for write in self.writes if write.tokens != "generated"]


def resolve(
    name: str,
    steps: "Sequence[Step]",
    target: str,
    table: "NeuronTable",
    statistics: "Mapping[str, Statistics]",
    quantiles: str = "corrected",
    source: str | None = None,
    shared: str = "in_order",
) -> Plan:
    """Turn an intervention's steps into a plan for one target, or a pair of source and target.

    `statistics` by language must hold the languages whose values are written; `quantiles` is the
    protocol's choice, `shared` the intervention's. Without any neurons the plan is empty, with a
    warning.
    """
    plan = Plan(name)
    roles = {"target": target} | ({} if source is None else {"source": source})
    masks = [_neurons(name, step, roles, table) for step in steps]
    whom = target if source is None else f"{source} to {target}"
    for number, (step, mask) in enumerate(zip(steps, _left(steps, masks, shared), strict=True)):
        if not mask.any():
            log.info("%s of %s: step %d has no neurons to write", name, whom, number + 1)
        values = _values(name, step, roles, table, statistics, quantiles)
        factor = None
        if step.factor is not None:
            ranks = quantiles if percentile(step.factor) is not None else "corrected"
            factor = Factor(step.factor, ranks)
        for layer in np.flatnonzero(mask.any(axis=1)).tolist():
            index = np.flatnonzero(mask[layer])
            value = values if np.isscalar(values) else values[layer, index]
            value = np.broadcast_to(np.asarray(value, np.float64), index.shape).copy()
            if not np.isfinite(value).all():
                raise ValueError(f"intervention {name!r}: value in layer {layer} not finite")
            write = Write(layer, step.site, step.operation, index, value, step.tokens, factor)
            plan.writes.append(write)
    if plan.empty:
        log.warning(
            "NO NEURONS: %s of %s overwrites nothing, its results equal the untouched model's",
            name,
            whom,
        )
    _warn_unreachable(plan, whom, statistics)
    return plan


def _languages(name: str, words, roles: Mapping[str, str], table: "NeuronTable") -> list[str]:
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


def _neurons(name: str, step: "Step", roles, table: "NeuronTable") -> np.ndarray:
    """Return the neurons of a step, bool (n_layers, d_mlp)."""
    mask = np.zeros((table.n_layers, table.d_mlp), bool)
    for lang in _languages(name, step.neurons, roles, table):
        mask |= _mask(name, lang, table)
    for lang in _languages(name, step.without, roles, table):
        mask &= ~_mask(name, lang, table)
    first, last = step.layers or (0, table.n_layers - 1)
    if last >= table.n_layers:
        raise ValueError(
            f"intervention {name!r}: layers {first}-{last} of a model of {table.n_layers}"
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


def _values(name, step: "Step", roles, table, statistics, quantiles) -> float | np.ndarray:
    if step.factor is not None:
        return step.coefficient
    if step.statistic is None:
        return float(step.value) * step.coefficient
    named = step.neurons if step.statistic_language == "neurons" else step.statistic_language
    lang = _languages(name, named, roles, table)[0]
    site = step.statistic_site or step.site
    if lang not in statistics:
        raise ValueError(f"no activation statistics of {lang!r} are among the inputs")
    one = statistics[lang]
    if one.shape != (table.n_layers, table.d_mlp):
        raise ValueError(f"{one.path}: shape {one.shape}, neuron table of another model")
    level = percentile(step.statistic)
    if step.statistic == "mean_difference":
        others = [statistics[k].mean(site) for k in table.languages if k != lang]
        values = one.mean(site) - np.mean(others, axis=0)
    elif level is not None and quantiles == "paper":
        values = one.batch_quantile(level / 100, site)
    else:
        values = one.value(step.statistic, site)
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


@dataclass(frozen=True)
class Forward:
    """What is known of the next forward pass: bool (batch, pos) each; plans int64 (batch,)."""

    prompt: torch.Tensor
    valid: torch.Tensor | None
    plans: torch.Tensor | None


class Hooked:
    """Operations that are hooked into a model; counts the forward passes in which they fired.

    While it is not `active` the hooks do nothing.
    """

    def __init__(self, sites: MlpSites, operations: Mapping[tuple[int, str], list]):
        self.operations = operations
        self.fired: dict[int, int] = {}
        self.active = True
        self._forward: Forward | None = None
        self._handles = []
        for (layer, site), group in sorted(operations.items(), key=lambda item: item[0]):
            hook = self._hook(layer, group)
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

    def _hook(self, layer: int, operations: list) -> Callable:
        factors = list(dict.fromkeys(one for each in operations for one in each.factors))

        def apply(values: torch.Tensor) -> torch.Tensor:
            if not self.active:
                return values
            self.fired[layer] = self.fired.get(layer, 0) + 1
            if values.requires_grad:
                values = values.clone()
            given = self._measured(factors, values)
            for operation in operations:
                self._run(operation, values, given)
            return values

        return apply

    def _measured(self, factors: list[Factor], values: torch.Tensor) -> dict:
        """Return each factor of the rows, (batch,), before anything is written."""
        if not factors:
            return {}
        if self._forward is None or self._forward.valid is None:
            raise RuntimeError("a value of the layer itself needs on_forward(prompt, valid)")
        valid = self._forward.valid.to(values.device)
        batch = values.detach().reshape(*valid.shape, -1)
        return {factor: factor(batch, valid) for factor in factors}

    def _run(self, operation, values: torch.Tensor, factors: dict) -> None:
        raise NotImplementedError

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class Applied(Hooked):
    """A plan that is hooked into a model; knows whether it changed a value.

    Call `on_forward(prompt, valid)` before a forward pass where a write is limited to prompt or
    generated tokens (prompt), or takes its value from the layer (valid).
    """

    def __init__(self, sites: MlpSites, plan: Plan):
        check_depth(sites, plan)
        self.plan = plan
        self.by_token = plan.by_token
        self.changed = False
        operations: dict[tuple[int, str], list[HookedWrite]] = {}
        for write in plan.writes:
            device = next(sites.down[write.layer].parameters()).device
            operations.setdefault((write.layer, write.site), []).append(HookedWrite(write, device))
        super().__init__(sites, operations)

    def _run(self, operation: "HookedWrite", values: torch.Tensor, factors: dict) -> None:
        if self.changed:
            operation(values, self._forward, factors)
        else:
            self.changed = operation.watched(values, self._forward, factors)

    def on_forward(
        self,
        prompt: torch.Tensor,
        valid: torch.Tensor | None = None,
        conditions: torch.Tensor | None = None,
    ) -> None:
        """Announce the tokens (batch, pos) of the next forward pass: prompt's, not padding."""
        self._forward = Forward(prompt, valid, None)


class AppliedRows(Hooked):
    """Plans that are hooked into a model; each row of a batch follows the plan of its number.

    Call `on_forward(prompt, valid, conditions)` before each forward pass, conditions int64 (batch,)
    being indices into `plans`; a primitive of `langneurons.scoring.primitives` does so when it is
    given `conditions`. `changed` holds the numbers of the plans that have changed a value.
    """

    def __init__(self, sites: MlpSites, plans: Sequence[Plan]):
        self.plans = list(plans)
        self.by_token = all(plan.by_token for plan in self.plans)
        self.ran: set[int] = set()
        self.changed: set[int] = set()
        writes: dict[tuple[int, str], list[list[Write]]] = {}
        for number, plan in enumerate(self.plans):
            check_depth(sites, plan)
            for write in plan.writes:
                place = writes.setdefault((write.layer, write.site), [[] for _ in self.plans])
                place[number].append(write)
        operations = {}
        for (layer, site), by_plan in writes.items():
            device = next(sites.down[layer].parameters()).device
            rounds = zip_longest(*by_plan)
            operations[layer, site] = [_RowOperation(one, device) for one in rounds]
        super().__init__(sites, operations)

    def alike(self) -> list[int]:
        """Return for each plan the first that writes the same into prompts."""
        found: dict[tuple, int] = {}
        return [
            found.setdefault(
                tuple((w.layer, w.site, *w.content()) for w in plan.of_prompts()), number
            )
            for number, plan in enumerate(self.plans)
        ]

    def _run(self, operation: "_RowOperation", values: torch.Tensor, factors: dict) -> None:
        if self._forward is None:
            raise RuntimeError("plans by row need on_forward(prompt, valid, conditions)")
        changed = operation(values, self._forward, factors)
        if self._waiting:
            numbers = self._forward.plans[changed.cpu()].tolist()
            self.changed.update(numbers)
            self._waiting.difference_update(numbers)

    def on_forward(
        self,
        prompt: torch.Tensor,
        valid: torch.Tensor | None = None,
        conditions: torch.Tensor | None = None,
    ) -> None:
        """Announce the tokens (batch, pos) of the next forward pass, and each row's plan."""
        if conditions is None or valid is None:
            raise RuntimeError("plans by row need on_forward(prompt, valid, conditions)")
        numbers = set(conditions.tolist())
        if not numbers <= set(range(len(self.plans))):
            raise ValueError(f"conditions {sorted(numbers)}; there are {len(self.plans)} plans")
        self.ran |= numbers
        self._waiting = numbers - self.changed
        self._forward = Forward(prompt, valid, conditions.cpu())


def check_depth(sites: MlpSites, plan: Plan) -> None:
    """Refuse a plan of a deeper model."""
    deepest = max((write.layer for write in plan.writes), default=-1)
    if deepest >= sites.n_layers:
        raise ValueError(f"plan writes layer {deepest} of a model of {sites.n_layers}")


class HookedWrite:
    """One write on a layer's values, in place on the last axis."""

    def __init__(self, write: Write, device: torch.device):
        self.operation, self.tokens = write.operation, write.tokens
        self.factor = write.factor
        self.factors = () if write.factor is None else (write.factor,)
        self.index = torch.from_numpy(write.index).to(device)
        self.value = torch.from_numpy(write.value).to(device=device, dtype=torch.float32)
        self._cast = self.value

    def _as(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the values in the activations' dtype, cast once."""
        if self._cast.dtype != dtype:
            with torch.inference_mode(False):  # a pass with gradients may use it as well
                self._cast = self.value.to(dtype)
        return self._cast

    def __call__(self, values: torch.Tensor, forward: Forward | None, factors: dict) -> None:
        """Write in place; factors hold a value per row, (batch,)."""
        shape = (*values.shape[:-1], len(self.index))
        if self.factor is None:
            value = self._as(values.dtype)
        else:
            batch, length = forward.valid.shape
            value = self.value * factors[self.factor][:, None]
            value = value[:, None].expand(batch, length, -1).reshape(shape).to(values.dtype)
        if self.operation == "set":
            new = value.expand(shape)
        else:
            old = values.index_select(-1, self.index)
            new = OPERATIONS[self.operation].function(old, value)
        if self.tokens != "all":
            if forward is None:
                raise RuntimeError("a write limited to some tokens needs on_forward(prompt)")
            chosen = forward.prompt if self.tokens == "prompt" else ~forward.prompt
            chosen = chosen.reshape(*values.shape[:-1], 1).to(values.device)
            new = torch.where(chosen, new, values.index_select(-1, self.index))
        values.index_copy_(-1, self.index, new)

    def watched(self, values: torch.Tensor, forward: Forward | None, factors: dict) -> bool:
        """Write in place; tell whether that changed a value."""
        before = values.index_select(-1, self.index)
        self(values, forward, factors)
        return not torch.equal(before, values.index_select(-1, self.index))


class _RowOperation:
    """The n-th writes of several plans on one layer and site: each row gets that of its plan.

    One gather and one scatter on the union of their neurons; equal writes are kept once, and a
    neuron that a row's own write does not touch keeps its value.
    """

    def __init__(self, writes: Sequence[Write | None], device: torch.device):
        kept: dict[tuple, int] = {}
        distinct: list[Write] = []
        which = np.zeros(len(writes), np.int64)  # 0 is no write
        for number, write in enumerate(writes):
            if write is None:
                continue
            if write.content() not in kept:
                distinct.append(write)
                kept[write.content()] = len(distinct)
            which[number] = kept[write.content()]
        index = np.unique(np.concatenate([write.index for write in distinct]))
        shape = (len(distinct) + 1, len(index))
        added, scale = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        replaced, scope = np.zeros(shape, bool), np.zeros(len(distinct) + 1, np.int64)
        self.factors = tuple(dict.fromkeys(w.factor for w in distinct if w.factor is not None))
        others = dict.fromkeys(w.operation for w in distinct if w.operation not in AFFINE)
        self.others = [OPERATIONS[name].function for name in others]
        source, other = np.full(len(distinct) + 1, -1), np.full(shape, -1)
        for row, write in enumerate(distinct, start=1):
            column = np.searchsorted(index, write.index)
            (scale if write.operation == "scale" else added)[row, column] = write.value
            replaced[row, column] = write.operation == "set"
            scope[row] = SCOPES.index(write.tokens)
            if write.operation in others:
                other[row, column] = list(others).index(write.operation)
            if write.factor is not None:
                source[row] = self.factors.index(write.factor)
        self.limited = bool(scope.any())
        self.index, self.which, self.added, self.scale, self.replaced = (
            torch.from_numpy(array).to(device) for array in (index, which, added, scale, replaced)
        )
        self.scope, self.source, self.other = (
            torch.from_numpy(array).to(device) for array in (scope, source, other)
        )

    def __call__(self, values: torch.Tensor, forward: Forward, factors: dict) -> torch.Tensor:
        """Write in place; return which rows changed at a token that is no padding, (batch,)."""
        which = self.which[forward.plans.to(values.device)]
        valid = forward.valid.to(values.device)
        old = values.index_select(-1, self.index)
        old = old.reshape(*valid.shape, -1)  # (batch, pos, neuron)
        value = self.added[which]
        for number, factor in enumerate(self.factors):
            own = (self.source[which] == number)[:, None]
            value = torch.where(own, value * factors[factor][:, None], value)
        value = value.to(values.dtype)[:, None]
        scale = self.scale[which].to(values.dtype)[:, None]
        new = torch.where(self.replaced[which][:, None], value, old * scale + value)
        for number, function in enumerate(self.others):
            own = (self.other[which] == number)[:, None]
            new = torch.where(own, function(old, value.expand_as(old)), new)
        if self.limited:
            scope = self.scope[which][:, None]
            prompt = forward.prompt.to(values.device)
            chosen = (scope == 0) | ((scope == 1) & prompt) | ((scope == 2) & ~prompt)
            new = torch.where(chosen[..., None], new, old)
        values.index_copy_(-1, self.index, new.reshape(*values.shape[:-1], -1))
        return ((new != old).any(dim=-1) & valid).any(dim=1)


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
        check_effect(plan, running.fired, running.changed or not strict)
    finally:
        running.remove()


@contextmanager
def applied_rows(
    sites: MlpSites, plans: Sequence[Plan], strict: bool = True
) -> Iterator[AppliedRows]:
    """Hook plans into a model, each row of a batch under its own, for the length of the block.

    Every row gets what it would get under its plan alone. On leaving, each plan with writes must
    have had a row and is checked as by `applied`.
    """
    running = AppliedRows(sites, plans)
    try:
        yield running
        for number, plan in enumerate(running.plans):
            if plan.writes and number not in running.ran:
                raise NoEffect(f"intervention {plan.name!r}: no row of any batch was under it")
            check_effect(plan, running.fired, number in running.changed or not strict)
    finally:
        running.remove()


def check_effect(plan: Plan, fired: Mapping[int, int], changed: bool) -> None:
    """Refuse a plan with writes that did not fire in a layer, or changed nothing."""
    layers = {write.layer for write in plan.writes}
    silent = sorted(layers - set(fired))
    if silent:
        raise NoEffect(
            f"intervention {plan.name!r}: no hook fired in layers {silent}; is the model"
            " compiled, or its adapter wrong (langneurons/models/families.py)?"
        )
    if layers and not changed:
        raise NoEffect(
            f"intervention {plan.name!r}: {plan.neurons} neurons were written, and every value"
            " was already there; the result would equal the untouched model's."
        )
