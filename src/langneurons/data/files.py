r"""Rows of text files, JSONL and folders of `datasets`.

Text is split and decoded in one way: UTF-8 with or without a byte order mark, lines end at "\n"
only, and one "\r" before it is dropped. A byte order mark at the beginning of a later line is
dropped as well: files were joined there.
"""

import csv
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from langneurons.base.errors import ConfigError, InputError, unknown
from langneurons.base.io import LFS_POINTER
from langneurons.base.paths import braces, user_path
from langneurons.data.rows import Row
from langneurons.data.typed import NO_TEXT, is_text, kind_of, short, unknown_field

log = logging.getLogger(__name__)
csv.field_size_limit(2**31 - 1)
BRACES = ("lang", "code")
WHOLE_JSON = 2**28  # bytes of the largest file that is read again to see whether it is one JSON
# What a file begins with, and what it is; the first that matches.
BEGINNINGS = (
    (b"\xff\xfe\0\0", "UTF-32 text. Save it as UTF-8."),
    (b"\0\0\xfe\xff", "UTF-32 text. Save it as UTF-8."),
    (b"\xff\xfe", "UTF-16 text. Save it as UTF-8."),
    (b"\xfe\xff", "UTF-16 text. Save it as UTF-8."),
    (b"\x1f\x8b", "gzip-compressed. Unpack it: `gzip -dk` keeps the original."),
    (b"BZh", "bzip2-compressed. Unpack it: `bzip2 -dk` keeps the original."),
    (b"\xfd7zXZ\0", "xz-compressed. Unpack it: `xz -dk` keeps the original."),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed. Unpack it: `zstd -dk` keeps the original."),
    (b"PK\x03\x04", "a ZIP archive (or a spreadsheet). Unpack it, or export it as text."),
    (b"PAR1", "a Parquet file. Write it as JSONL, or as a folder with `datasets.save_to_disk`."),
    (b"ARROW1", "an Arrow file. Write it as JSONL, or name its folder as `kind: folder`."),
    (b"SQLite format 3\0", "an SQLite database. Write its rows as JSONL."),
    (LFS_POINTER, "a Git LFS pointer in place of the file. Run `git lfs pull` there."),
)


def lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of each line of a UTF-8 file."""
    joined = 0
    with Path(path).open("rb") as opened:
        beginning = opened.read(64)
        for start, what in BEGINNINGS:
            if beginning.startswith(start):
                raise InputError(f"{path} is {what}")
        opened.seek(0)
        for number, raw in enumerate(opened, 1):
            if raw.startswith(b"\xef\xbb\xbf"):
                raw, joined = raw[3:], joined + (number > 1)
            if b"\0" in raw:
                raise InputError(
                    f"{path}, line {number}: a NUL character at byte {raw.index(0)}, which no text"
                    " holds. Is the file UTF-16 without a byte order mark? Save it as UTF-8."
                )
            if raw.endswith(b"\n"):
                raw = raw[:-1].removesuffix(b"\r")
            elif number == 1 and b"\r" in raw:
                raise InputError(
                    f"{path}: its lines end with CR only; expected: LF, or CR and LF."
                    " `tr '\\r' '\\n'` writes one as the other."
                )
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: not UTF-8 text ({error.reason} at byte {error.start})."
                    " Save the file as UTF-8."
                ) from None
            yield number, text
    if joined:
        log.warning(
            "%s: a byte order mark dropped at the beginning of %d later lines (joined files?)",
            path,
            joined,
        )


def objects(path: str | Path) -> Iterator[Row]:
    """Yield the JSON object of each line that is not blank."""
    for number, line in lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = json.loads(line, object_pairs_hook=_without_doubles)
        except _BadKey as error:
            raise InputError(f"{place}: the key {error}.") from None
        except RecursionError:
            raise InputError(
                f"{place}: {short(line)} is nested too deeply. Expected: one JSON object per line."
            ) from None
        except ValueError as error:
            if number == 1 and _is_json(path):
                raise InputError(_whole_json(path)) from None
            raise InputError(
                f"{place} is not JSON ({error}): {short(line)}. Expected: one JSON object per line."
            ) from None
        if not isinstance(value, dict):
            if number == 1 and isinstance(value, list):
                raise InputError(_whole_json(path))
            raise InputError(
                f"{place}: {short(value)} is {kind_of(value)}. Expected: one JSON object per line."
            )
        yield Row(value, place)


class _BadKey(Exception):
    """A key that an object may not have, and why."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _BadKey(f"{twice!r} stands twice in one object")
    for key in made:
        if not is_text(key):
            raise _BadKey(f"{ascii(key)} {NO_TEXT}")
    return made


def _is_json(path: str | Path) -> bool:
    """Return whether a whole file is one JSON value."""
    if Path(path).stat().st_size > WHOLE_JSON:
        return False
    try:
        json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, MemoryError, RecursionError):
        return False
    return True


def _whole_json(path: str | Path) -> str:
    return (
        f"{path} is one JSON value over the whole file (an array, or pretty-printed). Expected:"
        " JSONL, one JSON object per line. `jq -c '.[]'` writes an array so, `jq -c .` an object."
    )


