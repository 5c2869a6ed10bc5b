"""The perplexity matrices of a selection, one for each intervention."""

from typing import Any

import pandas as pd

from langneurons.evaluation.perplexity import HeldOut, measure
from langneurons.jobs.common import ModelJob


def perplexity_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of the matrices and their metadata."""
    cfg, model = job.cfg, job.model()
    table, statistics, texts = job.table(model), job.statistics(model), job.corpora(model)
    plans = job.plans(table.languages, table, statistics)
    heldout = HeldOut(cfg["tokens"], cfg.get("documents"), cfg["sampled"])
    frame = measure(job.run(model, "perplexity"), texts, plans, heldout)
    more = {
        "interventions": list(plans),
        "languages": table.languages,
        "sampled": cfg["sampled"],
        "identity": model.identity,
    }
    more["texts"] = {lang: text.header.get("text", {}) for lang, text in texts.items()}
    return frame, job.names("model", "langset", "selection") | more
