"""Values that a layer's own output gives in the very forward pass in which they are written.

The test-time factors of Rahmanisa et al. 2025: maximum, mean, median, standard deviation or a
percentile of a layer's output. Here each sequence of a batch has its own: over its tokens in this
forward pass, padding left out, and over all neurons of the layer, before the plan writes there. So
a row's factor does not depend on what else is in the batch, nor on how wide the batch is padded.

A sequence is a packed block (perplexity), a request (log-likelihood) or a prompt (generation).
While decoding with a key-value cache a forward pass holds one new token per row, and the factor is
that of this token: nothing is carried on from the prompt. The authors' code does the same. In a
scored continuation the tokens that follow enter the factor as well, as there.

The percentile q of n values is the smallest that at least q % of them do not exceed: the value of
rank ceil(q n / 100). With `ranks: paper` its rank is int(q / 100 * n), as in the authors' code. The
median is the lower one; the standard deviation is that of a population.
"""

from dataclasses import dataclass

import torch

# torch.kthvalue gives a row one block of a GPU; a sort of a long row has all of it.
LONG_ROW = 2**20
# Values that are widened to float64 at a time.
AT_ONCE = 2**18


@dataclass(frozen=True)
class Factor:
    """A value of the layer: layer_max, layer_mean, layer_median, layer_std, layer_p01 ... p99.

    ranks: `corrected` or `paper`, which rank a percentile is.
    """

    name: str
    ranks: str = "corrected"

    def __call__(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the factor of each row in float32, (batch,); 0 for a row without a valid token.

        values: (batch, pos, d_mlp); valid: bool (batch, pos), False at padding.
        """
        kind = self.name.removeprefix("layer_")
        some = valid.any(dim=1)
        if kind == "max":
            highest = values.amax(dim=-1).masked_fill(~valid, -torch.inf).amax(dim=1)
            return torch.where(some, highest, 0).float()
        if kind in ("mean", "std"):
            return _moment(kind, values, valid).float()
        if bool(valid.all()):
            flat = values.reshape(len(values), -1)
            return _ranked(flat, self._rank(flat.shape[1]))
        found = torch.zeros(len(values), device=values.device)
        for row in some.nonzero()[:, 0].tolist():
            flat = values[row][valid[row]].reshape(1, -1)
            found[row] = _ranked(flat, self._rank(flat.shape[1]))[0]
        return found

    def _rank(self, number: int) -> int:
        """Return the rank, from 1, of the median or of a percentile of so many values."""
        if self.name == "layer_median":
            return (number + 1) // 2
        level = int(self.name.removeprefix("layer_p"))
        if self.ranks == "paper":
            return max(int(level / 100 * number), 1)
        return -(-level * number // 100)


def _moment(kind: str, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return mean or standard deviation of each row, in float64, from sums per token."""
    flat = values.reshape(-1, values.shape[-1])
    sums, squares = [], []
    for part in flat.split(max(1, AT_ONCE // flat.shape[1])):
        wide = part.double()
        sums.append(wide.sum(dim=-1))
        if kind == "std":
            squares.append(wide.square().sum(dim=-1))
    number = (valid.sum(dim=1) * values.shape[-1]).clamp(min=1)

    def mean(each: list[torch.Tensor]) -> torch.Tensor:
        per_token = torch.cat(each).reshape(valid.shape)
        return torch.where(valid, per_token, 0).sum(dim=1) / number

    centre = mean(sums)
    if kind == "mean":
        return centre
    return (mean(squares) - centre.square()).clamp(min=0).sqrt()


def _ranked(values: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the value of a rank, from 1, in each row of (rows, n), as float32."""
    values = values.float()
    if values.is_cuda and values.shape[1] > LONG_ROW:
        return values.sort(dim=-1).values[:, rank - 1]
    return values.kthvalue(rank, dim=-1).values
