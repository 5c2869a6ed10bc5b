"""Batches of token sequences as a model reads them: first what rows share, then the rest of each.

What requests begin with in common is read once and its keys and values serve them all (the premise
of a pair, the paragraph of several questions), wherever that saves a fifth of the tokens. It is
exact where plans act on each token by itself; plans that take a value from the layer itself read
every row whole (`langneurons.interventions.hooks.Hooked.by_token`).
"""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from langneurons.base.batching import batches
from langneurons.interventions.hooks import Hooked
from langneurons.interventions.plan import PerRequest, Under
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.scoring import prefixes
from langneurons.scoring.keyvalues import KeyValues, shareable


def numbers_of(under: Under, requests: int) -> list[int] | None:
    """Return which plan each request follows, where requests have their own."""
    if not isinstance(under, PerRequest):
        return None
    under.check(requests)
    return [int(number) for number in under.numbers]


def of_rows(group: Sequence[int], numbers: Sequence[int] | None) -> torch.Tensor | None:
    """Return the numbers of the rows of a batch, int64 (batch,)."""
    return None if numbers is None else torch.tensor([numbers[i] for i in group])


class Shared:
    """Which requests share a beginning, and how much of it."""

    def __init__(self, model: LanguageModel, running: Hooked, places: Sequence[tuple]):
        """`places`: of each request, a number and its tokens; equal places may be shared."""
        self.groups: list[list[int]] = []
        self.depth: dict[int, int] = {}
        self.group: dict[int, int] = {}
        if not (running.by_token and shareable(model.config)):
            return
        for number, (members, items) in enumerate(prefixes.groups(places)):
            if items > 1:
                self.groups.append(members)
                self.depth |= dict.fromkeys(members, items - 1)
                self.group |= dict.fromkeys(members, number)

    def within(self, batch: Sequence[int]) -> list[int]:
        """Return for each row of a batch how many tokens it shares with others of the batch."""
        present = Counter(self.group[i] for i in batch if i in self.group)
        return [
            self.depth[i] if i in self.group and present[self.group[i]] > 1 else 0 for i in batch
        ]

    def batches(self, sizes: Sequence[int], batch_tokens: int) -> list[list[int]]:
        """Return batches; requests that share beginnings apart from those that do not."""
        alone = [[i] for i in range(len(sizes)) if i not in self.group]
        return batches(sizes, batch_tokens, self.groups) + batches(sizes, batch_tokens, alone)


def states(sites: MlpSites, tokens: torch.Tensor) -> torch.Tensor:
    """Return the last hidden states of right-padded tokens; later pads cannot be seen.

    They lie where the tokens do, whatever device the last layer is on.
    """
    found = sites.backbone(input_ids=tokens, use_cache=False).last_hidden_state
    return found.to(tokens.device)


@functools.cache
def _takes_positions(forward: Callable) -> bool:
    return "position_ids" in inspect.signature(forward).parameters


def next_states(
    sites: MlpSites, tokens: torch.Tensor, mask: torch.Tensor, cache: KeyValues
) -> torch.Tensor:
    """Return the hidden states of the next tokens; mask (batch, all positions) is True at tokens.

    Positions are counted from each row's own first token.
    """
    arguments = {"attention_mask": mask.long(), "use_cache": True, "past_key_values": cache}
    if _takes_positions(type(sites.backbone).forward):
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        arguments["position_ids"] = positions[:, -tokens.shape[1] :]
    return sites.backbone(input_ids=tokens, **arguments).last_hidden_state.to(tokens.device)


@dataclass(frozen=True)
class Rows:
    """The rows of a batch.

    sequences: tokens by row; prompt: how many of them are the prompt's; depths: how many leading
    tokens a row shares with the rows that have these in common, or 0; alike: rows share only with
    rows of the same number; numbers: the plan of each row, int64 (batch,), where rows have their
    own.
    """

    sequences: Sequence[tuple[int, ...]]
    prompt: Sequence[int]
    depths: Sequence[int]
    alike: Sequence[int]
    numbers: torch.Tensor | None = None


