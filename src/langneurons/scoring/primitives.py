"""Three ways to score text with a model, each the same one by one and in any batch.

- `token_nll`: negative log-likelihood of every token of packed blocks;
- `loglikelihood`: log-probability of a continuation given a context;
- `generate`: greedy decoding with a key-value cache.

They run the model's own modules, so forward hooks on its MLPs fire. With `shared`, what requests
begin with in common is read once and its keys and values serve them all (the premise of a pair,
the paragraph of several questions), wherever that saves a fifth of the tokens; it is exact where
hooks act on each token by itself, as plans without layer factors do. The head is applied only at
positions that are scored, in blocks of the vocabulary with a running log-sum-exp: a
(tokens, vocabulary) array never exists, and on CPU a block of logits stays in cache.

Before each forward pass `on_forward(prompt, valid, conditions)` is called with two bool masks
(batch, pos) and, for each row, the `conditions` of its request, int64 (batch,) or None. prompt is
True at tokens of a prompt or context, False at a continuation or at generated tokens; valid is
False at padding. A condition is a number that the caller gives to each request, such as which
plan of `langneurons.interventions.hooks.applied_rows` it is under: requests are regrouped by
length, and their numbers travel with them.

With `branches` (`langneurons.interventions.branches.Branched`) everything is scored under each of
its plans, and a result has one more level, by plan. A batch counts with the rows of all plans.
"""

import functools
import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from langneurons.base.batching import batches
from langneurons.models.encoding import (
    Encoder,
    Prompt,
    check_length,
    end_tokens,
    max_positions,
    stop_tokens,
)
from langneurons.models.families import MlpSites
from langneurons.runtime.halving import Batches
from langneurons.runtime.progress import Progress
from langneurons.scoring import prefixes
from langneurons.scoring.keyvalues import KeyValues, shareable

if TYPE_CHECKING:
    from langneurons.interventions.branches import Branched

log = logging.getLogger(__name__)
OnForward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], None] | None
Conditions = Sequence[int] | None
NOT_FINITE = "a logit is not finite: overflow in this number format, or damaged weights"
CPU_VOCABULARY_BLOCK = 1024
GPU_VOCABULARY_BLOCK = 16384
TOKEN_BLOCK = 1024


class NotFinite(RuntimeError):
    """A model gave numbers that are no answer; nothing that follows from them is kept."""


