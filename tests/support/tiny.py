"""Tiny randomly initialised models of every supported family, and a tiny word-level tokenizer."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Cohere2Config,
    CohereConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    OPTConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
    StableLmConfig,
    XGLMConfig,
)

from langneurons.models.encoding import Encoder

VOCAB_SIZE = 100
HIDDEN = 32
D_MLP = 48
WORDS = ["<pad>", "<s>", "</s>", "<unk>"] + [f"w{i}" for i in range(VOCAB_SIZE - 4)]

_IDS = {"vocab_size": VOCAB_SIZE, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_PLAIN = _IDS | {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_GATED = _PLAIN | {"intermediate_size": D_MLP, "num_key_value_heads": 2}
_GEMMA = _GATED | {"head_dim": 8}
_EXPERTS = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": D_MLP // 6,
    "norm_topk_prob": True,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

FAMILIES = {
    "llama": (LlamaConfig, _GATED),
    "mistral": (MistralConfig, _GATED),
    "qwen2": (Qwen2Config, _GATED),
    "qwen3": (Qwen3Config, _GEMMA),
    "qwen3_moe": (Qwen3MoeConfig, _GEMMA | _EXPERTS),
    "gemma": (GemmaConfig, _GEMMA),
    "gemma2": (Gemma2Config, _GEMMA),
    "gemma3_text": (Gemma3TextConfig, _GEMMA),
    "gemma3": (Gemma3Config, {"mm_tokens_per_image": 4}),
    "cohere": (CohereConfig, _GATED),
    "cohere2": (Cohere2Config, _GATED),
    "granite": (GraniteConfig, _GATED | {"logits_scaling": 4.0}),
    "olmo2": (Olmo2Config, _GATED),
    "smollm3": (SmolLM3Config, _GATED),
    "stablelm": (StableLmConfig, _GATED),
    "xglm": (
        XGLMConfig,
        _IDS
        | {"d_model": HIDDEN, "num_layers": 2, "attention_heads": 4, "ffn_dim": D_MLP}
        | {"max_position_embeddings": 128},
    ),
    "bloom": (BloomConfig, _IDS | {"hidden_size": HIDDEN, "n_layer": 2, "n_head": 4}),
    "gpt_neox": (GPTNeoXConfig, _PLAIN | {"intermediate_size": D_MLP}),
    "gpt2": (
        GPT2Config,
        _IDS | {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_inner": D_MLP, "n_positions": 128},
    ),
    "phi": (PhiConfig, _PLAIN | {"intermediate_size": D_MLP}),
    "opt": (OPTConfig, _PLAIN | {"ffn_dim": D_MLP, "word_embed_proj_dim": HIDDEN}),
}


def tiny_config(family: str, **overrides):
    """Return the config of a tiny model; overrides are arguments of the (text) config class."""
    cls, values = FAMILIES[family]
    if family == "gemma3":
        text = _GEMMA | overrides
        return cls(text_config=text, vision_config=_VISION, image_token_index=99, **values)
    return cls(**(values | overrides))


def tiny_model(family: str, **overrides):
    """Return a tiny causal model of a family, the same weights on every call, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_config(family, **overrides))
        # The default initialisation leaves biases at zero and activations tiny.
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


def encoded_pair(tokenizer, context: str, continuation: str, joint: bool = True):
    """Return the tokens of a context and of its continuation."""
    pair = Encoder(tokenizer).pair(context, continuation, joint)
    return pair.context, pair.continuation


def tiny_tokenizer(padding_side: str = "right") -> PreTrainedTokenizerFast:
    """Return a tokenizer of the words `w0` to `w95`, split at spaces, with BOS before a text."""
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side=padding_side,
    )
