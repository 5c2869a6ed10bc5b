"""Greedy decoding with a key-value cache, the same one by one and in any batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from langneurons.interventions.apply import hooked, results
from langneurons.interventions.hooks import Hooked
from langneurons.interventions.plan import Under
from langneurons.models.encoding import Prompt, stop_tokens
from langneurons.models.language_model import LanguageModel
from langneurons.runtime.halving import Batches
from langneurons.runtime.progress import Progress
from langneurons.scoring.head import NOT_FINITE, NotFinite, logit_blocks
from langneurons.scoring.reading import Reading, Rows, Shared, next_states, numbers_of, of_rows


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded: their length in tokens, what ends them, the repetition penalty.

    stop: strings before which an answer ends. repetition_penalty (Keskar et al. 2019): acts on each
    row's own prompt and generated tokens; 1 is none. ends: tokens that end an answer beside the
    model's `end_tokens`, such as those of a chat template.
    """

    max_new_tokens: int
    stop: Sequence[str] = ()
    repetition_penalty: float = 1.0
    ends: frozenset[int] = frozenset()


def penalty_of(model: LanguageModel, asked: float | str) -> float:
    """Return a repetition penalty, which may be `model`: that of the model's own files."""
    if asked != "model":
        return float(asked)
    own = getattr(model.model.generation_config, "repetition_penalty", None)
    return 1.0 if own is None else float(own)


def encode_prompts(
    model: LanguageModel,
    prompts: Sequence[str],
    room: int = 0,
    controls: Mapping[str, int] | None = None,
) -> list[Prompt]:
    """Return the tokens of prompts that fit with `room` tokens after them."""
    encoder = model.encoder(controls)
    return [encoder.prompt(prompt, room) for prompt in prompts]


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Sequence[str | Prompt],
    decoding: Decoding,
    batch_tokens: int,
    under: Under = None,
    progress: Progress | None = None,
) -> list[str] | list[list[str]]:
    """Return the greedy continuation of each prompt, cut before EOS or the first stop string.

    Prompts are texts, or what `encode_prompts` made of them; one that does not fit with the new
    tokens loses tokens at its left. An answer ends at each of the model's `end_tokens`. Of equal
    logits the lowest token wins. Under a list of plans: by plan.

    Prompts are left-padded, with positions counted from each prompt's own first token; finished
    rows leave the batch.
    """
    numbers = numbers_of(under, len(prompts))
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    made = iter(encode_prompts(model, texts, decoding.max_new_tokens))
    encoded = [(next(made) if isinstance(one, str) else one).tokens for one in prompts]
    last = model.end_tokens | decoding.ends | stop_tokens(model.tokenizer, decoding.stop)
    ends = _Ends(model.tokenizer, decoding.stop, last)
    sizes = [len(ids) + decoding.max_new_tokens for ids in encoded]
    with hooked(model, under) as running:
        found = [[""] * len(prompts) for _ in range(running.width)]
        alike = running.alike(numbers or [0] * len(prompts))
        # Each row reads its own last token.
        places = [(one, *ids[:-1]) for one, ids in zip(alike, encoded, strict=True)]
        shared = Shared(model, running, places)
        work = Batches(shared.batches(sizes, batch_tokens // running.width), sizes, "prompt")
        for group in work:
            with work.fitting():
                own = [encoded[i] for i in group]
                rows = Rows(
                    own,
                    [len(ids) for ids in own],
                    shared.within(group),
                    [alike[i] for i in group],
                    of_rows(group, numbers),
                )
                answers = _answers(model, running, rows, decoding, ends)
                for place, text in enumerate(answers):
                    plan, row = divmod(place, len(group))
                    found[plan][group[row]] = text
                if progress is not None:
                    progress.update(len(group))
    return results(under, found)


def _answers(
    model: LanguageModel, running: Hooked, rows: Rows, decoding: Decoding, ends: "_Ends"
) -> list[str]:
    """Return the texts of a batch, those of each plan after those of the one before."""
    sites, device, most = model.sites, model.device, decoding.max_new_tokens
    penalty = decoding.repetition_penalty
    hidden, mask, cache = Reading(model, running, rows).prefill(most - 1)
    hidden, mask, numbers = running.divided(hidden, mask, cache, rows.numbers)
    encoded = list(rows.sequences) * running.width
    seen = _Seen(encoded, model.vocabulary, sites.head_device) if penalty != 1.0 else None
    generated: list[list[int]] = [[] for _ in encoded]
    texts = [""] * len(encoded)
    active = list(range(len(encoded)))  # the rows of the batch
    for step in range(1, most + 1):
        best = _greedy(model, hidden, seen, penalty)
        kept = []
        for number, (row, token) in enumerate(zip(active, best, strict=True)):
            text = ends.text(generated[row], token, step == most)
            if text is None:
                kept.append(number)
            else:
                texts[row] = text
        if not kept:
            break
        tokens = torch.tensor(best, device=device)[:, None]
        if len(kept) < len(active):
            chosen = torch.tensor(kept, device=device)
            cache.select(chosen, len(active))
            tokens, mask = tokens[chosen], mask[chosen]
            numbers = None if numbers is None else numbers[kept]
            active = [active[number] for number in kept]
            if seen is not None:
                seen.keep(chosen)
        if seen is not None:
            seen.add(tokens)
        new = torch.ones_like(tokens, dtype=torch.bool)
        running.announce(~new, new, numbers)
        mask = torch.cat([mask, new], 1)
        hidden = next_states(sites, tokens, mask, cache)[:, -1]
    return texts


class _Ends:
    """When an answer ends, and its text."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], tokens: frozenset[int]
    ):
        self.tokenizer, self.stop, self.tokens = tokenizer, list(stop), tokens
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
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)) if tokens else ""

    def _may_end(self, token: int) -> bool:
        """Return whether a stop string can be complete at this token: it writes its last character.

        A decoder may drop or add white space between tokens, and a token may hold a part of a
        character only: these may end anything.
        """
        if not self._lasts:
            return False
        if token not in self._ending:
            text = str(self.tokenizer.decode([token]))
            open_ended = "\ufffd" in text or not text.strip()
            spaced = any(last.isspace() for last in self._lasts if last not in "\n\r")
            self._ending[token] = open_ended or spaced or any(c in text for c in self._lasts)
        return self._ending[token]


class _Seen:
    """Which tokens each row has had, bool (row, vocabulary)."""

    def __init__(self, encoded: Sequence[Sequence[int]], size: int, device: torch.device):
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


def _greedy(
    model: LanguageModel, hidden: torch.Tensor, seen: _Seen | None, penalty: float
) -> list[int]:
    """Return the most probable token of each row after the repetition penalty."""
    hidden = hidden.to(model.sites.head_device)
    value = torch.full((len(hidden),), -torch.inf, device=hidden.device)
    best = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
    for start, logits in logit_blocks(model.head, hidden, model.config):
        if seen is not None:
            logits = seen.penalised(logits, start, penalty)
        top, where = logits.max(1)
        better = top > value
        best = torch.where(better, where + start, best)
        value = torch.where(better, top, value)
    if not torch.isfinite(value).all():
        raise NotFinite(NOT_FINITE)
    return best.tolist()
