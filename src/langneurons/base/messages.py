"""What is wrong with a definition, in the terms of someone who writes YAML."""

import math
import re
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from langneurons.base.errors import ConfigError, nearest
from langneurons.base.settings import bare, blocks

T = TypeVar("T", bound=BaseModel)


def explained(error: ValidationError, raw: Mapping[str, Any], root: type[BaseModel]) -> ConfigError:
    """Return the error of a definition in the user's terms, one line per mistake."""
    lines = dict.fromkeys(_printable(_explain(item, raw, root)) for item in _causes(error))
    return ConfigError("\n".join(lines))


def _printable(line: str) -> str:
    """Return a line in which what does not print, such as a line break, is written out."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in line)


def defined(kind: type[T], content: Mapping[str, Any], shown: str) -> T:
    """Return what the content of a file defines; mistakes begin with `shown`, one line each."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines = str(explained(error, content, kind)).split("\n")
        raise ConfigError("\n".join(f"{shown}: {line}" for line in lines)) from None


def check_conversions(given: Any, made: Any, path: str) -> None:
    """Refuse what pydantic takes in silence: "5", true or .inf where a number stands."""
    if isinstance(given, (bool, str)) and isinstance(made, (bool, int, float)):
        if type(given) is not type(made):
            legal = "true or false" if isinstance(made, bool) else "a number, without quotes"
            raise ConfigError(f"{path}: {given!r} is not legal; expected {legal}.")
    elif isinstance(given, float) and not math.isfinite(given):
        raise ConfigError(f"{path}: {given} is not legal; expected a finite number.")
    elif isinstance(given, (list, tuple)) and isinstance(made, tuple):
        for number, (item, result) in enumerate(zip(given, made, strict=False)):
            check_conversions(item, result, f"{path}[{number}]")
    elif isinstance(given, Mapping):
        listed = getattr(made, "one_of", None)
        short = listed is not None and listed not in given
        for key, value in given.items():
            if short and key not in type(made).model_fields:
                result = getattr(getattr(made, str(listed))[0], str(key), None)
                check_conversions(value, result, f"{path}.{key}")
                continue
            result = made.get(key) if isinstance(made, dict) else getattr(made, str(key), None)
            check_conversions(value, result, f"{path}.{key}" if path else str(key))


def _causes(error: ValidationError) -> list:
    """Drop the complaint that a list is too short because its items failed."""
    items = error.errors()
    return [
        item
        for item in items
        if item["type"] != "too_short"
        or not any(o is not item and o["loc"][: len(item["loc"])] == item["loc"] for o in items)
    ]


# What pydantic calls it -> what someone who writes YAML calls it.
_EXPECTED = {
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "tuple_type": "expected a list, such as [a, b]",
    "dict_type": "expected names, each with what it stands for",
    "invalid_key": "a key must be text",
}
_BLOCK = ("model_type", "model_attributes_type")


