"""What a configuration names on disk, looked at before the first job: paths, first rows, sizes.

Called once, by the process that plans a run, and by `langneurons check`; jobs do not
repeat it. Nothing large is read: of a file of rows only the first one, of a folder its listing.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from langneurons.base.errors import ConfigError, InputError, nearest
from langneurons.base.languages import parts_of
from langneurons.base.paths import unset, user_path
from langneurons.base.shipped import PROJECT, definition_file, project_file
from langneurons.base.yaml import parse_yaml
from langneurons.config.config import Config
from langneurons.data import files, typed
from langneurons.data.mini_data import mini_file
from langneurons.data.rows import Row
from langneurons.data.settings import FolderText, HubText, JsonlText, LinesText, MiniText
from langneurons.evaluation.definition import load_task
from langneurons.evaluation.examples import build
from langneurons.evaluation.settings import source_paths
from langneurons.jobs.asking_files import (
    asking_files,
    check_identifiers,
    check_parallel,
    check_questions,
    check_sides,
    check_templates,
)
from langneurons.jobs.decoding import check_engine
from langneurons.jobs.estimates import parsed
from langneurons.jobs.parameters import stage
from langneurons.jobs.sizes import (
    check_experts,
    check_layers,
    check_lengths,
    check_masks,
    check_modules,
    check_shared,
    known_sizes,
)
from langneurons.jobs.stages.generation import ASKING
from langneurons.jobs.stages.steering_shift import fact_languages
from langneurons.reporting.printed import missing_columns, read_printed

SIBLINGS = 2000  # names of a folder among which the most similar one is looked for
SHOWN = 10
COUNTED_BYTES = 2**26  # larger files of rows are not counted before a run


@dataclass(frozen=True)
class Named:
    """A file or folder that a configuration names.

    made: the output of the job that reads it; job: that job's (rule, wildcards).
    """

    key: str
    template: str
    path: Path
    what: str = "file"
    lang: str | None = None
    made: str | None = None
    job: tuple[str, Mapping[str, str]] | None = None


def check_files(config: Config, work: Path = Path()) -> None:
    """Raise `ConfigError` with a line for each thing on disk that cannot be used.

    work: the folder in which the run keeps `resources/` and `logs/`. What a finished job has read
    with the same settings is not looked at again.
    """
    wrong: list[str] = []
    missing: set[str] = set()
    for named in named_files(config):
        if _prepared(config, named, work):
            continue
        reason = _unusable(named)
        if reason is not None:
            missing.add(named.key)
            wrong.append(reason)
    for check in CHECKS:
        for key, reason in check(config, work):
            if not any(key.startswith(f"{one}") or one.startswith(key) for one in missing):
                wrong.append(reason)
    wrong = list(dict.fromkeys(wrong))
    if wrong:
        more = [f"... and {len(wrong) - SHOWN} more of this kind."] if len(wrong) > SHOWN else []
        raise ConfigError("\n".join([*wrong[:SHOWN], *more]))


# Paths --------------------------------------------------------------------------------------------


def named_files(config: Config) -> Iterator[Named]:
    """Yield every file and folder that is opened by a job, filled in for every language."""
    for name, entry in config.models.items():
        source, key = entry.source, f"models.{name}.source.path"
        given: str | None = getattr(source, "path", None)
        if given is None:
            continue
        what = "folder" if source.kind == "local" else "file"
        job = ("prepare_model", {"model": name})
        made = f"resources/models/{name}/manifest.json"
        yield Named(key, given, user_path(given), what, None, made, job)
    for name, entry in config.models.items():
        if entry.chat is not None and entry.chat.template is not None:
            template = entry.chat.template
            yield Named(f"models.{name}.chat.template", template, user_path(template))
    for name, file in _unset_masks(config):
        yield Named(f"selections.{name}.path", file, user_path(file))
    for key, text, lang in config.text_sources():
        if isinstance(text, MiniText | HubText):
            continue
        what = "folder" if text.kind == "folder" else "file"
        path, job = user_path(text.path, _names(text, lang)), ("fetch_text", {"lang": lang})
        made = f"resources/text/{lang}.jsonl"
        yield Named(f"{key}.path", text.path, path, what, parts_of(lang)[0], made, job)
    for one in row_sources(config):
        what = "folder" if one.source.kind == "folder" else "file"
        names = {"lang": one.lang, "code": one.code}
        for key, template in source_paths(one.source).items():
            path = user_path(template, names)
            place = f"{one.key}.{key}"
            yield Named(place, template, path, what, one.lang, one.made, one.job)
    for key, template, lang, made, job in _prompts(config):
        path = user_path(template, {"lang": lang})
        yield Named(key, template, path, "file", lang, made, job)
    for part in ASKING:
        for key in ("identifier", "second_identifier"):
            identifier = getattr(getattr(config, part), key, None)
            if identifier is not None and identifier.kind == "fasttext":
                path = user_path(identifier.path)
                yield Named(f"{part}.{key}.path", identifier.path, path)
    if config.answers is not None and (words := config.answers.english_words) is not None:
        yield Named("answers.english_words", words, user_path(words))


def _unset_masks(config: Config) -> Iterator[tuple[str, str]]:
    """Yield published neurons below a variable that is not set; others are told before."""
    for model in config.models:
        for name in dict.fromkeys(name for _, name in config.cells(model)):
            file = config.selections[name].file_of(model)
            if file is not None and unset(file):
                yield name, file


def _names(source: FolderText | JsonlText | LinesText, lang: str) -> dict[str, str]:
    """Return what stands for the braces of a path of documents."""
    base = parts_of(lang)[0]
    return {"lang": base, "code": source.codes.get(base, base)}


@dataclass(frozen=True)
class RowSource:
    """The rows of a task or a fine-tuning in one language."""

    key: str
    entry: Any
    source: Any
    definition: Path
    task: str
    lang: str
    code: str
    made: str
    job: tuple[str, Mapping[str, str]]


def row_sources(config: Config) -> Iterator[RowSource]:
    """Yield the rows of every task and fine-tuning in every language."""
    for variant in config.variants("items"):
        for name in config.tasks:
            entry, key = _under(config, "tasks", name, variant)
            file = definition_file(name, entry.definition)
            codes = _codes(file)
            for lang in entry.languages:
                made = f"resources/tasks/{variant}/{name}/{lang}.jsonl"
                job = ("prepare_task", {"variant": variant, "task": name, "lang": lang})
                code = codes.get(lang, lang)
                yield RowSource(key, entry, entry.source, file, name, lang, code, made, job)
    for variant in config.variants("rows"):
        for name, own in config.finetunings.items():
            if own.is_text:
                continue
            entry, key = _under(config, "finetunings", name, variant)
            file = definition_file(name, entry.definition)
            lang = entry.language
            made = f"resources/training/{variant}/{name}.jsonl"
            job = ("prepare_training", {"variant": variant, "finetuning": name})
            content = _content(file)
            code = _codes(file).get(lang, lang)
            task = str(content.get("name", name))  # what the mini data is called
            yield RowSource(key, entry, entry.source, file, task, lang, code, made, job)


def _under(config: Config, section: str, name: str, variant: str) -> tuple[Any, str]:
    """Return an entry as a folder of results has it, and the key of its source."""
    own = getattr(config, section)[name]
    protocol = config.under("items" if section == "tasks" else "rows", variant)
    entry = own.under(protocol)
    replaced = own.paper is not None and own.paper.source is not None
    inner = "paper.source" if protocol.split == "paper" and replaced else "source"
    return entry, f"{section}.{name}.{inner}"


def _content(definition: Path) -> Mapping[str, Any]:
    if not definition.is_file():
        return {}
    return parsed(definition.read_text(encoding="utf-8-sig"), str(definition))


def _codes(definition: Path) -> Mapping[str, str]:
    codes = _content(definition).get("codes")
    return codes if isinstance(codes, Mapping) else {}


def _prompts(config: Config) -> Iterator[tuple]:
    """Yield (key, template, language, made, job) of facts and questions in files."""
    if config.lss is not None and config.lss.source.kind == "jsonl":
        for lang in fact_languages(config):
            job = ("prepare_facts", {"lang": lang})
            made = f"resources/facts/{lang}.jsonl"
            yield "lss.source.path", config.lss.source.path, lang, made, job
    yield from asking_files(config)


def _prepared(config: Config, named: Named, work: Path) -> bool:
    """Return whether the job that reads a file has ended with the settings of now."""
    if named.made is None or named.job is None or not (work / named.made).exists():
        return False
    rule, wildcards = named.job
    record = work / "logs" / rule / f"{'/'.join(wildcards.values())}.json"
    try:
        settings = json.loads(record.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return settings == stage(config, rule, **wildcards)


def _unusable(named: Named) -> str | None:
    """Return what is wrong with a path, in words, or None."""
    path, shown = named.path, f"{named.key}: {named.template!r}"
    lacking = unset(named.template)
    if lacking and not path.exists():
        return (
            f"{shown}: the environment variable {lacking[0]} is not set. Set it, or write the path."
        )
    if str(path) != named.template:
        shown += f" ({path}{f', language {named.lang}' if named.lang else ''})"
    try:
        is_there = path.is_dir() if named.what == "folder" else path.is_file()
        other = path.exists()
    except OSError as error:
        return f"{shown}: cannot be looked up: {error.strerror}."
    if not is_there:
        if other:
            found = "a folder" if path.is_dir() else "a file"
            return f"{shown}: is {found}; expected: a {named.what}."
        return f"{shown}: there is no such {named.what}.{_hint(path, named.template)}"
    if not os.access(path, os.R_OK):
        return f"{shown}: is not readable; change its permissions."
    if named.key.startswith("models.") and named.what == "folder":
        if not (path / "config.json").is_file():
            return (
                f"{shown}: the folder holds no config.json; expected: a model in the layout of the"
                f" hub (config.json, tokenizer files, weights).{_below(path)}"
            )
    if named.what == "file" and path.stat().st_size == 0:
        return f"{shown}: the file is empty."
    return None


def _below(path: Path) -> str:
    """Name a folder below one without config.json that has one."""
    found = [name for name in _listed(path) if (path / name / "config.json").is_file()]
    return f" Did you mean {str(path / found[0])!r}?" if found else ""


def _listed(folder: Path) -> list[str]:
    try:
        with os.scandir(folder or Path()) as entries:
            return sorted(entry.name for _, entry in zip(range(SIBLINGS), entries, strict=False))
    except OSError:
        return []


def _hint(path: Path, template: str) -> str:
    """Name the most similar file of the folder, or the first folder that is not there."""
    above = path.parent
    if not above.is_dir():
        while not above.parent.is_dir() and above.parent != above:
            above = above.parent
        close = nearest(above.name, _listed(above.parent))
        return f" There is no folder {str(above)!r}.{close}{_relative(template)}"
    listed = _listed(above)
    close = nearest(path.name, listed)
    few = f" The folder holds: {', '.join(listed[:5])}." if listed and not close else ""
    return f"{close}{few}{_relative(template)}"


def _relative(template: str) -> str:
    if template.startswith(("/", "~", "$")):
        return ""
    return f" Relative paths are relative to the working directory ({Path.cwd()})."


def _check_printed(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield the CSV files of printed numbers that are not there, or lack a column."""
    if config.results.published is None:
        return
    path = project_file(config.results.published)
    for name, wanted in read_printed(path).files().items():
        file, key = path.parent / name, "results.published"
        if not file.is_file():
            close = nearest(name, _listed(file.parent))
            yield key, f"{key}: {path} names {name!r}, and there is no {file}.{close}"
            continue
        for column in missing_columns(file, wanted):
            yield key, f"{key}: {file} has no column {column!r}; it needs: {', '.join(wanted)}."


