"""Fine-tune chosen neurons: classification with a head, instructions, or plain text.

`parameters: lora` trains low-rank updates (langneurons.training.lora), `parameters: rows` the
neurons' own weights (langneurons.training.neuron_weights); data, loop and checkpoints are the same.

Classification (XNLI in Mondal et al. 2025): one linear layer on the hidden state of one position;
`pooling: last_token` reads the last real token, `last_position` the last position of the padded
row, as the paper's code does. Instruction tuning (XQuAD): the loss is on the answer's tokens only.
Text (langneurons.training.text): on every token but BOS.

The loss of instructions and text takes the head at the predicted positions only, a block of them at
a time, and computes its gradient in the forward pass: logits of a whole batch never exist.

Hugging Face's Trainer runs the loop: AdamW, linear warm-up and decay, clipping, checkpoints. The
same seed gives the same adapter, also after a kill: weights, optimiser, schedule, random states and
the position in the data come from the last checkpoint.
"""

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn

from langneurons.base.io import read_json, write_json
from langneurons.evaluation.tasks import Task, build
from langneurons.models.encoding import (
    Encoder,
    check_length,
    controls_of,
    max_positions,
    name_of,
    plain_text,
)
from langneurons.models.families import MlpSites
from langneurons.runtime.halving import Batches
from langneurons.runtime.job import deferred_termination
from langneurons.scoring.primitives import NOT_FINITE, NotFinite, _adjust
from langneurons.training import neuron_weights as neuron_rows
from langneurons.training.lora import attach, save_adapter
from langneurons.training.settings import Training

if TYPE_CHECKING:
    from langneurons.interventions.branches import Branched

log = logging.getLogger(__name__)
HEAD = "score"
IGNORED = -100
# Sums since the last point of the curves; a checkpoint between two points keeps them.
WINDOW = ("right", "seen", "loss")
WINDOW_FILE = "window.json"
# Logits that exist at a time, by the kind of device; on a CPU they should stay near its cache.
LOGITS = {"cpu": 2**23}
MANY_LOGITS = 2**27


def add_head(model: nn.Module, n_classes: int, seed: int = 0) -> None:
    """Give a causal model a classification head, `model.score`; N(0, 0.02**2), no bias."""
    hidden = MlpSites(model).config.hidden_size
    head = nn.Linear(hidden, n_classes, bias=False)
    with torch.no_grad():
        head.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(seed))
    reference = next(p for p in model.parameters() if p.is_floating_point())
    setattr(model, HEAD, head.to(device=reference.device, dtype=reference.dtype))


