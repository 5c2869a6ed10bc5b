"""Read configurations: YAML 1.2 words, no doubled keys, errors in the user's terms."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from langneurons.config.root import Config, check
from langneurons.errors import ConfigError, nearest


class _Loader(yaml.SafeLoader):
    """YAML whose only booleans are true and false: `no` is Norwegian."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:bool"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEAN, list("tTfF"))


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict:
    seen: set = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ConfigError(
                f"line {key_node.start_mark.line + 1}: key {key!r} is given twice in one block."
            )
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_Loader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG,
    lambda loader, node: _mapping(loader, node, deep=True),
)


def parse_yaml(text: str, source: str = "configuration") -> dict:
    """Parse YAML text into a dict; mistakes name the file and the line."""
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except ConfigError as error:
        raise ConfigError(f"{source}, {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{source}{where}: not valid YAML: {problem}.") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: expected keys and values, found {type(value).__name__}.")
    return value


def build(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration given as plain values; raise `ConfigError` on any mistake."""
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item, raw) for item in _causes(error))) from None
    check(config)
    return config


def load_config(path: str | os.PathLike) -> Config:
    """Read and validate one configuration file."""
    return read_configs([path])


def _causes(error: ValidationError) -> list:
    """Drop the complaint that a list is too short because its items failed."""
    items = error.errors()
    return [
        item
        for item in items
        if item["type"] != "too_short"
        or not any(o is not item and o["loc"][: len(item["loc"])] == item["loc"] for o in items)
    ]


def _explain(item: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """Turn one pydantic error into: key path, value, what is legal, nearest match."""
    location = [part for part in item["loc"] if not _is_tag(part, item["loc"], raw)]
    path = _dotted(location)
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        legal = _legal_keys(location[:-1], raw)
        hint = nearest(location[-1], legal)
        return f"{path}: unknown key; known here: {', '.join(legal)}.{hint}"
    if kind == "missing":
        return f"{path}: missing, and it has no default."
    if kind in {"union_tag_invalid", "literal_error"}:
        context = item["ctx"]
        expected = str(context.get("expected_tags") or context.get("expected"))
        words = expected.replace(" or ", ", ").replace("'", "").split(", ")
        given = context.get("tag", value) if kind == "union_tag_invalid" else value
        key = str(context.get("discriminator", "")).strip("'")
        path = f"{path}.{key}" if key else path
        hint = nearest(given, words)
        return f"{path}: {given!r} is not legal; legal: {', '.join(words)}.{hint}"
    if kind == "union_tag_not_found":
        key = str(item["ctx"]["discriminator"]).strip("'")
        return f"{path}: lacks the key {key!r}, which says what kind it is."
    message = item["msg"].removeprefix("Value error, ")
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return f"{path}: {message} (given: {shown})."


def _dotted(location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text or "configuration"


def _is_tag(part, location, raw) -> bool:
    """Tell union tags, which pydantic adds to a location, from the user's own keys."""
    value: Any = raw
    for step in location:
        exists = (isinstance(value, Mapping) and step in value) or (
            isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(value)
        )
        if step is part:
            if exists:
                return False
            return isinstance(value, Mapping) and part in {
                value.get("kind"),
                value.get("method"),
                "float",
                "str",
            }
        if exists:
            value = value[step]
    return part in {"float", "str"}


def _legal_keys(location, raw) -> list[str]:
    """Return the keys that are legal in the block at a location."""
    models: list[type[BaseModel]] = [Config]
    value: Any = raw
    for step in location:
        models = [m for model in models for m in _models_at(model, step, value)]
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, (list, tuple)) and isinstance(step, int):
            value = value[step]
    if isinstance(value, Mapping):
        for key in ("kind", "method"):
            narrowed = [
                m
                for m in models
                if key in m.model_fields
                and value.get(key) in _literals(m.model_fields[key].annotation)
            ]
            models = narrowed or models
    return sorted({name for model in models for name in model.model_fields})


def _literals(annotation) -> tuple:
    return getattr(annotation, "__args__", ())


def _models_at(model: type, step, value) -> list[type]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        if step in model.model_fields:
            return _nested(model.model_fields[step].annotation)
    return [model] if model is not Config else []


def _nested(annotation) -> list[type]:
    """Return every pydantic model that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    arguments = getattr(annotation, "__args__", ())
    return [model for argument in arguments for model in _nested(argument)]


def read_configs(paths, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read configuration files, later ones over earlier ones, then `--config` values over them."""
    merged: dict = {}
    for path in map(Path, paths):
        if not path.is_file():
            folder = path.parent if path.parent.is_dir() else Path()
            siblings = sorted(str(sibling) for sibling in folder.glob("*.yaml"))
            raise ConfigError(f"{path}: there is no such file.{nearest(str(path), siblings)}")
        merged = _merge(merged, parse_yaml(path.read_text(encoding="utf-8"), str(path)))
    merged = _merge(merged, dict(overrides or {}))
    try:
        return build(merged)
    except ConfigError as error:
        names = ", ".join(map(str, paths))
        raise ConfigError(f"{names}: {error}") from None


def _merge(base: dict, over: Mapping[str, Any]) -> dict:
    result = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merge(result[key], value) if nested else value
    return result
