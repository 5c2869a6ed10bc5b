"""A task in one language under every condition: untouched, and each selection x intervention.

One model load serves all conditions of the cell; those that leave the first layers alone, or
prompts, read them once together (`langneurons.interventions.branches`); prompts' common beginnings
are read once. Per item the prediction and the scores are kept. Finished conditions come from the
side store, so adding an intervention computes only that one.
"""

import logging
from collections.abc import Mapping

import pandas as pd

from langneurons.base.digests import digest
from langneurons.base.store import SideStore
from langneurons.evaluation.perplexity import plan_digest
from langneurons.evaluation.tasks import Task, longest_row, score_branches, score_task
from langneurons.interventions.branches import branched, portions
from langneurons.interventions.hooks import Plan, applied
from langneurons.models.families import MlpSites
from langneurons.runtime.progress import Progress
from langneurons.scoring.primitives import NotFinite
from langneurons.training.trainer import Head, classify, classify_branches, longest_class_row

log = logging.getLogger(__name__)
Condition = tuple[str, str, str, str]
CONDITION = ("langset", "selection", "intervention", "target")
BASELINE: Condition = ("none",) * 4


def evaluate(
    model,
    tokenizer,
    task: Task,
    lang: str,
    rows: list[dict],
    plans: Mapping[Condition, Plan],
    store: SideStore,
    key: dict,
    batch_tokens: int,
    adapter: str = "base",
    head: Head | None = None,
) -> pd.DataFrame:
    """Return per-item records; `plans` by (language set, selection, intervention, target)."""
    conditions = {BASELINE: Plan("none"), **plans}
    key = key | {"task": digest(task.model_dump(mode="json")), "rows": digest(rows), "lang": lang}
    progress = Progress(f"{task.name} {lang}", len(conditions), "conditions")
    written = {condition: plan_digest(plan) for condition, plan in conditions.items()}
    found: dict[str, pd.DataFrame] = {}  # by what is written: equal plans are run once
    pending: dict[str, Condition] = {}
    for condition, plan in written.items():
        frame = None if plan in pending else store.get(key | {"plan": plan})
        if frame is None:
            pending.setdefault(plan, condition)
        else:
            found[plan] = frame
            progress.update()
    cell = _Cell(model, tokenizer, task, lang, rows, batch_tokens, head)
    for names in cell.portions(list(pending.values()), conditions):
        scored = cell.scored([conditions[name] for name in names])
        for name, frame in zip(names, scored, strict=True):
            store.put(key | {"plan": written[name]}, frame)
            found[written[name]] = frame
            progress.update()
    frames = []
    for condition in conditions:
        labels = {"task": task.name, "lang": lang, "adapter": adapter}
        named = dict(zip(CONDITION, condition, strict=True))
        frames.append(found[written[condition]].assign(**labels, **named))
    progress.finish()
    result = pd.concat(frames, ignore_index=True)
    first = ["task", "lang", "adapter", *CONDITION, "item"]
    return result[first + [column for column in result if column not in first]]


class _Cell:
    """A task in one language, ready to be scored under plans."""

    def __init__(self, model, tokenizer, task: Task, lang: str, rows, batch_tokens, head):
        self.model, self.tokenizer, self.task, self.lang = model, tokenizer, task, lang
        self.rows, self.batch_tokens, self.head = rows, batch_tokens, head
        self.sites = MlpSites(model)

    def portions(
        self, names: list[Condition], plans: Mapping[Condition, Plan]
    ) -> list[list[Condition]]:
        """Return which conditions to run together: those that share layers, within a batch."""
        if len(names) < 2:
            return [[name] for name in names]
        about = (self.tokenizer, self.task, self.lang, self.rows)
        if self.head is None:
            longest = longest_row(self.model, *about)
        else:
            longest = longest_class_row(*about, self.head)
        n_layers = self.sites.n_layers
        first = [plans[name].begins(n_layers, of_prompts=True) for name in names]
        chosen = portions(first, n_layers, self.batch_tokens // longest)
        return [[names[number] for number in numbers] for numbers in chosen]

    def scored(self, plans: list[Plan]) -> list[pd.DataFrame]:
        """Return the records under each plan."""
        try:
            return self._scored(plans)
        except NotFinite as error:
            names = ", ".join(plan.name for plan in plans)
            raise NotFinite(f"{self.task.name} {self.lang} under {names}: {error}") from error

    def _scored(self, plans: list[Plan]) -> list[pd.DataFrame]:
        given = (self.model, self.tokenizer, self.task, self.lang, self.rows, self.batch_tokens)
        if len(plans) > 1:
            with branched(self.sites, plans) as running:
                if self.head is not None:
                    return classify_branches(*given, self.head, running)
                return score_branches(*given, running)
        with applied(self.sites, plans[0]) as running:
            if self.head is not None:
                return [classify(*given, self.head, on_forward=running.on_forward)]
            return [score_task(*given, running.on_forward, shared=running.by_token)]
