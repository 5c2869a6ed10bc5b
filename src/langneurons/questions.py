"""Questions that prompt open-ended answers: rows with id and question, parallel by id."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langneurons.io import read_jsonl, write_jsonl
from langneurons.paths import user_path

log = logging.getLogger(__name__)
MINI = Path(__file__).parent / "mini" / "questions"
FIELDS = ("id", "question")


def read_questions(source: Mapping[str, Any], lang: str) -> list[dict[str, str]]:
    """Return the questions of a language from a configured source (mini, jsonl)."""
    mini = source["kind"] == "mini"
    path = MINI / f"{lang}.jsonl" if mini else user_path(source["path"], {"lang": lang})
    if not path.is_file():
        raise FileNotFoundError(f"questions: {path} does not exist ({lang}).")
    rows, seen = [], set()
    for number, row in enumerate(read_jsonl(path), 1):
        missing = [field for field in FIELDS if field not in row]
        if missing:
            raise ValueError(
                f"{path}, line {number}: no field {missing[0]!r}; fields: {', '.join(row)}."
            )
        one = {field: str(row[field]).strip() for field in FIELDS}
        if not one["question"] or one["id"] in seen:
            what = "the question is empty" if not one["question"] else "the id occurs twice"
            raise ValueError(f"{path}, line {number}: {what} (id {one['id']!r}).")
        seen.add(one["id"])
        rows.append(one)
    return rows


def prepare_questions(
    source: Mapping[str, Any], lang: str, limit: int | None, path: str | os.PathLike
) -> None:
    """Write the first questions of a language as JSONL: id, question, lang."""
    rows = read_questions(source, lang)[:limit]
    if not rows:
        raise ValueError(f"questions of {lang}: none")
    write_jsonl(path, [row | {"lang": lang} for row in rows])
    log.info("%s: %d questions", lang, len(rows))


def prompts(rows: list[dict[str, str]], template: str) -> list[str]:
    """Return the prompt of each question."""
    return [template.format(question=row["question"]) for row in rows]
