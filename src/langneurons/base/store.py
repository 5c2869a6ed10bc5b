"""A store of finished parts of long jobs, keyed by the digest of what they are.

A job that covers many cells keeps each finished one here. After a kill, or when one condition is
added, it computes only what the store lacks. Parts are parquet files in an undeclared directory
(Snakemake deletes declared outputs before it reruns a job), written atomically; a damaged part is
computed again. The store can be emptied at any time; `prune` caps its size.
"""

import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.base.digests import digest
from langneurons.base.errors import InputError
from langneurons.base.io import DamagedFile, read_parquet, write_parquet

log = logging.getLogger(__name__)
NAME = ".work"


class SideStore:
    """Parts of one stage below `root`, which is created on the first write."""

    def __init__(self, root: str | os.PathLike, stage: str):
        self.root = Path(root) / stage

    def path(self, key: dict[str, Any]) -> Path:
        """Return the file of a part."""
        name = digest(key, 32)
        return self.root / name[:2] / f"{name[2:]}.parquet"

    def get(self, key: dict[str, Any]) -> pd.DataFrame | None:
        """Return a finished part, or None."""
        path = self.path(key)
        if not path.exists():
            return None
        try:
            frame, metadata = read_parquet(path)
        except DamagedFile as error:
            log.warning("part computed again: %s", error)
            return None
        os.utime(path)
        return frame if digest(metadata) == digest(key) else None

    def put(self, key: dict[str, Any], frame: pd.DataFrame) -> None:
        """Keep a finished part."""
        write_parquet(self.path(key), frame, key)


def prune(root: str | os.PathLike, max_mb: float) -> tuple[int, int]:
    """Delete the least recently used parts until the store fits; return (files, bytes) deleted.

    Raises:
        InputError: the folder is not a store.
    """
    if Path(root).resolve().name != NAME:
        raise InputError(
            f"{root} is not a store of finished parts; such a folder is called {NAME}"
            f" (results/{NAME})."
        )
    files = [path for path in Path(root).rglob("*") if path.is_file()]
    files.sort(key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in files)
    count = freed = 0
    for path in files:
        if total - freed <= max_mb * 2**20:
            break
        freed += path.stat().st_size
        count += 1
        path.unlink()
    log.info("side store: %d files, %.1f MB deleted", count, freed / 2**20)
    return count, freed
