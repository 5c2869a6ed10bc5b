"""Whether every line and every word of an answer is in the language that was asked for.

After the Language Confusion Benchmark (Marchisio et al. 2024): an answer passes by lines if each of
its lines is in the target language, and by words if no word of a target language in another script
is written in Latin letters. Lines of fewer than `SHORT` words are not told; an answer without a
longer one counts as one line. The benchmark looks words up in an English list; here every word of
two or more Latin letters counts, so that names in Latin letters do as well.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from langneurons.base.scripts import script_of
from langneurons.evaluation.identification import identify
from langneurons.evaluation.texts import units

SHORT = 4
BETWEEN = ","
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]{2,}")


def lines_of(text: str) -> list[str]:
    """Return the lines of a text that are long enough to be told, or all of it as one."""
    found = [line.strip() for line in text.splitlines() if len(units(line)) >= SHORT]
    return found or [text]


def line_languages(texts: Sequence[str], identifier: Mapping[str, Any]) -> list[str]:
    """Return the languages of each text's lines, joined by commas."""
    lines = [lines_of(text) for text in texts]
    told = iter(identify([line for own in lines for line in own], identifier))
    return [BETWEEN.join(next(told) for _ in own) for own in lines]


def passes_lines(languages: str, target: str) -> bool:
    """Return whether each line is in the target language."""
    return set(languages.split(BETWEEN)) == {target}


def latin_words(text: str) -> int:
    """Return the number of words in Latin letters."""
    return len(_LATIN.findall(text))


def has_words(target: str) -> bool:
    """Return whether words in Latin letters are foreign to a language."""
    return script_of(target) not in ("Latn", "")
