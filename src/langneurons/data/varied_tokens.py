"""Text controls that change packed tokens: random tokens, and equal numbers of tokens."""

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from langneurons.base.errors import InputError
from langneurons.base.languages import parts_of
from langneurons.data.corpus import Corpus, Part, corpus_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langneurons.data.settings import EqualTokens, RandomTokens


def vary_corpus(
    variant: "RandomTokens | EqualTokens", corpus: Corpus, tokenizer: "PreTrainedTokenizerBase"
) -> Corpus:
    """Return the corpus of a variant, given that of its language.

    Of `tokens`, the corpus is packed with that budget already, and only checked here.
    """
    base = parts_of(corpus.lang)[0]
    about: dict[str, Any] = {"kind": variant.kind, "of": base}
    if variant.kind == "tokens":
        found = int(corpus.identification.scored.sum())
        if found != variant.tokens:
            raise InputError(
                f"{corpus.lang}: {base!r} has {found} identification tokens, fewer than"
                f" {variant.tokens} (corpus.variants.{parts_of(corpus.lang)[1]}.tokens). Ask for at"
                f" most {found}, or give it more documents."
            )
        header = corpus.header | {"variant": about | {"counts": {"kept": found}}}
        return replace(corpus, header=header)
    frequencies = token_frequencies(corpus.identification)
    parts = [
        random_tokens(part, frequencies, variant.seed, tokenizer)
        for part in (corpus.identification, corpus.heldout)
    ]
    changed = sum(int((part.document >= 0).sum()) for part in parts)
    about |= {"counts": {"changed": changed}}
    header = corpus.header | {"corpus_hash": corpus_hash(parts), "variant": about}
    return replace(corpus, identification=parts[0], heldout=parts[1], header=header)


def token_frequencies(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens of documents, ascending, and their frequencies (float64, sum 1)."""
    tokens, counts = np.unique(part.tokens[part.document >= 0], return_counts=True)
    return tokens, counts / counts.sum()


def random_tokens(
    part: Part,
    frequencies: tuple[np.ndarray, np.ndarray],
    seed: int,
    tokenizer: "PreTrainedTokenizerBase",
) -> Part:
    """Return a part whose documents hold tokens drawn by their frequencies, one by one.

    BOS, separators, pads and all lengths stay. Draws follow from seed and identifier of a document
    alone. The bytes of a document are those of its drawn tokens, decoded.
    """
    known, share = frequencies
    bounds = np.cumsum(share)[:-1]
    drawn, sizes = part.tokens.copy(), []
    places = np.flatnonzero(part.document.ravel() >= 0)
    owner = part.document.ravel()[places]  # ascending, as documents lie one after another
    cuts = np.searchsorted(owner, np.arange(len(part.documents) + 1))
    flat = drawn.reshape(-1)
    for number, name in enumerate(part.documents):
        own = places[cuts[number] : cuts[number + 1]]
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        values = np.random.default_rng(int.from_bytes(digest)).random(len(own))
        chosen = known[np.searchsorted(bounds, values, side="right")]
        flat[own] = chosen
        sizes.append(len(str(tokenizer.decode(chosen.tolist())).encode()))
    return Part(drawn, part.lengths, part.document, part.scored, part.documents, sizes)
