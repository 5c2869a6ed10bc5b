r"""Rows of text files, JSONL, folders of `datasets` and the hub, and their fields as types.

Every source of rows is read here, so that text is split and decoded in one way: UTF-8 with or
without a byte order mark, lines end at "\n" only, and one "\r" before it is dropped. A byte order
mark at the beginning of a later line or of a value is dropped as well: files were joined there. A
row knows where it stands, and a field that does not hold what its reader expects is an
`InputError` that names file or data set, line or row, field, value and what is expected.
"""

import ast
import json
import logging
import math
import numbers
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from langneurons.base.errors import ConfigError, InputError, nearest, unknown
from langneurons.base.io import LFS_POINTER
from langneurons.base.paths import braces, user_path

log = logging.getLogger(__name__)
MINI = Path(__file__).parent / "mini"
BRACES = ("lang", "code")
SHOWN = 80
WHOLE_JSON = 2**28  # bytes of the largest file that is read again to see whether it is one JSON
MARK = "\ufeff"  # byte order mark
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
# Letters, symbols and marks that show nothing by themselves, beside white space, control and
# format characters; and the format characters that do show something.
HIDDEN = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0") | {
    chr(number) for number in range(0xFE00, 0xFE10)
}
SHOWING = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)


class Row(dict):
    """The fields of a row; `place` names its file or data set and its line or row.

    names: what the numbers of a field stand for, where the data set says so.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        place: str,
        names: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ):
        super().__init__(fields)
        self.place, self.names = place, names


class Rows:
    """Rows that are read as they are iterated over, and `origin`: where they come from."""

    def __init__(self, rows: Iterable[Row], origin: Mapping[str, Any]):
        self._rows, self.origin = rows, dict(origin)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)


def place_of(row: Mapping[str, Any], other: str) -> str:
    """Return where a row stands, or another name where it does not know."""
    return getattr(row, "place", other)


def blank(text: str) -> bool:
    """Tell whether a text shows nothing: white space, and characters without a width."""
    return all(one.isspace() or _hidden(one) for one in text)


def _hidden(character: str) -> bool:
    if character in HIDDEN:
        return True
    return unicodedata.category(character) in ("Cc", "Cf") and character not in SHOWING


# Files --------------------------------------------------------------------------------------------


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
                f"{place}: {_short(line)} is nested too deeply. Expected: one JSON object per line."
            ) from None
        except ValueError as error:
            if number == 1 and _is_json(path):
                raise InputError(_whole_json(path)) from None
            raise InputError(
                f"{place} is not JSON ({error}): {_short(line)}. Expected: one JSON object per"
                " line."
            ) from None
        if not isinstance(value, dict):
            if number == 1 and isinstance(value, list):
                raise InputError(_whole_json(path))
            raise InputError(
                f"{place}: {_short(value)} is {_kind(value)}. Expected: one JSON object per line."
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
        if not _is_text(key):
            raise _BadKey(f"{ascii(key)} {_NO_TEXT}")
    return made


_NO_TEXT = "holds half of a surrogate pair, which is not text. Write the character as UTF-8"


def _is_text(value: str) -> bool:
    """Tell whether a text can be written: it holds no half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_json(path: str | Path) -> bool:
    """Tell whether a whole file is one JSON value."""
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


def _text_file(paths: Mapping[str, str]) -> Iterator[Row]:
    """Yield rows of fields that stand in text files, aligned by line."""
    if len(paths) == 1:
        ((field, path),) = paths.items()
        for number, text in lines(path):
            yield Row({field: text}, f"{path}, line {number}")
        return
    columns = {field: [text for _, text in lines(path)] for field, path in paths.items()}
    first = next(iter(paths.values()))
    yield from aligned(columns, lambda number: f"{first}, line {number}", ", ".join(paths.values()))


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


