"""Files that a configuration names: task definitions, printed numbers, masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langneurons.base.digests import file_digest
from langneurons.base.errors import ConfigError, unknown
from langneurons.base.paths import unset
from langneurons.base.shipped import TASK_DEFINITIONS, definition_file, project_file
from langneurons.config.check_stages import check_mini_rows
from langneurons.config.config import Config
from langneurons.config.effects import check_generated
from langneurons.evaluation.definition import Task, load_task
from langneurons.reporting.printed import read_printed


def check_definitions(config: Config) -> None:
    """Raise `ConfigError` for the first file that does not fit the configuration."""
    _check_tasks(config)
    _check_published(config)
    _check_masks(config)


def _check_tasks(config: Config) -> None:
    """Refuse a task that nothing defines, and a language for which it has no prompt."""
    kinds = {}
    for name, task in config.tasks.items():
        own = _definition("tasks", name, task.definition, task.languages, "languages")
        kind = None if own is None else own.kind
        _check_hub(f"tasks.{name}", task.source, own)
        if kind == "classification":
            why = "a classifier reads its whole input as a prompt"
            check_generated(config, f"tasks.{name}", task.interventions, why)
        elif own is not None and kind == "generation" and own.max_new_tokens == 1:
            why = "the task's max_new_tokens is 1: the only new token is read by no forward pass"
            check_generated(config, f"tasks.{name}", task.interventions, why)
        if task.paper is not None and task.paper.definition is not None:
            paper = _definition(
                "tasks", name, task.paper.definition, task.languages, "languages", "paper."
            )
            other = None if paper is None else paper.kind
            if (kind == "classification") != (other == "classification"):
                raise ConfigError(
                    f"tasks.{name}.paper.definition: of kind {other}, the task's own of kind"
                    f" {kind}; a trained head scores both or neither."
                )
        kinds[name] = kind
        if kind == "classification" and task.finetunings is None:
            raise ConfigError(
                f"tasks.{name}.finetunings: missing; the head of a classification task is trained"
                f" ({', '.join(config.finetunings) or 'define one under finetunings'})."
            )
    trained = {name: _check_training(config, name) for name in config.finetunings}
    for name, kind in kinds.items():
        for finetuning in config.tasks[name].finetunings or ():
            if kind == "classification" and trained[finetuning] not in (kind, None):
                heads = [other for other, what in trained.items() if what == kind]
                raise ConfigError(
                    f"tasks.{name}.finetunings: {finetuning!r} trains no head, and a"
                    f" classification task reads one; legal: {', '.join(heads) or 'none here'}."
                )


def _check_training(config: Config, name: str) -> str | None:
    """Return the kind of task that a fine-tuning trains (or text), after checking it."""
    entry = config.finetunings[name]
    kind: str | None = "text"
    if not entry.is_text:
        task = _definition("finetunings", name, entry.definition, [entry.language], "language")
        kind = None if task is None else task.kind
        _check_hub(f"finetunings.{name}", entry.source, task)
        if task is not None:
            check_mini_rows(f"finetunings.{name}", entry, task.name, [entry.language], "language")
    if kind == "multiple_choice":
        raise ConfigError(
            f"finetunings.{name}.definition: a multiple_choice task cannot be trained; legal:"
            " classification, generation."
        )
    trained = {entry.under(one).training.parameters for one in config.protocols.values()}
    if "rows" in trained and "none" in entry.neurons and kind not in ("classification", None):
        raise ConfigError(
            f"finetunings.{name}.neurons: 'none' leaves nothing to train with parameters: rows,"
            " for only classification has a head; legal: source, target, source_target, all."
        )
    return kind


def _check_published(config: Config) -> None:
    path = config.results.published
    if path is not None and not project_file(path).is_file():
        folder = project_file(str(Path(path).parent))
        siblings = [str(sibling) for sibling in folder.glob("*.yaml")]
        raise unknown("results.published", path, "file of printed numbers", siblings)
    if path is not None:
        read_printed(project_file(path))


def _check_masks(config: Config) -> None:
    """Refuse a selection whose file is not there, or not the one that it names."""
    for model in config.models:
        for name in dict.fromkeys(name for _, name in config.cells(model)):
            given = config.selections[name].file_of(model)
            if given is None:
                continue
            path, place = project_file(given), f"selections.{name}"
            if not path.is_file() and unset(given):
                continue  # told by the check of files
            if not path.is_file():
                siblings = [str(sibling) for sibling in path.parent.glob(f"*{path.suffix}")]
                raise unknown(f"{place}.path", given, f"file (model {model})", siblings)
            expected: str | None = getattr(config.selections[name], "sha256", None)
            if expected not in (None, found := file_digest(path, 64)):
                raise ConfigError(
                    f"{place}.sha256: {expected!r}, but {path} has {found}; it is another file."
                )


def _definition(
    section: str,
    name: str,
    given: str | None,
    langs: Sequence[str],
    key: str,
    prefix: str = "",
) -> Task | None:
    """Return the task that a file defines, after checking its languages."""
    place = f"{section}.{name}"
    if given is not None:
        path = project_file(given)
        place += f".{prefix}definition"
        folder = project_file(str(Path(given).parent))
        legal = [str(Path(given).parent / sibling.name) for sibling in folder.glob("*.yaml")]
    else:
        path = definition_file(name, None)
        legal = [sibling.stem for sibling in TASK_DEFINITIONS.glob("*.yaml")]
        if not legal:  # installed without the workflow
            return None
    if not path.is_file():
        error = unknown(place, given or name, "task definition", sorted(legal))
        raise ConfigError(f"{error} Define it in {path}.")
    task = load_task(path, place)
    for lang in langs:
        if lang not in task.words:
            raise unknown(f"{section}.{name}.{key}", lang, f"language of {path.name}", task.words)
    return task


def _check_hub(path: str, source: Any, task: Any) -> None:
    """Refuse rows of the hub where neither source nor definition names a data set."""
    if source.kind == "hub" and source.dataset is None and task is not None and task.hub is None:
        raise ConfigError(
            f"{path}.source: the definition of {task.name!r} names no data set of the hub. Name"
            " one: {kind: hub, dataset: owner/name, revision: ...}, or use another kind of source."
        )
