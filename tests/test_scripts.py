"""Language codes of every form, and scripts of characters, against values written by hand."""

import re

import pytest

from langneurons.base import scripts
from langneurons.base.languages import KNOWN_LANGUAGES
from langneurons.evaluation import texts
from langneurons.evaluation.metrics import answers as metrics
from langneurons.evaluation.steering_shift import premise


@pytest.mark.parametrize(
    "code, base, script, unspaced",
    [
        ("zh", "zh", "Hans", True),
        ("ZH", "zh", "Hans", True),
        ("zh-Hans", "zh", "Hans", True),
        ("zh_Hant", "zh", "Hant", True),
        ("zho_Hans", "zh", "Hans", True),
        ("zho_hant", "zh", "Hant", True),
        ("cmn", "zh", "Hans", True),
        ("cmn-Hans-CN", "zh", "Hans", True),
        ("zh-TW", "zh", "Hant", True),
        ("zh_cn", "zh", "Hans", True),
        ("zh-yue", "zh", "Hant", True),
        ("chi", "zh", "Hans", True),
        ("yue", "zh", "Hant", True),
        ("yue_Hant", "zh", "Hant", True),
        ("wuu", "zh", "Hans", True),
        ("zh-Latn", "zh", "Latn", False),
        ("ja", "ja", "Jpan", True),
        ("jpn_Jpan", "ja", "Jpan", True),
        ("ja_JP.UTF-8", "ja", "Jpan", True),
        ("th", "th", "Thai", True),
        ("tha_Thai", "th", "Thai", True),
        ("km", "km", "Khmr", True),
        ("khm_Khmr", "km", "Khmr", True),
        ("lo", "lo", "Laoo", True),
        ("my", "my", "Mymr", True),
        ("mya_Mymr", "my", "Mymr", True),
        ("bur", "my", "Mymr", True),
        ("shn_Mymr", "shn", "Mymr", True),
        ("bo", "bo", "Tibt", True),
        ("bod_Tibt", "bo", "Tibt", True),
        ("dz", "dz", "Tibt", True),
        ("ko", "ko", "Hang", False),
        ("kor_Hang", "ko", "Hang", False),
        ("es-MX", "es", "Latn", False),
        ("es_419", "es", "Latn", False),
        ("spa_Latn", "es", "Latn", False),
        ("por_Latn", "pt", "Latn", False),
        ("pt-BR", "pt", "Latn", False),
        ("sr", "sr", "Cyrl", False),
        ("sr-Latn", "sr", "Latn", False),
        ("sr_RS@latin", "sr", "Latn", False),
        ("arb_Arab", "ar", "Arab", False),
        ("ary", "ar", "Arab", False),
        ("pa", "pa", "Guru", False),
        ("pnb_Arab", "pa", "Arab", False),
        ("pnb", "pa", "Arab", False),
        ("pa-PK", "pa", "Arab", False),
        ("hi", "hi", "Deva", False),
        ("hin_Latn", "hi", "Latn", False),
        ("nob_Latn", "no", "Latn", False),
        ("nn", "no", "Latn", False),
        ("ckb", "ckb", "Arab", False),
        ("kmr_Latn", "ku", "Latn", False),
        ("de-DE-u-co-phonebk", "de", "Latn", False),
        ("tlh", "tlh", "", False),
        ("xx", "xx", "", False),
    ],
)
def test_language_codes(code, base, script, unspaced):
    assert scripts.base_language(code) == base
    assert scripts.script_of(code) == script
    assert scripts.is_unspaced(code) == unspaced


@pytest.mark.parametrize(
    "code, expected",
    [
        ("ar", "rtl"),
        ("heb_Hebr", "rtl"),
        ("fa-IR", "rtl"),
        ("ur", "rtl"),
        ("dv", "rtl"),
        ("en", "ltr"),
        ("uzb_Latn", "ltr"),
        ("uz-Arab", "rtl"),
        ("zh", "ltr"),
        ("xx", "ltr"),
    ],
)
def test_direction(code, expected):
    assert scripts.direction(code) == expected


def test_languages_with_names_have_the_script_that_is_shown():
    words = {"Kanji and kana": "Jpan", "Han": "Hans", "Hangul": "Hang"}
    words |= {"Latin": "Latn", "Cyrillic": "Cyrl", "Greek": "Grek", "Arabic": "Arab"}
    words |= {"Devanagari": "Deva", "Bengali": "Beng", "Gurmukhi": "Guru", "Tamil": "Taml"}
    words |= {"Telugu": "Telu", "Kannada": "Knda", "Malayalam": "Mlym", "Thai": "Thai"}
    words |= {"Tibetan": "Tibt", "Georgian": "Geor"}
    for code, language in KNOWN_LANGUAGES.items():
        assert scripts.script_of(code) == words[language.script], code
        assert scripts.base_language(code) == code


