"""Find, test and train the language-specific neurons of multilingual language models.

The names below are the interface for notebooks and scripts (`langneurons.api`). They are loaded
when they are first used, so that the parts of the package that need no model stay light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langneurons.api import (
        LanguageModel,
        Neurons,
        Statistics,
        applied,
        collect,
        generate,
        load,
        loglikelihood,
        mini_texts,
        nll,
        plan,
        select,
    )

__version__ = "0.1.0"
__all__ = [
    "load",
    "mini_texts",
    "collect",
    "Statistics",
    "select",
    "Neurons",
    "plan",
    "applied",
    "generate",
    "nll",
    "loglikelihood",
    "LanguageModel",
]


def __getattr__(name: str) -> Any:
    """Return a name of the interface, loaded when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
