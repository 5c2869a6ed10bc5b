"""What each rule's job depends on in the configuration: its `params.cfg`.

Plain, key-sorted values; two equal values mean the same job. Labels, names of sets, orders of
sets, colours and resources do not enter the parameters of a stage that computes (`jobs.stages`).
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from langneurons.base.protocols import STAGES as DEPENDS
from langneurons.config.config import Config
from langneurons.config.controls import roles
from langneurons.config.labels import adapter_labels, method_labels, prompt_labels, shown
from langneurons.jobs.stages import STAGES
from langneurons.models.settings import NEWEST
from langneurons.reporting.kinds import (
    KINDS,
    all_figures,
    drawn_together,
    named_caption,
    named_figure,
)
from langneurons.reporting.labels import Labels, quoted


def stage(config: Config, name: str, **wildcards: str) -> dict[str, Any]:
    """Return the parameters of a rule's job as key-sorted plain values."""
    function = SHOWING[name] if name in SHOWING else STAGES[name].parameters
    return json.loads(json.dumps(function(config, **wildcards), sort_keys=True))


def labels(config: Config, **_: str) -> dict[str, Any]:
    """Return what tables and figures take from the configuration: labels, orders, levels."""
    return asdict(labels_of(config))


def labels_of(config: Config) -> Labels:
    """Return the labels of a configuration."""
    sections = ("models", "selections", "interventions", "tasks", "finetunings")
    sequenced = ("models", "language_sets", "selections", "interventions", "tasks", "hypotheses")
    compared = {} if config.stability is None else dict(config.stability.comparisons)
    return Labels(
        name=config.name,
        title=config.title,
        heading=quoted(config.title or config.name),
        sets=config.labels(),
        language_sets={key: list(value) for key, value in config.language_sets.items()},
        language_names=config.language_names(),
        families=config.language_families(),
        tags=config.language_tags(),
        languages=list(config.language_names()),
        **{section: shown(config, section) for section in sections},
        methods=method_labels(config),
        prompts=prompt_labels(config),
        adapters=adapter_labels(config),
        adapter_fields=_adapter_fields(config),
        sweeps=config.sweeps(),
        protocols={
            name: protocol.model_dump() | {stage: protocol.variant(stage) for stage in DEPENDS}
            for name, protocol in config.protocols.items()
        },
        roles=roles(config),
        results=config.results.model_dump(mode="json"),
        site=config.statistics.histograms[0] if config.statistics.histograms else None,
        sequence={section: list(getattr(config, section)) for section in sequenced}
        | {"methods": list(method_labels(config))},
        hypotheses={name: one.model_dump(mode="json") for name, one in config.hypotheses.items()},
        comparisons=compared,
        until=None if config.statistics.until is None else config.statistics.until.selection,
    )


def draw_figures(config: Config, model: str, protocol: str) -> dict[str, Any]:
    """Return labels, and each figure of a drawing job with the files that it reads."""
    found = [
        asdict(one) | {"files": KINDS[one.kind].reads(config, one.cell)}
        for one in drawn_together(config, model, protocol)
    ]
    return {"figures": found, "labels": labels(config)}


def name_figures(config: Config, **_: str) -> dict[str, Any]:
    """Return the caption of each figure with a name of its own."""
    own = labels_of(config)
    return {
        name: named_caption(named_figure(config, name), own, one.item or name)
        for name, one in config.results.figures.items()
    }


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
            "browsers": _browsers(config),
        },
    }


def _browsers(config: Config) -> list[tuple[str, str]]:
    """Return title and file of the pages of neurons."""
    models, sets = shown(config, "models"), config.labels()
    return [
        (
            f"{models[cell['model']]}, {sets[cell['langset']]}",
            f"results/browser/{config.name}/{cell['model']}/{cell['langset']}/index.html",
        )
        for cell in STAGES["describe_neurons"].cells(config)
    ]


def browser(config: Config, model: str, langset: str) -> dict[str, Any]:
    """Return what the pages of neurons take: labels, and where else a neuron has a page."""
    links = {} if config.browser is None else config.browser.links
    return {"labels": labels(config), "link": links.get(model, "")}


def _adapter_fields(config: Config) -> dict[str, dict[str, str | None]]:
    """Return of each adapter its fine-tuning, choice, selection, set folder and target."""
    found = {name: one for model in config.models for name, one in config.adapters(model).items()}
    return {name: one.model_dump() for name, one in found.items()}


# What shows results: these functions are not of a stage that computes.
SHOWING: dict[str, Callable[..., dict[str, Any]]] = {
    "labels": labels,
    "draw_figures": draw_figures,
    "name_figures": name_figures,
    "page": page,
    "write_browser": browser,
}