def text_rows(paths: Mapping[str, str]) -> Iterator[Row]:
    """Yield rows of fields that stand in text files, aligned by line."""
    if len(paths) == 1:
        ((field, path),) = paths.items()
        for number, text in lines(path):
            yield Row({field: text}, f"{path}, line {number}")
        return
    columns = {field: [text for _, text in lines(path)] for field, path in paths.items()}
    first = next(iter(paths.values()))
    yield from aligned(columns, lambda number: f"{first}, line {number}", ", ".join(paths.values()))


def table_rows(path: str | Path) -> Iterator[Row]:
    """Yield the rows of a CSV file. Its first line names the columns."""
    reader = csv.reader((f"{text}\n" for _, text in lines(path)), strict=True)
    columns: list[str] = []
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num}: not CSV ({error}). Cells are separated by commas;"
                ' one with a comma, a quote or a line break stands in quotes, " within it doubled.'
            ) from None
        if cells is None:
            return
        if not columns:
            columns = cells
            other = next((one for one in ("\t", ";") if one in columns[0]), None)
            if len(columns) == 1 and other:
                raise InputError(
                    f"{path}, line 1: cells are separated by {other!r}. Expected: commas."
                )
            if twice := next((one for one in columns if columns.count(one) > 1), None):
                raise InputError(f"{path}, line 1: the column {twice!r} stands there twice.")
            continue
        if not cells:
            continue
        place = f"{path}, line {first}"
        if len(cells) != len(columns):
            raise InputError(
                f"{place}: {len(cells)} cells; line 1 names {len(columns)} columns"
                f" ({', '.join(columns)})."
            )
        yield Row(dict(zip(columns, cells, strict=True)), place)


def aligned(
    columns: Mapping[str, Sequence[Any]],
    place: Callable[[int], str],
    where: str,
    names: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Iterator[Row]:
    """Yield rows from columns, which must be of one length."""
    sizes = {field: len(values) for field, values in columns.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"{where}: fields of different length cannot be aligned: {sizes}.")
    for number, values in enumerate(zip(*columns.values(), strict=True), 1):
        yield Row(dict(zip(columns, values, strict=True)), place(number), names)


def class_names(features: Mapping[str, Any] | None) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes of each feature of `datasets` that is a class label."""
    return {
        field: tuple(feature.names)
        for field, feature in (features or {}).items()
        if type(feature).__name__ == "ClassLabel" and feature.names
    }


def folder_rows(
    path: str, key: str, fields: Iterable[str] | None, needed: Iterable[str]
) -> Iterator[Row]:
    """Return the rows of a folder; columns that are not read are not decoded."""
    from datasets import load_from_disk

    try:
        found = load_from_disk(path)
    except (OSError, ValueError, RecursionError) as error:
        if (Path(path) / "dataset_info.json").is_file():
            raise InputError(
                f"{key}: {path} lacks files that `datasets.save_to_disk` wrote, or they are cut"
                f" short or Git LFS pointers ({error}). Copy the folder again, whole."
            ) from error
        raise InputError(
            f"{key}: {path} is not a folder that `datasets.save_to_disk` wrote ({error})."
        ) from error
    if isinstance(found, dict):
        raise InputError(
            f"{key}: {path} holds the splits {', '.join(found)}; name the folder of one of them,"
            f" such as {path}/{next(iter(found))}."
        )
    columns = found.column_names
    for field in needed:
        if field not in columns:
            raise unknown_field(dict.fromkeys(columns), field, path)
    read_ = columns if fields is None else [one for one in columns if one in set(fields)]
    if read_:
        found = found.select_columns(read_)
    names = class_names(found.features)
    return (Row(row, f"{path}, row {number}", names) for number, row in enumerate(found, 1))


def filled(template: str, key: str, lang: str, code: str) -> str:
    """Return a name with {lang} and {code} filled in."""
    check_braces(template, key)
    return template.format(lang=lang, code=code)


def filled_path(template: str, key: str, lang: str, code: str) -> str:
    """Return a path with {lang}, {code}, `~` and variables filled in."""
    check_braces(template, key)
    return str(user_path(template, {"lang": lang, "code": code}))


def check_braces(template: str, key: str, legal: Sequence[str] = BRACES) -> None:
    """Refuse a path or name with another brace than those that are filled in."""
    try:
        found = braces(template)
    except ValueError as error:
        raise ConfigError(
            f"{key}: {template!r} has a brace without its other half ({error}). A brace of the"
            " name itself is written twice."
        ) from None
    for name in sorted(found - set(legal)):
        raise unknown(f"{key}: {template!r}", f"{{{name}}}", "brace", [f"{{{w}}}" for w in legal])


def existing(path: str, key: str, lang: str) -> str:
    """Return the path of a file that must exist."""
    if Path(path).is_dir():
        raise InputError(f"{key}: {path} is a folder; expected: a file ({lang}).")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{key}: {path} does not exist ({lang}).")
    return path
