"""Tasks as data: a YAML file names fields, prompts per language and metrics.

Two kinds, over the primitives of `langneurons.scoring`: multiple_choice (the choice with
the highest log-likelihood of `delimiter + choice` given the context; with `continuation`, of
`delimiter + continuation` given context and choice) and generation (greedy, up to a stop string;
compared with reference answers or translations, or read as one of the choices by `parse`). A third,
classification, is scored by a head that was trained with an adapter.

Templates are Python format strings over the fields of a row and the words of the language:
`{field:stripped}` drops space at both ends, `{field:unstopped}` also the last character,
`{field:lowered}` lowers the first letter, `{field:before _}` and `{field:after _}` are what stands
on either side of the first `_` (any text), the latter without space at its ends. `{field[0]}` is an
element of a list.

Class labels of `datasets` are numbers with names. In templates and lookups a class is its name. As
`gold` it is read by name where the names are the task's labels, choices or classes in another
order, or where the task has `labels` or reference answers; otherwise it is the index of a choice.
"""

import logging
import os
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from langneurons.base.errors import ConfigError, InputError, nearest, unknown
from langneurons.base.io import write_json, write_jsonl
from langneurons.base.messages import defined
from langneurons.base.settings import COMMIT, DATASET
from langneurons.base.yaml import read_yaml
from langneurons.data import sources, typed
from langneurons.data.mini_data import mini_file
from langneurons.data.rows import Row, Rows, place_of
from langneurons.evaluation.metrics import METRICS, names_of
from langneurons.evaluation.metrics.metric import Answer, Choice

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.interventions.plan import Under
    from langneurons.models.language_model import LanguageModel

