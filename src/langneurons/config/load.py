"""Read configurations: YAML 1.2 words, no doubled keys, errors in the user's terms."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from langneurons.base.errors import ConfigError, nearest, unknown
from langneurons.base.paths import user_path
from langneurons.base.settings import bare, blocks
from langneurons.config.config import NAMED, Config, check, check_mini_rows
from langneurons.config.effects import check_effects, check_generated
from langneurons.config.sweeps import write_out
from langneurons.interventions.settings import InterventionEntry
from langneurons.jobs.code import file_digest
from langneurons.reporting.printed import Printed


class _Loader(yaml.SafeLoader):
    """YAML with the words of version 1.2: `no` is Norwegian, 1e-3 a number, no dates."""


_REPLACED = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag not in _REPLACED]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_EXPONENT = re.compile(r"^[-+]?(?:\.\d+|\d+(?:\.\d*)?)[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEAN, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict:
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
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{source}{where}: not valid YAML: {problem}.") from None
    if value is None:
        raise ConfigError(f"{source}: the file is empty; expected keys and values.")
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: expected keys and values, found {type(value).__name__}.")
    return value


def build(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration given as plain values; raise `ConfigError` on any mistake."""
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        raise explained(error, raw) from None
    _check_conversions(raw, config, "")
    config = write_out(config)
    check(config)
    check_effects(config)
    _check_definitions(config)
    _check_published(config)
    _check_masks(config)
    return config


def explained(
    error: ValidationError, raw: Mapping[str, Any], root: type[BaseModel] = Config
) -> ConfigError:
    """Return the error of a definition in the user's terms, one line per mistake."""
    lines = dict.fromkeys(_printable(_explain(item, raw, root)) for item in _causes(error))
    return ConfigError("\n".join(lines))


def _printable(line: str) -> str:
    """Return a line in which what does not print, such as a line break, is written out."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in line)


def _check_conversions(given: Any, made: Any, path: str) -> None:
    """Refuse what pydantic takes in silence: "5", true or .inf where a number stands."""
    if isinstance(given, (bool, str)) and isinstance(made, (bool, int, float)):
        if type(given) is not type(made):
            legal = "true or false" if isinstance(made, bool) else "a number, without quotes"
            raise ConfigError(f"{path}: {given!r} is not legal; expected {legal}.")
    elif isinstance(given, float) and not math.isfinite(given):
        raise ConfigError(f"{path}: {given} is not legal; expected a finite number.")
    elif isinstance(given, (list, tuple)) and isinstance(made, tuple):
        for number, (item, result) in enumerate(zip(given, made, strict=False)):
            _check_conversions(item, result, f"{path}[{number}]")
    elif isinstance(given, Mapping):
        short = isinstance(made, InterventionEntry) and "steps" not in given
        for key, value in given.items():
            if short and key not in InterventionEntry.model_fields:
                result = getattr(made.steps[0], str(key), None)
                _check_conversions(value, result, f"{path}.{key}")
                continue
            result = made.get(key) if isinstance(made, dict) else getattr(made, str(key), None)
            _check_conversions(value, result, f"{path}.{key}" if path else str(key))


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
        self.shorthand = False
        for part in location:
            options = blocks(annotation)
            if len(options) > 1:  # a tag, which pydantic adds to the location
                tagged = [model for model in options if part in _tags(model)]
                annotation = tagged[0] if tagged else None
                continue
            if options[:1] == [InterventionEntry] and part == "steps":
                skipped = self.shorthand = isinstance(value, Mapping) and "steps" not in value
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
            if skipped and part in ("steps", 0):  # one step, written without the list
                skipped = part == "steps"
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
        above = set(InterventionEntry.model_fields) - {"steps"}
        return sorted(names | (above if self.shorthand else set()))

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


PROJECT = Path(__file__).resolve().parents[3]
TASK_DEFINITIONS = PROJECT / "config" / "tasks"


def project_file(given: str) -> Path:
    """Return a file that the configuration names: from where it is run, else of the project."""
    path = user_path(given)
    return path if path.exists() or path.is_absolute() else _shipped(path)


def definition_file(name: str, given: str | None) -> Path:
    """Return the file that defines a task: the one named, else the project's own of that name."""
    return TASK_DEFINITIONS / f"{name}.yaml" if given is None else project_file(given)


def _shipped(path: Path) -> Path:
    return PROJECT / path if (PROJECT / path).exists() else path