def class_logits(
    model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, pooling: str
) -> torch.Tensor:
    """Return (batch, classes) in float32; rows are padded on the right."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    sites = MlpSites(inner)
    input_ids, attention_mask = input_ids.to(sites.device), attention_mask.to(sites.device)
    hidden = sites.backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    states = hidden.last_hidden_state
    if pooling == "last_position":
        chosen = states[:, -1]
    else:
        last = (attention_mask.sum(dim=1) - 1).to(states.device)
        last = last.repeat(len(states) // len(last))  # branches hold the rows several times
        chosen = states[torch.arange(len(states), device=states.device), last]
    head = getattr(inner, HEAD)
    weight = next(head.parameters())
    return head(chosen.to(device=weight.device, dtype=weight.dtype)).float()


class _TokenLoss(torch.autograd.Function):
    """Summed cross-entropy of a frozen head, whose gradient is computed in the forward pass."""

    @staticmethod
    def forward(ctx, hidden, head, config, targets):
        """Return the sum in nats and the number of right guesses; hidden: (tokens, d_model)."""
        gradients, total, right = [], 0.0, 0
        size = max(1, LOGITS.get(hidden.device.type, MANY_LOGITS) // config.vocab_size)
        for own, wanted in zip(hidden.split(size), targets.split(size), strict=True):
            with torch.enable_grad():
                own = own.detach().requires_grad_()
                logits = _adjust(head(own), config).float()
                loss = nn.functional.cross_entropy(logits, wanted, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, own)
            gradients.append(gradient)
            total = total + loss.detach()
            right = right + (logits.argmax(dim=-1) == wanted).sum()
        ctx.save_for_backward(torch.cat(gradients))
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    def backward(ctx, gradient, _):
        """Return the gradient of hidden."""
        (of_hidden,) = ctx.saved_tensors
        return of_hidden * gradient, None, None, None


def token_loss(
    model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross-entropy of labels that are not -100, and how many were guessed.

    All are (batch, pos). A head that is trained itself gives ordinary logits.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    sites = MlpSites(inner)
    input_ids, attention_mask = input_ids.to(sites.device), attention_mask.to(sites.device)
    states = sites.backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    kept = labels[:, 1:] != IGNORED
    hidden = states.last_hidden_state[:, :-1]
    hidden = hidden[kept.to(hidden.device)]
    hidden, targets = hidden.to(sites.head_device), labels[:, 1:][kept].to(sites.head_device)
    if not len(targets):
        return hidden.float().sum(), targets.sum()
    if not any(parameter.requires_grad for parameter in sites.head.parameters()):
        return _TokenLoss.apply(hidden, sites.head, sites.config, targets)
    logits = _adjust(sites.head(hidden), sites.config).float()
    total = nn.functional.cross_entropy(logits, targets, reduction="sum")
    return total, (logits.argmax(dim=-1) == targets).sum()


@dataclass(frozen=True)
class Head:
    """How a classifier reads its input: `pooling`, and the length to which rows are padded."""

    pooling: str
    max_length: int


def classify(
    model: nn.Module,
    tokenizer,
    task: Task,
    lang: str,
    rows: Sequence[Mapping[str, Any]],
    batch_tokens: int,
    head: Head,
    on_forward: Callable | None = None,
) -> pd.DataFrame:
    """Return item, prediction, gold and accuracy, a row per item that fits into the length.

    Every token of an item counts as prompt for `on_forward` (see `langneurons.scoring.primitives`).

    Items are batched by length; `last_position` pads all to `max_length`, so that the result does
    not depend on the batch.
    """
    (found,) = _classified(model, tokenizer, task, lang, rows, batch_tokens, head, on_forward)
    return found


def classify_branches(
    model: nn.Module,
    tokenizer,
    task: Task,
    lang: str,
    rows: Sequence[Mapping[str, Any]],
    batch_tokens: int,
    head: Head,
    branches: "Branched",
) -> list[pd.DataFrame]:
    """Return what `classify` returns, under each plan."""
    return _classified(model, tokenizer, task, lang, rows, batch_tokens, head, None, branches)


def longest_class_row(tokenizer, task: Task, lang: str, rows, head: Head) -> int:
    """Return the number of tokens of the longest item, at most `max_length`."""
    encoded = _class_tokens(tokenizer, task, lang, build(rows, task, lang))
    longest = max(map(len, encoded), default=0)
    return head.max_length if head.pooling == "last_position" else min(longest, head.max_length)


def _classified(
    model, tokenizer, task, lang, rows, batch_tokens, head, on_forward, branches=None
) -> list[pd.DataFrame]:
    """Return the records under each plan."""
    number = 1
    if branches is not None:
        number, on_forward = len(branches.plans), branches.on_forward
    examples = build(rows, task, lang)
    ids = _class_tokens(tokenizer, task, lang, examples)
    fixed = head.max_length if head.pooling == "last_position" else None
    limit = max_positions(MlpSites(model).config)
    if fixed is not None:
        check_length(fixed, limit, "training.max_length")
    most = min(head.max_length - 1, limit or head.max_length)
    kept = [i for i, row in enumerate(ids) if len(row) <= most]
    left_out = len(ids) - len(kept)
    if not kept:
        raise ValueError(_none_fits(task, lang, examples, ids, most))
    if left_out:
        log.warning(
            "%s %s: %d of %d items exceed %d tokens and are left out",
            task.name,
            lang,
            left_out,
            len(ids),
            most,
        )
    order = sorted(kept, key=lambda i: -len(ids[i]))
    together = collate(tokenizer, fixed)
    device = MlpSites(model).device
    predicted: list[dict[int, int]] = [{} for _ in range(number)]
    groups = []
    while order:
        widest = fixed or len(ids[order[0]])
        size = max(1, batch_tokens // number // widest)
        group, order = order[:size], order[size:]
        groups.append(group)
    work = Batches(groups, [fixed or len(row) for row in ids], "item")
    for group in work:
        with work.fitting(), torch.inference_mode():
            batch = together([{"input_ids": ids[i], "labels": 0} for i in group])
            mask = batch["attention_mask"].to(device)
            if branches is not None:
                branches.begin()
            if on_forward is not None:
                on_forward(torch.ones_like(mask, dtype=torch.bool), mask.bool(), None)
            logits = class_logits(model, batch["input_ids"].to(device), mask, head.pooling)
            if not torch.isfinite(logits).all():
                raise NotFinite(NOT_FINITE)
            by_plan = logits[None] if branches is None else branches.by_plan(logits)
            for found, of_plan in zip(predicted, by_plan.argmax(dim=-1).tolist(), strict=True):
                found |= dict(zip(group, of_plan, strict=True))
    return [_class_records(examples, found, left_out) for found in predicted]


def _none_fits(task: Task, lang: str, examples, ids: Sequence[Sequence], limit: int) -> str:
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


def _class_records(examples, predicted: Mapping[int, int], left_out: int) -> pd.DataFrame:
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


def _class_tokens(tokenizer, task: Task, lang: str, examples) -> list[list[int]]:
    """Return the tokens of classification items; `<eos>` in the template is the tokenizer's own."""
    encoder = Encoder(tokenizer, controls=controls_of(tokenizer, task.prompt_texts(lang)))
    return [encoder.whole(example.context) for example in examples]


