"""Plans hooked into a model: values written into chosen neurons while the model runs.

Per layer one gather and one scatter on the last axis, precomputed on the layer's device, whatever
the number of neurons. `OnePlan` writes one plan into every row of a batch; in `PlanPerRow` each row
of a batch follows its own plan, at the cost of about one; `langneurons.interventions.branches`
gives each of several plans rows of its own. All three are a `Hooked`, whose methods the primitives
of `langneurons.scoring` call around each forward pass.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from langneurons.interventions.factors import Factor
from langneurons.interventions.operations import AFFINE, OPERATIONS
from langneurons.interventions.plan import SCOPES, Plan, Write
from langneurons.models.sites import MlpSites

# Whether each token of the pass calls the experts of neurons (neuron,), bool (tokens, neuron).
Called = Callable[[torch.Tensor], torch.Tensor]
UNROUTED = ", or of an expert that no token is routed to"


class NoEffect(RuntimeError):
    """An intervention that did not fire, or that changed nothing."""


@dataclass(frozen=True)
class Forward:
    """What is known of the next forward pass: bool (batch, pos) each; plans int64 (batch,)."""

    prompt: torch.Tensor
    valid: torch.Tensor | None
    plans: torch.Tensor | None

    @property
    def unpadded(self) -> torch.Tensor:
        """`valid`, where something is written that depends on it."""
        if self.valid is None:
            raise RuntimeError("a value of the layer itself needs announce(prompt, valid)")
        return self.valid

    @property
    def by_row(self) -> torch.Tensor:
        """`plans`, where each row follows its own."""
        if self.plans is None:
            raise RuntimeError("plans by row need announce(prompt, valid, numbers)")
        return self.plans


def announced(forward: Forward | None) -> Forward:
    """Return what was announced of the next forward pass; a RuntimeError without it."""
    if forward is None:
        raise RuntimeError(
            "what is hooked in needs announce(prompt, valid) before each forward pass"
        )
    return forward


class Hooked:
    """Plans that are hooked into a model; counts the forward passes in which they fired.

    Call `begin` before each batch and `announce` before each forward pass. While it is not
    `active` the hooks do nothing. width: number of results of each row; changed: numbers of the
    plans that have changed a value.
    """

    width = 1
    late = False  # whether a pass of prompts alone is run with fewer rows than others

    def __init__(
        self, sites: MlpSites, plans: Sequence[Plan], operations: Mapping[tuple[int, str], list]
    ):
        self.plans, self.operations = list(plans), operations
        self._experts: Sequence[Any] = sites.experts
        self.fired: dict[tuple[int, str], int] = {}
        self.changed: set[int] = set()
        self.active, self.begun = True, False
        self._forward: Forward | None = None
        self._handles = []
        for (layer, site), group in sorted(operations.items(), key=lambda item: item[0]):
            hook = self._hook(layer, site, group)
            if site == "residual":
                handle = sites.on_stream(layer + 1, hook)
            elif site == "act":
                handle = sites.act[layer].register_forward_hook(
                    lambda _m, _i, output, hook=hook: hook(output)
                )
            else:
                module = sites.act[layer] if site == "gate" else sites.down[layer]
                handle = module.register_forward_pre_hook(
                    lambda _m, inputs, hook=hook: (hook(inputs[0]), *inputs[1:])
                )
            self._handles.append(handle)

    @property
    def by_token(self) -> bool:
        """Whether what is written at a token depends on no other token.

        Then tokens that rows share may be read once; a value of the layer itself is taken over all
        tokens of a forward pass, so that its rows are read whole.
        """
        return all(plan.by_token for plan in self.plans)

    def begin(self) -> None:
        """Begin with a batch: nothing is cached."""
        self.begun = True

    def announce(
        self,
        prompt: torch.Tensor,
        valid: torch.Tensor | None = None,
        numbers: torch.Tensor | None = None,
        cache: Any = None,
    ) -> None:
        """Say which tokens of the next forward pass are what.

        prompt: True at tokens of a prompt or context, bool (batch, pos); valid: False at padding,
        bool (batch, pos); numbers: the plan of each row where rows have their own, int64 (batch,);
        cache: keys and values of earlier passes, which the pass will use.
        """
        self._forward = Forward(prompt, valid, None)

    def by_plan(self, values: torch.Tensor) -> torch.Tensor:
        """Return what the model gave as (width, row, ...)."""
        return values[None]

    def divided(
        self, hidden: torch.Tensor, mask: torch.Tensor, cache: Any, numbers: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Give each result of a row a row of its own from here on.

        Takes last states (rows, d_model), the mask (rows, pos) and the cache of the passes so far,
        and the plan of each row; returns states, mask and numbers of (width x rows) rows.
        """
        return hidden, mask, numbers

    def alike(self, numbers: Sequence[int]) -> list[int]:
        """Return for each row a number that rows share whose prompts are read alike."""
        return [0] * len(numbers)

    def check(self, strict: bool = True) -> None:
        """Refuse plans that did not fire in a layer or, if `strict`, changed nothing."""
        for number, plan in enumerate(self.plans):
            changed = number in self.changed or not strict
            check_effect(plan, self.fired, changed, bool(self._experts))

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _fire(self, layer: int, site: str) -> None:
        self.fired[layer, site] = self.fired.get((layer, site), 0) + 1

    def _hook(self, layer: int, site: str, operations: list) -> Callable:
        factors = list(dict.fromkeys(one for each in operations for one in each.factors))
        called = self._called(layer, site)

        def apply(values: torch.Tensor) -> torch.Tensor:
            if not self.active:
                return values
            self._fire(layer, site)
            if values.requires_grad:
                values = values.clone()
            given = self._measured(factors, values)
            for operation in operations:
                self._run(operation, values, given, called)
            return values

        return apply

    def _called(self, layer: int, site: str) -> Called | None:
        """Return what tells the tokens that neurons of experts are called for, None without.

        What is written into a neuron of an expert that is not called has no effect.
        """
        return self._experts[layer].called if self._experts and site != "residual" else None

    def _measured(self, factors: list[Factor], values: torch.Tensor) -> dict:
        """Return each factor of the rows, (batch,), before anything is written."""
        if not factors:
            return {}
        valid = announced(self._forward).unpadded.to(values.device)
        batch = values.detach().reshape(*valid.shape, -1)
        return {factor: factor(batch, valid) for factor in factors}

    def _run(
        self, operation: Any, values: torch.Tensor, factors: dict, called: Called | None
    ) -> None:
        raise NotImplementedError


