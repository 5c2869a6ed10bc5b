"""The perplexity matrices of a selection, one for each intervention."""

import logging
from collections.abc import Collection
from typing import Any

import pandas as pd

from langneurons.base.errors import present
from langneurons.base.words import UNTOUCHED
from langneurons.evaluation.paired import at_each_look, paired_ratio_change
from langneurons.evaluation.perplexity import HeldOut, measure_in_looks
from langneurons.jobs.common import ModelJob

log = logging.getLogger(__name__)


def perplexity_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of the matrices and their metadata."""
    cfg, model = job.cfg, job.model()
    table, statistics, texts = job.table(model), job.statistics(model), job.corpora(model)
    plans = job.plans(table.languages, table, statistics)
    heldout = HeldOut(cfg["tokens"], cfg.get("documents"), cfg["sampled"])
    until, frame, taken = cfg.get("until"), None, 0
    looks = until["looks"] if until else 1
    still = {(name, lang) for name, own in plans.items() for lang, one in own.items() if one.empty}
    run = job.run(model, "perplexity")
    for frame in measure_in_looks(run, texts, plans, heldout, looks):
        taken += 1
        if until and narrow(frame, until["width"], at_each_look(cfg["confidence"], looks), still):
            log.info("every interval is narrower than %g after look %d", until["width"], taken)
            break
    frame = present(frame, "perplexity: nothing was read")
    more = {
        "interventions": list(plans),
        "languages": table.languages,
        "sampled": cfg["sampled"],
        "identity": model.identity,
    }
    if until:
        first = frame[frame["intervention"] == UNTOUCHED]
        documents = first.groupby("evaluated")["document"].nunique()
        numbers = {str(lang): int(number) for lang, number in documents.items()}
        more["until"] = until | {"taken": taken, "documents": numbers}
    more["texts"] = {lang: text.header.get("text", {}) for lang, text in texts.items()}
    return frame, job.names("model", "langset", "selection") | more


def narrow(
    frame: pd.DataFrame, width: float, confidence: float, still: Collection[tuple[str, str]]
) -> bool:
    """Return whether the interval of every cell's change is narrower than a width.

    `still` are interventions and languages that write nothing: their change is 0. A cell without
    an interval is not narrow.
    """
    for _, part in frame.groupby("evaluated"):
        nll = part.pivot(index="document", columns=["intervention", "deactivated"], values="nll")
        tokens = part.groupby("document")["tokens"].first().loc[nll.index].to_numpy()
        cells = [one for one in nll if one[0] != UNTOUCHED and one not in still]
        if not cells:
            continue
        baseline = nll[UNTOUCHED, UNTOUCHED].to_numpy()
        _, low, high, _ = paired_ratio_change(baseline, nll[cells].to_numpy(), tokens, confidence)
        if not (high - low < width).all():
            return False
    return True
