"""What each rule's job depends on in the configuration: its `params.cfg`.

Plain, key-sorted values; two equal values mean the same job. Labels, names of sets, orders of
sets, colours and resources never enter.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from langneurons.base.digests import file_digest
from langneurons.base.protocols import STAGES, Protocol
from langneurons.base.shipped import project_file
from langneurons.config.config import Config, entry_languages
from langneurons.config.controls import roles
from langneurons.config.labels import adapter_labels, shown
from langneurons.data.settings import TextSource
from langneurons.interventions.settings import percentile, statistic_site
from langneurons.models.settings import NEWEST
from langneurons.reporting.kinds import KINDS, all_figures, figures, named_caption, named_figure
from langneurons.reporting.labels import Labels, quoted
from langneurons.training.settings import Adapter, FinetuneEntry

_STAGES: dict[str, Callable[..., dict[str, Any]]] = {}


def _stage(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    _STAGES[function.__name__] = function
    return function


def stage(config: Config, name: str, **wildcards: str) -> dict[str, Any]:
    """Return the parameters of a rule's job as key-sorted plain values."""
    return json.loads(json.dumps(_STAGES[name](config, **wildcards), sort_keys=True))


def _model(config: Config, model: str) -> dict[str, Any]:
    return config.models[model].model_dump(mode="json", include={"source", "dtype", "quantization"})


@_stage
def prepare_model(config: Config, model: str) -> dict[str, Any]:
    """Return the source of the weights."""
    return {"source": config.models[model].source.model_dump(mode="json", exclude={"terms"})}


@_stage
def quantize_model(config: Config, model: str) -> dict[str, Any]:
    """Return the source of the weights and their numeric format."""
    return _model(config, model)


@_stage
def fetch_text(config: Config, lang: str) -> dict[str, Any]:
    """Return the source of the documents and their split."""
    corpus = config.corpus
    keys = {"heldout_fraction", "seed", "split"} if corpus.heldout_source is None else set()
    sources = {
        name: _text_source(source, lang)
        for name in ("source", "heldout_source")
        if (source := getattr(corpus, name)) is not None
    }
    return corpus.model_dump(mode="json", include=keys) | {"lang": lang} | sources


def _text_source(source: TextSource, lang: str) -> dict[str, Any]:
    """Return a source, and of its codes the language's own."""
    values = source.model_dump(mode="json")
    if "codes" in values:
        values["codes"] = {key: code for key, code in values["codes"].items() if key == lang}
    return values


@_stage
def pack_corpus(config: Config, model: str, lang: str) -> dict[str, Any]:
    """Return how documents are packed."""
    keys = {"tokens", "heldout_tokens", "block_size", "heldout_block_size", "bos", "separator"}
    keys |= {"packing", "prefix"}
    return config.corpus.model_dump(mode="json", include=keys) | {"lang": lang}


@_stage
def collect_statistics(config: Config, model: str, lang: str, shard: str) -> dict[str, Any]:
    """Return what is measured, in which numeric format."""
    statistics = config.statistics.model_dump(mode="json")
    return {"statistics": statistics, "model": _model(config, model), "shard": int(shard)}


@_stage
def merge_statistics(config: Config, model: str, lang: str) -> dict[str, Any]:
    """Return the number of shards."""
    return {"shards": config.statistics.shards}


@_stage
def select_neurons(config: Config, model: str, langset: str, selection: str) -> dict[str, Any]:
    """Return the selection's parameters, the digest of its file, and the languages, sorted."""
    chosen = config.selections[selection]
    identity, file = chosen.identity(), chosen.file(model)
    if file is not None:
        identity["sha256"] = file_digest(project_file(file), 64)
    return {
        "selection": identity,
        "languages": list(config.directory_languages()[langset]),
    }


def _intervention(config: Config, name: str, protocol: Protocol) -> dict[str, Any]:
    entry = config.interventions[name]
    steps = []
    for step in entry.steps:
        site = statistic_site(step, protocol) if step.statistic else None
        steps.append(step.model_dump(mode="json") | {"statistic_site": site})
    named = [step.statistic or step.factor for step in entry.steps]
    result: dict[str, Any] = {"steps": steps}
    if any(percentile(value) is not None for value in named):
        result["quantiles"] = protocol.quantiles
    return result | ({"shared": entry.shared} if entry.shared != "in_order" else {})


@_stage
def measure_perplexity(
    config: Config, model: str, variant: str, langset: str, selection: str, intervention: str
) -> dict[str, Any]:
    """Return the intervention and which text is read."""
    protocol, entry = config.under("perplexity", variant), config.perplexity
    return {
        "intervention": _intervention(config, intervention, protocol),
        "tokens": None if entry is None else entry.tokens,
        "sampled": protocol.perplexity_text == "paper",
        "model": _model(config, model),
    } | ({"documents": entry.documents} if entry is not None and entry.documents else {})


