"""One adapter."""

import gc
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.base.digests import digest, file_digest
from langneurons.base.io import read_json, read_jsonl, write_json
from langneurons.data.corpus import Corpus
from langneurons.evaluation.definition import load_task
from langneurons.jobs.common import STORE, ModelJob
from langneurons.models.language_model import LanguageModel
from langneurons.runtime.halving import TooLarge, more_parts, out_of_memory, release
from langneurons.selection.table import union
from langneurons.training.batches import items_of
from langneurons.training.settings import TextRows, Training
from langneurons.training.text import encode_documents, encode_text, heldout_nll
from langneurons.training.trainer import Folders, head_size, train

log = logging.getLogger(__name__)
PARTS_FILE = "parts.json"


def finetuning_cell(
    job: ModelJob, report_to: str, folder: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Train one adapter into a folder; return its curves, and the held-out NLL of text.

    Inputs: `manifest`, `neurons` if it is restricted, and `definition` and `rows` of a task or the
    `corpus` of a language.

    If memory runs out, the model is loaded anew and training goes on from its last checkpoint with
    each batch in more passes; how many is remembered beside the checkpoints.
    """
    training = Training.model_validate(job.cfg["training"] | {"report_to": report_to})
    key = [job.cfg, job.code, *(file_digest(path) for _, path in sorted(job.inputs.items()))]
    work = Path(STORE, "finetuning", digest(key, 32))
    remembered = work / PARTS_FILE
    teach = _text if "corpus" in job.inputs else _task
    while True:
        parts = read_json(remembered)["parts"] if remembered.is_file() else 1
        model = None
        try:
            model = job.model()
            fit = partial(
                train,
                model,
                training=training,
                neurons=_selected(job, training, model),
                folders=Folders(folder, work),
                parts=parts,
            )
            return teach(job, model, training, fit)
        except RuntimeError as error:
            more = more_parts(training.batch_size, parts)
            if not out_of_memory(error):
                raise
            if more is None:
                raise TooLarge("row", error) from error
        log.warning("out of memory; each batch of %d in %d passes", training.batch_size, more)
        write_json(remembered, {"parts": more})
        del model, fit
        gc.collect()
        release()


def _task(
    job: ModelJob, model: LanguageModel, training: Training, fit: Callable
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Train on the rows of a task."""
    task, rows = load_task(job.inputs["definition"]), read_jsonl(job.inputs["rows"])
    items = items_of(model, task, rows, job.cfg["lang"], training.max_length)
    curves = fit(items, classes=head_size(task))
    counted = {"trained": len(items), "left_out": len(rows) - len(items)}
    return curves, {"items": counted, "rows": read_json(job.inputs["about"])}


def _text(
    job: ModelJob, model: LanguageModel, training: Training, fit: Callable
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Train on a corpus; read its held-out part before and after."""
    source, lang = TextRows.model_validate(job.cfg["source"]), job.cfg["lang"]
    corpus = Corpus.read(job.inputs["corpus"], lang=lang, tokenizer_hash=model.tokenizer_hash)
    reading = (corpus, source.heldout_tokens, training.batch_size * training.max_length)
    before = heldout_nll(model, *reading)
    if source.characters is None:
        items = encode_text(corpus, source.tokens, training.max_length)
    else:
        cut = source.characters, training.max_length, source.learn_padding
        items = encode_documents(corpus, model.tokenizer, source.tokens, *cut)
    curves = fit(items)
    # Training has put modules of its own into the model.
    after = heldout_nll(model.tuned(model.model), *reading)
    log.info(
        "%s, %d held-out tokens: perplexity %.3f before, %.3f after training",
        corpus.lang,
        after["tokens"],
        before["perplexity"],
        after["perplexity"],
    )
    heldout = {"before": before, "after": after}
    return curves, {"heldout": heldout, "text": corpus.header.get("text", {})}


def _selected(
    job: ModelJob, training: Training, model: LanguageModel
) -> dict[str, list[np.ndarray]] | None:
    """Return the neurons that are trained, by projection and layer; None: no restriction."""
    chosen = None
    if job.cfg["choice"] == "all":
        chosen = [np.arange(model.d_mlp)] * model.n_layers
    elif "neurons" in job.inputs:
        table = job.table(model)
        chosen = union([table.indices(lang) for lang in job.cfg["languages"]])
        if not sum(map(len, chosen)):
            left = "the attention" if training.parameters == "lora" else "the head, if any,"
            log.warning("NO NEURONS of %s: only %s is trained", job.cfg["languages"], left)
    return None if chosen is None else dict.fromkeys(training.projections, chosen)
