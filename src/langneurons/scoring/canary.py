"""Whether plans change a model as they must, asked of the model itself before a job computes.

Plans of known effect are hooked in, in each of the three ways in which jobs hook plans in. The
logits of a few tokens must be those of the same model without any hook, in which the same change
was made another way:

- scaling or zeroing a neuron at `product`, `act` or `gate` is scaling or zeroing its column of the
  down projection (a nonlinearity is 0 at 0),
- adding a vector to the residual stream is a layer whose output has it added.

Of a mixture of experts the logits without a plan must also be those of transformers' own experts.

A plan that writes nothing must change nothing. Modules are found for this by their names, not
through the objects that hooks go on. Every layer and site takes part.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from langneurons.interventions.apply import hooked
from langneurons.interventions.hooks import NoEffect
from langneurons.interventions.plan import PerRequest, Plan, Under, Write, untouched
from langneurons.models.experts import Down, own_forward, written
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.head import logit_blocks
from langneurons.scoring.reading import states

log = logging.getLogger(__name__)
ROWS, TOKENS = 3, 8
EVERY = 16  # at each site one neuron in 16 of a layer is changed
# What is done to neurons at each site: exact in every number format, and twice is not once.
NEURONS = (("gate", "set", 0.0), ("act", "scale", -2.0), ("product", "scale", -2.0))
# Root mean square of what logits are apart from the known ones, over that of the known change.
LIMITS = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.25}
# The same of the logits themselves, where nothing was written: the same passes, the same numbers.
UNTOUCHED_LIMITS = {torch.float64: 1e-9, torch.float32: 1e-5}
REDUCED = 1e-2  # of formats with less precision
ONE, ROW, BRANCH = "one plan for all rows", "a plan per row", "plans in branches"
REMEDY = (
    "Numbers under plans of this model would be wrong, so the job computes nothing. A module was"
    " replaced, fused or compiled after loading, a hook was left on the model, or this version of"
    " transformers runs the family in another way. Compare the paths of its family in"
    " src/langneurons/models/families.py with the model's modules. If the model is as it was"
    " loaded, report this message with the model and the versions of torch and transformers."
)


class CanaryError(RuntimeError):
    """A plan of known effect had another effect on the model."""


@dataclass(frozen=True)
class _Parts:
    """The down projection and the layer of each layer, found by name, and what they are called."""

    down: Sequence[nn.Module]
    layers: Sequence[nn.Module]
    names: Sequence[str]
    experts: Sequence[nn.Module]


@torch.inference_mode()
def check_model(model: LanguageModel) -> None:
    """Refuse a model that plans do not change by the known amount, or that none changes.

    Raises:
        CanaryError: It says by how much, and at which layer and site.
    """
    start = time.monotonic()
    canary = _Canary(model)
    if not canary.readable:
        log.warning("canary: a logit of the untouched model is not finite; plans are not checked")
        return
    worst = canary.check()
    log.info(
        "canary: plans change the logits of %d layers as known, to %.1e of the change, %.1f s",
        model.n_layers,
        worst,
        time.monotonic() - start,
    )


class _Canary:
    """A few tokens of a model, its logits without hooks, and the changes whose effect is known."""

    def __init__(self, model: LanguageModel):
        _check_left(model.model)
        self.model, self.parts = model, _parts(model)
        embeddings = model.sites.backbone.get_input_embeddings().weight.shape[0]
        length = min(TOKENS, model.max_positions or TOKENS)
        places = torch.arange(ROWS * length).reshape(ROWS, length)
        first = min(5, embeddings - 1)
        self.tokens = (first + places * 37 % min(embeddings - first, 997)).to(model.device)
        size = next(iter(model.model.parameters())).dtype
        self.dtype = size if size.is_floating_point else torch.bfloat16
        self._streams: dict[int, tuple[float, torch.dtype]] = {}
        self.base = self._without_hooks(self._recording())
        self.readable = bool(torch.isfinite(self.base).all())

    def check(self) -> float:
        """Return the largest share of a known change by which logits were apart from it."""
        self._check_whole()
        self._compare("no plan", self._found(None)[0], self.base, None)
        neurons, stream = self._changes(False), self._changes(True)
        known = [self._known(one) for one in (neurons, stream)]
        worst = 0.0
        for changes, want in zip((neurons, stream), known, strict=True):
            worst = max(worst, self._one(changes, want))
        for kind in (ROW, BRANCH):
            worst = max(worst, self._several(kind, [neurons, stream], known))
        return worst

    # What must come out ------------------------------------------------------------------------

    def _changes(self, stream: bool) -> list[Write]:
        sites = self.model.sites
        if stream:
            return [self._added(layer) for layer in range(sites.n_layers)]
        return [
            self._scaled(layer, number)
            for layer in range(sites.n_layers)
            for number in range(len(NEURONS))
        ]

    def _scaled(self, layer: int, number: int) -> Write:
        site, operation, value = NEURONS[number]
        d_mlp = self.model.d_mlp
        first = (layer + 5 * number) % min(EVERY, d_mlp)
        index = np.arange(first, d_mlp, EVERY)
        return Write(layer, site, operation, index, np.full(len(index), value))

    def _added(self, layer: int) -> Write:
        size, dtype = self._streams[layer]
        width = self.model.sites.d_model
        drawn = np.random.default_rng(layer).normal(0.0, 0.5 * size, width)
        value = torch.from_numpy(drawn).float().to(dtype).double().numpy()
        return Write(layer, "residual", "add", np.arange(width), value)

    def _known(self, changes: Sequence[Write]) -> torch.Tensor:
        """Return the logits (row, vocabulary) under changes that are made without hooks."""
        factors: dict[int, np.ndarray] = {}
        replaced: dict[nn.Module, Callable] = {}
        called: dict[str, int] = {}
        for change in changes:
            layer, name = change.layer, self.parts.names[change.layer]
            if change.site == "residual":
                module = self.parts.layers[layer]
                value = torch.from_numpy(change.value)
                replaced[module] = _counted(partial(_plus, module.forward, value), called, name)
                continue
            own = factors.setdefault(layer, np.ones(self.model.d_mlp))
            own[change.index] *= change.value
        transposed = self.model.sites.family.transposed
        for layer, factor in factors.items():
            module, name = self.parts.down[layer], self.parts.names[layer]
            name = f"{name}.{self.model.sites.family.down}"
            other = _with_columns(module, torch.from_numpy(factor), transposed)
            replaced[module] = _counted(other, called, name)
        logits = self._without_hooks(replaced)
        silent = [name for name, calls in called.items() if not calls]
        if silent:
            raise CanaryError(
                f"canary: a forward pass does not call {silent[0]!r}, so nothing written there has"
                f" an effect ({len(silent)} of {len(called)} such modules). {REMEDY}"
            )
        return logits

    def _recording(self) -> dict[nn.Module, Callable]:
        def record(layer: int, forward: Callable, *given: Any, **named: Any) -> Any:
            output = forward(*given, **named)
            stream = output[0] if isinstance(output, tuple) else output
            self._streams[layer] = float(stream.float().abs().median()), stream.dtype
            return output

        layers = enumerate(self.parts.layers)
        return {module: partial(record, number, module.forward) for number, module in layers}

    def _without_hooks(self, replaced: Mapping[nn.Module, Callable]) -> torch.Tensor:
        with _bare(self.model.model), _forwards(replaced):
            hidden = states(self.model.sites, self.tokens)
        if len(self._streams) < self.model.n_layers:
            raise CanaryError(
                f"canary: a forward pass calls {len(self._streams)} of the model's"
                f" {self.model.n_layers} layers by the names of its family. {REMEDY}"
            )
        return self._logits(hidden[:, -1])

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden.to(self.model.sites.head_device)
        blocks = [block for _, block in logit_blocks(self.model.head, hidden, self.model.config)]
        return torch.cat(blocks, 1)

    # What does come out ------------------------------------------------------------------------

    def _found(self, under: Under) -> torch.Tensor:
        """Return the logits (plan, row, vocabulary) under what is hooked in, as jobs have them."""
        valid = torch.ones_like(self.tokens, dtype=torch.bool)
        numbers = torch.tensor(under.numbers) if isinstance(under, PerRequest) else None
        with hooked(self.model, under) as running:
            running.begin()
            running.announce(valid, valid, numbers)
            hidden = running.by_plan(states(self.model.sites, self.tokens))[:, :, -1]
        return torch.stack([self._logits(one) for one in hidden])

    def _check_whole(self) -> None:
        """Compare with what transformers makes of the same tokens, head included."""
        theirs = {one: partial(own_forward, one) for one in self.parts.experts}
        with _bare(self.model.model), _forwards(theirs):
            whole = self.model.model(input_ids=self.tokens, use_cache=False).logits[:, -1]
        whole = whole.float().to(self.base.device)
        apart = _size(whole - self.base) / _size(whole)
        # The head is multiplied in blocks here: one rounding of each logit may differ.
        if not bool((apart <= LIMITS[self.dtype] / 5).all()):
            raise CanaryError(
                "canary: without any plan the logits are not those of the model's own forward pass:"
                f" apart by {float(apart.max()):.2g} of their size. {REMEDY}"
            )

    def _one(self, changes: Sequence[Write], want: torch.Tensor) -> float:
        find = partial(self._tried, ONE)
        return self._compare(ONE, find([changes])[0], want, [changes])

    def _several(
        self, kind: str, parts: Sequence[Sequence[Write]], known: Sequence[torch.Tensor]
    ) -> float:
        wants = [self.base, *known]
        found = self._tried(kind, parts)
        if kind == ROW:
            numbers = _numbers(len(wants))
            own = torch.stack([wants[number][row] for row, number in enumerate(numbers)])
            return self._compare(kind, found[0], own, parts)
        apart = zip(found, wants, strict=True)
        return max(self._compare(kind, got, want, parts) for got, want in apart)

    def _tried(
        self, kind: str, parts: Sequence[Sequence[Write]], locate: bool = True
    ) -> torch.Tensor:
        """Return the logits (plan, row, vocabulary); what did not fire is told with where."""
        plans = [Plan("canary", list(part)) for part in parts]
        several = [untouched(), *plans]
        under: Under = plans[0]
        if kind == ROW:
            under = PerRequest(several, _numbers(len(several)))
        elif kind == BRANCH:
            under = several
        try:
            return self._found(under)
        except NoEffect as error:
            where = self._where(kind, parts) if locate else ""
            raise CanaryError(f"canary, {kind}{where}: {error} {REMEDY}") from error

    def _compare(
        self,
        kind: str,
        got: torch.Tensor,
        want: torch.Tensor,
        parts: Sequence[Sequence[Write]] | None,
    ) -> float:
        """Return the largest error of a row; one beyond the limit is an error that says where."""
        share, changed = self._apart(got, want)
        limits = torch.where(changed, LIMITS[self.dtype], self._still)
        beyond = ~(share <= limits)
        if not bool(beyond.any()):
            return float(share.max())
        row = int(beyond.int().argmax())
        what = "the known change" if bool(changed[row]) else "their size, and nothing was written"
        where = "" if parts is None else self._where(kind, parts)
        raise CanaryError(
            f"canary, {kind}: logits of row {row} are apart from the known ones by"
            f" {float(share[row]):.2g} of {what} (at most {float(limits[row]):g} in"
            f" {str(self.dtype).removeprefix('torch.')}){where}. {REMEDY}"
        )

    @property
    def _still(self) -> float:
        return UNTOUCHED_LIMITS.get(self.dtype, REDUCED)

    def _apart(self, got: torch.Tensor, want: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return by row the share by which logits are apart, and whether a change was to be."""
        change, size = _size(want - self.base), _size(self.base)
        changed = (want != self.base).any(1)
        return _size(got - want) / torch.where(changed, change, size), changed

    def _where(self, kind: str, parts: Sequence[Sequence[Write]]) -> str:
        """Return the first layer and site at which one write alone is not as known."""
        for write in sorted((w for part in parts for w in part), key=lambda write: write.layer):
            place = f", first at layer {write.layer}, site {write.site}"
            want = self._known([write])
            try:
                found = self._tried(kind, [[write]], locate=False)
            except CanaryError:
                return place
            wants = [want]
            if kind == ROW:
                own = [(self.base, want)[number] for number in _numbers(2)]
                wants = [torch.stack([one[row] for row, one in enumerate(own)])]
            elif kind == BRANCH:
                wants = [self.base, want]
            for got, one in zip(found, wants, strict=True):
                share, changed = self._apart(got, one)
                if not bool((share <= torch.where(changed, LIMITS[self.dtype], self._still)).all()):
                    return place
        return ", at no layer and site by itself"


