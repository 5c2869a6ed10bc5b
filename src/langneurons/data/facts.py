"""Cloze facts in the fields of mLAMA (Kassner et al. 2021), one file per premise language.

A row holds `template` (a sentence with [X] for the subject and [Y] for the object), `sub_<lang>`
of the template's language, `obj_<lang>` of every language that is compared, and `predicate_id`.
Files of different languages hold the same facts in the same order; where rows carry an `id`, it
is the same in every language. Prepared rows: fact, predicate, template, subject, objects by
language.
"""

import itertools
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from langneurons.base.errors import InputError
from langneurons.base.io import write_json, write_jsonl
from langneurons.data import sources, typed
from langneurons.data.mini_data import FACTS, mini_file
from langneurons.data.rows import Rows, place_of

log = logging.getLogger(__name__)
SUBJECT, OBJECT = "[X]", "[Y]"


def fetch_facts(source: Mapping[str, Any], lang: str) -> Rows:
    """Return the raw rows of a premise language from a configured source (mini, hub, jsonl)."""
    mini = mini_file(FACTS, lang)
    return sources.read(source, "lss.source", lang, mini=mini)


def read_facts(rows: Iterable[Mapping[str, Any]], lang: str) -> list[dict[str, Any]]:
    """Return prepared facts; a row that cannot be used is named by its place and field."""
    facts, unique = [], typed.Unique()
    for number, row in enumerate(rows):
        own = place_of(row, f"row {number + 1}")
        where = f"facts in {lang}, {own}"
        found = {}
        for field in ("template", f"sub_{lang}", f"obj_{lang}"):
            value = typed.need(row, field, where)
            found[field] = typed.required(value, where, field, "text that is not blank")
        template = found["template"]
        for mark in (SUBJECT, OBJECT):
            if template.count(mark) != 1:
                raise InputError(f"{where}: template {template!r} does not hold {mark} once.")
        objects = {}
        for field in sorted(field for field in row if str(field).startswith("obj_")):
            value = typed.optional_text(row[field], where, field)
            if value is not None and not typed.blank(value):
                objects[field.removeprefix("obj_")] = value.strip()
        predicate = typed.identifier(typed.need(row, "predicate_id", where), where, "predicate_id")
        name = f"{number:05d}"
        if "id" in row:
            name = typed.identifier(row["id"], where, "id")
            unique.add(name, own)
        fact = {
            "fact": name,
            "predicate": predicate,
            "template": typed.text(row["template"], where, "template"),
        }
        facts.append(fact | {"subject": found[f"sub_{lang}"], "objects": objects})
    return facts


def prepare_facts(
    source: Mapping[str, Any],
    lang: str,
    path: str | os.PathLike,
    limit: int | None = None,
    about: str | os.PathLike | None = None,
) -> None:
    """Write the facts of a premise language as JSONL; `limit` keeps the first.

    about: a JSON file for where the rows come from and how many they are.
    """
    rows = fetch_facts(source, lang)
    facts = read_facts(itertools.islice(rows, limit), lang)
    if not facts:
        raise InputError(f"facts in {lang}: no rows.")
    write_jsonl(path, facts)
    if about is not None:
        write_json(about, {"source": rows.origin, "rows": len(facts)})
    log.info("%s: %d facts", lang, len(facts))
