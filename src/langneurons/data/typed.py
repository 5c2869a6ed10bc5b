"""Fields of rows as types.

A field that does not hold what its reader expects is an `InputError` that names file or data set,
line or row, field, value and what is expected.
"""

import ast
import json
import math
import numbers
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from langneurons.base.errors import InputError, nearest, unknown

SHOWN = 80
MARK = "\ufeff"  # byte order mark
# Letters, symbols and marks that show nothing by themselves, beside white space, control and
# format characters; and the format characters that do show something.
HIDDEN = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0") | {
    chr(number) for number in range(0xFE00, 0xFE10)
}
SHOWING = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)


def blank(text: str) -> bool:
    """Return whether a text shows nothing: white space, and characters without a width."""
    return all(one.isspace() or _hidden(one) for one in text)


def _hidden(character: str) -> bool:
    if character in HIDDEN:
        return True
    return unicodedata.category(character) in ("Cc", "Cf") and character not in SHOWING


NO_TEXT = "holds half of a surrogate pair, which is not text. Write the character as UTF-8"


def is_text(value: str) -> bool:
    """Return whether a text can be written: it holds no half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def short(value: Any) -> str:
    """Return a value as an error shows it."""
    try:
        shown = json.dumps(value, ensure_ascii=False, default=repr)
    except (RecursionError, TypeError, ValueError):
        return f"a value of type {type(value).__name__}"
    shown = shown.encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 4] + " ..."


def kind_of(value: Any) -> str:
    """Return what JSON calls the type of a value."""
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
    is_what = "null" if value is None else f"{short(value)}, {kind_of(value)}"
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
    if not is_text(value):
        raise InputError(f"{place}, field {field!r}: {ascii(value)[:SHOWN]} {NO_TEXT}.")
    if "\0" in value:
        raise InputError(
            f"{place}, field {field!r}: {short(value)} holds a NUL character, which no text holds."
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
    number = float(value)
    return int(number) if number.is_integer() else None


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
            f"{place}, field {field!r}: {short(value)} is text that spells a list or an object."
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
    """Return whether a text is a list or an object of JSON or Python, numpy's arrays among it.

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
            raise InputError(f"{place}, field {field!r}: label {short(value)}; legal: 0 to {last}.")
        return number
    if number is None and not isinstance(value, str):
        raise refuse(place, field, value, f"a choice's text, or its index (0 to {last})")
    given = text(value, place, field) if number is None or isinstance(value, str) else str(number)
    found = [i for i, choice in enumerate(choices) if choice == given]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{place}, field {field!r}: {short(given)} is the text of the choices"
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
