"""Neuron tables, the only place where a language set enters, and published neurons."""

from typing import Any

from langneurons.base.digests import file_digest
from langneurons.base.shipped import project_file
from langneurons.config.config import Config
from langneurons.jobs.stage import Cell, Stage
from langneurons.reporting.layouts import LAYOUTS
from langneurons.selection.methods.published import Published


def _selection(config: Config, model: str, langset: str, selection: str) -> dict[str, Any]:
    """Return the selection's parameters, the digest of its file, and the languages, sorted."""
    chosen = config.selections[selection]
    identity, file = chosen.identity(), chosen.file_of(model)
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


def _fetched(config: Config) -> list[Cell]:
    """Return the published selections of the hub that each model takes."""
    found = {
        (model, name)
        for model in config.models
        for _, name in config.cells(model)
        if getattr(config.selections[name], "repo", None) is not None
    }
    return [dict(zip(("model", "selection"), one, strict=True)) for one in sorted(found)]


def _mask(config: Config, model: str, selection: str) -> dict[str, Any]:
    """Return what the published neurons of a model are, and the languages that they must have."""
    chosen = config.selections[selection]
    found = chosen.identity()
    if isinstance(chosen, Published) and found.get("file"):
        found["file"] = chosen.filled(found["file"], model)
    sets = [langset for langset, name in config.cells(model) if name == selection]
    needed = {lang for langset in sets for lang in config.language_sets[langset]}
    return {"selection": found, "needed": sorted(needed)}


PREPARE_MASK = Stage(
    rule="prepare_mask",
    order=13,
    output="resources/masks/{model}/{selection}.safetensors",
    cells=_fetched,
    parameters=_mask,
)
SELECT = Stage(
    rule="select_neurons",
    order=40,
    output=LAYOUTS["neurons"],
    cells=_tables,
    parameters=_selection,
)
