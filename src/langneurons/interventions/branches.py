"""Several plans in one forward pass that read what they leave alone once.

The batch runs as it is, the trunk, up to the first layer that a plan touches; there the rows of
that plan branch off as a copy of the trunk's, and from then on the batch holds them as a block of
its own. The trunk goes on as the last plan to branch off, or as the untouched model. A plan's rows
are computed only from its first touched layer on: with first layers k_1 ... k_n of L, the passes
cost max(k) + sum(L - k) layers instead of n L. Where every plan writes into layer 0, as LAPE's
neurons mostly do, nothing is saved; where plans are limited to deep layers, up to n - 1 of n.

Writes limited to generated tokens touch no layer of a pass that holds prompts only: such plans have
the prompt's keys and values in common, and branch where the answers begin.

Nothing of the model's forward is written anew: hooks before the decoder layers widen what they
are given, the hidden states by the new blocks and everything else that goes by rows (masks,
positions, rotary tables, ALiBi) by repetition. A key-value cache keeps as many rows in each layer
as pass through it (`langneurons.scoring.keyvalues`). Where rows go their own ways, as answers do,
every plan gets rows of its own in every layer (`Branched.divided`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from langneurons.interventions.hooks import (
    Called,
    Forward,
    Hooked,
    HookedWrite,
    PlanPerRow,
    announced,
    check_depth,
    check_effect,
)
from langneurons.interventions.plan import Plan
from langneurons.models.sites import MlpSites

# A plan branches off from others where it leaves this share of the layers alone.
WORTH = 0.1
# Plans that run together are kept together: a kill costs no more than so many, and the layers that
# they share are a sixteenth of each.
MOST = 16


@dataclass(frozen=True)
class Layout:
    """Which block of rows each plan has in each layer.

    order: the plan of each block, the trunk first; counts: how many blocks each layer has.
    """

    order: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def branching(cls, first: Sequence[int], n_layers: int) -> "Layout":
        """Return the layout of plans that branch off at these layers, n_layers for nowhere.

        The trunk is the plan that branches off last.
        """
        by_depth = sorted(range(len(first)), key=lambda number: (first[number], number))
        order = (by_depth[-1], *by_depth[:-1])
        counts = (1 + sum(first[n] <= layer for n in order[1:]) for layer in range(n_layers))
        return cls(order, tuple(counts))

    @classmethod
    def apart(cls, n_plans: int, n_layers: int) -> "Layout":
        """Return the layout in which each plan has a block in every layer, in their order."""
        return cls(tuple(range(n_plans)), (n_plans,) * n_layers)

    def block(self, layer: int, plan: int) -> int:
        """Return where a plan's rows are; the trunk's block before it branches off."""
        number = self.order.index(plan)
        return number if number < self.counts[layer] else 0

    def last(self) -> list[int]:
        """Return the block of each plan in what the last layer gives."""
        return [self.block(len(self.counts) - 1, plan) for plan in range(len(self.order))]


def portions(first: Sequence[int], n_layers: int, limit: int) -> list[list[int]]:
    """Return which plans to run together, at most `limit` or 16; by depth, the deepest first.

    first: the layer where each branches off. A plan that leaves less than a tenth of the layers
    alone stands alone.
    """
    by_depth = sorted(range(len(first)), key=lambda number: (-first[number], number))
    found: list[list[int]] = []
    for number in by_depth:
        worth = first[number] >= WORTH * n_layers
        if found and worth and len(found[-1]) < min(limit, MOST):
            found[-1].append(number)
        else:
            found.append([number])
    return found


class Branched(Hooked):
    """Plans each of which gets rows of its own in every batch."""

    def __init__(self, sites: MlpSites, plans: Sequence[Plan]):
        n_layers = sites.n_layers
        self._sites, self.width = sites, len(plans)
        self._whole, self._prompt = (
            Layout.branching([plan.begins(n_layers, some) for plan in plans], n_layers)
            for some in (False, True)
        )
        # Whether some plan branches off later in prompts than in answers.
        self.late = self._prompt != self._whole
        self.layout = self._whole
        self._rows: PlanPerRow | None = None
        self._widened: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        operations: dict[tuple[int, str], list[tuple[int, HookedWrite]]] = {}
        for number, plan in enumerate(plans):
            check_depth(sites, plan)
            for write in plan.writes:
                device = sites.device_of(write.layer)
                place = operations.setdefault((write.layer, write.site), [])
                place.append((number, HookedWrite(write, device)))
        super().__init__(sites, plans, operations)
        for layer, module in enumerate(sites.layers):
            if self._whole.counts[layer] > 1:
                handle = module.register_forward_pre_hook(self._widen(layer), with_kwargs=True)
                self._handles.append(handle)

    def _widen(self, layer: int) -> Callable[..., tuple[tuple, dict[str, Any]] | None]:
        def hook(
            _module: nn.Module, given: tuple, keywords: dict[str, Any]
        ) -> tuple[tuple, dict[str, Any]] | None:
            count = self.layout.counts[layer]
            if not self.active or count == 1:
                return None
            new = count - (self.layout.counts[layer - 1] if layer else 1)
            rows = len(announced(self._forward).prompt)
            key = "hidden_states"
            hidden = given[0] if given else keywords[key]
            rest = [self._repeated(each, rows, count) for each in given[1:]]
            others = {k: self._repeated(v, rows, count) for k, v in keywords.items() if k != key}
            if new:
                hidden = torch.cat([hidden, *[hidden[: len(hidden) // (count - new)]] * new])
            if given:
                return (hidden, *rest), others
            return (), others | {key: hidden}

        return hook

    def _repeated(self, value: Any, rows: int, count: int) -> Any:
        """Return an argument of a layer with what goes by rows repeated for each block."""
        if isinstance(value, torch.Tensor):
            if value.dim() < 2 or len(value) % rows or len(value) == 1 < rows:
                return value
            key = (id(value), count)
            if key not in self._widened:
                wide = value.repeat(count, *[1] * (value.dim() - 1))
                self._widened[key] = value, wide  # the first is kept, so that its id stays its own
            return self._widened[key][1]
        if type(value) in (tuple, list):
            return type(value)(self._repeated(each, rows, count) for each in value)
        if type(value) is dict:
            return {k: self._repeated(each, rows, count) for k, each in value.items()}
        return value

    def _hook(self, layer: int, site: str, operations: list[tuple[int, HookedWrite]]) -> Callable:
        def apply(values: torch.Tensor) -> torch.Tensor:
            if not self.active:
                return values
            self._fire(layer, site)
            if values.requires_grad:
                values = values.clone()
            size = len(values) // self.layout.counts[layer]
            called = self._called(layer, site)
            measured: dict[int, dict] = {}

            def within(begin: int) -> Called | None:
                if called is None:
                    return None
                return lambda index: called(index)[begin : begin + size]

            for number, operation in operations:
                if operation.tokens == "generated" and self.layout is self._prompt:
                    continue
                begin = self.layout.block(layer, number) * size
                own = values[begin : begin + size]
                if number not in measured:
                    factors = [f for n, each in operations if n == number for f in each.factors]
                    measured[number] = self._measured(list(dict.fromkeys(factors)), own)
                if number in self.changed:
                    operation(own, self._forward, measured[number])
                elif operation.watched(own, self._forward, measured[number], within(begin)):
                    self.changed.add(number)
            return values

        return apply

    def begin(self) -> None:
        """Begin with a batch: nothing is cached, and plans share their rows again."""
        super().begin()
        self._by_row(False)
        self.layout = self._whole

    def announce(
        self,
        prompt: torch.Tensor,
        valid: torch.Tensor | None = None,
        numbers: torch.Tensor | None = None,
        cache: Any = None,
    ) -> None:
        """Say which tokens (batch, pos) of the next forward pass are what, before they are widened.

        Once the plans are `divided`, `numbers` hold the plan of each row.
        """
        if not self.active and self._rows is not None:
            self._rows.announce(prompt, valid, numbers)
            return
        if numbers is not None or valid is None:
            raise RuntimeError("branches need announce(prompt, valid), without numbers")
        self._widened.clear()
        before = self.layout
        only_prompt = self.late and bool((prompt | ~valid).all())
        self.layout = self._prompt if only_prompt else self._whole
        self._forward = Forward(prompt, valid, None)
        if cache is not None:
            self._carry(cache, before)

    def by_plan(self, values: torch.Tensor) -> torch.Tensor:
        """Return what the model gave, (blocks x rows, ...), as (plan, row, ...)."""
        blocks = values.reshape(self.layout.counts[-1], -1, *values.shape[1:])
        order = self.layout.last()
        return blocks if order == list(range(len(blocks))) else blocks[order]

    def _carry(self, cache: Any, before: Layout) -> None:
        """Bring a cache that was read under the layout `before` to the present one."""
        after = self.layout
        if before == after:
            return
        for layer, part in enumerate(cache.layers):
            plans = after.order[: after.counts[layer]]
            blocks = [before.block(layer, plan) for plan in plans]
            if blocks == list(range(before.counts[layer])):
                continue
            of = part.keys.shape[0] // before.counts[layer]
            rows = torch.tensor(blocks)[:, None] * of + torch.arange(of)
            part.select(rows.reshape(-1))

    def divided(
        self, hidden: torch.Tensor, mask: torch.Tensor, cache: Any, numbers: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Give each plan rows of its own from here on, in the order of the plans."""
        rows = len(mask)
        hidden = self.by_plan(hidden).flatten(0, 1)
        before, self.layout = self.layout, Layout.apart(self.width, self._sites.n_layers)
        self._carry(cache, before)
        self._by_row(True)
        return hidden, mask.repeat(self.width, 1), torch.arange(self.width).repeat_interleave(rows)

    def _by_row(self, chosen: bool) -> None:
        if chosen and self._rows is None:
            self._rows = PlanPerRow(self._sites, self.plans)
        if self._rows is not None:
            self._rows.active = chosen
        self.active = not chosen

    def remove(self) -> None:
        """Take the hooks off."""
        super().remove()
        if self._rows is not None:
            self._rows.remove()

    def check(self, strict: bool = True) -> None:
        """Refuse plans that did not fire or changed nothing."""
        fired, changed = dict(self.fired), set(self.changed)
        if self._rows is not None:
            fired |= self._rows.fired
            changed |= self._rows.changed
        for number, plan in enumerate(self.plans):
            check_effect(plan, fired, number in changed or not strict, bool(self._experts))