class OnePlan(Hooked):
    """A plan that every row of a batch follows."""

    def __init__(self, sites: MlpSites, plan: Plan):
        check_depth(sites, plan)
        operations: dict[tuple[int, str], list[HookedWrite]] = {}
        for write in plan.writes:
            device = sites.device_of(write.layer)
            operations.setdefault((write.layer, write.site), []).append(HookedWrite(write, device))
        super().__init__(sites, [plan], operations)

    def _run(
        self,
        operation: "HookedWrite",
        values: torch.Tensor,
        factors: dict,
        called: Called | None,
    ) -> None:
        if self.changed:
            operation(values, self._forward, factors)
        elif operation.watched(values, self._forward, factors, called):
            self.changed.add(0)


class PlanPerRow(Hooked):
    """Plans of which each row of a batch follows the one of its number."""

    def __init__(self, sites: MlpSites, plans: Sequence[Plan]):
        self.ran: set[int] = set()
        writes: dict[tuple[int, str], list[list[Write]]] = {}
        for number, plan in enumerate(plans):
            check_depth(sites, plan)
            for write in plan.writes:
                place = writes.setdefault((write.layer, write.site), [[] for _ in plans])
                place[number].append(write)
        operations = {}
        for (layer, site), by_plan in writes.items():
            device = sites.device_of(layer)
            rounds = zip_longest(*by_plan)
            operations[layer, site] = [_RowOperation(one, device) for one in rounds]
        super().__init__(sites, plans, operations)
        first: dict[str, int] = {}
        self._alike = [
            first.setdefault(plan.prompt_digest(), number) for number, plan in enumerate(self.plans)
        ]

    def alike(self, numbers: Sequence[int]) -> list[int]:
        """Return for each row the first plan that writes the same into prompts."""
        return [self._alike[int(number)] for number in numbers]

    def _run(
        self,
        operation: "_RowOperation",
        values: torch.Tensor,
        factors: dict,
        called: Called | None,
    ) -> None:
        forward = announced(self._forward)
        changed = operation(values, forward, factors, called if self._waiting else None)
        if self._waiting:
            numbers = forward.by_row[changed.cpu()].tolist()
            self.changed.update(numbers)
            self._waiting.difference_update(numbers)

    def announce(
        self,
        prompt: torch.Tensor,
        valid: torch.Tensor | None = None,
        numbers: torch.Tensor | None = None,
        cache: Any = None,
    ) -> None:
        """Say which tokens of the next forward pass are what, and which plan each row follows."""
        if numbers is None or valid is None:
            raise RuntimeError("plans by row need announce(prompt, valid, numbers)")
        given = set(numbers.tolist())
        if not given <= set(range(len(self.plans))):
            raise ValueError(f"plans {sorted(given)}; there are {len(self.plans)}")
        self.ran |= given
        self._waiting = given - self.changed
        self._forward = Forward(prompt, valid, numbers.cpu())

    def check(self, strict: bool = True) -> None:
        """Refuse plans that no row was under, too."""
        for number, plan in enumerate(self.plans):
            if plan.writes and number not in self.ran:
                raise NoEffect(f"intervention {plan.name!r}: no row of any batch was under it")
        super().check(strict)


