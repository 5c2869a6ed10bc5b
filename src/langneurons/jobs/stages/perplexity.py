"""Perplexity matrices: deactivated language x evaluated language, under each intervention."""

from typing import Any

from langneurons.base.errors import present
from langneurons.config.config import Config
from langneurons.evaluation.settings import PerplexityConfig
from langneurons.jobs.estimates import Sizes
from langneurons.jobs.shared_parameters import all_written, model_settings
from langneurons.jobs.stage import Cell, Need, Stage, Work, conditioned, interventions_of
from langneurons.reporting.layouts import LAYOUTS


def _matrix(
    config: Config, model: str, variant: str, langset: str, selection: str
) -> dict[str, Any]:
    """Return the interventions and which text is read."""
    protocol, entry = config.under("perplexity", variant), _entry(config)
    more: dict[str, Any] = {"documents": entry.documents} if entry.documents else {}
    if entry.until is not None:
        more |= {"until": entry.until.model_dump(), "confidence": config.results.confidence}
    names = interventions_of(config.perplexity_cells(model), langset, selection)
    return {
        "interventions": all_written(config, names, protocol),
        "tokens": entry.tokens,
        "sampled": protocol.perplexity_text == "paper",
        "model": model_settings(config, model),
    } | more


def _entry(config: Config) -> PerplexityConfig:
    return present(config.perplexity, "perplexity: left out of the configuration")


def _work(sizes: Sizes, cell: Cell) -> Work:
    config = sizes.config  # with `until` this is the most that is read
    tokens = _entry(config).tokens or config.corpus.heldout_tokens
    size = len(config.directory_languages()[cell["langset"]])
    conditions = config.perplexity_cells(cell["model"])
    number = len(interventions_of(conditions, cell["langset"], cell["selection"]))
    read = tokens * size * (number * size + 1)
    return Work(read, sizes.load + sizes.seconds(read, 2, "perplexity"), read / 20)


MEASURE = Stage(
    rule="measure_perplexity",
    order=50,
    output=LAYOUTS["perplexity"],
    cells=lambda config: conditioned(
        config, "perplexity", config.perplexity_cells, ("langset", "selection")
    ),
    parameters=_matrix,
    loads_model=True,
    work=_work,
    need=lambda sizes: Need(sizes.on_each(sizes.held, sizes.scores + sizes.states), sizes.host + 2),
)
