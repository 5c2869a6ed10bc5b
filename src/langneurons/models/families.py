"""Model families: where the MLP keeps its parts, and the linear layers that LoRA can train.

A table keyed by `config.model_type`; light, so that a configuration is checked before a model is
loaded. Tests hold it to the models themselves.

A gated MLP computes down(act(gate(x)) * up(x)), a plain one down(act(up(x))). In every layer
`models.sites.MlpSites` finds the nonlinearity, whose input is the site `gate` and whose output is
the site `act`, and the down projection, whose input is the site `product`; each is (..., d_mlp),
where the leading axes are (batch, pos) or, in OPT, may be flattened to (tokens,).

A model family whose MLP has these parts as modules of their own is added by one entry of FAMILIES.
Families whose neurons cannot be reached so are refused with the reason (`unreachable`).
"""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Family:
    """Dotted module paths of one model family, and names of its linear layers.

    layers: the list of layers, seen from the text model; gate, up, act, down: seen from a layer;
    text: the text model, seen from the model without its head (empty: they are the same);
    norm: the norm between the last layer and the head, seen from the text model.
    transposed: whether `down` stores its matrix as (d_mlp, d_model).
    unpacked: why tokens of several requests cannot be read in one row, if they cannot.
    linear: names of the linear layers, which LoRA can train.
    In an ungated MLP `gate` is None and `up` is the projection that enters the nonlinearity.
    experts: in a mixture of experts where a layer keeps them, seen from the layer; gate, up, act
    and down are then parts of their readable form (`langneurons.models.experts`).
    """

    layers: str
    gate: str | None
    up: str
    act: str
    down: str
    linear: str
    text: str = ""
    norm: str = "norm"
    transposed: bool = False
    experts: str | None = None
    unpacked: str | None = None


# Why a model cannot read tokens of several requests in one row: each would see the others' tokens.
OWN_ATTENTION = "has attention of its own, outside transformers' attention interface"
CAPPED_ATTENTION = "caps its attention scores, which attention over packed requests leaves out"

GATED = ("mlp.gate_proj", "mlp.up_proj", "mlp.act_fn", "mlp.down_proj")
GATED_LINEAR = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj lm_head"
FUSED_LINEAR = "query_key_value dense dense_h_to_4h dense_4h_to_h lm_head"
PLAIN_LINEAR = "q_proj k_proj v_proj out_proj fc1 fc2 lm_head"
LLAMA = Family("layers", *GATED, GATED_LINEAR)

FAMILIES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "qwen3_moe": Family(
        "layers",
        "mlp.experts",
        "mlp.experts",
        "mlp.experts.act_fn",
        "mlp.experts.down",
        "q_proj k_proj v_proj o_proj lm_head",
        experts="mlp.experts",
    ),
    "gemma": LLAMA,
    "gemma2": replace(LLAMA, unpacked=CAPPED_ATTENTION),
    "gemma3_text": LLAMA,
    "gemma3": Family("layers", *GATED, f"{GATED_LINEAR} fc1 fc2 out_proj", text="language_model"),
    "cohere": LLAMA,
    "cohere2": LLAMA,
    "granite": LLAMA,
    "olmo2": LLAMA,
    "smollm3": LLAMA,
    "stablelm": replace(LLAMA, unpacked=OWN_ATTENTION),
    "xglm": Family(
        "layers",
        None,
        "fc1",
        "activation_fn",
        "fc2",
        PLAIN_LINEAR,
        norm="layer_norm",
        unpacked=OWN_ATTENTION,
    ),
    "bloom": Family(
        "h",
        None,
        "mlp.dense_h_to_4h",
        "mlp.gelu_impl",
        "mlp.dense_4h_to_h",
        FUSED_LINEAR,
        norm="ln_f",
        unpacked=OWN_ATTENTION,
    ),
    "gpt_neox": Family(
        "layers",
        None,
        "mlp.dense_h_to_4h",
        "mlp.act",
        "mlp.dense_4h_to_h",
        FUSED_LINEAR,
        norm="final_layer_norm",
    ),
    "gpt2": Family(
        "h",
        None,
        "mlp.c_fc",
        "mlp.act",
        "mlp.c_proj",
        "c_attn c_proj c_fc lm_head",
        norm="ln_f",
        transposed=True,
    ),
    "phi": Family(
        "layers",
        None,
        "mlp.fc1",
        "mlp.activation_fn",
        "mlp.fc2",
        "q_proj k_proj v_proj dense fc1 fc2 lm_head",
        norm="final_layernorm",
    ),
    "opt": Family(
        "decoder.layers",
        None,
        "fc1",
        "activation_fn",
        "fc2",
        PLAIN_LINEAR,
        norm="decoder.final_layer_norm",
    ),
}


