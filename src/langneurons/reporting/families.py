"""The families of tables: which tables a configuration has, what each reads, and who writes it.

A job writes the tables of several families. This module loads no library that computes.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.base.errors import present
from langneurons.base.shipped import project_file
from langneurons.reporting.cells import VOTERS
from langneurons.reporting.labels import Labels
from langneurons.reporting.printed import Printed, read_printed

if TYPE_CHECKING:
    from langneurons.config.config import Config


@dataclass(frozen=True)
class Family:
    """Tables that one function writes.

    `tables` are their names under a configuration, none if it has none of them; `reads` maps the
    names of inputs to kinds of result files, or to the rule that makes them. `made_by` is
    `module:function` below `reporting`; the function takes labels, the folder of the tables, and
    the inputs by name. Families of one `job` are written together.
    """

    tables: Callable[["Config"], tuple[str, ...]]
    reads: Callable[["Config"], Mapping[str, str]]
    made_by: str
    job: str
    mem_mb: int = 8000
    runtime: int = 60

    @property
    def module(self) -> str:
        """The module that writes it."""
        return f"langneurons.reporting.{self.made_by.partition(':')[0]}"

    def write(self, labels: Labels, folder: Path, inputs: Mapping[str, list[str]]) -> None:
        """Write the tables of the family."""
        function = getattr(import_module(self.module), self.made_by.partition(":")[2])
        function(labels=labels, folder=folder, **inputs)


def table_families(config: "Config") -> dict[str, tuple[str, ...]]:
    """Return, by family, the tables of a configuration."""
    found = {name: family.tables(config) for name, family in FAMILIES.items()}
    return {name: tables for name, tables in found.items() if tables}


def table_jobs(config: "Config") -> dict[str, list[str]]:
    """Return, by job, the families that it writes under a configuration."""
    found: dict[str, list[str]] = {}
    for name in table_families(config):
        found.setdefault(FAMILIES[name].job, []).append(name)
    return found


def _printed(config: "Config") -> Printed | None:
    file = config.results.published
    return None if file is None else read_printed(project_file(file))


def _if(section: str, *tables: str) -> Callable[["Config"], tuple[str, ...]]:
    """Return tables that a configuration has if it has a section."""
    return lambda config: tables if getattr(config, section) else ()


def _always(*tables: str) -> Callable[["Config"], tuple[str, ...]]:
    return lambda config: tables


def _files(kind: str) -> Callable[["Config"], Mapping[str, str]]:
    return lambda config: {"files": kind}


def _published_tables(config: "Config") -> tuple[str, ...]:
    printed = _printed(config)
    if printed is None:
        return ()
    return ("published", "published_summary", *printed.table_names)


def _published_reads(config: "Config") -> Mapping[str, str]:
    kinds = present(_printed(config), "results.published: left out of the configuration").kinds
    wanted = {"records": ("scores", "evaluation"), "statistics": ("activations", "activations")}
    wanted["neurons"] = ("neurons", "neurons")
    found = {name: kind for name, (key, kind) in wanted.items() if key in kinds}
    return found | {"printed": "printed"}


def _quantiles(config: "Config") -> tuple[str, ...]:
    return ("activations",) if config.statistics.histograms else ()


def _neuron_tables(config: "Config") -> tuple[str, ...]:
    """Return the tables of neurons; those of directions and write scores where there are any."""
    made = {name for model in config.models for _, name in config.cells(model)}
    chosen = [config.selections[name] for name in made]
    found = ["neurons", "overlap", "selections", "layers"]
    if any(one.units == "dimensions" for one in chosen):
        found.append("directions")
    if any(one.method == "write_score" for one in chosen):
        found.append("carriers")
    if any(number >= VOTERS for number in _voters(config).values()):
        found.append("votes")
    return tuple(found)


def _expert_tables(config: "Config") -> tuple[str, ...]:
    """Return the table of experts, where a selection gives experts to languages."""
    made = {name for model in config.models for _, name in config.cells(model)}
    return ("experts",) if any(config.selections[one].method == "experts" for one in made) else ()


def _voters(config: "Config") -> Counter[tuple[str, str]]:
    """Return the number of selections of neurons, random ones aside, of each model and set."""
    return Counter(
        (model, langset)
        for model in config.models
        for langset, name in config.neuron_cells(model)
        if not config.selections[name].random
    )


def _judged_by(config: "Config") -> Mapping[str, str]:
    """Return what hypotheses are judged by."""
    tried = {"trials": "trials"} if config.trials else {}
    stable = {"stability": "stability"} if config.stability else {}
    return tried | stable | {"neurons": "neurons"}


def _answer_tables(config: "Config") -> tuple[str, ...]:
    """Return the tables of methods compared by answers; of parts and raters where there are."""
    if config.answers is None:
        return ()
    judge = config.answers.judge
    raters = 0 if judge is None else len(judge.models) * len(judge.prompts)
    parts = getattr(config.answers.questions, "parts", ())
    return (
        *("answers_summary", "answers"),
        *(("answer_parts",) if parts else ()),
        *(("answer_judges",) if raters > 1 else ()),
    )


def _claims(config: "Config") -> tuple[str, ...]:
    return ("claims",) if config.results.claims else ()


FAMILIES: Mapping[str, Family] = {
    "neurons": Family(
        _neuron_tables,
        _files("neurons"),
        "tables.neurons:tabulate_neurons",
        "statistics",
        mem_mb=4000,
        runtime=15,
    ),
    "experts": Family(
        _expert_tables,
        lambda config: {"files": "neurons", "activations": "activations"},
        "tables.experts:tabulate_experts",
        "statistics",
    ),
    "activations": Family(
        _quantiles,
        _files("activations"),
        "tables.neurons:tabulate_activations",
        "statistics",
        mem_mb=16000,
    ),
    "stability": Family(
        _if("stability", "stability"),
        _files("stability"),
        "tables.stability:tabulate_stability",
        "statistics",
        mem_mb=2000,
        runtime=15,
    ),
    "until": Family(
        lambda config: ("until", "until_curve") if config.statistics.until else (),
        _files("until"),
        "tables.until:tabulate_until",
        "statistics",
        mem_mb=2000,
        runtime=15,
    ),
    "perplexity": Family(
        _if("perplexity", "perplexity", "perplexity_summary"),
        _files("perplexity"),
        "tables.perplexity:tabulate_perplexity",
        "results",
    ),
    "lss": Family(
        _if("lss", "lss", "lss_summary"),
        _files("steering"),
        "tables.steering_shift:tabulate_shift",
        "results",
    ),
    "trials": Family(
        _if("trials", "leaderboard", "trials", "trial_controls", "trial_doses", "trial_cells"),
        _files("trials"),
        "tables.trials:tabulate_trials",
        "results",
    ),
    "answers": Family(
        _answer_tables,
        _files("answers"),
        "tables.answers:tabulate_answers",
        "results",
    ),
    "hypotheses": Family(
        _if("hypotheses", "hypotheses"),
        _judged_by,
        "tables.hypotheses:tabulate_hypotheses",
        "results",
    ),
    "tasks": Family(
        _if("tasks", "tasks"), _files("scores"), "tables.tasks:tabulate_tasks", "results"
    ),
    "forcing": Family(
        _if("forcing", "forcing", "forcing_summary"),
        _files("forcing"),
        "tables.generation:tabulate_forcing",
        "results",
        mem_mb=4000,
        runtime=30,
    ),
    "fallback": Family(
        _if("fallback", "fallback"),
        _files("fallback"),
        "tables.generation:tabulate_fallback",
        "results",
        mem_mb=4000,
        runtime=30,
    ),
    "lens": Family(
        _if("lens", "lens", "lens_tokens"),
        _files("lens"),
        "tables.generation:tabulate_lens",
        "results",
        mem_mb=4000,
        runtime=30,
    ),
    "published": Family(
        _published_tables, _published_reads, "tables.published:tabulate_published", "published"
    ),
    "claims": Family(
        _claims,
        lambda config: {"records": "evaluation", "matrices": "perplexity"},
        "tables.claims:tabulate_claims",
        "claims",
    ),
    "sources": Family(
        _always("corpora", "sources"),
        lambda config: {"manifests": "manifests", "corpora": "corpora", "fetched": "fetched"},
        "sources:tabulate_sources",
        "statistics",
        mem_mb=2000,
        runtime=15,
    ),
}
