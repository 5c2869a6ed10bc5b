"""Names of the linear layers of each model family, by `model_type`: what LoRA can train.

Light, so that a configuration is checked before a model is loaded; a test holds the table to the
models themselves.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

_GATED = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj lm_head"
_FUSED = "query_key_value dense dense_h_to_4h dense_4h_to_h lm_head"
_PLAIN = "q_proj k_proj v_proj out_proj fc1 fc2 lm_head"
_NAMES = {
    **dict.fromkeys(("cohere", "cohere2", "gemma", "gemma2", "gemma3_text", "granite"), _GATED),
    **dict.fromkeys(("llama", "mistral", "olmo2", "qwen2", "qwen3", "smollm3"), _GATED),
    "stablelm": _GATED,
    "gemma3": f"{_GATED} fc1 fc2 out_proj",
    "bloom": _FUSED,
    "gpt_neox": _FUSED,
    "gpt2": "c_attn c_proj c_fc lm_head",
    "opt": _PLAIN,
    "xglm": _PLAIN,
    "phi": "q_proj k_proj v_proj dense fc1 fc2 lm_head",
}
LINEAR: Mapping[str, tuple[str, ...]] = {name: tuple(t.split()) for name, t in _NAMES.items()}


def family_of(folder: Path) -> str | None:
    """Return the `model_type` that the config.json of a folder names, None without one."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def unknown_modules(family: str | None, modules: Iterable[str]) -> list[str]:
    """Return the modules that a family does not have; none where the family is not known."""
    known = LINEAR.get(family or "")
    return [] if known is None else [name for name in modules if name not in known]
