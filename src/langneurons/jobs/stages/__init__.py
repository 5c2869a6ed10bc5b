"""The stages of the graph by the name of their rule: every `Stage` of a module of this folder."""

import pkgutil
from importlib import import_module

from langneurons.jobs.stage import Stage


def _found() -> dict[str, Stage]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    stages = [
        value
        for name in names
        for value in vars(import_module(f"{__name__}.{name}")).values()
        if isinstance(value, Stage)
    ]
    return {stage.rule: stage for stage in sorted(stages, key=lambda one: one.order)}


STAGES = _found()
