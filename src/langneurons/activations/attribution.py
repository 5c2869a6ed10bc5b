"""Attributions of one model on one language: the file, its reader, its merge.

Of every neuron the sum over tokens of a dL/da, where a is its activation, and L the negative
log-likelihood of the text in nats. To first order, zeroing the neuron changes L by minus that sum
(attribution patching). Sums are integers of fixed point, so that parts of a text merge exactly.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langneurons.activations.statistics import LIMB, Mismatch
from langneurons.base.io import DamagedFile, damaged, expect, read_tensors, write_tensors

SCHEMA = 1
# Attributions may be merged or compared only if they agree on these header keys.
IDENTITY = (
    *("model", "revision", "tokenizer_hash", "dtype", "quantization", "n_layers", "d_mlp"),
    *("site", "block_size", "bos", "batch_blocks", "schema"),
)


@dataclass(frozen=True)
class Attribution:
    """Sums over the tokens of a language.

    sums: int64 (2, n_layers, d_mlp): wholes and fractions (of 2**40) of the sum of a dL/da.
    header: names model, language, site, corpus, blocks and predicted tokens.
    """

    sums: np.ndarray
    header: dict[str, Any]

    @property
    def tokens(self) -> int:
        """The number of tokens whose likelihood L is the sum of."""
        return self.header["tokens"]

    def mean(self) -> np.ndarray:
        """Return the sum of a dL/da over predicted tokens, nats per token, (n_layers, d_mlp)."""
        whole, fraction = self.sums
        total = whole.astype(np.float64) + fraction.astype(np.float64) / LIMB
        return total / max(self.tokens, 1)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, atomically."""
        write_tensors(path, {"sums": self.sums}, self.header)

    @classmethod
    def read(cls, path: str | os.PathLike[str], **expected: Any) -> "Attribution":
        """Read a file and check it; its header must say what is `expected`.

        Raises:
            DamagedFile: It is not a whole file of attributions.
            ValueError: It is of something else.
        """
        arrays, header = read_tensors(path)
        expect(path, header, {"schema": SCHEMA} | expected)
        shape = (2, header.get("n_layers"), header.get("d_mlp"))
        if set(arrays) != {"sums"} or arrays["sums"].shape != shape:
            raise DamagedFile(damaged(path, "it does not hold the sums of every neuron"))
        return cls(arrays["sums"], header)


def merged(parts: Sequence[Attribution]) -> Attribution:
    """Return the attributions of disjoint parts of a text as one; exact, in any order.

    Raises:
        Mismatch: The parts are of different models, languages or texts, or they overlap.
    """
    parts = sorted(parts, key=lambda one: one.header["blocks"])
    first = parts[0].header
    for one in parts:
        for key in (*IDENTITY, "lang", "corpus_hash"):
            if one.header.get(key) != first.get(key):
                raise Mismatch(
                    f"attributions of {key} {first.get(key)!r} and of {one.header.get(key)!r}"
                    " cannot be added"
                )
    for before, after in zip(parts, parts[1:], strict=False):
        if before.header["blocks"][1] != after.header["blocks"][0]:
            raise Mismatch(
                f"attributions of the blocks {before.header['blocks']} and"
                f" {after.header['blocks']} do not follow each other"
            )
    whole, fraction = np.sum([one.sums for one in parts], axis=0)
    carry = fraction // int(LIMB)
    header = first | {
        "blocks": [first["blocks"][0], parts[-1].header["blocks"][1]],
        "tokens": sum(one.tokens for one in parts),
    }
    return Attribution(np.stack([whole + carry, fraction - carry * int(LIMB)]), header)
