"""LoRA restricted to chosen neurons (Mondal et al. 2025, "Neuron-masked LoRA").

The paper's layer is y = W x + (M * (B A)) x * alpha / r, where M keeps the rows of the chosen
neurons of the gate projection. M * (B A) = (M B) A, so the rows of B that M takes away do nothing,
get no gradient, and stay zero under weight decay: here they do not exist. `RowLinear` holds only
the chosen rows of B (and scatters its output), `ColumnLinear` only the chosen columns of A for a
down projection, where a neuron is an input. Nothing off the mask can move: it is not there.

Both sit inside PEFT's own LoRA layers, so names, checkpoints and saving are PEFT's. `dense_state`
writes the rows back into full matrices: what is saved is a plain LoRA adapter that stock PEFT loads
and merges. The forward pass of these layers, restricted or not, is ours: the update is added to the
frozen layer's output, at the chosen neurons only, and its gradient to the frozen layer's, so that
no array of (tokens, features) is made that the frozen layer does not make. Kept for the backward
pass are the input in its own dtype (of a down projection its chosen columns), and A x.

Shapes: A (r, in_features), B (out_features, r); chosen neurons per layer are ascending indices.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from langneurons.base.errors import nearest, present
from langneurons.base.io import DamagedFile, atomic, damaged, expect, read_json, write_json
from langneurons.models.families import NO_TRAINING
from langneurons.models.sites import MlpSites

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger(__name__)
ADAPTER = "default"
CONFIG_NAME = "adapter_config.json"
CARD = "README.md"
# Standard deviation of A before training; B starts at zero (Mondal et al. 2025, public code).
INITIAL_STD = 0.01


class _Half(nn.Module):
    """One half of a LoRA: a linear layer without bias of which only some lines exist."""

    index: torch.Tensor

    def __init__(self, in_features: int, out_features: int, index: np.ndarray, **like: Any):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        chosen = torch.as_tensor(np.asarray(index, np.int64), device=like.get("device"))
        self.register_buffer("index", chosen, persistent=False)
        self.weight = nn.Parameter(torch.zeros(self._shape(len(index)), **like))

    def _shape(self, chosen: int) -> tuple[int, int]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the shape of the full matrix and how much of it exists."""
        return f"{self.in_features} -> {self.out_features}, {len(self.index)} chosen"

    def _dense(self, axis: int) -> torch.Tensor:
        full = self.weight.new_zeros(self.out_features, self.in_features)
        return full.index_copy(axis, self.index, self.weight.detach())


class RowLinear(_Half):
    """Only some output rows exist; the others give zero. The weight is (chosen, in_features)."""

    def _shape(self, chosen: int) -> tuple[int, int]:
        return chosen, self.in_features

    def dense(self) -> torch.Tensor:
        """Return the full weight, (out_features, in_features)."""
        return self._dense(0)


class ColumnLinear(_Half):
    """Only some inputs are read. The weight is (out_features, chosen)."""

    def _shape(self, chosen: int) -> tuple[int, int]:
        return self.out_features, chosen

    def dense(self) -> torch.Tensor:
        """Return the full weight, (out_features, in_features)."""
        return self._dense(1)


def _lines(half: nn.Module, kind: type[_Half], features: int) -> torch.Tensor | None:
    """Return the index of a restricted half; None if it has every line."""
    return half.index if isinstance(half, kind) and len(half.index) < features else None


