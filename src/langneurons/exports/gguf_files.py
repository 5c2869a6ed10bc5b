"""LoRA adapters and control vectors as GGUF files, which llama.cpp and its relatives read.

A LoRA has `blk.{layer}.ffn_down.weight.lora_a` (rank, d_mlp) and `.lora_b` (d_model, rank), layers
from 0, and `adapter.lora.alpha`, which llama.cpp divides by the rank. A control vector has
`direction.{N}` (d_model,), which llama.cpp adds to what its block N leaves. Its blocks count from
0, as layers do here, but block 0 takes no vector.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from langneurons.base.errors import InputError
from langneurons.base.io import atomic
from langneurons.exports.lora import Lora
from langneurons.exports.streams import StreamWrite
from langneurons.models.language_model import LanguageModel

if TYPE_CHECKING:
    import gguf

# The architecture that llama.cpp gives a model type; opt and xglm have none.
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gemma3": "gemma3",
    "cohere": "command-r",
    "cohere2": "cohere2",
    "granite": "granite",
    "olmo2": "olmo2",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
    "bloom": "bloom",
    "gpt_neox": "gptneox",
    "gpt2": "gpt2",
    "phi": "phi2",
}


def architecture(model: LanguageModel) -> str:
    """Return llama.cpp's name of a model's architecture.

    Raises:
        InputError: llama.cpp has none, or none is known here.
    """
    whole: Any = model.model
    kind = whole.config.model_type
    if kind not in ARCHITECTURES:
        raise InputError(
            f"model type {kind!r}: no architecture of llama.cpp is known for it; known:"
            f" {', '.join(sorted(ARCHITECTURES))}."
        )
    return ARCHITECTURES[kind]


def write_lora(path: Path, lora: Lora, name: str) -> None:
    """Write a GGUF adapter in float32; name: what `general.name` says."""
    import gguf

    kind = architecture(lora.model)
    with atomic(path) as temporary:
        writer = gguf.GGUFWriter(temporary, kind)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(name)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(lora.rank))
        for layer, a, b in lora.matrices():
            start = f"blk.{layer}.ffn_down.weight"
            writer.add_tensor(f"{start}.lora_a", a.float().numpy())
            writer.add_tensor(f"{start}.lora_b", b.float().numpy())
        _written(writer)


def control_vectors(writes: dict[int, StreamWrite], name: str) -> dict[int, StreamWrite]:
    """Return the vectors of a control vector by llama.cpp's number of their block.

    Raises:
        InputError: One is of layer 0, or is not a vector that is added.
    """
    if any(write.along for write in writes.values()):
        raise InputError(
            f"plan {name!r}: project_out depends on the token, and a control vector is added to"
            " every token; legal: add. Export it to steer or nnsight."
        )
    if 0 in writes:
        raise InputError(
            f"plan {name!r} writes after layer 0, and llama.cpp adds no control vector there; leave"
            " the layer out (layers=1-LAST), or export to steer."
        )
    return writes


def write_control_vector(path: Path, writes: dict[int, StreamWrite], model: LanguageModel) -> None:
    """Write a GGUF control vector."""
    import gguf

    kind = architecture(model)
    with atomic(path) as temporary:
        writer = gguf.GGUFWriter(temporary, "controlvector")
        writer.add_string("controlvector.model_hint", kind)
        writer.add_uint32("controlvector.layer_count", len(writes))
        for layer, write in writes.items():
            writer.add_tensor(f"direction.{layer}", write.vector)
        _written(writer)


def _written(writer: "gguf.GGUFWriter") -> None:
    """Write header and tensors, and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
