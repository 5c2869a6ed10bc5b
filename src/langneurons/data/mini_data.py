"""The rows that come with the package, found by listing their folder.

Corpora, facts and questions by language, and parts of benchmarks; docs and licences stand in
`data/mini/README.md`.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

MINI = Path(__file__).parent / "mini"
CORPUS, FACTS, QUESTIONS = "corpus", "mlama", "questions"
OPEN_QUESTIONS = "questions_open"
# Pairs of sentences, of which one is English.
PARALLEL = "parallel"
TRANSLATION = "flores"
NOT_TASKS = (CORPUS, FACTS, QUESTIONS, OPEN_QUESTIONS, PARALLEL)


def question_part(source: Mapping[str, Any]) -> str:
    """Return the part of the mini data that holds the questions of a source of kind `mini`."""
    return OPEN_QUESTIONS if source.get("set") == "open" else QUESTIONS


def mini_file(name: str, lang: str) -> Path:
    """Return the file of a part of the mini data, such as `xnli`, in a language."""
    return MINI / (PARALLEL if name == TRANSLATION else name) / f"{lang}.jsonl"


@cache
def mini_languages(name: str) -> tuple[str, ...]:
    """Return the languages of a part of the mini data; none where there is no such part."""
    folder = mini_file(name, "").parent
    found = sorted(path.stem for path in folder.glob("*.jsonl")) if folder.is_dir() else []
    return tuple(lang for lang in found if name != TRANSLATION or lang != "en")


@cache
def mini_tasks() -> tuple[str, ...]:
    """Return the tasks of the mini data."""
    folders = sorted(path.name for path in MINI.iterdir() if path.is_dir())
    return (*(name for name in folders if name not in NOT_TASKS), TRANSLATION)