class Reading:
    """One batch to read under what is hooked in; a row that shares nothing is read whole at first.

    Hidden states have one more level, by the results of a row.
    """

    def __init__(self, model: LanguageModel, running: Hooked, rows: Rows):
        self.sites, self.pad, self.device = model.sites, model.pad, model.device
        self.running, self.rows, self.sequences = running, rows, rows.sequences
        self.parents: list[int] = []  # which row of the first pass each row goes on from
        self.firsts: list[tuple[int, int]] = []  # of the first pass: a row that has it, its length
        known: dict[tuple, int] = {}
        for row, (tokens, depth) in enumerate(zip(rows.sequences, rows.depths, strict=True)):
            own = min(rows.prompt[row], depth)
            key = (rows.alike[row], depth, own, tokens[:depth]) if depth else (row,)
            if key not in known:
                known[key] = len(self.firsts)
                self.firsts.append((row, depth or len(tokens)))
            self.parents.append(known[key])
        self.depths = [self.firsts[parent][1] for parent in self.parents]
        lengths = [len(tokens) for tokens in rows.sequences]
        self.rest = [row for row, depth in enumerate(self.depths) if depth < lengths[row]]
        self.second_row = {row: number for number, row in enumerate(self.rest)}
        self.width = max(size for _, size in self.firsts)
        self.rest_width = max((lengths[i] - self.depths[i] for i in self.rest), default=0)

    def place(self, row: int, column: int) -> int:
        """Return where `run` puts the state of a token."""
        depth = self.depths[row]
        if column < depth:
            indent = self.width - depth if self.rest else 0
            return self.parents[row] * self.width + indent + column
        before = len(self.firsts) * self.width
        return before + self.second_row[row] * self.rest_width + column - depth

    def run(self) -> torch.Tensor:
        """Return hidden states (result, token, d_model), the tokens in the order of `place`."""
        self.running.begin()
        owners = [row for row, _ in self.firsts]
        spans = [(0, size) for _, size in self.firsts]
        if not self.rest:
            tokens, _ = self._announced(owners, spans, left=False)
            return self.running.by_plan(states(self.sites, tokens)).flatten(1, 2)
        cache = KeyValues(self.sites.config)
        tokens, mask = self._announced(owners, spans, left=True)
        first = self.running.by_plan(next_states(self.sites, tokens, mask, cache))
        parents = torch.tensor([self.parents[row] for row in self.rest], device=self.device)
        cache.select(parents, len(owners))
        spans = [(self.depths[row], len(self.sequences[row])) for row in self.rest]
        tokens, valid = self._announced(self.rest, spans, left=False, cache=cache)
        mask = torch.cat([mask[parents], valid], 1)
        second = self.running.by_plan(next_states(self.sites, tokens, mask, cache))
        return torch.cat([first.flatten(1, 2), second.flatten(1, 2)], 1)

    def prefill(self, room: int) -> tuple[torch.Tensor, torch.Tensor, KeyValues]:
        """Return each row's last state, the mask of its tokens (batch, pos), and the cache.

        Padding is at the left; there is room for so many tokens more. Branches stay as the last
        pass had them: states are (blocks x batch, d_model).
        """
        self.running.begin()
        cache = KeyValues(self.sites.config, room)
        owners = [row for row, _ in self.firsts]
        spans = [(0, size) for _, size in self.firsts]
        tokens, mask = self._announced(owners, spans, left=True)
        first = next_states(self.sites, tokens, mask, cache)[:, -1]
        if not self.rest:
            return first, mask, cache
        device = self.device
        parents = torch.tensor(self.parents, device=device)
        cache.select(parents, len(owners))
        spans = [(depth, len(ids)) for depth, ids in zip(self.depths, self.sequences, strict=True)]
        tokens, valid = self._announced(range(len(spans)), spans, left=False, cache=cache)
        mask = torch.cat([mask[parents], valid], 1)
        hidden = next_states(self.sites, tokens, mask, cache)
        own = valid.sum(1)
        hidden = hidden.reshape(-1, *tokens.shape, hidden.shape[-1])
        last = hidden[:, torch.arange(len(own), device=device), (own - 1).clamp(min=0)]
        first = first.reshape(len(hidden), -1, first.shape[-1])[:, parents]
        last = torch.where(own[:, None] > 0, last, first).flatten(0, 1)
        missing = valid.shape[1] - own
        cache.shift(missing)
        columns = torch.arange(mask.shape[1], device=device) - missing[:, None]
        return last, mask.gather(1, columns % mask.shape[1]), cache

    def _announced(
        self,
        rows: Sequence[int],
        spans: Sequence[tuple[int, int]],
        left: bool,
        cache: KeyValues | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Announce a pass over a span of each row; return tokens and valid, (batch, pos)."""
        longest = max(last - first for first, last in spans)
        tokens = torch.full((len(rows), longest), self.pad, dtype=torch.int64)
        prompt = torch.zeros(len(rows), longest, dtype=torch.bool)
        valid = torch.zeros_like(prompt)
        for number, (row, (first, last)) in enumerate(zip(rows, spans, strict=True)):
            begin = longest - (last - first) if left else 0
            place = slice(begin, begin + last - first)
            tokens[number, place] = torch.tensor(self.sequences[row][first:last])
            valid[number, place] = True
            size = min(max(self.rows.prompt[row] - first, 0), last - first)
            prompt[number, begin : begin + size] = True
        tokens, prompt, valid = (each.to(self.device) for each in (tokens, prompt, valid))
        numbers = None if self.rows.numbers is None else self.rows.numbers[list(rows)]
        self.running.announce(prompt, valid, numbers, cache)
        return tokens, valid
