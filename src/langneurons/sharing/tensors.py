"""Safetensors files of others, read with suspicion: what is not one is told in words."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from langneurons.base.errors import InputError
from langneurons.base.io import LFS_POINTER, DamagedFile, read_tensors

START = 64  # bytes that tell formats apart


def check_start(path: str | os.PathLike[str]) -> None:
    """Refuse a file that cannot be safetensors, saying what it is, and one that was cut short.

    Raises:
        InputError: The file is empty, a pointer of Git LFS, a pickle, or lacks bytes.
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    with path.open("rb") as opened:
        start = opened.read(START)
    size = path.stat().st_size
    if not start:
        raise InputError(f"{path}: the file is empty.")
    if start.startswith(LFS_POINTER):
        raise InputError(
            f"{path}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull`."
        )
    if start[8:9] == b"{":
        _check_size(path, int.from_bytes(start[:8], "little"), size)
    elif start.startswith((b"PK\x03\x04", b"\x80")):
        raise InputError(
            f"{path}: a pickle or a file of torch.save, not safetensors. Convert a mask with:"
            " langneurons convert MASK.pth FOLDER --languages ... --neurons-per-layer ... --model"
            " ..."
        )
    else:
        raise InputError(f"{path}: not a safetensors file.")


def _check_size(path: Path, length: int, size: int) -> None:
    """Refuse a file that is shorter than its header, of a length in bytes, says."""
    if 8 + length > size:
        raise InputError(f"{path}: cut short: its header takes {length} bytes, the file {size}.")
    with path.open("rb") as opened:
        opened.seek(8)
        text = opened.read(length)
    try:
        entries = json.loads(text)
        ends = [one["data_offsets"][1] for key, one in entries.items() if key != "__metadata__"]
        wanted = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise InputError(f"{path}: not a safetensors file: its header cannot be read.") from None
    if wanted > size:
        raise InputError(f"{path}: cut short: {size} of {wanted} bytes are there.")


def read_checked(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays and metadata of a safetensors file, or say what is wrong with it."""
    check_start(path)
    try:
        arrays, header = read_tensors(path)
    except DamagedFile as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)}).") from None
    if not isinstance(header, dict):
        raise InputError(f"{path}: its metadata under `langneurons` is not a JSON object.")
    return arrays, header


def _reason(error: BaseException) -> str:
    return str(error.__cause__ or error).splitlines()[0]


def check_arrays(
    path: str | os.PathLike[str], arrays: dict[str, np.ndarray], wanted: dict[str, np.dtype]
) -> None:
    """Refuse a file whose arrays are not those of its header, or are of another type."""
    missing = sorted(set(wanted) - set(arrays))
    if missing:
        raise InputError(f"{path}: the header names arrays that are missing: {_some(missing)}.")
    extra = sorted(set(arrays) - set(wanted))
    if extra:
        raise InputError(f"{path}: arrays that the header does not name: {_some(extra)}.")
    for name, dtype in wanted.items():
        if arrays[name].dtype != dtype:
            raise InputError(f"{path}: {name} is of type {arrays[name].dtype}, not {dtype}.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
