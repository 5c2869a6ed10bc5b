"""Metrics of sentences, for tests: counts of one, and scores of sums of them."""

from langneurons.evaluation.metrics import METRICS
from langneurons.evaluation.metrics.metric import Answer


def answer(text, golds, tokenizer="13a"):
    return Answer(text, tuple(golds), tokenizer=tokenizer)


def counts(metric, text, golds, tokenizer="13a"):
    """Return what a record holds of one answer, by column."""
    return METRICS[metric].of_item(answer(text, golds, tokenizer))


def score(metric, sums):
    """Return the score of summed counts."""
    return METRICS[metric].total(sums)


def sentence_bleu(text, golds):
    return counts("sentence_bleu", text, golds)["sentence_bleu"]


def mean_bleu(texts, golds, size):
    return METRICS["mean_bleu"].groups(list(map(answer, texts, golds)), size)
