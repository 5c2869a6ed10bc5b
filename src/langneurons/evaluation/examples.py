"""Rows of a task as examples, with the prompt of a language.

Templates are Python format strings over the fields of a row and the words of the language:
`{field:stripped}` drops space at both ends, `{field:unstopped}` also the last character,
`{field:lowered}` lowers the first letter, `{field:before _}` and `{field:after _}` are what stands
on either side of the first `_` (any text), the latter without space at its ends. `{field[0]}` is an
element of a list.
"""

import logging
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langneurons.base.errors import InputError, present, unknown
from langneurons.data import typed
from langneurons.data.rows import place_of
from langneurons.evaluation.definition import Task, check_language

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One item, ready to score: `choices` or reference answers `golds`."""

    item: str
    context: str
    choices: tuple[str, ...]
    label: int | None
    golds: tuple[str, ...]
    continuation: str | None = None

    @property
    def right(self) -> int:
        """The place of the right choice; a ValueError where there are no choices."""
        return present(self.label, f"item {self.item}: it has no choices, so no right one")

    def requests(self, delimiter: str) -> list[tuple[str, str]]:
        """Return (context, continuation) of each choice."""
        if self.continuation is None:
            return [(self.context, delimiter + choice) for choice in self.choices]
        return [(self.context + choice, delimiter + self.continuation) for choice in self.choices]


class Template(string.Formatter):
    """Format strings with the specs that the module describes."""

    def __init__(self, place: str):
        self._place, self._field = place, ""

    def get_field(
        self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, Any]:
        """Return a field, or what stands at an index of a list."""
        self._field = field_name
        name = re.split(r"[.\[]", field_name, maxsplit=1)[0]
        expected = f"what the template's {{{field_name}}} names"
        try:
            value = super().get_field(field_name, args, kwargs)
            if field_name != name:
                # An element of a text is a letter, of a list that is spelled out a bracket.
                above = field_name.rpartition("[" if field_name.endswith("]") else ".")[0]
                if isinstance(super().get_field(above, args, kwargs)[0], str):
                    raise typed.refuse(self._place, name, kwargs.get(name), expected)
            return value
        except (IndexError, TypeError, AttributeError) as error:
            raise typed.refuse(self._place, name, kwargs.get(name), expected) from error

    def format_field(self, value: Any, spec: str) -> str:
        """Apply a spec to a field."""
        text = typed.shown(value, self._place, self._field)
        if spec == "stripped":
            return text.strip()
        if spec == "unstopped":
            return text.strip()[:-1]
        if spec == "lowered":
            return text[:1].lower() + text[1:]
        side, _, mark = spec.partition(" ")
        if side in ("before", "after") and mark:
            first, found, last = text.partition(mark)
            if not found:
                raise ValueError(f"{text!r} does not hold {mark!r}")
            return first if side == "before" else last.strip()
        return super().format_field(text, spec)


def build(rows: Sequence[Mapping[str, Any]], task: Task, lang: str) -> list[Example]:
    """Turn rows into examples with the prompt of a language."""
    check_language(task, lang)
    name = f"task {task.name}, {lang}"
    return [
        _example(row, number, task, lang, f"{name}, {place_of(row, f'row {number + 1}')}")
        for number, row in enumerate(rows)
    ]


def _example(row: Mapping[str, Any], number: int, task: Task, lang: str, place: str) -> Example:
    for field in (*task.fields, task.gold):
        typed.need(row, field, place)
    words = task.words[lang]
    values = dict(row) | words
    for name, field in task.lookup.items():
        word = typed.text(row.get(field), place, field)
        if word not in words:
            raise unknown(f"{place}, {field}", word, "word", words)
        values[name] = words[word]

    def filled(template: str) -> str:
        try:
            return Template(place).vformat(template, (), values)
        except KeyError as error:
            raise unknown(
                f"{place}, {template!r}", error.args[0], "field or word", values
            ) from None
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{place}, {template!r}: {error}") from None

    def scored(template: str) -> str:
        text = filled(template)
        if typed.blank(text):
            raise InputError(f"{place}: {template!r} is blank; a choice needs text to be scored.")
        return text

    choices = tuple(scored(choice) for choice in task.choices)
    gold = row[task.gold]
    label: int | None = None
    golds: tuple[str, ...] = ()
    if task.choices or task.classes:
        texts = tuple(filled(text) for text in task.labels)
        known = texts or choices or task.classes
        label = typed.label(gold, known, place, task.gold, task.index, bool(texts))
    else:
        golds = typed.answers(gold, place, task.gold)
    item = f"{number:05d}"
    if task.identifier is not None and task.identifier in row:
        item = typed.identifier(row[task.identifier], place, task.identifier)
    continuation = None if task.continuation is None else scored(task.continuation)
    return Example(item, filled(task.context), choices, label, golds, continuation)
