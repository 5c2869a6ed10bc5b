"""Classification by a linear head on the hidden state of one position (XNLI in Mondal et al. 2025).

`pooling: last_token` reads the last real token, `last_position` the last position of the padded
row, as the paper's code does.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from langneurons.evaluation.definition import Task
from langneurons.evaluation.examples import Example, build
from langneurons.interventions.apply import hooked, results
from langneurons.interventions.plan import Under
from langneurons.models.encoding import check_length, controls_of
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.runtime.halving import Batches
from langneurons.scoring.head import NOT_FINITE, NotFinite
from langneurons.scoring.losses import IGNORED

log = logging.getLogger(__name__)
HEAD = "score"


@dataclass(frozen=True)
class Head:
    """How a classifier reads its input: `pooling`, and the length to which rows are padded."""

    pooling: str
    max_length: int


def add_head(model: LanguageModel, n_classes: int, seed: int = 0) -> None:
    """Give a model a classification head, its module `score`; N(0, 0.02**2), no bias."""
    head = nn.Linear(model.config.hidden_size, n_classes, bias=False)
    with torch.no_grad():
        head.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(seed))
    reference = next(p for p in model.model.parameters() if p.is_floating_point())
    setattr(model.model, HEAD, head.to(device=reference.device, dtype=reference.dtype))


def class_head(model: nn.Module) -> nn.Module:
    """Return the classification head of a model, with or without an adapter."""
    whole: Any = model
    inner = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    return getattr(inner, HEAD)


def class_logits(
    sites: MlpSites,
    head: nn.Module,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    pooling: str,
) -> torch.Tensor:
    """Return (batch, classes) in float32; rows are padded on the right."""
    input_ids, attention_mask = input_ids.to(sites.device), attention_mask.to(sites.device)
    hidden = sites.backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    states = hidden.last_hidden_state
    if pooling == "last_position":
        chosen = states[:, -1]
    else:
        last = (attention_mask.sum(dim=1) - 1).to(states.device)
        last = last.repeat(len(states) // len(last))  # branches hold the rows several times
        chosen = states[torch.arange(len(states), device=states.device), last]
    weight = next(head.parameters())
    return head(chosen.to(device=weight.device, dtype=weight.dtype)).float()


def classify(
    model: LanguageModel,
    task: Task,
    lang: str,
    rows: Sequence[Mapping[str, Any]],
    batch_tokens: int,
    head: Head,
    under: Under = None,
) -> pd.DataFrame | list[pd.DataFrame]:
    """Return item, prediction, gold and accuracy, a row per item that fits into the length.

    Every token of an item counts as prompt for what acts on prompts only. Under a list of plans:
    by plan.

    Items are batched by length; `last_position` pads all to `max_length`, so that the result does
    not depend on the batch.
    """
    examples = build(rows, task, lang)
    ids = _class_tokens(model, task, lang, examples)
    fixed = head.max_length if head.pooling == "last_position" else None
    if fixed is not None:
        check_length(fixed, model.max_positions, "training.max_length")
    most = min(head.max_length - 1, model.max_positions or head.max_length)
    kept = [i for i, row in enumerate(ids) if len(row) <= most]
    if not kept:
        raise ValueError(none_fits(task, lang, examples, ids, most))
    if len(kept) < len(ids):
        log.warning(
            "%s %s: %d of %d items exceed %d tokens and are left out",
            task.name,
            lang,
            len(ids) - len(kept),
            len(ids),
            most,
        )
    together = collate(model.tokenizer, fixed)
    sizes, layer = [fixed or len(row) for row in ids], class_head(model.model)
    with hooked(model, under) as running:
        predicted: list[dict[int, int]] = [{} for _ in range(running.width)]
        work = Batches(_groups(kept, sizes, ids, batch_tokens // running.width), sizes, "item")
        for group in work:
            with work.fitting(), torch.inference_mode():
                batch = together([{"input_ids": ids[i], "labels": 0} for i in group])
                mask = batch["attention_mask"].to(model.device)
                running.begin()
                running.announce(torch.ones_like(mask, dtype=torch.bool), mask.bool())
                logits = class_logits(model.sites, layer, batch["input_ids"], mask, head.pooling)
                if not torch.isfinite(logits).all():
                    raise NotFinite(NOT_FINITE)
                by_plan = running.by_plan(logits).argmax(dim=-1).tolist()
                for found, of_plan in zip(predicted, by_plan, strict=True):
                    found |= dict(zip(group, of_plan, strict=True))
    left_out = len(ids) - len(kept)
    return results(under, [_class_records(examples, found, left_out) for found in predicted])


def _groups(
    kept: Sequence[int], sizes: Sequence[int], ids: Sequence[Sequence[int]], budget: int
) -> list[list[int]]:
    """Return batches of the longest items first, within a budget of tokens."""
    order, groups = sorted(kept, key=lambda i: -len(ids[i])), []
    while order:
        size = max(1, budget // sizes[order[0]])
        groups.append(order[:size])
        order = order[size:]
    return groups


def longest_class_row(
    model: LanguageModel, task: Task, lang: str, rows: Sequence[Mapping[str, Any]], head: Head
) -> int:
    """Return the number of tokens of the longest item, at most `max_length`."""
    encoded = _class_tokens(model, task, lang, build(rows, task, lang))
    longest = max(map(len, encoded), default=0)
    return head.max_length if head.pooling == "last_position" else min(longest, head.max_length)


def none_fits(
    task: Task, lang: str, examples: Sequence[Example], ids: Sequence[Sequence], limit: int
) -> str:
    """Say that no item fits: how long they are, and the longest one."""
    sizes = [len(row) for row in ids]
    if not sizes:
        return f"task {task.name}, {lang}: no items."
    longest = max(range(len(sizes)), key=lambda i: sizes[i])
    return (
        f"task {task.name}, {lang}: none of {len(sizes)} items fits {limit} tokens; they have"
        f" {min(sizes)} to {sizes[longest]}, the longest is {examples[longest].item}. Change"
        " `training.max_length` of the fine-tuning where the model reads more, or the task's"
        " prompts or rows."
    )


def _class_records(
    examples: Sequence[Example], predicted: Mapping[int, int], left_out: int
) -> pd.DataFrame:
    """Return the records of the items that were classified.

    left_out: the number of those that were not, since they do not fit; the same in every record.
    """
    records = [
        {
            "item": examples[i].item,
            "prediction": str(predicted[i]),
            "gold": str(examples[i].label),
            "accuracy": float(predicted[i] == examples[i].label),
            "left_out": left_out,
        }
        for i in sorted(predicted)
    ]
    frame = pd.DataFrame(records)
    if frame["item"].duplicated().any():
        frame["item"] = [f"{i:05d}" for i in sorted(predicted)]
    return frame


def _class_tokens(
    model: LanguageModel, task: Task, lang: str, examples: Sequence[Example]
) -> list[list[int]]:
    """Return the tokens of classification items; `<eos>` in the template is the tokenizer's own."""
    encoder = model.encoder(controls_of(model.tokenizer, task.prompt_texts(lang)))
    return [encoder.whole(example.context) for example in examples]


def collate(
    tokenizer: PreTrainedTokenizerBase, fixed_length: int | None = None
) -> Callable[[list[dict]], dict]:
    """Return a collator: rows padded on the right, to the longest or to a fixed length."""
    pad = tokenizer.pad_token_id

    def together(items: list[dict]) -> dict[str, torch.Tensor]:
        length = fixed_length or max(len(item["input_ids"]) for item in items)
        rows = [item["input_ids"] for item in items]
        attended = [item.get("attended", len(item["input_ids"])) for item in items]
        batch = {
            "input_ids": torch.tensor([row + [pad] * (length - len(row)) for row in rows]),
            "attention_mask": torch.tensor(
                [[1] * size + [0] * (length - size) for size in attended]
            ),
        }
        labels = [item["labels"] for item in items]
        if isinstance(labels[0], list):
            labels = [row + [IGNORED] * (length - len(row)) for row in labels]
        return batch | {"labels": torch.tensor(labels)}

    return together
