"""Full training of chosen neurons: rows of gate and up, columns of down (Gurgurov et al. 2025).

A neuron's own weights are its row of the gate and of the up projection and its column of the down
projection. They are trained as they stand; every other weight, biases included, is frozen. Each
chosen projection gets a parameter `values`, (chosen neurons, other axis), in float32: gradients and
the optimiser's state exist for these alone, so nothing off the selection can move.

`Within`: before a forward pass `values` are written, rounded to the weight's dtype, into the weight
itself, and the layer then runs as it is. No second product, no copy of the full weight, and the
merged model is the attached one to the last bit. The backward pass adds one product over the chosen
neurons. `Beside`: packed 4-bit weights cannot hold them, so the chosen rows are computed beside the
layer (columns: the layer reads zeros in their place) from the dequantised values. Before training
that equals the packed layer up to the rounding of the product; it is never merged.

The file is compact: per projection and layer the indices (k,) and the values (k, other axis) in the
model's dtype, one row per neuron also for down.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from langneurons.base.io import METADATA_KEY, DamagedFile, atomic, damaged, read_header, write_json
from langneurons.models.sites import MlpSites
from langneurons.training.lora import neuron_modules

log = logging.getLogger(__name__)
KIND = "rows"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


class _Lead(torch.autograd.Function):
    """A layer's output as it is, whose gradient also goes to the values of the chosen neurons."""

    @staticmethod
    def forward(
        ctx: Any,
        output: torch.Tensor,
        values: torch.Tensor,
        x: torch.Tensor,
        index: torch.Tensor,
        reads: bool,
    ) -> torch.Tensor:
        """Return the output; of the input, keep what the values' gradient needs."""
        ctx.save_for_backward(x.index_select(-1, index) if reads else x, index)
        ctx.reads, ctx.dtype = reads, values.dtype
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of output and values, (k, out) or (k, in)."""
        x, index = ctx.saved_tensors
        own = gradient if ctx.reads else gradient.index_select(-1, index)
        own = own.flatten(0, -2)
        x = x.flatten(0, -2).to(own.dtype)
        values = x.T @ own if ctx.reads else own.T @ x
        return gradient, values.to(ctx.dtype), None, None, None


class Within(nn.Module):
    """A linear layer that trains the weights of chosen neurons in their place.

    reads: neurons are inputs (down), else outputs. A layer with 16-bit weights keeps `values` in
    float32, so that small steps are not lost, and computes with their rounding.
    """

    base_layer: Any
    index: torch.Tensor

    def __init__(self, base_layer: nn.Module, index: np.ndarray, reads: bool):
        super().__init__()
        self.base_layer, self.reads = base_layer, reads
        weight: Any = base_layer.weight
        # Linear keeps (out, in), the Conv1D of GPT-2 (in, out).
        self.axis = int(reads == isinstance(base_layer, nn.Linear))
        chosen = torch.as_tensor(np.asarray(index, np.int64), device=weight.device)
        self.register_buffer("index", chosen, persistent=False)
        lines = weight.detach().index_select(self.axis, chosen)
        lines = lines.T if self.axis else lines
        self.values = nn.Parameter(lines.to(_master(weight.dtype)).contiguous())
        self.dtype: torch.dtype = weight.dtype

    @property
    def weight(self) -> torch.Tensor:
        """The layer's full weight."""
        return self.base_layer.weight

    @property
    def in_features(self) -> int | None:
        """Width of the input, as of the layer itself."""
        return getattr(self.base_layer, "in_features", None)

    @torch.no_grad()
    def write(self) -> None:
        """Put the values into the weight."""
        lines = self.values.to(self.dtype)
        # Through .data, because the weight may be saved for a backward pass: what is written there
        # then equals what it held.
        self.weight.data.index_copy_(self.axis, self.index, lines.T if self.axis else lines)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., out_features)."""
        self.write()
        output = self.base_layer(x)
        if not torch.is_grad_enabled():
            return output
        return _Lead.apply(output, self.values, x, self.index, self.reads)


class Beside(nn.Module):
    """A packed 4-bit layer of which chosen neurons are computed from weights of their own."""

    base_layer: Any
    index: torch.Tensor

    def __init__(self, base_layer: nn.Module, index: np.ndarray, reads: bool):
        super().__init__()
        self.base_layer, self.reads = base_layer, reads
        full = _dequantised(base_layer)
        chosen = torch.as_tensor(np.asarray(index, np.int64), device=full.device)
        self.register_buffer("index", chosen, persistent=False)
        lines = full.index_select(1, chosen).T if reads else full.index_select(0, chosen)
        self.values = nn.Parameter(lines.to(_master(full.dtype)).contiguous())
        self.dtype = full.dtype
        self.in_features = self.base_layer.in_features
        self.out_features = self.base_layer.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., out_features)."""
        values = self.values.to(x.dtype)
        if self.reads:
            output = self.base_layer(x.index_fill(-1, self.index, 0))
            own = nn.functional.linear(x.index_select(-1, self.index), values.T)
            return output + own.to(output.dtype)
        bias = self.base_layer.bias
        bias = None if bias is None else bias[self.index].to(x.dtype)
        output = self.base_layer(x)
        own = nn.functional.linear(x, values, bias)
        return output.index_copy(-1, self.index, own.to(output.dtype))


