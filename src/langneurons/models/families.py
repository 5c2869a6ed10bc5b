"""Where the MLP of each model family keeps its parts: a table keyed by `config.model_type`.

A gated MLP computes down(act(gate(x)) * up(x)), a plain one down(act(up(x))). In every layer
`MlpSites` finds the nonlinearity, whose input is the site `gate` and whose output is the site
`act`, and the down projection, whose input is the site `product`; each is (..., d_mlp), where the
leading axes are (batch, pos) or, in OPT, may be flattened to (tokens,).

A model family whose MLP has these parts as modules of their own is added by one line in ADAPTERS.
Families whose neurons cannot be reached so are refused with the reason (`unreachable`).
"""

import copy
import difflib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from langneurons.base.errors import present


@dataclass(frozen=True)
class Adapter:
    """Dotted module paths of one model family.

    layers: the list of layers, seen from the text model; gate, up, act, down: seen from a layer;
    text: the text model, seen from the model without its head (empty: they are the same);
    norm: the norm between the last layer and the head, seen from the text model.
    In an ungated MLP `gate` is None and `up` is the projection that enters the nonlinearity.
    """

    layers: str
    gate: str | None
    up: str
    act: str
    down: str
    text: str = ""
    norm: str = "norm"


GATED = ("mlp.gate_proj", "mlp.up_proj", "mlp.act_fn", "mlp.down_proj")

ADAPTERS = {
    "llama": Adapter("layers", *GATED),
    "mistral": Adapter("layers", *GATED),
    "qwen2": Adapter("layers", *GATED),
    "qwen3": Adapter("layers", *GATED),
    "gemma": Adapter("layers", *GATED),
    "gemma2": Adapter("layers", *GATED),
    "gemma3_text": Adapter("layers", *GATED),
    "gemma3": Adapter("layers", *GATED, text="language_model"),
    "cohere": Adapter("layers", *GATED),
    "cohere2": Adapter("layers", *GATED),
    "granite": Adapter("layers", *GATED),
    "olmo2": Adapter("layers", *GATED),
    "smollm3": Adapter("layers", *GATED),
    "stablelm": Adapter("layers", *GATED),
    "xglm": Adapter("layers", None, "fc1", "activation_fn", "fc2", norm="layer_norm"),
    "bloom": Adapter(
        "h", None, "mlp.dense_h_to_4h", "mlp.gelu_impl", "mlp.dense_4h_to_h", norm="ln_f"
    ),
    "gpt_neox": Adapter(
        "layers", None, "mlp.dense_h_to_4h", "mlp.act", "mlp.dense_4h_to_h", norm="final_layer_norm"
    ),
    "gpt2": Adapter("h", None, "mlp.c_fc", "mlp.act", "mlp.c_proj", norm="ln_f"),
    "phi": Adapter(
        "layers", None, "mlp.fc1", "mlp.activation_fn", "mlp.fc2", norm="final_layernorm"
    ),
    "opt": Adapter(
        "decoder.layers", None, "fc1", "activation_fn", "fc2", norm="decoder.final_layer_norm"
    ),
}


# Why the neurons of a family cannot be reached by a line of the table.
EXPERTS = (
    "is a mixture of experts: its neurons lie in fused expert weights, each read by few tokens"
)
FUSED = "fuses gate and up into one projection, so the site `gate` is not a module's output"
SEQ2SEQ = "has an encoder and a decoder; only decoder-only language models are read"
ENCODER = "is an encoder; only decoder-only language models are read"
RECURRENT = "is recurrent: its blocks have states in place of (only) attention and MLPs"
UNREACHABLE = {
    FUSED: ("phi3", "glm", "glm4", "youtu", "modernbert-decoder", "phi4_multimodal"),
    SEQ2SEQ: ("t5", "mt5", "umt5", "bart", "mbart", "m2m_100", "nllb-moe", "pegasus", "marian"),
    ENCODER: (
        "bert",
        "bert-generation",
        "big_bird",
        "camembert",
        "data2vec-text",
        "distilbert",
        "electra",
        "ernie",
        "megatron-bert",
        "modernbert",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roc_bert",
        "roformer",
        "xlm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xlnet",
        "xmod",
    ),
    RECURRENT: (
        "mamba",
        "mamba2",
        "falcon_mamba",
        "falcon_h1",
        "rwkv",
        "recurrent_gemma",
        "xlstm",
        "bamba",
        "jamba",
        "zamba",
        "zamba2",
        "nemotron_h",
        "lfm2",
    ),
}
MIXTURES = ("mixtral", "gpt_oss", "dbrx", "llama4", "dots1", "deepseek_v2", "deepseek_v3")
EXPERT_KEYS = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_experts_per_tok",
    "ffn_config",
)