def _folder(
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

    source: `kind` (mini, jsonl, text, folder, hub) with its keys. key: the place of the source in
    the configuration, which errors name. mini: the file of the kind mini. fields: those that are
    read, so that the hub need not send others and a folder's others are not decoded; needed: those
    that every row must have.
    """
    kind, code = source["kind"], lang if code is None else code
    if kind == "hub":
        from langneurons.data import hub

        return hub.read(source, key, lang, code, fields, needed)
    if kind == "text":
        templates = source.get("fields") or {"text": source["path"]}
        inner = f"{key}.fields" if source.get("fields") else key
        paths = {}
        for field, template in templates.items():
            place = f"{inner}.{field}" if source.get("fields") else f"{key}.path"
            paths[field] = existing(filled_path(template, place, lang, code), place, lang)
        return Rows(_text_file(paths), {"kind": kind, "files": _digests(paths.values())})
    if kind == "folder":
        path = filled_path(source["path"], f"{key}.path", lang, code)
        rows = _folder(path, f"{key}.path", fields, needed)
        return Rows(rows, {"kind": kind, "path": path})
    if kind == "mini":
        path = existing(str(mini), key, lang)
        return Rows(objects(path), {"kind": kind, "files": _digests([path], MINI)})
    path = existing(filled_path(source["path"], f"{key}.path", lang, code), f"{key}.path", lang)
    return Rows(objects(path), {"kind": kind, "files": _digests([path])})


def _digests(paths: Iterable[str], beside: Path | None = None) -> dict[str, str]:
    """Return the SHA-256 of files by name."""
    from langneurons.jobs.code import file_digest

    names = {path: str(Path(path).relative_to(beside)) if beside else path for path in paths}
    return {name: file_digest(path, 64) for path, name in names.items()}


# Fields -------------------------------------------------------------------------------------------


def _short(value: Any) -> str:
    try:
        shown = json.dumps(value, ensure_ascii=False, default=repr)
    except (RecursionError, TypeError, ValueError):
        return f"a value of type {type(value).__name__}"
    shown = shown.encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 4] + " ..."


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (bool,)) or type(value).__name__ in ("bool_", "bool"):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, numbers.Real):
        return "not a number" if math.isnan(value) else "a number"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)) or type(value).__name__ == "ndarray":
        return "a list"
    return f"of type {type(value).__name__}"


def refuse(place: str, field: str, value: Any, expected: str) -> InputError:
    """Build the error of a field that does not hold what is expected."""
    is_what = "null" if value is None else f"{_short(value)}, {_kind(value)}"
    return InputError(f"{place}, field {field!r} is {is_what}. Expected: {expected}.")


def need(row: Mapping[str, Any], field: str, place: str) -> Any:
    """Return a field that every row must have, as plain Python."""
    if field not in row:
        raise unknown_field(row, field, place)
    return plain(row[field])


def unknown_field(row: Mapping[str, Any], field: str, place: str) -> InputError:
    """Build the error of a field that a row lacks."""
    listed = ", ".join(map(str, row)) or "none"
    if MARK + field in row:
        listed += f". The field {ascii(MARK + field)} begins with a byte order mark: drop it there"
    return InputError(f"{place}: no field {field!r}; fields: {listed}.{nearest(field, row)}")


def plain(value: Any) -> Any:
    """Return a scalar or array of numpy or pandas as plain Python; anything else as it is."""
    module = type(value).__module__.partition(".")[0]
    if module == "numpy":
        return value.tolist() if hasattr(value, "tolist") else value
    if module == "pandas" and type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value


def as_json(value: Any, place: str, field: str) -> Any:
    """Return a value as JSON can hold it; dates, bytes, pictures and the like are refused."""
    try:
        return _as_json(value, place, field)
    except RecursionError:
        raise InputError(f"{place}, field {field!r}: the value is nested too deeply.") from None


def _as_json(value: Any, place: str, field: str) -> Any:
    value = plain(value)
    if isinstance(value, Mapping):
        return {
            text(str(key), place, field): _as_json(one, place, field) for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_as_json(one, place, field) for one in value]
    if isinstance(value, str):
        return text(value, place, field)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise refuse(place, field, value, "text, numbers, or lists of these")


def text(value: Any, place: str, field: str, expected: str = "text") -> str:
    """Return a text, without a byte order mark at its beginning; it may be blank."""
    value = plain(value)
    if not isinstance(value, str):
        raise refuse(place, field, value, expected)
    if not _is_text(value):
        raise InputError(f"{place}, field {field!r}: {ascii(value)[:SHOWN]} {_NO_TEXT}.")
    if "\0" in value:
        raise InputError(
            f"{place}, field {field!r}: {_short(value)} holds a NUL character, which no text holds."
            " Remove it, or write the text as UTF-8."
        )
    return str(value).removeprefix(MARK)


def required(value: Any, place: str, field: str, expected: str) -> str:
    """Return a text that is not blank, without space at its ends."""
    found = text(value, place, field).strip()
    if blank(found):
        raise refuse(place, field, value, expected)
    return found


def optional_text(value: Any, place: str, field: str) -> str | None:
    """Return a text, or None for null."""
    return None if plain(value) is None else text(value, place, field, "text or null")


def whole(value: Any) -> int | None:
    """Return a whole number (1, or 1.0 of a table that had gaps), or None for anything else."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    return int(value) if math.isfinite(value) and value == int(value) else None


def identifier(value: Any, place: str, field: str) -> str:
    """Return an identifier: a text that is not blank, or a whole number."""
    number = whole(value)
    if number is not None:
        return str(number)
    found = text(value, place, field, "an identifier: text or a whole number")
    if blank(found):
        raise refuse(place, field, found, "an identifier that is not blank")
    return found


def shown(value: Any, place: str, field: str) -> str:
    """Return what a prompt shows of a field: a text or a finite number."""
    value = plain(value)
    number = whole(value)
    if number is not None:
        return str(number)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    return text(value, place, field, "text or a number")


def answers(value: Any, place: str, field: str) -> tuple[str, ...]:
    """Return reference answers: a text, texts, or SQuAD's objects with `text`.

    Legal are "a", ["a", "b"], {"text": ["a", "b"]} and [{"text": "a"}, {"text": "b"}]. A text that
    is such a list or object written out, as in a cell of a CSV file, is refused.
    """
    expected = 'a text, a list of texts, {"text": [...]} or a list of {"text": ...}'
    value = plain(value)
    if isinstance(value, Mapping):
        if "text" not in value:
            raise refuse(place, field, value, expected)
        value = plain(value["text"])
    if isinstance(value, str) and _written_out(value):
        raise InputError(
            f"{place}, field {field!r}: {_short(value)} is text that spells a list or an object."
            f" Give the list itself. Expected: {expected}. Where the answer is this very text, give"
            " a list of it."
        )
    several = list(value) if isinstance(value, (list, tuple)) else [value]
    if not several:
        raise InputError(f"{place}, field {field!r}: no answer. Expected: {expected}.")
    found = []
    for one in several:
        one = plain(one)
        if isinstance(one, Mapping):
            if "text" not in one:
                raise refuse(place, field, one, expected)
            one = plain(one["text"])
        if isinstance(one, (Mapping, list, tuple)):
            raise refuse(place, field, value, expected)
        answer = text(one, place, field, expected)
        if blank(answer):
            raise refuse(place, field, answer, "an answer that is not blank")
        found.append(answer)
    return tuple(found)


_ARRAY = re.compile(r"\barray\((.*?)(?:,\s*dtype=[^()]*)?\)", re.DOTALL)


def _written_out(value: str) -> bool:
    """Tell whether a text is a list or an object of JSON or Python, numpy's arrays among it.

    A list of numbers alone, such as [1] or [0, 1], is an answer like any other.
    """
    value = value.strip()
    if not (value.startswith(("[", "{")) and value.endswith(("]", "}"))):
        return False
    bare = _ARRAY.sub(r"\1", value)
    for parse, written in ((json.loads, value), (ast.literal_eval, bare)):
        try:
            found = parse(written)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(found, list):
            return not found or not all(
                isinstance(one, (int, float)) and not isinstance(one, bool) for one in found
            )
        return isinstance(found, dict)
    return False


def label(
    value: Any,
    choices: Sequence[str],
    place: str,
    field: str,
    index: bool = False,
    named: bool = False,
) -> int:
    """Return the index of the right choice.

    A text is a choice's own text. A whole number is the index of a choice, from 0; where it could
    also be the text of another choice it is refused. index: the field holds the index of a choice,
    as a number or in digits. named: the choices are given by name, so numbers are names as well.
    """
    value = plain(value)
    number, last = whole(value), len(choices) - 1
    if index and isinstance(value, str) and value.strip().isdecimal():
        number = int(value)
    if number is not None and not named:
        others = [i for i, choice in enumerate(choices) if choice == str(number) and i != number]
        if others and not index:
            raise InputError(
                f"{place}, field {field!r}: {number} may be the index of a choice or the text of"
                f" choice {others[0]}. Write the choice as text, or set `index: true` in the"
                " task's definition."
            )
        if not 0 <= number <= last:
            raise InputError(
                f"{place}, field {field!r}: label {_short(value)}; legal: 0 to {last}."
            )
        return number
    if number is None and not isinstance(value, str):
        raise refuse(place, field, value, f"a choice's text, or its index (0 to {last})")
    given = text(value, place, field) if number is None or isinstance(value, str) else str(number)
    found = [i for i, choice in enumerate(choices) if choice == given]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{place}, field {field!r}: {_short(given)} is the text of the choices"
            f" {', '.join(map(str, found))}. Give the index of one, as a number."
        )
    raise InputError(
        f"{unknown(f'{place}, field {field!r}', given, 'label', choices)}"
        + (
            " An index is written as a number, or in digits with `index: true` in the task's"
            " definition."
            if given.strip().isdecimal()
            else ""
        )
    )


class Unique:
    """Identifiers of rows, each with its row: one that stands twice is refused.

    They lie in a temporary table on disk, so that millions take little memory.
    """

    def __init__(self, what: str = "id"):
        import sqlite3

        self._what = what
        self._table = sqlite3.connect("")
        self._table.execute("PRAGMA cache_size = -4000")
        self._table.execute(
            "CREATE TABLE seen (key BLOB PRIMARY KEY, place TEXT NOT NULL) WITHOUT ROWID"
        )

    def first(self, key: bytes, place: str) -> str | None:
        """Note a key; return the place where it has been seen before, if anywhere."""
        try:
            self._table.execute("INSERT INTO seen VALUES (?, ?)", (key, place))
        except Exception as error:
            if type(error).__name__ != "IntegrityError":
                raise
            ((before,),) = self._table.execute("SELECT place FROM seen WHERE key = ?", (key,))
            return before
        return None

    def add(self, name: str, place: str) -> None:
        """Note an identifier; refuse one that another row has."""
        before = self.first(name.encode(), place)
        if before is not None:
            raise InputError(
                f"{place}: {self._what} {name!r} is that of {before} as well. Identifiers must"
                " differ."
            )