log = logging.getLogger(__name__)
NAMED = 5  # items that a log names
TOKENIZERS = ("13a", "intl", "zh", "char", "none")  # those of sacreBLEU that need no download


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
    tokenizers: dict[str, Literal[TOKENIZERS]] = Field(
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

    def penalty(self, model) -> float:
        """Return the repetition penalty of generation with a model."""
        if self.repetition_penalty != "model":
            return self.repetition_penalty
        own = getattr(model.generation_config, "repetition_penalty", None)
        return 1.0 if own is None else float(own)

    @property
    def templates(self) -> tuple[str, ...]:
        """Every template over the fields of a row."""
        more = () if self.continuation is None else (self.continuation,)
        return (self.context, *self.choices, *self.labels, *more)

    @property
    def reads(self) -> frozenset[str]:
        """The fields of a row that the task reads; all others are left out when rows are kept."""
        named = {self.gold, self.identifier, *self.fields, *self.lookup.values()} - {None}
        return frozenset(named) | self.template_names

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


@dataclass(frozen=True)
class Example:
    """One item, ready to score: `choices` or reference answers `golds`."""

    item: str
    context: str
    choices: tuple[str, ...]
    label: int | None
    golds: tuple[str, ...]
    continuation: str | None = None

    def requests(self, delimiter: str) -> list[tuple[str, str]]:
        """Return (context, continuation) of each choice."""
        if self.continuation is None:
            return [(self.context, delimiter + choice) for choice in self.choices]
        return [(self.context + choice, delimiter + self.continuation) for choice in self.choices]


class _Template(string.Formatter):
    """Format strings with the specs that the module's description names."""

    def __init__(self, place: str):
        self._place, self._field = place, ""

    def get_field(self, field_name: str, args, kwargs):
        """Return a field, or what stands at an index of a list."""
        self._field = field_name
        name = re.split(r"[.\[]", field_name, maxsplit=1)[0]
        expected = f"what the template's {{{field_name}}} names"
        try:
            value = super().get_field(field_name, args, kwargs)
            if field_name != name:
                # An element of a text is a letter, of a list that is spelled out a bracket.
                above = field_name.rpartition("[" if field_name.endswith("]") else ".")[0]
                if isinstance(super().get_field(above, args, kwargs)[0], str):
                    raise typed.refuse(self._place, name, kwargs.get(name), expected)
            return value
        except (IndexError, TypeError, AttributeError) as error:
            raise typed.refuse(self._place, name, kwargs.get(name), expected) from error

    def format_field(self, value: Any, spec: str) -> str:
        """Apply a spec to a field."""
        text = typed.shown(value, self._place, self._field)
        if spec == "stripped":
            return text.strip()
        if spec == "unstopped":
            return text.strip()[:-1]
        if spec == "lowered":
            return text[:1].lower() + text[1:]
        side, _, mark = spec.partition(" ")
        if side in ("before", "after") and mark:
            first, found, last = text.partition(mark)
            if not found:
                raise ValueError(f"{text!r} does not hold {mark!r}")
            return first if side == "before" else last.strip()
        return super().format_field(text, spec)


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


def build(rows: Sequence[Mapping[str, Any]], task: Task, lang: str) -> list[Example]:
    """Turn rows into examples with the prompt of a language."""
    check_language(task, lang)
    name = f"task {task.name}, {lang}"
    return [
        _example(row, number, task, lang, f"{name}, {place_of(row, f'row {number + 1}')}")
        for number, row in enumerate(rows)
    ]


def _example(row: Mapping[str, Any], number: int, task: Task, lang: str, place: str) -> Example:
    for field in (*task.fields, task.gold):
        typed.need(row, field, place)
    words = task.words[lang]
    values = dict(row) | words
    for name, field in task.lookup.items():
        word = typed.text(row.get(field), place, field)
        if word not in words:
            raise unknown(f"{place}, {field}", word, "word", words)
        values[name] = words[word]

    def filled(template: str) -> str:
        try:
            return _Template(place).vformat(template, (), values)
        except KeyError as error:
            raise unknown(
                f"{place}, {template!r}", error.args[0], "field or word", values
            ) from None
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{place}, {template!r}: {error}") from None

    def scored(template: str) -> str:
        text = filled(template)
        if typed.blank(text):
            raise InputError(f"{place}: {template!r} is blank; a choice needs text to be scored.")
        return text

    choices = tuple(scored(choice) for choice in task.choices)
    gold = row[task.gold]
    label, golds = None, ()
    if task.choices or task.classes:
        texts = tuple(filled(text) for text in task.labels)
        known = texts or choices or task.classes
        label = typed.label(gold, known, place, task.gold, task.index, bool(texts))
    else:
        golds = typed.answers(gold, place, task.gold)
    item = f"{number:05d}"
    if task.identifier in row:
        item = typed.identifier(row[task.identifier], place, task.identifier)
    continuation = None if task.continuation is None else scored(task.continuation)
    return Example(item, filled(task.context), choices, label, golds, continuation)


def score_task(
    model: "LanguageModel",
    task: Task,
    lang: str,
    rows: Sequence[Mapping[str, Any]],
    batch_tokens: int,
    under: "Under" = None,
) -> "pd.DataFrame | list[pd.DataFrame]":
    """Return item, prediction, gold and one column per metric (0..1), a row per item.

    A metric of the whole corpus has its counts instead, in columns `metric:count`; sums of them
    over items give the score (`langneurons.evaluation.metrics`). Under a list of plans: by plan.
    """
    from langneurons.interventions.apply import each
    from langneurons.scoring.generation import Decoding, generate
    from langneurons.scoring.likelihood import loglikelihood

    examples = build(rows, task, lang)
    encoded = encode_examples(model, task, lang, examples)
    if task.kind == "multiple_choice":
        found = loglikelihood(model, encoded, batch_tokens, under)
        return each(under, lambda own: _framed(_choices(task, examples, encoded, own)), found)
    decoding = Decoding(task.max_new_tokens, task.stop, task.penalty(model.model))
    found = generate(model, encoded, decoding, batch_tokens, under)
    return each(
        under, lambda texts: _framed(_answers(model, task, lang, examples, encoded, texts)), found
    )


def longest_row(model: "LanguageModel", task: Task, lang: str, rows) -> int:
    """Return the number of tokens of the longest choice or prompt, and of what may follow it."""
    encoded = encode_examples(model, task, lang, build(rows, task, lang), quiet=True)
    if task.kind == "multiple_choice":
        return max(len(one.read) for one in encoded)
    return max(len(one.tokens) for one in encoded) + task.max_new_tokens


def encode_examples(
    model: "LanguageModel", task: Task, lang: str, examples: Sequence[Example], quiet: bool = False
) -> list:
    """Return the tokens of every choice of every example, or of every prompt.

    Control words are read as such where the task's templates hold them; in a row's fields they are
    text. What did not fit, and what was encoded by itself, is logged.
    """
    from langneurons.models.encoding import controls_of, report_apart, report_cuts
    from langneurons.scoring.generation import encode_prompts
    from langneurons.scoring.likelihood import encode_requests

    controls = controls_of(model.tokenizer, task.prompt_texts(lang))
    if task.kind == "multiple_choice":
        requests = [pair for example in examples for pair in example.requests(task.delimiter)]
        try:
            names = [
                f"item {example.item}, choice {number}"
                for example in examples
                for number in range(len(task.choices))
            ]
            encoded = encode_requests(model, requests, task.joint, controls, names)
        except ValueError as error:
            raise ValueError(f"task {task.name}, {lang}: {error}") from None
        apart = [one.apart for one in encoded]
    else:
        prompts = [example.context for example in examples]
        encoded = encode_prompts(model, prompts, task.max_new_tokens, controls)
        apart = []
    if not quiet:
        what = f"prompts of {task.name}, {lang},"
        report_cuts(what, [one.cut for one in encoded], model.max_positions)
        n_choices = len(task.choices)
        names = [examples[k // n_choices].item for k, alone in enumerate(apart) if alone]
        report_apart(f"choices of {task.name}, {lang}", list(dict.fromkeys(names)))
    return encoded


def _framed(records: list[dict[str, Any]]) -> "pd.DataFrame":
    """Return records as a frame; items without names of their own are numbered."""
    import pandas as pd

    frame = pd.DataFrame(records)
    if frame["item"].duplicated().any():
        frame["item"] = [f"{i:05d}" for i in range(len(frame))]
    return frame


def _choices(
    task: Task,
    examples: Sequence[Example],
    encoded: Sequence,
    found: Sequence[tuple[float, bool]],
) -> list[dict[str, Any]]:
    """Return the record of each example from the log-likelihoods of its choices.

    loglikelihood_0, ...: nats by choice; acc_norm of lm-eval follows from them and `length_0`, ...,
    the characters of each choice.
    """
    n_choices, records = len(task.choices), []
    for number, example in enumerate(examples):
        own = slice(number * n_choices, (number + 1) * n_choices)
        values = [value for value, _ in found[own]]
        lengths = [len(text) for text in example.choices]
        best = max(range(n_choices), key=lambda i: values[i])
        record = {
            "item": example.item,
            "prediction": str(best),
            "gold": str(example.label),
            "cut": max(one.cut for one in encoded[own]),
            "apart": sum(one.apart for one in encoded[own]),
        }
        choice = Choice(best, example.label, tuple(values), tuple(lengths))
        for metric in task.metrics:
            record |= METRICS[metric].of_item(choice)
        record |= {f"loglikelihood_{i}": value for i, value in enumerate(values)}
        record |= {f"length_{i}": value for i, value in enumerate(lengths)}
        records.append(record)
    return records


def _answers(model, task: Task, lang: str, examples, encoded, texts) -> list[dict[str, Any]]:
    """Return the record of each example from what the model wrote."""
    cuts = [one.cut for one in encoded]
    if task.parse:
        read = [_read_choice(task, *pair) for pair in zip(examples, texts, strict=True)]
        return [record | {"cut": cut} for record, cut in zip(read, cuts, strict=True)]
    records, answers = [], []
    for example, text, cut in zip(examples, texts, cuts, strict=True):
        answer = Answer(
            text.strip(),
            tuple(example.golds),
            lang,
            lambda words: model.tokenizer(words, add_special_tokens=False)["input_ids"],
            task.tokenizers.get(lang, "13a"),
        )
        record = {"item": example.item, "prediction": answer.text, "gold": example.golds[0]}
        record["cut"] = cut
        for metric in task.metrics:
            record |= METRICS[metric].of_item(answer)
        records.append(record)
        answers.append(answer)
    for metric in task.metrics if task.batch is not None else ():
        if METRICS[metric].groups is not None:
            for record, value in zip(
                records, METRICS[metric].groups(answers, task.batch), strict=True
            ):
                record[metric] = value
    return records


def _read_choice(task: Task, example: Example, text: str) -> dict[str, Any]:
    """Score a generated answer as the choice that it is read as; unreadable is wrong."""
    choice = read_choice(task.parse, example.choices, text.strip())
    gold = example.choices[example.label]
    record = {"item": example.item, "prediction": choice or "", "gold": gold}
    wrong = None if choice is None else example.choices.index(choice)
    taken = example.label if choice == gold else wrong
    return record | METRICS["accuracy"].of_item(Choice(taken, example.label))


def read_choice(readings: Sequence[Reading], choices: Sequence[str], text: str) -> str | None:
    """Return the choice that the first matching pattern names (any case), or None.

    A pattern that matches without its first group names nothing; the next one is tried.
    """
    known = {choice.casefold(): choice for choice in reversed(choices)}
    for one in readings:
        found = re.search(one.pattern, text)
        named = found and (found.group(1) if one.choice is None else one.choice)
        if named is not None:
            return known.get(named.casefold())
    return None


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
    """Yield rows in which classes that are read by name stand as such; see the module."""
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
        return tuple(_Template("").vformat(one, (), task.words[lang]) for one in templates) or (
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
