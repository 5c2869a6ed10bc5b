"""Several plans in one forward pass that read the layers before the first they touch once.

The batch runs as it is, the trunk, up to the first layer that a plan touches; there the rows of
that plan branch off as a copy of the trunk's, and from then on the batch holds them as a block of
its own. The trunk goes on as the last plan to branch off, or as the untouched model. A plan's rows
are computed only from its first touched layer on: with first layers k_1 ... k_n of L, the passes
cost max(k) + sum(L - k) layers instead of n L. Where every plan writes into layer 0, as LAPE's
neurons mostly do, nothing is saved; where plans are limited to deep layers, up to n - 1 of n.

Nothing of the model's forward is written anew: hooks before the decoder layers widen what they
are given, the hidden states by the new blocks and everything else that goes by rows (masks,
positions, rotary tables, ALiBi) by repetition. A key-value cache keeps as many rows in each layer
as pass through it (`langneurons.keyvalues`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from langneurons.adapters import MlpSites
from langneurons.interventions import (
    Forward,
    Hooked,
    HookedWrite,
    Plan,
    check_depth,
    check_effect,
)

# A plan branches off from others where it leaves this share of the layers alone.
WORTH = 0.1


def order(plans: Sequence[Plan], n_layers: int) -> tuple[list[int], list[int]]:
    """Return the plans in the order of their blocks, and how many blocks each layer has.

    The first block is the trunk: the plan that branches off last.
    """
    first = [n_layers if plan.empty else plan.first_layer for plan in plans]
    by_depth = sorted(range(len(plans)), key=lambda number: (first[number], number))
    blocks = [by_depth[-1], *by_depth[:-1]]
    counts = [1 + sum(first[n] <= layer for n in blocks[1:]) for layer in range(n_layers)]
    return blocks, counts


def portions(plans: Sequence[Plan], n_layers: int, limit: int) -> list[list[int]]:
    """Return which plans to run together, at most `limit` of them; by depth, the deepest first.

    A plan that leaves less than a tenth of the layers alone stands alone.
    """
    first = [n_layers if plan.empty else plan.first_layer for plan in plans]
    by_depth = sorted(range(len(plans)), key=lambda number: (-first[number], number))
    found: list[list[int]] = []
    for number in by_depth:
        worth = first[number] >= WORTH * n_layers
        if found and worth and len(found[-1]) < limit:
            found[-1].append(number)
        else:
            found.append([number])
    return found


class Branched(Hooked):
    """Plans that are hooked into a model, each of which gets rows of its own in every batch.

    Call `on_forward(prompt, valid)` before each forward pass. What the model returns has the rows
    of plan n in the block `blocks[n]`, of as many rows as the batch had.
    """

    def __init__(self, sites: MlpSites, plans: Sequence[Plan]):
        self.plans = list(plans)
        self.changed: set[int] = set()
        ordered, self._counts = order(self.plans, sites.n_layers)
        self.blocks = [ordered.index(number) for number in range(len(ordered))]
        self.by_token = all(plan.by_token for plan in self.plans)
        self._widened: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        operations: dict[tuple[int, str], list[tuple[int, HookedWrite]]] = {}
        for number, plan in enumerate(self.plans):
            check_depth(sites, plan)
            for write in plan.writes:
                device = next(sites.down[write.layer].parameters()).device
                place = operations.setdefault((write.layer, write.site), [])
                place.append((number, HookedWrite(write, device)))
        super().__init__(sites, operations)
        for layer, module in enumerate(sites.layers):
            if self._counts[layer] > 1:
                handle = module.register_forward_pre_hook(self._widen(layer), with_kwargs=True)
                self._handles.append(handle)

    def _widen(self, layer: int):
        count = self._counts[layer]
        new = count - (self._counts[layer - 1] if layer else 1)

        def hook(_module, arguments, named):
            rows = self._forward.valid.shape[0]
            arguments, named = list(arguments), dict(named)
            where, key = (arguments, 0) if arguments else (named, "hidden_states")
            hidden = where[key]
            rest = [self._repeated(each, rows, count) for each in arguments[1:]]
            others = {k: self._repeated(v, rows, count) for k, v in named.items() if k != key}
            if new:
                hidden = torch.cat([hidden, *[hidden[: len(hidden) // (count - new)]] * new])
            if arguments:
                return (hidden, *rest), others
            return (), others | {key: hidden}

        return hook

    def _repeated(self, value, rows: int, count: int):
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

    def _hook(self, layer: int, operations: list[tuple[int, HookedWrite]]):
        count = self._counts[layer]

        def apply(values: torch.Tensor) -> torch.Tensor:
            self.fired[layer] = self.fired.get(layer, 0) + 1
            if values.requires_grad:
                values = values.clone()
            size = len(values) // count
            measured: dict[int, dict] = {}
            for number, operation in operations:
                begin = self.blocks[number] * size
                own = values[begin : begin + size]
                if number not in measured:
                    factors = [f for n, each in operations if n == number for f in each.factors]
                    measured[number] = self._measured(list(dict.fromkeys(factors)), own)
                if number in self.changed:
                    operation(own, self._forward, measured[number])
                elif operation.watched(own, self._forward, measured[number]):
                    self.changed.add(number)
            return values

        return apply

    def on_forward(
        self,
        prompt: torch.Tensor,
        valid: torch.Tensor | None = None,
        conditions: torch.Tensor | None = None,
    ) -> None:
        """Announce the tokens (batch, pos) of the next forward pass, before they are widened."""
        if conditions is not None or valid is None:
            raise RuntimeError("branches need on_forward(prompt, valid), without conditions")
        self._widened.clear()
        self._forward = Forward(prompt, valid, None)


@contextmanager
def branched(sites: MlpSites, plans: Sequence[Plan], strict: bool = True) -> Iterator[Branched]:
    """Hook plans into a model, each with rows of its own, for the length of the block.

    Every plan's rows get what they would get under it alone; checked on leaving as by `applied`.
    """
    running = Branched(sites, plans)
    try:
        yield running
        for number, plan in enumerate(running.plans):
            check_effect(plan, running.fired, number in running.changed or not strict)
    finally:
        running.remove()
