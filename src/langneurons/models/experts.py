"""The experts of a mixture as one wide MLP: every neuron of every expert has a place of its own.

A sparse layer of `qwen3_moe` keeps the weights of its E experts in two tensors, gate and up
(E, 2 d_expert, d_model) and down (E, d_model, d_expert), and computes, for the k experts e that the
router gives a token x and their routing weights w_e,

    y = sum_e w_e down_e (act(gate_e x) * up_e x).

Neuron r of expert e has the index e * d_expert + r, so a layer has E * d_expert neurons. In the
readable form the nonlinearity and the down projection are modules that see all of them, as those of
a dense MLP do: `act_fn` maps the gates (tokens, E * d_expert) to the activations, and `down` reads
the products. A token's neurons of experts that it is not routed to have gate, activation and
product 0, and whatever is written into them has no effect: their up projection is 0 there, and
`down` calls a token's own experts only. The parameters stay where they are, under their names.

Memory: a layer holds two arrays of tokens x E * d_expert at once; a pass with gradients keeps them.
A layer in which nothing reads or writes neurons computes the same without them.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from langneurons.base.errors import present


@dataclass(frozen=True)
class Routed:
    """The (token, expert) pairs of a pass, sorted by expert, each expert's tokens ascending.

    token, expert: int64 (pairs,); weight: (pairs,), the routing weights; borders: where each
    expert's pairs begin, and the end; back: the places of the pairs, token by token, (tokens, k).
    """

    token: torch.Tensor
    expert: torch.Tensor
    weight: torch.Tensor
    borders: tuple[int, ...]
    back: torch.Tensor

    @classmethod
    def of(cls, index: torch.Tensor, weights: torch.Tensor, n_experts: int) -> "Routed":
        """Return the pairs of the experts `index` and their weights, (tokens, k) each."""
        k = index.shape[1]
        expert, order = index.reshape(-1).sort(stable=True)
        counts = torch.bincount(expert, minlength=n_experts)
        borders = (0, *counts.cumsum(0).tolist())
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return cls(order // k, expert, weights.reshape(-1)[order], borders, back.view(-1, k))

    def linear(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return each pair's row (pairs, in) through its expert's matrix of (E, out, in)."""
        hit = [e for e in range(len(self.borders) - 1) if self.borders[e] < self.borders[e + 1]]
        if not hit:
            return rows.new_zeros(0, weight.shape[1])
        parts = [
            nn.functional.linear(rows[self.borders[e] : self.borders[e + 1]], weight[e])
            for e in hit
        ]
        return torch.cat(parts)

    def spread(self, values: torch.Tensor, n_experts: int) -> torch.Tensor:
        """Return values (pairs, d_expert) at their neurons, (tokens, E * d_expert), 0 elsewhere."""
        wide = values.new_zeros(len(self.back) * n_experts, values.shape[1])
        wide.index_copy_(0, self.token * n_experts + self.expert, values)
        return wide.view(len(self.back), -1)

    def gathered(self, wide: torch.Tensor, n_experts: int) -> torch.Tensor:
        """Return the values (pairs, d_expert) of the neurons of routed experts."""
        rows = wide.reshape(len(self.back) * n_experts, -1)
        return rows.index_select(0, self.token * n_experts + self.expert)

    def combined(self, product: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return what the products (pairs, d_expert) write by their weights, (tokens, d_model)."""
        rows = self.linear(product, weight) * self.weight[:, None]
        return rows[self.back].sum(1).to(product.dtype)


class Down(nn.Module):
    """The down projections of a layer's experts, read from the experts' own parameter.

    `weight` is (E, d_model, d_expert). Its input is the product of every neuron.
    """

    def __init__(self, experts: nn.Module):
        super().__init__()
        # In a tuple, so that it is not a module within its own part.
        self._experts: tuple[Any] = (experts,)

    @property
    def weight(self) -> torch.Tensor:
        """The matrices of the experts, (E, d_model, d_expert)."""
        return self._experts[0].down_proj

    @property
    def in_features(self) -> int:
        """Number of neurons of the layer."""
        return self.weight.shape[0] * self.weight.shape[2]

    def forward(self, product: torch.Tensor, routed: Routed | None = None) -> torch.Tensor:
        """Return what products (tokens, E * d_expert) write, (tokens, d_model).

        Without `routed` every expert writes with routing weight 1.
        """
        return written(product, routed, self.weight)


def written(product: torch.Tensor, routed: Routed | None, weight: torch.Tensor) -> torch.Tensor:
    """Return what products (tokens, E * d_expert) write through matrices (E, d_model, d_expert)."""
    if routed is None:
        parts = product.reshape(len(product), len(weight), -1)
        return torch.stack(
            [nn.functional.linear(parts[:, e], weight[e]) for e in range(len(weight))]
        ).sum(0)
    return routed.combined(routed.gathered(product, len(weight)), weight)


class Readable(nn.Module):
    """What `readable` adds to the class of a layer's experts."""

    gate_up_proj: nn.Parameter
    down_proj: nn.Parameter
    act_fn: nn.Module
    down: nn.Module
    _index: torch.Tensor | None = None  # experts of each token, while a pass goes through the layer

    @property
    def n_experts(self) -> int:
        """Number of experts of the layer."""
        return len(self.down_proj)

    @property
    def in_features(self) -> int:
        """Width of the residual stream, as of a projection into the layer."""
        return self.down_proj.shape[1]

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Return (tokens, d_model), as the class of transformers does."""
        number = self.n_experts
        routed = Routed.of(top_k_index, top_k_weights, number)
        gate, up = routed.linear(hidden_states[routed.token], self.gate_up_proj).chunk(2, -1)
        if not _watched(self.act_fn, self.down):
            return routed.combined(self.act_fn(gate.contiguous()) * up, self.down_proj)
        self._index = top_k_index
        try:
            act = routed.gathered(self.act_fn(routed.spread(gate, number)), number)
            return self.down(routed.spread(act * up, number), routed)
        finally:
            self._index = None

    def called(self, neurons: torch.Tensor) -> torch.Tensor:
        """Return whether each token is routed to the experts of neurons, (tokens, neurons)."""
        index = present(self._index, "no pass goes through the layer")
        hit = index.new_zeros(len(index), self.n_experts, dtype=torch.bool).scatter_(1, index, True)
        return hit[:, neurons // self.down_proj.shape[2]]


def _watched(*modules: nn.Module) -> bool:
    """Return whether something is hooked into modules, or stands in for their forward."""
    return any(
        one._forward_hooks or one._forward_pre_hooks or "forward" in one.__dict__ for one in modules
    )


@cache
def _readable_class(original: type) -> type:
    bases: tuple[Any, ...] = (Readable, original)
    return type("ReadableExperts", bases, {"original": original})


def readable(experts: Any) -> None:
    """Give the experts of a layer the readable form, in place; done once however often called."""
    if isinstance(experts, Readable):
        return
    original: Any = type(experts)
    experts.__class__ = _readable_class(original)
    experts.down = Down(experts)


def own_forward(experts: Any, *given: Any, **named: Any) -> torch.Tensor:
    """Return what transformers' own forward of a layer's experts gives."""
    return experts.original.forward(experts, *given, **named)
