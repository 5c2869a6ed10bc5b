"""Answers against references: exact match and F1, in the official and in the token-id form.

MLQA (Lewis et al. 2020) extends the SQuAD normalisation (lower case, no punctuation, no articles,
single spaces) to other languages: their own articles, Unicode punctuation everywhere, and each Han
character of Chinese as a word; other words of a Chinese text stay words. The same is done here for
every script without spaces. Two answers without a word agree exactly, and their F1 is 0.

`unicode` compares answers that Unicode counts as the same text: composed as by NFC, which gives
every letter one spelling (NFC takes apart U+095E as well), without characters that are not seen.
"""

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from langneurons.base.errors import present
from langneurons.base.scripts import base_language, character_class, is_unspaced, script_of
from langneurons.evaluation.metrics.metric import Answer, of_answers

JOINERS = "\u200c\u200d"

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


def unicode_form(text: str) -> str:
    """Return text in NFC without zero-width spaces, marks of direction and soft hyphens.

    Joiners stay: they change what is read in Persian and in scripts of India.
    """
    return "".join(
        c
        for c in unicodedata.normalize("NFC", text)
        if unicodedata.category(c) != "Cf" or c in JOINERS
    )


@functools.cache
def _unspaced(lang: str) -> re.Pattern:
    """Return a pattern of one character of the language's own script."""
    return re.compile(f"([{character_class([script_of(lang)])}])")


def answer_tokens(text: str, lang: str = "en") -> list[str]:
    """Return the units that F1 counts: words; characters of a script without spaces.

    Lower case, without punctuation and the articles of the language.
    """
    text = "".join(c for c in text.lower() if not _is_punctuation(c))
    base = base_language(lang)
    if base in ARTICLES:
        text = re.sub(ARTICLES[base], " ", text)
    if is_unspaced(lang):
        text = _unspaced(lang).sub(r" \1 ", text)
    return text.split()


def normalise(text: str, lang: str = "en") -> str:
    """Return the units of a text with a space between them."""
    return " ".join(answer_tokens(text, lang))


def f1(predicted: Sequence[Hashable], gold: Sequence[Hashable]) -> float:
    """Return the F1 of two bags, with multiplicity; 0 if nothing is shared."""
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
    word once but divides by all words, so that a repetition costs twice; two empty answers have 1.
    """

    def words(text: str) -> list[str]:
        return "".join(c for c in text.lower() if c not in string.punctuation).split()

    own, exact, best = words(prediction), 0.0, 0.0
    for gold in map(words, golds):
        exact = max(exact, float(own == gold))
        best = max(best, float(not own and not gold))
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


@of_answers("exact_match", "whether the normalised answer equals a reference (MLQA)")
def exact_match(answer: Answer) -> float:
    """Return 1 for an exact match, else 0."""
    return answer_exact_match(answer.text, answer.golds, answer.lang)


@of_answers("f1", "F1 of the answer's words and a reference's (MLQA)")
def best_f1(answer: Answer) -> float:
    """Return the best F1 over the references."""
    return answer_f1(answer.text, answer.golds, answer.lang)


def _encode_of(answer: Answer) -> Callable[[str], list[int]]:
    return present(answer.encode, "metrics of token numbers need the tokenizer: Answer(encode=...)")


@of_answers("token_id_exact_match", "exact match of token numbers (Mondal et al. 2025)")
def token_id_exact_match(answer: Answer) -> float:
    """Return 1 if the token numbers equal a reference's, else 0."""
    return token_id_scores(answer.text, answer.golds, _encode_of(answer))[0]


@of_answers("token_id_f1", "F1 of token numbers (Mondal et al. 2025)")
def token_id_f1(answer: Answer) -> float:
    """Return the best F1 of token numbers over the references."""
    return token_id_scores(answer.text, answer.golds, _encode_of(answer))[1]


def _composed(answer: Answer) -> Answer:
    golds = tuple(map(unicode_form, answer.golds))
    return replace(answer, text=unicode_form(answer.text), golds=golds)


@of_answers("unicode_exact_match", "exact match of texts that Unicode counts as the same")
def unicode_exact_match(answer: Answer) -> float:
    """Return 1 for an exact match of composed texts, else 0."""
    own = _composed(answer)
    return answer_exact_match(own.text, own.golds, own.lang)


@of_answers("unicode_f1", "F1 of texts that Unicode counts as the same")
def unicode_f1(answer: Answer) -> float:
    """Return the best F1 of composed texts."""
    own = _composed(answer)
    return answer_f1(own.text, own.golds, own.lang)


@of_answers("plain_exact_match", "exact match as Gurgurov et al. 2025 score XQuAD")
def plain_exact_match(answer: Answer) -> float:
    """Return 1 for an exact match without further rules, else 0."""
    return plain_scores(answer.text, answer.golds)[0]


@of_answers("plain_f1", "F1 as Gurgurov et al. 2025 score XQuAD")
def plain_f1(answer: Answer) -> float:
    """Return the best F1 without further rules."""
    return plain_scores(answer.text, answer.golds)[1]
