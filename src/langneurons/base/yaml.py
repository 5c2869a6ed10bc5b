"""YAML as people write it: words of version 1.2, no doubled keys, errors that name the line."""

import re
from pathlib import Path
from typing import Any

import yaml

from langneurons.base.errors import ConfigError


class Loader(yaml.SafeLoader):
    """YAML with the words of version 1.2: `no` is Norwegian, 1e-3 a number, no dates."""


_REPLACED = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag not in _REPLACED]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_EXPONENT = re.compile(r"^[-+]?(?:\.\d+|\d+(?:\.\d*)?)[eE][-+]?\d+$")
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEAN, list("tTfF"))
Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def _mapping(loader: Loader, node: yaml.MappingNode, deep: bool = False) -> dict:
    seen: set = set()
    for key_node, _ in node.value:
        where = f"line {key_node.start_mark.line + 1}"
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{where}: a key must be one word, not a list or a block.")
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ConfigError(f"{where}: key {key!r} is given twice in one block.")
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


Loader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG,
    lambda loader, node: _mapping(loader, node, deep=True),
)


def parse_yaml(text: str, source: str = "configuration") -> dict:
    """Parse YAML text into a dict; mistakes name the file and the line."""
    try:
        value = yaml.load(text, Loader=Loader)  # noqa: S506 (a SafeLoader)
    except ConfigError as error:
        raise ConfigError(f"{source}, {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{source}{where}: not valid YAML: {problem}.") from None
    if value is None:
        raise ConfigError(f"{source}: the file is empty; expected keys and values.")
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: expected keys and values, found {type(value).__name__}.")
    return value


def read_yaml(path: Path) -> dict:
    """Read a YAML file into a dict; mistakes name the file and the line."""
    return parse_yaml(_text(path), str(path))


def plain_value(text: str) -> Any:
    """Return the number or truth value that a text stands for, else the text."""
    try:
        value = yaml.load(text, Loader=Loader)  # noqa: S506 (a SafeLoader)
    except (ConfigError, yaml.YAMLError):
        return text
    return value if isinstance(value, (bool, int, float)) else text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from None
