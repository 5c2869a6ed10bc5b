"""Greedy decoding with a key-value cache, the same one by one and in any batch.

Two engines give the same answers: batches padded to one length (here), and batches into which new
requests come as others end (`langneurons.scoring.continuous`).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from langneurons.interventions.apply import each, hooked, results
from langneurons.interventions.hooks import Hooked
from langneurons.interventions.plan import PerRequest, Plan, Under, untouched
from langneurons.models.encoding import Prompt, stop_tokens
from langneurons.models.language_model import LanguageModel
from langneurons.runtime.halving import Batches
from langneurons.runtime.progress import Progress
from langneurons.scoring.decoding import Answer, Asked, Decoding, Ends, Seen, greedy
from langneurons.scoring.engine import CONTINUOUS, PADDED, Engine
from langneurons.scoring.reading import Reading, Rows, Shared, next_states, numbers_of, of_rows

log = logging.getLogger(__name__)


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
    engine: Engine | None = None,
) -> list[str] | list[list[str]]:
    """Return the greedy continuation of each prompt, cut before EOS or the first stop string.

    Prompts are texts, or what `encode_prompts` made of them; one that does not fit with the new
    tokens loses tokens at its left. An answer ends at each of the model's `end_tokens`. Of equal
    logits the lowest token wins. Under a list of plans: by plan. Without an engine: the padded one.
    """
    found = answers(model, prompts, decoding, batch_tokens, under, progress, engine)
    return each(under, lambda own: [one.text for one in own], found)


@torch.inference_mode()
def answers(
    model: LanguageModel,
    prompts: Sequence[str | Prompt],
    decoding: Decoding,
    batch_tokens: int,
    under: Under = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Any:
    """Return the answers of `generate` with their tokens, a list of `Answer`, or one by plan."""
    engine = engine or Engine()
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    made = iter(encode_prompts(model, texts, decoding.max_new_tokens))
    encoded = [(next(made) if isinstance(one, str) else one).tokens for one in prompts]
    last = model.end_tokens | decoding.ends | stop_tokens(model.tokenizer, decoding.stop)
    asked = Asked(encoded, decoding, Ends(model.tokenizer, decoding.stop, last), batch_tokens)
    if engine.name == PADDED:
        found = padded(model, asked, under, progress)
        engine.answers[PADDED] += sum(map(len, found))
        return results(under, found)
    return results(under, _divided(model, asked, under, progress, engine))


def _divided(
    model: LanguageModel, asked: Asked, under: Under, progress: Progress | None, engine: Engine
) -> list[list[Answer]]:
    """Return the answers by plan: continuous wherever plans act on each token by itself.

    The others are padded: a value of the layer itself is taken over a whole prompt, of which a
    packed pass may hold a part.
    """
    # Loaded here: what runs padded needs nothing of it.
    from langneurons.scoring.continuous import continuous

    size = len(asked.prompts)
    whole = _flattened(under, size)
    by_token = [(plan or untouched()).by_token for plan in whole.plans]
    found: dict[int, Answer] = {}
    for name, decode in ((CONTINUOUS, continuous), (PADDED, padded)):
        places = [
            place
            for place, number in enumerate(whole.numbers)
            if by_token[number] == (name == CONTINUOUS)
        ]
        if not places:
            continue
        if name == PADDED:
            log.info(
                "%d of %d answers are decoded padded: their plans take a value from the layer",
                len(places),
                len(whole.numbers),
            )
        prompts = [asked.prompts[place % size] for place in places]
        own = replace(asked, prompts=prompts)
        made = decode(model, own, _restricted(whole, places), progress)[0]
        found |= dict(zip(places, made, strict=True))
        engine.answers[name] += len(places)
    plans = len(whole.numbers) // size if size else 1
    return [[found[plan * size + row] for row in range(size)] for plan in range(plans)]


def _flattened(under: Under, size: int) -> PerRequest:
    """Return a request for each prompt under each plan, those of a plan side by side."""
    if isinstance(under, PerRequest):
        under.check(size)
        return under
    plans = [under] if under is None or isinstance(under, Plan) else list(under)
    return PerRequest(plans, [number for number in range(len(plans)) for _ in range(size)])


def _restricted(whole: PerRequest, places: Sequence[int]) -> Under:
    """Return the plans of some requests; one that no request follows stays, to be refused."""
    own = {whole.numbers[place] for place in places}
    others = set(whole.numbers) - own
    kept = [number for number in range(len(whole.plans)) if number not in others]
    if len(kept) == 1:
        return whole.plans[kept[0]]
    place_of = {number: place for place, number in enumerate(kept)}
    plans = [whole.plans[number] for number in kept]
    return PerRequest(plans, [place_of[whole.numbers[place]] for place in places])


def padded(
    model: LanguageModel, asked: Asked, under: Under, progress: Progress | None = None
) -> list[list[Answer]]:
    """Return the answers by plan, from batches of prompts that are padded to one length.

    Prompts are left-padded, with positions counted from each prompt's own first token; finished
    rows leave the batch.
    """
    prompts, decoding = asked.prompts, asked.decoding
    numbers = numbers_of(under, len(prompts))
    sizes = [len(ids) + decoding.max_new_tokens for ids in prompts]
    with hooked(model, under) as running:
        found = [[Answer("", ())] * len(prompts) for _ in range(running.width)]
        alike = running.alike(numbers or [0] * len(prompts))
        # Each row reads its own last token.
        places = [(one, *ids[:-1]) for one, ids in zip(alike, prompts, strict=True)]
        shared = Shared(model, running, places)
        groups = shared.batches(sizes, asked.batch_tokens // running.width)
        work = Batches(groups, sizes, "prompt")
        for group in work:
            with work.fitting():
                own = [prompts[i] for i in group]
                rows = Rows(
                    own,
                    [len(ids) for ids in own],
                    shared.within(group),
                    [alike[i] for i in group],
                    of_rows(group, numbers),
                )
                made = _answers(model, running, rows, decoding, asked.ends)
                for place, one in enumerate(made):
                    plan, row = divmod(place, len(group))
                    found[plan][group[row]] = one
                if progress is not None:
                    progress.update(len(group))
    return found


def _answers(
    model: LanguageModel, running: Hooked, rows: Rows, decoding: Decoding, ends: Ends
) -> list[Answer]:
    """Return the answers of a batch, those of each plan after those of the one before."""
    sites, device, most = model.sites, model.device, decoding.max_new_tokens
    penalty = decoding.repetition_penalty
    hidden, mask, cache = Reading(model, running, rows).prefill(most - 1)
    hidden, mask, numbers = running.divided(hidden, mask, cache, rows.numbers)
    encoded = list(rows.sequences) * running.width
    seen = Seen(encoded, model.vocabulary, sites.head_device) if penalty != 1.0 else None
    generated: list[list[int]] = [[] for _ in encoded]
    found = [Answer("", ())] * len(encoded)
    active = list(range(len(encoded)))  # the rows of the batch
    for step in range(1, most + 1):
        best = greedy(model, hidden, seen, penalty)
        kept = []
        for number, (row, token) in enumerate(zip(active, best, strict=True)):
            text = ends.text(generated[row], token, step == most)
            if text is None:
                kept.append(number)
            else:
                found[row] = Answer(text, tuple(generated[row]))
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
    return found
