"""Metrics of tasks. Each module of this package adds those that it defines."""

import importlib
import pkgutil

from langneurons.evaluation.metrics.metric import Metric


def _discover() -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        for value in vars(importlib.import_module(f"{__name__}.{module}")).values():
            if isinstance(value, Metric) and found.setdefault(value.name, value) is not value:
                raise ValueError(f"two metrics are named {value.name!r}")
    return found


METRICS = _discover()


def names_of(kind: str) -> tuple[str, ...]:
    """Return the metrics of a kind of task."""
    return tuple(name for name, one in METRICS.items() if kind in one.kinds)
