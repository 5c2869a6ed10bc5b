"""Language modelling on packed text: blocks to train on, and perplexity on the held-out part.

The corpus is packed in blocks of its own length; training takes the same stream of tokens in blocks
of another, as if it had been packed so. Every token is predicted once, none is repeated or cut off.
Labels are -100 where nothing is to be learnt: on padding and on BOS. `encode_documents` repeats
what the code of Gurgurov et al. 2025 does instead.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from langneurons.data.corpus import Corpus, Part
from langneurons.models.encoding import Encoder
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.losses import IGNORED
from langneurons.scoring.nll import token_nll

log = logging.getLogger(__name__)


def repacked(
    part: Part, begin: Sequence[int], block_size: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (tokens, scored) of each block of at most `block_size` tokens, without padding.

    begin: the tokens with which each block of the part begins, and each new one will.
    """
    body, leading = block_size - len(begin), np.array(begin, part.tokens.dtype)
    if body < 1:
        raise ValueError(
            f"training.max_length: {block_size} tokens hold no text: the tokenizer begins each"
            f" block with {len(begin)}. Make it larger."
        )
    inside = np.arange(part.tokens.shape[1]) < part.lengths[:, None]
    inside[:, : len(begin)] = False
    stream, scored = part.tokens[inside], part.scored[inside]
    blocks = []
    for start in range(0, len(stream), body):
        tokens, mask = stream[start : start + body], scored[start : start + body]
        unread = np.zeros(len(begin), bool)
        blocks.append((np.append(leading, tokens), np.append(unread, mask)))
    return blocks


def encode_text(corpus: Corpus, tokens: int | None, block_size: int) -> list[dict[str, Any]]:
    """Return the identification part as {"input_ids", "labels"}, the first `tokens` of it."""
    part = corpus.identification.first(tokens)
    begin = corpus.header["bos_tokens"] if corpus.header["bos"] == "block" else []
    items = [
        {
            "input_ids": [int(token) for token in block],
            "labels": [int(t) if kept else IGNORED for t, kept in zip(block, mask, strict=True)],
        }
        for block, mask in repacked(part, begin, block_size)
    ]
    # A block of one token predicts nothing.
    items = [item for item in items if any(label != IGNORED for label in item["labels"][1:])]
    log.info("%s: %d blocks of at most %d tokens", corpus.lang, len(items), block_size)
    return items


def encode_documents(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    tokens: int | None,
    characters: int,
    block_size: int,
    learn_padding: bool,
) -> list[dict[str, Any]]:
    """Return a row {"input_ids", "labels", "attended"} per document, cut after so many characters.

    learn_padding: every row is filled to `block_size` with padding that is a label like any token,
    and is not attended to.
    """
    part = corpus.identification.first(tokens)
    owned = part.document >= 0
    stream, owner = part.tokens[owned], part.document[owned]
    borders = np.flatnonzero(np.diff(owner)) + 1
    encoder = Encoder(tokenizer, controls={})
    items: list[dict[str, Any]] = []
    for ids in np.split(stream, borders):
        text = str(tokenizer.decode(ids.tolist()))[:characters]
        row = encoder.whole(text)[:block_size]
        missing = (block_size - len(row)) * learn_padding
        own = row + [tokenizer.pad_token_id] * missing
        items.append({"input_ids": own, "labels": list(own), "attended": len(row)})
    items = [item for item in items if len(item["labels"]) > 1]
    log.info("%s: %d documents of at most %d characters", corpus.lang, len(items), characters)
    return items


@contextmanager
def _trainable(model: nn.Module) -> Iterator[None]:
    """Keep bitsandbytes from repacking 4-bit weights for inference, which no training survives.

    It does so on a CPU, in the first forward pass of a layer that is in eval mode.
    """
    layers = [
        module
        for module in model.modules()
        if hasattr(getattr(module, "weight", None), "quant_state") and not module.training
    ]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()


def heldout_nll(
    model: LanguageModel, corpus: Corpus, tokens: int | None, batch_tokens: int
) -> dict[str, float]:
    """Return nll (nats per token), perplexity and tokens of the first held-out blocks."""
    part = corpus.heldout.first(tokens)
    with _trainable(model.model):
        found = token_nll(model, part.tokens, part.lengths, part.scored, batch_tokens)
    predicted = part.scored.copy()
    predicted[:, 0] = False
    values = found[predicted]
    if not np.isfinite(values).all():
        raise RuntimeError(f"{corpus.lang}: the held-out NLL is not finite")
    mean = float(values.mean())
    return {"nll": mean, "perplexity": float(np.exp(mean)), "tokens": len(values)}