@_stage
def prepare_facts(config: Config, lang: str) -> dict[str, Any]:
    """Return where the facts come from."""
    source = config.lss.source.model_dump(mode="json")
    return {"source": source, "limit": config.lss.limit, "lang": lang}


@_stage
def measure_lss(
    config: Config, model: str, variant: str, langset: str, selection: str, intervention: str
) -> dict[str, Any]:
    """Return the intervention, the languages, and how premises are made."""
    protocol = config.under("steering", variant)
    bases, targets = config.lss_languages(langset)
    return {
        "bases": bases,
        "intervention": _intervention(config, intervention, protocol),
        "model": _model(config, model),
        "targets": targets,
        "way": protocol.lss,
    }


@_stage
def prepare_questions(config: Config, analysis: str, lang: str) -> dict[str, Any]:
    """Return where the questions come from."""
    entry = getattr(config, analysis)
    source = entry.questions.model_dump(mode="json")
    return {"source": source, "limit": entry.limit, "lang": lang}


_DECODING = {"template", "max_new_tokens", "repetition_penalty", "stop"}


@_stage
def force_language(
    config: Config, model: str, variant: str, langset: str, selection: str, intervention: str
) -> dict[str, Any]:
    """Return the intervention, the pairs of languages and how answers are decoded."""
    entry = config.forcing
    asked, forced = entry_languages(entry, config.directory_languages()[langset])
    return {
        "intervention": _intervention(config, intervention, config.under("generation", variant)),
        "sources": list(asked),
        "targets": list(forced),
        "decoding": entry.model_dump(mode="json", include=_DECODING),
        "model": _model(config, model),
    }


@_stage
def fall_back(
    config: Config, model: str, variant: str, langset: str, selection: str, intervention: str
) -> dict[str, Any]:
    """Return the intervention, the order of the languages and how answers are decoded."""
    entry = config.fallback
    _, order = entry_languages(entry, config.directory_languages()[langset])
    return {
        "intervention": _intervention(config, intervention, config.under("generation", variant)),
        "order": list(order),
        "decoding": entry.model_dump(mode="json", include=_DECODING),
        "model": _model(config, model),
    }


@_stage
def judge_texts(config: Config, analysis: str) -> dict[str, Any]:
    """Return how languages are identified, and from where on a text is degenerate."""
    keys = {"identifier", "degenerate"}
    return getattr(config, analysis).model_dump(mode="json", include=keys)


@_stage
def read_layers(config: Config, model: str, variant: str, langset: str) -> dict[str, Any]:
    """Return the prompts' languages, the conditions, and which tokens are a language's."""
    protocol = config.under("generation", variant)
    asked, _ = entry_languages(config.lens, config.directory_languages()[langset])
    conditions = config.lens_cells(model)[langset]
    names = sorted({name for _, name, _ in conditions})
    keys = {"template", "purity", "min_count", "reading", "identifier"}
    return {
        "conditions": sorted(list(condition) for condition in conditions),
        "interventions": {name: _intervention(config, name, protocol) for name in names},
        "languages": list(asked),
        "lens": config.lens.model_dump(mode="json", include=keys),
        "model": _model(config, model),
    }


@_stage
def prepare_task(config: Config, variant: str, task: str, lang: str) -> dict[str, Any]:
    """Return where the items come from."""
    entry = config.tasks[task].under(config.under("items", variant))
    source = entry.source.model_dump(mode="json", exclude_none=True)
    if entry.source.kind == "mini":  # whatever definition a protocol puts in
        source.setdefault("name", task)
    return {"source": source, "limit": entry.limit, "lang": lang, "rows": list(entry.rows)}


@_stage
def prepare_training(config: Config, variant: str, finetuning: str) -> dict[str, Any]:
    """Return where the training rows come from."""
    entry = config.finetunings[finetuning].under(config.under("rows", variant))
    source = entry.source.model_dump(mode="json", exclude_none=True)
    return {"source": source, "limit": None, "lang": entry.language, "rows": list(entry.rows)}


@_stage
def finetune(config: Config, model: str, variant: str, adapter: str) -> dict[str, Any]:
    """Return the hyperparameters and whose neurons are trained."""
    one = config.adapters(model)[adapter]
    entry = _entry(config, one, config.under("adapters", variant))
    training = entry.training.model_dump(mode="json", exclude={"report_to"})
    return {
        "choice": one.choice,
        "lang": entry.language,
        "languages": list(one.languages(entry.language)),
        "model": _model(config, model),
        "training": training,
    } | ({"source": entry.source.model_dump(mode="json")} if entry.is_text else {})


