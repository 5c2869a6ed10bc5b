"""Selection methods: which neurons belong to a language. One module of this package each."""

import importlib
import pkgutil
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, get_args

from pydantic import Field

from langneurons.selection.method import SelectionBase


def _discover() -> dict[str, type[SelectionBase]]:
    methods: dict[str, type[SelectionBase]] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        for value in vars(importlib.import_module(f"{__name__}.{module}")).values():
            is_method = isinstance(value, type) and issubclass(value, SelectionBase)
            for name in get_args(value.model_fields["method"].annotation) if is_method else ():
                if methods.setdefault(name, value) is not value:
                    raise ValueError(f"two selection methods are named {name!r}")
    return methods


METHODS = _discover()
if TYPE_CHECKING:
    Selection = SelectionBase
else:
    Selection = Annotated[reduce(or_, METHODS.values()), Field(discriminator="method")]

__all__ = ["METHODS", "Selection", "SelectionBase"]
