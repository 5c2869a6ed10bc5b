"""Chat templates as text: whether one can be read, and which variables it has. Loads no torch."""

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from langneurons.base.errors import nearest

_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # marks of transformers, not of Jinja


@cache
def variables(template: str) -> frozenset[str]:
    """Return the variables that a template reads.

    Raises:
        ValueError: The template is not Jinja.
    """
    from jinja2 import Environment, TemplateSyntaxError, meta

    environment = Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        parsed = environment.parse(_GENERATION.sub("", template))
    except TemplateSyntaxError as error:
        raise ValueError(f"is not a Jinja template: line {error.lineno}: {error.message}") from None
    return frozenset(meta.find_undeclared_variables(parsed))


def unknown_option(template: str, options: Iterable[str]) -> str | None:
    """Return what is wrong with the first option that a template does not read, or None."""
    known = variables(template)
    for name in options:
        if name not in known:
            return (
                f"{name!r} is not a variable of the template, so it has no effect; its variables:"
                f" {', '.join(sorted(known))}.{nearest(name, known)}"
            )
    return None


def of_folder(folder: Path) -> str | None:
    """Return the chat template of a folder in the layout of the hub; "": none; None: not known."""
    own = folder / "chat_template.jinja"
    try:
        if own.is_file():
            return own.read_text(encoding="utf-8")
        found = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if (folder / "chat_template.json").exists() or (folder / "additional_chat_templates").exists():
        return None
    written = found.get("chat_template") or ""
    if isinstance(written, list):  # several, by name
        written = {one.get("name"): one.get("template") for one in written}.get("default")
    return written if isinstance(written, str) else None
