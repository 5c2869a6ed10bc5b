"""A task in one language under every condition: untouched, and each selection x intervention.

One model load serves all conditions of the cell. Per item the prediction and the scores are kept.
Finished conditions come from the side store, so adding an intervention computes only that one.
"""

import logging
from collections.abc import Mapping

import pandas as pd

from langneurons.adapters import MlpSites
from langneurons.finetune import Head, classify
from langneurons.interventions import Plan, applied
from langneurons.perplexity import plan_digest
from langneurons.progress import Progress
from langneurons.provenance import digest
from langneurons.sidestore import SideStore
from langneurons.tasks import Task, score_task

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
    sites = MlpSites(model)
    conditions = {BASELINE: Plan("none"), **plans}
    key = key | {"task": digest(task.model_dump(mode="json")), "rows": digest(rows), "lang": lang}
    progress = Progress(f"{task.name} {lang}", len(conditions), "conditions")
    frames = []
    for condition, plan in conditions.items():
        part_key = key | {"plan": plan_digest(plan)}
        frame = store.get(part_key)
        if frame is None:
            with applied(sites, plan) as running:
                if head is not None:
                    frame = classify(
                        model,
                        tokenizer,
                        task,
                        lang,
                        rows,
                        batch_tokens,
                        head,
                        on_forward=running.on_forward,
                    )
                else:
                    frame = score_task(
                        model,
                        tokenizer,
                        task,
                        lang,
                        rows,
                        batch_tokens,
                        on_forward=running.on_forward,
                    )
            store.put(part_key, frame)
        progress.update()
        labels = {"task": task.name, "lang": lang, "adapter": adapter}
        named = dict(zip(CONDITION, condition, strict=True))
        frames.append(frame.assign(**labels, **named))
    progress.finish()
    result = pd.concat(frames, ignore_index=True)
    first = ["task", "lang", "adapter", *CONDITION, "item"]
    return result[first + [column for column in result if column not in first]]
