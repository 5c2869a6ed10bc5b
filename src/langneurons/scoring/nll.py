"""Negative log-likelihood of every token of packed blocks, the same one by one and in any batch."""

import numpy as np
import torch

from langneurons.base.batching import batches
from langneurons.interventions.apply import hooked, results
from langneurons.interventions.plan import Under
from langneurons.models.encoding import check_length
from langneurons.models.language_model import LanguageModel
from langneurons.runtime.halving import Batches
from langneurons.runtime.progress import Progress
from langneurons.scoring.head import target_logprobs
from langneurons.scoring.reading import numbers_of, of_rows, states


@torch.inference_mode()
def token_nll(
    model: LanguageModel,
    tokens: np.ndarray,
    lengths: np.ndarray,
    scored: np.ndarray,
    batch_tokens: int,
    under: Under = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the NLL in nats of each scored token given those before it, float64 (n, T).

    tokens, scored: (n, T); lengths: (n,). NaN where nothing is predicted: the first position,
    padding, and tokens that are not scored. Under a list of plans: (plan, n, T).
    """
    if len(lengths):
        check_length(int(max(lengths)), model.max_positions, "the longest block")
    numbers = numbers_of(under, len(tokens))
    with hooked(model, under) as running:
        found = np.full((running.width, *tokens.shape), np.nan)
        budget = batch_tokens // running.width
        sizes = [int(length) for length in lengths]
        work = Batches(batches(sizes, budget), sizes)
        for group in work:
            with work.fitting():
                longest = int(lengths[group].max())
                batch = torch.from_numpy(tokens[group, :longest].astype(np.int64)).to(model.device)
                wanted = scored[group, :longest].copy()
                wanted[:, 0] = False
                ends = torch.from_numpy(np.asarray(lengths)[group].astype(np.int64))
                valid = (torch.arange(longest) < ends[:, None]).to(model.device)
                running.begin()
                running.announce(torch.ones_like(valid), valid, of_rows(group, numbers))
                hidden = running.by_plan(states(model.sites, batch))
                rows, columns = np.nonzero(wanted)
                targets = batch[rows, columns]
                for plan, of_plan in enumerate(hidden):
                    logprob, _ = target_logprobs(
                        model.head, of_plan[rows, columns - 1], targets, model.config
                    )
                    values = -logprob.double().cpu().numpy()
                    found[plan, np.asarray(group)[rows], columns] = values
                if progress is not None:
                    progress.update(len(group), tokens=int(wanted.sum()) * running.width)
    return results(under, found)
