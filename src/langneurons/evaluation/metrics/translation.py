"""Translation metrics of a whole corpus, from counts of each sentence.

BLEU (Papineni et al. 2002) and chrF (Popovic 2015; chrF++: 2017) are functions of counts summed
over sentences. The counts are kept per item, so that the score of any subset or bootstrap replicate
follows from sums, without the texts. Counts are sacreBLEU's (Post 2018); scores equal its own
`corpus_score`, divided by 100.

`bleu` uses the tokenizer of the language, `bleu_13a` always 13a (what a harness without a choice
reports), `chrf` characters only, `chrf++` also words and word pairs. `mean_bleu` is of groups.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from langneurons.evaluation.metrics.metric import Answer, Metric, of_answers

ORDER = 4
CHARACTERS = 6
BETA = 2
_BLEU = (
    "hypothesis",
    "reference",
    *(f"correct{n}" for n in range(1, ORDER + 1)),
    *(f"total{n}" for n in range(1, ORDER + 1)),
)


def _chrf(words: int) -> tuple[str, ...]:
    orders = [f"char{n}" for n in range(1, CHARACTERS + 1)] + [
        f"word{n}" for n in range(1, words + 1)
    ]
    return tuple(
        f"{order}_{kind}" for order in orders for kind in ("hypothesis", "reference", "match")
    )


@lru_cache
def _scorer(metric: str, tokenizer: str) -> Any:
    from sacrebleu import metrics

    if metric.startswith("bleu"):
        return metrics.BLEU(tokenize="13a" if metric == "bleu_13a" else tokenizer, force=True)
    return metrics.CHRF(word_order=2 if metric == "chrf++" else 0)


def sentence_counts(metric: str, answer: Answer) -> list[float]:
    """Return the counts of one sentence against one or more references."""
    references = [[one] for one in answer.golds]
    scorer = _scorer(metric, answer.tokenizer)
    (found,) = scorer._extract_corpus_statistics([answer.text], references)
    return list(map(float, found))


def corpus_bleu(sums: np.ndarray) -> np.ndarray:
    """Return BLEU (...,), 0..1, of summed counts (..., count)."""
    sums = np.asarray(sums, np.float64)
    hypothesis, reference = sums[..., 0], sums[..., 1]
    correct, total = sums[..., 2 : 2 + ORDER], sums[..., 2 + ORDER :]
    # Exponential smoothing: the k-th order without a match counts 1 / 2^k of a match.
    empty = np.cumsum(correct == 0, axis=-1)
    matched = np.where(correct > 0, correct, 0.5**empty)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(total > 0, matched / total, 0.0)
        penalty = np.where(hypothesis < reference, np.exp(1 - reference / hypothesis), 1.0)
        value = penalty * np.exp(np.log(precision).mean(axis=-1))
    return np.where((correct > 0).any(axis=-1) & (total > 0).all(axis=-1), value, 0.0)


def corpus_chrf(sums: np.ndarray) -> np.ndarray:
    """Return chrF (...,), 0..1, of summed counts (..., count)."""
    sums = np.asarray(sums, np.float64)
    hypothesis, reference, match = (sums[..., kind::3] for kind in range(3))
    both = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(both.sum(axis=-1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(both, match / hypothesis, 0.0).sum(axis=-1) / orders
        recall = np.where(both, match / reference, 0.0).sum(axis=-1) / orders
        value = (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
    return np.where(precision + recall > 0, value, 0.0)


def _of_corpus(name: str, meaning: str, counts: tuple[str, ...], total: Callable) -> Metric:
    """Return a metric of the whole corpus from the counts of its sentences."""
    count = partial(sentence_counts, name)
    return Metric(name, meaning, ("generation",), count=count, counts=counts, total=total)


BLEU = _of_corpus("bleu", "corpus BLEU with the language's tokenizer", _BLEU, corpus_bleu)
BLEU_13A = _of_corpus("bleu_13a", "corpus BLEU with tokenizer 13a", _BLEU, corpus_bleu)
CHRF = _of_corpus("chrf", "corpus chrF", _chrf(0), corpus_chrf)
CHRF_PLUS = _of_corpus("chrf++", "corpus chrF with words and word pairs", _chrf(2), corpus_chrf)


@of_answers("sentence_bleu", "sacreBLEU's sentence BLEU: 13a, exponential smoothing")
def sentence_bleu(answer: Answer) -> float:
    """Return sentence BLEU, 0..1, with effective order."""
    from sacrebleu import sentence_bleu

    return sentence_bleu(answer.text, list(answer.golds)).score / 100


def mean_bleu(answers: Sequence[Answer], size: int) -> list[float]:
    """Return the 13a BLEU, 0..1, of each `size` sentences in order, at their first; NaN elsewhere.

    The mean of the numbers is a BLEU of batches averaged over batches, as in the code of Rahmanisa
    et al. 2025: it depends on `size`.
    """
    own = [sentence_counts(BLEU_13A.name, one) for one in answers]
    result = [math.nan] * len(own)
    for start in range(0, len(own), size):
        result[start] = float(corpus_bleu(np.sum(own[start : start + size], axis=0)))
    return result


MEAN_BLEU = Metric(
    "mean_bleu", "13a BLEU of groups of `batch` items, averaged", ("generation",), groups=mean_bleu
)
