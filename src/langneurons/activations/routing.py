"""What the routers of a mixture of experts do with the tokens of a corpus, as integers.

Per layer and expert: the number of counted tokens that are routed to the expert, and the sum of
their routing weights, with which what the expert writes is multiplied. A weight is counted in units
of 2**-32, so both add as integers, in any order. In a statistics file they are the arrays
`experts.tokens` and `experts.weight`, int64 (n_layers, n_experts).

Tensors are used through their methods alone, so that reading a file loads no torch.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from langneurons.base.io import DamagedFile, damaged

if TYPE_CHECKING:
    import torch

    from langneurons.activations.stored import StoredArrays

UNIT = 2.0**32
ARRAYS = ("experts.tokens", "experts.weight")
# Header keys of files of a mixture of experts; others lack them.
OF_EXPERTS = ("n_experts", "experts_per_token")


def add_routed(
    index: "torch.Tensor", weights: "torch.Tensor", mask: "torch.Tensor", sums: "torch.Tensor"
) -> None:
    """Add the routing of counted tokens to sums, in place.

    index: int64 (tokens, k), the experts of each token; weights: float (tokens, k); mask: bool
    (tokens,), the counted ones; sums: int64 (2, n_experts). All on one device.
    """
    counted = mask[:, None].expand_as(index).reshape(-1).long()
    fixed = (weights.double() * UNIT).round().long().reshape(-1) * counted
    more = sums.new_zeros(sums.shape)
    more[0].index_add_(0, index.reshape(-1), counted)
    more[1].index_add_(0, index.reshape(-1), fixed)
    sums += more


def check_routed(arrays: Mapping[str, np.ndarray], tokens: int, per_token: int) -> str | None:
    """Return what is wrong with the sums of the routers of all layers, or None."""
    counts, weight = (arrays[key] for key in ARRAYS)
    if (counts < 0).any() or (counts > tokens).any():
        return f"tokens of an expert outside 0..{tokens}"
    if (counts.sum(axis=1) != tokens * per_token).any():
        return f"a layer does not route each of {tokens} tokens to {per_token} experts"
    if (weight < 0).any() or (weight > counts * UNIT * (1 + 1e-6)).any():
        return "routing weights outside 0..1"
    return None


def check_file(path: str | os.PathLike, header: Mapping[str, Any], arrays: "StoredArrays") -> None:
    """Refuse a file whose router statistics do not fit its header."""
    keys = [key for key in OF_EXPERTS if key in header]
    stored = [key for key in ARRAYS if key in arrays]
    if not keys and not stored:
        return
    if len(keys) < len(OF_EXPERTS) or len(stored) < len(ARRAYS):
        raise DamagedFile(damaged(path, f"of its experts it holds {keys + stored} only"))
    shape = (header["n_layers"], header["n_experts"])
    if any(arrays.packed_shape(key) != shape for key in ARRAYS):
        raise DamagedFile(damaged(path, "router statistics are misshapen"))
    wrong = check_routed(arrays, header["tokens"], header["experts_per_token"])
    if wrong is not None:
        raise DamagedFile(damaged(path, wrong))
