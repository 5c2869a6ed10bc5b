"""One adapter."""

import gc
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.adapters import MlpSites
from langneurons.cells.common import STORE, load, read_table
from langneurons.config.finetuning import Training
from langneurons.finetune import finetune
from langneurons.io import read_json, read_jsonl, write_json
from langneurons.memory import TooLarge, more_parts, out_of_memory, release
from langneurons.neurons import union
from langneurons.provenance import digest, file_digest
from langneurons.tasks import load_task

log = logging.getLogger(__name__)
PARTS_FILE = "parts.json"


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
    """Train one adapter into a folder and return its curves.

    If memory runs out, the model is loaded anew and training goes on from its last checkpoint with
    each batch in more passes; how many is remembered beside the checkpoints.
    """
    training = Training.model_validate(cfg["training"] | {"report_to": report_to})
    items = read_jsonl(rows)
    key = [cfg, code, read_json(manifest), digest(items), neurons and file_digest(neurons)]
    work = Path(STORE, "finetuning", digest(key, 32))
    remembered = work / PARTS_FILE
    while True:
        parts = read_json(remembered)["parts"] if remembered.is_file() else 1
        model = None
        try:
            model, tokenizer, who = load(cfg, manifest)
            selected = _selected(cfg, training, model, neurons, who)
            return finetune(
                model,
                tokenizer,
                load_task(definition),
                items,
                cfg["lang"],
                training,
                selected,
                folder,
                work,
                parts,
                who,
            )
        except RuntimeError as error:
            more = more_parts(training.batch_size, parts)
            if not out_of_memory(error):
                raise
            if more is None:
                raise TooLarge("row", error) from error
        log.warning("out of memory; each batch of %d in %d passes", training.batch_size, more)
        write_json(remembered, {"parts": more})
        del model
        gc.collect()
        release()


def _selected(
    cfg: dict[str, Any], training: Training, model, neurons: str | None, who: dict[str, Any]
) -> dict[str, list[np.ndarray]] | None:
    """Return the neurons that are trained, by projection and layer; None: the attention alone."""
    chosen = None
    if cfg["choice"] == "all":
        layers = MlpSites(model)
        chosen = [np.arange(layers.d_mlp)] * layers.n_layers
    elif neurons is not None:
        table = read_table(neurons, who)
        chosen = union([table.indices(lang) for lang in cfg["languages"]])
        if not sum(map(len, chosen)):
            log.warning("NO NEURONS of %s: only the attention is trained", cfg["languages"])
    return None if chosen is None else dict.fromkeys(training.projections, chosen)