# Rows ---------------------------------------------------------------------------------------------


def _check_rows(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield what the first row of a source lacks of what its reader needs."""
    from langneurons.data.corpus import document

    tasks: dict[Path, Any] = {}
    for one in row_sources(config):
        named = Named(one.key, "", Path(), "file", one.lang, one.made, one.job)
        if not one.definition.is_file() or _prepared(config, named, work):
            continue
        try:
            first = _first_of_task(one)
        except InputError as error:
            yield one.key, f"{one.key}: {error}"
            continue
        if first is None:
            continue
        place, row = first
        if one.definition not in tasks:
            tasks[one.definition] = load_task(one.definition)
        task = tasks[one.definition]

        lacking = [field for field in task.fields if field not in row]
        if lacking:
            yield (
                one.key,
                f"{one.key}: {place} has no field {lacking[0]!r}, which {_shown(one.definition)}"
                f" reads; its fields: {', '.join(map(str, row))}.{nearest(lacking[0], row)}"
                " Name another source, or another `definition`.",
            )
            continue
        yield from _tried(one.key, place, partial(build, [row], task, one.lang))
    for place, source, lang in config.text_sources():
        if isinstance(source, MiniText | HubText):
            continue
        path = user_path(source.path, _names(source, lang))
        if isinstance(source, FolderText):
            yield from _fields(place, path, source.text_field, source.id_field)
            continue
        read = partial(document, source=source, number=0)
        yield from _read_first(place, path, read, source.kind)
    for key, template, lang, made, job in _prompts(config):
        path = user_path(template, {"lang": lang})
        named = Named(key, template, path, "file", lang, made, job)
        if _prepared(config, named, work):
            continue
        if key.startswith("lss"):
            yield from _read_first(key, path, partial(_read_fact, lang))
        else:
            source = getattr(config, key.partition(".")[0]).questions.model_dump(mode="json")
            yield from check_questions(key, source, path, COUNTED_BYTES)


def _tried(key: str, place: str, read: Callable[[], Any]) -> Iterator[tuple[str, str]]:
    try:
        read()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        yield key, f"{key}: the first row of {place} cannot be used: {error}"


def _read_fact(lang: str, row: Row) -> None:
    from langneurons.data.facts import read_facts

    read_facts([row], lang)


def _read_first(
    key: str, path: Path, read: Callable[[Row], Any], kind: str = "jsonl"
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the first row of a file, as the job that reads it would say it."""
    try:
        row = _first_row(path, kind)
        if row is not None:
            read(row)
    except ValueError as error:
        yield key, f"{key}: {error}"


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


TYPES = ("string", "large_string", "string_view")


def _fields(key: str, path: Path, text: str, name: str | None) -> Iterator[tuple[str, str]]:
    """Yield the fields that a folder of documents lacks, and a text that is of another type."""
    found = _columns(path)
    if isinstance(found, str):
        yield key, f"{key}: {path}: {found}"
        return
    if found is None:
        return
    kind = found.get(text)
    if isinstance(kind, Mapping) and kind.get("dtype") not in (*TYPES, None):
        yield key, f"{key}: {path}: field {text!r} is of type {kind['dtype']}. Expected: text."
    for field in filter(None, (text, name)):
        if field not in found:
            yield (
                key,
                f"{key}: {path}: no field {field!r}; fields:"
                f" {', '.join(map(str, found))}.{nearest(field, found)}",
            )


def _first_row(path: Path, kind: str = "jsonl") -> Row | None:
    """Return the first row of a file that is not blank; None where there is no such file."""
    try:
        if kind == "text":
            for number, line in files.lines(path):
                if not typed.blank(line):
                    return Row({"text": line}, f"{path}, line {number}")
        else:
            for row in files.objects(path):
                return row
    except OSError:
        return None
    raise InputError(f"{path} holds no row.")


def _columns(folder: Path) -> dict[str, Any] | str | None:
    """Return the columns of a folder that `datasets.save_to_disk` wrote, with their types."""
    if not folder.is_dir():
        return None
    if (folder / "dataset_dict.json").is_file():
        try:
            splits = json.loads((folder / "dataset_dict.json").read_text("utf-8"))["splits"]
        except (ValueError, KeyError, TypeError, OSError, RecursionError):
            splits = []
        return f"holds the splits {', '.join(map(str, splits))}; name the folder of one of them."
    try:
        return dict(json.loads((folder / "dataset_info.json").read_text("utf-8"))["features"])
    except FileNotFoundError:
        return "is not a folder that `datasets.save_to_disk` wrote: it holds no dataset_info.json."
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        return f"its dataset_info.json lists no features ({error}). Save the folder again."


def _first_of_task(one: RowSource) -> tuple[str, dict[str, Any]] | None:
    """Return where the first row of a task's source stands, and the row."""
    kind = one.source.kind
    names = {"lang": one.lang, "code": one.code}
    if kind == "mini":
        name = one.source.name or one.task
        own: dict[str, Any] | None = _first_row(mini_file(name, one.lang))
        if own and name == "flores":
            own = {"sentence_src": own["english"], "sentence_tgt": own["text"]}
        return (f"the mini data of {name}", own) if own else None
    if kind == "jsonl":
        path = user_path(one.source.path, names)
        row = _first_row(path)
        return None if row is None else (str(path), row)
    if kind == "text":
        fields: dict[str, Any] = {}
        for field, template in one.source.fields.items():
            path = user_path(template, names)
            try:
                fields[field] = next(iter(files.lines(path)), (1, None))[1]
            except OSError:
                return None
            if fields[field] is None:
                raise InputError(f"{path} holds no row.")
        return f"{one.key}.fields", fields
    if kind == "folder":
        columns = _columns(user_path(one.source.path, names))
        if isinstance(columns, str):
            raise InputError(f"{user_path(one.source.path, names)} {columns}")
        if columns is not None:
            missing = [field for field in _reads(one.definition) if field not in columns]
            return (
                (str(user_path(one.source.path, names)), dict.fromkeys(columns, ""))
                if (missing)
                else None
            )
    return None


def _reads(definition: Path) -> list[str]:
    fields = parse_yaml(definition.read_text(encoding="utf-8-sig"), str(definition)).get("fields")
    return [str(field) for field in fields] if isinstance(fields, list) else []


# Shares -------------------------------------------------------------------------------------------


def _check_shares(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield the shares of rows that select none of as many as there are."""
    for one in row_sources(config):
        if tuple(one.entry.rows) == (0.0, 1.0):
            continue
        number = number_of_rows(one)
        if number is None:
            continue
        first, last = (round(share * number) for share in one.entry.rows)
        if first >= last:
            path = one.key.removesuffix(".source") + ".rows"
            least = 1 / max(number, 1)
            yield (
                path,
                f"{path}: {list(one.entry.rows)} of {number} rows ({one.lang}) is none; legal: a"
                f" share of {least:.2g} or more.",
            )


def number_of_rows(one: RowSource) -> int | None:
    """Return how many rows a source has, None where that is not known before a run."""
    kind, path = one.source.kind, None
    if kind == "mini":
        path = mini_file(one.source.name or one.task, one.lang)
    elif kind in ("jsonl", "text"):
        template = next(iter(source_paths(one.source).values()))
        path = user_path(template, {"lang": one.lang, "code": one.code})
    elif kind == "hub" and one.definition.is_file():
        text = one.definition.read_text(encoding="utf-8-sig")
        hub = parse_yaml(text, str(one.definition)).get("hub") or {}
        sizes = known_sizes().get("rows", {}).get(one.source.dataset or hub.get("dataset"), {})
        return sizes.get(one.source.split or hub.get("split", "test"))
    try:
        if path is None or path.stat().st_size > COUNTED_BYTES:
            return None
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip() or kind == "text")
    except OSError:
        return None


def _check_split(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield a share of held-out documents that holds none, or all, of the mini corpus."""
    corpus = config.corpus
    if corpus.split == "order" or corpus.heldout_source is not None:
        return
    from langneurons.data.corpus import split_of

    for key, source, lang in config.text_sources():
        if source.kind != "mini" or config.text_block(lang)[1].heldout_source is not None:
            continue
        try:
            text = mini_file(source.texts, parts_of(lang)[0]).read_text(encoding="utf-8")
        except OSError:
            continue
        names = [json.loads(line)["id"] for line in text.splitlines() if line.strip()]
        parts = {split_of(name, corpus.heldout_fraction, corpus.seed) for name in names}
        if len(parts) < 2:
            held = "no" if parts == {"identification"} else "every"
            yield (
                "corpus.heldout_fraction",
                f"corpus.heldout_fraction: {corpus.heldout_fraction} of {len(names)} documents"
                f" ({lang}, {key}) with corpus.seed {corpus.seed} holds out {held} document; both"
                " parts need some. Change heldout_fraction or seed.",
            )
            return


CHECKS = (
    _check_printed,
    check_masks,
    check_shared,
    check_layers,
    check_lengths,
    check_modules,
    check_experts,
    _check_rows,
    _check_shares,
    _check_split,
    check_templates,
    check_parallel,
    check_sides,
    check_identifiers,
    check_engine,
)
