"""The reference files that follow from the configuration's definition.

`schema()` is the JSON schema (draft 2020-12) for editors, `page()` the reference page.
`langneurons reference --write` writes them.
"""

import inspect
import json
import re
import sys
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from langneurons.base.settings import NAME, NAME_LENGTH, bare, blocks
from langneurons.config.config import NAMED, Config
from langneurons.data.settings import VariantEntry
from langneurons.evaluation.settings import PaperTask
from langneurons.interventions import settings as interventions
from langneurons.models import settings as models
from langneurons.reporting.settings import FigureEntry
from langneurons.selection.methods import METHODS
from langneurons.training.settings import PaperTraining, Training


def _number(value: float) -> str:
    """Return a bound as it is written: whole numbers in full."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def schema() -> str:
    """Return the JSON schema of a configuration file."""
    made = Config.model_json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "langneurons configuration"
    definitions = made["$defs"]
    step = {key: value for key, value in definitions["Step"].items() if key != "description"}
    entry = definitions["InterventionEntry"]
    above = {key: value for key, value in entry["properties"].items() if key != "steps"}
    short = step | {"properties": step["properties"] | above}
    definitions["InterventionEntry"] = {"anyOf": [entry, short]}
    protocol = definitions["Protocol"]
    words = {"enum": ["paper", "corrected"]}
    definitions["Protocol"] = {"anyOf": [protocol, words]}
    named = made["properties"]["protocols"]
    inner = {key: named.pop(key) for key in ("type", "additionalProperties", "minProperties")}
    inner["propertyNames"] = {"pattern": NAME, "maxLength": NAME_LENGTH}
    named["anyOf"] = [inner, words, {"type": "array", "items": words, "minItems": 1}]
    for name in NAMED[:-1]:
        made["properties"][name]["propertyNames"] = {"pattern": NAME, "maxLength": NAME_LENGTH}
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def page() -> str:
    """Return the reference page: one table per block."""
    parts = [
        "# Configuration reference",
        "Written by `langneurons reference --write` from `src/langneurons/config` and"
        " `src/langneurons/selection`.",
    ]
    for model in _reachable(Config):
        parts.append(f"## {_markdown(_heading(model))}\n\n{_sentence(model)}")
        rows = ["| key | legal | default | meaning |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            cells = (f"`{name}`", _legal(field), _default(field), _meaning(name, field))
            rows.append("| " + " | ".join(map(_markdown, cells)) + " |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _markdown(text: str) -> str:
    """Escape what Markdown would read as markup, outside of `code`."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [re.sub(r"<(?=\w)", "&lt;", part.replace("*", r"\*")) for part in parts[::2]]
    return "`".join(parts)


def files() -> dict[str, str]:
    """Return path (below the repository) and content of every generated file."""
    return {
        "config/schema.json": schema(),
        "docs/configuration.md": page(),
    }


def _scalar(value: Any) -> str:
    """Return a value as YAML in one line (JSON is YAML)."""
    return json.dumps(value, ensure_ascii=False)


def _plain_default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        raise ValueError(f"EXAMPLE lacks a value for a key without default: {field.description}")
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


def _meaning(name: str, field: FieldInfo) -> str:
    if name in ("kind", "method"):
        return "Decides which other keys this block has."
    if not field.description:
        raise ValueError(f"the key {name!r} has no description")
    return field.description


def _legal(field: FieldInfo) -> str:
    text = _words(field.annotation)
    for item in field.metadata:
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if getattr(item, name, None) is not None:
                text += f", {sign} {_number(getattr(item, name))}"
        if getattr(item, "min_length", None):
            few = (
                ", not empty" if bare(field.annotation) is str else f", at least {item.min_length}"
            )
            text += few
        if getattr(item, "pattern", None):
            text += f" like `{item.pattern}`"
    return text


def _words(annotation: Any) -> str:
    """Return an annotation in the words of someone who writes YAML."""
    options = blocks(annotation)
    if options:
        return "block " + " / ".join(_heading(model) for model in options)
    kept = bare(annotation)
    optional = ""
    if get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation):
        optional = ", null"
    origin, arguments = get_origin(kept), get_args(kept)
    if origin is Literal:
        return ", ".join(map(str, arguments)) + optional
    if origin is tuple:
        inner = _words(arguments[0])
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"list of {inner}" + optional
        return f"list of {len(arguments)} ({inner})" + optional
    if origin is dict:
        return f"name: {_words(arguments[1])}" + optional
    if origin in (Union, UnionType):
        return " or ".join(_words(item) for item in arguments if item is not NoneType) + optional
    plain = {str: "text", int: "integer", float: "number", bool: "true, false"}
    return plain.get(kept, str(kept)) + optional


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = _plain_default(field)
    if isinstance(value, dict) and value and not {"kind", "method"} & set(value):
        return "as below"
    return f"`{_scalar(value)}`"


def _heading(model: type[BaseModel]) -> str:
    """Return what a block is called: its key, or its tag."""
    names = {
        Config: "Top level",
        models.ModelEntry: "models.*",
        interventions.InterventionEntry: "interventions.*",
        interventions.Step: "interventions.*.steps",
        Training: "finetunings.*.training",
        FigureEntry: "results.figures.*",
        PaperTask: "tasks.*.paper",
        PaperTraining: "finetunings.*.paper",
    }
    if model in names:
        return names[model]
    if model in METHODS.values():
        return f"selections.* (method: {get_args(model.model_fields['method'].annotation)[0]})"
    if issubclass(model, VariantEntry):
        kind = get_args(model.model_fields["kind"].annotation)[0]
        return f"corpus.variants.* (kind: {kind})"
    if "kind" in model.model_fields:
        kind = get_args(model.model_fields["kind"].annotation)[0]
        place = {"Source": "models.*.source", "Text": "corpus.source", "Task": "tasks.*.source"}
        place |= {"Facts": "lss.source"}
        place |= {"Questions": "questions", "Identifier": "identifier"}
        place["TextRows"] = "finetunings.*.source"
        owner = next(value for key, value in place.items() if model.__name__.endswith(key))
        return f"{owner} (kind: {kind})"
    for name, field in Config.model_fields.items():
        if model in blocks(field.annotation):
            return name
        arguments = get_args(bare(field.annotation))
        if len(arguments) == 2 and model in blocks(arguments[1]):
            return f"{name}.*"
    return model.__name__


def _sentence(model: type[BaseModel]) -> str:
    texts = [model.__doc__ or ""]
    if model in METHODS.values():  # a method's module says where it comes from
        texts.append(sys.modules[model.__module__].__doc__ or "")
    return "\n\n".join(inspect.cleandoc(text) for text in texts)


def _reachable(model: type[BaseModel], seen: dict | None = None) -> list[type[BaseModel]]:
    """Return a block and all blocks below it, in the order of their keys."""
    seen = {} if seen is None else seen
    if model not in seen:
        seen[model] = True
        for field in model.model_fields.values():
            inner = [field.annotation, *get_args(bare(field.annotation))]
            for annotation in inner:
                for option in blocks(annotation):
                    _reachable(option, seen)
    return list(seen)
