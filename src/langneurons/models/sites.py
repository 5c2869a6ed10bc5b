"""The MLP modules of a model, layer by layer."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from langneurons.base.errors import present
from langneurons.models.experts import readable
from langneurons.models.families import family_for


class MlpSites:
    """The MLP modules of a model, layer by layer.

    Takes a causal language model, a sequence classifier, a bare model, or one of these with PEFT
    adapters that live inside its layers. Hooks go on `act[i]` and `down[i]`; `gate[i]` is the
    projection whose output enters the nonlinearity, in ungated models the same module as `up[i]`.
    Call `backbone(input_ids=...)` to get hidden states without computing the head. `head` is the
    output embedding; `layers` are the decoder layers, between which the residual stream of width
    `d_model` is read and written by `on_stream`; `whole` is the model without PEFT's wrapper. If
    layers share one nonlinearity module, each gets its own copy. In a mixture of experts `experts`
    are the layers' experts, which are brought into their readable form in place
    (`langneurons.models.experts`); `n_experts` is their number in a layer, of which a token passes
    `experts_per_token`; both are 0 in other models.
    """

    def __init__(self, model: nn.Module):
        """Find the modules; a path that leads nowhere is a ValueError that names it."""
        self.whole: Any = _without_peft(model)
        whole = self.whole
        self.family = family_for(whole.config.model_type, whole.config)
        self.backbone: Any = _resolve(whole.base_model, self.family.text, whole)
        self.config: Any = self.backbone.config
        self.output_embedding: nn.Module | None = whole.get_output_embeddings()
        self.gated = self.family.gate is not None
        layers: Any = _resolve(self.backbone, self.family.layers, whole)
        self.layers: list[nn.Module] = list(layers)
        self.n_layers = len(self.layers)
        self.experts = self._each(self.family.experts, whole) if self.family.experts else []
        for experts in self.experts:
            readable(experts)
        self.up = self._each(self.family.up, whole)
        self.gate = self._each(self.family.gate or self.family.up, whole)
        self.down = self._each(self.family.down, whole)
        self.act = self._each(self.family.act, whole)
        self._separate_activations()
        widths = {_input_width(module) for module in self.down}
        if len(widths) != 1:
            raise ValueError(
                f"the layers of {type(whole).__name__} must all have the same number of neurons,"
                f" but have {sorted(widths)}"
            )
        self.d_mlp = widths.pop()
        self.d_model = _input_width(self.up[0])
        first: Any = self.experts[0] if self.experts else None
        self.n_experts: int = 0 if first is None else first.n_experts
        settings: Any = self.config
        self.experts_per_token: int = settings.num_experts_per_tok if self.experts else 0

    def _each(self, path: str, whole: nn.Module) -> list[nn.Module]:
        return [_resolve(layer, path, whole) for layer in self.layers]

    @property
    def head(self) -> nn.Module:
        """The output embedding; a ValueError where the model has none."""
        what = (
            f"{type(self.backbone).__name__} has no output embedding; load a causal language model"
        )
        return present(self.output_embedding, what)

    @property
    def device(self) -> torch.device:
        """Where token ids go; a model's layers may lie on several devices."""
        return self.backbone.get_input_embeddings().weight.device

    @property
    def head_device(self) -> torch.device:
        """Where hidden states go to be scored."""
        return next(self.head.parameters()).device

    def device_of(self, layer: int) -> torch.device:
        """Where the neurons of a layer are computed."""
        return self.kind_of(layer)[0]

    def kind_of(self, layer: int) -> tuple[torch.device, torch.dtype]:
        """Return where a layer's neurons are computed, and the format of its down projection.

        The format of packed 4-bit weights is not that of numbers.
        """
        parts = self.experts or self.down
        first = next(parts[layer].parameters())
        return first.device, first.dtype

    def on_stream(
        self, row: int, function: Callable[[torch.Tensor], torch.Tensor | None]
    ) -> RemovableHandle:
        """Call a function on the residual stream (batch, pos, d_model) at a border of blocks.

        row: 0 is the input of the first block, l + 1 the output of block l, which block l + 1 or
        the final norm reads. What the function returns, unless it is None, takes the stream's
        place.
        """
        if row == 0:

            def before(module: nn.Module, given: tuple, named: dict[str, Any]) -> Any:
                stream = _stream(given[0] if given else named["hidden_states"], module)
                new = function(stream)
                if new is None:
                    return None
                if given:
                    return (new, *given[1:]), named
                return given, named | {"hidden_states": new}

            return self.layers[0].register_forward_pre_hook(before, with_kwargs=True)

        def after(module: nn.Module, _given: tuple, output: Any) -> Any:
            several = isinstance(output, tuple)
            new = function(_stream(output[0] if several else output, module))
            if new is None:
                return None
            return (new, *output[1:]) if several else new

        return self.layers[row - 1].register_forward_hook(after)

    def _separate_activations(self) -> None:
        parent, _, name = self.family.act.rpartition(".")
        seen: set[int] = set()
        for i, layer in enumerate(self.layers):
            if id(self.act[i]) in seen:
                self.act[i] = copy.deepcopy(self.act[i])
                setattr(layer.get_submodule(parent), name, self.act[i])
            seen.add(id(self.act[i]))


def _stream(value: Any, block: nn.Module) -> torch.Tensor:
    """Return hidden states (batch, pos, d_model); a TypeError where a block has something else."""
    if isinstance(value, torch.Tensor) and value.dim() == 3:
        return value
    shape = tuple(value.shape) if isinstance(value, torch.Tensor) else "no shape"
    raise TypeError(
        f"the residual stream at {type(block).__name__} is {type(value).__name__} of {shape}, not"
        " a tensor (batch, pos, d_model); this version of transformers is not supported at site"
        " residual"
    )


def _without_peft(model: Any) -> Any:
    if not hasattr(model, "get_base_model"):
        return model
    peft: Any = getattr(model, "active_peft_config", None)
    if getattr(peft, "is_prompt_learning", False):
        raise ValueError(
            f"PEFT type {peft.peft_type} adds virtual tokens outside the"
            " layers; only adapters inside the layers (LoRA and the like) are supported"
        )
    return model.get_base_model()


def _resolve(root: nn.Module, path: str, model: Any) -> nn.Module:
    try:
        return root.get_submodule(path)
    except AttributeError as error:
        raise ValueError(
            f"{type(model).__name__} (model type {model.config.model_type!r}): no module"
            f" {path!r} in {type(root).__name__} ({error}). Mend its entry of FAMILIES in"
            " src/langneurons/models/families.py."
        ) from error


def _input_width(projection: Any) -> int:
    # The weight of a 4-bit layer is packed, so its shape says nothing; GPT-2's Conv1D has no
    # in_features but stores its weight as (in, out).
    width = getattr(projection, "in_features", None)
    return int(projection.weight.shape[0] if width is None else width)
