"""Corpus BLEU and chrF from summed counts, against sacreBLEU and by hand."""

import math

import numpy as np
import pytest
import scored as c
from sacrebleu.metrics import BLEU, CHRF

from langneurons.evaluation.metrics import METRICS

COUNTED = [name for name, one in METRICS.items() if one.counts]

REFERENCES = [
    "The ferry leaves the old harbour at nine.",
    "She sold three red boats, then moved inland.",
    "Nobody expected rain on the second day!",
    "在第二天，没有人想到会下雨。",
]
HYPOTHESES = [
    "The ferry leaves the harbour at nine o'clock.",
    "She sold three boats and moved inland.",
    "",
    "第二天没有人想到下雨。",
]


def table(metric, hypotheses=HYPOTHESES, references=REFERENCES, tokenizer="13a"):
    rows = [
        list(c.counts(metric, *pair, tokenizer).values())
        for pair in zip(hypotheses, [[one] for one in references], strict=True)
    ]
    return np.array(rows)


@pytest.mark.parametrize("tokenizer", ("13a", "zh", "char", "intl", "none"))
def test_bleu_is_sacrebleus(tokenizer):
    sums = table("bleu", tokenizer=tokenizer).sum(axis=0)
    expected = BLEU(tokenize=tokenizer).corpus_score(HYPOTHESES, [REFERENCES]).score
    assert expected > 1
    assert c.score("bleu", sums) == pytest.approx(expected / 100, rel=1e-12)
    plain = BLEU().corpus_score(HYPOTHESES, [REFERENCES]).score / 100
    by_name = c.score("bleu_13a", table("bleu_13a", tokenizer=tokenizer).sum(axis=0))
    assert by_name == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize("metric, words", (("chrf", 0), ("chrf++", 2)))
def test_chrf_is_sacrebleus(metric, words):
    expected = CHRF(word_order=words).corpus_score(HYPOTHESES, [REFERENCES]).score
    sums = table(metric).sum(axis=0)
    assert len(sums) == 3 * (6 + words)
    assert c.score(metric, sums) == pytest.approx(expected / 100, rel=1e-12)


@pytest.mark.parametrize("metric", COUNTED)
def test_scores_of_random_sums_are_sacrebleus(metric):
    words = [f"w{i}" for i in range(6)]
    generator = np.random.default_rng(0)
    for size in (1, 2, 5):
        for _ in range(30):
            texts = [
                [" ".join(generator.choice(words, generator.integers(0, 9))) for _ in range(size)]
                for _ in range(2)
            ]
            scorer = BLEU() if metric.startswith("bleu") else CHRF(word_order=words_of(metric))
            expected = scorer.corpus_score(texts[0], [texts[1]]).score / 100
            found = c.score(metric, table(metric, *texts).sum(axis=0))
            assert found == pytest.approx(expected, abs=1e-12), texts


def words_of(metric):
    return 2 if metric == "chrf++" else 0


def test_bleu_by_hand():
    # Matches: 3 of 4 words, 1 of 3 pairs, none of 2 triples (half a one), none of 1 (a quarter).
    row = c.counts("bleu", "a b x d", ["a b c d e"])
    assert [row[f"bleu:correct{n}"] for n in (1, 2, 3, 4)] == [3, 1, 0, 0]
    product = (3 / 4) * (1 / 3) * (0.5 / 2) * (0.25 / 1)
    expected = math.exp(1 - 5 / 4) * product**0.25
    assert c.score("bleu", list(row.values())) == pytest.approx(expected)


def test_chrf_by_hand():
    # Characters of "ab" in "abc": 2 of 2 and 2 of 3; pairs 1 of 1 and 1 of 2; triples: none here.
    row = c.counts("chrf", "ab", ["abc"])
    precision, recall = (1 + 1) / 2, (2 / 3 + 1 / 2) / 2
    expected = 5 * precision * recall / (4 * precision + recall)
    assert c.score("chrf", list(row.values())) == pytest.approx(expected)


def test_nothing_in_common_is_zero_and_the_same_text_is_one():
    for metric in COUNTED:
        assert c.score(metric, table(metric, ["zz"], ["a b c d e"]).sum(axis=0)) == 0
        assert c.score(metric, table(metric, [""], ["a b c d e"]).sum(axis=0)) == 0
        same = table(metric, ["a b c d e f"], ["a b c d e f"]).sum(axis=0)
        assert c.score(metric, same) == pytest.approx(1)


def test_many_sums_at_once_equal_each_alone():
    for metric in COUNTED:
        rows = table(metric)
        np.testing.assert_allclose(c.score(metric, rows), [c.score(metric, row) for row in rows])


def test_several_references_are_sacrebleus():
    others = [text.replace("the", "a") for text in REFERENCES]
    for metric, scorer in (("bleu", BLEU()), ("chrf++", CHRF(word_order=2))):
        rows = [
            list(c.counts(metric, *item).values())
            for item in zip(HYPOTHESES, zip(REFERENCES, others, strict=True), strict=True)
        ]
        expected = scorer.corpus_score(HYPOTHESES, [REFERENCES, others]).score / 100
        assert c.score(metric, np.sum(rows, axis=0)) == pytest.approx(expected, rel=1e-12)


def test_sentence_bleu_uses_the_orders_that_exist():
    assert c.sentence_bleu("a b", ["a b"]) == pytest.approx(1)
    # 1 of 2 words; no pair: half of one of one; no longer orders.
    assert c.sentence_bleu("a x", ["a b"]) == pytest.approx(math.sqrt(0.5 * 0.5))


def test_mean_bleu_is_that_of_groups_in_their_order():
    answers = [
        "the cat sat on the mat",
        "a dog ran",
        "the cat is here now",
        "x y z",
        "so it goes on",
    ]
    golds = [
        ["the cat sat on a mat"],
        ["a dog ran off"],
        ["the cat is here"],
        ["x y"],
        ["so it goes"],
    ]
    found = c.mean_bleu(answers, golds, 2)
    assert np.isnan([found[1], found[3]]).all()
    groups = [slice(0, 2), slice(2, 4), slice(4, 5)]
    expected = [
        BLEU(force=True).corpus_score(answers[g], [[one[0] for one in golds[g]]]).score / 100
        for g in groups
    ]
    assert [found[0], found[2], found[4]] == pytest.approx(expected)
    assert min(expected) > 0
    whole = c.mean_bleu(answers, golds, 100)
    pairs = zip(answers, golds, strict=True)
    sums = np.sum([list(c.counts("bleu_13a", *pair).values()) for pair in pairs], axis=0)
    single = c.score("bleu_13a", sums)
    assert whole[0] == pytest.approx(single) and np.nanmean(found) != pytest.approx(
        single, rel=1e-3
    )
