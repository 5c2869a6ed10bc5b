"""One adapter."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.adapters import MlpSites
from langneurons.cells.common import STORE, load, read_table
from langneurons.config.finetuning import TextRows, Training
from langneurons.corpora import Corpus
from langneurons.finetune import finetune, train
from langneurons.io import read_jsonl
from langneurons.loading import tokenizer_hash
from langneurons.neurons import union
from langneurons.provenance import digest, file_digest
from langneurons.tasks import load_task
from langneurons.text import encode_text, heldout_nll

log = logging.getLogger(__name__)


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
    """
    model, tokenizer, who = load(cfg, inputs["manifest"])
    training = Training.model_validate(cfg["training"] | {"report_to": report_to})
    neurons = inputs.get("neurons")
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
    selected = None if chosen is None else dict.fromkeys(training.projections, chosen)
    key = [cfg, code, who, None if neurons is None else file_digest(neurons)]
    if "corpus" not in inputs:
        items = read_jsonl(inputs["rows"])
        work = Path(STORE, "finetuning", digest([*key, digest(items)], 32))
        task = load_task(inputs["definition"])
        curves = finetune(
            model, tokenizer, task, items, cfg["lang"], training, selected, folder, work, who
        )
        return curves, {}
    source = TextRows.model_validate(cfg["source"])
    corpus = Corpus.read(inputs["corpus"], tokenizer_hash(tokenizer))
    work = Path(STORE, "finetuning", digest([*key, corpus.header["corpus_hash"]], 32))
    reading = (corpus, source.heldout_tokens, training.batch_size * training.max_length)
    before = heldout_nll(model, *reading)
    items = encode_text(corpus, source.tokens, training.max_length)
    curves = train(model, tokenizer, items, training, selected, folder, work, who)
    after = heldout_nll(model, *reading)
    log.info(
        "%s, %d held-out tokens: perplexity %.3f before, %.3f after training",
        corpus.lang,
        after["tokens"],
        before["perplexity"],
        after["perplexity"],
    )
    return curves, {"heldout": {"before": before, "after": after}}
