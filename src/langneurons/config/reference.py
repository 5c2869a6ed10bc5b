"""The reference files that follow from the configuration's definition.

`schema()` is the JSON schema (draft 2020-12) for editors, `reference()` a commented configuration
with every key, `page()` the reference page. `langneurons reference --write` writes them.
"""

import inspect
import json
import re
import sys
import textwrap
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from langneurons.base.settings import NAME, NAME_LENGTH, bare, blocks
from langneurons.config.config import NAMED, Config
from langneurons.evaluation.settings import FigureEntry, PaperTask
from langneurons.interventions import settings as interventions
from langneurons.models import settings as models
from langneurons.selection.methods import METHODS
from langneurons.training.settings import PaperTraining, Training

_QUESTIONS = {"kind": "jsonl", "path": "questions.{lang}.jsonl"}
# One value for every key that has no default, or whose default would show nothing.
EXAMPLE: dict[str, Any] = {
    "name": "reference",
    "title": "Every key",
    "models": {
        "llama": {
            "source": {"kind": "hub", "repo": "meta-llama/Llama-3.1-8B", "revision": "0" * 40},
            "quantization": "nf4",
            "label": "Llama 3.1 8B",
        },
        "folder": {"source": {"kind": "local", "path": "models/mine"}},
        "file": {"source": {"kind": "gguf", "path": "models/mine.gguf"}},
    },
    "languages": {"yo": {"name": "Yoruba", "family": "Volta-Niger", "script": "Latin"}},
    "language_sets": {"three": ["en", "vi", "yo"]},
    "corpus": {
        "source": {
            "kind": "hub",
            "dataset": "wikimedia/wikipedia",
            "config": "20231101.{lang}",
            "revision": "0" * 40,
        }
    },
    "selections": {
        "lape": {"method": "lape", "label": "LAPE"},
        "act_prob_90p": {"method": "exceedance"},
        "abs_mean": {"method": "magnitude"},
        "control": {"method": "random", "like": "lape", "match": "frequency"},
        "average_precision": {"method": "average_precision", "like": "lape"},
        "both": {"method": "combined", "selections": ["lape", "average_precision"]},
        "activated": {"method": "document_sign"},
        "alignment": {"method": "alignment"},
        "lap": {"method": "lap"},
        "lave": {"method": "lave"},
        "mean_difference": {"method": "mean_difference"},
        "plnd": {"method": "plnd"},
    },
    "statistics": {"document_means": ["act", "product"]},
    "interventions": {
        "zero": {"operation": "set", "value": 0.0, "label": "zero"},
        "steer": {
            "steps": [
                {"neurons": "en", "operation": "set", "value": 0.0},
                {"operation": "add", "value": "mean", "coefficient": 2.0},
            ],
            "shared": "target",
        },
        "by_layer": {"operation": "set", "value": "layer_p10", "sweep": 32},
        "arithmetic": {
            "steps": [
                {"neurons": "source", "operation": "set", "value": 0.0},
                {"neurons": "target", "operation": "add", "value": "mean"},
            ]
        },
    },
    "protocols": {"corrected": {}, "paper_site": {"intervention_site": "paper"}},
    "perplexity": {"interventions": ["zero"]},
    "lss": {
        "source": {"kind": "jsonl", "path": "facts.{lang}.jsonl"},
        "interventions": ["zero", "steer"],
    },
    "tasks": {
        "xnli": {"languages": ["en", "vi"], "interventions": ["zero", "steer"]},
        "xnli_head": {"languages": ["vi"], "finetunings": ["nli"], "interventions": ["zero"]},
    },
    "finetunings": {
        "nli": {
            "definition": "config/tasks/xnli_head.yaml",
            "source": {"kind": "jsonl", "path": "train.{lang}.jsonl"},
            "neurons": ["none", "source", "target", "source_target", "all"],
            "targets": ["vi"],
            "paper": {"rows": [0.0, 0.25], "training": {"epochs": 1}},
        },
        "continued": {
            "source": {"kind": "text"},
            "language": "vi",
            "neurons": ["source"],
            "training": {"parameters": "rows", "projections": ["gate", "up", "down"]},
        },
    },
    "forcing": {"interventions": ["arithmetic"], "questions": _QUESTIONS},
    "fallback": {"interventions": ["zero"], "questions": _QUESTIONS},
    "lens": {"interventions": ["arithmetic"], "targets": ["vi"], "questions": _QUESTIONS},
    "results": {
        "venn": [["en", "vi", "yo"]],
        "figures": {
            "fig01_layers": {
                "kind": "layers",
                "model": "llama",
                "languages": "three",
                "selection": "lape",
            }
        },
    },
}


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