def _check_definitions(config: Config) -> None:
    """Refuse a task that nothing defines, and a language for which it has no prompt."""
    kinds = {}
    for name, task in config.tasks.items():
        own = _definition("tasks", name, task.definition, task.languages, "languages")
        kind = own and own.kind
        _check_hub(f"tasks.{name}", task.source, own)
        if kind == "classification":
            why = "a classifier reads its whole input as a prompt"
            check_generated(config, f"tasks.{name}", task.interventions, why)
        elif kind == "generation" and own.max_new_tokens == 1:
            why = "the task's max_new_tokens is 1: the only new token is read by no forward pass"
            check_generated(config, f"tasks.{name}", task.interventions, why)
        if task.paper is not None and task.paper.definition is not None:
            paper = _definition(
                "tasks", name, task.paper.definition, task.languages, "languages", "paper."
            )
            other = paper and paper.kind
            if (kind == "classification") != (other == "classification"):
                raise ConfigError(
                    f"tasks.{name}.paper.definition: of kind {other}, the task's own of kind"
                    f" {kind}; a trained head scores both or neither."
                )
        kinds[name] = kind
        if kind == "classification" and task.finetunings is None:
            raise ConfigError(
                f"tasks.{name}.finetunings: missing; the head of a classification task is trained"
                f" ({', '.join(config.finetunings) or 'define one under finetunings'})."
            )
    trained = {name: _check_training(config, name) for name in config.finetunings}
    for name, kind in kinds.items():
        for finetuning in config.tasks[name].finetunings or ():
            if kind == "classification" and trained[finetuning] not in (kind, None):
                heads = [other for other, what in trained.items() if what == kind]
                raise ConfigError(
                    f"tasks.{name}.finetunings: {finetuning!r} trains no head, and a"
                    f" classification task reads one; legal: {', '.join(heads) or 'none here'}."
                )


def _check_training(config: Config, name: str) -> str | None:
    """Return the kind of task that a fine-tuning trains (or text), after checking it."""
    entry = config.finetunings[name]
    kind = "text"
    if not entry.is_text:
        task = _definition("finetunings", name, entry.definition, [entry.language], "language")
        kind = task and task.kind
        _check_hub(f"finetunings.{name}", entry.source, task)
        if task is not None:
            check_mini_rows(f"finetunings.{name}", entry, task.name, [entry.language], "language")
    if kind == "multiple_choice":
        raise ConfigError(
            f"finetunings.{name}.definition: a multiple_choice task cannot be trained; legal:"
            " classification, generation."
        )
    trained = {entry.under(one).training.parameters for one in config.protocols.values()}
    if "rows" in trained and "none" in entry.neurons and kind not in ("classification", None):
        raise ConfigError(
            f"finetunings.{name}.neurons: 'none' leaves nothing to train with parameters: rows,"
            " for only classification has a head; legal: source, target, source_target, all."
        )
    return kind


def _check_published(config: Config) -> None:
    path = config.results.published
    if path is not None and not project_file(path).is_file():
        folder = project_file(str(Path(path).parent))
        siblings = [str(sibling) for sibling in folder.glob("*.yaml")]
        raise unknown("results.published", path, "file of printed numbers", siblings)
    if path is not None:
        read_printed(project_file(path))


def read_printed(path: Path) -> Printed:
    """Return what a file of printed numbers says.

    Raises:
        ConfigError: the file is another kind of YAML; the error names each wrong key.
    """
    content, shown = parse_yaml(_read(path), str(path)), f"results.published: {path}"
    if not {"tables", "masks", "layouts"} & set(content):
        raise ConfigError(
            f"{shown}: is not a file of printed numbers; such a file has the keys layouts and"
            " tables, or layouts and masks (config/published/mondal2025.yaml), and this one has:"
            f" {', '.join(map(str, content))}."
        )
    try:
        return Printed.model_validate(content)
    except ValidationError as error:
        lines = str(explained(error, content, Printed)).split("\n")
        raise ConfigError("\n".join(f"{shown}: {line}" for line in lines)) from None


