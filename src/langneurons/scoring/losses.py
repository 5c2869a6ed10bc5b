"""The loss of instructions and text, with gradients.

The head is taken at the predicted positions only, a block of them at a time, and its gradient is
computed in the forward pass: logits of a whole batch never exist.
"""

from typing import Any

import torch
from torch import nn

from langneurons.models.sites import MlpSites
from langneurons.scoring.head import adjusted

IGNORED = -100  # labels of tokens that are not predicted
# Logits that exist at a time, by the kind of device; on a CPU they should stay near its cache.
LOGITS = {"cpu": 2**23}
MANY_LOGITS = 2**27


class _TokenLoss(torch.autograd.Function):
    """Summed cross-entropy of a frozen head, whose gradient is computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: nn.Module, config: Any, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum in nats and the number of right guesses; hidden: (tokens, d_model)."""
        gradients: list[torch.Tensor] = []
        total, right = (
            torch.zeros((), device=hidden.device),
            torch.zeros((), dtype=torch.int64, device=hidden.device),
        )
        size = max(1, LOGITS.get(hidden.device.type, MANY_LOGITS) // config.vocab_size)
        for own, wanted in zip(hidden.split(size), targets.split(size), strict=True):
            with torch.enable_grad():
                own = own.detach().requires_grad_()
                logits = adjusted(head(own), config).float()
                loss = nn.functional.cross_entropy(logits, wanted, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, own)
            gradients.append(gradient)
            total = total + loss.detach()
            right = right + (logits.argmax(dim=-1) == wanted).sum()
        ctx.save_for_backward(torch.cat(gradients))
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor, _: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of hidden."""
        (of_hidden,) = ctx.saved_tensors
        return of_hidden * gradient, None, None, None


def token_loss(
    sites: MlpSites, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross-entropy of labels that are not -100, and how many were guessed.

    All are (batch, pos). A head that is trained itself gives ordinary logits.
    """
    input_ids, attention_mask = input_ids.to(sites.device), attention_mask.to(sites.device)
    states = sites.backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    kept = labels[:, 1:] != IGNORED
    hidden = states.last_hidden_state[:, :-1]
    hidden = hidden[kept.to(hidden.device)]
    hidden, targets = hidden.to(sites.head_device), labels[:, 1:][kept].to(sites.head_device)
    if not len(targets):
        return hidden.float().sum(), targets.sum()
    if not any(parameter.requires_grad for parameter in sites.head.parameters()):
        return _TokenLoss.apply(hidden, sites.head, sites.config, targets)
    logits = adjusted(sites.head(hidden), sites.config).float()
    total = nn.functional.cross_entropy(logits, targets, reduction="sum")
    return total, (logits.argmax(dim=-1) == targets).sum()