def check_depth(sites: MlpSites, plan: Plan) -> None:
    """Refuse a plan of a deeper model."""
    deepest = max((write.layer for write in plan.writes), default=-1)
    if deepest >= sites.n_layers:
        raise ValueError(f"plan writes layer {deepest} of a model of {sites.n_layers}")


class HookedWrite:
    """One write on a layer's values, in place on the last axis."""

    def __init__(self, write: Write, device: torch.device):
        self.operation, self.tokens = OPERATIONS[write.operation], write.tokens
        self.amount = write.amount
        self.factor = write.factor
        self.factors = () if write.factor is None else (write.factor,)
        self.index = torch.from_numpy(write.index).to(device)
        self.value = torch.from_numpy(write.value).to(device=device, dtype=torch.float32)
        self._cast = self.value
        if self.operation.along:
            self.unit = torch.from_numpy(write.value).to(device=device, dtype=torch.float64)

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
            batch, length = announced(forward).unpadded.shape
            value = self.value * factors[self.factor][:, None]
            value = value[:, None].expand(batch, length, -1).reshape(shape).to(values.dtype)
        if self.operation.name == "set":
            new = value.expand(shape)
        else:
            old = values.index_select(-1, self.index)
            if self.operation.along:
                new = self.operation.function(old.double(), self.unit, self.amount).to(old.dtype)
            else:
                new = self.operation.function(old, value)
        if self.tokens != "all":
            prompt = announced(forward).prompt
            chosen = prompt if self.tokens == "prompt" else ~prompt
            chosen = chosen.reshape(*values.shape[:-1], 1).to(values.device)
            new = torch.where(chosen, new, values.index_select(-1, self.index))
        values.index_copy_(-1, self.index, new)

    def watched(
        self,
        values: torch.Tensor,
        forward: Forward | None,
        factors: dict,
        called: Called | None = None,
    ) -> bool:
        """Write in place; tell whether that changed a value that is read."""
        before = values.index_select(-1, self.index)
        self(values, forward, factors)
        changed = before != values.index_select(-1, self.index)
        if called is not None:
            changed &= called(self.index).reshape(changed.shape)
        return bool(changed.any())