def reference() -> str:
    """Return a commented configuration that loads and holds every key of every block.

    But for selections by `published`: a mask must be there when it is named.
    """
    lines = [
        "# yaml-language-server: $schema=schema.json",
        "# Every key with its meaning, what is legal and its default. Written by",
        "# `langneurons reference --write`; not meant to be run as it stands.",
    ]
    shown: set[type] = set()
    lines += _block(Config, EXAMPLE, "", shown)
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the reference page: one table per block."""
    parts = [
        "# Configuration reference",
        "Written by `langneurons reference --write` from `src/langneurons/config` and"
        " `src/langneurons/selection`. `config/reference.yaml` shows the same as a file.",
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
        "config/reference.yaml": reference(),
        "docs/configuration.md": page(),
    }


def _block(model: type[BaseModel], value: dict, indent: str, shown: set[type]) -> list[str]:
    """Return the lines of one block; its keys are explained where the block comes up first."""
    explain = model not in shown
    shown.add(model)
    lines = []
    for name, field in model.model_fields.items():
        if name not in value and not explain:
            continue
        if explain:
            lines += [""] if not indent else []
            notes = [_meaning(name, field), f"Legal: {_legal(field)}."]
            notes += [] if field.is_required() else [f"Default: {_default(field)}."]
            text = " ".join(note for note in notes if note).replace("`", "")
            width = 100 - len(indent) - 2
            lines += [f"{indent}# {line}" for line in textwrap.wrap(text, width)]
        given = value[name] if name in value else _plain_default(field)
        if explain:
            lines += _alternatives(field.annotation, given, indent)
        lines += _entry(name, given, field.annotation, indent, shown)
    return lines


def _alternatives(annotation: Any, given: Any, indent: str) -> list[str]:
    """Return, as comments, the other blocks that may stand here, on one line each."""
    lines = []
    for model in blocks(annotation):
        if model is not _chosen(annotation, given):
            keys = (
                f"{key}: {_legal(field) if field.is_required() else _default(field).strip('`')}"
                for key, field in model.model_fields.items()
            )
            text = f"Or {{{', '.join(keys)}}}"
            lines += [f"{indent}# {line}" for line in textwrap.wrap(text, 98 - len(indent))]
    return lines


def _entry(name: str, given: Any, annotation: Any, indent: str, shown: set[type]) -> list[str]:
    model = _chosen(annotation, given)
    if model is interventions.InterventionEntry and "steps" not in given:
        above = interventions.InterventionEntry.model_fields
        own = {key: item for key, item in given.items() if key not in above}
        lines = [f"{indent}{name}:", *_block(interventions.Step, own, indent + "  ", shown)]
        return lines + [f"{indent}  {key}: {_scalar(given[key])}" for key in above if key in given]
    if model is not None and isinstance(given, dict):
        return [f"{indent}{name}:", *_block(model, given, indent + "  ", shown)]
    if isinstance(given, dict) and given:
        lines = [f"{indent}{name}:"]
        inner = get_args(bare(annotation))[1]
        for key, item in given.items():
            lines += _entry(key, item, inner, indent + "  ", shown)
        return lines
    if isinstance(given, list) and given and isinstance(given[0], dict):
        return [f"{indent}{name}:", *(f"{indent}  - {_scalar(item)}" for item in given)]
    return [f"{indent}{name}: {_scalar(given)}"]


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


def _chosen(annotation: Any, given: Any) -> type[BaseModel] | None:
    """Return the block that a value belongs to, where a tag decides."""
    options = blocks(annotation)
    if len(options) == 1:
        return options[0]
    for model in options:
        for tag in ("kind", "method"):
            if tag in model.model_fields:
                if (given or {}).get(tag) in get_args(model.model_fields[tag].annotation):
                    return model
    return None


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
