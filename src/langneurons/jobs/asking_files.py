"""Chat templates and questions that a configuration names, looked at before the first job."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from langneurons.base.paths import user_path
from langneurons.config.config import Config
from langneurons.data.questions import files_of, read_questions
from langneurons.evaluation.answer_settings import PHASES, TEST, side
from langneurons.evaluation.confusion import LETTERS, english_words
from langneurons.jobs.stages.generation import ASKING, question_languages
from langneurons.models import geometry, templates

FASTTEXT = b"\xba\x16\x4f\x2f"  # what a fastText model begins with


def check_templates(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield templates that are not Jinja, models without one, and options without effect."""
    for name, model in config.models.items():
        if model.chat is None:
            continue
        path, given = f"models.{name}.chat", model.chat.template
        if given is None:
            found = map(templates.of_folder, geometry.folders(name, model.source, work))
            text = next((one for one in found if one is not None), None)
            if text is None:
                continue
            if not text:
                yield (
                    path,
                    f"{path}: the tokenizer of the model has no chat template, so it is not that of"
                    f" an instruction-tuned model. Name a file with one as {path}.template, or"
                    f" leave {path} out.",
                )
                continue
        else:
            try:
                text = user_path(given).read_text(encoding="utf-8")
            except OSError:
                continue  # told elsewhere
            except UnicodeDecodeError as error:
                key = f"{path}.template"
                yield key, f"{key}: {given!r} is not text in UTF-8 ({error}). Save it as UTF-8."
                continue
        try:
            reason = templates.unknown_option(text, model.chat.options)
        except ValueError as error:
            if given is not None:
                yield f"{path}.template", f"{path}.template: {given!r} {error}."
            continue
        if reason is not None:
            yield f"{path}.options", f"{path}.options: {reason}"


def check_questions(
    key: str, source: Mapping[str, Any], path: Path, most: int
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the first row that cannot be read of a file of at most `most` bytes.

    Of a larger file only the first row is read.
    """
    try:
        whole = path.stat().st_size <= most
    except OSError:
        return  # told elsewhere
    own = {"kind": source["kind"], "path": str(path).replace("{", "{{").replace("}", "}}")}
    own |= {name: source[name] for name in ("question_field", "id_field") if name in source}
    try:
        rows, _ = read_questions(own, "", None if whole else 1)
    except ValueError as error:
        yield key, f"{key}: {error}"
        return
    if not rows:
        yield key, f"{key}: {path} holds no row."


def check_parallel(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield questions that are told by their number and differ in number between languages."""
    for section in ASKING:
        entry = getattr(config, section)
        if entry is None or entry.questions.kind not in ("text", "csv"):
            continue
        source = entry.questions.model_dump(mode="json")
        if source.get("id_field") or getattr(entry, "pairs", "all") == "same":
            continue
        # Of each part those languages that have it.
        numbers: dict[str, dict[str, int]] = {}
        for lang in question_languages(config, section):
            try:
                rows = read_questions(source, lang, entry.limit)[0]
            except (OSError, ValueError):
                continue  # told elsewhere
            for part, number in Counter(row.get("part", "") for row in rows).items():
                numbers.setdefault(part, {})[lang] = number
        for part, found in numbers.items():
            if len(set(found.values())) == 1:
                continue
            first, *others = found
            other = next(lang for lang in others if found[lang] != found[first])
            where = f"part {part!r}: " if part else ""
            yield (
                f"{section}.questions",
                f"{section}.questions: {where}{found[first]} questions in {first}, {found[other]}"
                f" in {other}. Question n has to be the same one in every language; give files that"
                " are parallel, set `limit`, or give identifiers (`kind: jsonl`, `id_field`).",
            )


def check_identifiers(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield identifiers that are not fastText models, and lists without an English word."""
    for section in ASKING:
        for name in ("identifier", "second_identifier"):
            one = getattr(getattr(config, section), name, None)
            if one is None or one.kind != "fasttext":
                continue
            try:
                with user_path(one.path).open("rb") as opened:
                    begins = opened.read(len(FASTTEXT))
            except OSError:
                continue  # told elsewhere
            if begins != FASTTEXT:
                yield (
                    f"{section}.{name}.path",
                    f"{section}.{name}.path: {one.path!r} is not a fastText model (its first bytes"
                    f" are {begins!r}). Name one, such as lid.176.bin.",
                )
    given = None if config.answers is None else config.answers.english_words
    if given is None:
        return
    key = "answers.english_words"
    try:
        found = english_words(given)
    except OSError:
        return  # told elsewhere
    except ValueError as error:
        yield key, f"{key}: {error}"
        return
    if not found:
        yield (
            key,
            f"{key}: {given!r} holds no word of {LETTERS} or more letters without a capital, one"
            " per line, so every answer would pass. Name another list, or leave the key out.",
        )


def check_sides(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield a share of development questions that leaves one side without any."""
    entry = config.answers
    if entry is None or all(one.tuning == "paper" for one in config.protocols.values()):
        return
    source = entry.questions.model_dump(mode="json")
    tested: dict[str, bool] = {}  # by part: whether any of its questions tests
    for lang in question_languages(config, "answers"):
        try:
            rows, _ = read_questions(source, lang, entry.limit)
        except (OSError, ValueError):
            continue  # told elsewhere
        names = [row["id"] for row in rows]
        for row in rows:
            part, tests = row.get("part", ""), side(row["id"], entry.development, entry.seed)
            tested[part] = tested.get(part, False) or tests == TEST
        if not names:
            continue  # told elsewhere
        found = [side(name, entry.development, entry.seed) for name in names]
        lacking = [phase for phase in PHASES if phase not in found]
        if lacking:
            yield (
                "answers.development",
                f"answers.development: {entry.development:g} of {len(names)} questions ({lang})"
                f" with answers.seed {entry.seed} leaves the {lacking[0]} side without any; both"
                " sides need some. Give more questions (`limit`), or change development or seed.",
            )
            return
    for part in (part for part, tests in tested.items() if not tests):
        yield (
            "answers.development",
            f"answers.development: {entry.development:g} of the questions with answers.seed"
            f" {entry.seed} leaves the part {part!r} without a test question, so no table would"
            " show it. Leave the part out, give it more questions, or change development or seed.",
        )


def asking_files(config: Config) -> Iterator[tuple]:
    """Yield (key, template, language, made, job) of questions in files.

    Of a source with parts: the files that are there, every file of a language that has none, and
    the first file of a part that no language has.
    """
    for section in ASKING:
        entry = getattr(config, section)
        if entry is None or entry.questions.kind == "mini":
            continue
        source = entry.questions.model_dump(mode="json")
        languages = question_languages(config, section)
        found: dict[str, list[str]] = {lang: [] for lang in languages}
        for part, template in files_of(source):
            there = [lang for lang in languages if not part or _is_there(template, lang)]
            for lang in there or languages[:1]:
                found[lang].append(template)
        for lang, own in found.items():
            job = ("prepare_questions", {"analysis": section, "lang": lang})
            made = f"resources/questions/{section}/{lang}.jsonl"
            for template in own or [path for _, path in files_of(source)]:
                yield f"{section}.questions.path", template, lang, made, job


def _is_there(template: str, lang: str) -> bool:
    return user_path(template, {"lang": lang}).is_file()
