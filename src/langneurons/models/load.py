"""Load a prepared model from its folder, without the network."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import SafetensorError

from langneurons.base.digests import digest
from langneurons.base.errors import present
from langneurons.base.io import DamagedFile, read_json
from langneurons.base.paths import user_path
from langneurons.models.checkpoint import (
    check_unused,
    pad_within,
)
from langneurons.models.families import NO_NF4, family_for
from langneurons.models.placement import devices_of, spread
from langneurons.runtime.halving import out_of_memory

if TYPE_CHECKING:
    from langneurons.models.settings import (
        ModelEntry,
        ModelSource,
    )

log = logging.getLogger(__name__)
NAMELESS = "a gguf source names either a path or a package"

MANIFEST = "manifest.json"
CONFIG = "config.json"
GGUF_TYPE = ".gguf.json"
ADAPTER = "adapter_config.json"  # transformers would put it on top of the weights
FULL = "full"
REBUILD = "Rebuild it with: snakemake --forcerun prepare_model"


def load_model(
    entry: "ModelEntry",
    manifest_path: Path,
    device: str | torch.device | Sequence[str | torch.device] | None = None,
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """Return the prepared model, frozen and in eval mode, and its tokenizer.

    Without a device it takes the GPUs that the process sees, or the CPU; over several, layers are
    spread (see `spread`). Attention is SDPA wherever the family has it.
    """
    start = time.monotonic()
    folder = checked_folder(manifest_path)
    tokenizer = read_tokenizer(folder)
    devices = devices_of(device)
    options: dict[str, Any] = {}
    packed = _packed(entry, manifest_path)
    if entry.quantization == "nf4" and not packed:
        config = read_config(folder)
        if family_for(config.model_type, config).experts:
            raise ValueError(NO_NF4.format(model=source_name(entry.source)))
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    if len(devices) > 1:
        with torch.device("meta"):
            empty = transformers.AutoModelForCausalLM.from_config(read_config(folder))
        options["device_map"] = spread(empty, devices, entry.quantization)
    elif devices[0].type != "cpu" or options or packed:
        options["device_map"] = {"": devices[0]}
    model = from_pretrained(folder, dtype=getattr(torch, entry.dtype), **options)
    model.eval().requires_grad_(False)
    log.info(
        "loaded %s: %.0f million parameters, %s, quantization %s, %s attention, on %s, %.1f s",
        source_name(entry.source),
        model.num_parameters() / 1e6,
        entry.dtype,
        entry.quantization,
        model.config._attn_implementation,
        ", ".join(map(str, devices)),
        time.monotonic() - start,
    )
    return model, tokenizer


def _packed(entry: "ModelEntry", manifest_path: Path) -> bool:
    """Return whether the prepared weights are 4-bit; they must be those that are asked for."""
    manifest = read_json(manifest_path)
    if "quantization" not in manifest:
        return False
    for key in ("quantization", "dtype"):
        if manifest[key] != getattr(entry, key):
            raise ValueError(
                f"{manifest_path}: weights prepared with {key} {manifest[key]}, asked for is"
                f" {getattr(entry, key)}"
            )
    return True


def load_tokenizer(manifest_path: Path) -> transformers.PreTrainedTokenizerBase:
    """Return the prepared model's tokenizer: pads on the right, with EOS if it has no pad."""
    return read_tokenizer(checked_folder(manifest_path))


def tokenizer_hash(tokenizer: transformers.PreTrainedTokenizerBase) -> str:
    """Return a digest of how a tokenizer splits text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return digest(sorted(tokenizer.get_vocab().items()))
    # Padding and truncation are settings of the last call, not properties of the tokenizer.
    rules = json.loads(backend.to_str())
    return digest({key: rules[key] for key in rules if key not in ("padding", "truncation")})


def source_name(source: "ModelSource") -> str:
    """Return the name by which a model is known: its repository, package, or folder or file."""
    if source.kind == "hub":
        return source.repo
    if source.kind == "gguf" and source.package is not None:
        return source.package
    return user_path(present(source.path, NAMELESS)).name


def identity(entry: "ModelEntry", manifest: dict[str, Any]) -> dict[str, str]:
    """Return the header keys that say which model, in which numeric format, made a file.

    quantization: of the weights as they were stored, and as they are loaded.
    """
    kinds = (manifest["weights"], entry.quantization)
    found = [kind for kind in kinds if kind not in (FULL, "none")]
    return {
        "model": source_name(entry.source),
        "revision": manifest["revision"],
        "dtype": entry.dtype,
        "quantization": " and ".join(found) or "none",
    }


def weights_format(source: "ModelSource", directory: Path) -> str:
    """Return how the weights were stored: `full`, or the type of a quantised GGUF file."""
    kept = Path(directory) / GGUF_TYPE
    return read_json(kept)["type"] if source.kind == "gguf" and kept.is_file() else FULL


def read_config(folder: Path) -> transformers.PretrainedConfig:
    """Return the configuration of a model in a folder."""
    try:
        return transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # classes of transformers raise whatever a wrong value leads to
        raise ValueError(f"{folder / CONFIG}: cannot be read ({first_line(error)})") from error


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its class."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def checked_folder(manifest_path: Path) -> Path:
    """Return the folder of the weights after comparing names and sizes with the manifest."""
    manifest_path = Path(manifest_path)
    manifest = read_json(manifest_path)
    folder = manifest_path.parent / manifest["path"]
    for name, size in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise DamagedFile(f"{path}: missing, but listed in {manifest_path}. {REBUILD}")
        if path.stat().st_size != size:
            raise DamagedFile(
                f"{path}: {path.stat().st_size} bytes, but {size} in {manifest_path}. {REBUILD}"
            )
    return folder


def read_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerBase:
    """Return the tokenizer in a folder, padding on the right."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # tokenizers raises bare exceptions, transformers many kinds
        raise DamagedFile(
            f"{folder}: the tokenizer cannot be read ({first_line(error)}). {_remedy(folder)}"
        ) from error
    tokenizer.padding_side = "right"
    pad_within(tokenizer, read_config(folder))
    return tokenizer


def _remedy(folder: Path) -> str:
    """Say what to do about a file that cannot be read: make ours anew, look at the user's own."""
    if (folder / MANIFEST).exists() or folder.parent.name == "models":
        return REBUILD
    return "Check the files of that folder."


def from_pretrained(folder: Path, **options: Any) -> transformers.PreTrainedModel:
    """Load a causal language model and refuse one whose weights are not all there."""
    transformers.utils.logging.disable_progress_bar()
    try:
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, with the folder
            **options,
        )
    except Exception as error:  # of the unpickler, which is not imported for the class's sake
        known = isinstance(error, OSError | SafetensorError | EOFError | KeyError | RuntimeError)
        known &= not out_of_memory(error)
        if not known and type(error).__name__ != "UnpicklingError":
            raise
        raise DamagedFile(
            f"{folder}: the weights cannot be read ({first_line(error)}). {_remedy(folder)}"
        ) from error
    model, info = loaded
    sizes = sorted(map(str, info["mismatched_keys"]))
    if sizes:
        raise ValueError(
            f"{folder}: {len(sizes)} tensors have another shape than {CONFIG} says, such as"
            f" {sizes[0]} (name, shape in the file, shape of the model)"
        )
    absent = sorted(info["missing_keys"])
    if absent:
        raise DamagedFile(
            f"{folder}: the weights lack {len(absent)} tensors of the model, such as {absent[0]}."
            f" {_remedy(folder)}"
        )
    family = family_for(model.config.model_type, model.config)
    try:
        check_unused(map(str, info["unexpected_keys"]), family.layers)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return model