def _master(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which weights are trained."""
    return torch.promote_types(dtype, torch.float32)


def _packed(layer: Any) -> bool:
    return not layer.weight.is_floating_point()


def _dequantised(layer: Any) -> torch.Tensor:
    """Return the weight of a packed 4-bit layer, (out_features, in_features)."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        raise ValueError(
            f"{type(layer).__name__} with weights of {layer.weight.dtype}: only the rows of 4-bit"
            " weights can be trained beside them; legal quantization: none, nf4"
        )
    if getattr(state, "packing_format_for_cpu", False):
        raise ValueError(
            "bitsandbytes has repacked the 4-bit weights for inference on this CPU, which neither"
            " dequantises nor trains; attach the neurons before the first forward pass"
        )
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, state)


class Tuned(nn.Module):
    """A model with trained neurons; its state is that of the trained parameters alone."""

    model: Any

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.config: Any = model.config
        # A trainer must not copy a model to every GPU whose layers lie on several.
        if hasattr(model, "hf_device_map"):
            self.hf_device_map: Any = model.hf_device_map

    def get_base_model(self) -> nn.Module:
        """Return the model inside."""
        return self.model

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Run the model."""
        return self.model(*arguments, **options)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def state_dict(  # type: ignore[override]  # torch declares two overloads
        self, *_: Any, **__: Any
    ) -> dict[str, Any]:
        """Return the trained parameters: a checkpoint holds these only."""
        return {name: parameter.detach() for name, parameter in self.trained().items()}

    def load_state_dict(
        self, state_dict: Mapping[str, torch.Tensor], strict: bool = True, assign: bool = False
    ) -> Any:
        """Copy trained parameters; other names or shapes are a ValueError."""
        own = self.trained()
        shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
        if shapes != {name: tuple(value.shape) for name, value in own.items()}:
            raise ValueError("the state is of other neurons than the model trains")
        with torch.no_grad():
            for name, value in state_dict.items():
                own[name].copy_(value)
        return nn.modules.module._IncompatibleKeys([], [])


def attach(
    model: nn.Module,
    neurons: Mapping[str, Sequence[np.ndarray]] | None,
    train_fully: Sequence[str] = (),
) -> Tuned:
    """Freeze the model except the weights of chosen neurons; return it wrapped.

    neurons: by projection `gate`, `up` or `down`, the ascending indices of each layer; a layer with
    none stays untouched. train_fully: modules trained whole, such as a classification head. The
    model's own weights change at the chosen neurons while it is trained.
    """
    modules = neuron_modules(model, neurons)
    if not modules and not train_fully:
        raise ValueError("nothing to train: no neuron is chosen, and there is no head")
    model.requires_grad_(False)
    for name, (site, chosen) in modules.items():
        _wrap(model, name, chosen, site == "down")
    for name in train_fully:
        whole = model.get_submodule(name).requires_grad_(True)
        if next(whole.parameters()).dtype == torch.bfloat16:
            whole.float()
    tuned = Tuned(model)
    log.info(
        "%d projections on %d chosen neurons: %s trained parameters",
        len(modules),
        sum(len(chosen) for _, chosen in modules.values()),
        f"{sum(parameter.numel() for parameter in tuned.trained().values()):,}",
    )
    return tuned


def _wrap(model: nn.Module, name: str, chosen: np.ndarray, reads: bool) -> "Within | Beside":
    layer = model.get_submodule(name)
    made = (Beside if _packed(layer) else Within)(layer, chosen, reads)
    _replace(model, name, made)
    return made


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def _wrapped(model: nn.Module) -> dict[str, "Within | Beside"]:
    kinds = (Within, Beside)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def detach(tuned: Tuned) -> nn.Module:
    """Return the plain model with the trained values in its weights."""
    model = tuned.get_base_model()
    for name, module in _wrapped(model).items():
        if isinstance(module, Beside):
            raise ValueError(f"{name}: packed 4-bit weights cannot take up trained neurons")
        module.write()
        _replace(model, name, module.base_layer)
    return model


def save(
    tuned: Tuned, folder: str | os.PathLike, identity: Mapping[str, Any] | None = None
) -> None:
    """Save indices and values, and `identity`, the identity of the model (`models.load.identity`).

    Equal values give equal bytes; the weights file appears last.
    """
    from safetensors.torch import save_file

    model = tuned.get_base_model()
    sites = MlpSites(model)
    modules = {id(m): name for name, m in _wrapped(model).items()}
    tensors, named = {}, set()
    for site in ("gate", "up", "down"):
        for layer, module in enumerate(getattr(sites, site)):
            # In an ungated model gate and up are one module, saved once.
            if id(module) in modules and id(module) not in named:
                named.add(id(module))
                tensors[f"{site}.{layer}.index"] = module.index.int().cpu()
                values = module.values.detach().to(module.dtype)
                tensors[f"{site}.{layer}.values"] = values.cpu().contiguous()
    values = {f"{name}.values" for name in modules.values()}
    dtype = sites.backbone.get_input_embeddings().weight.dtype
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name not in values:
            tensors[f"whole.{name}"] = parameter.detach().to(dtype).cpu().contiguous()
    metadata = dict(identity or {}) | {
        "kind": KIND,
        "n_layers": sites.n_layers,
        "d_mlp": sites.d_mlp,
    }
    folder = Path(folder)
    write_json(folder / CONFIG, metadata)
    with atomic(folder / WEIGHTS) as temporary:
        header = {METADATA_KEY.decode(): json.dumps(metadata, sort_keys=True)}
        save_file(tensors, temporary, metadata=header)


def apply(
    model: nn.Module, folder: str | os.PathLike, identity: Mapping[str, Any] | None = None
) -> nn.Module:
    """Write saved neurons into a plain model and return it; 4-bit layers get them beside.

    A file of another model, revision, dtype or quantisation is a `DamagedFile`.
    """
    from safetensors.torch import load_file

    path = Path(folder, WEIGHTS)
    header = read_header(path)
    sites = MlpSites(model)
    mine = dict(identity or {}) | {"kind": KIND, "n_layers": sites.n_layers, "d_mlp": sites.d_mlp}
    for key, value in mine.items():
        if header.get(key) != value:
            reason = f"{key} is {header.get(key)!r}, the model's is {value!r}"
            raise DamagedFile(damaged(path, reason))
    names = {id(module): name for name, module in model.named_modules()}
    tensors = load_file(path)
    for key in sorted(tensors):
        kind, _, rest = key.partition(".")
        if kind == "whole":
            with torch.no_grad():
                model.get_parameter(rest).copy_(tensors[key])
        elif rest.endswith(".index"):
            layer = int(rest.removesuffix(".index"))
            name = names[id(getattr(sites, kind)[layer])]
            made = _wrap(model, name, tensors[key].numpy(), kind == "down")
            made.requires_grad_(False)
            with torch.no_grad():
                made.values.copy_(tensors[f"{kind}.{layer}.values"])
            if isinstance(made, Within):
                made.write()
                _replace(model, name, made.base_layer)
    return model.eval()
