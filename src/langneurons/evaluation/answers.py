"""Methods that make a model answer in a language: tuned on some questions, tested on the others.

Questions are split by the hash of their identifiers, so translations fall on the same side. On the
development questions every setting answers for every pair of source and target; `choose` takes one
setting for each target. On the test questions the chosen ones answer, the untouched model, and
random draws in place of the selection: draw n the n-th of every `draws` questions. Texts are kept;
what they are worth is measured afterwards (`langneurons.evaluation.answer_scores`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from langneurons.base.errors import InputError
from langneurons.base.words import UNTOUCHED
from langneurons.evaluation.answer_settings import PHASES, side
from langneurons.evaluation.forcing import continuations
from langneurons.evaluation.run import Run
from langneurons.interventions.plan import Plan, untouched

NO_DRAW = -1
COLUMNS = (
    *("source", "target", "setting", "selection", "intervention", "prompt", "draw"),
    *("id", "part", "question", "text", "tokens", "cut"),
)


@dataclass(frozen=True)
class Setting:
    """What a method can be set to: a selection under an intervention, or a prompt."""

    selection: str = ""
    intervention: str = UNTOUCHED
    prompt: str = ""


@dataclass(frozen=True)
class Asked:
    """A condition of the answers: languages, number of the setting, draw, questions, plan."""

    source: str
    target: str
    number: int
    draw: int
    questions: Sequence[dict[str, Any]]
    plan: Plan


def divided(
    questions: Mapping[str, Sequence[Mapping[str, Any]]], development: float, seed: int
) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """Return the questions of each source by phase."""
    found: dict[str, dict[str, list]] = {phase: {} for phase in PHASES}
    for source, rows in questions.items():
        for phase in PHASES:
            own = [row for row in rows if side(row["id"], development, seed) == phase]
            if not own:
                raise InputError(
                    f"answers: none of the {len(rows)} questions of {source} falls to the {phase}"
                    " side. Give more questions, or change answers.development."
                )
            found[phase][source] = own
    return found


def instructed(
    rows: Iterable[Mapping[str, Any]], prompt: Mapping[str, Any] | None, target: str, language: str
) -> list[dict[str, Any]]:
    """Return questions with the instruction of a prompt for a target; language: its name."""
    if prompt is None:
        return [dict(row) for row in rows]
    text = prompt["instruction"]
    text = text if isinstance(text, str) else text[target]
    more: dict[str, Any] = {"turns": [list(turn) for turn in prompt["turns"].get(target, ())]}
    if text.strip():
        more |= {"instruction": text.format(language=language), "place": prompt["place"]}
    return [dict(row) | more for row in rows]


def answer(run: Run, asked: Sequence[Asked], settings: Sequence[Setting], how: Mapping) -> Any:
    """Return the answers of every condition, with the columns `COLUMNS`.

    how: the decoding, as `forcing.continuations` takes it.
    """
    parts: dict[tuple[str, ...], tuple[Sequence[dict], Plan]] = {
        (one.source, one.target, str(one.number), str(one.draw)): (one.questions, one.plan)
        for one in asked
    }
    found = continuations(run, parts, how, "answers")
    frames = []
    for one, frame in zip(asked, found.values(), strict=True):
        setting = settings[one.number] if one.number >= 0 else Setting()
        frames.append(
            frame.assign(
                source=one.source,
                target=one.target,
                setting=one.number,
                selection=setting.selection,
                intervention=setting.intervention,
                prompt=setting.prompt,
                draw=one.draw,
            )
        )
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def development_conditions(
    questions: Mapping[str, Sequence[Mapping[str, Any]]],
    targets: Sequence[str],
    settings: Sequence[Setting],
    rows_of: Callable[[Setting, str, Sequence], list[dict[str, Any]]],
    plan_of: Callable[[Setting, str, str], Plan],
    pairs: str = "all",
) -> list[Asked]:
    """Return every pair of languages under every setting; pairs: `all` or `same`."""
    return [
        Asked(source, target, number, NO_DRAW, rows, plan_of(setting, target, source))
        for source, own in questions.items()
        for target in targets
        if pairs == "all" or source == target
        for number, setting in enumerate(settings)
        for rows in [rows_of(setting, target, own)]
    ]


def test_conditions(
    questions: Mapping[str, Sequence[Mapping[str, Any]]],
    chosen: Mapping[str, int],
    settings: Sequence[Setting],
    rows_of: Callable[[Setting, str, Sequence], list[dict[str, Any]]],
    plan_of: Callable[[Setting, str, str], Plan],
    draws_of: Callable[[Setting, str, str], Sequence[Plan]],
    pairs: str = "all",
) -> list[Asked]:
    """Return the untouched model, the chosen settings, and their random draws.

    pairs: `all` or `same`.
    """
    found = [
        Asked(source, UNTOUCHED, -1, NO_DRAW, [dict(row) for row in rows], untouched())
        for source, rows in questions.items()
    ]
    for source, own in questions.items():
        for target, number in chosen.items():
            if pairs == "same" and source != target:
                continue
            setting = settings[number]
            rows = rows_of(setting, target, own)
            plan = plan_of(setting, target, source)
            found.append(Asked(source, target, number, NO_DRAW, rows, plan))
            draws = draws_of(setting, target, source)
            for draw, random in enumerate(draws):
                some = rows[draw :: len(draws)]
                if some:
                    found.append(Asked(source, target, number, draw, some, random))
    return found


def choose(
    frame: pd.DataFrame, targets: Sequence[str], settings: Sequence[Setting], by: str
) -> pd.DataFrame:
    """Return target, setting, number of settings, and the mean by which each was chosen.

    `frame` holds scored answers to development questions. Those to questions in the target itself
    do not count where there are others, as in the score of the test. Of equal settings the first
    is taken.
    """
    foreign = frame["source"] != frame["target"]
    asked = foreign.groupby(frame["target"]).transform("any")
    means = frame[foreign | ~asked].groupby(["target", "setting"])[by].mean()
    rows = []
    for target in targets:
        own = [float(means[target, number]) for number in range(len(settings))]
        best = max(range(len(settings)), key=lambda number: (own[number], -number))
        row = {"target": target, "setting": best, "settings": len(settings), "mean": own[best]}
        rows.append(row | vars(settings[best]))
    return pd.DataFrame(rows)
