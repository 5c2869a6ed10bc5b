"""Paths as users write them: `~`, `$NAME`, `${NAME}` and the braces of templates."""

import os
import re
import string
from collections.abc import Mapping
from pathlib import Path

VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")


def user_path(text: str, names: Mapping[str, str] | None = None) -> Path:
    """Return the path that a text stands for, relative to the working directory.

    `names` fills the braces of a template; without it braces are kept. A variable that the
    environment does not hold is kept as written (`unset` lists these).
    """

    def value(match: re.Match) -> str:
        found = os.environ.get(match.group(1) or match.group(2))
        if found is None:
            return match.group() if names is None else _escaped(match.group())
        return found if names is None else _escaped(found)

    filled = VARIABLE.sub(value, text)
    if names is not None:
        filled = filled.format(**names)
    return Path(filled).expanduser()


def unset(text: str) -> list[str]:
    """Return the variables of a path that the environment does not hold."""
    names = (first or second for first, second in VARIABLE.findall(text))
    return [name for name in dict.fromkeys(names) if name not in os.environ]


def braces(text: str) -> set[str]:
    """Return the names in braces of a template, variables aside.

    Raises:
        ValueError: a brace is not closed, or not opened.
    """
    parsed = string.Formatter().parse(VARIABLE.sub("", text))
    found = set()
    for _, field, spec, conversion in parsed:
        if field is not None:
            found.add(field + (f"!{conversion}" if conversion else "") + (f":{spec}" * bool(spec)))
    return found


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
