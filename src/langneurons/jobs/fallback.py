"""Answers while the neurons of more and more languages are overwritten."""

from typing import Any

import pandas as pd

from langneurons.base.io import read_jsonl
from langneurons.evaluation.forcing import cumulative, fall_back
from langneurons.jobs.common import ModelJob, plan


def fallback_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the texts of every step, and their metadata."""
    cfg, model = job.cfg, job.model()
    table, statistics = job.table(model), job.statistics(model)
    name = job.wildcards["intervention"]
    plans = [
        (lang, plan(name, cfg["intervention"], lang, table, statistics)) for lang in cfg["order"]
    ]
    run, questions = job.run(model, "generation"), read_jsonl(job.inputs["questions"])
    frame = fall_back(run, questions, cumulative(plans), cfg["decoding"])
    more = {"languages": table.languages, "identity": model.identity}
    return frame, job.names("model", "langset", "selection", "intervention") | more
