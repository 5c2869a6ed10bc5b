"""Text controls: what each changes of a text, what it leaves, and where its code may stand."""

import json
import random
import unicodedata
from collections import Counter

import numpy as np
import pytest
from planned import plan
from tiny import WORDS, tiny_tokenizer

from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import read_json, read_jsonl
from langneurons.base.scripts import character_script, direction, three_letters
from langneurons.config.load import build
from langneurons.data.corpus import fetch_text, pack_corpus, pack_documents
from langneurons.data.mini_data import mini_file
from langneurons.data.settings import (
    CorpusConfig,
    EqualTokens,
    RandomTokens,
    Romanised,
    ShuffledWords,
)
from langneurons.data.varied_text import romaniser, shuffler, vary_text
from langneurons.data.varied_tokens import token_frequencies, vary_corpus
from langneurons.jobs.parameters import stage
from langneurons.jobs.stages import STAGES

RAW = {
    "name": "tiny",
    "models": {"tiny": {"source": {"kind": "local", "path": "m"}, "dtype": "float32"}},
    "language_sets": {"all": ["en", "hi", "hi@romanised", "hi@shuffled", "hi@random", "en@equal"]},
    "corpus": {
        "tokens": 1500,
        "heldout_tokens": 400,
        "block_size": 64,
        "heldout_fraction": 0.2,
        "variants": {
            "romanised": {"kind": "romanised"},
            "shuffled": {"kind": "shuffled_words", "seed": 1},
            "random": {"kind": "random_tokens"},
            "equal": {"kind": "tokens", "tokens": 700},
        },
    },
    "selections": {"lape": {"method": "lape"}},
}
OTHER = {"kind": "source", "source": {"kind": "mini", "texts": "parallel"}}


def raw(**changes):
    """Return the configuration with changes by dotted path, `__` for each dot."""
    made = json.loads(json.dumps(RAW))
    for path, value in changes.items():
        *above, last = path.split("__")
        place = made
        for key in above:
            place = place[key]
        place[last] = value
    return made


def texts(lang):
    return {row["id"]: row["text"] for row in read_jsonl(mini_file("corpus", lang))}


# Romanised ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["hi", "ja", "zh", "ur"])
def test_romanised_text_holds_no_letter_of_another_script(lang):
    romanise, total = romaniser(lang), 0
    for name, text in texts(lang).items():
        made, counts = romanise(name, text)
        foreign = [one for one in made if character_script(one) not in ("", "Latn")]
        assert counts["stayed"] == len(foreign) == 0
        before = sum(character_script(one) not in ("", "Latn") for one in text)
        assert counts["changed"] == before > 0
        assert sum(one.isalpha() for one in made) >= before // 3
        total += before
    assert total > 5000


def test_romanised_words_are_those_of_the_library():
    assert romaniser("hi")("a", "नेपाल") == ("nepaal", {"changed": 5, "stayed": 0})
    assert romaniser("el")("a", "Νεπάλ\n") == ("Nepal", {"changed": 5, "stayed": 0})
    assert [three_letters(one) for one in ("hi", "ja", "zh", "zh_Hant", "qqq")] == [
        *("hin", "jpn", "zho", "zho"),
        "qqq",
    ]


def test_a_line_on_which_the_library_fails_is_romanised_in_parts(monkeypatch):
    import uroman

    plain = uroman.Uroman.romanize_string

    def fails(self, text, **given):
        if len(text) > 3:
            raise AttributeError("value")
        return plain(self, text, **given)

    monkeypatch.setattr(uroman.Uroman, "romanize_string", fails)
    assert romaniser("ru")("a", "Москва")[0] == "Moskva"


# Shuffled -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["en", "hi", "ur", "vi"])
def test_shuffled_words_are_the_same_words_in_another_order(lang):
    shuffle = shuffler(lang, 0)
    for name, text in texts(lang).items():
        made, counts = shuffle(name, text)
        assert Counter(made.split()) == Counter(text.split()) and len(made) == len(text)
        moved = sum(one != two for one, two in zip(text.split(), made.split(), strict=True))
        assert counts["changed"] == moved > 0
        assert sum(counts.values()) == sum(any(map(str.isalnum, word)) for word in text.split())


