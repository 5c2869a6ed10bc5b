"""Neuron tables: the only place where a language set enters."""

from typing import Any

from langneurons.base.digests import file_digest
from langneurons.base.shipped import project_file
from langneurons.config.config import Config
from langneurons.jobs.stage import Cell, Stage
from langneurons.reporting.layouts import LAYOUTS


def _selection(config: Config, model: str, langset: str, selection: str) -> dict[str, Any]:
    """Return the selection's parameters, the digest of its file, and the languages, sorted."""
    chosen = config.selections[selection]
    identity, file = chosen.identity(), chosen.file(model)
    if file is not None:
        identity["sha256"] = file_digest(project_file(file), 64)
    return {
        "selection": identity,
        "languages": list(config.directory_languages()[langset]),
    }


def _tables(config: Config) -> list[Cell]:
    cells = {
        (model, config.directory(languages), selection)
        for model in config.models
        for languages, selection in config.cells(model)
    }
    return [dict(zip(("model", "langset", "selection"), one, strict=True)) for one in sorted(cells)]


SELECT = Stage(
    rule="select_neurons",
    order=40,
    output=LAYOUTS["neurons"],
    cells=_tables,
    parameters=_selection,
)
