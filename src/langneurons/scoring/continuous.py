"""Answers by continuous batching: a request joins a running batch as soon as another has ended.

The pages of keys and values, and which tokens of which request go into the next pass, are those of
transformers. A pass packs tokens of several requests, of prompts and of answers, into one row
(1, tokens). Its steps run in the caller's own thread, one after another: the hooks of a plan get
the request of each token, an error of a hook is the error of the call, and a stop string ends an
answer at once. Head, ties, repetition penalty and ends of answers are those of the padded loop.

Only models whose attention goes through transformers' attention interface can be read packed;
others would see tokens of other requests (`packable`). `langneurons.scoring.engine_check` compares
the logits of packed and of padded passes before a job.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from math import lcm
from typing import Any

import torch
import transformers
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from langneurons.base.errors import InputError
from langneurons.interventions.apply import hooked
from langneurons.interventions.hooks import Hooked
from langneurons.interventions.plan import Plan, Under
from langneurons.models.families import unpacked
from langneurons.models.language_model import LanguageModel
from langneurons.runtime.halving import TooLarge, out_of_memory, release
from langneurons.runtime.progress import Progress
from langneurons.scoring.decoding import Answer, Asked, Seen, greedy
from langneurons.scoring.reading import numbers_of

log = logging.getLogger(__name__)
PAGE = 16  # tokens of a page of the cache
PASS_TOKENS = 512  # of one pass at most: attention goes over all tokens of a pass at once
SPARE = 2  # pages beside those that requests need
OLDEST = "5.17"  # of transformers: with pages of a size that is asked for
ATTENTION, BY_REQUEST = "sdpa", "langneurons_by_request"
KINDS = ("full_attention", "sliding_attention")


def packable(model: LanguageModel) -> None:
    """Refuse a model of which tokens of several requests cannot be read in one row.

    Raises:
        InputError: It says why, and what to set.
    """
    whole: Any = model.sites.backbone
    reason = unpacked(whole.config.model_type)
    if reason is None and not getattr(whole, "_supports_attention_backend", False):
        reason = "has attention that does not go through transformers' attention interface"
    used = whole.config._attn_implementation
    if reason is None and used != ATTENTION:
        reason = f"runs with {used!r} attention, not with {ATTENTION!r}"
    others = sorted(set(getattr(whole.config, "layer_types", None) or ()) - set(KINDS))
    if reason is None and others:
        reason = f"has layers of kind {others[0]!r}; read packed are {' and '.join(KINDS)}"
    devices = {each.device for each in whole.parameters()}
    if reason is None and len(devices) > 1:
        reason = f"lies on {len(devices)} devices; the pages of a cache lie on one"
    if reason is not None:
        raise InputError(
            f"engine 'continuous': the model ({whole.config.model_type}) {reason}. Set"
            " runtime.engine: padded."
        )


def continuous(
    model: LanguageModel, asked: Asked, under: Under, progress: Progress | None = None
) -> list[list[Answer]]:
    """Return one list, which holds the answers; `under` is one plan, or plans per request.

    Out of memory halves the budget of tokens; answers that are complete are kept.
    """
    packable(model)
    found: dict[int, Answer] = {}
    budget = asked.batch_tokens
    with hooked(model, under) as running:
        while len(found) < len(asked.prompts):
            try:
                Session(model, running, replace(asked, batch_tokens=budget), under).run(
                    found, progress
                )
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if budget <= _longest(asked):
                    raise TooLarge("prompt", error) from error
                budget //= 2
                log.warning("out of memory; continuous batching goes on with %d tokens", budget)
            release()
    return [[found[row] for row in range(len(asked.prompts))]]


def _longest(asked: Asked) -> int:
    return max(map(len, asked.prompts), default=0) + asked.decoding.max_new_tokens


class Session:
    """Requests on their way through a batch, each of which holds a place in the cache."""

    def __init__(self, model: LanguageModel, running: Hooked, asked: Asked, under: Under):
        self.model, self.running, self.asked = model, running, asked
        self.numbers = numbers_of(under, len(asked.prompts))
        self.generated: dict[int, list[int]] = {}  # by row, of the requests under way
        self.room = -(-max(asked.batch_tokens, _longest(asked)) // PAGE)
        self.manager = _manager(model, self.room, asked.batch_tokens, _alike(under))
        self.processor: Any = self.manager.batch_processor

    def run(self, found: dict[int, Answer], progress: Progress | None) -> None:
        """Decode what is not in `found`, and put it there as it ends."""
        with _attending(self.model):
            self._run(found, progress)

    def _run(self, found: dict[int, Answer], progress: Progress | None) -> None:
        self.running.begin()
        sizes = {row: len(ids) for row, ids in enumerate(self.asked.prompts)}
        waiting = sorted(
            (row for row in sizes if row not in found), key=lambda row: (sizes[row], -row)
        )
        held: dict[int, int] = {}
        while waiting or held:
            while waiting and (need := self._pages(waiting[-1])) + sum(held.values()) <= self.room:
                row = waiting.pop()
                held[row], self.generated[row] = need, []
                self._enter(row)
            for row, text in self._step():
                found[row] = Answer(text, tuple(self.generated.pop(row)))
                del held[row]
                if progress is not None:
                    progress.update()

    def _pages(self, row: int) -> int:
        return -(-(len(self.asked.prompts[row]) + self.asked.decoding.max_new_tokens) // PAGE)

    def _enter(self, row: int) -> None:
        most = self.asked.decoding.max_new_tokens
        prompt = list(self.asked.prompts[row])
        self.manager.add_request(prompt, str(row), max_new_tokens=most, eos_token_id=-1)

    def _step(self) -> list[tuple[int, str]]:
        """Run one pass; return the rows whose answers end with it, and their texts."""
        if not self.processor.prepare_next_batch():
            raise RuntimeError("continuous batching: no request fits into the cache")
        io = self.processor.inputs_and_outputs
        given = io.get_model_kwargs()
        batch = [(int(one.state.request_id), one) for one in io.requests_in_batch]
        self._announce(batch)
        hidden = self.model.sites.backbone(**given).last_hidden_state[0]
        new = [row for row, one in batch if one.has_new_token]
        ended: list[tuple[int, str]] = []
        if new:
            last = hidden[given["logits_indices"][: len(new)].long()]
            for row, token in zip(new, self._next(last, new, io), strict=True):
                own, most = self.generated[row], self.asked.decoding.max_new_tokens
                text = self.asked.ends.text(own, token, len(own) + 1 == most)
                if text is not None:
                    ended.append((row, text))
        scheduler = self.processor.scheduler
        self.processor.update_batch()
        for row, _ in ended:
            if str(row) in scheduler.active_requests:
                scheduler.finish_request(str(row))
            scheduler.block_new_requests = False
        return ended

    def _announce(self, batch: Sequence[tuple[int, Any]]) -> None:
        """Tell the hooks, of each token of the pass as a row of its own, what it is."""
        given: list[bool] = []  # whether a token is of a prompt
        numbers: list[int] = []
        for row, one in batch:
            # The state counts the tokens of this pass already.
            before = one.state.position_offset - one.query_length
            own = min(max(len(self.asked.prompts[row]) - before, 0), one.query_length)
            given += [True] * own + [False] * (one.query_length - own)
            if self.numbers is not None:
                numbers += [self.numbers[row]] * one.query_length
        prompt = torch.tensor(given, device=self.model.device)[:, None]
        plans = None if self.numbers is None else torch.tensor(numbers)
        self.running.announce(prompt, torch.ones_like(prompt), plans)

    def _next(self, hidden: torch.Tensor, rows: Sequence[int], io: Any) -> list[int]:
        """Return the next token of each row, and leave it where the scheduler takes it from."""
        model, penalty = self.model, self.asked.decoding.repetition_penalty
        seen = None
        if penalty != 1.0:
            encoded = [(*self.asked.prompts[row], *self.generated[row]) for row in rows]
            seen = Seen(encoded, model.vocabulary, model.sites.head_device)
        tokens = greedy(model, hidden, seen, penalty)
        io.output_ids[0, : len(tokens)] = torch.tensor(tokens, dtype=io.output_ids.dtype)
        return tokens


@contextmanager
def _attending(model: LanguageModel) -> Iterator[None]:
    """Let each request of a packed pass attend by itself on a CPU; a GPU reads them at once.

    The packed attention of transformers multiplies the queries of all requests with the keys of all
    and masks the others: as many products again as there are requests.
    """
    if model.device.type != "cpu":
        yield
        return
    AttentionInterface.register(BY_REQUEST, _by_request)
    AttentionMaskInterface.register(BY_REQUEST, sdpa_mask)
    backbone: Any = model.sites.backbone
    before = backbone.config._attn_implementation
    backbone.set_attn_implementation(BY_REQUEST)
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)


def _by_request(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Return what each query (1, head, token, size) reads of the keys of its own request.

    attention_mask: (1, 1, token, key) of all requests.
    """
    cache = given.pop("cache")
    key, value = cache.update(
        key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=given
    )
    more = {name: given[name] for name in ("dropout", "scaling") if name in given}
    ends, key_ends = given["cu_seq_lens_q"].tolist(), given["cu_seq_lens_k"].tolist()
    found = []
    for (q, q_end), (k, k_end) in zip(pairwise(ends), pairwise(key_ends), strict=True):
        # The keys of a single token are those that it sees: its window and itself.
        mask = None if q_end - q == 1 else attention_mask[:, :, q:q_end, k:k_end]
        own = (query[:, :, q:q_end], key[:, :, k:k_end], value[:, :, k:k_end])
        found.append(sdpa_attention_forward(module, *own, mask, is_causal=False, **more)[0])
    return torch.cat(found, 1), None


