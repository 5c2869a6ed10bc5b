"""The logit lens: what every layer would say next, by language of the tokens."""

from typing import Any

from langneurons.base.errors import present
from langneurons.config.config import Config, entry_languages
from langneurons.jobs.estimates import RECORD_BYTES, Sizes
from langneurons.jobs.shared_parameters import model_settings, written
from langneurons.jobs.stage import Cell, Need, Stage, Work, by_model
from langneurons.jobs.stages.generation import number_of_questions
from langneurons.reporting.layouts import LAYOUTS


def _reading(config: Config, model: str, variant: str, langset: str) -> dict[str, Any]:
    """Return the prompts' languages, the conditions, and which tokens are a language's."""
    protocol = config.under("generation", variant)
    entry = present(config.lens, "lens: left out of the configuration")
    asked, _ = entry_languages(entry, config.directory_languages()[langset])
    conditions = config.lens_cells(model)[langset]
    names = sorted({name for _, name, _ in conditions})
    keys = {"template", "purity", "min_count", "reading", "identifier"}
    return {
        "conditions": sorted(list(condition) for condition in conditions),
        "interventions": {name: written(config, name, protocol) for name in names},
        "languages": list(asked),
        "lens": entry.model_dump(mode="json", include=keys),
        "model": model_settings(config, model),
    }


def _sets(config: Config) -> list[Cell]:
    return [
        cell | {"langset": langset}
        for cell in by_model(config, "generation")
        for langset in config.lens_cells(cell["model"])
    ]


def _work(sizes: Sizes, cell: Cell) -> Work:
    config, geometry = sizes.config, sizes.geometry
    members = config.directory_languages()[cell["langset"]]
    conditions = config.lens_cells(cell["model"])[cell["langset"]]
    entry = present(config.lens, "lens: left out of the configuration")
    asked, _ = entry_languages(entry, members)
    questions = sum(number_of_questions(sizes, entry, lang) for lang in asked)
    rows = (len(conditions) + 1) * questions
    read = rows * sizes.item_tokens("question")
    # The head runs at one position of every layer.
    heads = rows * geometry.layers * geometry.hidden * geometry.vocabulary
    seconds = sizes.seconds(read + heads / geometry.parameters, 2, "evaluation")
    return Work(read, sizes.load + seconds, rows * geometry.layers * len(members) * RECORD_BYTES)


READ = Stage(
    rule="read_layers",
    order=100,
    output=LAYOUTS["lens"],
    cells=_sets,
    parameters=_reading,
    loads_model=True,
    work=_work,
    need=lambda sizes: Need(
        sizes.on_each(sizes.held + sizes.kept, sizes.scores + sizes.states), sizes.host + 2
    ),
)
