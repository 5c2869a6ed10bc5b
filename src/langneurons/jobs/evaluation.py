"""One task in one language, under every condition."""

from typing import Any

import pandas as pd

from langneurons.base.digests import file_digest
from langneurons.base.io import read_jsonl
from langneurons.evaluation.classification import Head, add_head
from langneurons.evaluation.conditions import Manner, evaluate
from langneurons.evaluation.definition import Task, load_task
from langneurons.jobs.common import ModelJob, plan, read_table
from langneurons.models.chat import chat_of
from langneurons.models.language_model import LanguageModel
from langneurons.reporting.layouts import names_of


def _adapted(
    model: LanguageModel, task: Task, adapter: str, training: dict[str, Any]
) -> tuple[LanguageModel, Head | None]:
    """Return the tuned model, and the settings of its head if it classifies."""
    from langneurons.training.load import load_tuned

    head = None
    if task.kind == "classification":
        add_head(model, len(task.classes))
        head = Head(training["pooling"], training["max_length"])
    return load_tuned(model, adapter), head


def evaluation_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of one task in one language, and their metadata.

    The input `adapter`, if there is one, is the weights file of what a fine-tuning left, which the
    model gets first.
    """
    cfg, model = job.cfg, job.model()
    statistics = job.statistics(model)
    task, lang = load_task(job.inputs["definition"]), job.wildcards["lang"]
    head, tuned = None, {}
    if adapter := job.inputs.get("adapter"):
        model, head = _adapted(model, task, adapter, cfg["training"])
        tuned = {"adapter": file_digest(adapter)}
    tables = {
        (names["langset"], names["selection"]): read_table(path, model)
        for path in job.inputs.get("neurons", [])
        for names in [names_of(path, "neurons")]
    }
    plans = {
        (langset, selection, name, target): plan(
            name, cfg["interventions"][name], target, tables[langset, selection], statistics, lang
        )
        for langset, selection, name, target in map(tuple, cfg["conditions"])
    }
    run, rows = job.run(model, "evaluation", **tuned), read_jsonl(job.inputs["rows"])
    manner = Manner(job.wildcards["adapter"], head, chat_of(model, cfg.get("chat")))
    frame = evaluate(run, task, lang, rows, plans, manner)
    more = {"metrics": list(task.metrics), "identity": model.identity}
    return frame, job.names("model", "task", "lang", "adapter") | more