# What experts cannot be, each with the reason; `{model}` is how the model is called.
NO_TRAINING = (
    "{model} is a mixture of experts: the matrices of its experts lie in two tensors, not in linear"
    " layers, so neither LoRA nor the neurons' own weights are trained there. Legal: LoRA on"
    " {modules}, without chosen neurons."
)
NO_NF4 = (
    "{model} is a mixture of experts, and bitsandbytes packs linear layers only: the tensors of the"
    " experts, nearly all of the weights, would stay as they are. Legal: quantization: none, over"
    " several GPUs (`gpus`)."
)
NO_EXPORT = (
    "{model} is a mixture of experts: {what} names modules of the model, and neurons of experts lie"
    " in tensors that several experts share. `langneurons steer` runs the plan with hooks."
)
NO_GGUF = (
    "{model} is a mixture of experts in a GGUF file. Such files stack gates and up projections"
    " apart, and none has been compared with its model here. Use the repository of the unquantised"
    " weights."
)


# Why the neurons of a family cannot be reached by a line of the table.
EXPERTS = (
    "is a mixture of experts whose neurons lie in fused expert weights; the only such family whose"
    " experts are read is qwen3_moe (Qwen3-30B-A3B)"
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


def _dense_layers(config: Any) -> str | None:
    """Return what in the config of a mixture of experts makes some of its layers dense."""
    if not config.num_experts:
        return f"num_experts: {config.num_experts}"
    if config.decoder_sparse_step != 1:
        return f"decoder_sparse_step: {config.decoder_sparse_step}"
    return f"mlp_only_layers: {config.mlp_only_layers}" if config.mlp_only_layers else None


def family_for(model_type: str, config: Any = None) -> Family:
    """Return the family of a model type; with its config, a refusal knows more of the reason."""
    if model_type in FAMILIES:
        found = FAMILIES[model_type]
        dense = _dense_layers(config) if found.experts and config is not None else None
        if dense is not None:
            raise ValueError(
                f"model type {model_type!r} with {dense}: some of its layers have no experts and"
                " another number of neurons, and statistics and neuron tables hold one number for"
                " all layers. Supported: decoder_sparse_step 1 and no mlp_only_layers."
            )
        return found
    reason = unreachable(model_type, config)
    if reason is not None:
        raise ValueError(
            f"model type {model_type!r} {reason}. It is not supported, and no entry of FAMILIES can"
            f" change that; supported: {', '.join(sorted(FAMILIES))}."
        )
    close = difflib.get_close_matches(model_type, sorted(FAMILIES), n=3, cutoff=0.5)
    hint = f" Nearest: {', '.join(close)}." if close else ""
    raise ValueError(
        f"model type {model_type!r} has no family here; known: {', '.join(sorted(FAMILIES))}.{hint}"
        " If gate, up, nonlinearity and down are modules of their own, add an entry to FAMILIES in"
        " src/langneurons/models/families.py (docs/adding.md)."
    )


def unpacked(model_type: str) -> str | None:
    """Return why a family cannot read several requests in one row, None where it can."""
    return family_for(model_type).unpacked


def family_of(folder: Path) -> str | None:
    """Return the `model_type` that the config.json of a folder names, None without one."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def unknown_modules(family: str | None, modules: Iterable[str]) -> list[str]:
    """Return the modules that a family does not have; none where the family is not known."""
    if family not in FAMILIES:
        return []
    known = FAMILIES[family].linear.split()
    return [name for name in modules if name not in known]