def _adjust(logits: torch.Tensor, config) -> torch.Tensor:
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
    head: nn.Module, hidden: torch.Tensor, config
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (first vocabulary index, float32 logits (tokens, block))."""
    weight = getattr(head, "weight", None)
    plain = isinstance(head, nn.Linear) and weight.is_floating_point()
    if not plain:
        yield 0, _adjust(head(hidden), config).float()
        return
    size = CPU_VOCABULARY_BLOCK if hidden.device.type == "cpu" else GPU_VOCABULARY_BLOCK
    for start in range(0, weight.shape[0], size):
        bias = None if head.bias is None else head.bias[start : start + size]
        block = nn.functional.linear(hidden, weight[start : start + size], bias)
        yield start, _adjust(block, config).float()


def target_logprobs(
    head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, config
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


def _target_logprobs(head, hidden, targets, config):
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


def _hidden(sites: MlpSites, tokens: torch.Tensor) -> torch.Tensor:
    """Return the last hidden states of right-padded tokens; later pads cannot be seen.

    They lie where the tokens do, whatever device the last layer is on.
    """
    states = sites.backbone(input_ids=tokens, use_cache=False).last_hidden_state
    return states.to(tokens.device)


def _of(group: Sequence[int], conditions: Conditions) -> torch.Tensor | None:
    """Return the conditions of the rows of a batch."""
    return None if conditions is None else torch.tensor([int(conditions[i]) for i in group])


def _under(branches: "Branched | None", on_forward: OnForward) -> tuple[int, OnForward]:
    """Return the number of plans and what is to be called before each forward pass."""
    if branches is None:
        return 1, on_forward
    branches.begin()
    return len(branches.plans), branches.on_forward


def _by_plan(branches: "Branched | None", values: torch.Tensor) -> torch.Tensor:
    """Return what the model gave as (plan, row, ...)."""
    return values[None] if branches is None else branches.by_plan(values)


def _check_conditions(conditions: Conditions, number: int) -> None:
    if conditions is not None and len(conditions) != number:
        raise ValueError(f"{len(conditions)} conditions for {number} requests")


@torch.inference_mode()
def token_nll(
    model: nn.Module,
    tokens: np.ndarray,
    lengths: np.ndarray,
    scored: np.ndarray,
    batch_tokens: int,
    on_forward: OnForward = None,
    progress: Progress | None = None,
    conditions: Conditions = None,
    branches: "Branched | None" = None,
) -> np.ndarray:
    """Return the NLL in nats of each scored token given those before it, float64 (n, T).

    tokens, scored: (n, T); lengths: (n,). NaN where nothing is predicted: the first position,
    padding, and tokens that are not scored. With `branches`, (plan, n, T).
    """
    sites = MlpSites(model)
    device = sites.device
    _check_conditions(conditions, len(tokens))
    if len(lengths):
        check_length(int(max(lengths)), max_positions(sites.config), "the longest block")
    number, on_forward = _under(branches, on_forward)
    result = np.full((number, *tokens.shape), np.nan)
    budget = batch_tokens // number
    work = Batches(batches([int(length) for length in lengths], budget), lengths)
    for group in work:
        with work.fitting():
            longest = int(lengths[group].max())
            batch = torch.from_numpy(tokens[group, :longest].astype(np.int64)).to(device)
            wanted = scored[group, :longest].copy()
            wanted[:, 0] = False
            if on_forward is not None:
                sizes = torch.from_numpy(np.asarray(lengths)[group].astype(np.int64))
                valid = (torch.arange(longest) < sizes[:, None]).to(device)
                on_forward(torch.ones_like(valid), valid, _of(group, conditions))
            hidden = _by_plan(branches, _hidden(sites, batch))
            rows, columns = np.nonzero(wanted)
            targets = batch[rows, columns]
            for plan, states in enumerate(hidden):
                logprob, _ = target_logprobs(
                    sites.head, states[rows, columns - 1], targets, sites.config
                )
                found = -logprob.double().cpu().numpy()
                result[plan, np.asarray(group)[rows], columns] = found
            if progress is not None:
                progress.update(len(group), tokens=int(wanted.sum()) * number)
    return result[0] if branches is None else result


def encode_pair(
    tokenizer, context: str, continuation: str, joint: bool = True
) -> tuple[list[int], list[int]]:
    """Return the tokens of a context and its continuation (`models.encoding.Encoder.pair`)."""
    pair = Encoder(tokenizer).pair(context, continuation, joint)
    return pair.context, pair.continuation


@dataclass(frozen=True)
class Request:
    """Tokens of a context and its continuation, how many are the latter's, and the condition.

    cut: tokens of the context that did not fit; apart: the continuation was encoded by itself,
    because a token would span the two (see `langneurons.models.encoding`).
    """

    tokens: tuple[int, ...]
    size: int
    condition: int = 0
    cut: int = field(default=0, compare=False)
    apart: bool = field(default=False, compare=False)

    @property
    def read(self) -> tuple[int, ...]:
        """The tokens that the model reads."""
        return self.tokens[:-1]

    @property
    def context(self) -> int:
        """The number of tokens of the context."""
        return len(self.tokens) - self.size

    def places(self) -> tuple:
        """Return what must agree for a token to be shared: condition, token, part."""
        return (self.condition, *(2 * t + (k < self.context) for k, t in enumerate(self.read)))


@torch.inference_mode()
def loglikelihood(
    model: nn.Module,
    tokenizer,
    requests: Sequence[tuple[str, str] | Request],
    batch_tokens: int,
    on_forward: OnForward = None,
    progress: Progress | None = None,
    conditions: Conditions = None,
    joint: bool = True,
    shared: bool = False,
) -> list[tuple[float, bool]]:
    """Return log p(continuation | context) in nats, and whether greedy decoding would give it.

    Requests are texts, or what `encode_requests` made of them. `joint`: tokenise both together
    (see `langneurons.models.encoding.Encoder.pair`). Equal requests of one condition are computed
    once; a context that does not fit loses tokens at its left. `shared`: read common beginnings
    once.
    """
    _check_conditions(conditions, len(requests))
    sites = MlpSites(model)
    encoded = _encoded(sites, tokenizer, requests, joint, conditions)
    conditioned = conditions is not None
    (found,) = _loglikelihoods(
        sites, tokenizer, encoded, batch_tokens, on_forward, progress, shared, conditioned
    )
    return found


@torch.inference_mode()
def branch_loglikelihoods(
    model: nn.Module,
    tokenizer,
    requests: Sequence[tuple[str, str] | Request],
    batch_tokens: int,
    branches: "Branched",
    progress: Progress | None = None,
    joint: bool = True,
) -> list[list[tuple[float, bool]]]:
    """Return what `loglikelihood` returns, under each plan.

    Common beginnings are read once where the plans allow it, and contexts once for all plans that
    write into continuations only.
    """
    sites = MlpSites(model)
    encoded = _encoded(sites, tokenizer, requests, joint, None)
    shared = branches.by_token
    return _loglikelihoods(
        sites, tokenizer, encoded, batch_tokens, None, progress, shared, branches=branches
    )


def encode_requests(
    sites: MlpSites,
    tokenizer,
    requests: Sequence[tuple[str, str]],
    joint: bool = True,
    controls: Mapping[str, int] | None = None,
    names: Sequence[str] | None = None,
) -> list[Request]:
    """Return the tokens of each (context, continuation); see `models.encoding.Encoder`.

    names: what an error calls each request; left out: its number.
    """
    encoder = Encoder(tokenizer, max_positions(sites.config), controls)
    encoded = []
    for number, (context, continuation) in enumerate(requests):
        try:
            pair = encoder.pair(context, continuation, joint)
            tokens, cut = encoder.fitted(pair)
        except ValueError as error:
            name = f"request {number}" if names is None else names[number]
            raise ValueError(f"{name}, context {context[-60:]!r}: {error}") from None
        encoded.append(Request(tuple(tokens), len(pair.continuation), 0, cut, pair.apart))
    return encoded


def _encoded(sites, tokenizer, requests, joint: bool, conditions: Conditions) -> list[Request]:
    """Return requests with their tokens and conditions."""
    texts = [number for number, one in enumerate(requests) if not isinstance(one, Request)]
    made = list(requests)
    found = encode_requests(sites, tokenizer, [requests[number] for number in texts], joint)
    for number, one in zip(texts, found, strict=True):
        made[number] = one
    if conditions is None:
        return made
    return [replace(one, condition=int(c)) for one, c in zip(made, conditions, strict=True)]


def _loglikelihoods(
    sites,
    tokenizer,
    encoded,
    batch_tokens,
    on_forward,
    progress,
    shared,
    conditioned=False,
    branches: "Branched | None" = None,
) -> list[list[tuple[float, bool]]]:
    """Return (log p, greedy) of each request, under each plan."""
    device = sites.device
    pad = tokenizer.pad_token_id or 0
    number, on_forward = _under(branches, on_forward)
    unique = list(dict.fromkeys(encoded))
    conditions = [one.condition for one in unique] if conditioned else None
    found: list[dict[Request, tuple[float, bool]]] = [{} for _ in range(number)]
    sizes = [len(one.read) for one in unique]
    prefixes_of = _Prefixes(sites, [one.places() for one in unique], 1) if shared else None
    work = Batches(_groups(sizes, batch_tokens // number, prefixes_of), sizes, "request")
    apart = branches is not None and branches.late and shared and shareable(sites.config)
    for group in work:
        with work.fitting():
            asked = [unique[i] for i in group]
            depths = [0] * len(group) if prefixes_of is None else prefixes_of.within(group)
            if apart:  # contexts by themselves, which some plans leave alone
                depths = [
                    min(depth or one.context, one.context)
                    for depth, one in zip(depths, asked, strict=True)
                ]
            read = _Reading(
                [one.read for one in asked],
                [one.context for one in asked],
                _of(group, conditions),
                depths,
                branches,
            )
            states = read.run(sites, pad, device, on_forward)
            places, owner = [], []
            for row, one in enumerate(asked):
                for column in range(len(one.tokens) - 1 - one.size, len(one.tokens) - 1):
                    places.append((read.place(row, column), one.tokens[column + 1]))
                    owner.append(row)
            # What is scored in a common beginning is scored once.
            pairs, inverse = np.unique(np.array(places), axis=0, return_inverse=True)
            inverse = inverse.reshape(-1)
            chosen = torch.from_numpy(pairs).to(device)
            scores = [
                target_logprobs(sites.head, of_plan[chosen[:, 0]], chosen[:, 1], sites.config)
                for of_plan in states
            ]
            for values, (logprob, greedy) in zip(found, scores, strict=True):
                weights = logprob.double().cpu().numpy()[inverse]
                if not np.isfinite(weights).all():
                    raise NotFinite(NOT_FINITE)
                sums = np.bincount(owner, weights=weights, minlength=len(group))
                misses = np.bincount(owner, weights=~greedy.cpu().numpy()[inverse])
                for row, one in enumerate(asked):
                    values[one] = (float(sums[row]), bool(misses[row] == 0))
            if progress is not None:
                tokens = sum(len(one.tokens) for one in asked)
                progress.update(len(group), tokens=tokens * number)
    return [[values[item] for item in encoded] for values in found]


class _Prefixes:
    """Which requests share a beginning, and how much of it."""

    def __init__(self, sites: MlpSites, places: Sequence[tuple], lead: int):
        """`lead`: leading items of places that are no token."""
        self.groups: list[list[int]] = []
        self.depth: dict[int, int] = {}
        self.group: dict[int, int] = {}
        if not shareable(sites.config):
            return
        for number, (members, items) in enumerate(prefixes.groups(places)):
            if items > lead:
                self.groups.append(members)
                self.depth |= dict.fromkeys(members, items - lead)
                self.group |= dict.fromkeys(members, number)

    def within(self, batch: Sequence[int]) -> list[int]:
        """Return for each row of a batch how much it shares with others of the batch."""
        present = Counter(self.group[i] for i in batch if i in self.group)
        return [
            self.depth[i] if i in self.group and present[self.group[i]] > 1 else 0 for i in batch
        ]


def _groups(sizes: Sequence[int], batch_tokens: int, shared: _Prefixes | None) -> list[list[int]]:
    """Return batches; those that share beginnings apart from those that do not."""
    if shared is None:
        return batches(sizes, batch_tokens)
    alone = [[i] for i in range(len(sizes)) if i not in shared.group]
    return batches(sizes, batch_tokens, shared.groups) + batches(sizes, batch_tokens, alone)


class _Reading:
    """One batch of token sequences to read: first what is shared, then the rest of each.

    sequences: tokens by row; prompt: how many of them are the prompt's; conditions: (batch,);
    depths: how many leading tokens a row shares with the rows that have these in common, or 0. A
    row that shares nothing is read whole in the first pass. With `branches`, under each plan.
    alike: a number for each row, without it the conditions; what rows share they share with rows
    of the same number.
    """

    def __init__(
        self,
        sequences,
        prompt,
        conditions,
        depths,
        branches: "Branched | None" = None,
        alike: Sequence[int] | None = None,
    ):
        self.sequences, self.prompt, self.conditions = sequences, prompt, conditions
        self.branches = branches
        self.parents: list[int] = []  # which row of the first pass each row goes on from
        self.firsts: list[tuple[int, int]] = []  # of the first pass: a row that has it, its length
        known: dict[tuple, int] = {}
        for row, (tokens, depth) in enumerate(zip(sequences, depths, strict=True)):
            condition = None if conditions is None else int(conditions[row])
            condition = condition if alike is None else alike[row]
            own = min(prompt[row], depth)
            key = (condition, depth, own, tokens[:depth]) if depth else (row,)
            if key not in known:
                known[key] = len(self.firsts)
                self.firsts.append((row, depth or len(tokens)))
            self.parents.append(known[key])
        self.depths = [self.firsts[parent][1] for parent in self.parents]
        self.rest = [row for row, n in enumerate(self.depths) if n < len(sequences[row])]
        self.second_row = {row: number for number, row in enumerate(self.rest)}
        self.width = max(size for _, size in self.firsts)
        self.rest_width = max((len(sequences[i]) - self.depths[i] for i in self.rest), default=0)

    def place(self, row: int, column: int) -> int:
        """Return where `run` puts the state of a token."""
        depth = self.depths[row]
        if column < depth:
            indent = self.width - depth if self.rest else 0
            return self.parents[row] * self.width + indent + column
        before = len(self.firsts) * self.width
        return before + self.second_row[row] * self.rest_width + column - depth

    def run(self, sites, pad: int, device, on_forward: OnForward) -> torch.Tensor:
        """Return hidden states (plan, token, d_model), the tokens in the order of `place`."""
        if self.branches is not None:
            self.branches.begin()
        owners = [row for row, _ in self.firsts]
        spans = [(0, size) for _, size in self.firsts]
        if not self.rest:
            tokens, prompt, valid = self._padded(owners, spans, pad, device, left=False)
            self._announce(on_forward, prompt, valid, owners)
            return _by_plan(self.branches, _hidden(sites, tokens)).flatten(1, 2)
        cache = KeyValues(sites.config)
        tokens, prompt, mask = self._padded(owners, spans, pad, device, left=True)
        self._announce(on_forward, prompt, mask, owners)
        first = _by_plan(self.branches, _read(sites, tokens, mask, cache))
        parents = torch.tensor([self.parents[row] for row in self.rest], device=device)
        cache.select(parents, len(owners))
        spans = [(self.depths[row], len(self.sequences[row])) for row in self.rest]
        tokens, prompt, valid = self._padded(self.rest, spans, pad, device, left=False)
        self._announce(on_forward, prompt, valid, self.rest, cache)
        mask = torch.cat([mask[parents], valid], 1)
        second = _by_plan(self.branches, _read(sites, tokens, mask, cache))
        return torch.cat([first.flatten(1, 2), second.flatten(1, 2)], 1)

    def prefill(self, sites, pad: int, device, on_forward: OnForward, room: int):
        """Return each row's last state, the mask of its tokens (batch, pos), and the cache.

        Padding is at the left; there is room for so many tokens more. Branches stay as the last
        pass had them: states are (blocks x batch, d_model).
        """
        if self.branches is not None:
            self.branches.begin()
        cache = KeyValues(sites.config, room)
        owners = [row for row, _ in self.firsts]
        spans = [(0, size) for _, size in self.firsts]
        tokens, prompt, mask = self._padded(owners, spans, pad, device, left=True)
        self._announce(on_forward, prompt, mask, owners)
        first = _read(sites, tokens, mask, cache)[:, -1]
        if not self.rest:
            return first, mask, cache
        parents = torch.tensor(self.parents, device=device)
        cache.select(parents, len(owners))
        spans = [(depth, len(ids)) for depth, ids in zip(self.depths, self.sequences, strict=True)]
        tokens, prompt, valid = self._padded(range(len(spans)), spans, pad, device, left=False)
        self._announce(on_forward, prompt, valid, list(range(len(spans))), cache)
        mask = torch.cat([mask[parents], valid], 1)
        hidden = _read(sites, tokens, mask, cache)
        own = valid.sum(1)
        hidden = hidden.reshape(-1, *tokens.shape, hidden.shape[-1])
        last = hidden[:, torch.arange(len(own), device=device), (own - 1).clamp(min=0)]
        first = first.reshape(len(hidden), -1, first.shape[-1])[:, parents]
        last = torch.where(own[:, None] > 0, last, first).flatten(0, 1)
        missing = valid.shape[1] - own
        cache.shift(missing)
        columns = torch.arange(mask.shape[1], device=device) - missing[:, None]
        return last, mask.gather(1, columns % mask.shape[1]), cache

    def _padded(self, rows, spans, pad, device, left):
        """Return tokens, prompt and valid, (batch, pos), of a span of each row."""
        longest = max(last - first for first, last in spans)
        tokens = torch.full((len(rows), longest), pad, dtype=torch.int64)
        prompt = torch.zeros(len(rows), longest, dtype=torch.bool)
        valid = torch.zeros_like(prompt)
        for number, (row, (first, last)) in enumerate(zip(rows, spans, strict=True)):
            begin = longest - (last - first) if left else 0
            place = slice(begin, begin + last - first)
            tokens[number, place] = torch.tensor(self.sequences[row][first:last])
            valid[number, place] = True
            prompt[number, begin : begin + min(max(self.prompt[row] - first, 0), last - first)] = (
                True
            )
        return tokens.to(device), prompt.to(device), valid.to(device)

    def _announce(self, on_forward: OnForward, prompt, valid, rows, cache=None) -> None:
        """Say what is read next; branches of the cache follow those of the next pass."""
        if on_forward is None:
            return
        before = None if self.branches is None else self.branches.layout
        conditions = None if self.conditions is None else self.conditions[rows]
        on_forward(prompt, valid, conditions)
        if before is not None and cache is not None:
            self.branches.carry(cache, before)


@functools.cache
def _takes_positions(backbone: type[nn.Module]) -> bool:
    return "position_ids" in inspect.signature(backbone.forward).parameters


def _read(sites: MlpSites, tokens: torch.Tensor, mask: torch.Tensor, cache) -> torch.Tensor:
    """Return the hidden states of the next tokens; mask (batch, all positions) is True at tokens.

    Positions are counted from each row's own first token.
    """
    arguments = {"attention_mask": mask.long(), "use_cache": True, "past_key_values": cache}
    if _takes_positions(type(sites.backbone)):
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        arguments["position_ids"] = positions[:, -tokens.shape[1] :]
    return sites.backbone(input_ids=tokens, **arguments).last_hidden_state.to(tokens.device)


@torch.inference_mode()
def generate(
    model: nn.Module,
    tokenizer,
    prompts: Sequence[str | Prompt],
    max_new_tokens: int,
    stop: Sequence[str],
    batch_tokens: int,
    repetition_penalty: float = 1.0,
    on_forward: OnForward = None,
    progress: Progress | None = None,
    conditions: Conditions = None,
    shared: bool = False,
    alike: Sequence[int] | None = None,
) -> list[str]:
    """Return the greedy continuation of each prompt, cut before EOS or the first stop string.

    Prompts are texts, or what `encode_prompts` made of them; one that does not fit with the new
    tokens loses tokens at its left. An answer ends at each of
    `langneurons.models.encoding.end_tokens`.

    Prompts are left-padded, with positions counted from each prompt's own first token; finished
    rows leave the batch. Of equal logits the lowest token wins. The repetition penalty (Keskar et
    al. 2019) acts on each row's own prompt and generated tokens. `shared`: read common beginnings
    once, those of different conditions too that are `alike`, a number for each condition: what
    happens to prompts is the same under equal numbers.
    """
    (found,) = _generated(
        model,
        tokenizer,
        prompts,
        max_new_tokens,
        stop,
        batch_tokens,
        repetition_penalty,
        on_forward,
        progress,
        conditions,
        shared,
        alike=alike,
    )
    return found


def encode_prompts(
    sites: MlpSites,
    tokenizer,
    prompts: Sequence[str],
    room: int = 0,
    controls: Mapping[str, int] | None = None,
) -> list[Prompt]:
    """Return the tokens of prompts that fit with `room` tokens after them."""
    encoder = Encoder(tokenizer, max_positions(sites.config), controls)
    return [encoder.prompt(prompt, room) for prompt in prompts]


@torch.inference_mode()
def branch_generate(
    model: nn.Module,
    tokenizer,
    prompts: Sequence[str | Prompt],
    max_new_tokens: int,
    stop: Sequence[str],
    batch_tokens: int,
    repetition_penalty: float,
    branches: "Branched",
    progress: Progress | None = None,
) -> list[list[str]]:
    """Return what `generate` returns, under each plan.

    Prompts are read as `langneurons.interventions.branches` does; answers are decoded together,
    each row under its plan. Common beginnings are read once where the plans allow it.
    """
    return _generated(
        model,
        tokenizer,
        prompts,
        max_new_tokens,
        stop,
        batch_tokens,
        repetition_penalty,
        None,
        progress,
        None,
        branches.by_token,
        branches,
    )


def _generated(
    model,
    tokenizer,
    prompts,
    max_new_tokens,
    stop,
    batch_tokens,
    repetition_penalty,
    on_forward,
    progress,
    conditions,
    shared,
    branches: "Branched | None" = None,
    alike=None,
) -> list[list[str]]:
    """Return the texts under each plan."""
    sites = MlpSites(model)
    _check_conditions(conditions, len(prompts))
    number, on_forward = _under(branches, on_forward)
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    made = iter(encode_prompts(sites, tokenizer, texts, max_new_tokens))
    encoded = [(next(made) if isinstance(one, str) else one).tokens for one in prompts]
    result = [[""] * len(prompts) for _ in range(number)]
    sizes = [len(ids) + max_new_tokens for ids in encoded]
    prefixes_of, numbers = None, [0] * len(prompts)
    if conditions is not None:
        numbers = [int(one) if alike is None else alike[int(one)] for one in conditions]
    if shared:
        # Each row reads its own last token.
        places = [(one, *ids[:-1]) for one, ids in zip(numbers, encoded, strict=True)]
        prefixes_of = _Prefixes(sites, places, 1)
    last = end_tokens(model, tokenizer) | stop_tokens(tokenizer, stop)
    ends = _Ends(tokenizer, stop, last)
    work = Batches(_groups(sizes, batch_tokens // number, prefixes_of), sizes, "prompt")
    for group in work:
        with work.fitting():
            depths = [0] * len(group) if prefixes_of is None else prefixes_of.within(group)
            texts = _generate_batch(
                sites,
                ends,
                [encoded[i] for i in group],
                max_new_tokens,
                repetition_penalty,
                on_forward,
                _of(group, conditions),
                [numbers[i] for i in group],
                depths,
                branches,
            )
            for place, text in enumerate(texts):
                plan, row = divmod(place, len(group))
                result[plan][group[row]] = text
            if progress is not None:
                progress.update(len(group))
    return result


def _generate_batch(
    sites, ends, encoded, max_new_tokens, penalty, on_forward, conditions, alike, depths, branches
) -> list[str]:
    """Return the texts, those of each plan after those of the one before."""
    device = sites.device
    sizes = [len(ids) for ids in encoded]
    reading = _Reading(encoded, sizes, conditions, depths, branches, alike)
    room = max_new_tokens - 1
    hidden, mask, cache = reading.prefill(sites, ends.pad, device, on_forward, room)
    if branches is not None:
        hidden, mask, conditions = branches.divided(hidden, mask, cache)
        encoded = encoded * len(branches.plans)
    seen = _Seen(encoded, sites.head, sites.head_device) if penalty != 1.0 else None
    generated: list[list[int]] = [[] for _ in encoded]
    texts = [""] * len(encoded)
    running = list(range(len(encoded)))  # the rows of the batch
    for step in range(1, max_new_tokens + 1):
        best = _greedy(sites, hidden, seen, penalty)
        kept = []
        for number, (row, token) in enumerate(zip(running, best, strict=True)):
            text = ends.text(generated[row], token, step == max_new_tokens)
            if text is None:
                kept.append(number)
            else:
                texts[row] = text
        if not kept:
            break
        tokens = torch.tensor(best, device=device)[:, None]
        if len(kept) < len(running):
            chosen = torch.tensor(kept, device=device)
            cache.select(chosen, len(running))
            tokens, mask = tokens[chosen], mask[chosen]
            conditions = None if conditions is None else conditions[kept]
            running = [running[number] for number in kept]
            if seen is not None:
                seen.keep(chosen)
        if seen is not None:
            seen.add(tokens)
        new = torch.ones_like(tokens, dtype=torch.bool)
        if on_forward is not None:
            on_forward(~new, new, conditions)
        mask = torch.cat([mask, new], 1)
        hidden = _read(sites, tokens, mask, cache)[:, -1]
    return texts


class _Ends:
    """When an answer ends, and its text."""

    def __init__(self, tokenizer, stop: Sequence[str], tokens: frozenset[int]):
        self.tokenizer, self.stop, self.tokens = tokenizer, list(stop), tokens
        self.pad = tokenizer.pad_token_id or 0
        self._lasts = {word[-1] for word in self.stop if word}
        self._ending: dict[int, bool] = {}

    def text(self, before: list[int], token: int, last: bool) -> str | None:
        """Add a token to those before it; return the text if the answer ends here."""
        if token in self.tokens:
            return self._decoded(before)
        before.append(token)
        if not last and not self._may_end(token):
            return None
        text = self._decoded(before)
        cuts = [text.find(word) for word in self.stop if word in text]
        if cuts:
            return text[: min(cuts)]
        return text if last else None

    def _decoded(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True) if tokens else ""

    def _may_end(self, token: int) -> bool:
        """Tell whether a stop string can be complete at this token: it writes its last character.

        A decoder may drop or add white space between tokens, and a token may hold a part of a
        character only: these may end anything.
        """
        if not self._lasts:
            return False
        if token not in self._ending:
            text = self.tokenizer.decode([token])
            open_ended = "\ufffd" in text or not text.strip()
            spaced = any(last.isspace() for last in self._lasts if last not in "\n\r")
            self._ending[token] = open_ended or spaced or any(c in text for c in self._lasts)
        return self._ending[token]


class _Seen:
    """Which tokens each row has had, bool (row, vocabulary)."""

    def __init__(self, encoded: Sequence[Sequence[int]], head: nn.Module, device: torch.device):
        size = getattr(head, "out_features", None) or head.weight.shape[0]
        self.had = torch.zeros(len(encoded), size, dtype=torch.bool, device=device)
        for row, ids in enumerate(encoded):
            self.had[row, torch.tensor(ids, device=device)] = True

    def keep(self, rows: torch.Tensor) -> None:
        """Drop the other rows."""
        self.had = self.had[rows.to(self.had.device)]

    def add(self, tokens: torch.Tensor) -> None:
        """Add one token (row, 1) per row."""
        self.had.scatter_(1, tokens.to(self.had.device), True)

    def penalised(self, logits: torch.Tensor, start: int, penalty: float) -> torch.Tensor:
        """Return the logits (row, block) from `start` with those of earlier tokens lowered."""
        had = self.had[:, start : start + logits.shape[1]]
        lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
        return torch.where(had, lowered, logits)


def _greedy(sites, hidden, seen, penalty) -> list[int]:
    """Return the most probable token of each row after the repetition penalty."""
    hidden = hidden.to(sites.head_device)
    value = torch.full((len(hidden),), -torch.inf, device=hidden.device)
    best = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
    for start, logits in logit_blocks(sites.head, hidden, sites.config):
        if seen is not None:
            logits = seen.penalised(logits, start, penalty)
        top, where = logits.max(1)
        better = top > value
        best = torch.where(better, where + start, best)
        value = torch.where(better, top, value)
    if not torch.isfinite(value).all():
        raise NotFinite(NOT_FINITE)
    return best.tolist()
