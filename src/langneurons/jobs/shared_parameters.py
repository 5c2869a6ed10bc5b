"""What the parameters of several stages share: the model, and what interventions write."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from langneurons.base.paths import user_path
from langneurons.base.protocols import Protocol
from langneurons.config.config import Config
from langneurons.interventions.settings import percentile, statistic_site


def model_settings(config: Config, model: str) -> dict[str, Any]:
    """Return the source of a model's weights and their numeric format."""
    return config.models[model].model_dump(mode="json", include={"source", "dtype", "quantization"})


def chat_settings(config: Config, model: str, asked: bool) -> dict[str, Any]:
    """Return how a model is spoken to as `chat`, with its template; nothing where it is not."""
    entry = config.models[model].chat
    if entry is None or not asked:
        return {}
    settings = entry.model_dump(mode="json")
    if entry.template is not None:
        # A file that cannot be read is refused when the files of a configuration are checked.
        settings["template"] = None
        with suppress(OSError, UnicodeDecodeError):
            settings["template"] = user_path(entry.template).read_text(encoding="utf-8")
    return {"chat": settings}


def all_written(config: Config, names: Iterable[str], protocol: Protocol) -> dict[str, Any]:
    """Return the steps of interventions by name."""
    return {name: written(config, name, protocol) for name in names}


def written(config: Config, name: str, protocol: Protocol) -> dict[str, Any]:
    """Return the steps of an intervention, each with the site of its statistic."""
    entry = config.interventions[name]
    steps = []
    for step in entry.steps:
        site = statistic_site(step, protocol) if step.statistic else None
        steps.append(step.model_dump(mode="json") | {"statistic_site": site})
    named = [step.statistic or step.factor for step in entry.steps]
    result: dict[str, Any] = {"steps": steps}
    if any(percentile(value) is not None for value in named):
        result["quantiles"] = protocol.quantiles
    return result | ({"shared": entry.shared} if entry.shared != "in_order" else {})
