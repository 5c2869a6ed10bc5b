"""Sizes of a model: from its config.json, the header of a GGUF file, or a table."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langneurons.base.paths import user_path

if TYPE_CHECKING:
    from langneurons.models.settings import ModelSource

LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
POSITIONS = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True)
class Geometry:
    """A model's size: what memory and time follow from.

    `shared`: width of a layer's keys, or values, of a token (key-value heads x head size);
    `intermediate`: neurons of a layer, of a mixture of experts those of all experts together;
    `active`: parameters that a token passes, where they are fewer than all of them; `experts`:
    experts of a layer, 0 in a dense model.
    """

    parameters: float
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    shared: int
    active: float | None = None
    experts: int = 0

    @property
    def passed(self) -> float:
        """Parameters that a token passes."""
        return self.parameters if self.active is None else self.active


def from_config(raw: Mapping[str, Any]) -> Geometry:
    """Return the size of a model from its config.json; parameters by counting its matrices."""
    raw = raw.get("text_config") or raw
    hidden = raw.get("hidden_size") or raw["n_embd"]
    layers = next(raw[key] for key in LAYERS if raw.get(key))
    wide = raw.get("intermediate_size") or raw.get("n_inner") or raw.get("ffn_dim") or 4 * hidden
    heads = raw.get("num_attention_heads") or raw["n_head"]
    size = raw.get("head_dim") or hidden // heads
    shared = raw.get("num_key_value_heads") or heads
    attention = hidden * size * (2 * heads + 2 * shared)
    embeddings = raw["vocab_size"] * hidden * (1 if raw.get("tie_word_embeddings") else 2)
    rest = layers * attention + embeddings
    of_expert = raw.get("moe_intermediate_size")
    experts = raw.get("num_experts") or raw.get("num_local_experts")
    if of_expert and experts:
        passed = of_expert * raw["num_experts_per_tok"]
        router = layers * hidden * experts
        parts = (layers * 3 * hidden * one + rest + router for one in (of_expert * experts, passed))
        whole, active = parts
        wide = of_expert * experts
        sizes = (layers, hidden, wide, raw["vocab_size"], shared * size)
        return Geometry(whole, *sizes, active, experts)
    parameters = layers * 3 * hidden * wide + rest
    return Geometry(parameters, layers, hidden, wide, raw["vocab_size"], shared * size)


def depth(folder: Path) -> int | None:
    """Return the number of layers that the config.json of a folder names, None without one."""
    return _number(folder, LAYERS)


def positions(folder: Path) -> int | None:
    """Return how many tokens the model of a folder reads at most, None if no limit is known."""
    return _number(folder, POSITIONS)


def _number(folder: Path, keys: tuple[str, ...]) -> int | None:
    """Return the first of the keys that a folder's config.json has."""
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        raw = raw.get("text_config") or raw
        return next((int(raw[key]) for key in keys if raw.get(key)), None)
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def folders(name: str, source: "ModelSource", work: Path = Path()) -> list[Path]:
    """Return the folders that may hold a model's config.json: prepared, then its local source."""
    prepared = work / "resources/models" / name
    found = [prepared]
    try:
        manifest = json.loads((prepared / "manifest.json").read_text(encoding="utf-8"))
        found.append(prepared / manifest["path"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if source.kind == "local":
        found.append(user_path(source.path))
    return found


def table_key(name: str, source: "ModelSource") -> str:
    """Return the name under which a table of sizes holds a model: repository, package or name."""
    return getattr(source, "repo", None) or getattr(source, "package", None) or name


# GGUF's types of values, as struct names them; 8 is a string, 9 an array.
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_TOKENS = "tokenizer.ggml.tokens"


def gguf_header(path: Path) -> dict[str, Any]:
    """Return the values of a GGUF file's header up to its vocabulary, of which the size is kept.

    Raises:
        ValueError: the file is not a GGUF file, or ends within its header.
    """
    found: dict[str, Any] = {}
    with path.open("rb") as file:

        def number(kind: str) -> Any:
            width = struct.calcsize(f"<{kind}")
            return struct.unpack(f"<{kind}", file.read(width))[0]

        def value(kind: int) -> Any:
            if kind == 8:
                return file.read(number("Q")).decode("utf-8", errors="replace")
            return number(_NUMBERS[kind])

        try:
            if file.read(4) != b"GGUF":
                raise ValueError("it does not begin with GGUF")
            number("I"), number("Q")
            for _ in range(number("Q")):
                key, kind = value(8), number("I")
                if kind != 9:
                    found[key] = value(kind)
                    continue
                inner, size = number("I"), number("Q")
                if key == _TOKENS:
                    return found | {key: size}
                found[key] = [value(inner) for _ in range(size)]
        except (struct.error, KeyError):
            raise ValueError("its header is damaged") from None
    return found


def gguf_experts(path: Path) -> int:
    """Return the number of experts that the header of a GGUF file names, 0 without any."""
    try:
        header = gguf_header(path)
    except (OSError, ValueError):
        return 0
    return next((int(header[key] or 0) for key in header if key.endswith(".expert_count")), 0)


def from_gguf(path: Path) -> Geometry | None:
    """Return the size of a model from the header of a GGUF file, None where it lacks one."""
    try:
        header = gguf_header(path)
    except (OSError, ValueError):
        return None
    own = {key.partition(".")[2]: value for key, value in header.items()}
    heads = own.get("attention.head_count")
    heads = max(heads) if isinstance(heads, list) else heads
    shared = own.get("attention.head_count_kv") or heads
    wide = own.get("feed_forward_length")
    raw = {
        "hidden_size": own.get("embedding_length"),
        "num_hidden_layers": own.get("block_count"),
        "intermediate_size": max(wide) if isinstance(wide, list) else wide,
        "num_attention_heads": heads,
        "num_key_value_heads": max(shared) if isinstance(shared, list) else shared,
        "head_dim": own.get("attention.key_length"),
        "vocab_size": header.get(_TOKENS),
        "tie_word_embeddings": True,
    }
    needed = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    return from_config(raw) if all(raw[key] for key in needed) else None


def read(
    name: str, source: "ModelSource", table: Mapping[str, Mapping[str, Any]], work: Path
) -> Geometry | None:
    """Return a model's size: of its prepared files, its source, a table; None if unknown."""
    for folder in folders(name, source, work):
        path = folder / "config.json"
        if path.is_file():
            try:
                return from_config(json.loads(path.read_text(encoding="utf-8")))
            except (KeyError, StopIteration, TypeError, ValueError, AttributeError):
                continue
    known = table.get(table_key(name, source))
    if known is not None:
        return Geometry(**known)
    if source.kind == "gguf" and source.path is not None:
        path = user_path(source.path)
        return from_gguf(path) if path.is_file() else None
    return None


def host_bytes(size: Geometry, dtype: str, quantization: str) -> float:
    """Return the memory of the host that loading a model takes, in bytes; 2 GB at least."""
    stored = size.parameters * (4 if dtype == "float32" else 2)
    return max(1.3 * stored if quantization == "none" else 0.5 * stored, 2e9)