class _RowOperation:
    """The n-th writes of several plans on one layer and site: each row gets that of its plan.

    One gather and one scatter on the union of their neurons; equal writes are kept once, and a
    neuron that a row's own write does not touch keeps its value.
    """

    def __init__(self, writes: Sequence[Write | None], device: torch.device):
        kept: dict[bytes, int] = {}
        distinct: list[Write] = []
        which = np.zeros(len(writes), np.int64)  # 0 is no write
        for number, write in enumerate(writes):
            if write is None:
                continue
            if write.content not in kept:
                distinct.append(write)
                kept[write.content] = len(distinct)
            which[number] = kept[write.content]
        index = np.unique(np.concatenate([write.index for write in distinct]))
        shape = (len(distinct) + 1, len(index))
        added, scale = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        replaced, scope = np.zeros(shape, bool), np.zeros(len(distinct) + 1, np.int64)
        self.factors = tuple(dict.fromkeys(w.factor for w in distinct if w.factor is not None))
        others = dict.fromkeys(w.operation for w in distinct if w.operation not in AFFINE)
        self.others = [OPERATIONS[name] for name in others]
        self.amount = torch.tensor([1.0, *(write.amount for write in distinct)], device=device)
        units = np.zeros(shape)
        source, other = np.full(len(distinct) + 1, -1), np.full(shape, -1)
        for row, write in enumerate(distinct, start=1):
            column = np.searchsorted(index, write.index)
            (scale if write.operation == "scale" else added)[row, column] = write.value
            if OPERATIONS[write.operation].along:
                units[row, column] = write.value
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
        self.scope, self.source, self.other, self.units = (
            torch.from_numpy(array).to(device) for array in (scope, source, other, units)
        )

    def __call__(
        self,
        values: torch.Tensor,
        forward: Forward,
        factors: dict,
        called: Called | None = None,
    ) -> torch.Tensor:
        """Write in place; return which rows changed at a token that is no padding, (batch,)."""
        which = self.which[forward.by_row.to(values.device)]
        valid = forward.unpadded.to(values.device)
        old = values.index_select(-1, self.index)
        old = old.reshape(*valid.shape, -1)  # (batch, pos, neuron)
        value = self.added[which]
        for number, factor in enumerate(self.factors):
            own = (self.source[which] == number)[:, None]
            value = torch.where(own, value * factors[factor][:, None], value)
        value = value.to(values.dtype)[:, None]
        scale = self.scale[which].to(values.dtype)[:, None]
        new = torch.where(self.replaced[which][:, None], value, old * scale + value)
        for number, operation in enumerate(self.others):
            own = (self.other[which] == number)[:, None]
            if operation.along:
                amount = self.amount[which][:, None, None].double()
                found = operation.function(old.double(), self.units[which][:, None], amount)
                found = found.to(old.dtype)
            else:
                found = operation.function(old, value.expand_as(old))
            new = torch.where(own, found, new)
        if self.limited:
            scope = self.scope[which][:, None]
            prompt = forward.prompt.to(values.device)
            chosen = (scope == 0) | ((scope == 1) & prompt) | ((scope == 2) & ~prompt)
            new = torch.where(chosen[..., None], new, old)
        values.index_copy_(-1, self.index, new.reshape(*values.shape[:-1], -1))
        changed = new != old
        if called is not None:
            changed &= called(self.index).reshape(changed.shape)
        return (changed.any(dim=-1) & valid).any(dim=1)


def check_effect(
    plan: Plan, fired: Mapping[tuple[int, str], int], changed: bool, experts: bool = False
) -> None:
    """Refuse a plan with writes that did not fire in a layer, or changed nothing.

    experts: whether the neurons are of experts.
    """
    places = {(write.layer, write.site) for write in plan.writes}
    silent = sorted({layer for layer, _ in places - set(fired)})
    if silent:
        raise NoEffect(
            f"intervention {plan.name!r}: no hook fired in layers {silent}; is the model"
            " compiled, or its adapter wrong (langneurons/models/families.py)?"
        )
    if places and not changed:
        raise NoEffect(
            f"intervention {plan.name!r}: {plan.neurons} neurons were written, and every value"
            f" was already there{UNROUTED if experts else ''}; the result would equal the untouched"
            " model's."
        )
