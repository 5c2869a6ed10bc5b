"""Tables of what was read: where models and rows come from, at which commit, and how text is cut.

Each fetched file has a JSON file beside it that names its source; a packed corpus carries that of
its text. Languages of one source stand in one row, so that two commits of a data set are two rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.base.io import DamagedFile, damaged, read_header, read_json
from langneurons.base.languages import parts_of
from langneurons.reporting.labels import Labels
from langneurons.reporting.layouts import names_of
from langneurons.reporting.tables.write import write_table

KINDS = {
    "text": "text",
    "tasks": "task",
    "training": "training rows",
    "facts": "facts",
    "questions": "questions",
}


def source_table(manifests: Iterable[str], fetched: Iterable[str], labels: Labels) -> pd.DataFrame:
    """Return a row per model, and per part of the data and source: languages, commit, rows.

    manifests: resources/models/{model}/manifest.json; fetched: the JSON files beside what was
    fetched, resources/text/{lang}.json and the like.
    """
    records = [_model(path, labels) for path in manifests]
    found: dict[tuple, dict[str, Any]] = {}
    for path in fetched:
        kind, name, lang = _place(path, labels)
        about = read_json(path)
        for number, source in enumerate(about.get("sources") or [about["source"]]):
            part = kind if number == 0 else "held-out text"
            where, revision, chosen = _source(source)
            key = (part, name, where, revision, chosen)
            row = found.setdefault(key, {"languages": [], "rows": 0, "left_out": 0})
            row["languages"].append(lang)
            several = len(about.get("sources", ())) > 1
            if number == 0:
                row["rows"] += about.get("rows", about.get("documents", 0))
                row["rows"] -= about["heldout"] if several else 0
                row["left_out"] += sum(about.get("dropped", {}).values())
                row["left_out"] += about.get("of", about.get("rows", 0)) - about.get("rows", 0)
            else:
                row["rows"] += about["heldout"]
    for (part, name, where, revision, chosen), row in found.items():
        languages = ", ".join(dict.fromkeys(filter(None, row.pop("languages"))))
        records.append(
            {"what": part, "name": name, "languages": languages, "source": where}
            | {"revision": revision, "part": chosen}
            | row
        )
    columns = ["what", "name", "languages", "source", "revision", "part", "rows", "left_out"]
    return pd.DataFrame(records, columns=columns).astype({"rows": "Int64", "left_out": "Int64"})


def _model(path: str, labels: Labels) -> dict[str, Any]:
    manifest, name = read_json(path), names_of(path, "models")["model"]
    source = manifest["source"]
    where = source.get("repo") or source.get("package") or Path(source["path"]).name
    return {
        "what": "model",
        "name": labels.models[name],
        "source": where,
        "revision": _revision(manifest["revision"], source.get("revision")),
    }


def _place(path: str, labels: Labels) -> tuple[str, str, str]:
    """Return what a fetched file is, its name in the configuration, and its language."""
    kind = next(one for one in KINDS if f"resources/{one}/" in Path(path).as_posix())
    names = names_of(path, kind)
    name = names.get("finetuning") or names.get("analysis") or ""
    if kind == "text":
        lang, name = parts_of(names["lang"])
        return KINDS[kind], name, lang
    if "task" in names:
        name = labels.tasks[names["task"]]
    return KINDS[kind], name, names.get("lang", "")


def _revision(commit: str, asked: str | None) -> str:
    return commit + (" (newest when fetched)" if asked == "newest" else "")


def _source(source: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the name of a source, its commit or checksum, and which part of it was read."""
    if source["kind"] == "hub":
        configs = source["config"]
        configs = configs if isinstance(configs, list) else [configs]
        several = "" if len(configs) == 1 and configs[0] is None else "by language, "
        return (
            source["dataset"],
            _revision(source["commit"], source.get("asked")),
            f"{several}{source['split']}",
        )
    if source["kind"] == "folder":
        return f"folder {Path(source['path']).name}", "", ""
    names = ", ".join(Path(path).name for path in source["files"])
    if source["kind"] == "mini":
        return "langneurons (mini)", "", ""
    checksums = ", ".join(source["files"].values())
    return names, checksums, ""


def corpus_table(corpora: Sequence[str], labels: Labels) -> pd.DataFrame:
    """Return, per model and language, the tokens of both parts and where BOS stands.

    corpora: results/{model}/corpora/{lang}.safetensors.
    """
    records = []
    for path in corpora:
        header, names = read_header(path), names_of(path, "corpora")
        model, lang = names["model"], names["lang"]
        if header.get("lang") != lang:
            raise DamagedFile(damaged(path, f"lang is {header.get('lang')!r}, expected {lang!r}"))
        variant = header.get("variant") or header["text"].get("variant")
        bos, begin = header["bos"], " ".join(header["bos_words"])
        if bos != header["bos_asked"]:
            bos = f"{bos} (the tokenizer has none)"
        elif begin:
            bos = f"{bos} ({begin})"
        records.append(
            {
                "model": labels.models[model],
                "language": labels.language_names.get(lang, lang),
                "tokens": header["tokens"]["identification"],
                "heldout_tokens": header["tokens"]["heldout"],
                "bos": bos,
                "text": header["corpus_hash"],
                "variant": _changed(variant) if variant else "",
            }
        )
    table = pd.DataFrame(records)
    return table if table["variant"].any() else table.drop(columns="variant")


def _changed(variant: Mapping[str, Any]) -> str:
    """Return what was changed of the text of a language."""
    counts = variant["counts"]
    words = {
        "romanised": "{changed:,} letters romanised, {stayed:,} stayed",
        "shuffled_words": "{changed:,} words moved, {stayed:,} stayed",
        "random_tokens": "{changed:,} tokens drawn",
        "tokens": "exactly {kept:,} tokens",
    }
    return words[variant["kind"]].format(**counts)


def tabulate_sources(
    labels: Labels, folder: Path, manifests: list[str], corpora: list[str], fetched: list[str]
) -> None:
    """Write the tables of what was read: packed corpora, and the sources of models and data."""
    write_table(
        corpus_table(corpora, labels),
        folder / "corpora",
        "Text that each model has read",
        "A model whose tokenizer has no BOS token reads none.",
    )
    write_table(
        source_table(manifests, fetched, labels),
        folder / "sources",
        "Where models and data come from",
        "Commits of the hub, or SHA-256 of files; left_out: blank, doubled, or beyond `rows` and"
        " `limit`.",
    )
