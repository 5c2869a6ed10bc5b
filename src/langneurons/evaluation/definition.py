"""Tasks as data: a YAML file names fields, prompts per language and metrics.

Two kinds, over the primitives of `langneurons.scoring`: multiple_choice (the choice with
the highest log-likelihood of `delimiter + choice` given the context; with `continuation`, of
`delimiter + continuation` given context and choice) and generation (greedy, up to a stop string;
compared with reference answers or translations, or read as one of the choices by `parse`). A third,
classification, is scored by a head that was trained with an adapter.
"""

import logging
import os
import re
import string
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from langneurons.base.errors import ConfigError, nearest, unknown
from langneurons.base.messages import defined
from langneurons.base.settings import COMMIT, DATASET
from langneurons.base.yaml import read_yaml
from langneurons.evaluation.metrics import METRICS, names_of

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

Tokenizer = Literal["13a", "intl", "zh", "char", "none"]  # of sacreBLEU, without a download


class Column(BaseModel):
    """A field that comes from a configuration of its own, aligned by row."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    config: str
    field: str


class HubData(BaseModel):
    """Where the hub keeps the items; `{lang}` and `{code}` are filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str = Field(pattern=DATASET)
    config: str = "{lang}"
    split: str = "test"
    revision: str = Field(
        pattern=COMMIT,
        description="Its commit; or newest: the one that is newest when rows are first fetched.",
    )
    codes: dict[str, str] = Field(
        default_factory=dict, description="The hub's code of a language, where not the task's."
    )
    columns: dict[str, Column] = Field(
        default_factory=dict,
        description="Field of a row -> the configuration and field of the data set that hold it.",
    )


