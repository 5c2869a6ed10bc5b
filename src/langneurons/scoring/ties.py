"""Where two answers part, and whether the model held both tokens for equally probable.

Two engines multiply the same matrices in other shapes, so logits differ in their last bits. Greedy
decoding takes another token where two logits are closer than that: a near-tie. Any other difference
is an error of an engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log2

import torch

from langneurons.interventions.apply import hooked
from langneurons.interventions.plan import Plan
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.decoding import Seen
from langneurons.scoring.head import logit_blocks
from langneurons.scoring.reading import states

# Root mean square by which logits of two ways to compute them may be apart, over that of the logits
# around their mean, in a number format.
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}


@dataclass(frozen=True)
class Difference:
    """The first token in which two answers differ.

    place: its number, from 0; tokens: of the first and of the second answer; gap: by how much the
    logits of the two are apart there (float32, after the repetition penalty); bound: the gap below
    which rounding can exchange them, `ROUNDING` of the spread of the logits and two steps of the
    number format at their size.
    """

    place: int
    tokens: tuple[int, int]
    gap: float
    bound: float

    @property
    def near_tie(self) -> bool:
        """Whether rounding alone can have made the difference."""
        return self.gap <= self.bound


def rounding(model: LanguageModel) -> float:
    """Return the share by which logits may be apart in the model's number format."""
    dtype = next(model.model.parameters()).dtype
    return ROUNDING.get(dtype, ROUNDING[torch.bfloat16])


def logits_of(model: LanguageModel, hidden: torch.Tensor) -> torch.Tensor:
    """Return float32 logits (row, vocabulary) of states (row, d_model)."""
    hidden = hidden.to(model.sites.head_device)
    blocks = [block for _, block in logit_blocks(model.head, hidden, model.config)]
    return torch.cat(blocks, 1)


@torch.inference_mode()
def difference(
    model: LanguageModel,
    prompt: Sequence[int],
    first: Sequence[int],
    second: Sequence[int],
    under: Plan | None = None,
    penalty: float = 1.0,
) -> Difference | None:
    """Return where the tokens of two answers to a prompt part, None where they are equal.

    Answers are those of `langneurons.scoring.generation.answers`, decoded under the same plan with
    the same repetition penalty.
    """
    if tuple(first) == tuple(second):
        return None
    pairs = enumerate(zip(first, second, strict=False))
    place = next((number for number, (one, other) in pairs if one != other), None)
    if place is None:
        raise ValueError(
            f"answers of {len(first)} and {len(second)} tokens begin alike: they were not decoded"
            " with the same limit and the same ends"
        )
    read = torch.tensor([[*prompt, *first[:place]]], device=model.device)
    valid = torch.ones_like(read, dtype=torch.bool)
    given = valid.clone()
    given[:, len(prompt) :] = False
    with hooked(model, under, strict=False) as running:
        running.begin()
        running.announce(given, valid)
        last = states(model.sites, read)[:, -1]
    logits = logits_of(model, last)
    if penalty != 1.0:
        seen = Seen(read.tolist(), logits.shape[1], logits.device)
        logits = seen.penalised(logits, 0, penalty)
    tokens = (int(first[place]), int(second[place]))
    gap = abs(float(logits[0, tokens[0]] - logits[0, tokens[1]]))
    spread = float(logits.double().std())
    largest = float(logits[0, list(tokens)].abs().max())
    step = torch.finfo(last.dtype).eps * 2.0 ** floor(log2(largest)) if largest else 0.0
    return Difference(place, tokens, gap, rounding(model) * spread + 2 * step)