def encode(
    task: Task, tokenizer, rows: Sequence[Mapping], lang: str, max_length: int
) -> list[dict]:
    """Return items as {"input_ids", "labels"}; those that do not fit are dropped, with a count."""
    examples, items, encoded = build(rows, task, lang), [], []
    encoder = Encoder(tokenizer, controls=controls_of(tokenizer, task.prompt_texts(lang)))
    if task.kind != "classification" and tokenizer.eos_token_id is None:
        raise ValueError(
            f"tokenizer {name_of(tokenizer)}: it has no EOS token, by which a trained answer ends"
        )
    for example in examples:
        if task.kind == "classification":
            ids = encoder.whole(example.context)
            item = {"input_ids": ids, "labels": example.label}
            fits = len(ids) < max_length
        else:
            prompt = encoder.whole(example.context)
            answer = plain_text(tokenizer, [example.golds[0]])[0]
            answer = [*answer, tokenizer.eos_token_id]
            item = {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}
            fits = len(prompt) + len(answer) <= max_length
        encoded.append(item["input_ids"])
        if fits:
            items.append(item)
    limit = max_length - (task.kind == "classification")
    if not items:
        raise ValueError(_none_fits(task, lang, examples, encoded, limit))
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


def collate(tokenizer, fixed_length: int | None = None) -> Callable[[list[dict]], dict]:
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

    def __iter__(self):
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


