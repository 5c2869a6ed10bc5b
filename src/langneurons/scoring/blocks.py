"""Packed blocks of tokens read under plans, batch by batch, and the states before each token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from langneurons.base.batching import batches
from langneurons.interventions.hooks import Hooked
from langneurons.models.encoding import check_length
from langneurons.models.language_model import LanguageModel
from langneurons.runtime.halving import Batches
from langneurons.scoring.reading import of_rows, states


@dataclass(frozen=True)
class Blocks:
    """Tokens (n, T), lengths (n,) of the blocks, and whether each token is scored, bool (n, T).

    The first token of a block is never scored: nothing predicts it.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    scored: np.ndarray

    def each(
        self,
        model: LanguageModel,
        running: Hooked,
        batch_tokens: int,
        take: Callable[[torch.Tensor, torch.Tensor, tuple[np.ndarray, np.ndarray]], None],
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Give `take` the scored tokens of each batch.

        It gets the hidden states that predict them (plan, tokens, d_model), the tokens themselves,
        and their places in `tokens`. A batch that does not fit into memory is halved; numbers: the
        plan of each block where blocks have their own.
        """
        if len(self.lengths):
            check_length(int(max(self.lengths)), model.max_positions, "the longest block")
        sizes = [int(length) for length in self.lengths]
        work = Batches(batches(sizes, batch_tokens // running.width), sizes)
        for group in work:
            with work.fitting():
                longest = int(self.lengths[group].max())
                batch = torch.from_numpy(self.tokens[group, :longest].astype(np.int64))
                batch = batch.to(model.device)
                wanted = self.scored[group, :longest].copy()
                wanted[:, 0] = False
                ends = torch.from_numpy(np.asarray(self.lengths)[group].astype(np.int64))
                valid = (torch.arange(longest) < ends[:, None]).to(model.device)
                running.begin()
                running.announce(torch.ones_like(valid), valid, of_rows(group, numbers))
                hidden = running.by_plan(states(model.sites, batch))
                rows, columns = np.nonzero(wanted)
                places = np.asarray(group)[rows], columns
                take(hidden[:, rows, columns - 1], batch[rows, columns], places)
