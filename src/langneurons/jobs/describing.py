"""What is found out about the single neurons of a language set: contexts, tokens, costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.activations.contexts import Wanted, strongest, texts
from langneurons.base.digests import digest
from langneurons.base.languages import parts_of
from langneurons.data.corpus import Corpus
from langneurons.evaluation.lens import NOBODY, token_languages
from langneurons.evaluation.neurons import most_own, written_tokens, zeroing
from langneurons.evaluation.perplexity import HeldOut, measure
from langneurons.evaluation.run import Run
from langneurons.jobs.common import STORE, ModelJob, read_table
from langneurons.selection.table import NeuronTable, union

NOWHERE = (-1, -1)  # the place of the untouched model
PURITY, MIN_COUNT = 0.8, 2  # of the tokens that are a language's own, as the logit lens has them


def described(
    job: ModelJob, checkpoint_seconds: float
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the records `contexts`, `written` and `costs` of a set, and their metadata.

    checkpoint_seconds: how often the state of a pass is saved, from which a killed job goes on.
    Finished languages and finished neurons come from the store.
    """
    cfg, model = job.cfg, job.model()
    asked = cfg["browser"]
    statistics, corpora = job.statistics(model), job.corpora(model)
    paths = job.inputs["neurons"]
    tables = [read_table(path, model) for path in paths]
    langs = tables[0].languages
    chosen = union([table.indices(lang) for table in tables for lang in langs])
    run = job.run(model, "neurons")
    parts = [
        _contexts(run, corpora[lang], chosen, asked, checkpoint_seconds).assign(lang=lang)
        for lang in langs
    ]
    # The tokens of a variant are those of its language, or of none.
    own = {lang: corpora[lang] for lang in corpora if not parts_of(lang)[1]}
    known = np.full(model.vocabulary, NOBODY)
    if len(own) > 1:
        known = token_languages(own, model.vocabulary, PURITY, MIN_COUNT)
    zeroed = _most_own(tables, statistics, asked["zeroed"])
    found = {
        "contexts": pd.concat(parts, ignore_index=True),
        "written": written_tokens(model, chosen, known, sorted(own), asked["written"]),
        "costs": _costs(run, corpora, zeroed, HeldOut(cfg["heldout_tokens"], cfg["documents"])),
    }
    more = {
        "languages": langs,
        "identity": model.identity,
        "browser": asked | {"selections": cfg["selections"]},
    }
    return found, job.names("model", "langset") | more


def _contexts(
    run: Run, corpus: Corpus, chosen: list[np.ndarray], cfg: Mapping[str, Any], seconds: float
) -> pd.DataFrame:
    """Return the contexts of one language, from the store or from a pass over its corpus."""
    asked = {key: cfg[key] for key in ("contexts", "words", "tokens", "site")}
    key = run.key | asked | {"lang": corpus.lang, "corpus_hash": corpus.header["corpus_hash"]}
    key["neurons"] = digest([layer.tolist() for layer in chosen], 32)
    frame = run.store.get(key)
    if frame is not None:
        return frame
    read = Corpus(
        corpus.lang, corpus.identification.first(cfg["tokens"]), corpus.heldout, corpus.header
    )
    state = Path(STORE, "contexts", f"{digest(key, 32)}.safetensors")
    found = strongest(
        run.model,
        read,
        chosen,
        Wanted(cfg["contexts"], 2 * cfg["words"], cfg["site"]),
        run.batch_tokens,
        (state, seconds),
    )
    frame = texts(found, read, run.model.tokenizer, cfg["words"])
    run.store.put(key, frame)
    state.unlink(missing_ok=True)
    return frame


def _most_own(
    tables: list[NeuronTable], statistics: Mapping[str, Any], number: int
) -> list[tuple[int, int]]:
    """Return the neurons that are zeroed by themselves, those of the first table, each once."""
    if not number:
        return []
    masks = {lang: tables[0].mask(lang) for lang in tables[0].languages}
    found = most_own({lang: statistics[lang] for lang in masks}, masks, number)
    return sorted({place for places in found.values() for place in places})


def _costs(
    run: Run, corpora: Mapping[str, Corpus], neurons: list[tuple[int, int]], heldout: HeldOut
) -> pd.DataFrame:
    """Return the NLL of every language's documents, untouched and without each neuron alone."""
    places = {f"{layer}.{neuron}": (layer, neuron) for layer, neuron in neurons}
    plans = {name: zeroing(*place) for name, place in places.items()}
    found = measure(run, corpora, {"zero": plans}, heldout)
    of = found["deactivated"].map(lambda name: places.get(name, NOWHERE))
    return found.assign(layer=of.str[0].astype("int64"), neuron=of.str[1].astype("int64"))
