"""One adapter."""

import gc
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.base.digests import digest, file_digest
from langneurons.base.io import read_json, read_jsonl, write_json
from langneurons.data.corpus import Corpus
from langneurons.evaluation.tasks import load_task
from langneurons.jobs.common import STORE, load, read_table
from langneurons.models.families import MlpSites
from langneurons.models.load import tokenizer_hash
from langneurons.runtime.halving import TooLarge, more_parts, out_of_memory, release
from langneurons.selection.table import union
from langneurons.training.settings import TextRows, Training
from langneurons.training.text import encode_documents, encode_text, heldout_nll
from langneurons.training.trainer import head_size, items_of, train

log = logging.getLogger(__name__)
PARTS_FILE = "parts.json"


def finetuning_cell(
    cfg: dict[str, Any],
    code: list[str],
    report_to: str,
    inputs: Mapping[str, str],
    folder: str,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Train one adapter into a folder; return its curves, and the held-out NLL of text.

    inputs: the files `manifest`, `neurons` if it is restricted, and `definition` and `rows` of a
    task or the `corpus` of a language.

    If memory runs out, the model is loaded anew and training goes on from its last checkpoint with
    each batch in more passes; how many is remembered beside the checkpoints.
    """
    training = Training.model_validate(cfg["training"] | {"report_to": report_to})
    key = [cfg, code, *(file_digest(path) for _, path in sorted(inputs.items()))]
    work = Path(STORE, "finetuning", digest(key, 32))
    remembered = work / PARTS_FILE
    teach = _text if "corpus" in inputs else _task
    while True:
        parts = read_json(remembered)["parts"] if remembered.is_file() else 1
        model = None
        try:
            model, tokenizer, who = load(cfg, inputs["manifest"])
            chosen = _selected(cfg, training, model, inputs.get("neurons"), who)
            return teach(cfg, inputs, model, tokenizer, training, chosen, folder, work, who, parts)
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


def _task(cfg, inputs, model, tokenizer, training, chosen, folder, work, who, parts):
    """Train on the rows of a task."""
    task, rows = load_task(inputs["definition"]), read_jsonl(inputs["rows"])
    items = items_of(model, tokenizer, task, rows, cfg["lang"], training)
    curves = train(
        model, tokenizer, items, training, chosen, folder, work, who, head_size(task), parts
    )
    counted = {"trained": len(items), "left_out": len(rows) - len(items)}
    return curves, {"items": counted, "rows": read_json(inputs["about"])}


def _text(cfg, inputs, model, tokenizer, training, chosen, folder, work, who, parts):
    """Train on a corpus; read its held-out part before and after."""
    source = TextRows.model_validate(cfg["source"])
    made_by = tokenizer_hash(tokenizer)
    corpus = Corpus.read(inputs["corpus"], lang=cfg["lang"], tokenizer_hash=made_by)
    reading = (corpus, source.heldout_tokens, training.batch_size * training.max_length)
    before = heldout_nll(model, *reading)
    if source.characters is None:
        items = encode_text(corpus, source.tokens, training.max_length)
    else:
        cut = source.characters, training.max_length, source.learn_padding
        items = encode_documents(corpus, tokenizer, source.tokens, *cut)
    curves = train(model, tokenizer, items, training, chosen, folder, work, who, parts=parts)
    after = heldout_nll(model, *reading)
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
    cfg: dict[str, Any], training: Training, model, neurons: str | None, who: dict[str, Any]
) -> dict[str, list[np.ndarray]] | None:
    """Return the neurons that are trained, by projection and layer; None: no restriction."""
    chosen = None
    if cfg["choice"] == "all":
        layers = MlpSites(model)
        chosen = [np.arange(layers.d_mlp)] * layers.n_layers
    elif neurons is not None:
        table = read_table(neurons, who)
        chosen = union([table.indices(lang) for lang in cfg["languages"]])
        if not sum(map(len, chosen)):
            left = "the attention" if training.parameters == "lora" else "the head, if any,"
            log.warning("NO NEURONS of %s: only %s is trained", cfg["languages"], left)
    return None if chosen is None else dict.fromkeys(training.projections, chosen)
