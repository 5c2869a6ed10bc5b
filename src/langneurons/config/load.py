"""Read configurations: files merged in order, validated, errors in the user's terms."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from langneurons.base.errors import ConfigError, nearest
from langneurons.base.messages import check_conversions, explained
from langneurons.base.shipped import project_file
from langneurons.base.yaml import plain_value, read_yaml
from langneurons.config.checks import check
from langneurons.config.config import NAMED, Config
from langneurons.config.definitions import check_definitions
from langneurons.config.effects import check_effects
from langneurons.config.sweeps import write_out


def build(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration given as plain values; raise `ConfigError` on any mistake."""
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        raise explained(error, raw, Config) from None
    check_conversions(raw, config, "")
    config = write_out(config)
    check(config)
    check_effects(config)
    check_definitions(config)
    return config


def load_config(path: str | os.PathLike) -> Config:
    """Read and validate one configuration file."""
    return read_configs([path])


def read_configs(
    paths: Sequence[str | os.PathLike], overrides: Mapping[str, Any] | None = None
) -> Config:
    """Read configuration files, later ones over earlier ones, then `--config` values over them."""
    merged: dict = {}
    for path in (project_file(str(given)) for given in paths):
        if not path.is_file():
            folder = path.parent if path.parent.is_dir() else Path()
            siblings = sorted(str(sibling) for sibling in folder.glob("*.yaml"))
            raise ConfigError(f"{path}: there is no such file.{nearest(str(path), siblings)}")
        merged = _over(merged, read_yaml(path), str(path))
    merged = _over(merged, _typed(dict(overrides or {})), "--config")
    try:
        return build(merged)
    except ConfigError as error:
        names = ", ".join(map(str, paths))
        raise ConfigError(f"{names}: {error}") from None


def _typed(value: Any) -> Any:
    """Give numbers and truth values of the command line, which come as text, their type."""
    if isinstance(value, Mapping):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    return plain_value(value) if isinstance(value, str) else value


def _over(base: dict, over: Mapping[str, Any], place: str) -> dict:
    """Put a configuration over an earlier one; mistakes name the file."""
    try:
        return _merge(base, over)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _named(path: tuple[str, ...]) -> bool:
    """Return whether the keys of a block are names that the user chooses."""
    return path[-1:] == ("codes",) or path in {(key,) for key in NAMED} | NAMED_BELOW


NAMED_BELOW = {("results", "figures"), ("results", "stand_ins"), ("corpus", "variants")}


def _merge(base: dict, over: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict:
    """Put one configuration over another; a block of another kind replaces the block.

    `null` in place of a named entry, or of a block of these, takes away what earlier files have.
    """
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if value is None and (_named(path) or _named((*path, str(key)))):
            if key not in result:
                where = ".".join((*path, str(key)))
                raise ConfigError(
                    f"{where}: null takes an entry of an earlier file away, and no earlier file"
                    f" has this one (entries: {', '.join(map(str, result)) or 'none'})."
                    f"{nearest(key, result)}"
                )
            del result[key]
            continue
        if isinstance(value, Mapping):
            under = below if isinstance(below, dict) else {}
            other = any(tag in value and value[tag] != under.get(tag) for tag in ("kind", "method"))
            value = _merge({} if other else under, value, (*path, str(key)))
        result[key] = value
    return result
