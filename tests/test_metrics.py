"""Answer metrics by hand."""

import re
import string
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langneurons.evaluation.metrics import answers as metrics


@pytest.mark.parametrize(
    "text, lang, expected",
    [
        ("The  Cat.", "en", "cat"),
        ("An apple, a day!", "en", "apple day"),
        ("der Hund.", "de", "hund"),
        ("La Ville!", "fr", "ville"),
        ("¿El río?", "es", "río"),
        ("những con mèo", "vi", "con mèo"),
        ("नमस्ते।", "hi", "नमस्ते"),
        ("the cat", "hi", "the cat"),
        ("北京。", "zh", "北 京"),
        ("“Cat”—dog…", "en", "catdog"),
        ("1986 年", "zh", "1986 年"),
        ("1986年", "zh", "1986 年"),
    ],
)
def test_normalise(text, lang, expected):
    assert metrics.normalise(text, lang) == expected


@pytest.mark.parametrize(
    "text, lang, expected",
    [
        ("北京 2008年", "zh", ["北", "京", "2008", "年"]),
        ("NASA总部", "zh", ["nasa", "总", "部"]),
        ("東京タワー", "ja", list("東京タワー")),
        ("Москва在北", "zh", ["москва", "在", "北"]),
        ("Éire在", "zh_Hant", ["éire", "在"]),
        ("กรุง ABC", "tha_Thai", ["ก", "ร", "ุ", "ง", "abc"]),
        ("the big cat", "en", ["big", "cat"]),
    ],
)
def test_units_that_are_counted(text, lang, expected):
    assert metrics.answer_tokens(text, lang) == expected


@pytest.mark.parametrize(
    "prediction, golds, lang, exact, f1",
    [
        ("The cat", ["cat"], "en", 1, 1),
        ("cat sat", ["cat"], "en", 0, 2 / 3),
        ("dog", ["cat"], "en", 0, 0),
        ("dog", ["cat", "dog"], "en", 1, 1),
        ("", ["cat"], "en", 0, 0),
        ("the", ["a"], "en", 1, 0),
        ("cat cat", ["cat"], "en", 0, 2 / 3),
        ("北京市", ["北京"], "zh", 0, 0.8),
    ],
)
def test_answers(prediction, golds, lang, exact, f1):
    assert metrics.answer_exact_match(prediction, golds, lang) == exact
    assert metrics.answer_f1(prediction, golds, lang) == pytest.approx(f1)


@pytest.mark.parametrize(
    "prediction, golds, exact, f1",
    [
        ("The cat!", ["the cat"], 1, 1),
        ("cat", ["the cat"], 0, 2 / 3),
        ("cat cat", ["cat"], 0, 2 / 3),
        ("cat cat", ["cat cat"], 1, 1 / 2),
        ("北京市", ["北京"], 0, 0),
        ("", ["cat"], 0, 0),
        ("dog", ["cat", "dog"], 1, 1),
    ],
)
def test_plain_scores_keep_articles_and_count_a_shared_word_once(prediction, golds, exact, f1):
    assert metrics.plain_scores(prediction, golds) == (exact, pytest.approx(f1))


def test_token_ids_count_with_multiplicity():
    ids = {"a b b": [1, 2, 2], "b b c": [2, 2, 3], "b": [2]}
    assert metrics.token_id_scores("a b b", ["b b c"], ids.get) == (0.0, pytest.approx(2 / 3))
    assert metrics.token_id_scores("a b b", ["b", "a b b"], ids.get) == (1.0, 1.0)


@pytest.mark.parametrize(
    "prediction, gold, lang, official",
    [
        ("\u095eसल", "\u092b\u093cसल", "hi", 0),  # one letter, precomposed or not
        ("Río\u200b", "Ri\u0301o", "es", 0),  # a space of no width
        ("\u202bبغداد\u202c", "بغداد", "ar", 0),  # marks of direction
        ("می\u200cخواهم", "میخواهم", "fa", None),  # a joiner is part of the spelling
        ("gato", "gato", "es", 1),
    ],
)
def test_answers_that_unicode_counts_as_the_same_text(prediction, gold, lang, official):
    if official is not None:
        assert metrics.answer_exact_match(prediction, [gold], lang) == official
    own, other = map(metrics.unicode_form, (prediction, gold))
    assert metrics.answer_exact_match(own, [other], lang) == (official is not None)


def official_mlqa(text, lang):
    """Return MLQA's normalised text, written from its rules, for Chinese and English."""
    text = "".join(c for c in text.lower() if not unicodedata.category(c).startswith("P"))
    text = "".join(c for c in text if c not in string.punctuation)
    if lang == "en":
        text = re.sub(r"\b(a|an|the)\b", " ", text)
        return " ".join(text.split())
    segments, run = [], ""
    for character in text:
        if "\u4e00" <= character <= "\u9fa5":
            segments += [*run.split(), character]
            run = ""
        else:
            run += character
    return " ".join([*segments, *run.split()])


@given(st.text(alphabet="aThe n.,“”年北京19 86—é$", max_size=12), st.sampled_from(["en", "zh"]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_normalisation_is_that_of_mlqa(text, lang):
    assert metrics.normalise(text, lang) == official_mlqa(text, lang)
