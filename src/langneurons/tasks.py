"""Tasks as data: a YAML file names fields, prompts per language and metrics.

Two kinds, over the primitives of `langneurons.scoring`: multiple_choice (the choice with the
highest log-likelihood of `delimiter + choice` given the context) and generation (greedy, up to a
stop string). A third, classification, is scored by a head that was trained with an adapter.
Templates are Python format strings over the fields of a row and the words of the language;
`{field:unstopped}` drops the last character, `{field:lowered}` lowers the first letter.
"""

import logging
import os
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from langneurons.errors import ConfigError, unknown
from langneurons.io import read_jsonl, write_jsonl

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
MINI = Path(__file__).parent / "mini"
CHOICE_METRICS = ("accuracy",)
ANSWER_METRICS = ("exact_match", "f1", "token_id_exact_match", "token_id_f1")


class HubData(BaseModel):
    """Where the hub keeps the items."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    config: str = "{lang}"
    split: str = "test"
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")


class Task(BaseModel):
    """A benchmark; see the module's description for templates."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: Literal["multiple_choice", "generation", "classification"]
    version: int = 1
    source: str = Field("", description="Who made the data and the prompts.")
    hub: HubData | None = None
    fields: tuple[str, ...] = Field(min_length=1, description="Fields that each row must hold.")
    context: str = Field("", description="Template of the prompt.")
    delimiter: str = " "
    choices: tuple[str, ...] = Field((), description="Templates of the choices.")
    classes: tuple[str, ...] = Field((), description="Names of the classes of a trained head.")
    gold: str = Field(description="Field: index of the choice, or answers with a list `text`.")
    identifier: str | None = None
    words: dict[str, dict[str, str]] = Field(description="Words of templates, by language.")
    lookup: dict[str, str] = Field(
        default_factory=dict, description="Word name -> field whose value is that word's key."
    )
    metrics: tuple[str, ...] = Field(min_length=1)
    max_new_tokens: int = 32
    stop: tuple[str, ...] = ("\n",)

    @model_validator(mode="after")
    def _consistent(self) -> "Task":
        legal = ANSWER_METRICS if self.kind == "generation" else CHOICE_METRICS
        for metric in self.metrics:
            if metric not in legal:
                raise ValueError(f"metric {metric!r} of a {self.kind} task is not one of {legal}")
        if (self.kind == "multiple_choice") != (len(self.choices) > 1):
            raise ValueError("a multiple_choice task, and only one, lists two or more choices")
        if (self.kind == "classification") != (len(self.classes) > 1):
            raise ValueError("a classification task, and only one, lists two or more classes")
        if not self.words:
            raise ValueError("words: name at least one language")
        return self

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that have a prompt."""
        return tuple(self.words)


@dataclass(frozen=True)
class Example:
    """One item, ready to score: `choices` or reference answers `golds`."""

    item: str
    context: str
    choices: tuple[str, ...]
    label: int | None
    golds: tuple[str, ...]


class _Template(string.Formatter):
    """Format strings with the specs `unstopped` and `lowered`."""

    def format_field(self, value: Any, spec: str) -> str:
        """Apply a spec to a field."""
        text = str(value)
        if spec == "unstopped":
            return text.strip()[:-1]
        if spec == "lowered":
            return text[:1].lower() + text[1:]
        return super().format_field(text, spec)


def load_task(path: str | os.PathLike) -> Task:
    """Read a task; mistakes name the file and the key."""
    from langneurons.config import parse_yaml

    raw = parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    try:
        return Task.model_validate(raw)
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, item['loc'])) or 'task'}: {item['msg']}"
            for item in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from None


def check_language(task: Task, lang: str) -> None:
    """Refuse a language for which the task has no prompt."""
    if lang not in task.words:
        raise unknown(f"task {task.name}: languages", lang, "language of this task", task.words)


def build(rows: Sequence[Mapping[str, Any]], task: Task, lang: str) -> list[Example]:
    """Turn rows into examples with the prompt of a language."""
    check_language(task, lang)
    template, examples = _Template(), []
    for number, row in enumerate(rows):
        missing = [field for field in task.fields if field not in row]
        if missing:
            raise ValueError(
                f"task {task.name}, {lang}, row {number + 1}: no field {missing[0]!r};"
                f" fields: {', '.join(row)}."
            )
        words = task.words[lang]
        values = dict(row) | words
        for name, field in task.lookup.items():
            if row[field] not in words:
                raise unknown(
                    f"task {task.name}, {lang}, row {number + 1}, {field}",
                    row[field],
                    "word",
                    words,
                )
            values[name] = words[row[field]]
        choices = tuple(template.vformat(choice, (), values) for choice in task.choices)
        gold = row[task.gold]
        n_labels = len(task.choices or task.classes)
        golds = () if n_labels else tuple(gold["text"])
        label = int(gold) if n_labels else None
        if n_labels and not 0 <= label < n_labels:
            raise ValueError(f"task {task.name}, {lang}, row {number + 1}: label {label}")
        item = str(row[task.identifier]) if task.identifier in row else f"{number:05d}"
        context = template.vformat(task.context, (), values)
        examples.append(Example(item, context, choices, label, golds))
    return examples


def score_task(
    model,
    tokenizer,
    task: Task,
    lang: str,
    rows: Sequence[Mapping[str, Any]],
    batch_tokens: int,
    on_forward: Callable | None = None,
    progress=None,
) -> "pd.DataFrame":
    """Return item, prediction, gold and one column per metric (0..1), a row per item."""
    import pandas as pd

    examples = build(rows, task, lang)
    score = _score_choices if task.choices else _score_answers
    records = score(model, tokenizer, task, lang, examples, batch_tokens, on_forward, progress)
    frame = pd.DataFrame(records)
    if frame["item"].duplicated().any():
        frame["item"] = [f"{i:05d}" for i in range(len(frame))]
    return frame


def _score_choices(model, tokenizer, task, lang, examples, batch_tokens, on_forward, progress):
    from langneurons.scoring import loglikelihood

    requests = [
        (example.context, task.delimiter + choice)
        for example in examples
        for choice in example.choices
    ]
    found = loglikelihood(model, tokenizer, requests, batch_tokens, on_forward, progress)
    n_choices, records = len(task.choices), []
    for number, example in enumerate(examples):
        values = [value for value, _ in found[number * n_choices : (number + 1) * n_choices]]
        best = max(range(n_choices), key=lambda i: values[i])
        records.append(
            {
                "item": example.item,
                "prediction": str(best),
                "gold": str(example.label),
                "accuracy": float(best == example.label),
            }
        )
    return records


def _score_answers(model, tokenizer, task, lang, examples, batch_tokens, on_forward, progress):
    from langneurons import metrics
    from langneurons.scoring import generate

    prompts = [example.context for example in examples]
    texts = generate(
        model,
        tokenizer,
        prompts,
        task.max_new_tokens,
        task.stop,
        batch_tokens,
        on_forward=on_forward,
        progress=progress,
    )
    records = []
    for example, text in zip(examples, texts, strict=True):
        answer = text.strip()
        ids = metrics.token_id_scores(
            answer, example.golds, lambda t: tokenizer(t, add_special_tokens=False)["input_ids"]
        )
        values = {
            "exact_match": metrics.answer_exact_match(answer, example.golds, lang),
            "f1": metrics.answer_f1(answer, example.golds, lang),
            "token_id_exact_match": ids[0],
            "token_id_f1": ids[1],
        }
        chosen = {metric: values[metric] for metric in task.metrics}
        record = {"item": example.item, "prediction": answer, "gold": example.golds[0]}
        records.append(record | chosen)
    return records


def fetch_rows(task: Task, source: Mapping[str, Any], lang: str) -> list[dict[str, Any]]:
    """Return the rows of a language from a configured source (mini, hub, jsonl, folder)."""
    kind = source["kind"]
    if kind == "mini":
        return read_jsonl(MINI / (source.get("name") or task.name) / f"{lang}.jsonl")
    if kind == "jsonl":
        path = source["path"].format(lang=lang)
        if not Path(path).is_file():
            raise FileNotFoundError(f"tasks.{task.name}.source.path: {path} does not exist.")
        return read_jsonl(path)
    if kind == "folder":
        from datasets import load_from_disk

        return [dict(row) for row in load_from_disk(source["path"].format(lang=lang))]
    from datasets import load_dataset

    if task.hub is None:
        raise ConfigError(f"task {task.name}: its definition names no hub data set.")
    split = source.get("split") or task.hub.split
    if source.get("dataset"):
        where, name, revision = source["dataset"], source.get("config"), source["revision"]
    else:
        where, name, revision = task.hub.dataset, task.hub.config, task.hub.revision
        name = source.get("config") or name
    name = name and name.format(lang=lang)
    rows = load_dataset(where, name, split=split, revision=revision)
    return [dict(row) for row in rows]


def prepare_task(
    task: Task,
    source: Mapping[str, Any],
    lang: str,
    path: str | os.PathLike,
    limit: int | None = None,
    share: Sequence[float] = (0.0, 1.0),
) -> None:
    """Write the rows of a task in a language as JSONL, after checking that they can be scored.

    `share` keeps the rows between two fractions of their number, `limit` the first of these.
    """
    rows = fetch_rows(task, source, lang)
    first, last = (round(fraction * len(rows)) for fraction in share)
    rows = rows[first:last][:limit]
    if not rows:
        raise ValueError(f"task {task.name}, {lang}: no rows")
    build(rows, task, lang)
    write_jsonl(path, rows)
    log.info("%s %s: %d items", task.name, lang, len(rows))
