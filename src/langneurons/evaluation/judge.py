"""A language model as judge: how far an answer is one to its question, 0, 1 or 2.

The judge reads question and answer as they are, in their own languages, in one of the prompts of
`PROMPTS`, and the rating is the likeliest of the three digits: no answer of the judge is parsed,
none can fail to be one. `sampled` draws the digit instead (temperature 0.7, top-p 0.8), as the code
of CLaS-Bench (2601.08331) lets its judge answer; the draw depends on the pair and the seed alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from langneurons.evaluation.answer_scores import RATINGS
from langneurons.evaluation.run import Run
from langneurons.models.chat import Chat
from langneurons.models.encoding import report_cuts
from langneurons.scoring.likelihood import encode_replies, encode_requests, loglikelihood

TEMPERATURE, TOP_P = 0.7, 0.8
# A version is never changed: results name it. Of version 2 the order of the scale is turned round.
PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "1": (
            "Rate how far the answer responds to the question. The answer may be in another"
            " language than the question; the language does not matter.\n"
            "0: it does not respond, makes no sense or is empty.\n"
            "1: it responds in part, or is about the topic only.\n"
            "2: it responds to the question.\n\n"
            "Question: {question}\n\nAnswer: {answer}\n\nRating (0, 1 or 2):"
        ),
        "2": (
            "Below are a question and a reply, perhaps in different languages. Judge the content"
            " and not the language.\n"
            "Give 2 if the reply responds to the question, 1 if it is only on the topic or responds"
            " in part, 0 if it is off the topic, without sense or empty.\n\n"
            "Question: {question}\n\nReply: {answer}\n\nNumber (2, 1 or 0):"
        ),
    }
)
SENT = 50  # pairs that are rated before they are kept


def rate(
    run: Run,
    pairs: Sequence[tuple[str, str]],
    version: str,
    chat: Chat | None = None,
    sampled: int | None = None,
) -> np.ndarray:
    """Return the rating, int64 (pair,), of each (question, answer); equal pairs are rated once.

    sampled: the seed of the draws; None takes the likeliest rating, of equal ones the lowest.
    """
    found: dict[tuple[str, str], int] = {}
    waiting = list(dict.fromkeys(pairs))
    spoken = None if chat is None else chat.known_as
    about: dict[str, Any] = {"judge": version, "chat": spoken, "sampled": sampled}
    for start in range(0, len(waiting), SENT):
        portion = waiting[start : start + SENT]
        key = run.key | about | {"pairs": [list(pair) for pair in portion]}
        frame = run.store.get(key)
        if frame is None:
            values = _digit_logits(run, portion, version, chat)
            rated = [_rating(row, pair, sampled) for row, pair in zip(values, portion, strict=True)]
            frame = pd.DataFrame({"rating": np.asarray(rated, np.int64)})
            run.store.put(key, frame)
        found |= dict(zip(portion, frame["rating"].tolist(), strict=True))
    return np.array([found[pair] for pair in pairs], np.int64)


def _digit_logits(
    run: Run, pairs: Sequence[tuple[str, str]], version: str, chat: Chat | None
) -> np.ndarray:
    """Return log p (pair, rating) of each digit as the judge's reply."""
    template = PROMPTS[version]
    asked = [template.format(question=q, answer=a) for q, a in pairs]
    requests = [(text, digit) for text in asked for digit in RATINGS]
    names = [f"pair {number}" for number in range(len(asked)) for _ in RATINGS]
    if chat is None:
        plain = [(text, f" {digit}") for text, digit in requests]
        encoded = encode_requests(run.model, plain, controls={}, names=names)
    else:
        encoded = encode_replies(chat, requests, names)
    report_cuts("answers to rate", [one.cut for one in encoded], run.model.max_positions)
    scores: Any = loglikelihood(run.model, encoded, run.batch_tokens)
    return np.array([value for value, _ in scores]).reshape(len(pairs), len(RATINGS))


def _rating(logits: np.ndarray, pair: tuple[str, str], sampled: int | None) -> int:
    if sampled is None:
        return int(np.argmax(logits))
    scaled = np.exp((logits - logits.max()) / TEMPERATURE)
    share = scaled / scaled.sum()
    order = np.argsort(-share, kind="stable")
    before = np.cumsum(share[order]) - share[order]
    kept = order[before < TOP_P]
    text = f"{sampled}\0{pair[0]}\0{pair[1]}".encode()
    draw = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
    place = np.searchsorted(np.cumsum(share[kept]) / share[kept].sum(), draw, side="right")
    return int(kept[min(int(place), len(kept) - 1)])