def _numbers(plans: int) -> list[int]:
    """Return the plan of each row: the first is untouched."""
    return [row % plans for row in range(ROWS)]


def _size(values: torch.Tensor) -> torch.Tensor:
    """Return the root mean square of each row."""
    return values.double().square().mean(1).sqrt()


def _check_left(model: nn.Module) -> None:
    """Refuse a model on which a hook of this package was left."""
    package = __name__.partition(".")[0]
    for name, module in model.named_modules():
        for hook in [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]:
            if str(getattr(hook, "__module__", "")).partition(".")[0] == package:
                raise CanaryError(
                    f"canary: a hook was left on {name!r} before any plan was hooked in. {REMEDY}"
                )


def _parts(model: LanguageModel) -> _Parts:
    """Return the modules of each layer, found by name in the model that was loaded."""
    family = model.sites.family
    named = dict(model.model.named_modules())
    down: list[nn.Module] = []
    layers: list[nn.Module] = []
    names: list[str] = []
    for layer in range(model.n_layers):
        tail = f"{family.layers}.{layer}.{family.down}"
        found = [name for name in named if name == tail or name.endswith(f".{tail}")]
        if len(found) != 1:
            raise CanaryError(
                f"canary: {len(found)} modules of the model are called '...{tail}'; one is needed."
                f" {REMEDY}"
            )
        names.append(found[0].removesuffix(f".{family.down}"))
        down.append(named[found[0]])
        layers.append(named[names[-1]])
    inside = (f"{name}.{family.experts}" for name in names if family.experts)
    return _Parts(down, layers, names, [named[name] for name in inside])


