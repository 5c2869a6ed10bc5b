"""Cloze facts in the fields of mLAMA (Kassner et al. 2021), one file per premise language.

A row holds `template` (a sentence with [X] for the subject and [Y] for the object), `sub_<lang>`
of the template's language, `obj_<lang>` of every language that is compared, and `predicate_id`.
Files of different languages hold the same facts in the same order; where rows carry an `id`, it
is the same in every language. Prepared rows: fact, predicate, template, subject, objects by
language.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langneurons.io import read_jsonl, write_jsonl
from langneurons.paths import user_path

log = logging.getLogger(__name__)
MINI = Path(__file__).parent / "mini"
SUBJECT, OBJECT = "[X]", "[Y]"


def fetch_facts(source: Mapping[str, Any], lang: str) -> list[dict[str, Any]]:
    """Return the raw rows of a premise language from a configured source (mini, hub, jsonl)."""
    if source["kind"] == "mini":
        return read_jsonl(MINI / "mlama" / f"{lang}.jsonl")
    if source["kind"] == "jsonl":
        path = user_path(source["path"], {"lang": lang})
        if not path.is_file():
            raise FileNotFoundError(f"lss.source.path: {path} does not exist ({lang}).")
        return read_jsonl(path)
    from datasets import load_dataset

    name = source["config"].format(lang=lang)
    rows = load_dataset(source["dataset"], name, split=source["split"], revision=source["revision"])
    return [dict(row) for row in rows]


def read_facts(rows: Sequence[Mapping[str, Any]], lang: str) -> list[dict[str, Any]]:
    """Return prepared facts; a row that cannot be used is named by its number and field."""
    facts = []
    for number, row in enumerate(rows):
        where = f"facts in {lang}, row {number + 1}"
        for field in ("template", f"sub_{lang}", f"obj_{lang}", "predicate_id"):
            if not str(row.get(field) or "").strip():
                raise ValueError(f"{where}: no {field!r}; fields: {', '.join(row)}.")
        template = row["template"]
        for mark in (SUBJECT, OBJECT):
            if template.count(mark) != 1:
                raise ValueError(f"{where}: template {template!r} does not hold {mark} once.")
        objects = {
            field.removeprefix("obj_"): str(value).strip()
            for field, value in sorted(row.items())
            if field.startswith("obj_") and str(value or "").strip()
        }
        fact = {"fact": str(row.get("id", f"{number:05d}")), "predicate": row["predicate_id"]}
        fact |= {"template": template, "subject": row[f"sub_{lang}"].strip(), "objects": objects}
        facts.append(fact)
    names = [fact["fact"] for fact in facts]
    if len(set(names)) < len(names):
        again = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"facts in {lang}: id {again!r} stands in more than one row.")
    return facts


def prepare_facts(
    source: Mapping[str, Any], lang: str, path: str | os.PathLike, limit: int | None = None
) -> None:
    """Write the facts of a premise language as JSONL; `limit` keeps the first."""
    facts = read_facts(fetch_facts(source, lang)[:limit], lang)
    if not facts:
        raise ValueError(f"facts in {lang}: no rows")
    write_jsonl(path, facts)
    log.info("%s: %d facts", lang, len(facts))
