"""How far plans move a model's next-token distributions: KL divergence at every scored token."""

from collections.abc import Sequence

import numpy as np
import torch

from langneurons.interventions.apply import hooked
from langneurons.interventions.plan import Plan, untouched
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.blocks import Blocks
from langneurons.scoring.head import divergences


@torch.inference_mode()
def token_kl(
    model: LanguageModel,
    tokens: np.ndarray,
    lengths: np.ndarray,
    scored: np.ndarray,
    batch_tokens: int,
    plans: Sequence[Plan],
) -> np.ndarray:
    """Return KL(untouched || under the plan) in nats before each scored token, float64.

    The result is (plan, n, T): the divergence of the distributions that predict the token at its
    place. NaN where nothing is predicted, as in `langneurons.scoring.nll.token_nll`.
    """
    found = np.full((len(plans), *tokens.shape), np.nan)
    if not plans:
        return found
    with hooked(model, [untouched(), *plans]) as running:

        def take(
            hidden: torch.Tensor, _targets: torch.Tensor, places: tuple[np.ndarray, np.ndarray]
        ) -> None:
            for plan, own in enumerate(divergences(model.head, hidden, model.config)):
                found[plan, *places] = own.double().cpu().numpy()

        Blocks(tokens, lengths, scored).each(model, running, batch_tokens, take)
    return found
