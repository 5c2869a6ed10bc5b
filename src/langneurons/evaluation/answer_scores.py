"""What an answer is worth: in the language that was asked for, and still an answer.

forced: 1 where the identified language is the target. relevance: the judge's rating / 2, or what
stands in for it. score: the harmonic mean of the two, per answer. An answer in the right language
that is none, and an answer in the wrong language, score 0.

Without a judge, relevance is 1 of a text that holds a letter, does not repeat itself
(`texts.is_degenerate`) and does not repeat the question, else 0. Whether it is right is not known;
tables say `no judge`.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from langneurons.base.scripts import character_script
from langneurons.evaluation.confusion import (
    foreign_words,
    has_words,
    line_languages,
    passes_lines,
)
from langneurons.evaluation.identification import identify
from langneurons.evaluation.texts import judged, units

RATINGS = ("0", "1", "2")  # of a judge
COPIED = 0.8  # share of an answer's pairs of words that stand in the question


def overlap(text: str, question: str) -> float:
    """Return the share of a text's pairs of neighbouring words that the question holds as well."""
    own, known = _words(text), _words(question)
    pairs: list[tuple[str, ...]] = [*zip(own, own[1:], strict=False)] or [(one,) for one in own]
    there: set[tuple[str, ...]] = {*zip(known, known[1:], strict=False), *((one,) for one in known)}
    return sum(pair in there for pair in pairs) / len(pairs) if pairs else 0.0


def _words(text: str) -> list[str]:
    """Return the units of a text without punctuation and signs."""
    bare = (
        "".join(c for c in unit if unicodedata.category(c)[0] not in "PS") for unit in units(text)
    )
    return [word for word in bare if word]


def main_script(text: str) -> str:
    """Return the ISO 15924 code of the script of most letters of a text; "" without a letter."""
    found = [character_script(one) for one in text if one.isalpha()]
    known = [script for script in found if script]
    return max(dict.fromkeys(known), key=known.count) if known else ""


def scored(
    frame: pd.DataFrame, settings: Mapping[str, Any], ratings: np.ndarray | None
) -> pd.DataFrame:
    """Return answers with what is measured of each; ratings: 0, 1, 2 per answer, or None.

    settings: `identifier`, `degenerate`, `english_words` if there is a list and, for a column
    identified_second, `second_identifier`.
    Columns that are added: those of `texts.judged`, script, overlap, lines (language of each
    line), latin (words in Latin letters, or English ones), relevance (0..1). `score_of` scores
    them for a target.
    """
    made = judged(frame, settings["identifier"], settings["degenerate"])
    texts = list(made["text"])
    made = made.assign(
        lines=line_languages(texts, settings["identifier"]),
        latin=[foreign_words(text, settings.get("english_words")) for text in texts],
    )
    if (second := settings.get("second_identifier")) is not None:
        made = made.assign(identified_second=identify(texts, second))
    copied = [overlap(*pair) for pair in zip(made["text"], made["question"], strict=True)]
    made = made.assign(script=[main_script(text) for text in made["text"]], overlap=copied)
    if ratings is None:
        sound = ~made["degenerate"].to_numpy(bool) & (made["overlap"].to_numpy() < COPIED)
        return made.assign(relevance=sound.astype(np.float64))
    return made.assign(relevance=np.asarray(ratings, np.float64) / 2)


def score_of(frame: pd.DataFrame, target: str) -> pd.DataFrame:
    """Return answers with forced, line_pass and word_pass (0 or 1) and score for a target.

    line_pass: NaN without a line of words enough; word_pass: 1 without a foreign word, NaN where
    the target is written in Latin letters and of answers that do not pass by lines.
    """
    forced = (frame["identified"] == target).to_numpy(np.float64)
    by_line = np.array([passes_lines(own, target) for own in frame["lines"]], np.float64)
    by_word = np.full(len(frame), np.nan)
    if has_words(target):
        by_word = np.where(by_line == 1, frame["latin"].to_numpy() == 0, np.nan)
    return frame.assign(
        forced=forced,
        line_pass=by_line,
        word_pass=by_word,
        score=harmonic(forced, frame["relevance"].to_numpy()),
    )


def harmonic(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the harmonic mean of two arrays of numbers from 0; 0 where either is."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    total = one + other
    return np.divide(2 * one * other, total, out=np.zeros_like(total), where=total > 0)


def printed_score(forced: float, relevance: float) -> float:
    """Return the score of two aggregates, all in per cent, as the code of CLaS-Bench (b3d0062).

    It takes a number of up to 1 for a share, so that 0.9 per cent is read as 90.
    """
    one, other = (value if value > 1 else value * 100 for value in (forced, relevance))
    return 0.0 if one + other == 0 else 2 * one * other / (one + other)


def kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Return Cohen's kappa with quadratic weights of two ratings (item,) in 0..2.

    1: they agree, 0: as by chance; NaN where both always give one and the same rating.
    """
    levels = np.arange(len(RATINGS))
    weights = (levels[:, None] - levels[None, :]) ** 2.0
    seen = np.zeros((len(RATINGS), len(RATINGS)))
    np.add.at(seen, (one, other), 1.0)
    if not seen.sum():
        return float("nan")
    seen /= seen.sum()
    chance = seen.sum(1)[:, None] * seen.sum(0)[None, :]
    expected = float((weights * chance).sum())
    return float("nan") if expected == 0 else 1 - float((weights * seen).sum()) / expected
