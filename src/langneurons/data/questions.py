"""Questions that prompt open-ended answers: rows with id and question, parallel by id."""

import itertools
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from langneurons.base.errors import InputError
from langneurons.base.io import write_json, write_jsonl
from langneurons.base.paths import user_path
from langneurons.data import sources, typed
from langneurons.data.mini_data import mini_file, question_part
from langneurons.data.rows import Row

log = logging.getLogger(__name__)


def files_of(source: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (part, path with {lang}) of the files of a source; part: "" where it has none."""
    parts = source.get("parts") or ()
    return [(part, source["path"].replace("{part}", part)) for part in parts or ("",)]


def read_questions(
    source: Mapping[str, Any], lang: str, limit: int | None = None
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Return the first questions of a language from a configured source, and their origin.

    Rows have id and question, and part where the source has parts; the id then begins with it.
    """
    if source["kind"] == "mini":
        found = sources.read(source, "questions", lang, mini=mini_file(question_part(source), lang))
        return _taken(found, source, "", limit, typed.Unique()), found.origin
    rows: list[dict[str, str]] = []
    origin: dict[str, Any] = {"kind": source["kind"], "files": {}}
    unique, lacking = typed.Unique(), []
    for part, path in files_of(source):
        if part and not user_path(path, {"lang": lang}).is_file():
            lacking.append(part)
            continue
        found = sources.read({"kind": source["kind"], "path": path}, "questions", lang)
        rows += _taken(found, source, part, limit, unique)
        origin["files"] |= found.origin["files"]
    if lacking:
        log.info("questions of %s: no file of %s", lang, ", ".join(lacking))
    return rows, origin


def _taken(
    found: Iterable[Row],
    source: Mapping[str, Any],
    part: str,
    limit: int | None,
    unique: typed.Unique,
) -> list[dict[str, str]]:
    text = source["kind"] == "text"
    asked = (row for row in found if not (text and typed.blank(row["text"])))
    rows = []
    for number, row in enumerate(itertools.islice(asked, limit), 1):
        rows.append(read_question(row, source, part, number))
        unique.add(rows[-1]["id"], row.place)
    return rows


def read_question(
    row: Row, source: Mapping[str, Any], part: str = "", number: int = 1
) -> dict[str, str]:
    """Return the id and question of a row, and its part if there is one.

    number: of the row among the questions of its file, which is the id where no column holds one.
    """
    field: str = {"text": "text", "csv": source.get("question_field", "")}.get(
        source["kind"], "question"
    )
    named: str | None = {"text": None, "csv": source.get("id_field")}.get(source["kind"], "id")
    name = str(number)
    if named is not None:
        name = typed.identifier(typed.need(row, named, row.place), row.place, named).strip()
    value = typed.need(row, field, row.place)
    question = typed.required(value, row.place, field, "a question that is not blank")
    made = {"id": f"{part}/{name}" if part else name, "question": question}
    return made | {"part": part} if part else made


def prepare_questions(
    source: Mapping[str, Any],
    lang: str,
    limit: int | None,
    path: str | os.PathLike,
    about: str | os.PathLike | None = None,
) -> None:
    """Write the first questions of a language as JSONL: id, question, lang.

    about: a JSON file for where the questions come from, how many they are, and how many of these
    (`doubled`) have the text of an earlier one.
    """
    rows, origin = read_questions(source, lang, limit)
    if not rows:
        raise InputError(f"questions of {lang}: none.")
    write_jsonl(path, [row | {"lang": lang} for row in rows])
    doubled = len(rows) - len({row["question"] for row in rows})
    if about is not None:
        write_json(about, {"source": origin, "rows": len(rows), "doubled": doubled})
    log.info("%s: %d questions", lang, len(rows))
    if doubled:
        log.warning("%s: %d questions are asked again under another identifier", lang, doubled)


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
