"""Rows of a task as they are fetched: from a configured source, checked, with the fields in use.

Class labels of `datasets` are numbers with names. In templates and lookups a class is its name. As
`gold` it is read by name where the names are the task's labels, choices or classes in another
order, or where the task has `labels` or reference answers; otherwise it is the index of a choice.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import write_json, write_jsonl
from langneurons.data import sources, typed
from langneurons.data.mini_data import mini_file
from langneurons.data.rows import Row, Rows, place_of
from langneurons.evaluation.definition import Task, check_language
from langneurons.evaluation.examples import Template, build

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

NAMED = 5  # items that a log names


def fetch_rows(task: Task, source: Mapping[str, Any], lang: str) -> Rows:
    """Return the rows of a language from a configured source (mini, hub, jsonl, folder, text).

    Paths may hold `{lang}` and `{code}`, the data set's own code of the language.
    """
    check_language(task, lang)
    key = f"tasks.{task.name}.source"
    fields, needed = task.reads, {*task.fields, task.gold}
    if source["kind"] == "mini":
        name = source.get("name") or task.name
        rows = sources.read(source, key, lang, mini=mini_file(name, lang))
        if name != "flores":
            return rows
        pairs = (
            Row({"sentence_src": row["english"], "sentence_tgt": row["text"]}, row.place)
            for row in rows
        )
        return Rows(pairs, rows.origin)
    code = task.code(lang)
    if source["kind"] == "hub":
        source, code = _of_hub(task, source, lang)
    rows = sources.read(source, key, lang, code, fields=fields, needed=needed)
    return Rows(_by_name(rows, task, lang), rows.origin)


def _by_name(rows: Iterable[Row], task: Task, lang: str) -> Iterator[Row]:
    """Yield rows in which classes that are read by name stand as such, as the module says."""
    told = False
    for row in rows:
        for field, names in row.names.items():
            number = typed.whole(row.get(field))
            if field not in task.reads or number is None or not 0 <= number < len(names):
                continue
            if field != task.gold:
                row[field] = names[number]
                continue
            known = _known(task, lang)
            order, how = _order(names, known), "index"
            if not (task.choices or task.classes):
                row[field], how = names[number], "name"
            elif order is not None and (task.labels or order != sorted(order)):
                # With `index` a number is an index, and a choice's text may be one as well.
                row[field] = order[number] if task.index else known[order[number]]
                how = "name"
            if not told:
                told = True
                log.info(
                    "task %s, %s: the classes of %r (%s) are read by %s%s",
                    task.name,
                    lang,
                    field,
                    ", ".join(names),
                    how,
                    f" as those of {', '.join(known)}" if known else "",
                )
        yield row


def _known(task: Task, lang: str) -> tuple[str, ...]:
    """Return what `gold` may name, where that is the same in every row; else nothing."""
    templates = task.labels or task.choices
    try:
        return tuple(Template("").vformat(one, (), task.words[lang]) for one in templates) or (
            task.classes
        )
    except (KeyError, ValueError):
        return ()


def _order(names: Sequence[str], known: Sequence[str]) -> list[int] | None:
    """Return the index of each name among what is known, or None where they are not the same."""
    named, there = ([word.strip().casefold() for word in words] for words in (names, known))
    if sorted(named) != sorted(there) or len(set(named)) < len(named):
        return None
    return [there.index(name) for name in named]


def _of_hub(task: Task, source: Mapping[str, Any], lang: str) -> tuple[dict[str, Any], str]:
    """Return where the hub keeps the rows, and its code of the language."""
    hub = task.hub
    if source.get("dataset"):
        place = {key: source.get(key) for key in ("dataset", "config", "revision")}
        split = source.get("split") or (hub.split if hub else "test")
        code = hub.codes.get(lang, task.code(lang)) if hub else task.code(lang)
        return place | {"kind": "hub", "split": split}, code
    if hub is None:
        raise ConfigError(
            f"task {task.name}: its definition names no data set of the hub (`hub`); name one as"
            " `source.dataset`."
        )
    place = {"kind": "hub", "dataset": hub.dataset, "revision": hub.revision}
    place |= {
        "config": source.get("config") or hub.config,
        "split": source.get("split") or hub.split,
    }
    if hub.columns and not source.get("config"):
        place["columns"] = {name: one.model_dump() for name, one in hub.columns.items()}
    return place, hub.codes.get(lang, task.code(lang))


def prepare_task(
    task: Task,
    source: Mapping[str, Any],
    lang: str,
    path: str | os.PathLike,
    limit: int | None = None,
    share: Sequence[float] = (0.0, 1.0),
    about: str | os.PathLike | None = None,
) -> None:
    """Write the rows of a task in a language as JSONL, after checking that they can be scored.

    `share` keeps the rows between two fractions of their number, `limit` the first of these.
    about: a JSON file for where the rows come from and how many they are.
    """
    found = fetch_rows(task, source, lang)
    rows = list(found)
    total = len(rows)
    first, last = (round(fraction * total) for fraction in share)
    rows = rows[first:last][:limit]
    if not rows:
        raise InputError(
            f"task {task.name}, {lang}: no rows ({total} in the source, rows {list(share)})."
        )
    examples, name = build(rows, task, lang), f"task {task.name}, {lang}"
    if task.identifier is not None:
        unique = typed.Unique(task.identifier)
        for example, row in zip(examples, rows, strict=True):
            if task.identifier in row:
                unique.add(example.item, f"{name}, {place_of(row, example.item)}")
    kept = [_kept(row, task, place_of(row, name)) for row in rows]
    write_jsonl(path, kept)
    equal = [one.item for one in examples if len(set(one.choices)) < len(one.choices)]
    if equal:
        log.warning(
            "%s: %d items have equal choices, of which the first always wins (%s)",
            name,
            len(equal),
            ", ".join(equal[:NAMED]) + (", ..." if len(equal) > NAMED else ""),
        )
    if about is not None:
        counts = {"rows": len(rows), "of": total, "equal_choices": len(equal)}
        write_json(about, {"source": found.origin} | counts)
    log.info("%s %s: %d items of %d", task.name, lang, len(rows), total)


def _kept(row: Mapping[str, Any], task: Task, place: str) -> dict[str, Any]:
    """Return the fields of a row that the task reads, as JSON can hold them."""
    return {key: typed.as_json(row[key], place, key) for key in row if key in task.reads}
