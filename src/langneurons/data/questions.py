"""Questions that prompt open-ended answers: rows with id and question, parallel by id."""

import itertools
import logging
import os
from collections.abc import Mapping
from typing import Any

from langneurons.base.errors import InputError
from langneurons.base.io import write_json, write_jsonl
from langneurons.data import sources, typed
from langneurons.data.mini_data import mini_file, question_part
from langneurons.data.rows import Row

log = logging.getLogger(__name__)


def read_questions(
    source: Mapping[str, Any], lang: str, limit: int | None = None
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Return the first questions of a language from a configured source, and their origin."""
    mini = mini_file(question_part(source), lang)
    found = sources.read(source, "questions", lang, mini=mini)
    rows, unique = [], typed.Unique()
    for row in itertools.islice(found, limit):
        rows.append(read_question(row))
        unique.add(rows[-1]["id"], row.place)
    return rows, found.origin


def read_question(row: Row) -> dict[str, str]:
    """Return the id and question of a row."""
    name = typed.identifier(typed.need(row, "id", row.place), row.place, "id").strip()
    value = typed.need(row, "question", row.place)
    question = typed.required(value, row.place, "question", "a question that is not blank")
    return {"id": name, "question": question}


def prepare_questions(
    source: Mapping[str, Any],
    lang: str,
    limit: int | None,
    path: str | os.PathLike,
    about: str | os.PathLike | None = None,
) -> None:
    """Write the first questions of a language as JSONL: id, question, lang.

    about: a JSON file for where the questions come from and how many they are.
    """
    rows, origin = read_questions(source, lang, limit)
    if not rows:
        raise InputError(f"questions of {lang}: none.")
    write_jsonl(path, [row | {"lang": lang} for row in rows])
    if about is not None:
        write_json(about, {"source": origin, "rows": len(rows)})
    log.info("%s: %d questions", lang, len(rows))


def plain_prompt(row: Mapping[str, Any], template: str) -> str:
    """Return the prompt of a question, after the turns and with the instruction of its row."""
    earlier = [
        f"{template.format(question=asked).rstrip()} {answered}\n\n"
        for asked, answered in row.get("turns", ())
    ]
    return "".join(earlier) + template.format(question=instructed(row))


def instructed(row: Mapping[str, Any]) -> str:
    """Return a question with the instruction of its row before or after it."""
    instruction = row.get("instruction")
    if instruction is None:
        return row["question"]
    both = [row["question"], instruction]
    return "\n".join(both if row["place"] == "after" else both[::-1])