def _trainer_class():
    """Return the Trainer with this module's losses and a running training accuracy."""
    from transformers import Trainer

    class NeuronTrainer(Trainer):
        """Loss of the head's class, or of the answer's tokens; logs the accuracy as well."""

        def __init__(self, *arguments, pooling: str | None, sampler=None, **options):
            self.sampler = sampler
            super().__init__(*arguments, **options)
            # The loss below is a sum over the items of a step, however many passes it takes.
            self.model_accepts_loss_kwargs = True
            self.pooling = pooling
            self.window = dict.fromkeys(WINDOW, 0)

        def _get_train_sampler(self, train_dataset=None):
            return self.sampler or super()._get_train_sampler(train_dataset)

        def get_batch_samples(self, epoch_iterator, num_batches, device):
            samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
            count = 0
            for sample in samples:
                labels = sample["labels"]
                # The first token of a row is not predicted.
                count += int(((labels if labels.dim() == 1 else labels[:, 1:]) != IGNORED).sum())
            return samples, torch.tensor(count, device=device)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels, inner = inputs["labels"], self.accelerator.unwrap_model(model)
            place = inputs["input_ids"], inputs["attention_mask"]
            if self.pooling is not None:
                logits = class_logits(inner, *place, self.pooling)
                labels, seen = labels.to(logits.device), len(labels)
                total = nn.functional.cross_entropy(logits, labels, reduction="sum")
                right = (logits.argmax(dim=-1) == labels).sum()
            else:
                total, right = token_loss(inner, *place, labels)
                seen = int((labels[:, 1:] != IGNORED).sum())
            # The loss must lie where the inputs do.
            total = total.to(place[0].device)
            # Kept where they are: reading them here would wait for the device in every pass.
            self.window["right"] += right.detach()
            self.window["seen"] += seen
            self.window["loss"] += total.detach().double()
            loss = total / (seen if num_items_in_batch is None else num_items_in_batch)
            return (loss, {}) if return_outputs else loss

        def read_window(self) -> dict[str, float]:
            """Return the sums since the last point as numbers."""
            return {name: torch.as_tensor(value).item() for name, value in self.window.items()}

        def log(self, logs, *arguments, **options):
            if "loss" in logs and self.window["seen"]:
                window = self.read_window()
                logs["loss"] = window["loss"] / window["seen"]
                logs["accuracy"] = window["right"] / window["seen"]
                self.window = dict.fromkeys(WINDOW, 0)
                log.info(
                    "step %d/%d, epoch %.2f: loss %.4f, accuracy %.3f, learning rate %.2e",
                    self.state.global_step,
                    self.state.max_steps,
                    self.state.epoch or 0.0,
                    float(logs["loss"]),
                    logs["accuracy"],
                    float(logs["learning_rate"]),
                )
                if not math.isfinite(logs["loss"]):
                    raise RuntimeError(
                        f"the loss of step {self.state.global_step} is {logs['loss']}: training has"
                        " diverged. Lower training.learning_rate or training.clip."
                    )
            super().log(logs, *arguments, **options)

        def _save_checkpoint(self, model, trial):
            folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
            write_json(folder / WINDOW_FILE, self.read_window())
            super()._save_checkpoint(model, trial)

    return NeuronTrainer


def _stopper(terminated: Callable[[], bool]):
    """Return a callback that stops once SIGTERM has come, and logs the last step.

    A run of fewer steps than `log_steps` has one point of its curves, not none.
    """
    from transformers import TrainerCallback

    class Stopper(TrainerCallback):
        """Save and stop on request; log the last step."""

        def on_step_end(self, args, state, control, **_):
            if terminated():
                control.should_save = control.should_training_stop = True
            elif state.global_step >= state.max_steps:
                control.should_log = True
            return control

    return Stopper()


def last_checkpoint(work: str | os.PathLike) -> str | None:
    """Return the newest whole checkpoint; the Trainer writes its state file last."""
    whole = [path.parent for path in Path(work).glob("checkpoint-*/trainer_state.json")]
    newest = max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)
    return None if newest is None else str(newest)


def finetune(
    model: nn.Module,
    tokenizer,
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    lang: str,
    training: Training,
    neurons: Mapping[str, Sequence] | None,
    folder: str | os.PathLike,
    work: str | os.PathLike,
    who: Mapping[str, Any] | None = None,
    parts: int = 1,
) -> pd.DataFrame:
    """Train on a task's rows; see `train`."""
    items, classes = items_of(model, tokenizer, task, rows, lang, training), head_size(task)
    return train(model, tokenizer, items, training, neurons, folder, work, who, classes, parts)


def items_of(
    model: nn.Module,
    tokenizer,
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    lang: str,
    training: Training,
) -> list[dict]:
    """Return the rows of a task that training and model have room for; see `encode`."""
    limit = max_positions(MlpSites(model).config)
    most = training.max_length if limit is None else min(training.max_length, limit)
    return encode(task, tokenizer, rows, lang, most)


def head_size(task: Task) -> int:
    """Return the number of classes of the head that a task trains, 0 for none."""
    return len(task.classes) if task.kind == "classification" else 0


