"""Measures of repetition against counts by hand."""

import json
from importlib.resources import files

import pytest

from langneurons.evaluation.texts import distinct, is_degenerate, longest_run, measures, units

MINI = files("langneurons") / "data" / "mini" / "corpus"
LANGS = ("en", "fr", "es", "vi", "id", "ja", "zh", "hi", "ur")


def slow_run(sequence):
    """Return the longest repeated stretch by trying every start, block and number of blocks."""
    best = 0
    for start in range(len(sequence)):
        for end in range(start + 2, len(sequence) + 1):
            piece = sequence[start:end]
            for period in range(1, len(piece) // 2 + 1):
                if all(piece[i] == piece[i - period] for i in range(period, len(piece))):
                    best = max(best, len(piece))
    return best / len(sequence) if sequence else 0.0


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The cat, the Cat", ["the", "cat,", "the", "cat"]),
        ("猫は好き", ["猫", "は", "好", "き"]),
        ("iPhone を買う", ["iphone", "を", "買", "う"]),
        ("བོད་ཡིག", ["བོད", "ཡིག"]),
        ("ราคา ok", ["ร", "า", "ค", "า", "ok"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("", []),
    ],
)
def test_units(text, expected):
    assert units(text) == expected


def test_distinct_counts_ngrams():
    assert distinct("aabab", 1) == 2 / 5
    assert distinct("aabab", 2) == 3 / 4  # aa ab ba ab
    assert distinct("aabab", 5) == distinct("aabab", 9) == 1.0


@pytest.mark.parametrize("text", ["", "a", "ab", "aa", "abab", "ababa", "xabcabcaby", "abcabd"])
def test_longest_run_equals_trying_everything(text):
    assert longest_run(text) == slow_run(text)


def test_a_sentence_once_is_sound_and_ten_times_is_not():
    sentence = "The harbour froze in January, and the ferries stayed where they were."
    once, often = measures(sentence), measures(" ".join([sentence] * 10))
    assert once["repetition"] == 0 and not is_degenerate(sentence, once, 0.5)
    # 12 words: of the 117 4-grams 12 are distinct.
    assert often["repetition"] == pytest.approx(1 - 12 / 117) and often["run"] == 1.0
    assert is_degenerate(sentence * 10, often, 0.5)
    assert often["compression"] < 0.3 * once["compression"]


@pytest.mark.parametrize("text", ["", " \n", "1234 567", "?!", "hahahahahaha", "非常非常非常非常"])
def test_nothing_and_one_word_over_and_over_are_degenerate(text):
    assert is_degenerate(text, measures(text), 0.5)


@pytest.mark.parametrize("lang", LANGS)
def test_prose_is_not_degenerate(lang):
    rows = (MINI / f"{lang}.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(row)["text"] for row in rows]
    flagged = [text for text in texts if is_degenerate(text, measures(text), 0.5)]
    assert flagged == []
    for start in range(0, 250, 50):
        text = " ".join(texts[start : start + 8])
        assert not is_degenerate(text, measures(text), 0.5)