@pytest.mark.parametrize(
    "text, expected",
    [
        ("German", ("Latn",)),
        ("Ñandú 12 %", ("Latn",)),
        ("中文", ("Hani",)),
        ("東京タワーへ", ("Hani", "Kana", "Hira")),
        ("हिन्दी", ("Deva",)),
        ("தமிழ்", ("Taml",)),
        ("ภาษาไทย", ("Thai",)),
        ("한국어", ("Hang",)),
        ("русский / العربية", ("Cyrl", "Arab")),
        ("Ελληνικά", ("Grek",)),
        ("בוד", ("Hebr",)),
        ("བོད་ཡིག", ("Tibt",)),
        ("မြန်မာ", ("Mymr",)),
        ("ខ្មែរ", ("Khmr",)),
        ("ລາວ", ("Laoo",)),
        ("ქართული", ("Geor",)),
        ("አማርኛ", ("Ethi",)),
        ("\U00020000", ("Hani",)),
        ("10 ฿ + $5 ^ _ ", ()),
        ("", ()),
    ],
)
def test_scripts_of_a_text(text, expected):
    assert scripts.scripts_in(text) == expected


def test_every_script_of_the_table_has_a_font_and_blocks_do_not_overlap():
    for script in ("Latn", "Hans", "Hant", "Jpan", "Hang", "Deva", "Taml", "Thai", "Arab", "Tibt"):
        assert scripts.fonts_for(script)[0].startswith("Noto ")
    assert scripts.fonts_for("Hans")[0] == "Noto Sans CJK SC"
    assert scripts.fonts_for("Jpan")[0] == "Noto Sans CJK JP"
    assert scripts.fonts_for("Hang")[0] == "Noto Sans CJK KR"
    assert scripts.fonts_for("Zzzz") == ()
    blocks = scripts._BLOCKS
    assert all(one[1] < other[0] for one, other in zip(blocks, blocks[1:], strict=False))
    assert all(scripts.fonts_for(script) for _, _, script in blocks)


def test_character_class_holds_the_characters_of_its_scripts_alone():
    found = re.compile(f"[{scripts.character_class(['Jpan', 'Thai'])}]").findall
    assert found("aタぁ中한ไ1.々𠀀") == list("タぁ中ไ々𠀀")


@pytest.mark.parametrize(
    "lang, expected",
    [
        *((lang, ["北", "京", "2008", "年"]) for lang in ("zh", "zh-Hans", "zh_Hant", "zho_Hans")),
        *((lang, ["北", "京", "2008", "年"]) for lang in ("yue", "cmn", "wuu", "ja")),
        ("ko", ["北京", "2008年"]),
    ],
)
def test_units_of_answers_follow_the_script(lang, expected):
    assert metrics.answer_tokens("北京 2008年", lang) == expected


@pytest.mark.parametrize(
    "lang, text",
    [
        ("tha_Thai", "กขค"),
        ("km", "កខគ"),
        ("lo", "ກຂຄ"),
        ("my", "ကခဂ"),
        ("bo", "ཀཁག"),
        ("yue", "中文人"),
    ],
)
def test_answers_of_every_unspaced_language_are_counted_by_characters(lang, text):
    assert metrics.answer_f1(text, [text[:2]], lang) == pytest.approx(0.8)


@pytest.mark.parametrize("lang", ["es", "es-MX", "spa_Latn", "ES"])
def test_articles_follow_the_base_language(lang):
    assert metrics.answer_tokens("la casa", lang) == ["casa"]


@pytest.mark.parametrize("lang", ["yue", "zh_Hant", "zho_Hans", "dz", "tha_Thai"])
def test_a_premise_has_no_space_in_any_unspaced_language(lang):
    assert premise("[X] 的首都是 [Y]。", "法国", lang) == ("法国的首都是", "")


@pytest.mark.parametrize(
    "text, expected", [("ရေ a", ["ရ", "ေ", "a"]), ("𠀀々x", ["𠀀", "々", "x"])]
)
def test_units_of_texts(text, expected):
    assert texts.units(text) == expected