def _alike(under: Under) -> bool:
    """Return whether equal tokens have equal keys and values in all requests, so may share pages.

    Requests under different plans do not, nor do tokens of a prompt and of an answer where a plan
    writes into one of them only.
    """
    if under is None:
        return True
    return isinstance(under, Plan) and all(write.tokens == "all" for write in under.writes)


def _spare(config: Any) -> int:
    """Return how many pages stay unused at most.

    Each kind of attention gets memory in sectors of one size, which hold whole pages of its layers.
    """
    kinds = list(Counter(getattr(config, "layer_types", None) or ("full",)).values())
    return SPARE + len(kinds) * -(-lcm(*kinds) // sum(kinds))


def _manager(model: LanguageModel, pages: int, batch_tokens: int, share: bool) -> Any:
    """Return transformers' manager of a batch, with a cache of so many pages set aside."""
    if "page_size" not in getattr(transformers, "ContinuousBatchingConfig", object).__dict__:
        raise InputError(
            f"engine 'continuous' needs transformers {OLDEST} or later; installed is"
            f" {transformers.__version__}. Update it, or set runtime.engine: padded."
        )
    whole: Any = model.sites.whole
    pages += _spare(whole.config.get_text_config())
    settings = transformers.ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=pages,
        max_batch_tokens=max(1, min(batch_tokens, PASS_TOKENS)),
        max_requests_per_batch=max(1, min(pages, PASS_TOKENS)),
        max_blocks_per_request=0,
        allow_block_sharing=share,
        use_async_batching=False,
        use_cuda_graph=False,
        seed=0,
        safety_margin=0.0,
        auto_switch_to_flash=False,
    )
    plain = transformers.GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=1)
    seeded = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(seeded):  # the processor sets the seed of the process
        manager = whole.init_continuous_batching(plain, settings)
        try:
            manager.warmup()  # makes the cache and the processor; nothing is compiled
        except MemoryError as error:
            raise InputError(
                f"engine 'continuous': a cache of {pages * PAGE} tokens does not fit ({error})."
                " Lower runtime.batch_tokens, or set runtime.engine: padded."
            ) from error
    return manager
