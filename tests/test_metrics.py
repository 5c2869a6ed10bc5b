"""Answer metrics by hand."""

import pytest

from langneurons import metrics


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
        ("北京。", "zh", "北京"),
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
        ("the", ["a"], "en", 1, 1),
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
