"""The engine that decodes answers, against what the models of a configuration can."""

from collections.abc import Iterator
from pathlib import Path

from langneurons.base.shipped import definition_file
from langneurons.config.config import Config
from langneurons.evaluation.definition import load_task
from langneurons.models import geometry
from langneurons.models.families import FAMILIES, family_of

KEY = "runtime.engine"
REMEDY = f"Set {KEY}: padded, or run the model in a configuration of its own."


def check_engine(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield why the models of a configuration cannot be decoded by its engine."""
    if config.runtime.engine == "padded":
        return
    shown = f"{KEY}: {config.runtime.engine!r}"
    decoding = [name for name in config.models if _decodes(config, name)]
    if not decoding:
        yield KEY, f"{shown} has no effect: no job decodes answers. Leave the key out."
    for name in decoding:
        if config.gpus(name) > 1:
            yield (
                KEY,
                f"{shown} reads keys and values on one GPU, but jobs of models.{name} have"
                f" {config.gpus(name)}. {REMEDY}",
            )
        for folder in geometry.folders(name, config.models[name].source, work):
            family = family_of(folder)
            reason = FAMILIES[family].unpacked if family in FAMILIES else None
            if reason is not None:
                yield KEY, f"{shown}: models.{name} ({family}) {reason}. {REMEDY}"
            if family is not None:
                break


def _decodes(config: Config, model: str) -> bool:
    """Return whether a job of a model decodes answers."""
    if any(config.generation_cells(model, analysis) for analysis in ("forcing", "fallback")):
        return True
    if config.answers and config.answer_cells(model):
        return True
    return any(_generated(config, task) for _, task, _ in config.evaluations(model))


def _generated(config: Config, task: str) -> bool:
    path = definition_file(task, config.tasks[task].definition)
    return path.is_file() and load_task(path).kind == "generation"
