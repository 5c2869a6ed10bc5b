"""Translation metrics of a whole corpus, from counts of each sentence.

BLEU (Papineni et al. 2002) and chrF (Popovic 2015; chrF++: 2017) are functions of counts summed
over sentences. The counts are kept per item, so that the score of any subset or bootstrap replicate
follows from sums, without the texts. Counts are sacreBLEU's (Post 2018); scores equal its own
`corpus_score`, divided by 100.

`bleu` uses the tokenizer of the language, `bleu_13a` always 13a (what a harness without a choice
reports), `chrf` characters only, `chrf++` also words and word pairs. `mean_bleu` is of groups.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

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


COUNTS = {"bleu": _BLEU, "bleu_13a": _BLEU, "chrf": _chrf(0), "chrf++": _chrf(2)}
GROUPED = ("mean_bleu",)  # a number at the first of a group of items, NaN at the others


def columns(metric: str) -> list[str]:
    """Return the columns that hold the counts of a metric."""
    return [f"{metric}:{name}" for name in COUNTS[metric]]


@lru_cache
def _scorer(metric: str, tokenizer: str):
    from sacrebleu.metrics import BLEU, CHRF

    if metric.startswith("bleu"):
        return BLEU(tokenize="13a" if metric == "bleu_13a" else tokenizer, force=True)
    return CHRF(word_order=2 if metric == "chrf++" else 0)


def counts(
    metric: str, hypothesis: str, references: Sequence[str], tokenizer: str = "13a"
) -> dict[str, float]:
    """Return the counts of one sentence by column, against one or more references."""
    scorer = _scorer(metric, tokenizer)
    (found,) = scorer._extract_corpus_statistics([hypothesis], [[one] for one in references])
    return dict(zip(columns(metric), map(float, found), strict=True))


def sentence_bleu(hypothesis: str, references: Sequence[str]) -> float:
    """Return sacreBLEU's sentence BLEU, 0..1: 13a, exponential smoothing, effective order."""
    from sacrebleu import sentence_bleu

    return sentence_bleu(hypothesis, list(references)).score / 100


def mean_bleu(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], size: int
) -> list[float]:
    """Return the 13a BLEU, 0..1, of each `size` sentences in order, at their first; NaN elsewhere.

    The mean of the numbers is a BLEU of batches averaged over batches, as in the code of Rahmanisa
    et al. 2025: it depends on `size`.
    """
    own = [
        list(counts("bleu_13a", *pair).values())
        for pair in zip(hypotheses, references, strict=True)
    ]
    result = [math.nan] * len(own)
    for start in range(0, len(own), size):
        result[start] = float(score("bleu_13a", np.sum(own[start : start + size], axis=0)))
    return result


def score(metric: str, sums: np.ndarray) -> np.ndarray:
    """Return the score (...,), 0..1, of summed counts (..., count) in the order of `columns`."""
    sums = np.asarray(sums, np.float64)
    return _bleu(sums) if metric.startswith("bleu") else _chrf_score(sums)


def _bleu(sums: np.ndarray) -> np.ndarray:
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


def _chrf_score(sums: np.ndarray) -> np.ndarray:
    hypothesis, reference, match = (sums[..., kind::3] for kind in range(3))
    both = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(both.sum(axis=-1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(both, match / hypothesis, 0.0).sum(axis=-1) / orders
        recall = np.where(both, match / reference, 0.0).sum(axis=-1) / orders
        value = (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
    return np.where(precision + recall > 0, value, 0.0)
