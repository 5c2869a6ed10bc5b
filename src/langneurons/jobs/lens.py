"""The logit lens on one language set, under every condition."""

from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.base.io import read_jsonl
from langneurons.evaluation.lens import read_layers
from langneurons.jobs.common import ModelJob, plan, read_table
from langneurons.reporting.layouts import names_of


def lens_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of every prompt, layer and language, and their metadata.

    The inputs `neurons` and `questions` are files named by selection and language.
    """
    cfg, model = job.cfg, job.model()
    statistics, texts = job.statistics(model), job.corpora(model)
    tables = {
        names_of(path, "neurons")["selection"]: read_table(path, model)
        for path in job.inputs.get("neurons", [])
    }
    asked = {Path(path).stem: read_jsonl(path) for path in job.inputs["questions"]}
    plans = {
        (selection, name, target): {
            lang: plan(
                name, cfg["interventions"][name], target, tables[selection], statistics, lang
            )
            for lang in cfg["languages"]
        }
        for selection, name, target in map(tuple, cfg["conditions"])
    }
    questions = {lang: asked[lang] for lang in cfg["languages"]}
    frame, covered = read_layers(job.run(model, "lens"), questions, plans, texts, cfg["lens"])
    more = {"coverage": covered.to_dict("records"), "identity": model.identity}
    return frame, job.names("model", "langset") | more
