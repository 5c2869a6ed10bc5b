"""Perplexity matrices: deactivated language x evaluated language."""

from typing import Any

from langneurons.base.errors import present
from langneurons.config.config import Config
from langneurons.jobs.estimates import Sizes
from langneurons.jobs.shared_parameters import model_settings, written
from langneurons.jobs.stage import Cell, Need, Stage, Work, intervened
from langneurons.reporting.layouts import LAYOUTS


def _matrix(
    config: Config, model: str, variant: str, langset: str, selection: str, intervention: str
) -> dict[str, Any]:
    """Return the intervention and which text is read."""
    protocol, entry = config.under("perplexity", variant), config.perplexity
    return {
        "intervention": written(config, intervention, protocol),
        "tokens": None if entry is None else entry.tokens,
        "sampled": protocol.perplexity_text == "paper",
        "model": model_settings(config, model),
    } | ({"documents": entry.documents} if entry is not None and entry.documents else {})


def _work(sizes: Sizes, cell: Cell) -> Work:
    config = sizes.config
    entry = present(config.perplexity, "perplexity: left out of the configuration")
    tokens = entry.tokens or config.corpus.heldout_tokens
    size = len(config.directory_languages()[cell["langset"]])
    read = tokens * size * (size + 1)
    return Work(read, sizes.load + sizes.seconds(read, 2, "perplexity"), read / 20)


MEASURE = Stage(
    rule="measure_perplexity",
    order=50,
    output=LAYOUTS["perplexity"],
    cells=lambda config: intervened(config, "perplexity", config.perplexity_cells),
    parameters=_matrix,
    loads_model=True,
    work=_work,
    need=lambda sizes: Need(sizes.on_each(sizes.held, sizes.scores + sizes.states), sizes.host + 2),
)
