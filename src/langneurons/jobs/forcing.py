"""Language forcing under one intervention on the neurons of one selection."""

from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.base.io import read_jsonl
from langneurons.evaluation.forcing import force
from langneurons.jobs.common import ModelJob, plan


def forcing_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the texts of every pair of source and target, and their metadata.

    The inputs `questions` are files named by their language.
    """
    cfg, model = job.cfg, job.model()
    table, statistics = job.table(model), job.statistics(model)
    name = job.wildcards["intervention"]
    asked = {Path(path).stem: read_jsonl(path) for path in job.inputs["questions"]}
    plans = {
        (source, target): plan(name, cfg["intervention"], target, table, statistics, source)
        for source in cfg["sources"]
        for target in cfg["targets"]
    }
    questions = {source: asked[source] for source in cfg["sources"]}
    frame = force(job.run(model, "generation"), questions, plans, cfg["decoding"])
    more = {"languages": table.languages, "identity": model.identity}
    return frame, job.names("model", "langset", "selection", "intervention") | more
