"""How much a plan changes a model, and the strength at which it changes it by so much.

The dose of a plan on a text is the mean over its tokens of |h' - h| / |h|, where h is the residual
stream after the last block in the untouched model and h' under the plan; or, as `divergence`, the
mean of KL(untouched || under the plan) of the distributions of the next token, in nats. The
strength at which a plan has a dose is found by bracketing and bisection
(`langneurons.interventions.strength`); all plans of a text are tried together.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from langneurons.base.batching import batches
from langneurons.data.corpus import Part
from langneurons.interventions.apply import hooked
from langneurons.interventions.plan import Plan, Under
from langneurons.interventions.strength import at_strength
from langneurons.models.language_model import LanguageModel
from langneurons.runtime.halving import Batches
from langneurons.scoring.divergence import token_kl
from langneurons.scoring.reading import states

log = logging.getLogger(__name__)
LARGEST = 256.0  # strength
CLOSE = 0.02  # of a dose that is asked for, as a share of it
ROUNDS = 14


@dataclass(frozen=True)
class Solved:
    """The strength of a plan and the dose that it then has; `reached` if that is the one asked."""

    strength: float
    dose: float
    reached: bool


@torch.inference_mode()
def doses(
    model: LanguageModel, plans: Sequence[Plan], part: Part, batch_tokens: int
) -> list[float]:
    """Return the dose of each plan on a text; 0 for a plan that writes nothing."""
    acting = [plan for plan in plans if not plan.empty]
    if not acting:
        return [0.0] * len(plans)
    most = max(1, batch_tokens // int(part.lengths.max()))
    found: list[float] = []
    for start in range(0, len(acting), most):
        found += _together(model, acting[start : start + most], part, batch_tokens)
    numbers = iter(found)
    return [0.0 if plan.empty else next(numbers) for plan in plans]


def divergence(
    model: LanguageModel, plans: Sequence[Plan], part: Part, batch_tokens: int
) -> list[float]:
    """Return the mean KL divergence of each plan on a text; 0 for a plan that writes nothing."""
    acting = [plan for plan in plans if not plan.empty]
    # The untouched model stands beside the plans of a pass.
    most = max(1, batch_tokens // int(part.lengths.max()) - 1)
    found: list[float] = []
    for start in range(0, len(acting), most):
        given = (part.tokens, part.lengths, part.scored, batch_tokens)
        for own in token_kl(model, *given, acting[start : start + most]):
            found.append(float(own[part.scored].mean()))
    numbers = iter(found)
    return [0.0 if plan.empty else next(numbers) for plan in plans]


MEASURES = {"stream": doses, "kl": divergence}


def _together(
    model: LanguageModel, plans: Sequence[Plan], part: Part, batch_tokens: int
) -> list[float]:
    total, counted = np.zeros(len(plans)), 0
    sizes = [int(length) for length in part.lengths]
    work = Batches(batches(sizes, max(1, batch_tokens // len(plans))), sizes)
    for group in work:
        with work.fitting():
            longest = int(part.lengths[group].max())
            tokens = torch.from_numpy(part.tokens[group, :longest].astype(np.int64))
            tokens = tokens.to(model.device)
            ends = torch.from_numpy(np.asarray(part.lengths)[group].astype(np.int64))
            valid = (torch.arange(longest) < ends[:, None]).to(model.device)
            rows, columns = np.nonzero(part.scored[group, :longest])
            before = _stream(model, None, tokens, valid)[0][rows, columns]
            length = before.norm(dim=-1).clamp_min(torch.finfo(torch.float64).tiny)
            sums = [
                float(((after[rows, columns] - before).norm(dim=-1) / length).sum())
                for after in _stream(model, list(plans), tokens, valid)
            ]
            total += sums
            counted += len(rows)
    return (total / max(counted, 1)).tolist()


def _stream(
    model: LanguageModel, under: Under, tokens: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Return the stream after the last block, float64 (plans, rows, pos, d_model)."""
    with hooked(model, under, strict=False) as running:
        seen: list[torch.Tensor] = []
        handle = model.sites.on_stream(model.n_layers, lambda stream: seen.append(stream))
        try:
            running.begin()
            running.announce(torch.ones_like(valid), valid)
            states(model.sites, tokens)
            return running.by_plan(seen[-1]).double()
        finally:
            handle.remove()


def solve(
    plans: Sequence[Plan], asked: float, dose_of: Callable[[Sequence[Plan]], list[float]]
) -> list[Solved]:
    """Return the strength at which each plan has a dose, to within 2 per cent of it.

    dose_of: returns the dose of each plan. A plan that does not come so near, by strength 256
    and in 14 rounds, keeps the strength of the nearest dose that was tried, 0 if none is nearer
    than no change; `reached` is then False.
    """
    low = [(0.0, 0.0) for _ in plans]
    high: list[tuple[float, float] | None] = [None for _ in plans]
    best = [Solved(0.0, 0.0, False) for _ in plans]
    guess = [0.0 if plan.empty else 1.0 for plan in plans]
    for _ in range(ROUNDS):
        open_ = [n for n in range(len(plans)) if guess[n] > 0.0]
        if not open_:
            break
        tried = [at_strength(plans[n], guess[n]) for n in open_]
        for n, dose in zip(open_, dose_of(tried), strict=True):
            strength, finite = guess[n], math.isfinite(dose)
            if finite and abs(dose / asked - 1.0) < abs(best[n].dose / asked - 1.0):
                best[n] = Solved(strength, dose, abs(dose / asked - 1.0) <= CLOSE)
            if best[n].reached:
                guess[n] = 0.0
                continue
            if finite and dose < asked:
                low[n] = (strength, dose)
            else:
                high[n] = (strength, dose)
            guess[n] = _next(low[n], high[n], asked)
    return best


def _next(low: tuple[float, float], high: tuple[float, float] | None, asked: float) -> float:
    """Return the next strength between those of a lower and a higher dose; 0 if there is none."""
    if high is None:
        strength, dose = low
        if strength >= LARGEST:
            return 0.0
        step = asked / dose if dose > 0 else 4.0
        return min(strength * min(max(step * 1.05, 1.3), 8.0), LARGEST)
    width = high[0] - low[0]
    if not math.isfinite(high[1]):
        return low[0] + width / 2
    share = (asked - low[1]) / max(high[1] - low[1], 1e-300)
    return low[0] + width * min(max(share, 0.1), 0.9)
