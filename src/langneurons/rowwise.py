"""Interventions that differ from row to row of a batch, so that many conditions run together.

Decoding is bound by reading the weights, so a batch of a few prompts under one plan costs as much
as a batch of a hundred under a hundred plans. A plan whose writes are numbers is affine in every
neuron: a <- multiplier * a + shift, its steps composed in their order. Per layer and site there is
one multiplier and one shift per row, (rows, 1, d_mlp), in the model's dtype. Plans that are not of
this kind run one after the other, under `interventions.applied`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from langneurons.adapters import MlpSites
from langneurons.interventions import NoEffect, Plan, Write, applied

KNOWN = ("layer", "site", "operation", "index", "value", "tokens")
PHASES = ("prompt", "generated")


def is_affine(plan: Plan) -> bool:
    """Tell whether every write of a plan is a number per neuron."""
    return all(_plain(write) for write in plan.writes)


def _plain(write: Write) -> bool:
    more = (one for one in dataclasses.fields(write) if one.name not in KNOWN)
    default = all(getattr(write, one.name) == one.default for one in more)
    return default and write.operation in ("set", "add", "scale")


def affine(
    writes: Sequence[Write], d_mlp: int, phase: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return index (n,), multiplier (n,) and shift (n,) of writes at one layer and site."""
    multiplier, shift = np.ones(d_mlp), np.zeros(d_mlp)
    touched = np.zeros(d_mlp, bool)
    for write in writes:
        if write.tokens not in ("all", phase):
            continue
        touched[write.index] = True
        if write.operation == "set":
            multiplier[write.index], shift[write.index] = 0.0, write.value
        elif write.operation == "add":
            shift[write.index] += write.value
        else:
            multiplier[write.index] *= write.value
            shift[write.index] *= write.value
    index = np.flatnonzero(touched)
    return index, multiplier[index], shift[index]


class Rowwise:
    """Plans hooked into a model, one per prompt.

    Call `on_batch(numbers)` with the prompts of the next batch, in its rows' order, and
    `on_forward(mask)` before each forward pass (whose tokens are all the prompt's or none).
    """

    def __init__(self, sites: MlpSites, plans: Sequence[Plan]):
        self.sites, self.plans = sites, list(plans)
        self.changed = np.array([plan.empty for plan in plans], bool)
        self._phase = "prompt"
        self._rows: list[int] = []
        self._factors: dict[tuple[int, str, str], tuple[torch.Tensor, torch.Tensor]] = {}
        self._groups: list[dict[tuple[int, str], list[Write]]] = []
        for plan in plans:
            own: dict[tuple[int, str], list[Write]] = {}
            for write in plan.writes:
                own.setdefault((write.layer, write.site), []).append(write)
            self._groups.append(own)
        self.places = sorted({place for own in self._groups for place in own})
        self.fired: set[tuple[int, str]] = set()
        self._handles = []
        for layer, site in self.places:
            hook = self._hook(layer, site)
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

    def on_batch(self, numbers: Sequence[int]) -> None:
        """Announce which prompts the next batch holds."""
        self._rows = list(numbers)
        self._factors.clear()

    def on_forward(self, prompt_mask: torch.Tensor) -> None:
        """Announce whether the next forward pass reads the prompt or generated tokens."""
        self._phase = PHASES[0] if bool(prompt_mask.all()) else PHASES[1]

    def _factor(self, layer: int, site: str, like: torch.Tensor):
        key = (layer, site, self._phase)
        if key not in self._factors:
            shape = (len(self._rows), 1, self.sites.d_mlp)
            multiplier = torch.ones(shape, dtype=torch.float32)
            shift = torch.zeros(shape, dtype=torch.float32)
            for row, number in enumerate(self._rows):
                writes = self._groups[number].get((layer, site), ())
                index, scale, offset = affine(writes, self.sites.d_mlp, self._phase)
                multiplier[row, 0, index] = torch.from_numpy(scale).float()
                shift[row, 0, index] = torch.from_numpy(offset).float()
            self._factors[key] = tuple(
                one.to(device=like.device, dtype=like.dtype) for one in (multiplier, shift)
            )
        return self._factors[key]

    def _hook(self, layer: int, site: str) -> Callable:
        def apply(values: torch.Tensor) -> torch.Tensor:
            self.fired.add((layer, site))
            multiplier, shift = self._factor(layer, site, values)
            shaped = values.reshape(len(self._rows), -1, values.shape[-1])
            new = shaped * multiplier + shift
            if not self.changed[self._rows].all():
                moved = (new != shaped).flatten(1).any(1).cpu().numpy()
                self.changed[np.asarray(self._rows)[moved]] = True
            return new.reshape(values.shape)

        return apply

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._factors.clear()


@contextmanager
def applied_by_row(sites: MlpSites, plans: Sequence[Plan]) -> Iterator[Rowwise]:
    """Hook one affine plan per prompt into a model for the length of the block.

    On leaving, every place that a plan writes must have fired and every plan must have changed a
    value of its own prompt; otherwise `NoEffect`.
    """
    running = Rowwise(sites, plans)
    try:
        yield running
        silent = sorted(set(running.places) - running.fired)
        if silent:
            raise NoEffect(
                f"no hook fired at {silent}; is the model compiled, or its adapter wrong"
                " (langneurons/adapters.py)?"
            )
        idle = [plans[number].name for number in np.flatnonzero(~running.changed)]
        if idle:
            raise NoEffect(
                f"intervention {idle[0]!r}: neurons were written, and every value was already"
                " there; the result would equal the untouched model's."
            )
    finally:
        running.remove()


def under_plans(
    sites: MlpSites, plans: Sequence[Plan], run: Callable[[Sequence[int], Callable, Callable], list]
) -> list:
    """Return the result of every prompt under its own plan.

    `run(numbers, on_batch, on_forward)` gives the results of those prompts, and calls `on_batch`
    with positions in `numbers`. Affine plans share batches; each other plan has its own.
    """
    results: list = [None] * len(plans)
    together = [number for number, plan in enumerate(plans) if is_affine(plan)]
    alone: dict[int, list[int]] = {}
    for number, plan in enumerate(plans):
        if not is_affine(plan):
            alone.setdefault(id(plan), []).append(number)
    found = []
    if together:
        with applied_by_row(sites, [plans[number] for number in together]) as running:
            found.append((together, run(together, running.on_batch, running.on_forward)))
    for numbers in alone.values():
        with applied(sites, plans[numbers[0]]) as running:
            found.append((numbers, run(numbers, lambda _: None, running.on_forward)))
    for numbers, values in found:
        for number, value in zip(numbers, values, strict=True):
            results[number] = value
    return results
