"""The one reader of rows: of the mini data, files, folders and the hub."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from langneurons.base.digests import file_digest
from langneurons.data import hub_rows
from langneurons.data.files import (
    existing,
    filled_path,
    folder_rows,
    objects,
    table_rows,
    text_rows,
)
from langneurons.data.mini_data import MINI
from langneurons.data.rows import Rows


def read(
    source: Mapping[str, Any],
    key: str,
    lang: str,
    code: str | None = None,
    mini: Path | None = None,
    fields: Iterable[str] | None = None,
    needed: Iterable[str] = (),
) -> Rows:
    """Return the rows of a language from a configured source.

    source: `kind` (mini, jsonl, csv, text, folder, hub) with its keys. key: the place of the source
    in the configuration, which errors name. mini: the file of the kind mini. fields: those that are
    read, so that the hub need not send others and a folder's others are not decoded; needed: those
    that every row must have.
    """
    kind, code = source["kind"], lang if code is None else code
    if kind == "hub":
        return hub_rows.read(source, key, lang, code, fields, needed)
    if kind == "text":
        templates = source.get("fields") or {"text": source["path"]}
        inner = f"{key}.fields" if source.get("fields") else key
        paths = {}
        for field, template in templates.items():
            place = f"{inner}.{field}" if source.get("fields") else f"{key}.path"
            paths[field] = existing(filled_path(template, place, lang, code), place, lang)
        return Rows(text_rows(paths), {"kind": kind, "files": _digests(paths.values())})
    if kind == "folder":
        path = filled_path(source["path"], f"{key}.path", lang, code)
        rows = folder_rows(path, f"{key}.path", fields, needed)
        return Rows(rows, {"kind": kind, "path": path})
    if kind == "mini":
        path = existing(str(mini), key, lang)
        return Rows(objects(path), {"kind": kind, "files": _digests([path], MINI)})
    path = existing(filled_path(source["path"], f"{key}.path", lang, code), f"{key}.path", lang)
    rows = table_rows(path) if kind == "csv" else objects(path)
    return Rows(rows, {"kind": kind, "files": _digests([path])})


def _digests(paths: Iterable[str], beside: Path | None = None) -> dict[str, str]:
    """Return the SHA-256 of files by name."""
    names = {path: str(Path(path).relative_to(beside)) if beside else path for path in paths}
    return {name: file_digest(path, 64) for path, name in names.items()}