@pytest.mark.parametrize("lang", ["ja", "zh"])
def test_a_script_without_spaces_is_shuffled_by_characters(lang):
    shuffle = shuffler(lang, 0)
    for name, text in texts(lang).items():
        made, _ = shuffle(name, text)
        assert Counter(made) == Counter(text) and made != text
        marks = [(i, one) for i, one in enumerate(text) if unicodedata.category(one) == "Po"]
        if text.isascii() or not any(one.isascii() for one in text):  # no runs: places are equal
            assert [(i, made[i]) for i, _ in marks] == marks


def test_words_stay_in_their_sentence_and_marks_with_their_letter():
    made, counts = shuffler("en", 3)("a", "One two three. Four five!\nsix  seven eight\n\nnine")
    first, second, *_ = made.split("\n")
    assert sorted(first.split()[:3]) == ["One", "three.", "two"]
    assert sorted(first.split()[3:]) == ["Four", "five!"] and first.split()[3] == "five!"
    assert sorted(second.split()) == ["eight", "seven", "six"] and "  " in second
    assert made.endswith("\n\nnine") and counts["stayed"] >= 1
    thai, _ = shuffler("th", 0)("a", "ที่นี่ NASA 2023")
    assert Counter(thai.replace(" ", "")) == Counter("ที่นี่NASA2023")
    for whole in ("ที่", "นี่", "NASA", "2023"):
        assert whole in thai
    tibetan = shuffler("bo", 0)("a", "བོད་སྐད")[0]
    assert all(not unicodedata.category(one).startswith("M") for one in tibetan[:1])


def test_orders_follow_from_seed_and_identifier_alone():
    rows = list(texts("en").items())
    shuffle = shuffler("en", 0)
    once = {name: shuffle(name, text)[0] for name, text in rows}
    random.Random(1).shuffle(rows)
    again = shuffler("en", 0)
    assert {name: again(name, text)[0] for name, text in rows} == once
    name, text = rows[0]
    assert shuffler("en", 1)(name, text)[0] != once[name] != shuffle("another", text)[0]


# Files --------------------------------------------------------------------------------------------


@pytest.fixture
def fetched(tmp_path):
    config = CorpusConfig(heldout_fraction=0.2)
    fetch_text(config, "hi", tmp_path / "hi.jsonl", tmp_path / "hi.json")
    return tmp_path


def changed(folder, variant, lang, base="hi"):
    files = {
        "text": folder / f"{base}.jsonl",
        "about": folder / f"{base}.json",
        "written": folder / f"{lang}.jsonl",
        "written_about": folder / f"{lang}.json",
    }
    vary_text(variant, lang, files, base)
    return read_jsonl(files["written"]), read_json(files["written_about"])


@pytest.mark.parametrize(
    "variant", [Romanised(kind="romanised"), ShuffledWords(kind="shuffled_words")]
)
def test_changed_documents_keep_identifier_and_part(fetched, variant):
    before, about = read_jsonl(fetched / "hi.jsonl"), read_json(fetched / "hi.json")
    rows, found = changed(fetched, variant, "hi@x")
    assert [(r["id"], r["split"]) for r in rows] == [(r["id"], r["split"]) for r in before]
    assert all(one["text"] != two["text"] for one, two in zip(rows, before, strict=True))
    assert found["variant"]["of"] == "hi" and found["variant"]["kind"] == variant.kind
    assert found["characters"] == sum(len(row["text"]) for row in rows)
    assert {k: found[k] for k in ("sources", "heldout", "documents")} == {
        k: about[k] for k in ("sources", "heldout", "documents")
    }


def test_a_text_without_anything_to_change_is_refused(tmp_path):
    (tmp_path / "en.jsonl").write_text('{"id": "a", "split": "heldout", "text": "Café, 2"}\n')
    (tmp_path / "en.json").write_text("{}")
    with pytest.raises(InputError, match="en@x: nothing of the text of 'en' was changed"):
        changed(tmp_path, Romanised(kind="romanised"), "en@x", "en")
    assert not (tmp_path / "en@x.jsonl").exists()


# Packed -------------------------------------------------------------------------------------------


def packed(fetched, lang="hi@random", **settings):
    tokenizer = tiny_tokenizer()
    config = CorpusConfig(
        **{"tokens": 4000, "heldout_tokens": 900, "block_size": 32, "heldout_block_size": 16}
        | settings
    )
    return pack_corpus(config, lang, fetched / "en.jsonl", tokenizer, "hash")


