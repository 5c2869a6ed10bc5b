"""The mini data: varied, parallel, in the right script, with no frames of swapped words."""

import json
import re
import unicodedata
from collections import Counter
from importlib.resources import files

import pytest

MINI = files("langneurons") / "data" / "mini"
LANGS = ("en", "fr", "es", "vi", "id", "ja", "zh", "hi", "ur")
TASK_LANGS = ("en", "vi", "hi", "ur", "zh")
TOPICS = {"news", "travel", "science", "cooking", "history", "daily"}
SCRIPTS = {"hi": ("DEVANAGARI",), "ur": ("ARABIC",), "zh": ("CJK",)}
SCRIPTS |= {"ja": ("CJK", "HIRAGANA", "KATAKANA"), "ar": ("ARABIC",), "ru": ("CYRILLIC",)}
SCRIPTS |= {"ko": ("HANGUL",), "bo": ("TIBETAN",)}


def rows(folder: str, lang: str) -> list[dict]:
    lines = (MINI / folder / f"{lang}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


CORPUS = {lang: rows("corpus", lang) for lang in LANGS}


def units(text: str, lang: str) -> list[str]:
    """Return words, or characters where words are not spaced."""
    text = text.lower()
    if lang in ("ja", "zh"):
        return [c for c in text if unicodedata.category(c)[0] in "LN"]
    clean = "".join(" " if unicodedata.category(c)[0] in "PSZ" else c for c in text)
    return clean.split()


def script_share(text: str, lang: str) -> float:
    """Return the share of letters and marks that belong to the language's script."""
    letters = [c for c in text if unicodedata.category(c)[0] == "L"]
    wanted = SCRIPTS.get(lang, ("LATIN",))
    return sum(unicodedata.name(c).startswith(wanted) for c in letters) / len(letters)


def repeated(texts: list[str], lang: str, n: int = 4) -> float:
    """Return the share of n-grams that some other sentence holds too."""
    grams = []
    for text in texts:
        words = units(text, lang)
        grams.append({tuple(words[i : i + n]) for i in range(len(words) - n + 1)})
    counts = Counter(gram for held in grams for gram in held)
    return sum(v for v in counts.values() if v > 1) / sum(counts.values())


def test_at_least_200_parallel_sentences_on_six_topics():
    identifiers = [row["id"] for row in CORPUS["en"]]
    assert len(identifiers) == len(set(identifiers)) >= 200
    assert {row["topic"] for row in CORPUS["en"]} == TOPICS
    for lang in LANGS:
        assert [row["id"] for row in CORPUS[lang]] == identifiers
        assert all(row["id"].startswith(row["topic"]) for row in CORPUS[lang])


def test_english_length():
    assert all(12 <= len(row["text"].split()) <= 35 for row in CORPUS["en"])


@pytest.mark.parametrize("lang", LANGS)
def test_sentences_are_whole_distinct_and_clean(lang):
    texts = [row["text"] for row in CORPUS[lang]]
    assert len({"".join(units(text, lang)) for text in texts}) == len(texts)
    ends = {"hi": "।?!\"'”", "ur": "۔؟!\"'”“", "ja": "。？！」", "zh": "。？！”"}
    for text in texts:
        assert text == unicodedata.normalize("NFC", text).strip()
        assert "  " not in text and text[-1] in ends.get(lang, ".?!\"'»”…"), text


@pytest.mark.parametrize("lang", LANGS)
def test_script(lang):
    for row in CORPUS[lang]:
        without_abbreviations = re.sub("[A-Z]{2,4}", "", row["text"])
        assert script_share(without_abbreviations, lang) >= 0.97, row


def test_japanese_has_kana_and_chinese_has_none():
    kana = re.compile("[\u3040-\u30ff]")
    assert all(kana.search(row["text"]) for row in CORPUS["ja"])
    assert not any(kana.search(row["text"]) for row in CORPUS["zh"])


@pytest.mark.parametrize("lang", LANGS)
def test_no_frames_of_swapped_words(lang):
    texts = [row["text"] for row in CORPUS[lang]]
    n = 8 if lang in ("ja", "zh") else 4
    assert repeated(texts, lang, n) <= 0.02
    openings = Counter(tuple(units(text, lang)[:3]) for text in texts)
    assert openings.most_common(1)[0][1] <= 4


def test_the_bound_sees_frames():
    framed = [
        f"In the town of {name} people like to eat hot fish soup on a rainy day"
        for name in ("Ulm", "Bari", "Lugo")
    ]
    assert repeated(framed, "en") > 0.5


@pytest.mark.parametrize("lang", LANGS[1:])
def test_translations_are_as_long_as_the_original(lang):
    ratios = [
        len(mine["text"]) / len(english["text"])
        for mine, english in zip(CORPUS[lang], CORPUS["en"], strict=True)
    ]
    mean = sum(ratios) / len(ratios)
    assert all(mean / 2.2 < ratio < mean * 2.2 for ratio in ratios)


@pytest.mark.parametrize("lang", LANGS[1:])
def test_numerals_agree_with_english(lang):
    """Digits of four places (years) are the same in every language."""
    for mine, english in zip(CORPUS[lang], CORPUS["en"], strict=True):
        years = set(re.findall(r"(?<!\d)1[0-9]{3}(?![\ds])", english["text"]))
        assert years <= set(re.findall(r"\d+", mine["text"])), (mine["id"], years)


@pytest.mark.parametrize("lang", TASK_LANGS)
def test_xnli(lang):
    items = rows("xnli", lang)
    assert Counter(row["label"] for row in items) == {0: 20, 1: 20, 2: 20}
    assert [(r["id"], r["label"]) for r in items] == [
        (r["id"], r["label"]) for r in rows("xnli", "en")
    ]
    texts = [row["premise"] + " " + row["hypothesis"] for row in items]
    assert len(set(texts)) == 60
    assert all(script_share(text, lang) >= 0.95 for text in texts)
    assert repeated([row["premise"] for row in items], lang, 8 if lang == "zh" else 4) <= 0.02


@pytest.mark.parametrize("lang", TASK_LANGS)
def test_xcopa(lang):
    items = rows("xcopa", lang)
    assert len(items) == 40
    assert {row["question"] for row in items} == {"cause", "effect"}
    assert abs(sum(row["label"] for row in items) - 20) <= 4
    assert len({row["premise"] for row in items}) == 40
    assert all(row["choice1"] != row["choice2"] for row in items)
    keys = [(r["idx"], r["label"], r["question"]) for r in items]
    assert keys == [(r["idx"], r["label"], r["question"]) for r in rows("xcopa", "en")]


@pytest.mark.parametrize("lang", TASK_LANGS)
def test_xquad_answers_stand_in_their_contexts(lang):
    items = rows("xquad", lang)
    assert len(items) == len({row["id"] for row in items}) == 40
    for row in items:
        (answer,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start : start + len(answer)] == answer
        assert script_share(row["context"], lang) >= 0.9
    assert [row["id"] for row in items] == [row["id"] for row in rows("xquad", "en")]


FACTS = {lang: rows("mlama", lang) for lang in LANGS}
PARALLEL = {lang: rows("parallel", lang) for lang in LANGS}
QUESTION_MARKS = {"ur": "؟", "ar": "؟", "ja": "？", "zh": "？", "bo": "།"}
ASKED = [*LANGS, *"mt it de ar af nl pt ru ko tr pl sv da no bo".split()]
QUESTIONS = {lang: rows("questions", lang) for lang in ASKED}


@pytest.mark.parametrize("lang", LANGS)
def test_facts_are_parallel_and_in_their_own_script(lang):
    facts = FACTS[lang]
    assert len(facts) >= 48 and len({row["predicate_id"] for row in facts}) >= 6
    keys = [(row["id"], row["predicate_id"]) for row in FACTS["en"]]
    assert [(row["id"], row["predicate_id"]) for row in facts] == keys
    assert len(set(keys)) == len(keys)
    for mine, english in zip(facts, FACTS["en"], strict=True):
        assert all(mine[f"obj_{other}"] == english[f"obj_{other}"] for other in LANGS)
        assert script_share(mine["template"].replace("[X]", "").replace("[Y]", ""), lang) == 1
        own = mine[f"obj_{lang}"] + mine[f"sub_{lang}"]
        assert script_share(own, lang) == 1, mine


@pytest.mark.parametrize("lang", LANGS)
def test_facts_have_one_template_per_predicate_that_ends_in_its_object(lang):
    templates = {}
    for row in FACTS[lang]:
        assert templates.setdefault(row["predicate_id"], row["template"]) == row["template"]
    assert len(set(templates.values())) == len(templates)
    for template in templates.values():
        assert template.count("[X]") == template.count("[Y]") == 1
        before, after = template.split("[Y]")
        assert "[X]" in before and after[-1] in ".。।۔"
        # Verb-final languages may put a copula behind the object; nothing else stands there.
        assert len(units(after, "zh")) <= (12 if lang in ("ja", "hi", "ur") else 0)


def test_objects_differ_between_languages_except_for_some():
    ties = {
        (first, second): sum(row[f"obj_{first}"] == row[f"obj_{second}"] for row in FACTS["en"])
        for first in LANGS
        for second in LANGS
        if first < second
    }
    assert 0 < sum(ties.values()) <= 0.02 * len(ties) * 48
    assert max(ties.values()) <= 12
    for lang in LANGS:
        pairs = {(row["predicate_id"], row[f"sub_{lang}"]) for row in FACTS[lang]}
        assert len(pairs) == len(FACTS[lang])


@pytest.mark.parametrize("lang", LANGS)
def test_parallel_sentences(lang):
    items = PARALLEL[lang]
    assert len(items) >= 60 and Counter(row["topic"] for row in items) == dict.fromkeys(TOPICS, 10)
    assert [row["id"] for row in items] == [row["id"] for row in PARALLEL["en"]]
    assert [row["english"] for row in items] == [row["text"] for row in PARALLEL["en"]]
    texts = [row["text"] for row in items]
    assert len(set(texts)) == len(texts)
    assert not {"".join(units(text, lang)) for text in texts} & {
        "".join(units(row["text"], lang)) for row in CORPUS[lang]
    }
    for text in texts:
        assert text == unicodedata.normalize("NFC", text).strip() and "  " not in text
        assert text[-1] == {"hi": "।", "ur": "۔", "ja": "。", "zh": "。"}.get(lang, "."), text
        assert script_share(text, lang) >= 0.97
    assert repeated(texts, lang, 8 if lang in ("ja", "zh") else 4) <= 0.02
    mean = sum(len(row["text"]) / len(row["english"]) for row in items) / len(items)
    for row in items:
        assert mean / 2.2 < len(row["text"]) / len(row["english"]) < mean * 2.2, row
        years = set(re.findall(r"(?<!\d)1[0-9]{3}(?!\d)", row["english"]))
        assert years <= set(re.findall(r"\d+", row["text"])), row
    assert {"kana" for text in texts if re.search("[\u3040-\u30ff]", text)} == (
        {"kana"} if lang == "ja" else set()
    )


@pytest.mark.parametrize("lang", ["en", "fr", "hi", "vi", "zh"])
def test_open_questions(lang):
    items = rows("questions_open", lang)
    assert [row["id"] for row in items] == [row["id"] for row in rows("questions_open", "en")]
    assert len({row["question"] for row in items}) == len(items) == 24
    for row in items:
        assert row["question"][-1] in "?.？。।"
        assert script_share(row["question"], lang) == 1


@pytest.mark.parametrize("lang", ASKED)
def test_forcing_questions(lang):
    items = QUESTIONS[lang]
    assert [row["id"] for row in items] == [row["id"] for row in QUESTIONS["en"]]
    assert len({row["question"] for row in items}) == len(items) == 6
    for row in items:
        assert row["question"][-1] == QUESTION_MARKS.get(lang, "?")
        assert script_share(row["question"], lang) == 1