def _with_columns(module: nn.Module, factor: torch.Tensor, transposed: bool) -> Callable:
    """Return the forward of a down projection with the columns of its neurons times a factor.

    By its weight where that is a plain matrix, else (4-bit weights, LoRA) by its input.
    """
    weight: Any = getattr(module, "weight", None)
    if type(module) is nn.Linear and not transposed:
        bias: Any = module.bias

        def linear(values: torch.Tensor) -> torch.Tensor:
            own = factor.to(device=weight.device, dtype=weight.dtype)
            return nn.functional.linear(values, weight * own, bias)

        return linear
    if type(module) is Conv1D and transposed:
        shift: Any = module.bias

        def conv(values: torch.Tensor) -> torch.Tensor:
            own = factor.to(device=weight.device, dtype=weight.dtype)
            flat = torch.addmm(shift, values.reshape(-1, len(weight)), weight * own[:, None])
            return flat.reshape(*values.shape[:-1], -1)

        return conv
    if isinstance(module, Down):

        def of_experts(values: torch.Tensor, routed: Any) -> torch.Tensor:
            own = factor.to(device=weight.device, dtype=weight.dtype)
            return written(values, routed, weight * own.view(len(weight), 1, -1))

        return of_experts
    forward = module.forward

    def by_input(values: torch.Tensor, *given: Any, **named: Any) -> Any:
        return forward(
            values * factor.to(device=values.device, dtype=values.dtype), *given, **named
        )

    return by_input


