"""Generated texts: the language of each, and how far it repeats itself.

Forcing a language does not succeed if the text repeats one word.

Measures, of the text alone: distinct-n (Li et al. 2016), the share of 4-grams that came before
(Welleck et al. 2020, seq-rep-4), the longest stretch that repeats a block at once, as a share of
the text, and how far zlib compresses it. Units are words; where a script does not space them
(`scripts.UNSPACED`: Han, kana, Thai, Lao, Khmer, Burmese ...) characters; in Tibetan, syllables.
The longest stretch is also looked for among characters, so that "hahahaha" counts.
"""

import re
import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from langneurons.base.scripts import SYLLABIC, UNSPACED, character_class
from langneurons.evaluation.identification import identify

MEASURES = ("distinct_1", "distinct_2", "repetition", "run", "compression")
LONGEST_BLOCK = 20
# Words are not spaced, nor are ends of syllables marked: each character is a unit.
_UNSPACED = character_class(UNSPACED - SYLLABIC)
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\s\u0f0b{_UNSPACED}]+")


def units(text: str, cased: bool = False) -> list[str]:
    """Return words, or characters or syllables where the script does not space words.

    cased: with their capitals, else in lower case.
    """
    return _UNIT.findall(text if cased else text.lower())


def distinct(sequence: Sequence[Hashable], n: int) -> float:
    """Return distinct n-grams over n-grams; 1 where the sequence is shorter than n."""
    grams = [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def longest_run(sequence: Sequence[Hashable]) -> float:
    """Return the share of the longest stretch that is one block of up to 20 units over and over.

    A block that stands twice in a row counts, so "a b a b" gives 1.
    """
    longest = 0
    for period in range(1, min(LONGEST_BLOCK, len(sequence) // 2) + 1):
        same = 0
        for i in range(period, len(sequence)):
            same = same + 1 if sequence[i] == sequence[i - period] else 0
            if same >= period:
                longest = max(longest, same + period)
    return longest / len(sequence) if sequence else 0.0


def measures(text: str) -> dict[str, float]:
    """Return every measure of a text (`MEASURES`), each in 0..1 but compression (bytes)."""
    found, content = units(text), text.strip().encode()
    return {
        "distinct_1": distinct(found, 1),
        "distinct_2": distinct(found, 2),
        "repetition": 1.0 - distinct(found, 4),
        "run": max(longest_run(found), longest_run(text.strip())),
        "compression": len(zlib.compress(content, 9)) / len(content) if content else 1.0,
    }


def is_empty(text: str) -> bool:
    """Return whether a text holds no letter."""
    return not any(character.isalpha() for character in text)


def is_degenerate(text: str, found: dict[str, float], threshold: float) -> bool:
    """Return whether a text is empty, or repeats itself in more than `threshold` of its units."""
    return is_empty(text) or max(found["repetition"], found["run"]) > threshold


def judged(frame: pd.DataFrame, identifier: Mapping[str, Any], threshold: float) -> pd.DataFrame:
    """Return records with the columns identified, empty, degenerate and every measure.

    `frame` has a column text; `threshold` is the share of repetition that counts as degenerate.
    """
    texts = list(frame["text"])
    rows = [measures(text) for text in texts]
    return frame.assign(
        identified=identify(texts, identifier),
        empty=[is_empty(text) for text in texts],
        degenerate=[
            is_degenerate(text, row, threshold) for text, row in zip(texts, rows, strict=True)
        ],
        **{name: [row[name] for row in rows] for name in (rows[0] if rows else ())},
    )