def _check_masks(config: Config) -> None:
    """Refuse a selection whose file is not there, or not the one that it names."""
    for model in config.models:
        for name in dict.fromkeys(name for _, name in config.cells(model)):
            given = config.selections[name].file(model)
            if given is None:
                continue
            path, place = project_file(given), f"selections.{name}"
            if not path.is_file():
                siblings = [str(sibling) for sibling in path.parent.glob(f"*{path.suffix}")]
                raise unknown(f"{place}.path", given, f"file (model {model})", siblings)
            expected = config.selections[name].sha256
            if expected not in (None, found := file_digest(path, 64)):
                raise ConfigError(
                    f"{place}.sha256: {expected!r}, but {path} has {found}; it is another file."
                )


def _definition(
    section: str,
    name: str,
    given: str | None,
    langs: Sequence[str],
    key: str,
    prefix: str = "",
):
    """Return the task that a file defines, after checking its languages."""
    place = f"{section}.{name}"
    if given is not None:
        path = project_file(given)
        place += f".{prefix}definition"
        folder = project_file(str(Path(given).parent))
        legal = [str(Path(given).parent / sibling.name) for sibling in folder.glob("*.yaml")]
    else:
        path = definition_file(name, None)
        legal = [sibling.stem for sibling in TASK_DEFINITIONS.glob("*.yaml")]
        if not legal:  # installed without the workflow
            return None
    if not path.is_file():
        error = unknown(place, given or name, "task definition", sorted(legal))
        raise ConfigError(f"{error} Define it in {path}.")
    task = read_definition(path, place)
    for lang in langs:
        if lang not in task.words:
            raise unknown(f"{section}.{name}.{key}", lang, f"language of {path.name}", task.words)
    return task


def _check_hub(path: str, source: Any, task: Any) -> None:
    """Refuse rows of the hub where neither source nor definition names a data set."""
    if source.kind == "hub" and source.dataset is None and task is not None and task.hub is None:
        raise ConfigError(
            f"{path}.source: the definition of {task.name!r} names no data set of the hub. Name"
            " one: {kind: hub, dataset: owner/name, revision: ...}, or use another kind of source."
        )


def read_definition(path: Path, place: str | None = None):
    """Return the task that a file defines; `place` is the key that names the file.

    Raises:
        ConfigError: the file is not the definition of a task; the error names each wrong key.
    """
    from langneurons.evaluation.tasks import Task

    content = parse_yaml(_read(path), str(path))
    shown = str(path) if place is None else f"{place}: {path}"
    needed = [name for name, one in Task.model_fields.items() if one.is_required()]
    if len(set(needed) & set(content)) < 2:
        what = "a configuration, " if {"models", "selections"} <= set(content) else ""
        raise ConfigError(
            f"{shown}: is {what}not the definition of a task. A definition has the keys"
            f" {', '.join(needed)} (docs/adding.md shows one); this file has:"
            f" {', '.join(map(str, content))}."
        )
    try:
        return Task.model_validate(content)
    except ValidationError as error:
        lines = str(explained(error, content, Task)).split("\n")
        raise ConfigError("\n".join(f"{shown}: {line}" for line in lines)) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from None


def read_configs(paths, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read configuration files, later ones over earlier ones, then `--config` values over them."""
    merged: dict = {}
    for path in map(Path, paths):
        if not path.is_file():
            folder = path.parent if path.parent.is_dir() else Path()
            siblings = sorted(str(sibling) for sibling in folder.glob("*.yaml"))
            raise ConfigError(f"{path}: there is no such file.{nearest(str(path), siblings)}")
        merged = _over(merged, parse_yaml(_read(path), str(path)), str(path))
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
    if isinstance(value, str):
        try:
            plain = yaml.load(value, Loader=_Loader)  # noqa: S506 (a SafeLoader)
        except (ConfigError, yaml.YAMLError):
            return value
        return plain if isinstance(plain, (bool, int, float)) else value
    return value


def _over(base: dict, over: Mapping[str, Any], place: str) -> dict:
    """Put a configuration over an earlier one; mistakes name the file."""
    try:
        return _merge(base, over)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _named(path: tuple[str, ...]) -> bool:
    """Tell whether the keys of a block are names that the user chooses."""
    return path[-1:] == ("codes",) or path in {(key,) for key in NAMED} | NAMED_BELOW


NAMED_BELOW = {("results", "figures"), ("results", "stand_ins")}


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
        nested = isinstance(value, Mapping) and isinstance(below, Mapping)
        other = nested and any(
            tag in value and value[tag] != below.get(tag) for tag in ("kind", "method")
        )
        if isinstance(value, Mapping):
            value = _merge(below if nested and not other else {}, value, (*path, str(key)))
        result[key] = value
    return result
