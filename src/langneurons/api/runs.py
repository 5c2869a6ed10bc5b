"""What a model writes and how likely texts are to it, under plans."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from langneurons.api.statistics import corpus_of
from langneurons.base.errors import InputError
from langneurons.evaluation.perplexity import HeldOut, document_nll
from langneurons.interventions.apply import each
from langneurons.interventions.plan import PerRequest, Under
from langneurons.models.chat import Chat, Messages
from langneurons.models.encoding import Prompt
from langneurons.models.language_model import LanguageModel
from langneurons.scoring import decoding, generation, likelihood

BATCH_TOKENS = 4096


def _listed(what: str, given: Sequence[Any]) -> Sequence[Any]:
    """Refuse one text where a list of texts is expected."""
    if isinstance(given, str):
        raise InputError(f"{what}: {given[:40]!r} is one text; give a list of texts: [...].")
    return given


def generate(
    model: LanguageModel,
    prompts: Sequence[str | Messages],
    under: Under = None,
    max_new_tokens: int = 64,
    stop: Sequence[str] = (),
    repetition_penalty: float = 1.0,
    batch_tokens: int = BATCH_TOKENS,
) -> list[str] | list[list[str]]:
    r"""Return the greedy continuation of each prompt, cut before the end of text or a stop string.

    Args:
        model: The model.
        prompts: Texts; one that does not fit with the new tokens loses tokens at its left. Or
            conversations, lists of `{"role": "user", "content": "..."}`, which the model's chat
            template writes; an answer ends where the template ends one too.
        under: None (the model as it is), a plan, or a list of these: then a list of answers for
            each.
        max_new_tokens: Tokens of an answer, at most.
        stop: Strings before which an answer ends, such as `"\n"`.
        repetition_penalty: 1: none (Keskar et al. 2019).
        batch_tokens: Tokens of a forward pass. Changes the speed and the memory only.

    Raises:
        NoEffect: A plan changed nothing, so that the answers would be the untouched model's.

    Example:
        >>> import langneurons as ln
        >>> model = ln.load("gemma3-270m")
        >>> statistics = ln.collect(model, ln.mini_texts(["fr", "vi"], 30))
        >>> plan = ln.plan(ln.select(statistics, "lape", rate=0.01), "vi", "set", 0)
        >>> prompts = ["The capital of France is", "One, two, three,"]
        >>> plain, steered = ln.generate(model, prompts, under=[None, plan], max_new_tokens=4)
        >>> len(plain) == len(steered) == 2
        True
    """
    ends, asked = frozenset[int](), list[str | Prompt]()
    chat = None
    for one in _listed("prompts", prompts):
        if isinstance(one, str):
            asked.append(one)
            continue
        chat = chat or Chat(model.tokenizer, limit=model.max_positions)
        asked.append(chat.prompt(one, max_new_tokens))
        ends = chat.ends
    how = decoding.Decoding(max_new_tokens, list(stop), repetition_penalty, ends)
    return generation.generate(model, asked, how, batch_tokens, under)


def loglikelihood(
    model: LanguageModel,
    requests: Sequence[tuple[str, str]],
    under: Under = None,
    batch_tokens: int = BATCH_TOKENS,
) -> list[tuple[float, bool]] | list[list[tuple[float, bool]]]:
    """Return log p(continuation | context) in nats, and whether greedy decoding would give it.

    Args:
        model: The model.
        requests: Pairs (context, continuation).
        under: As for `generate`.
        batch_tokens: Tokens of a forward pass. Changes the speed and the memory only.

    Raises:
        ValueError: A continuation is empty or does not fit what the model reads.
        NoEffect: A plan changed nothing.

    Example:
        >>> import langneurons as ln
        >>> model = ln.load("gemma3-270m")
        >>> asked = [("The capital of France is", city) for city in (" Paris", " Berlin")]
        >>> [value < 0 for value, _ in ln.loglikelihood(model, asked)]
        [True, True]
    """
    return likelihood.loglikelihood(model, _listed("requests", requests), batch_tokens, under)


def nll(
    model: LanguageModel,
    texts: Sequence[str],
    under: Under = None,
    batch_tokens: int = BATCH_TOKENS,
) -> pd.DataFrame | list[pd.DataFrame]:
    """Return the negative log-likelihood of each text: columns nll, tokens, bytes, a row per text.

    nll is the sum in nats over the `tokens` that are predicted; perplexity is
    exp(nll.sum() / tokens.sum()), bits per byte nll.sum() / log(2) / bytes.sum(). A text longer
    than the model reads is cut into blocks, each read by itself.

    Args:
        model: The model.
        texts: Texts, none of them blank.
        under: None (the model as it is), a plan, or a list of these: then a table for each.
        batch_tokens: Tokens of a forward pass. Changes the speed and the memory only.

    Raises:
        ValueError: A text is blank.
        NoEffect: A plan changed nothing.

    Example:
        >>> import langneurons as ln
        >>> model = ln.load("gemma3-270m")
        >>> found = ln.nll(model, ["The cat sat on the mat.", "Le chat dort."])
        >>> found["bytes"].tolist(), bool((found["nll"] > 0).all())
        ([23, 13], True)
    """
    for number, text in enumerate(_listed("texts", texts)):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"texts[{number}]: {text!r} is blank or not a text.")
    if isinstance(under, PerRequest):
        raise InputError("nll: under is a plan, None or a list of these, not a plan per text.")
    corpus = corpus_of(model, "texts", texts, packing="document")
    found = document_nll(model, corpus, HeldOut(), batch_tokens, under)
    return each(under, lambda one: _by_text(one, len(texts)), found)


def _by_text(frame: pd.DataFrame, number: int) -> pd.DataFrame:
    """Return a row for each text, also for one of which no token is predicted."""
    names = [f"{k:09d}" for k in range(number)]
    found = frame.set_index("document").reindex(names).reset_index(drop=True)
    types = {"nll": np.float64, "tokens": np.int64, "bytes": np.int64}
    return found.fillna(0).astype(types)
