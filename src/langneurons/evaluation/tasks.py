"""Examples of a task scored by a model: choices by log-likelihood, answers by what is generated."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from langneurons.evaluation.definition import Reading, Task
from langneurons.evaluation.examples import Example, build
from langneurons.evaluation.metrics import METRICS
from langneurons.evaluation.metrics.metric import Answer, Choice
from langneurons.interventions.apply import each
from langneurons.interventions.plan import Under
from langneurons.models.chat import Chat
from langneurons.models.encoding import Prompt, controls_of, report_apart, report_cuts
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.engine import Engine
from langneurons.scoring.generation import encode_prompts, generate, penalty_of
from langneurons.scoring.likelihood import (
    Request,
    encode_replies,
    encode_requests,
    loglikelihood,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asking:
    """How a model is asked: by its chat template, if it has one, and what decodes its answers."""

    chat: Chat | None = None
    engine: Engine | None = None


PLAIN = Asking()


def score_task(
    model: LanguageModel,
    task: Task,
    lang: str,
    rows: Sequence[Mapping[str, Any]],
    batch_tokens: int,
    under: Under = None,
    asking: Asking = PLAIN,
) -> pd.DataFrame | list[pd.DataFrame]:
    """Return item, prediction, gold and one column per metric (0..1), a row per item.

    A metric of the whole corpus has its counts instead, in columns `metric:count`; sums of them
    over items give the score (`langneurons.evaluation.metrics`). Under a list of plans: by plan.
    With a chat the prompt is what the user says, and a choice or answer the reply.
    """
    chat = asking.chat
    examples = build(rows, task, lang)
    encoded = encode_examples(model, task, lang, examples, chat)
    if task.kind == "multiple_choice":
        scores = loglikelihood(model, encoded, batch_tokens, under)
        return each(under, lambda own: _framed(_choices(task, examples, encoded, own)), scores)
    penalty = penalty_of(model, task.repetition_penalty)
    ends = frozenset[int]() if chat is None else chat.ends
    decoding = Decoding(task.max_new_tokens, task.stop, penalty, ends)
    written = generate(model, encoded, decoding, batch_tokens, under, engine=asking.engine)
    return each(
        under, lambda texts: _framed(_answers(model, task, lang, examples, encoded, texts)), written
    )


def longest_row(
    model: LanguageModel,
    task: Task,
    lang: str,
    rows: Sequence[Mapping[str, Any]],
    chat: Chat | None = None,
) -> int:
    """Return the number of tokens of the longest choice or prompt, and of what may follow it."""
    encoded = encode_examples(model, task, lang, build(rows, task, lang), chat, quiet=True)
    if task.kind == "multiple_choice":
        return max(len(one.read) for one in encoded)
    return max(len(one.tokens) for one in encoded) + task.max_new_tokens


def encode_examples(
    model: LanguageModel,
    task: Task,
    lang: str,
    examples: Sequence[Example],
    chat: Chat | None = None,
    quiet: bool = False,
) -> list:
    """Return the tokens of every choice of every example, or of every prompt.

    Control words are read as such where the task's templates hold them; in a row's fields they are
    text. What did not fit, and what was encoded by itself, is logged.
    """
    controls = controls_of(model.tokenizer, task.prompt_texts(lang))
    encoded: Sequence[Request | Prompt]
    if task.kind == "multiple_choice":
        requests = [pair for example in examples for pair in example.requests(task.delimiter)]
        names = [
            f"item {example.item}, choice {number}"
            for example in examples
            for number in range(len(task.choices))
        ]
        try:
            if chat is None:
                asked = encode_requests(model, requests, task.joint, controls, names)
            else:
                replies = [(said, answer[len(task.delimiter) :]) for said, answer in requests]
                asked = encode_replies(chat, replies, names)
        except ValueError as error:
            raise ValueError(f"task {task.name}, {lang}: {error}") from None
        encoded, apart = asked, [one.apart for one in asked]
    else:
        prompts, room = [example.context for example in examples], task.max_new_tokens
        if chat is None:
            encoded = encode_prompts(model, prompts, room, controls)
        else:
            encoded = [chat.prompt(chat.messages(text.strip()), room) for text in prompts]
        apart = []
    if not quiet:
        what = f"prompts of {task.name}, {lang},"
        report_cuts(what, [one.cut for one in encoded], model.max_positions)
        n_choices = len(task.choices)
        names = [examples[k // n_choices].item for k, alone in enumerate(apart) if alone]
        report_apart(f"choices of {task.name}, {lang}", list(dict.fromkeys(names)))
    return list(encoded)


def _framed(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return records as a frame; items without names of their own are numbered."""
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
        choice = Choice(best, example.right, tuple(values), tuple(lengths))
        for metric in task.metrics:
            record |= METRICS[metric].of_item(choice)
        record |= {f"loglikelihood_{i}": value for i, value in enumerate(values)}
        record |= {f"length_{i}": value for i, value in enumerate(lengths)}
        records.append(record)
    return records


def _answers(
    model: LanguageModel,
    task: Task,
    lang: str,
    examples: Sequence[Example],
    encoded: Sequence[Prompt],
    texts: Sequence[str],
) -> list[dict[str, Any]]:
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
        record: dict[str, Any] = {"item": example.item, "prediction": answer.text}
        record |= {"gold": example.golds[0], "cut": cut}
        for metric in task.metrics:
            record |= METRICS[metric].of_item(answer)
        records.append(record)
        answers.append(answer)
    for metric in task.metrics:
        if METRICS[metric].groups is not None and task.batch is not None:
            values = METRICS[metric].of_groups(answers, task.batch)
            for record, value in zip(records, values, strict=True):
                record[metric] = value
    return records


def _read_choice(task: Task, example: Example, text: str) -> dict[str, Any]:
    """Score a generated answer as the choice that it is read as; unreadable is wrong."""
    choice = read_choice(task.parse, example.choices, text.strip())
    gold = example.choices[example.right]
    record = {"item": example.item, "prediction": choice or "", "gold": gold}
    wrong = None if choice is None else example.choices.index(choice)
    taken = example.right if choice == gold else wrong
    return record | METRICS["accuracy"].of_item(Choice(taken, example.right))


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
