"""Whether continuous batching reads a model as padded passes do: asked of the model itself."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from langneurons.interventions.apply import hooked
from langneurons.interventions.plan import PerRequest, Plan, Write
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.continuous import Session, packable
from langneurons.scoring.decoding import Answer, Asked, Decoding, Ends
from langneurons.scoring.head import NotFinite
from langneurons.scoring.reading import states
from langneurons.scoring.ties import logits_of, rounding

log = logging.getLogger(__name__)


class EngineError(RuntimeError):
    """Packed passes of a model gave other logits than padded ones."""


LENGTHS = (3, 14, 6, 9, 2, 11)  # prompts of the check, in tokens
NEW_TOKENS = 5
BUDGET = 24  # less than the prompts have, so that some are read in parts
EVERY = 16
NOISE = 4


@torch.inference_mode()
def check_engine(model: LanguageModel) -> None:
    """Refuse a model that continuous batching reads in another way than padded passes.

    A few short requests are answered under no plan and under plans that overwrite neurons of every
    layer, in prompts or in answers only. A padded pass over the same tokens must give the same
    logits, up to rounding: to `ROUNDING` of their spread, or to `NOISE` times what the padded rows
    themselves are apart from the same rows read alone.

    Raises:
        InputError: The family cannot be read packed.
        EngineError: The logits are apart; it says by how much.
    """
    packable(model)
    start = time.monotonic()
    known = model.sites.backbone.get_input_embeddings().weight.shape[0]
    some = iter(range(sum(LENGTHS)))
    first = min(5, known - 1)
    prompts = [
        tuple(first + next(some) * 37 % min(known - first, 997) for _ in range(length))
        for length in LENGTHS
    ]
    plans = [None, _scaled(model, "prompt"), _scaled(model, "generated")]
    under = PerRequest(plans, [number % len(plans) for number in range(len(prompts))])
    asked = Asked(prompts, Decoding(NEW_TOKENS), _Never(), BUDGET)
    try:
        packed, alone = _apart(model, asked, under)
    except NotFinite:
        log.warning("engine: a logit is not finite; packed passes are not compared with padded")
        return
    limit = max(rounding(model), NOISE * alone)
    if not packed <= limit:
        raise EngineError(
            f"engine 'continuous': logits of packed requests are apart from those of padded ones by"
            f" {packed:.2g} of their spread (at most {limit:.2g}). Set runtime.engine: padded, and"
            " report this message with the model and the versions of torch and transformers."
        )
    log.info(
        "engine: packed and padded requests have the same logits, to %.1e of their spread"
        " (padded ones in other batches to %.1e), %.1f s",
        packed,
        alone,
        time.monotonic() - start,
    )


class _Never(Ends):
    """No end before the last token."""

    def __init__(self) -> None:
        """Nothing is decoded, so no tokenizer is needed."""

    def text(self, before: list[int], token: int, last: bool) -> str | None:
        """Add a token; the answer ends at the last."""
        before.append(token)
        return "" if last else None


class _Recorded(Session):
    """A session that keeps the states from which each request's tokens were chosen."""

    def __init__(self, *given: Any):
        self.states: dict[int, list[torch.Tensor]] = {}
        super().__init__(*given)

    def _next(self, hidden: torch.Tensor, rows: Sequence[int], io: Any) -> list[int]:
        for row, state in zip(rows, hidden, strict=True):
            self.states.setdefault(row, []).append(state)
        return super()._next(hidden, rows, io)


def _scaled(model: LanguageModel, tokens: str) -> Plan:
    index = np.arange(0, model.d_mlp, EVERY)
    writes = [
        Write(layer, "product", "scale", index, np.zeros(len(index)), tokens)
        for layer in range(model.n_layers)
    ]
    return Plan(f"scaled in {tokens}", writes)


def _apart(model: LanguageModel, asked: Asked, under: PerRequest) -> tuple[float, float]:
    """Return how far packed rows, and padded rows alone, are apart from padded rows together.

    Root mean square of the logits' differences, over that of the logits around their mean.
    """
    found: dict[int, Answer] = {}
    with hooked(model, under, strict=False) as running:
        session = _Recorded(model, running, asked, under)
        session.run(found, None)
    whole = [(*ids, *found[row].tokens[:-1]) for row, ids in enumerate(asked.prompts)]
    lengths = [len(ids) for ids in asked.prompts]
    together = _padded(model, whole, lengths, under)
    squares = np.zeros(3)
    for row, want in enumerate(together):
        plan = under.plans[under.numbers[row]]
        alone = _padded(model, [whole[row]], [lengths[row]], PerRequest([plan], [0]))[0]
        packed = logits_of(model, torch.stack(session.states[row])).double()
        centred = want - want.mean(1, keepdim=True)
        for place, values in enumerate((packed - want, alone - want, centred)):
            squares[place] += float(values.square().sum())
    shares = np.sqrt(squares[:2] / squares[2])
    return float(shares[0]), float(shares[1])


def _padded(
    model: LanguageModel,
    whole: Sequence[Sequence[int]],
    lengths: Sequence[int],
    under: PerRequest,
) -> list[torch.Tensor]:
    """Return the logits of each row from the last token of its prompt on, from one padded pass."""
    shape = len(whole), max(map(len, whole))
    tokens = torch.full(shape, model.pad, dtype=torch.int64)
    prompt, valid = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, ids in enumerate(whole):
        tokens[row, : len(ids)] = torch.tensor(ids)
        valid[row, : len(ids)], prompt[row, : lengths[row]] = True, True
    tokens, prompt, valid = (each.to(model.device) for each in (tokens, prompt, valid))
    with hooked(model, under, strict=False) as running:
        running.begin()
        running.announce(prompt, valid, torch.tensor(under.numbers))
        found = states(model.sites, tokens)
    return [
        logits_of(model, found[row, lengths[row] - 1 : len(ids)]).double()
        for row, ids in enumerate(whole)
    ]