def _plus(forward: Callable, value: torch.Tensor, *given: Any, **named: Any) -> Any:
    """Return what a layer gives, with a vector added to its stream in float64."""
    output = forward(*given, **named)
    several = isinstance(output, tuple)
    stream = output[0] if several else output
    stream = (stream.double() + value.to(stream.device)).to(stream.dtype)
    return (stream, *output[1:]) if several else stream


def _counted(forward: Callable, called: dict[str, int], name: str) -> Callable:
    """Return a forward that counts its calls under a name."""
    called[name] = 0

    def counting(*given: Any, **named: Any) -> Any:
        called[name] += 1
        return forward(*given, **named)

    return counting


@contextmanager
def _bare(model: nn.Module) -> Iterator[None]:
    """Take all forward hooks off a model for the length of the block."""
    kept = [(one, one._forward_hooks, one._forward_pre_hooks) for one in model.modules()]
    try:
        for module, _, _ in kept:
            module._forward_hooks = OrderedDict()
            module._forward_pre_hooks = OrderedDict()
        yield
    finally:
        for module, after, before in kept:
            module._forward_hooks, module._forward_pre_hooks = after, before


@contextmanager
def _forwards(replaced: Mapping[nn.Module, Callable]) -> Iterator[None]:
    """Give modules another forward for the length of the block."""
    with ExitStack() as stack:
        for module, forward in replaced.items():
            own = module.__dict__.get("forward")
            stack.callback(_restore, module, own)
            module.__dict__["forward"] = forward
        yield


def _restore(module: nn.Module, own: Callable | None) -> None:
    if own is None:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = own
