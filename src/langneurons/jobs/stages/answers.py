"""Methods compared by answers: development, test, ratings by judges, scores."""

from collections.abc import Collection
from typing import Any

from langneurons.base.errors import present
from langneurons.config.config import Config, entry_languages
from langneurons.evaluation.answer_settings import PHASES, AnswersConfig, PromptEntry
from langneurons.jobs.estimates import RECORD_BYTES, Sizes
from langneurons.jobs.shared_parameters import chat_settings, model_settings, written
from langneurons.jobs.stage import Cell, Stage, Work, by_model
from langneurons.jobs.stages.generation import (
    answering,
    decoding,
    need_of_answers,
    number_of_questions,
)
from langneurons.reporting.layouts import LAYOUTS

FOLDER = "results/{model}/answers/{variant}/{langset}/{method}"
RATING_TOKENS = 150  # of a judge's prompt, beside question and answer


def _entry(config: Config) -> AnswersConfig:
    return present(config.answers, "answers: left out of the configuration")


def _cells(config: Config) -> list[Cell]:
    return [
        cell | {"langset": folder, "method": method}
        for cell in by_model(config, "answering")
        for folder, method in config.answer_cells(cell["model"])
    ]


def _phased(config: Config) -> list[Cell]:
    return [cell | {"phase": phase} for cell in _cells(config) for phase in PHASES]


def _rated(config: Config) -> list[Cell]:
    judge = None if config.answers is None else config.answers.judge
    judges = () if judge is None else judge.models
    return [cell | {"judge": judge} for cell in _phased(config) for judge in judges]


def _answered(
    config: Config, model: str, variant: str, langset: str, method: str
) -> dict[str, Any]:
    """Return the settings of a method, the pairs of languages and how answers are decoded."""
    entry, protocol = _entry(config), config.under("answering", variant)
    printed = protocol.tuning == "paper"
    own = entry.options(method, printed)
    sources, targets = entry_languages(entry, config.directory_languages()[langset])
    names = config.known_languages()
    interventions = {name: written(config, name, protocol) for name in own.interventions}
    if protocol.shared_neurons == "paper":
        for one in interventions.values():
            one.pop("shared", None)
    return {
        "selections": list(own.selections),
        "interventions": interventions,
        "prompts": {name: _prompt(entry.prompts[name], targets) for name in own.prompts},
        "sources": list(sources),
        "pairs": entry.pairs,
        "targets": list(targets),
        "names": {lang: names[lang].name for lang in targets},
        "decoding": decoding(config, "answers", model),
        # On the test questions themselves where the paper does so.
        "development": None if printed else entry.development,
        "seed": entry.seed,
        "model": model_settings(config, model),
    }


def _prompt(entry: PromptEntry, targets: Collection[str]) -> dict[str, Any]:
    """Return an instruction without the texts of languages that are not targets."""
    found = entry.model_dump(mode="json", exclude={"label"})
    for key in ("instruction", "turns"):
        if isinstance(found[key], dict):
            found[key] = {lang: text for lang, text in found[key].items() if lang in targets}
    return found


def _tested(config: Config, model: str, variant: str, langset: str, method: str) -> dict[str, Any]:
    """Return what of the configuration the test depends on: also the choice and the draws."""
    entry, found = _entry(config), _answered(config, model, variant, langset, method)
    drawn = {"draws": entry.controls.draws, "match": entry.controls.match}
    # A prompt has no selection that a random one could replace.
    return found | {"choose": entry.choose, "controls": drawn if found["selections"] else None}


def _rating(config: Config, variant: str, judge: str, **_: str) -> dict[str, Any]:
    """Return the judge, its prompts, and whether its ratings are drawn."""
    entry = _entry(config)
    settings = present(entry.judge, "answers.judge: left out of the configuration")
    printed = config.under("answering", variant).judging == "paper"
    return {
        "prompts": list(settings.prompts),
        "sampled": entry.seed if printed else None,
        "model": model_settings(config, judge),
    } | chat_settings(config, judge, True)


def _scoring(config: Config, **_: str) -> dict[str, Any]:
    """Return how languages are identified, when a text is degenerate, and who rates."""
    entry = _entry(config)
    keys = {"identifier", "second_identifier", "degenerate", "english_words"}
    judge = None if entry.judge is None else entry.judge.model_dump(mode="json")
    return entry.model_dump(mode="json", include=keys) | {"judge": judge}


def _questions(sizes: Sizes, langset: str) -> tuple[float, int]:
    """Return the number of questions over all sources, and of targets of each."""
    entry = _entry(sizes.config)
    sources, targets = entry_languages(entry, sizes.config.directory_languages()[langset])
    asked = sum(number_of_questions(sizes, entry, lang) for lang in sources)
    return asked, 1 if entry.pairs == "same" else len(targets)


def _answers_of(sizes: Sizes, cell: Cell, phase: str) -> float:
    """Return the number of answers of a phase."""
    config, entry = sizes.config, _entry(sizes.config)
    printed = config.under("answering", cell["variant"]).tuning == "paper"
    questions, targets = _questions(sizes, cell["langset"])
    share = {"development": entry.development, "test": 1 - entry.development}[phase]
    asked = questions * (1 if printed else share)
    own = entry.options(cell["method"], printed)
    if phase == "development":
        return asked * targets * own.settings
    return asked * (1 + targets * (2 if own.selections else 1))


def _work(phase: str) -> Any:
    def work(sizes: Sizes, cell: Cell) -> Work:
        new = _entry(sizes.config).max_new_tokens
        return answering(sizes, _answers_of(sizes, cell, phase), new)

    return work


def _rating_work(sizes: Sizes, cell: Cell) -> Work:
    entry = _entry(sizes.config)
    settings = present(entry.judge, "answers.judge: left out of the configuration")
    answers = _answers_of(sizes, cell, cell["phase"])
    width = RATING_TOKENS + sizes.item_tokens("question") + entry.max_new_tokens
    read = answers * width * len(settings.prompts)
    return Work(read, sizes.load + sizes.seconds(read, 2, "evaluation"), answers * RECORD_BYTES)


DEVELOP = Stage(
    rule="answer_development",
    order=94,
    output=FOLDER + "/development.parquet",
    cells=_cells,
    parameters=_answered,
    loads_model=True,
    work=_work("development"),
    need=need_of_answers,
)
TEST = Stage(
    rule="answer_test",
    order=97,
    output=FOLDER + "/test.parquet",
    cells=_cells,
    parameters=_tested,
    loads_model=True,
    work=_work("test"),
    need=need_of_answers,
)
RATE = Stage(
    rule="rate_answers",
    order=95,
    output=LAYOUTS["ratings"],
    cells=_rated,
    parameters=_rating,
    loads_model=True,
    work=_rating_work,
    need=need_of_answers,
)
SCORE = Stage(
    rule="score_answers",
    order=96,
    output=LAYOUTS["answers"],
    cells=_phased,
    parameters=_scoring,
)
