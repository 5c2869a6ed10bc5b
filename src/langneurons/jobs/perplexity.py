"""One perplexity matrix."""

from typing import Any

import pandas as pd

from langneurons.evaluation.perplexity import HeldOut, measure
from langneurons.jobs.common import ModelJob, plan


def perplexity_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of one perplexity matrix and their metadata."""
    cfg, model = job.cfg, job.model()
    table, statistics, texts = job.table(model), job.statistics(model), job.corpora(model)
    name = job.wildcards["intervention"]
    plans = {
        lang: plan(name, cfg["intervention"], lang, table, statistics) for lang in table.languages
    }
    heldout = HeldOut(cfg["tokens"], cfg.get("documents"), cfg["sampled"])
    frame = measure(job.run(model, "perplexity"), texts, plans, heldout)
    more = {"languages": table.languages, "sampled": cfg["sampled"], "identity": model.identity}
    more["texts"] = {lang: text.header.get("text", {}) for lang, text in texts.items()}
    return frame, job.names("model", "langset", "selection", "intervention") | more
