"""Sweeps of interventions over layers, written out: one entry per range, wherever it is listed."""

from collections.abc import Mapping
from typing import Any

from langneurons.base.errors import ConfigError
from langneurons.base.settings import Frozen, is_name
from langneurons.config.config import Config


def write_out(config: Config) -> Config:
    """Return the configuration with every `sweep` replaced by the interventions it stands for.

    In the lists `interventions` of all stages the name of a sweep becomes those of its entries.
    """
    entries: dict[str, Any] = {}
    names: dict[str, tuple[str, ...]] = {}
    for name, entry in config.interventions.items():
        made = entry.swept(name)
        for key in made:
            if entry.sweep is not None and (key in config.interventions or not is_name(key)):
                why = "is defined as well" if key in config.interventions else "is not a legal name"
                raise ConfigError(
                    f"interventions.{name}.sweep: makes {key!r}, which {why}; rename {name!r}."
                )
        names[name] = tuple(made)
        entries |= made
    if entries == config.interventions:
        return config
    update: dict[str, Any] = {"interventions": entries}
    for key in type(config).model_fields:
        value = getattr(config, key)
        if key == "interventions":
            continue
        if isinstance(value, Frozen):
            update[key] = _listed(value, names)
        elif isinstance(value, dict):
            update[key] = {one: _listed(item, names) for one, item in value.items()}
    return config.model_copy(update=update)


def _listed(block: Any, names: Mapping[str, tuple[str, ...]]) -> Any:
    """Return a block whose list `interventions`, if it has one, names the entries of sweeps."""
    given = getattr(block, "interventions", None)
    if not isinstance(given, tuple):
        return block
    written = tuple(entry for name in given for entry in names.get(name, (name,)))
    return block.model_copy(update={"interventions": written})
