"""One task in one language, under every condition."""

from typing import Any

import pandas as pd

from langneurons.base.digests import digest, file_digest
from langneurons.base.io import read_jsonl
from langneurons.base.store import SideStore
from langneurons.evaluation.conditions import evaluate
from langneurons.evaluation.tasks import Task, load_task
from langneurons.jobs.common import STORE, load, plan, read_statistics, read_table


def _adapted(model, task: Task, adapter: str, training: dict[str, Any], who: dict[str, Any]):
    """Return the tuned model, and the settings of its head if it classifies."""
    from langneurons.training.load import load_tuned
    from langneurons.training.trainer import Head, add_head

    head = None
    if task.kind == "classification":
        add_head(model, len(task.classes))
        head = Head(training["pooling"], training["max_length"])
    return load_tuned(model, adapter, who), head


def evaluation_cell(
    cfg: dict[str, Any],
    code: list[str],
    wildcards: dict[str, str],
    manifest: str,
    definition: str,
    rows: str,
    neurons: list[str],
    statistics: list[str],
    batch_tokens: int,
    adapter: str | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of one task in one language, and their metadata.

    `adapter` is the weights file of what a fine-tuning left, which the model gets first.
    """
    model, tokenizer, who = load(cfg, manifest)
    own = read_statistics(statistics, who, tokenizer)
    task, lang = load_task(definition), wildcards["lang"]
    head, part = None, who
    if adapter is not None:
        model, head = _adapted(model, task, adapter, cfg["training"], who)
        part = who | {"adapter": file_digest(adapter)}
    tables = {tuple(path.removesuffix(".parquet").split("/")[-2:]): path for path in neurons}
    loaded = {key: read_table(path, who) for key, path in tables.items()}
    plans = {
        (langset, selection, name, target): plan(
            name,
            cfg["interventions"][name],
            target,
            loaded[langset, selection],
            own,
            lang,
        )
        for langset, selection, name, target in map(tuple, cfg["conditions"])
    }
    frame = evaluate(
        model,
        tokenizer,
        task,
        lang,
        read_jsonl(rows),
        plans,
        SideStore(STORE, "evaluation"),
        {"model": part, "code": digest(code)},
        batch_tokens,
        wildcards["adapter"],
        head,
    )
    names = {key: wildcards[key] for key in ("model", "task", "lang", "adapter")}
    return frame, names | {"metrics": list(task.metrics), "identity": who}
