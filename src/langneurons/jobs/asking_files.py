"""Chat templates and questions that a configuration names, looked at before the first job."""

from collections.abc import Iterator
from pathlib import Path

from langneurons.base.paths import user_path
from langneurons.config.config import Config
from langneurons.data.questions import files_of, read_questions
from langneurons.evaluation.answer_settings import PHASES, side
from langneurons.jobs.stages.generation import ASKING, question_languages
from langneurons.models import geometry, templates


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


def check_sides(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield a share of development questions that leaves one side without any."""
    entry = config.answers
    if entry is None or all(one.tuning == "paper" for one in config.protocols.values()):
        return
    source = entry.questions.model_dump(mode="json")
    for lang in question_languages(config, "answers"):
        try:
            rows, _ = read_questions(source, lang, entry.limit)
        except (OSError, ValueError):
            continue  # told elsewhere
        names = [row["id"] for row in rows]
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