class _Update(torch.autograd.Function):
    """output + scale * B A x, in place of the output, at the lines that exist.

    With `weight` (and `bias`) the frozen layer is computed here as well, and `output` is None: then
    its gradient of x and the update's are one array.
    """

    @staticmethod
    def forward(
        ctx: Any,
        output: torch.Tensor | None,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        rows: torch.Tensor | None,
        columns: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        """Return (..., out_features); a: (r, columns or in), b: (rows or out, r)."""
        if output is None:
            made = nn.functional.linear(x, present(weight, "neither output nor weight"), bias)
        else:
            made = output
        read = x if columns is None else x.index_select(-1, columns)
        inner = read.flatten(0, -2).to(made.dtype) @ a.to(made.dtype).T
        flat = made.view(-1, made.shape[-1])
        if rows is None:
            flat.addmm_(inner, b.to(made.dtype).T, alpha=scale)
        else:
            own = flat.index_select(1, rows).addmm_(inner, b.to(made.dtype).T, alpha=scale)
            flat.index_copy_(1, rows, own)
        if output is not None:
            ctx.mark_dirty(output)
        ctx.save_for_backward(read, inner, weight, a, b, rows, columns)
        ctx.scale, ctx.shape, ctx.dtype = scale, x.shape, x.dtype
        return made

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of output, x, A and B."""
        read, inner, weight, a, b, rows, columns = ctx.saved_tensors
        flat = gradient.flatten(0, -2)
        own = flat if rows is None else flat.index_select(1, rows)
        outer = (own @ b.to(own.dtype)) * ctx.scale  # (tokens, r)
        of_b = (own.T @ inner) * ctx.scale
        of_a = outer.T @ read.flatten(0, -2).to(own.dtype)
        of_x = None
        if ctx.needs_input_grad[1]:
            a = a.to(own.dtype)
            of_x = None if weight is None else flat @ weight.to(own.dtype)
            if columns is None:
                of_x = outer @ a if of_x is None else of_x.addmm_(outer, a)
            else:
                of_x = own.new_zeros(len(own), ctx.shape[-1]) if of_x is None else of_x
                more = of_x.index_select(1, columns).addmm_(outer, a)
                of_x.index_copy_(1, columns, more)
            of_x = of_x.view(ctx.shape).to(ctx.dtype)
        passed = gradient if ctx.needs_input_grad[0] else None
        return passed, of_x, None, None, of_a.to(a.dtype), of_b.to(b.dtype), None, None, None


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Return W x + scale * B A dropout(x): what one of PEFT's LoRA layers computes.

    The base layer may be a Linear, a packed 4-bit one, or GPT-2's Conv1D.
    """
    parts = (layer.lora_A, layer.lora_B, layer.lora_dropout)
    a, b, dropout = (part[ADAPTER] for part in parts)
    rows = _lines(b, RowLinear, layer.out_features)
    columns = _lines(a, ColumnLinear, layer.in_features)
    update = (a.weight, b.weight, rows, columns, layer.scaling[ADAPTER])
    base, drops = layer.base_layer, layer.training and isinstance(dropout, nn.Dropout)
    if type(base) is nn.Linear and not drops:
        return _Update.apply(None, x, base.weight, base.bias, *update)
    return _Update.apply(base(x), dropout(x), None, None, *update)


@dataclass(frozen=True)
class Size:
    """Rank, scale (alpha / rank) and dropout of the updates, and the seed of their first values."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    seed: int = 0


def attach(
    model: nn.Module,
    modules: Sequence[str],
    neurons: Mapping[str, Sequence[np.ndarray]] | None = None,
    size: Size | None = None,
    train_fully: Sequence[str] = (),
) -> "PeftModel":
    """Return the model wrapped by PEFT, with LoRA on `modules` and on chosen neurons.

    modules: last names of linear layers that get plain LoRA (q_proj, ...); an MLP projection among
    them is trained on all its neurons. neurons: by projection `gate`, `up` or `down` (an ungated
    model's gate is its first projection), the chosen neurons of each layer; a layer with none stays
    untouched. train_fully: modules trained without LoRA and
    saved with the adapter, such as a classification head.
    """
    from peft import LoraConfig, get_peft_model

    size = size or Size()
    targets = _plain_targets(model, modules)
    _check_shared(model, targets)
    masked = neuron_modules(model, neurons)
    whole = sorted({name for name in targets if name.rsplit(".", 1)[-1] in train_fully})
    if whole:
        raise ValueError(
            f"modules: {whole[0]!r} is trained as a whole already; leave it out of training.modules"
        )
    both = sorted(set(targets) & set(masked))
    if both:
        raise ValueError(f"{both[0]}: named in modules and restricted to neurons; choose one")
    if not targets and not masked:
        raise ValueError("nothing to train: no module is named and no neuron is chosen")
    config = LoraConfig(
        r=size.rank,
        lora_alpha=size.alpha,  # type: ignore[arg-type]  # PEFT takes any number
        lora_dropout=size.dropout,
        target_modules=sorted({*targets, *masked}),
        modules_to_save=list(train_fully) or None,
        bias="none",
    )
    wrapped: Any = get_peft_model(model, config, adapter_name=ADAPTER)
    inside = wrapped.get_base_model()
    for name, (site, chosen) in masked.items():
        _restrict(inside.get_submodule(name), site, chosen)
    for name in (*targets, *masked):
        layer = inside.get_submodule(name)
        layer.forward = MethodType(_forward, layer)
    _initialise(wrapped, size.seed)
    trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    log.info(
        "LoRA of rank %d on %d modules, %d of them on %d chosen neurons: %s parameters",
        size.rank,
        len(targets) + len(masked),
        len(masked),
        sum(len(chosen) for _, chosen in masked.values()),
        f"{trained:,}",
    )
    return wrapped


def neuron_modules(
    model: nn.Module, neurons: Mapping[str, Sequence[np.ndarray]] | None
) -> dict[str, tuple[str, np.ndarray]]:
    """Return by name of each projection with chosen neurons: its site and their indices.

    In an ungated model gate and up are one module, which appears once.
    """
    sites = MlpSites(model)
    if sites.experts and neurons:
        linear = ", ".join(sites.family.linear.split())
        raise ValueError(NO_TRAINING.format(model=type(model).__name__, modules=linear))
    names = {id(module): name for name, module in model.named_modules()}
    result: dict[str, tuple[str, np.ndarray]] = {}
    for site, layers in (neurons or {}).items():
        found = {"gate": sites.gate, "up": sites.up, "down": sites.down}.get(site)
        if found is None:
            raise ValueError(f"neurons: {site!r} is not gate, up or down")
        if len(layers) != sites.n_layers:
            raise ValueError(f"neurons of {len(layers)} layers, the model has {sites.n_layers}")
        for module, indices in zip(found, layers, strict=True):
            chosen = np.asarray(indices, np.int64)
            if not len(chosen):
                continue
            if chosen.min() < 0 or chosen.max() >= sites.d_mlp or (np.diff(chosen) <= 0).any():
                raise ValueError(f"chosen neurons must ascend within 0..{sites.d_mlp - 1}")
            result[names[id(module)]] = (site, chosen)
    return result


def _plain_targets(model: nn.Module, modules: Sequence[str]) -> list[str]:
    """Return the full names of the text model's linear layers whose last name is given."""
    sites = MlpSites(model)
    # Heads, of tokens or of classes, are children of the whole model.
    inside = {id(module) for module in (*sites.backbone.modules(), *model.children())}
    linear = [
        name
        for name, module in model.named_modules()
        if id(module) in inside and (isinstance(module, nn.Linear) or hasattr(module, "nf"))
    ]
    known = sorted({name.rsplit(".", 1)[-1] for name in linear})
    for module in modules:
        if module not in known:
            raise ValueError(
                f"modules: {module!r} is not a linear layer of this model; it has:"
                f" {', '.join(known)}.{nearest(module, known)}"
            )
    return [name for name in linear if name.rsplit(".", 1)[-1] in modules]


def _check_shared(model: nn.Module, targets: Sequence[str]) -> None:
    """Refuse LoRA on a layer whose weights are another module's too, such as a tied head.

    Unmerged, the update acts on the layer alone; merged, it would change the other module as well,
    so that the saved adapter would be two different models.
    """
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(name)
    for target in targets:
        weight = model.get_submodule(target)._parameters.get("weight")
        others = [name for name in owners.get(id(weight), ()) if name != target]
        if others:
            raise ValueError(
                f"modules: {target!r} has the weights of {others[0]!r} (tied embeddings), which a"
                " merged adapter would change as well. Leave it out of training.modules."
            )


def _restrict(layer: nn.Module, site: str, chosen: np.ndarray) -> None:
    """Put the compact half into one of PEFT's LoRA layers."""
    key, kind = ("lora_A", ColumnLinear) if site == "down" else ("lora_B", RowLinear)
    halves: Any = getattr(layer, key)
    full = halves[ADAPTER]
    like: dict[str, Any] = {"device": full.weight.device, "dtype": full.weight.dtype}
    halves[ADAPTER] = kind(full.in_features, full.out_features, chosen, **like)


def _initialise(wrapped: nn.Module, seed: int) -> None:
    """Draw A ~ N(0, 0.01**2), each from a generator of its own; B = 0.

    A column's values do not depend on which others exist, so a restricted half starts as the rows
    or columns of the full one.
    """
    name: str
    module: Any
    for name, module in wrapped.named_modules():
        match = re.search(r"(lora_[AB])\.default$", name)
        if match is None:
            continue
        with torch.no_grad():
            if match[1] == "lora_B":
                module.weight.zero_()
                continue
            digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            full = torch.randn(module.out_features, module.in_features, generator=generator)
            full *= INITIAL_STD
            if isinstance(module, ColumnLinear):
                full = full.index_select(1, module.index.cpu())
            module.weight.copy_(full)


def compact_modules(model: nn.Module) -> dict[str, RowLinear | ColumnLinear]:
    """Return the restricted halves by name."""
    kinds = (RowLinear, ColumnLinear)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def dense_state(wrapped: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state dict in which every half of every LoRA is a full matrix."""
    state = dict(wrapped.state_dict())
    for name, module in compact_modules(wrapped).items():
        state[f"{name}.weight"] = module.dense()
    return state


def save_adapter(
    wrapped: "PeftModel", folder: str | os.PathLike, identity: Mapping[str, Any] | None = None
) -> None:
    """Save a plain LoRA adapter (adapter_config.json, adapter_model.safetensors).

    The configuration names base model and revision where `identity` (model, revision) is given.
    Files appear whole, the weights last, and readable as the user's umask says.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adapter.", dir=folder.parent) as temporary:
        wrapped.save_pretrained(temporary, state_dict=dense_state(wrapped), safe_serialization=True)
        path = Path(temporary, CONFIG_NAME)
        config = read_json(path) | (_base(identity) if identity is not None else {})
        # PEFT keeps names of modules in a set, which has no order.
        for key in ("target_modules", "modules_to_save"):
            if isinstance(config[key], list):
                config[key] = sorted(config[key])
        write_json(path, config)
        Path(temporary, CARD).write_text(_card(config), encoding="utf-8")
        files = sorted(Path(temporary).iterdir(), key=lambda file: file.suffix == ".safetensors")
        for file in files:
            with atomic(folder / file.name) as whole:
                shutil.copyfile(file, whole)


def _card(config: Mapping[str, Any]) -> str:
    """Return the card of an adapter: its base model, revision and size, and how it is loaded."""
    base, revision = config["base_model_name_or_path"], config.get("revision")
    at = f" at revision {revision}" if revision else ""
    return (
        f"---\nbase_model: {json.dumps(base)}\nlibrary_name: peft\ntags: [lora]\n---\n"
        f"# LoRA adapter\n\nBase model: {base}{at}. Rank {config['r']}, alpha"
        f" {config['lora_alpha']}, on {len(config['target_modules'])} modules.\n\n"
        "    from peft import PeftModel\n\n"
        "    model = PeftModel.from_pretrained(base_model, folder_of_this_file)\n"
    )


def _base(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an adapter's configuration says of its base model, in PEFT's keys."""
    return {"base_model_name_or_path": identity["model"], "revision": identity["revision"]}


def load_adapter(
    model: nn.Module, weights: str | os.PathLike, identity: Mapping[str, Any]
) -> nn.Module:
    """Return the model with an adapter that `save_adapter` wrote for this model and revision.

    Weights that are missing, left over or not finite are a `DamagedFile`: PEFT only warns of them.
    """
    from peft import PeftModel, get_peft_model_state_dict

    folder = Path(weights).parent
    expect(weights, read_json(folder / CONFIG_NAME), _base(identity))
    try:
        found = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise DamagedFile(damaged(weights, error)) from error
    wrapped = PeftModel.from_pretrained(model, str(folder)).eval()
    needed = get_peft_model_state_dict(wrapped)
    if needed.keys() != found.keys():
        odd = sorted(needed.keys() ^ found.keys())
        raise DamagedFile(damaged(weights, f"{len(odd)} tensors missing or left over: {odd[0]}"))
    bad = [name for name, tensor in found.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise DamagedFile(damaged(weights, f"{bad[0]} is not finite"))
    return wrapped