@pytest.fixture
def english(tmp_path):
    draw = random.Random(0)
    weights = [1 / (rank + 1) for rank in range(len(WORDS))]
    rows = [
        {
            "id": str(number),
            "split": "identification" if number % 5 else "heldout",
            "text": " ".join(draw.choices(WORDS, weights, k=draw.randint(1, 40))),
        }
        for number in range(300)
    ]
    (tmp_path / "en.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("bos", ["block", "document", "none"])
def test_random_tokens_keep_lengths_exactly_and_frequencies_within_a_bound(english, bos):
    corpus = packed(english, bos=bos)
    made = vary_corpus(RandomTokens(kind="random_tokens"), corpus)
    found = token_frequencies(corpus.identification)
    for name in ("identification", "heldout"):
        one, two = getattr(corpus, name), getattr(made, name)
        for array in ("lengths", "document", "scored"):
            assert np.array_equal(getattr(one, array), getattr(two, array))
        same = one.document < 0
        assert np.array_equal(one.tokens[same], two.tokens[same])
        assert not np.array_equal(one.tokens, two.tokens)
        assert two.documents == one.documents and two.fault() is None
        sizes = np.bincount(one.document[one.document >= 0])
        assert two.document_bytes == [round(size * found.bytes) for size in sizes]
    known, share = found.tokens, found.shares
    drawn = made.identification.tokens[made.identification.document >= 0]
    counts = np.array([(drawn == token).sum() for token in known])
    assert counts.sum() == len(drawn)
    total = sum(corpus.identification.document_bytes)
    assert sum(made.identification.document_bytes) == pytest.approx(total, rel=0.02)
    # Six standard deviations of a binomial count, for every token.
    assert (np.abs(counts - len(drawn) * share) <= 6 * np.sqrt(len(drawn) * share) + 1).all()
    assert set(made.heldout.tokens[made.heldout.document >= 0]) <= set(known)
    assert made.header["corpus_hash"] != corpus.header["corpus_hash"]
    assert made.header["variant"]["counts"]["changed"] == sum(
        (getattr(corpus, name).document >= 0).sum() for name in ("identification", "heldout")
    )


def test_random_tokens_follow_from_seed_and_identifier(english):
    corpus = packed(english)
    draw = [
        vary_corpus(RandomTokens(kind="random_tokens", seed=seed), corpus) for seed in (0, 0, 1)
    ]
    first, second, other = (one.identification.tokens for one in draw)
    assert np.array_equal(first, second) and not np.array_equal(first, other)
    # Another packing of the same documents: each gets the same tokens.
    wide = packed(english, block_size=48)
    again = vary_corpus(RandomTokens(kind="random_tokens"), wide).identification
    for number in range(5):
        own = draw[0].identification
        assert np.array_equal(
            own.tokens[own.document == number], again.tokens[again.document == number]
        )


def test_equal_tokens_are_exact_and_fewer_are_refused(english):
    for tokens in (1, 31, 250, 251, 252, 777):
        corpus = packed(english, "en@equal", tokens=tokens)
        variant = EqualTokens(kind="tokens", tokens=tokens)
        made = vary_corpus(variant, corpus)
        assert (
            int(made.identification.scored.sum())
            == tokens
            == made.header["tokens"]["identification"]
        )
    corpus = packed(english, "en@equal", tokens=10**6)
    found = int(corpus.identification.scored.sum())
    with pytest.raises(InputError, match=rf"en@equal: 'en' has {found} identification tokens,"):
        vary_corpus(EqualTokens(kind="tokens", tokens=10**6), corpus)


def test_a_budget_is_met_wherever_it_ends():
    encoded = [("a", [10, 11, 12], 6), ("b", [20, 21], 5), ("c", [30, 31, 32, 33], 12)]
    total = 3 + 2 + 2 + 2 + 4  # two separators of two tokens
    for bos, begin in (("none", ()), ("block", (1,))):
        whole = pack_documents(encoded, 5, 100, bos, begin, [8, 9], 0)
        ids = whole.tokens[whole.scored]
        assert len(ids) == total
        for budget in range(1, total + 1):
            part = pack_documents(encoded, 5, budget, bos, begin, [8, 9], 0)
            assert part.tokens[part.scored].tolist() == ids[:budget].tolist()
            assert part.fault() is None
            assert set(part.document[part.document >= 0]) == set(range(len(part.documents)))


# Configuration ------------------------------------------------------------------------------------


def test_a_variant_has_its_languages_name_family_and_its_own_script():
    config = build(raw())
    names = config.language_names()
    assert names["hi@romanised"] == "Hindi, romanised" and names["en@equal"] == "English, equal"
    assert config.language_families()["hi@romanised"] == "Indo-Aryan"
    tags = config.language_tags()
    assert tags["hi@romanised"] == "hi-Latn" and tags["hi@shuffled"] == "hi"
    other = raw(
        corpus__variants={"x": {**OTHER, "script": "Arab", "label": "in Arabic letters"}},
        language_sets={"all": ["en", "hi@x"]},
    )
    config = build(other)
    assert config.language_names()["hi@x"] == "Hindi, in Arabic letters"
    assert config.language_tags()["hi@x"] == "hi-Arab"
    assert direction("hi-Arab") == "rtl" and direction("hi-Latn") == "ltr"


REFUSED = [
    (
        {"language_sets__all": ["en", "hi@romanized", "hi@shuffled"]},
        "language_sets.all: 'hi@romanized': 'romanized' is not a variant of the configuration;"
        " corpus.variants: romanised, shuffled, random, equal. Did you mean 'romanised'?",
    ),
    (
        {"language_sets__all": ["en", "hii@romanised"]},
        "language_sets.all: 'hii' is not a known language (in 'hii@romanised')",
    ),
    ({"language_sets__all": ["en", "hi@"]}, "language_sets.all: 'hi@': '' is not a variant"),
    (
        {"language_sets__all": [*RAW["language_sets"]["all"], "en@romanised"]},
        "'en@romanised': English is written in Latin letters, so there is nothing to romanise.",
    ),
    (
        {"corpus__variants__other": OTHER},
        "corpus.variants.other: no language set names it, so nothing would be made of it. Write"
        " 'en@other' in a set, or leave the variant out.",
    ),
    (
        {"corpus__variants__a@b": OTHER},
        "corpus.variants: name 'a@b': names hold letters, digits",
    ),
    (
        {"corpus__variants__equal__kind": "token"},
        "corpus.variants.equal.kind: 'token'",
    ),
    (
        {"corpus__variants__equal__label": "random"},
        "corpus.variants: corpus.variants.random (no label) and corpus.variants.equal (label"
        " 'random') are shown alike",
    ),
    (
        {
            "corpus__variants__equal": {"kind": "source", "source": {"kind": "mini"}},
        },
        "corpus.variants.equal.source: the same as corpus.source",
    ),
    (
        {
            "corpus__variants__equal": {"kind": "source", "source": {"kind": "jsonl", "path": "a"}},
            "language_sets__all": [*RAW["language_sets"]["all"], "hi@equal"],
        },
        "corpus.variants.equal.source.path: 'a' lacks {lang}",
    ),
    (
        {
            "corpus__heldout_source": {"kind": "mini", "texts": "parallel"},
            "corpus__heldout_fraction": 0.02,
            "corpus__variants__equal": {"kind": "source", "source": {"kind": "text", "path": "a"}},
        },
        "corpus.variants.equal.heldout_source: missing.",
    ),
]


def test_a_file_of_one_language_needs_no_braces():
    build(raw(corpus__variants__equal={"kind": "source", "source": {"kind": "jsonl", "path": "a"}}))


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_variants_that_are_not_there_are_refused(changes, said):
    with pytest.raises(ConfigError) as error:
        build(raw(**changes))
    assert said in str(error.value)


SPOKEN = [
    ("tasks", {"xcopa": {"source": {"kind": "mini"}, "languages": ["hi@romanised"]}}),
    ("forcing", {"interventions": ["pair"], "sources": ["hi@romanised"]}),
    ("forcing", {"interventions": ["pair"], "targets": ["en", "hi@romanised"]}),
    ("fallback", {"interventions": ["zero"], "order": ["en"], "language": "hi@romanised"}),
    ("lens", {"languages": ["hi@romanised"]}),
    ("lss", {"interventions": ["zero"], "source": {"kind": "mini"}, "bases": ["hi@romanised"]}),
    ("lss", {"interventions": ["zero"], "source": {"kind": "mini"}, "targets": ["hi@romanised"]}),
    (
        "finetunings",
        {
            "nli": {
                "definition": "config/tasks/xnli_head.yaml",
                "source": {"kind": "mini", "name": "xnli"},
                "neurons": ["target"],
                "targets": ["hi@romanised"],
            }
        },
    ),
]
STEPS = {
    "zero": {"operation": "set", "value": 0},
    "pair": {"steps": [{"neurons": "source", "operation": "set", "value": 0}]},
}


@pytest.mark.parametrize(("key", "value"), SPOKEN)
def test_a_variant_may_not_stand_where_something_is_asked_or_judged(key, value):
    with pytest.raises(
        ConfigError, match=r"'hi@romanised' is a variant\. .*Name the language: 'hi"
    ):
        build(raw(**{key: value}, interventions=STEPS))


def test_a_sets_variants_are_left_out_where_something_is_asked_or_judged():
    config = build(
        raw(
            interventions=STEPS
            | {"others": {"neurons": "hi@random", "operation": "set", "value": 0}},
            perplexity={"interventions": ["zero", "others"]},
            forcing={"interventions": ["pair"]},
            fallback={"interventions": ["zero"], "order": ["en", "hi", "hi@romanised"]},
            lens={"interventions": ["zero"], "targets": ["hi@romanised"]},
            lss={"interventions": ["zero"], "source": {"kind": "mini"}},
            tasks={
                "xcopa": {
                    "source": {"kind": "mini"},
                    "languages": ["vi"],
                    "targets": "all",
                    "interventions": ["zero"],
                }
            },
            browser={},
        )
    )
    (folder,) = config.directory_languages()
    assert folder == "en-en@equal-hi-hi@random-hi@romanised-hi@shuffled"
    model = {"model": "tiny", "langset": folder, "selection": "lape"}
    forced = stage(config, "force_language", variant="corrected", intervention="pair", **model)
    assert (forced["sources"], forced["targets"]) == (["en", "hi"], ["en", "hi"])
    fallen = stage(config, "fall_back", variant="corrected", intervention="zero", **model)
    assert fallen["order"] == ["en", "hi", "hi@romanised"]
    read = stage(config, "read_layers", variant="corrected", model="tiny", langset=folder)
    assert read["languages"] == ["en", "hi"]
    assert read["conditions"] == [["lape", "zero", "hi@romanised"]]
    assert config.lss_languages(folder) == (("en", "hi"), ("en", "hi"))
    written = {target for *_, target in config.task_conditions("tiny", "xcopa", "vi")}
    assert written == set(config.language_names())


def test_each_file_has_one_job_that_makes_it(tmp_path):
    made = raw(corpus__variants__other=OTHER)
    made["language_sets"]["all"] += ["ja@other", "ja@romanised"]
    config = build(made)
    fetched = {cell["lang"] for cell in STAGES["fetch_text"].cells(config)}
    varied = {cell["lang"] for cell in STAGES["vary_text"].cells(config)}
    assert fetched == {"en", "hi", "ja", "ja@other"}  # ja: for its romanised text
    assert varied == {"hi@romanised", "hi@shuffled", "ja@romanised"}
    packed = {
        cell["lang"]: config.text_of(cell["lang"]) for cell in STAGES["pack_corpus"].cells(config)
    }
    assert packed["hi@random"] == "hi" and packed["en@equal"] == "en"
    assert set(packed.values()) <= fetched | varied and len(packed) == 8
    read = stage(config, "fetch_text", lang="ja@other")
    assert (read["lang"], read["key"]) == ("ja", "corpus.variants.other")
    assert read["source"]["texts"] == "parallel"
    assert stage(config, "pack_corpus", model="tiny", lang="en@equal")["tokens"] == 700
    counts = plan(config, tmp_path)
    assert counts["vary_text"] == 3 and counts["collect_statistics"] == 8


def test_adding_or_editing_a_variant_touches_its_own_jobs_only():
    def parameters(made):
        config = build(made)
        rules = ("fetch_text", "vary_text", "pack_corpus", "collect_statistics")
        return {
            (rule, cell["lang"]): stage(config, rule, **cell)
            for rule in rules
            for cell in STAGES[rule].cells(config)
        }

    def differing(one, two):
        return {key for key in {*one, *two} if one.get(key) != two.get(key)}

    with_all = parameters(raw())
    without = parameters(raw(language_sets__all=["en", "hi"], corpus__variants={}))
    assert {lang for _, lang in differing(with_all, without)} == {
        *("hi@romanised", "hi@shuffled", "hi@random", "en@equal")
    }
    assert differing(with_all, parameters(raw(corpus__variants__shuffled__seed=2))) == {
        ("vary_text", "hi@shuffled")
    }
    assert differing(with_all, parameters(raw(corpus__variants__equal__tokens=701))) == {
        ("pack_corpus", "en@equal")
    }
    assert (
        differing(with_all, parameters(raw(corpus__variants__random__label="by chance"))) == set()
    )
