"""Three ways to score text with a model, each the same one by one and in any batch.

- `token_nll`: negative log-likelihood of every token of packed blocks;
- `loglikelihood`: log-probability of a continuation given a context;
- `generate`: greedy decoding with a key-value cache.

They run the model's own modules, so forward hooks on its MLPs fire. The head is applied only at
positions that are scored, in blocks of the vocabulary with a running log-sum-exp: a
(tokens, vocabulary) array never exists, and on CPU a block of logits stays in cache.

Before each forward pass `on_forward(prompt, valid, conditions)` is called with two bool masks
(batch, pos) and, for each row, the `conditions` of its request, int64 (batch,) or None. prompt is
True at tokens of a prompt or context, False at a continuation or at generated tokens; valid is
False at padding. A condition is a number that the caller gives to each request, such as which
plan of `langneurons.interventions.applied_rows` it is under: requests are regrouped by length, and
their numbers travel with them.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from langneurons.adapters import MlpSites
from langneurons.memory import Batches
from langneurons.progress import Progress

log = logging.getLogger(__name__)
OnForward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], None] | None
Conditions = Sequence[int] | None
CPU_VOCABULARY_BLOCK = 1024
GPU_VOCABULARY_BLOCK = 16384
TOKEN_BLOCK = 1024


def _adjust(logits: torch.Tensor, config) -> torch.Tensor:
    """Apply what some families do to logits after the head: a scale, a soft cap."""
    scale = getattr(config, "logit_scale", None)
    if scale is not None:
        logits = logits * scale
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


def batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group items by length so that each padded batch stays within a budget of tokens.

    Longest first; an item longer than the budget stands alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    groups: list[list[int]] = []
    for index in order:
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= batch_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _device(sites: MlpSites) -> torch.device:
    return next(sites.backbone.parameters()).device


def _hidden(sites: MlpSites, tokens: torch.Tensor) -> torch.Tensor:
    """Return the last hidden states of right-padded tokens; later pads cannot be seen."""
    return sites.backbone(input_ids=tokens, use_cache=False).last_hidden_state


def _of(group: Sequence[int], conditions: Conditions) -> torch.Tensor | None:
    """Return the conditions of the rows of a batch."""
    return None if conditions is None else torch.tensor([int(conditions[i]) for i in group])


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
) -> np.ndarray:
    """Return the NLL in nats of each scored token given those before it, float64 (n, T).

    tokens, scored: (n, T); lengths: (n,). NaN where nothing is predicted: the first position,
    padding, and tokens that are not scored.
    """
    sites = MlpSites(model)
    device = _device(sites)
    _check_conditions(conditions, len(tokens))
    result = np.full(tokens.shape, np.nan)
    work = Batches(batches([int(length) for length in lengths], batch_tokens), lengths)
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
            hidden = _hidden(sites, batch)
            rows, columns = np.nonzero(wanted)
            targets = batch[rows, columns]
            logprob, _ = target_logprobs(
                sites.head, hidden[rows, columns - 1], targets, sites.config
            )
            result[np.asarray(group)[rows], columns] = -logprob.double().cpu().numpy()
            if progress is not None:
                progress.update(len(group), tokens=int(wanted.sum()))
    return result


def encode_pair(
    tokenizer, context: str, continuation: str, joint: bool = True
) -> tuple[list[int], list[int]]:
    """Tokenise context and continuation jointly and split at the context's length.

    Trailing spaces of the context move to the continuation; an empty context is the BOS token
    (EOS where there is none). Not `joint`: each is tokenised as it is, by itself.
    """
    if not joint and context:
        alone = tokenizer(continuation, add_special_tokens=False)["input_ids"]
        return tokenizer(context)["input_ids"], alone
    stripped = context.rstrip()
    continuation, context = context[len(stripped) :] + continuation, stripped
    if not context:
        prefix = tokenizer.bos_token_id
        prefix = tokenizer.eos_token_id if prefix is None else prefix
        return [prefix], tokenizer(continuation, add_special_tokens=False)["input_ids"]
    first = tokenizer(context)["input_ids"]
    both = tokenizer(context + continuation)["input_ids"]
    return first, both[len(first) :]


@torch.inference_mode()
def loglikelihood(
    model: nn.Module,
    tokenizer,
    requests: Sequence[tuple[str, str]],
    batch_tokens: int,
    on_forward: OnForward = None,
    progress: Progress | None = None,
    conditions: Conditions = None,
    joint: bool = True,
) -> list[tuple[float, bool]]:
    """Return log p(continuation | context) in nats, and whether greedy decoding would give it.

    `joint`: tokenise both together (see `encode_pair`). Equal requests of one condition are
    computed once; a too long one loses tokens at its left.
    """
    sites = MlpSites(model)
    device = _device(sites)
    pad = tokenizer.pad_token_id or 0
    limit = getattr(sites.config, "max_position_embeddings", None) or 10**9
    _check_conditions(conditions, len(requests))
    encoded = []
    for number, (context, continuation) in enumerate(requests):
        first, second = encode_pair(tokenizer, context, continuation, joint)
        if not second:
            raise ValueError(f"empty continuation after context {context[-60:]!r}")
        whole = (first + second)[-(limit + 1) :]
        condition = 0 if conditions is None else int(conditions[number])
        encoded.append((tuple(whole), min(len(second), len(whole) - 1), condition))
    unique = list(dict.fromkeys(encoded))
    of_unique = None if conditions is None else [condition for _, _, condition in unique]
    found: dict[tuple, tuple[float, bool]] = {}
    sizes = [len(whole) - 1 for whole, _, _ in unique]
    work = Batches(batches(sizes, batch_tokens), sizes, "request")
    for group in work:
        with work.fitting():
            longest = max(len(unique[i][0]) - 1 for i in group)
            batch = torch.full((len(group), longest), pad, dtype=torch.int64)
            prompt = torch.zeros(len(group), longest, dtype=torch.bool)
            valid = torch.zeros_like(prompt)
            rows, columns, targets, owner = [], [], [], []
            for row, i in enumerate(group):
                whole, size, _ = unique[i]
                batch[row, : len(whole) - 1] = torch.tensor(whole[:-1])
                valid[row, : len(whole) - 1] = True
                prompt[row, : len(whole) - size] = True
                rows += [row] * size
                columns += range(len(whole) - 1 - size, len(whole) - 1)
                targets += whole[-size:]
                owner += [row] * size
            if on_forward is not None:
                on_forward(prompt.to(device), valid.to(device), _of(group, of_unique))
            hidden = _hidden(sites, batch.to(device))
            chosen = torch.tensor(targets, device=device)
            logprob, greedy = target_logprobs(
                sites.head, hidden[rows, columns], chosen, sites.config
            )
            sums = np.bincount(owner, weights=logprob.double().cpu().numpy(), minlength=len(group))
            misses = np.bincount(owner, weights=~greedy.cpu().numpy(), minlength=len(group))
            for row, i in enumerate(group):
                found[unique[i]] = (float(sums[row]), bool(misses[row] == 0))
            if progress is not None:
                progress.update(len(group), tokens=sum(len(unique[i][0]) for i in group))
    return [found[item] for item in encoded]


@torch.inference_mode()
def generate(
    model: nn.Module,
    tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    stop: Sequence[str],
    batch_tokens: int,
    repetition_penalty: float = 1.0,
    on_forward: OnForward = None,
    progress: Progress | None = None,
    conditions: Conditions = None,
) -> list[str]:
    """Return the greedy continuation of each prompt, cut before EOS or the first stop string.

    Prompts are left-padded, with positions counted from each prompt's own first token. Of equal
    logits the lowest token wins. The repetition penalty (Keskar et al. 2019) acts on each row's own
    prompt and generated tokens.
    """
    sites = MlpSites(model)
    _check_conditions(conditions, len(prompts))
    encoded = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    result = [""] * len(prompts)
    sizes = [len(ids) + max_new_tokens for ids in encoded]
    work = Batches(batches(sizes, batch_tokens), sizes, "prompt")
    for group in work:
        with work.fitting():
            texts = _generate_batch(
                sites,
                tokenizer,
                [encoded[i] for i in group],
                max_new_tokens,
                stop,
                repetition_penalty,
                on_forward,
                _of(group, conditions),
            )
            for i, text in zip(group, texts, strict=True):
                result[i] = text
            if progress is not None:
                progress.update(len(group))
    return result


def _generate_batch(
    sites, tokenizer, encoded, max_new_tokens, stop, penalty, on_forward, conditions
):
    device = _device(sites)
    longest = max(map(len, encoded))
    pad = tokenizer.pad_token_id or 0
    tokens = torch.full((len(encoded), longest), pad, dtype=torch.int64)
    mask = torch.zeros(len(encoded), longest, dtype=torch.int64)
    for row, ids in enumerate(encoded):
        tokens[row, longest - len(ids) :] = torch.tensor(ids)
        mask[row, longest - len(ids) :] = 1
    tokens, mask = tokens.to(device), mask.to(device)
    takes_positions = "position_ids" in inspect.signature(sites.backbone.forward).parameters
    generated: list[list[int]] = [[] for _ in encoded]
    texts = [""] * len(encoded)
    running = [True] * len(encoded)
    seen = _Seen(encoded, sites.head, device) if penalty != 1.0 else None
    ends = _end_tokens(tokenizer)
    cache, step_tokens = None, tokens
    for _ in range(max_new_tokens):
        if on_forward is not None:
            prompt = torch.full_like(step_tokens, cache is None, dtype=torch.bool)
            on_forward(prompt, mask[:, -step_tokens.shape[1] :].bool(), conditions)
        arguments = {"attention_mask": mask, "use_cache": True, "past_key_values": cache}
        if takes_positions:
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            arguments["position_ids"] = positions[:, -step_tokens.shape[1] :]
        output = sites.backbone(input_ids=step_tokens, **arguments)
        cache = output.past_key_values
        best = _greedy(sites, output.last_hidden_state[:, -1], seen, penalty)
        for row, token in enumerate(best):
            if not running[row]:
                continue
            if token in ends:
                running[row] = False
                continue
            generated[row].append(token)
            texts[row] = tokenizer.decode(generated[row], skip_special_tokens=True)
            cuts = [texts[row].find(word) for word in stop if word in texts[row]]
            if cuts:
                texts[row] = texts[row][: min(cuts)]
                running[row] = False
        if not any(running):
            break
        step_tokens = torch.tensor(best, device=device)[:, None]
        if seen is not None:
            seen.add(step_tokens)
        mask = torch.cat([mask, torch.ones_like(step_tokens)], 1)
    return texts


def _end_tokens(tokenizer) -> set[int]:
    return {tokenizer.eos_token_id} - {None}


class _Seen:
    """Which tokens each row has had, bool (row, vocabulary)."""

    def __init__(self, encoded: Sequence[Sequence[int]], head: nn.Module, device: torch.device):
        size = getattr(head, "out_features", None) or head.weight.shape[0]
        self.had = torch.zeros(len(encoded), size, dtype=torch.bool, device=device)
        for row, ids in enumerate(encoded):
            self.had[row, torch.tensor(ids, device=device)] = True

    def add(self, tokens: torch.Tensor) -> None:
        """Add one token (row, 1) per row."""
        self.had.scatter_(1, tokens, True)

    def penalised(self, logits: torch.Tensor, start: int, penalty: float) -> torch.Tensor:
        """Return the logits (row, block) from `start` with those of earlier tokens lowered."""
        had = self.had[:, start : start + logits.shape[1]]
        lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
        return torch.where(had, lowered, logits)


def _greedy(sites, hidden, seen, penalty) -> list[int]:
    """Return the most probable token of each row after the repetition penalty."""
    value = torch.full((len(hidden),), -torch.inf, device=hidden.device)
    best = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
    for start, logits in logit_blocks(sites.head, hidden, sites.config):
        if seen is not None:
            logits = seen.penalised(logits, start, penalty)
        top, where = logits.max(1)
        better = top > value
        best = torch.where(better, where + start, best)
        value = torch.where(better, top, value)
    return best.tolist()
