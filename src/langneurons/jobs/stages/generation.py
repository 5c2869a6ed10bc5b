"""What models write under interventions: questions, texts, and their judgement."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langneurons.base.errors import present
from langneurons.base.paths import user_path
from langneurons.config.config import Config, entry_languages
from langneurons.data.files import table_rows
from langneurons.data.mini_data import mini_file, question_part
from langneurons.data.questions import files_of
from langneurons.jobs.estimates import RECORD_BYTES, Sizes
from langneurons.jobs.shared_parameters import chat_settings, model_settings, written
from langneurons.jobs.stage import Cell, Need, Stage, Work, conditioned
from langneurons.reporting.layouts import LAYOUTS

ANALYSES = ("forcing", "fallback")
ASKING = (*ANALYSES, "lens", "answers")  # the sections with questions
TEXT_BYTES_PER_TOKEN = 5.0
_DECODING = {"template", "max_new_tokens", "repetition_penalty", "stop"}


def _questions(config: Config, analysis: str, lang: str) -> dict[str, Any]:
    """Return where the questions come from."""
    entry = getattr(config, analysis)
    source = entry.questions.model_dump(mode="json")
    return {"source": source, "limit": entry.limit, "lang": lang}


def decoding(config: Config, analysis: str, model: str) -> dict[str, Any]:
    """Return how answers of a model are asked for and decoded."""
    entry = getattr(config, analysis)
    chat = chat_settings(config, model, entry.chat)
    keys = _DECODING | {"message"} if chat else _DECODING
    return entry.model_dump(mode="json", include=keys) | chat


def _forced(
    config: Config, model: str, variant: str, langset: str, selection: str, intervention: str
) -> dict[str, Any]:
    """Return the intervention, the pairs of languages and how answers are decoded."""
    entry = present(config.forcing, "forcing: left out of the configuration")
    asked, forced = entry_languages(entry, config.directory_languages()[langset])
    return {
        "intervention": written(config, intervention, config.under("generation", variant)),
        "sources": list(asked),
        "targets": list(forced),
        "decoding": decoding(config, "forcing", model),
        "model": model_settings(config, model),
    }


def _order(
    config: Config, model: str, variant: str, langset: str, selection: str, intervention: str
) -> dict[str, Any]:
    """Return the intervention, the order of the languages and how answers are decoded."""
    entry = present(config.fallback, "fallback: left out of the configuration")
    _, order = entry_languages(entry, config.directory_languages()[langset])
    return {
        "intervention": written(config, intervention, config.under("generation", variant)),
        "order": list(order),
        "decoding": decoding(config, "fallback", model),
        "model": model_settings(config, model),
    }


def _judgement(config: Config, analysis: str, **_: str) -> dict[str, Any]:
    """Return how languages are identified, and from where on a text is degenerate."""
    keys = {"identifier", "degenerate"}
    return getattr(config, analysis).model_dump(mode="json", include=keys)


def question_languages(config: Config, analysis: str) -> list[str]:
    """Return the languages in which an analysis asks."""
    entry, sets = getattr(config, analysis), config.directory_languages()
    folders = {folder for model in config.models for folder in _asked_sets(config, analysis, model)}
    return sorted({lang for one in folders for lang in entry_languages(entry, sets[one])[0]})


def _asked_sets(config: Config, analysis: str, model: str) -> list[str]:
    """Return the folders of the sets on which an analysis asks a model."""
    if analysis == "lens":
        return list(config.lens_cells(model))
    if analysis == "answers":
        return [folder for folder, _ in config.answer_cells(model)]
    return [one[0] for one in config.generation_cells(model, analysis)]


def _asked(config: Config) -> list[Cell]:
    return [
        {"analysis": analysis, "lang": lang}
        for analysis in ASKING
        if getattr(config, analysis) is not None
        for lang in question_languages(config, analysis)
    ]


def _cells(analysis: str) -> Callable[[Config], list[Cell]]:
    def cells(config: Config) -> list[Cell]:
        def of(model: str) -> list[tuple[str, str, str]]:
            return config.generation_cells(model, analysis)

        return list(conditioned(config, "generation", of))

    return cells


def _judged(config: Config) -> list[Cell]:
    return [cell | {"analysis": one} for one in ANALYSES for cell in _cells(one)(config)]


def number_of_questions(sizes: Sizes, entry: Any, lang: str) -> float:
    """Return how many questions of a language are asked."""
    source = entry.questions.model_dump(mode="json")
    default = entry.limit or sizes.assumed["default_questions"]
    if source["kind"] == "mini":
        return sizes.lines(mini_file(question_part(source), lang), default, entry.limit)
    paths = [user_path(template, {"lang": lang}) for _, template in files_of(source)]
    there = [path for path in paths if path.is_file()] or paths
    if source["kind"] != "csv":
        return sizes.lines(there[0], default, entry.limit)
    return sum(_rows(path, default, entry.limit) for path in there)


def _rows(path: Path, default: float, limit: int | None) -> float:
    """Return how many rows of a CSV file are used, `default` where it cannot be read."""
    try:
        rows: float = sum(1 for _ in table_rows(path))
    except (OSError, ValueError):
        rows = default
    return min(rows, limit) if limit else rows


def _work(analysis: str) -> Callable[[Sizes, Cell], Work]:
    def work(sizes: Sizes, cell: Cell) -> Work:
        config, entry = sizes.config, getattr(sizes.config, analysis)
        languages = config.directory_languages()[cell["langset"]]
        asked, targets = entry_languages(entry, languages)
        questions = sum(number_of_questions(sizes, entry, lang) for lang in asked)
        answers = (len(targets) + 1) * questions
        return answering(sizes, answers, entry.max_new_tokens)

    return work


def answering(sizes: Sizes, answers: float, new: int) -> Work:
    """Return what answers of at most `new` tokens cost a job."""
    width = sizes.item_tokens("question") + new
    batch = max(1, sizes.config.runtime.batch_tokens // width)
    seconds = sizes.load + sizes.seconds(answers * width, 2, "evaluation")
    seconds += math.ceil(answers / batch) * new * sizes.decode
    size = answers * (RECORD_BYTES + TEXT_BYTES_PER_TOKEN * new)
    return Work(answers * width, seconds, size, answers)


def need_of_answers(sizes: Sizes) -> Need:
    """Return the memory of a job that writes answers."""
    forward = sizes.on_each(sizes.held + sizes.kept, sizes.scores + sizes.states)
    return Need(forward, sizes.host + 2)


ASK = Stage(
    rule="prepare_questions",
    order=4,
    output="resources/questions/{analysis}/{lang}.jsonl",
    cells=_asked,
    parameters=_questions,
)
FORCE = Stage(
    rule="force_language",
    order=90,
    output="results/{model}/texts/forcing/{variant}/{langset}/{selection}/{intervention}.parquet",
    cells=_cells("forcing"),
    parameters=_forced,
    loads_model=True,
    work=_work("forcing"),
    need=need_of_answers,
)
FALL_BACK = Stage(
    rule="fall_back",
    order=91,
    output="results/{model}/texts/fallback/{variant}/{langset}/{selection}/{intervention}.parquet",
    cells=_cells("fallback"),
    parameters=_order,
    loads_model=True,
    work=_work("fallback"),
    need=need_of_answers,
)
JUDGE = Stage(
    rule="judge_texts",
    order=92,
    output=LAYOUTS["generation"],
    cells=_judged,
    parameters=_judgement,
)
