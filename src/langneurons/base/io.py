"""Read and write result files: atomic, typed, with metadata.

Every file appears under its final name only when it is complete: it is written to a temporary
name in the same folder, flushed to disk and renamed. A killed job leaves no half file behind.
"""

import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

METADATA_KEY = b"langneurons"
# Folders whose files are made by rules; any other file is a user's own.
MADE = frozenset({"results", "resources"})
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class DamagedFile(ValueError):
    """A result file that cannot be read, or that does not hold what its reader needs."""


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write JSON atomically, keys sorted, readable."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    write_text(path, text + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read JSON; a damaged file is a `DamagedFile` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(damaged(path, error)) from error


def damaged(path: str | os.PathLike, reason: object) -> str:
    """Say that a file is unusable, why, and which command rebuilds it if a rule made it."""
    if not MADE & set(Path(path).parts):
        return f"{path}: cannot be used ({reason})."
    return (
        f"{path}: cannot be used ({reason}). Rebuild it with: rm {str(path)!r} && snakemake"
        " (with the same --configfile and --profile as before)."
    )


def expect(path: str | os.PathLike, header: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a file whose header says something else than its reader needs."""
    for key, value in expected.items():
        if header.get(key) != value:
            raise DamagedFile(damaged(path, f"{key} is {header.get(key)!r}, expected {value!r}"))


def write_parquet(path: str | os.PathLike, frame: "pd.DataFrame", metadata: Mapping) -> None:
    """Write a frame with JSON metadata in the parquet schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    text = json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False)
    table = table.replace_schema_metadata({METADATA_KEY: text.encode()})
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_parquet(
    path: str | os.PathLike, only: Mapping[str, Collection[str]] | None = None
) -> "tuple[pd.DataFrame, dict]":
    """Return the frame and the metadata that `write_parquet` stored.

    only: the values of columns whose rows are read; all rows without.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = [(column, "in", sorted(values)) for column, values in (only or {}).items()]
        table = pq.read_table(path, filters=rows or None)
    except (OSError, pa.ArrowInvalid) as error:
        raise DamagedFile(damaged(path, error)) from error
    text = (table.schema.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise DamagedFile(damaged(path, "it carries no langneurons metadata"))
    return table.to_pandas(), json.loads(text)


def read_records(
    path: str | os.PathLike,
    columns: Sequence[str],
    numbers: Sequence[str],
    only: Mapping[str, Collection[str]] | None = None,
    **expected: Any,
) -> "tuple[pd.DataFrame, dict]":
    """Read a frame that must have columns, finite numbers, and metadata as expected.

    only: as `read_parquet` takes it.
    """
    import numpy as np

    frame, metadata = read_parquet(path, only)
    expect(path, metadata, expected)
    lacking = [column for column in (*columns, *numbers) if column not in frame]
    if lacking:
        raise DamagedFile(damaged(path, f"lacks the columns {', '.join(lacking)}"))
    if frame.empty:
        raise DamagedFile(damaged(path, "it holds no rows"))
    for column in numbers:
        if not np.isfinite(frame[column].to_numpy(np.float64)).all():
            raise DamagedFile(damaged(path, f"{column} is not finite everywhere"))
    return frame, metadata


def write_tensors(
    path: str | os.PathLike, tensors: "Mapping[str, np.ndarray]", metadata: Mapping[str, Any]
) -> None:
    """Write arrays to a safetensors file, the metadata as JSON under one key.

    Equal contents give equal bytes: safetensors writes several keys in a random order.
    """
    import numpy as np
    from safetensors.numpy import save_file

    header = {METADATA_KEY.decode(): json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False)}
    arrays = {key: np.asarray(tensors[key], order="C") for key in sorted(tensors)}
    with atomic(path) as temporary:
        save_file(arrays, temporary, metadata=header)


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """Return only the metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            text = (opened.metadata() or {}).get(METADATA_KEY.decode())
        if text is None:
            raise ValueError("it carries no langneurons metadata")
        return json.loads(text)
    except (OSError, ValueError, SafetensorError) as error:
        raise DamagedFile(damaged(path, error)) from error


def read_tensors(path: str | os.PathLike) -> "tuple[dict[str, np.ndarray], dict[str, Any]]":
    """Return arrays and metadata of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    header = read_header(path)
    try:
        return load_file(path), header
    except (OSError, SafetensorError) as error:
        raise DamagedFile(damaged(path, error)) from error


def iterate_jsonl(path: str | os.PathLike) -> Iterator[dict]:
    """Yield the object of each line of a file that a rule wrote; a bad line is named."""
    with Path(path).open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DamagedFile(damaged(path, f"line {number} is not JSON: {error}")) from error


def read_jsonl(path: str | os.PathLike) -> list[dict]:
    """Return the objects of a file that a rule wrote, one per line."""
    return list(iterate_jsonl(path))


def write_jsonl(path: str | os.PathLike, rows: list[dict]) -> None:
    """Write one JSON object per line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
