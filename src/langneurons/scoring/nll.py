"""Negative log-likelihood of every token of packed blocks, the same one by one and in any batch."""

import numpy as np
import torch

from langneurons.interventions.apply import hooked, results
from langneurons.interventions.plan import Under
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.blocks import Blocks
from langneurons.scoring.head import target_logprobs
from langneurons.scoring.reading import numbers_of


@torch.inference_mode()
def token_nll(
    model: LanguageModel,
    tokens: np.ndarray,
    lengths: np.ndarray,
    scored: np.ndarray,
    batch_tokens: int,
    under: Under = None,
) -> np.ndarray:
    """Return the NLL in nats of each scored token given those before it, float64 (n, T).

    tokens, scored: (n, T); lengths: (n,). NaN where nothing is predicted: the first position,
    padding, and tokens that are not scored. Under a list of plans: (plan, n, T).
    """
    numbers = numbers_of(under, len(tokens))
    with hooked(model, under) as running:
        found = np.full((running.width, *tokens.shape), np.nan)

        def take(
            hidden: torch.Tensor, targets: torch.Tensor, places: tuple[np.ndarray, np.ndarray]
        ) -> None:
            for plan, own in enumerate(hidden):
                logprob, _ = target_logprobs(model.head, own, targets, model.config)
                found[plan, *places] = -logprob.double().cpu().numpy()

        Blocks(tokens, lengths, scored).each(model, running, batch_tokens, take, numbers)
    return results(under, found)
