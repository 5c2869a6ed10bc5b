"""The rows that a training reads, and their order."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from langneurons.evaluation.classification import none_fits
from langneurons.evaluation.definition import Task
from langneurons.evaluation.examples import build
from langneurons.models.encoding import controls_of, name_of, plain_text
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.losses import IGNORED
from langneurons.training.settings import Training

log = logging.getLogger(__name__)


def items_of(
    model: LanguageModel, task: Task, rows: Sequence[Mapping[str, Any]], lang: str, max_length: int
) -> list[dict]:
    """Return items as {"input_ids", "labels"}; those that do not fit are dropped, with a count.

    What fits is no longer than `max_length` and than what the model reads.
    """
    limit, tokenizer = model.max_positions, model.tokenizer
    most = max_length if limit is None else min(max_length, limit)
    examples = build(rows, task, lang)
    items: list[dict] = []
    encoded: list[list[int]] = []
    encoder = model.encoder(controls_of(tokenizer, task.prompt_texts(lang)))
    if task.kind != "classification" and tokenizer.eos_token_id is None:
        raise ValueError(
            f"tokenizer {name_of(tokenizer)}: it has no EOS token, by which a trained answer ends"
        )
    for example in examples:
        if task.kind == "classification":
            ids = encoder.whole(example.context)
            item: dict[str, Any] = {"input_ids": ids, "labels": example.label}
            fits = len(ids) < most
        else:
            prompt = encoder.whole(example.context)
            answer = plain_text(tokenizer, [example.golds[0]])[0]
            answer = [*answer, tokenizer.eos_token_id]
            item = {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}
            fits = len(prompt) + len(answer) <= most
        encoded.append(item["input_ids"])
        if fits:
            items.append(item)
    limit = most - (task.kind == "classification")
    if not items:
        raise ValueError(none_fits(task, lang, examples, encoded, limit))
    if len(items) < len(examples):
        log.warning(
            "%s %s: %d of %d items exceed %d tokens and are left out",
            task.name,
            lang,
            len(examples) - len(items),
            len(examples),
            limit,
        )
    return items


def sampler(items: Sequence[dict], training: Training) -> "Bucketed | None":
    """Return the order of the rows; None is the Trainer's own, at random."""
    if not training.bucket:
        return None
    step = training.batch_size * training.accumulate
    lengths = [len(item["input_ids"]) for item in items]
    return Bucketed(lengths, step, training.bucket, training.seed)


class Bucketed(torch.utils.data.Sampler):
    """A random order in which rows that follow each other are of similar length.

    Each epoch has its own permutation, which seed and epoch give. It is cut into pools of `pool`
    steps of `step` rows; a pool is sorted by length and cut into steps, and all steps are shuffled.
    The last, smaller step stays last, so that every other is whole.
    """

    def __init__(self, lengths: Sequence[int], step: int, pool: int, seed: int):
        self.lengths, self.step, self.pool, self.seed = list(lengths), step, pool, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is asked for next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        whole = len(order) // self.step * self.step
        steps, rest = [], order[whole:]
        for start in range(0, whole, self.step * self.pool):
            pool = order[start : min(start + self.step * self.pool, whole)]
            pool.sort(key=lambda row: -self.lengths[row])
            steps += [pool[i : i + self.step] for i in range(0, len(pool), self.step)]
        for number in torch.randperm(len(steps), generator=generator).tolist():
            yield from steps[number]
        yield from rest
