"""One matrix of the Language Steering Shift: base languages x target languages."""

from typing import Any

import pandas as pd

from langneurons.base.io import read_jsonl
from langneurons.evaluation.steering_shift import measure
from langneurons.jobs.common import ModelJob, plan


def lss_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of one matrix and their metadata.

    The inputs `facts` are in the order of the base languages.
    """
    cfg, model = job.cfg, job.model()
    table, statistics = job.table(model), job.statistics(model)
    name = job.wildcards["intervention"]
    rows = {
        base: read_jsonl(path) for base, path in zip(cfg["bases"], job.inputs["facts"], strict=True)
    }
    plans = {
        lang: plan(name, cfg["intervention"], lang, table, statistics) for lang in cfg["targets"]
    }
    frame = measure(job.run(model, "lss"), rows, plans, cfg["way"])
    more = {
        "bases": cfg["bases"],
        "targets": cfg["targets"],
        "facts": {base: len(one) for base, one in rows.items()},
        "neurons": {lang: one.neurons for lang, one in plans.items()},
        "way": cfg["way"],
        "identity": model.identity,
    }
    return frame, job.names("model", "langset", "selection", "intervention") | more
