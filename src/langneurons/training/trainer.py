"""Fine-tune chosen neurons: classification with a head, instructions, or plain text.

`parameters: lora` trains low-rank updates (langneurons.training.lora), `parameters: rows` the
neurons' own weights (langneurons.training.neuron_weights); data, loop and checkpoints are the same.

Classification (XNLI in Mondal et al. 2025): one linear layer on the hidden state of one position
(langneurons.evaluation.classification). Instruction tuning (XQuAD): the loss is on the answer's
tokens only. Text (langneurons.training.text): on every token but BOS.

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
from langneurons.evaluation.classification import (
    HEAD,
    add_head,
    class_head,
    class_logits,
    collate,
)
from langneurons.evaluation.definition import Task
from langneurons.models.encoding import check_length
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.runtime.job import deferred_termination
from langneurons.scoring.losses import IGNORED, token_loss
from langneurons.training import lora, neuron_weights
from langneurons.training.batches import sampler
from langneurons.training.settings import Training

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import TrainerCallback

log = logging.getLogger(__name__)
# Sums since the last point of the curves; a checkpoint between two points keeps them.
WINDOW = ("right", "seen", "loss")
WINDOW_FILE = "window.json"


def _trainer_class() -> Any:
    """Return the Trainer with this module's losses and a running training accuracy."""
    from transformers import Trainer

    class NeuronTrainer(Trainer):
        """Loss of the head's class, or of the answer's tokens; logs the accuracy as well."""

        def __init__(
            self, *arguments: Any, pooling: str | None, sampler: Any = None, **options: Any
        ):
            self.sampler = sampler
            super().__init__(*arguments, **options)
            # The loss below is a sum over the items of a step, however many passes it takes.
            self.model_accepts_loss_kwargs = True
            self.pooling = pooling
            trained: Any = self.model
            self.sites = MlpSites(trained)
            self.head = None if pooling is None else class_head(trained)
            self.window: dict[str, Any] = dict.fromkeys(WINDOW, 0)

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return self.sampler or super()._get_train_sampler(train_dataset)

        def get_batch_samples(
            self, epoch_iterator: Any, num_batches: int, device: torch.device
        ) -> tuple[list, Any]:
            samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
            count = 0
            for sample in samples:
                labels = sample["labels"]
                # The first token of a row is not predicted.
                count += int(((labels if labels.dim() == 1 else labels[:, 1:]) != IGNORED).sum())
            return samples, torch.tensor(count, device=device)

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            labels = inputs["labels"]
            place = inputs["input_ids"], inputs["attention_mask"]
            if self.pooling is not None and self.head is not None:
                logits = class_logits(self.sites, self.head, *place, self.pooling)
                labels, seen = labels.to(logits.device), len(labels)
                total = nn.functional.cross_entropy(logits, labels, reduction="sum")
                right = (logits.argmax(dim=-1) == labels).sum()
            else:
                total, right = token_loss(self.sites, *place, labels)
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

        def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
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

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            folder = Path(str(self.args.output_dir), f"checkpoint-{self.state.global_step}")
            write_json(folder / WINDOW_FILE, self.read_window())
            super()._save_checkpoint(model, trial)

    return NeuronTrainer


def _stopper(terminated: Callable[[], bool]) -> "TrainerCallback":
    """Return a callback that stops once SIGTERM has come, and logs the last step.

    A run of fewer steps than `log_steps` has one point of its curves, not none.
    """
    from transformers import TrainerCallback

    class Stopper(TrainerCallback):
        """Save and stop on request; log the last step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
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


def head_size(task: Task) -> int:
    """Return the number of classes of the head that a task trains, 0 for none."""
    return len(task.classes) if task.kind == "classification" else 0


@dataclass(frozen=True)
class Folders:
    """Where a training writes: `result` gets what it leaves, `work` holds its checkpoints.

    A checkpoint that is found in `work` is continued.
    """

    result: str | os.PathLike
    work: str | os.PathLike


def train(
    model: LanguageModel,
    items: list[dict],
    training: Training,
    neurons: Mapping[str, Sequence] | None,
    folders: Folders,
    classes: int = 0,
    parts: int = 1,
) -> pd.DataFrame:
    """Train, save a plain LoRA adapter or the neurons' weights, return the curves.

    items: {"input_ids", "labels"}. neurons: chosen neurons by projection and layer, as
    `lora.attach` takes them. classes: size of the head, 0 for none. The curves have a row per
    logged step. parts: a divisor of the batch size; each batch runs in so many passes, which gives
    the same loss over the same items and takes less memory.
    """
    from transformers import PrinterCallback, TrainingArguments

    longest = training.max_length
    if classes == 0 or training.pooling != "last_position":
        longest = max(len(item["input_ids"]) for item in items)
    check_length(longest, model.max_positions, "training.max_length")
    if classes:
        if "lm_head" in training.modules and training.parameters == "lora":
            raise ValueError(
                "training.modules: 'lm_head' has no part in a classification; leave it out"
            )
        add_head(model, classes, training.seed)
    wrapped = _attached(model.model, training, neurons, (HEAD,) if classes else ())
    if training.recompute:
        inner: Any = model.model
        inner.activation_checkpointing_enable({"use_reentrant": False})
    arguments = TrainingArguments(
        output_dir=str(folders.work),
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
        bf16=next(model.model.parameters()).dtype == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        report_to=training.report_to,
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    pooling = training.pooling if classes else None
    fixed = training.max_length if pooling == "last_position" else None
    checkpoint = last_checkpoint(folders.work)
    if checkpoint:
        log.info("continued from %s", checkpoint)
    with deferred_termination() as terminated:
        trainer = _trainer_class()(
            model=wrapped,
            args=arguments,
            data_collator=collate(model.tokenizer, fixed),
            train_dataset=items,
            callbacks=[_stopper(terminated)],
            pooling=pooling,
            sampler=sampler(items, training),
        )
        trainer.remove_callback(PrinterCallback)
        if checkpoint:
            trainer.window = read_json(Path(checkpoint, WINDOW_FILE))
        trainer.train(resume_from_checkpoint=checkpoint)
    wrapped.eval()
    if isinstance(wrapped, neuron_weights.Tuned):
        neuron_weights.save(wrapped, folders.result, model.identity or None)
    else:
        lora.save_adapter(wrapped, folders.result, model.identity or None)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    curves = pd.DataFrame(history).rename(columns={"grad_norm": "gradient_norm"})
    columns = ["step", "epoch", "loss", "accuracy", "learning_rate", "gradient_norm"]
    return curves.reindex(columns=columns)


def _attached(
    model: nn.Module,
    training: Training,
    neurons: Mapping[str, Sequence] | None,
    train_fully: Sequence[str],
) -> "PeftModel | neuron_weights.Tuned":
    """Return the model wrapped, with what is trained."""
    if training.parameters == neuron_weights.KIND:
        return neuron_weights.attach(model, neurons, train_fully)
    return lora.attach(
        model,
        training.modules,
        neurons,
        lora.Size(training.rank, training.alpha, training.dropout, training.seed),
        train_fully,
    )
