"""The Language Steering Shift of a selection: base x target languages under each intervention."""

from typing import Any

import pandas as pd

from langneurons.base.io import read_jsonl
from langneurons.evaluation.steering_shift import measure
from langneurons.jobs.common import ModelJob


def lss_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records under every intervention and their metadata.

    The inputs `facts` are in the order of the base languages.
    """
    cfg, model = job.cfg, job.model()
    table, statistics = job.table(model), job.statistics(model)
    rows = {
        base: read_jsonl(path) for base, path in zip(cfg["bases"], job.inputs["facts"], strict=True)
    }
    plans = job.plans(cfg["targets"], table, statistics)
    frame = measure(job.run(model, "lss"), rows, plans, cfg["premises"])
    more = {
        "bases": cfg["bases"],
        "targets": cfg["targets"],
        "facts": {base: len(one) for base, one in rows.items()},
        "interventions": list(plans),
        "neurons": {
            name: {lang: one.neurons for lang, one in own.items()} for name, own in plans.items()
        },
        "premises": cfg["premises"],
        "identity": model.identity,
    }
    return frame, job.names("model", "langset", "selection") | more
