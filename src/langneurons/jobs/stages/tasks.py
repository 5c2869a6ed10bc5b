"""Tasks: items, and their records under every condition of a cell."""

import math
from typing import Any

from langneurons.config.config import Config
from langneurons.jobs.estimates import RECORD_BYTES, Sizes, definition
from langneurons.jobs.shared_parameters import chat_settings, model_settings, written
from langneurons.jobs.stage import Cell, Need, Stage, Work, by_model
from langneurons.jobs.stages.finetuning import trained
from langneurons.reporting.layouts import LAYOUTS
from langneurons.training.settings import FinetuneEntry


def _items(config: Config, variant: str, task: str, lang: str) -> dict[str, Any]:
    """Return where the items come from."""
    entry = config.tasks[task].under(config.under("items", variant))
    source = entry.source.model_dump(mode="json", exclude_none=True)
    if entry.source.kind == "mini":  # whatever definition a protocol puts in
        source.setdefault("name", task)
    return {"source": source, "limit": entry.limit, "lang": lang, "rows": list(entry.rows)}


def _conditions(
    config: Config, model: str, variant: str, adapter: str, task: str, lang: str
) -> dict[str, Any]:
    """Return every condition of a cell."""
    protocol = config.under("evaluation", variant)
    one = config.adapters(model).get(adapter)
    conditions = config.task_conditions(model, task, lang, one)
    names = sorted({name for _, _, name, _ in conditions})
    chat = chat_settings(config, model, config.tasks[task].chat)
    return (
        {
            "conditions": sorted(list(condition) for condition in conditions),
            "interventions": {name: written(config, name, protocol) for name in names},
            "model": model_settings(config, model),
        }
        | chat
        | ({"training": _head(trained(config, one, protocol))} if one else {})
    )


def _head(entry: FinetuneEntry) -> dict[str, Any]:
    """Return how the head of a classifier reads its input."""
    training = entry.training
    return training.model_dump(mode="json", include={"pooling", "max_length"})


def _fetched(config: Config) -> list[Cell]:
    return [
        {"variant": variant, "task": task, "lang": lang}
        for variant in config.variants("items")
        for task, entry in config.tasks.items()
        for lang in entry.languages
    ]


def _evaluations(config: Config) -> list[Cell]:
    return [
        cell | dict(zip(("adapter", "task", "lang"), one, strict=True))
        for cell in by_model(config, "evaluation")
        for one in config.evaluations(cell["model"])
    ]


def _work(sizes: Sizes, cell: Cell) -> Work:
    config, task, lang = sizes.config, cell["task"], cell["lang"]
    entry = config.tasks[task].under(config.under("evaluation", cell["variant"]))
    content = definition(task, entry)
    one = config.adapters(cell["model"]).get(cell["adapter"])
    conditions = 1 + len(config.task_conditions(cell["model"], task, lang, one))
    rows = sizes.rows(content, entry, entry.limit)
    width = sizes.item_tokens(content["name"])
    choice = content["kind"] == "multiple_choice"
    read = conditions * rows * width * (len(content["choices"]) if choice else 1)
    seconds = sizes.load + sizes.seconds(read, 2, "evaluation")
    if content["kind"] == "generation":
        batch = max(1, config.runtime.batch_tokens // width)
        new = content.get("max_new_tokens", 32)
        seconds += conditions * math.ceil(rows / batch) * new * sizes.decode
    return Work(read, seconds, conditions * rows * RECORD_BYTES)


PREPARE = Stage(
    rule="prepare_task",
    order=1,
    output="resources/tasks/{variant}/{task}/{lang}.jsonl",
    cells=_fetched,
    parameters=_items,
)
EVALUATE = Stage(
    rule="evaluate_task",
    order=80,
    output=LAYOUTS["evaluation"],
    cells=_evaluations,
    parameters=_conditions,
    loads_model=True,
    work=_work,
    need=lambda sizes: Need(
        sizes.on_each(sizes.held + sizes.kept, sizes.scores + sizes.states), sizes.host + 4
    ),
)