def train(
    model: nn.Module,
    tokenizer,
    items: list[dict],
    training: Training,
    neurons: Mapping[str, Sequence] | None,
    folder: str | os.PathLike,
    work: str | os.PathLike,
    who: Mapping[str, Any] | None = None,
    classes: int = 0,
    parts: int = 1,
) -> pd.DataFrame:
    """Train, save a plain LoRA adapter or the neurons' weights in `folder`, return the curves.

    items: {"input_ids", "labels"}. neurons: chosen neurons by projection and layer, as
    `lora.attach` takes them. who: the identity of the model. classes: size of the head, 0 for none.
    The curves have a row per logged step. Checkpoints lie in `work`; what is found there is
    continued. parts: a divisor of the batch size; each batch runs in so many passes, which gives
    the same loss over the same items and takes less memory.
    """
    from transformers import PrinterCallback, TrainingArguments

    longest = training.max_length
    if classes == 0 or training.pooling != "last_position":
        longest = max(len(item["input_ids"]) for item in items)
    check_length(longest, max_positions(MlpSites(model).config), "training.max_length")
    if classes:
        if "lm_head" in training.modules and training.parameters == "lora":
            raise ValueError(
                "training.modules: 'lm_head' has no part in a classification; leave it out"
            )
        add_head(model, classes, training.seed)
    wrapped = _attached(model, training, neurons, (HEAD,) if classes else ())
    if training.recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=training.batch_size // parts,
        gradient_accumulation_steps=training.accumulate * parts,
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        adam_beta1=training.betas[0],
        adam_beta2=training.betas[1],
        max_grad_norm=training.clip,
        warmup_steps=training.warmup,
        lr_scheduler_type="linear",
        optim="adamw_torch",
        logging_steps=training.log_steps,
        save_strategy="steps",
        save_steps=training.checkpoint_steps,
        save_total_limit=1,
        seed=training.seed,
        data_seed=training.seed,
        bf16=next(model.parameters()).dtype == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        report_to=training.report_to,
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    pooling = training.pooling if classes else None
    fixed = training.max_length if pooling == "last_position" else None
    checkpoint = last_checkpoint(work)
    if checkpoint:
        log.info("continued from %s", checkpoint)
    with deferred_termination() as terminated:
        trainer = _trainer_class()(
            model=wrapped,
            args=arguments,
            data_collator=collate(tokenizer, fixed),
            train_dataset=items,
            callbacks=[_stopper(terminated)],
            pooling=pooling,
            sampler=_sampler(items, training),
        )
        trainer.remove_callback(PrinterCallback)
        if checkpoint:
            trainer.window = read_json(Path(checkpoint, WINDOW_FILE))
        trainer.train(resume_from_checkpoint=checkpoint)
    wrapped.eval()
    if training.parameters == neuron_rows.KIND:
        neuron_rows.save(wrapped, folder, who)
    else:
        save_adapter(wrapped, folder, who)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    curves = pd.DataFrame(history).rename(columns={"grad_norm": "gradient_norm"})
    columns = ["step", "epoch", "loss", "accuracy", "learning_rate", "gradient_norm"]
    return curves.reindex(columns=columns)


def _sampler(items: Sequence[dict], training: Training) -> Bucketed | None:
    """Return the order of the rows; None is the Trainer's own, at random."""
    if not training.bucket:
        return None
    step = training.batch_size * training.accumulate
    lengths = [len(item["input_ids"]) for item in items]
    return Bucketed(lengths, step, training.bucket, training.seed)


def _attached(
    model: nn.Module,
    training: Training,
    neurons: Mapping[str, Sequence] | None,
    train_fully: Sequence[str],
) -> nn.Module:
    """Return the model wrapped, with what is trained."""
    if training.parameters == neuron_rows.KIND:
        return neuron_rows.attach(model, neurons, train_fully)
    return attach(
        model,
        training.modules,
        neurons,
        training.rank,
        training.alpha,
        training.dropout,
        training.seed,
        train_fully=train_fully,
    )
