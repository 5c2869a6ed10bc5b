"""Digests of plain values and of files."""

import hashlib
import json
import os
from typing import Any


def digest(value: Any, length: int = 16) -> str:
    """Return a hexadecimal digest of plain values (JSON, keys sorted)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_digest(path: str | os.PathLike, length: int = 16) -> str:
    """Return a hexadecimal digest of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:length]
