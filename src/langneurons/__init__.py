"""Find, test and train the language-specific neurons of multilingual language models.

The names below are the interface for notebooks and scripts (`langneurons.api`). They are loaded
when they are first used, so that the parts of the package that need no model stay light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langneurons.api.directions import Directions
    from langneurons.api.export import export
    from langneurons.api.models import load
    from langneurons.api.neurons import Neurons, plan, select
    from langneurons.api.runs import generate, loglikelihood, nll
    from langneurons.api.statistics import Statistics, collect, mini_texts
    from langneurons.interventions.apply import applied
    from langneurons.models.language_model import LanguageModel

__version__ = "0.1.0"
__all__ = [
    "load",
    "mini_texts",
    "collect",
    "Statistics",
    "select",
    "Neurons",
    "Directions",
    "plan",
    "applied",
    "generate",
    "nll",
    "loglikelihood",
    "export",
    "LanguageModel",
]
# The module of the package that defines each name.
_PLACES = {
    "load": "api.models",
    "mini_texts": "api.statistics",
    "collect": "api.statistics",
    "Statistics": "api.statistics",
    "select": "api.neurons",
    "Neurons": "api.neurons",
    "Directions": "api.directions",
    "plan": "api.neurons",
    "applied": "interventions.apply",
    "generate": "api.runs",
    "nll": "api.runs",
    "loglikelihood": "api.runs",
    "export": "api.export",
    "LanguageModel": "models.language_model",
}


def __getattr__(name: str) -> Any:
    """Return a name of the interface, loaded when it is first asked for (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