class Reading(BaseModel):
    """How a generated answer is read: a pattern, and the choice that it stands for."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    pattern: str = Field(description="Regular expression, searched for in the answer.")
    choice: str | None = Field(None, description="The choice; left out: the pattern's first group.")

    @model_validator(mode="after")
    def _compiles(self) -> "Reading":
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r}: {error}") from None
        if self.choice is None and not groups:
            raise ValueError(f"pattern {self.pattern!r} has no group, so it needs a `choice`")
        return self


class Task(BaseModel):
    """A benchmark; see `langneurons.evaluation.examples` for templates."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: Literal["multiple_choice", "generation", "classification"]
    version: int = 1
    source: str = Field("", description="Who made the data and the prompts.")
    hub: HubData | None = None
    fields: tuple[str, ...] = Field(min_length=1, description="Fields that each row must hold.")
    context: str = Field("", description="Template of the prompt.")
    delimiter: str = " "
    joint: bool = Field(
        True, description="Tokenise context and continuation together; else each by itself."
    )
    choices: tuple[str, ...] = Field((), description="Templates of the choices.")
    continuation: str | None = Field(
        None, description="Template of what follows a choice and is scored in the choice's stead."
    )
    classes: tuple[str, ...] = Field((), description="Names of the classes of a trained head.")
    gold: str = Field(
        description="Field: text of the choice or its index as a number, or the reference, a list"
        " of them, or answers with a list `text`."
    )
    index: bool = Field(
        False,
        description="`gold` holds the index of the choice, from 0, whatever the choices' texts.",
    )
    labels: tuple[str, ...] = Field(
        (), description="Templates of what `gold` holds for each choice, where not its index."
    )
    parse: tuple[Reading, ...] = Field(
        (), description="How a generated answer is read as a choice; the first that matches."
    )
    identifier: str | None = None
    codes: dict[str, str] = Field(
        default_factory=dict, description="The data set's code of a language, where it differs."
    )
    words: dict[str, dict[str, str]] = Field(description="Words of templates, by language.")
    lookup: dict[str, str] = Field(
        default_factory=dict, description="Word name -> field whose value is that word's key."
    )
    metrics: tuple[str, ...] = Field(min_length=1)
    max_new_tokens: int = Field(32, ge=1, le=1_048_576)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ("\n",)
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | Literal["model"] = Field(
        1.0, description="Of generation; 1: none; `model`: what the model's own files ask for."
    )
    tokenizers: dict[str, Tokenizer] = Field(
        default_factory=dict,
        description="sacreBLEU's tokenizer for `bleu`, by language; left out: 13a.",
    )
    batch: int | None = Field(
        None,
        ge=1,
        description="Items, in their order, whose 13a BLEU is taken together and then averaged, for"
        " the metric `mean_bleu`.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Task":
        legal = names_of(self.kind)
        for metric in self.metrics:
            if metric not in legal:
                raise ValueError(
                    f"metric {metric!r} of a {self.kind} task is not one of"
                    f" {', '.join(legal)}.{nearest(metric, legal)}"
                )
        if (self.kind == "multiple_choice" or bool(self.parse)) != (len(self.choices) > 1):
            raise ValueError(
                "a multiple_choice task, and a generation task with `parse`, list two or more"
                " choices; no other does"
            )
        grouped = [name for name in self.metrics if METRICS[name].groups is not None]
        if bool(grouped) != (self.batch is not None):
            raise ValueError("batch: the size of the groups of metric mean_bleu, and of no other")
        if (self.kind == "classification") != (len(self.classes) > 1):
            raise ValueError("a classification task, and only one, lists two or more classes")
        if self.parse and (self.kind != "generation" or self.metrics != ("accuracy",)):
            raise ValueError("parse: belongs to a generation task with metrics: [accuracy]")
        if self.kind == "generation" and not self.parse and "accuracy" in self.metrics:
            raise ValueError("metric 'accuracy' of a generation task needs `parse` and `choices`")
        for one in self.parse:
            if one.choice is not None and one.choice not in self.choices:
                hint = nearest(one.choice, self.choices)
                raise ValueError(f"parse: {one.choice!r} is none of the choices.{hint}")
        if self.continuation is not None and self.kind != "multiple_choice":
            raise ValueError("continuation: only a multiple_choice task has one")
        if self.labels and len(self.labels) != len(self.choices or self.classes):
            raise ValueError("labels: name one per choice")
        if self.index and (self.labels or not (self.choices or self.classes)):
            raise ValueError("index: belongs to a task with choices or classes, without labels")
        if not self.words:
            raise ValueError("words: name at least one language")
        self._check_names()
        for key in ("codes", "tokenizers"):
            for lang in getattr(self, key):
                if lang not in self.words:
                    hint = nearest(lang, self.words)
                    raise ValueError(f"{key}: {lang!r} has no words, so no prompt.{hint}")
        return self

    def _check_names(self) -> None:
        """Refuse names that would stand for two things in a template."""
        read = {self.gold, self.identifier, *self.fields, *self.lookup.values()} - {None}
        for name in self.lookup:
            if name in read:
                raise ValueError(
                    f"lookup: {name!r} is the name of a field too. Rename it here and in the"
                    " templates."
                )
        named = self.template_names
        for lang, words in self.words.items():
            for word in words:
                where = f"words.{lang}: {word!r}"
                if word in read:
                    raise ValueError(
                        f"{where} is the name of a field too. Rename the word here and in the"
                        " templates."
                    )
                if word in self.lookup:
                    raise ValueError(f"{where} is the name of a lookup too. Rename one.")
                lacking = [other for other, own in self.words.items() if word not in own]
                if word in named and lacking:
                    raise ValueError(
                        f"{where} is used by a template, and words.{lacking[0]} lacks it. Give it"
                        " in every language."
                    )

    def code(self, lang: str) -> str:
        """Return the data set's own code of a language."""
        return self.codes.get(lang, lang)

    def prompt_texts(self, lang: str) -> tuple[str, ...]:
        """Return every text of the definition that enters a prompt of a language."""
        return (*self.templates, self.delimiter, *self.words[lang].values())

    @property
    def templates(self) -> tuple[str, ...]:
        """Every template over the fields of a row."""
        more = () if self.continuation is None else (self.continuation,)
        return (self.context, *self.choices, *self.labels, *more)

    @property
    def reads(self) -> frozenset[str]:
        """The fields of a row that the task reads; all others are left out when rows are kept."""
        named = {self.gold, *self.fields, *self.lookup.values()}
        own = set() if self.identifier is None else {self.identifier}
        return frozenset(named | own) | self.template_names

    @property
    def template_names(self) -> frozenset[str]:
        """The fields and words that templates name."""
        found = set()
        for template in self.templates:
            for _, name, _, _ in string.Formatter().parse(template):
                if name is not None:
                    found.add(re.split(r"[.\[]", name, maxsplit=1)[0])
        return frozenset(found)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that have a prompt."""
        return tuple(self.words)


def load_task(path: str | os.PathLike, place: str | None = None) -> Task:
    """Return the task that a file defines; `place` is the key that names the file.

    Raises:
        ConfigError: the file is not the definition of a task; the error names each wrong key.
    """
    path = Path(path)
    content = read_yaml(path)
    shown = str(path) if place is None else f"{place}: {path}"
    needed = [name for name, one in Task.model_fields.items() if one.is_required()]
    if len(set(needed) & set(content)) < 2:
        what = "a configuration, " if {"models", "selections"} <= set(content) else ""
        raise ConfigError(
            f"{shown}: is {what}not the definition of a task. A definition has the keys"
            f" {', '.join(needed)} (docs/adding.md shows one); this file has:"
            f" {', '.join(map(str, content))}."
        )
    return defined(Task, content, shown)


def check_language(task: Task, lang: str) -> None:
    """Refuse a language for which the task has no prompt."""
    if lang not in task.words:
        raise unknown(f"task {task.name}: languages", lang, "language of this task", task.words)
