"""Whether every line and every word of an answer is in the language that was asked for.

After the Language Confusion Benchmark (Marchisio et al. 2024, and its code): lines of fewer than
`SHORT` words are not told, and an answer without a longer one does not count. An answer passes by
lines if each of its lines is in the target language. Of those that do, one passes by words if no
word of a target language in another script is English, where a list of English words is at hand;
without it, if none is in Latin letters, so that names do not pass. The benchmark's list counts
words of `LETTERS` and more letters without a capital. Where it splits Chinese and Japanese with
dictionaries, a word is a character here.
"""

import re
import string
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from langneurons.base.paths import user_path
from langneurons.base.scripts import script_of
from langneurons.data.files import lines
from langneurons.evaluation.identification import identify
from langneurons.evaluation.texts import units

SHORT = 5
LETTERS = 4
BETWEEN = ","
_BARE = str.maketrans("\u2014", " ", string.punctuation + "\u060c")  # as the benchmark's code
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]{2,}")


def lines_of(text: str) -> list[str]:
    """Return the lines of a text that are long enough to be told."""
    return [line.strip() for line in text.splitlines() if len(units(line)) >= SHORT]


def line_languages(texts: Sequence[str], identifier: Mapping[str, Any]) -> list[str]:
    """Return the languages of each text's lines, joined by commas; "" without a line."""
    found = [lines_of(text) for text in texts]
    told = iter(identify([line for own in found for line in own], identifier))
    return [BETWEEN.join(next(told) for _ in own) for own in found]


def passes_lines(languages: str, target: str) -> float:
    """Return 1 where each line is in the target language, else 0; NaN without a line."""
    return float(set(languages.split(BETWEEN)) == {target}) if languages else np.nan


@cache
def english_words(path: str) -> frozenset[str]:
    """Return the words of a file, one per line, that count as English."""
    found = (line.strip() for _, line in lines(user_path(path)))
    return frozenset(one for one in found if one.islower() and len(one) >= LETTERS)


def foreign_words(text: str, english: str | None = None) -> int:
    """Return the number of words in Latin letters in a text's lines.

    english: a file of words, which are then the only ones that count, each as a whole word between
    spaces: no part of a word in which two scripts stand.
    """
    kept = lines_of(text)
    if english is None:
        return sum(len(_LATIN.findall(line)) for line in kept)
    found = (word for line in kept for word in units(line.translate(_BARE), cased=True))
    return sum(word in english_words(english) for word in found)


def has_words(target: str) -> bool:
    """Return whether words in Latin letters are foreign to a language."""
    return script_of(target) not in ("Latn", "")
