"""A task in one language under every condition: untouched, and each selection x intervention.

One model load serves all conditions of the cell; those that leave the first layers alone, or
prompts, read them once together (`langneurons.interventions.branches`); prompts' common beginnings
are read once. Per item the prediction and the scores are kept. Finished conditions come from the
side store, so adding an intervention computes only that one.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from langneurons.base.digests import digest
from langneurons.base.words import UNTOUCHED
from langneurons.evaluation.classification import Head, classify, longest_class_row
from langneurons.evaluation.definition import Task
from langneurons.evaluation.run import Run
from langneurons.evaluation.tasks import Asking, longest_row, score_task
from langneurons.interventions.branches import portions
from langneurons.interventions.plan import Plan, untouched
from langneurons.models.chat import Chat
from langneurons.runtime.progress import Progress
from langneurons.scoring.engine import STORED
from langneurons.scoring.head import NotFinite

log = logging.getLogger(__name__)
Condition = tuple[str, str, str, str]
CONDITION = ("langset", "selection", "intervention", "target")
BASELINE: Condition = (UNTOUCHED,) * 4


@dataclass(frozen=True)
class Manner:
    """How a model is asked: under which adapter, as a classifier by its head, by its chat."""

    adapter: str = "base"
    head: Head | None = None
    chat: Chat | None = None


PLAIN = Manner()


def evaluate(
    run: Run,
    task: Task,
    lang: str,
    rows: list[dict],
    plans: Mapping[Condition, Plan],
    manner: Manner = PLAIN,
) -> pd.DataFrame:
    """Return per-item records; `plans` by (language set, selection, intervention, target)."""
    conditions = {BASELINE: untouched(), **plans}
    key = run.key | {
        "task": digest(task.model_dump(mode="json")),
        "rows": digest(rows),
        "lang": lang,
    }
    key |= {} if manner.chat is None else {"chat": manner.chat.known_as}
    progress = Progress(f"{task.name} {lang}", len(conditions), "conditions")
    written = {condition: plan.digest for condition, plan in conditions.items()}
    found: dict[str, pd.DataFrame] = {}  # by what is written: equal plans are run once
    pending: dict[str, Condition] = {}
    for condition, plan in written.items():
        frame = None if plan in pending else run.store.get(key | {"plan": plan})
        if frame is None:
            pending.setdefault(plan, condition)
        else:
            if task.kind == "generation" and plan not in found:
                run.engine.answers[STORED] += len(frame)
            found[plan] = frame
            progress.update()
    cell = _Cell(run, task, lang, rows, manner)
    for names in cell.portions(list(pending.values()), conditions):
        scored = cell.scored([conditions[name] for name in names])
        for name, frame in zip(names, scored, strict=True):
            run.store.put(key | {"plan": written[name]}, frame)
            found[written[name]] = frame
            progress.update()
    frames = []
    for condition in conditions:
        labels = {"task": task.name, "lang": lang, "adapter": manner.adapter}
        named = dict(zip(CONDITION, condition, strict=True))
        frames.append(found[written[condition]].assign(**labels, **named))
    progress.finish()
    result = pd.concat(frames, ignore_index=True)
    first = ["task", "lang", "adapter", *CONDITION, "item"]
    return result[first + [column for column in result if column not in first]]


class _Cell:
    """A task in one language, ready to be scored under plans."""

    def __init__(self, run: Run, task: Task, lang: str, rows: list[dict], manner: Manner):
        self.model, self.batch_tokens = run.model, run.batch_tokens
        self.task, self.lang, self.rows = task, lang, rows
        self.head, self.chat = manner.head, manner.chat
        self.asking = Asking(manner.chat, run.engine)

    def portions(
        self, names: list[Condition], plans: Mapping[Condition, Plan]
    ) -> list[list[Condition]]:
        """Return which conditions to run together: those that share layers, within a batch."""
        if len(names) < 2:
            return [[name] for name in names]
        about = (self.model, self.task, self.lang, self.rows)
        if self.head is not None:
            longest = longest_class_row(*about, self.head)
        else:
            longest = longest_row(*about, self.chat)
        n_layers = self.model.n_layers
        first = [plans[name].begins(n_layers, of_prompts=True) for name in names]
        chosen = portions(first, n_layers, self.batch_tokens // longest)
        return [[names[number] for number in numbers] for numbers in chosen]

    def scored(self, plans: list[Plan]) -> list[pd.DataFrame]:
        """Return the records under each plan."""
        given = (self.model, self.task, self.lang, self.rows, self.batch_tokens)
        try:
            if self.head is not None:
                return classify(*given, self.head, under=plans)
            return score_task(*given, under=plans, asking=self.asking)
        except NotFinite as error:
            names = ", ".join(plan.name for plan in plans)
            raise NotFinite(f"{self.task.name} {self.lang} under {names}: {error}") from error
