"""Text controls that change packed tokens: random tokens, and equal numbers of tokens."""

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from langneurons.base.errors import InputError
from langneurons.base.languages import parts_of
from langneurons.data.corpus import Corpus, Part, corpus_hash

if TYPE_CHECKING:
    from langneurons.data.settings import EqualTokens, RandomTokens


def vary_corpus(variant: "RandomTokens | EqualTokens", corpus: Corpus) -> Corpus:
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
        random_tokens(part, frequencies, variant.seed)
        for part in (corpus.identification, corpus.heldout)
    ]
    changed = sum(int((part.document >= 0).sum()) for part in parts)
    about |= {"counts": {"changed": changed}}
    header = corpus.header | {"corpus_hash": corpus_hash(parts), "variant": about}
    return replace(corpus, identification=parts[0], heldout=parts[1], header=header)


@dataclass(frozen=True)
class Frequencies:
    """The tokens of documents, ascending, their shares (sum 1), and the bytes of one on average."""

    tokens: np.ndarray
    shares: np.ndarray
    bytes: float


def token_frequencies(part: Part) -> Frequencies:
    """Return how frequent the tokens of the documents of a part are."""
    tokens, counts = np.unique(part.tokens[part.document >= 0], return_counts=True)
    total = counts.sum()
    return Frequencies(tokens, counts / total, sum(part.document_bytes) / total)


def random_tokens(part: Part, frequencies: Frequencies, seed: int) -> Part:
    """Return a part whose documents hold tokens drawn by their frequencies, one by one.

    BOS, separators, pads and all lengths stay. Draws follow from seed and identifier of a document
    alone. The bytes of a document are those of its number of tokens in expectation: drawn tokens
    need not be text.
    """
    bounds = np.cumsum(frequencies.shares)[:-1]
    drawn, sizes = part.tokens.copy(), []
    places = np.flatnonzero(part.document.ravel() >= 0)
    owner = part.document.ravel()[places]  # ascending, as documents lie one after another
    cuts = np.searchsorted(owner, np.arange(len(part.documents) + 1))
    flat = drawn.reshape(-1)
    for number, name in enumerate(part.documents):
        own = places[cuts[number] : cuts[number + 1]]
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        values = np.random.default_rng(int.from_bytes(digest)).random(len(own))
        flat[own] = frequencies.tokens[np.searchsorted(bounds, values, side="right")]
        sizes.append(round(len(own) * frequencies.bytes))
    return Part(drawn, part.lengths, part.document, part.scored, part.documents, sizes)
