"""How stable selections are when they are made again on other parts of the text."""

from typing import Any

from langneurons.base.errors import present
from langneurons.config.config import Config
from langneurons.jobs.stage import Cell, Stage
from langneurons.reporting.layouts import LAYOUTS
from langneurons.selection.stability_settings import compared, matched


def _drawn(config: Config, model: str, langset: str, selection: str) -> dict[str, Any]:
    """Return the draws, and the selection after those that it depends on."""
    entry = present(config.stability, "stability: left out of the configuration")
    names = config.with_dependencies(selection)
    others = config.comparisons(model, langset, selection).items()
    return {
        "stability": entry.model_dump(
            mode="json", exclude={"selections", "language_sets", "comparisons"}
        )
        | {"selections": [selection]},
        "comparisons": [_compared(config, langset, *one) for one in others],
        "selections": [[name, config.selections[name].identity()] for name in names],
        "languages": list(config.directory_languages()[langset]),
        "slices": config.statistics.slices,
    }


def _compared(config: Config, langset: str, name: str, other: str) -> dict[str, Any]:
    """Return another set, and the languages of it that are compared, by those of the set."""
    first, second = (config.directory_languages()[folder] for folder in (langset, other))
    pairs = matched(first, second)
    return {
        "name": name,
        "languages": list(second),
        "pairs": compared(pairs),
        "unmatched": [lang for lang in first if lang not in pairs]
        + [lang for lang in second if lang not in pairs.values()],
        "same": all(config.same_documents(*pair) for pair in pairs.items()),
    }


def _cells(config: Config) -> list[Cell]:
    return [
        {"model": model, "langset": folder, "selection": selection}
        for model in config.models
        for folder, selection in config.stability_cells(model)
    ]


STABILITY = Stage(
    rule="measure_stability",
    order=41,
    output=LAYOUTS["stability"],
    cells=_cells,
    parameters=_drawn,
)
