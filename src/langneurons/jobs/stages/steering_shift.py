"""The Language Steering Shift: facts, and the shift of their objects."""

from typing import Any

from langneurons.base.errors import present
from langneurons.base.paths import user_path
from langneurons.config.config import Config
from langneurons.data.mini_data import FACTS, mini_file
from langneurons.jobs.estimates import RECORD_BYTES, Sizes
from langneurons.jobs.shared_parameters import all_written, model_settings
from langneurons.jobs.stage import Cell, Need, Stage, Work, conditioned, interventions_of
from langneurons.reporting.layouts import LAYOUTS


def _facts(config: Config, lang: str) -> dict[str, Any]:
    """Return where the facts come from."""
    entry = present(config.lss, "lss: left out of the configuration")
    return {"source": entry.source.model_dump(mode="json"), "limit": entry.limit, "lang": lang}


def _shift(
    config: Config, model: str, variant: str, langset: str, selection: str
) -> dict[str, Any]:
    """Return the interventions, the languages, and how premises are made."""
    protocol = config.under("steering", variant)
    names = interventions_of(config.lss_cells(model), langset, selection)
    bases, targets = config.lss_languages(langset)
    return {
        "bases": bases,
        "interventions": all_written(config, names, protocol),
        "model": model_settings(config, model),
        "premises": protocol.lss,
        "targets": targets,
    }


def fact_languages(config: Config) -> list[str]:
    """Return the premise languages."""
    cells = [cell for model in config.models for cell in config.lss_cells(model)]
    return sorted({lang for folder, _, _ in cells for lang in config.lss_languages(folder)[0]})


def _number(sizes: Sizes, lang: str) -> float:
    """Return how many facts a premise language has."""
    entry = present(sizes.config.lss, "lss: left out of the configuration")
    source, limit = entry.source, entry.limit
    rows = sizes.assumed["default_rows"]
    if source.kind == "hub":
        rows = sizes.assumed["rows"].get(source.dataset, {}).get(source.split, rows)
        return min(rows, limit) if limit else rows
    path = mini_file(FACTS, lang)
    path = path if source.kind == "mini" else user_path(source.path, {"lang": lang})
    return sizes.lines(path, rows, limit)


def _work(sizes: Sizes, cell: Cell) -> Work:
    """Estimate the matrices of a selection; the first of a set also scores the untouched model."""
    config, folder = sizes.config, cell["langset"]
    conditions = config.lss_cells(cell["model"])
    number = len(interventions_of(conditions, folder, cell["selection"]))
    bases, targets = config.lss_languages(folder)
    facts, width = _number(sizes, bases[0]), sizes.item_tokens("lss")
    pairs = sum(base != target for base in bases for target in targets)
    read = 2 * facts * pairs * number * width
    first = next(selection for langset, selection, _ in conditions if langset == folder)
    if first == cell["selection"]:
        read += facts * len(bases) * (1 + len(targets)) * width
    seconds = sizes.load + sizes.seconds(read, 2, "evaluation")
    return Work(read, seconds, facts * pairs * number * RECORD_BYTES)


PREPARE = Stage(
    rule="prepare_facts",
    order=3,
    output="resources/facts/{lang}.jsonl",
    cells=lambda config: [{"lang": lang} for lang in fact_languages(config)],
    parameters=_facts,
)
MEASURE = Stage(
    rule="measure_lss",
    order=60,
    output=LAYOUTS["steering"],
    cells=lambda config: conditioned(
        config, "steering", config.lss_cells, ("langset", "selection")
    ),
    parameters=_shift,
    loads_model=True,
    work=_work,
    need=lambda sizes: Need(
        sizes.on_each(sizes.held + sizes.kept, sizes.scores + sizes.states), sizes.host + 2
    ),
)
