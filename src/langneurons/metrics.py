"""Answers against references: exact match and F1, in the official and in the token-id form.

The official SQuAD normalisation (lower case, no punctuation, no articles, single spaces) is
English; MLQA (Lewis et al. 2020) extends it to other languages: their own articles, Unicode
punctuation, and characters as tokens where words are not spaced.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from langneurons.scripts import base_language, is_unspaced

ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "fr": r"\b(un|une|des|le|la|les|du)\b",
    "ar": r"\sال^|ال",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
}


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def normalise(text: str, lang: str = "en") -> str:
    """Return text in lower case without punctuation, articles of the language, double spaces."""
    text = text.lower()
    base = base_language(lang)
    if base == "en":
        text = "".join(c for c in text if c not in string.punctuation)
    else:
        text = "".join(c for c in text if not _is_punctuation(c))
    if base in ARTICLES:
        text = re.sub(ARTICLES[base], " ", text)
    return " ".join(text.split())


def answer_tokens(text: str, lang: str = "en") -> list[str]:
    """Return the units that F1 counts: words; characters where words are not spaced."""
    words = normalise(text, lang).split()
    if not is_unspaced(lang):
        return words
    units: list[str] = []
    for word in words:
        run = ""
        for character in word:
            if character.isascii():
                run += character
                continue
            if run:
                units.append(run)
                run = ""
            units.append(character)
        if run:
            units.append(run)
    return units


def f1(predicted: Sequence[Hashable], gold: Sequence[Hashable]) -> float:
    """Return the F1 of two bags, with multiplicity; two empty bags agree."""
    if not predicted or not gold:
        return float(list(predicted) == list(gold))
    shared = sum((Counter(predicted) & Counter(gold)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def answer_f1(prediction: str, golds: Sequence[str], lang: str = "en") -> float:
    """Return the best F1 over the references."""
    tokens = answer_tokens(prediction, lang)
    return max(f1(tokens, answer_tokens(gold, lang)) for gold in golds)


def answer_exact_match(prediction: str, golds: Sequence[str], lang: str = "en") -> float:
    """Return 1 if the normalised prediction equals a normalised reference, else 0."""
    own = normalise(prediction, lang)
    return float(any(own == normalise(gold, lang) for gold in golds))


def plain_scores(prediction: str, golds: Sequence[str]) -> tuple[float, float]:
    """Return exact match and F1 as Gurgurov et al. 2025 score XQuAD, whatever the language.

    Lower case, no ASCII punctuation, words between spaces, articles kept. Their F1 counts a shared
    word once but divides by all words, so that a repetition costs twice.
    """

    def words(text: str) -> list[str]:
        return "".join(c for c in text.lower() if c not in string.punctuation).split()

    own, exact, best = words(prediction), 0.0, 0.0
    for gold in map(words, golds):
        exact = max(exact, float(own == gold))
        shared = len(set(own) & set(gold))
        if shared:
            precision, recall = shared / len(own), shared / len(gold)
            best = max(best, 2 * precision * recall / (precision + recall))
    return exact, best


def token_id_scores(
    prediction: str, golds: Sequence[str], encode: Callable[[str], list[int]]
) -> tuple[float, float]:
    """Return exact match and F1 on token ids, as Mondal et al. 2025 score XQuAD."""
    own = encode(prediction)
    ids = [encode(gold) for gold in golds]
    return float(any(own == gold for gold in ids)), max(f1(own, gold) for gold in ids)