@_stage
def evaluate_task(
    config: Config, model: str, variant: str, adapter: str, task: str, lang: str
) -> dict[str, Any]:
    """Return every condition of a cell."""
    protocol = config.under("evaluation", variant)
    one = config.adapters(model).get(adapter)
    conditions = config.task_conditions(model, task, lang, one)
    names = sorted({name for _, _, name, _ in conditions})
    return {
        "conditions": sorted(list(condition) for condition in conditions),
        "interventions": {name: _intervention(config, name, protocol) for name in names},
        "model": _model(config, model),
    } | ({"training": _head(_entry(config, one, protocol))} if one else {})


def _entry(config: Config, adapter: Adapter, protocol: Protocol) -> FinetuneEntry:
    """Return the fine-tuning of an adapter under a protocol."""
    return config.finetunings[adapter.finetuning].under(protocol)


def _head(entry: FinetuneEntry) -> dict[str, Any]:
    """Return how the head of a classifier reads its input."""
    training = entry.training
    return training.model_dump(mode="json", include={"pooling", "max_length"})


@_stage
def labels(config: Config, **_: str) -> dict[str, Any]:
    """Return what tables and figures take from the configuration: labels, orders, levels."""
    return asdict(labels_of(config))


def labels_of(config: Config) -> Labels:
    """Return the labels of a configuration."""
    sections = ("models", "selections", "interventions", "tasks", "finetunings")
    sequenced = ("models", "language_sets", "selections", "interventions", "tasks")
    return Labels(
        name=config.name,
        title=config.title,
        heading=quoted(config.title or config.name),
        sets=config.labels(),
        language_sets={key: list(value) for key, value in config.language_sets.items()},
        language_names=config.language_names(),
        families=config.language_families(),
        languages=list(config.language_names()),
        **{section: shown(config, section) for section in sections},
        adapters=adapter_labels(config),
        adapter_fields=_adapter_fields(config),
        sweeps=config.sweeps(),
        protocols={
            name: protocol.model_dump() | {stage: protocol.variant(stage) for stage in STAGES}
            for name, protocol in config.protocols.items()
        },
        roles=roles(config),
        results=config.results.model_dump(mode="json"),
        site=config.statistics.histograms[0] if config.statistics.histograms else None,
        sequence={section: list(getattr(config, section)) for section in sequenced},
    )


@_stage
def draw_figures(config: Config, model: str, protocol: str) -> dict[str, Any]:
    """Return labels, and each figure of a model and protocol with the files that it reads."""
    found = [
        asdict(one) | {"files": KINDS[one.kind].reads(config, one.cell)}
        for one in figures(config, model, protocol)
    ]
    return {"figures": found, "labels": labels(config)}


@_stage
def name_figures(config: Config, **_: str) -> dict[str, Any]:
    """Return the caption of each figure with a name of its own."""
    own = labels_of(config)
    return {
        name: named_caption(named_figure(config, name), own, one.item or name)
        for name, one in config.results.figures.items()
    }


@_stage
def page(config: Config, **_: str) -> dict[str, Any]:
    """Return what the results page takes: labels, figures, what was run on what."""
    source = config.corpus.source
    about = {
        "mini": "the sentences that come with langneurons",
        "hub": f"{getattr(source, 'dataset', '')} (revision {getattr(source, 'revision', '')})",
        "folder": f"{getattr(source, 'path', '')}",
        "jsonl": f"{getattr(source, 'path', '')}",
        "text": f"{getattr(source, 'path', '')}",
    }
    named = [
        asdict(named_figure(config, name))
        | {"stem": f"results/figures/{config.name}/{name}", "name": name, "item": one.item}
        for name, one in config.results.figures.items()
    ]
    sources = {name: entry.source for name, entry in config.models.items()}
    newest = [name for name, one in sources.items() if getattr(one, "revision", None) == NEWEST]
    return {
        "labels": labels(config),
        "page": {
            "about": {"corpus": about[source.kind], "tokens": config.corpus.tokens},
            "figures": [*map(asdict, all_figures(config)), *named],
            "newest": newest,
        },
    }


def _adapter_fields(config: Config) -> dict[str, dict[str, str | None]]:
    """Return of each adapter its fine-tuning, choice, selection, set folder and target."""
    found = {name: one for model in config.models for name, one in config.adapters(model).items()}
    return {name: one.model_dump() for name, one in found.items()}
