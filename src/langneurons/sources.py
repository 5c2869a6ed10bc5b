"""Tables of what was read: where models and rows come from, at which commit, and how text is cut.

Each fetched file has a JSON file beside it that names its source; a packed corpus carries that of
its text. Languages of one source stand in one row, so that two commits of a data set are two rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.io import DamagedFile, damaged, read_header, read_json

SHOWN = 12  # digits of a commit or checksum
KINDS = {"tasks": "task", "training": "training rows", "facts": "facts", "questions": "questions"}


def source_table(
    manifests: Iterable[str], fetched: Iterable[str], show: Mapping[str, Any]
) -> pd.DataFrame:
    """Return a row per model, and per part of the data and source: languages, commit, rows.

    manifests: resources/models/{model}/manifest.json; fetched: the JSON files beside what was
    fetched, resources/text/{lang}.json and the like.
    """
    records = [_model(path, show) for path in manifests]
    found: dict[tuple, dict[str, Any]] = {}
    for path in fetched:
        kind, name, lang = _place(path, show)
        about = read_json(path)
        for number, source in enumerate(about.get("sources") or [about["source"]]):
            part = kind if number == 0 else "held-out text"
            where, revision, chosen = _source(source)
            key = (part, name, where, revision, chosen)
            row = found.setdefault(key, {"languages": [], "rows": 0, "left_out": 0})
            row["languages"].append(lang)
            if number == 0:
                row["rows"] += about.get("rows", about.get("documents", 0))
                row["left_out"] += sum(about.get("dropped", {}).values())
                row["left_out"] += about.get("of", about.get("rows", 0)) - about.get("rows", 0)
    for (part, name, where, revision, chosen), row in found.items():
        languages = ", ".join(dict.fromkeys(filter(None, row.pop("languages"))))
        records.append(
            {"what": part, "name": name, "languages": languages, "source": where}
            | {"revision": revision, "part": chosen}
            | row
        )
    columns = ["what", "name", "languages", "source", "revision", "part", "rows", "left_out"]
    return pd.DataFrame(records, columns=columns).astype({"rows": "Int64", "left_out": "Int64"})


def _model(path: str, show: Mapping[str, Any]) -> dict[str, Any]:
    manifest, name = read_json(path), Path(path).parent.name
    source = manifest["source"]
    where = source.get("repo") or source.get("package") or Path(source["path"]).name
    return {
        "what": "model",
        "name": show["models"][name],
        "source": where,
        "revision": _revision(manifest["revision"], source.get("revision")),
    }


def _place(path: str, show: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what a fetched file is, its name in the configuration, and its language."""
    parts = Path(path).with_suffix("").parts
    room = parts[parts.index("resources") + 1 :]
    if room[0] == "text":
        return "text", "", room[1]
    if room[0] == "training":
        return KINDS[room[0]], room[-1], ""
    name = room[-2] if room[0] in ("tasks", "questions") else ""
    return KINDS[room[0]], show["tasks"].get(name, name), room[-1]


def _revision(commit: str, asked: str | None) -> str:
    return commit[:SHOWN] + (" (newest when fetched)" if asked == "newest" else "")


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
    checksums = ", ".join(one[:SHOWN] for one in source["files"].values())
    return names, checksums, ""


def corpus_table(corpora: Sequence[str], show: Mapping[str, Any]) -> pd.DataFrame:
    """Return, per model and language, the tokens of both parts and where BOS stands.

    corpora: results/{model}/corpora/{lang}.safetensors.
    """
    records = []
    for path in corpora:
        header, model = read_header(path), Path(path).parts[-3]
        lang = Path(path).stem
        if header.get("lang") != lang:
            raise DamagedFile(damaged(path, f"lang is {header.get('lang')!r}, expected {lang!r}"))
        bos = header["bos"]
        records.append(
            {
                "model": show["models"][model],
                "language": show["language_names"].get(lang, lang),
                "tokens": header["tokens"]["identification"],
                "heldout_tokens": header["tokens"]["heldout"],
                "bos": bos if bos == header["bos_asked"] else f"{bos} (the tokenizer has none)",
                "text": header["corpus_hash"],
            }
        )
    return pd.DataFrame(records)
