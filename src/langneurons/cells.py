"""The two jobs that run a model under interventions, from file names to records."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.adapters import MlpSites
from langneurons.config.finetuning import Training
from langneurons.config.interventions import InterventionEntry
from langneurons.config.models import ModelEntry
from langneurons.corpora import Corpus
from langneurons.evaluation import evaluate
from langneurons.interventions import Plan, resolve
from langneurons.io import DamagedFile, damaged, read_json, read_jsonl
from langneurons.loading import identity, load_model, tokenizer_hash
from langneurons.neurons import NeuronTable, union
from langneurons.perplexity import measure
from langneurons.provenance import digest, file_digest
from langneurons.sidestore import SideStore
from langneurons.statistics import Statistics
from langneurons.tasks import Task, load_task

log = logging.getLogger(__name__)
STORE = "results/.work"


def _model(cfg: dict[str, Any], manifest: str):
    entry = ModelEntry.model_validate(cfg["model"])
    model, tokenizer = load_model(entry, manifest)
    return model, tokenizer, identity(entry, read_json(manifest))


def _statistics(paths: list[str], who: dict[str, Any]) -> dict[str, Statistics]:
    """Read statistics; refuse those of another model, revision, dtype or quantisation."""
    result = {}
    for path in paths:
        one = Statistics.read(path)
        for key, value in who.items():
            if one.header[key] != value:
                reason = f"{key} is {one.header[key]!r}, the model's is {value!r}"
                raise DamagedFile(damaged(path, reason))
        result[one.lang] = one
    return result


def _table(path: str, who: dict[str, Any]) -> NeuronTable:
    """Read a neuron table; refuse one of another model."""
    table = NeuronTable.from_parquet(path)
    for key in ("model", "revision"):
        if table.metadata.get(key) != who[key]:
            reason = f"{key} is {table.metadata.get(key)!r}, the model's is {who[key]!r}"
            raise DamagedFile(damaged(path, reason))
    return table


def _plan(
    name: str,
    settings: dict[str, Any],
    target: str,
    table: NeuronTable,
    statistics: dict[str, Statistics],
) -> Plan:
    steps = InterventionEntry.model_validate({"steps": settings["steps"]}).steps
    own = {lang: one for lang, one in statistics.items() if lang in table.languages}
    return resolve(name, steps, target, table, own, settings.get("quantiles", "corrected"))


def perplexity_cell(
    cfg: dict[str, Any],
    code: list[str],
    wildcards: dict[str, str],
    manifest: str,
    neurons: str,
    statistics: list[str],
    corpora: list[str],
    batch_tokens: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of one perplexity matrix and their metadata."""
    model, tokenizer, who = _model(cfg, manifest)
    table = _table(neurons, who)
    own = _statistics(statistics, who)
    texts = [Corpus.read(path, tokenizer_hash(tokenizer)) for path in corpora]
    plans = {
        lang: _plan(wildcards["intervention"], cfg["intervention"], lang, table, own)
        for lang in table.languages
    }
    frame = measure(
        model,
        {text.lang: text for text in texts},
        plans,
        SideStore(STORE, "perplexity"),
        {"model": who, "code": digest(code)},
        cfg["tokens"],
        batch_tokens,
        cfg["sampled"],
    )
    names = {key: wildcards[key] for key in ("model", "langset", "selection", "intervention")}
    more = {"languages": table.languages, "sampled": cfg["sampled"], "identity": who}
    return frame, names | more


def _adapted(model, task: Task, adapter: str, training: dict[str, Any]):
    """Return the model with an adapter, and the settings of its head if it classifies."""
    from peft import PeftModel

    from langneurons.finetune import Head, add_head

    head = None
    if task.kind == "classification":
        add_head(model, len(task.classes))
        head = Head(training["pooling"], training["max_length"])
    return PeftModel.from_pretrained(model, str(Path(adapter).parent)).eval(), head


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
    from langneurons.finetune import finetune

    model, tokenizer, who = _model(cfg, manifest)
    training = Training.model_validate(cfg["training"] | {"report_to": report_to})
    chosen = None
    if cfg["choice"] == "all":
        layers = MlpSites(model)
        chosen = [np.arange(layers.d_mlp)] * layers.n_layers
    elif neurons is not None:
        table = _table(neurons, who)
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


def evaluation_cell(
    cfg: dict[str, Any],
    code: list[str],
    wildcards: dict[str, str],
    manifest: str,
    definition: str,
    rows: str,
    neurons: list[str],
    statistics: list[str],
    batch_tokens: int,
    adapter: str | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of one task in one language, and their metadata.

    `adapter` is the weights file of a LoRA adapter that the model gets first.
    """
    model, tokenizer, who = _model(cfg, manifest)
    own = _statistics(statistics, who)
    task, lang = load_task(definition), wildcards["lang"]
    head, part = None, who
    if adapter is not None:
        model, head = _adapted(model, task, adapter, cfg["training"])
        part = who | {"adapter": file_digest(adapter)}
    tables = {tuple(path.removesuffix(".parquet").split("/")[-2:]): path for path in neurons}
    loaded = {key: _table(path, who) for key, path in tables.items()}
    plans = {
        (langset, selection, name): _plan(
            name, cfg["interventions"][name], lang, loaded[langset, selection], own
        )
        for langset, selection, name in map(tuple, cfg["conditions"])
    }
    frame = evaluate(
        model,
        tokenizer,
        task,
        lang,
        read_jsonl(rows),
        plans,
        SideStore(STORE, "evaluation"),
        {"model": part, "code": digest(code)},
        batch_tokens,
        wildcards["adapter"],
        head,
    )
    names = {key: wildcards[key] for key in ("model", "task", "lang", "adapter")}
    return frame, names | {"metrics": list(task.metrics), "identity": who}
