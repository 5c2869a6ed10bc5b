"""The neuron browser: what is found out about single neurons, and the pages made of it."""

from typing import Any

from langneurons.base.errors import present
from langneurons.config.config import Config
from langneurons.jobs.estimates import RECORD_BYTES, Sizes
from langneurons.jobs.shared_parameters import model_settings
from langneurons.jobs.stage import Cell, Need, Stage, Work
from langneurons.reporting.layouts import LAYOUTS


def _cells(config: Config) -> list[Cell]:
    return [
        {"model": model, "langset": folder}
        for model in config.models
        for folder in config.browsed(model)
    ]


def _described(config: Config, model: str, langset: str) -> dict[str, Any]:
    """Return what is asked of each neuron, and which held-out text single neurons are zeroed on."""
    entry = present(config.browser, "browser: left out of the configuration")
    heldout = config.perplexity
    return {
        "browser": entry.model_dump(mode="json", exclude={"selections", "language_sets", "links"}),
        "model": model_settings(config, model),
        "selections": config.browsed(model)[langset],
        "heldout_tokens": None if heldout is None else heldout.tokens,
        "documents": None if heldout is None else heldout.documents,
    }


def _work(sizes: Sizes, cell: Cell) -> Work:
    config = sizes.config
    entry = present(config.browser, "browser: left out of the configuration")
    langs = len(config.directory_languages()[cell["langset"]])
    read = langs * min(entry.tokens or config.corpus.tokens, config.corpus.tokens)
    asked = config.perplexity
    heldout = (asked.tokens if asked is not None else None) or config.corpus.heldout_tokens
    read_again = heldout * langs * (1 + langs * entry.zeroed)
    seconds = sizes.seconds(read, 2, "statistics") + sizes.seconds(read_again, 2, "perplexity")
    size = 0.02 * sizes.neurons * langs * entry.contexts * 4 * RECORD_BYTES
    return Work(read + read_again, sizes.load + seconds, size)


DESCRIBE = Stage(
    rule="describe_neurons",
    order=55,
    output=LAYOUTS["contexts"],
    cells=_cells,
    parameters=_described,
    loads_model=True,
    work=_work,
    need=lambda sizes: Need(sizes.on_each(sizes.held, sizes.scores + sizes.states), sizes.host + 4),
)
