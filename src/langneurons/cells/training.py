"""One adapter."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.adapters import MlpSites
from langneurons.cells.common import STORE, load, read_table
from langneurons.config.finetuning import Training
from langneurons.finetune import finetune
from langneurons.io import read_jsonl
from langneurons.neurons import union
from langneurons.provenance import digest, file_digest
from langneurons.tasks import load_task

log = logging.getLogger(__name__)


def finetuning_cell(
    cfg: dict[str, Any],
    code: list[str],
    report_to: str,
    manifest: str,
    definition: str,
    rows: str,
    neurons: str | None,
    folder: str,
) -> pd.DataFrame:
    """Train one adapter into a folder and return its curves."""
    model, tokenizer, who = load(cfg, manifest)
    training = Training.model_validate(cfg["training"] | {"report_to": report_to})
    chosen = None
    if cfg["choice"] == "all":
        layers = MlpSites(model)
        chosen = [np.arange(layers.d_mlp)] * layers.n_layers
    elif neurons is not None:
        table = read_table(neurons, who)
        chosen = union([table.indices(lang) for lang in cfg["languages"]])
        if not sum(map(len, chosen)):
            log.warning("NO NEURONS of %s: only the attention is trained", cfg["languages"])
    selected = None if chosen is None else dict.fromkeys(training.projections, chosen)
    items = read_jsonl(rows)
    key = [cfg, code, who, digest(items), None if neurons is None else file_digest(neurons)]
    return finetune(
        model,
        tokenizer,
        load_task(definition),
        items,
        cfg["lang"],
        training,
        selected,
        folder,
        Path(STORE, "finetuning", digest(key, 32)),
    )
