"""Second moments across the dimensions of the residual stream: sums of h h^T over tokens.

Each block of the corpus gives a product in float64 over its counted tokens. The product is split
into two int64 limbs, whole part and 2**-40 fraction, as the sums of
`langneurons.activations.kernels` are. So limbs add as integers, whatever the shards. A product is
symmetric, so a file holds the upper triangle only, row after row.

Tensors are used through their methods alone, so that reading a file loads no torch.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

LIMB = 2.0**40


def counted_of(mask: "torch.Tensor", rows: "torch.Tensor") -> "list[torch.Tensor]":
    """Return the places of the counted tokens of each block that has some.

    mask: bool (tokens,); rows: int64 (blocks + 1,), the borders of the blocks in tokens.
    """
    borders = rows.tolist()
    found = [mask[first:last].nonzero()[:, 0] + first for first, last in pairwise(borders)]
    return [places for places in found if len(places)]


def add_outer(x: "torch.Tensor", counted: "Sequence[torch.Tensor]", limbs: "torch.Tensor") -> None:
    """Add the products h h^T of counted tokens to limbs, in place.

    x: float tensor (tokens, d_model); counted: int64 (tokens of the block,) of each block; limbs:
    int64 (2, d_model, d_model). All on one device.
    """
    more = limbs.new_zeros(limbs.shape)
    for places in counted:
        own = x.index_select(0, places).double()
        product = own.T @ own
        whole = product.floor()
        more[0] += whole.long()
        more[1] += ((product - whole) * LIMB).round_().long()
    limbs += more  # memory is asked for above; from here on nothing can stop half-way


def triangle(limbs: np.ndarray) -> np.ndarray:
    """Return the upper triangle of int64 (2, d_model, d_model), (2, d_model (d_model + 1) / 2)."""
    rows, columns = np.triu_indices(limbs.shape[-1])
    return limbs[:, rows, columns]


def square(upper: np.ndarray, d_model: int) -> np.ndarray:
    """Return the symmetric (..., d_model, d_model) of an upper triangle (..., numbers)."""
    rows, columns = np.triu_indices(d_model)
    whole = np.empty((*upper.shape[:-1], d_model, d_model), upper.dtype)
    whole[..., rows, columns] = whole[..., columns, rows] = upper
    return whole


def outer_key(row: int | str) -> str:
    """Return the name of the array of a row in a file."""
    return f"residual.outer.{row}"