def unreachable(model_type: str, config: Any = None) -> str | None:
    """Return why a family cannot be added to the table, if it is known why."""
    text = config if config is None else config.get_text_config(decoder=True)
    moe = any(getattr(text, key, None) for key in EXPERT_KEYS) if text is not None else False
    if moe or "moe" in model_type or model_type in MIXTURES:
        return EXPERTS
    if getattr(config, "is_encoder_decoder", False):
        return SEQ2SEQ
    return next((why for why, types in UNREACHABLE.items() if model_type in types), None)


def adapter_for(model_type: str, config: Any = None) -> Adapter:
    """Return the adapter of a model type; with its config, a refusal knows more of the reason."""
    if model_type in ADAPTERS:
        return ADAPTERS[model_type]
    reason = unreachable(model_type, config)
    if reason is not None:
        raise ValueError(
            f"model type {model_type!r} {reason}. It is not supported, and no line in ADAPTERS can"
            f" change that; supported: {', '.join(sorted(ADAPTERS))}."
        )
    close = difflib.get_close_matches(model_type, sorted(ADAPTERS), n=3, cutoff=0.5)
    hint = f" Nearest: {', '.join(close)}." if close else ""
    raise ValueError(
        f"model type {model_type!r} has no adapter; known: {', '.join(sorted(ADAPTERS))}.{hint}"
        " If gate, up, nonlinearity and down are modules of their own, add a line to ADAPTERS in"
        " src/langneurons/models/families.py (docs/adding.md)."
    )


class MlpSites:
    """The MLP modules of a model, layer by layer.

    Takes a causal language model, a sequence classifier, a bare model, or one of these with PEFT
    adapters that live inside its layers. Hooks go on `act[i]` and `down[i]`; `gate[i]` is the
    projection whose output enters the nonlinearity, in ungated models the same module as `up[i]`.
    Call `backbone(input_ids=...)` to get hidden states without computing the head. `head` is the
    output embedding; `layers` are the decoder layers. If layers share one nonlinearity
    module, each gets its own copy.
    """

    def __init__(self, model: nn.Module):
        """Find the modules; a path that leads nowhere is a ValueError that names it."""
        whole = _without_peft(model)
        self.adapter = adapter_for(whole.config.model_type, whole.config)
        self.backbone: Any = _resolve(whole.base_model, self.adapter.text, whole)
        self.config: Any = self.backbone.config
        self.output_embedding: nn.Module | None = whole.get_output_embeddings()
        self.gated = self.adapter.gate is not None
        layers: Any = _resolve(self.backbone, self.adapter.layers, whole)
        self.layers: list[nn.Module] = list(layers)
        self.n_layers = len(self.layers)
        self.up = self._each(self.adapter.up, whole)
        self.gate = self._each(self.adapter.gate or self.adapter.up, whole)
        self.down = self._each(self.adapter.down, whole)
        self.act = self._each(self.adapter.act, whole)
        self._separate_activations()
        widths = {_input_width(module) for module in self.down}
        if len(widths) != 1:
            raise ValueError(
                f"the layers of {type(whole).__name__} must all have the same number of neurons,"
                f" but have {sorted(widths)}"
            )
        self.d_mlp = widths.pop()

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

    def _separate_activations(self) -> None:
        parent, _, name = self.adapter.act.rpartition(".")
        seen: set[int] = set()
        for i, layer in enumerate(self.layers):
            if id(self.act[i]) in seen:
                self.act[i] = copy.deepcopy(self.act[i])
                setattr(layer.get_submodule(parent), name, self.act[i])
            seen.add(id(self.act[i]))


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
            f" {path!r} in {type(root).__name__} ({error}). Mend its line in ADAPTERS in"
            " src/langneurons/models/families.py."
        ) from error


def _input_width(projection: Any) -> int:
    # The weight of a 4-bit layer is packed, so its shape says nothing; GPT-2's Conv1D has no
    # in_features but stores its weight as (in, out).
    width = getattr(projection, "in_features", None)
    return int(projection.weight.shape[0] if width is None else width)
