"""The head, applied only at positions that are scored, in blocks of the vocabulary.

A running log-sum-exp goes over the blocks: a (tokens, vocabulary) array never exists, and on CPU a
block of logits stays in cache.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

NOT_FINITE = "a logit is not finite: overflow in this number format, or damaged weights"
CPU_VOCABULARY_BLOCK = 1024
GPU_VOCABULARY_BLOCK = 16384
TOKEN_BLOCK = 1024


class NotFinite(RuntimeError):
    """A model gave numbers that are not an answer; nothing that follows from them is kept."""


def adjusted(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """Apply what some families do to logits after the head: a scale, a soft cap."""
    scale = getattr(config, "logit_scale", None)
    if scale is not None:
        logits = logits * scale
    divisor = getattr(config, "logits_scaling", None)
    if divisor is not None:
        logits = logits / divisor
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def logit_blocks(
    head: nn.Module, hidden: torch.Tensor, config: Any
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (first vocabulary index, float32 logits (tokens, block))."""
    if not isinstance(head, nn.Linear) or not head.weight.is_floating_point():
        yield 0, adjusted(head(hidden), config).float()
        return
    size = CPU_VOCABULARY_BLOCK if hidden.device.type == "cpu" else GPU_VOCABULARY_BLOCK
    weight, all_bias = head.weight, head.bias
    for start in range(0, weight.shape[0], size):
        bias = None if all_bias is None else all_bias[start : start + size]
        block = nn.functional.linear(hidden, weight[start : start + size], bias)
        yield start, adjusted(block, config).float()


def target_logprobs(
    head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, config: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log p(target) and whether the target is the most probable token, both (tokens,).

    hidden: (tokens, d_model); targets: int64 (tokens,).
    """
    device = next(head.parameters()).device
    hidden, targets = hidden.to(device), targets.to(device)
    pieces = [
        _target_logprobs(head, hidden[i : i + TOKEN_BLOCK], targets[i : i + TOKEN_BLOCK], config)
        for i in range(0, len(targets), TOKEN_BLOCK)
    ]
    if not pieces:
        empty = torch.zeros(0, device=hidden.device)
        return empty, empty.bool()
    return torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces])


def _target_logprobs(
    head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, config: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    highest = torch.full(targets.shape, -torch.inf, device=hidden.device)
    total = torch.zeros_like(highest)
    own = torch.zeros_like(highest)
    for start, logits in logit_blocks(head, hidden, config):
        column = targets - start
        inside = (column >= 0) & (column < logits.shape[1])
        found = logits.gather(1, column.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        own = torch.where(inside, found, own)
        new = torch.maximum(highest, logits.amax(1))
        total = total * torch.exp(highest - new) + (logits - new[:, None]).exp_().sum(1)
        highest = new
    return own - highest - total.log(), own >= highest


def divergences(head: nn.Module, hidden: torch.Tensor, config: Any) -> torch.Tensor:
    """Return KL(first || other) of next-token distributions in nats, (states - 1, tokens).

    hidden: (states, tokens, d_model).
    """
    hidden = hidden.to(next(head.parameters()).device)
    size = max(1, TOKEN_BLOCK // len(hidden))
    pieces = [_divergences(head, part, config) for part in hidden.split(size, dim=1)]
    return torch.cat(pieces, dim=1)


def _divergences(head: nn.Module, hidden: torch.Tensor, config: Any) -> torch.Tensor:
    """Return the mean of log p - log q under p = exp(log p): logits, then both log-sum-exps."""
    states, tokens = hidden.shape[:2]
    highest = torch.full((states, tokens), -torch.inf, device=hidden.device)
    total = torch.zeros_like(highest)
    weighted = torch.zeros_like(highest[1:])  # sum of exp(p - highest) (p - q)
    for _, block in logit_blocks(head, hidden.flatten(0, 1), config):
        logits = block.unflatten(0, (states, tokens))
        new = torch.maximum(highest, logits.amax(2))
        kept = torch.exp(highest - new)
        shares = torch.exp(logits[0] - new[0][:, None])
        weighted = weighted * kept[0] + (shares * (logits[0] - logits[1:])).sum(2)
        others = (logits[1:] - new[1:, :, None]).exp_().sum(2)
        total = total * kept + torch.cat([shares.sum(1)[None], others])
        highest = new
    normal = highest + total.log()
    # Rounding can leave less than 0 where two distributions are the same.
    return (weighted / total[0] - normal[0] + normal[1:]).clamp_min(0.0)