def _explain(item: Mapping[str, Any], raw: Mapping[str, Any], root: type[BaseModel]) -> str:
    """Turn one pydantic error into: key path, value, what is legal, nearest match."""
    place = _Place(item["loc"], raw, root)
    path, kind, value = place.path, item["type"], item["input"]
    context = item.get("ctx", {})
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    if kind == "extra_forbidden":
        legal = place.siblings
        return f"{path}: unknown key; known here: {', '.join(legal)}.{nearest(place.last, legal)}"
    if kind == "missing":
        return f"{path}: missing, and it has no default.{place.meaning}"
    if kind in {"union_tag_invalid", "literal_error"}:
        expected = str(context.get("expected_tags") or context.get("expected"))
        words = expected.replace(" or ", ", ").replace("'", "").split(", ")
        given = context.get("tag", value) if kind == "union_tag_invalid" else value
        key = str(context.get("discriminator", "")).strip("'")
        path = f"{path}.{key}" if key else path
        hint = nearest(given, words)
        return f"{path}: {given!r} is not legal; legal: {', '.join(words)}.{hint}"
    if kind == "union_tag_not_found":
        key = str(context["discriminator"]).strip("'")
        return f"{path}: lacks the key {key!r}, which says what kind it is."
    if kind in _BLOCK:
        return f"{path}: expected a block of keys: {', '.join(place.keys)} (given: {shown})."
    if kind == "too_short":
        number = context["min_length"]
        return f"{path}: empty or too short; it needs at least {number} (given: {shown})."
    if kind == "too_long":
        return f"{path}: too long; it takes {context['max_length']} (given: {shown})."
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"{path}: {shown} does not have the form {pattern}.{place.meaning}"
    wanted = _EXPECTED.get(kind, "number")
    if isinstance(value, float) and not math.isfinite(value) and "number" in wanted:
        return f"{path}: {value} is not legal; expected a finite number."
    message = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    message = re.sub(r"^(String|Tuple|List|Dictionary|Value) should", "should", message)
    message = _EXPECTED.get(kind, message).rstrip(".")
    word, _, rest = message.partition(": ")
    if kind == "value_error" and word in place.keys:
        path = f"{path}.{word}" if place.parts else word
        message = rest
    if kind == "value_error" and isinstance(value, Mapping):
        return f"{path}: {message}."
    return f"{path}: {message} (given: {shown})."


class _Place:
    """Where an error lies: pydantic's location in the user's keys, and the models on its way."""

    def __init__(self, location: tuple, raw: Any, root: type[BaseModel]):
        self.parts: list = []
        self.owner: type[BaseModel] | None = None
        self.last: Any = None
        annotation: Any = root
        value, skipped = raw, False
        self.shorthand: type[BaseModel] | None = None  # the block whose only item is written out
        for part in location:
            options = blocks(annotation)
            if len(options) > 1:  # a tag, which pydantic adds to the location
                tagged = [model for model in options if part in _tags(model)]
                annotation = tagged[0] if tagged else None
                continue
            listed = getattr(options[0], "one_of", None) if options else None
            if listed is not None and part == listed:
                skipped = isinstance(value, Mapping) and listed not in value
                self.shorthand = options[0] if skipped else None
            elif not options and part == "[key]":
                continue
            elif not options and get_origin(bare(annotation)) in (Union, UnionType):
                if str(part).startswith("tuple["):  # pydantic names the alternative it tried
                    annotation = next(one for one in get_args(annotation) if get_args(one))
                continue
            self.last = part
            self.owner = options[0] if options else None
            if options:
                field = options[0].model_fields.get(part)
                annotation = field.annotation if field else None
            else:
                inner = get_args(bare(annotation))
                annotation = inner[-1 if inner[-1:] != (Ellipsis,) else 0] if inner else None
            if skipped and part in (listed, 0):  # one item, written without the list
                skipped = part == listed
                continue
            self.parts.append(part)
            value = _inside(value, part)
        options = blocks(annotation)
        self.keys = sorted({name for model in options for name in model.model_fields})

    @property
    def path(self) -> str:
        """The key path, as in a.b[0]."""
        text = ""
        for part in self.parts:
            text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
        return text or "configuration"

    @property
    def siblings(self) -> list[str]:
        """The keys that are legal beside the last one."""
        names = set(self.owner.model_fields) if self.owner else set()
        if self.shorthand is not None:
            names |= set(self.shorthand.model_fields) - {getattr(self.shorthand, "one_of", None)}
        return sorted(names)

    @property
    def meaning(self) -> str:
        """What the definition says of the last key."""
        field = self.owner.model_fields.get(self.last) if self.owner else None
        return f" {field.description}" if field is not None and field.description else ""


def _inside(value: Any, part: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, (list, tuple)) and isinstance(part, int) and part < len(value):
        return value[part]
    return value if part == "[key]" else None


def _tags(model: type[BaseModel]) -> tuple:
    fields = (model.model_fields[key] for key in ("kind", "method") if key in model.model_fields)
    return tuple(tag for field in fields for tag in get_args(field.annotation))
