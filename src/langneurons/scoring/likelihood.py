"""Log-probability of a continuation given a context, the same one by one and in any batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from langneurons.interventions.apply import hooked, results
from langneurons.interventions.hooks import Hooked
from langneurons.interventions.plan import Under
from langneurons.models.chat import Chat
from langneurons.models.language_model import LanguageModel
from langneurons.runtime.halving import Batches
from langneurons.runtime.progress import Progress
from langneurons.scoring.head import NOT_FINITE, NotFinite, target_logprobs
from langneurons.scoring.keyvalues import shareable
from langneurons.scoring.reading import Reading, Rows, Shared, numbers_of, of_rows

Score = tuple[float, bool]


@dataclass(frozen=True)
class Request:
    """Tokens of a context and its continuation, and how many are the latter's.

    cut: tokens of the context that did not fit; apart: the continuation was encoded by itself,
    because a token would span the two (see `langneurons.models.encoding`).
    """

    tokens: tuple[int, ...]
    size: int
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

    def places(self, number: int) -> tuple:
        """Return what must agree for a token to be shared: plan's number, token, part."""
        return (number, *(2 * t + (k < self.context) for k, t in enumerate(self.read)))


def encode_requests(
    model: LanguageModel,
    requests: Sequence[tuple[str, str]],
    joint: bool = True,
    controls: Mapping[str, int] | None = None,
    names: Sequence[str] | None = None,
) -> list[Request]:
    """Return the tokens of each (context, continuation); see `models.encoding.Encoder`.

    names: what an error calls each request; left out: its number.
    """
    encoder = model.encoder(controls)
    encoded = []
    for number, (context, continuation) in enumerate(requests):
        try:
            pair = encoder.pair(context, continuation, joint)
            tokens, cut = encoder.fitted(pair)
        except ValueError as error:
            name = f"request {number}" if names is None else names[number]
            raise ValueError(f"{name}, context {context[-60:]!r}: {error}") from None
        encoded.append(Request(tuple(tokens), len(pair.continuation), cut, pair.apart))
    return encoded


def encode_replies(
    chat: Chat, requests: Sequence[tuple[str, str]], names: Sequence[str]
) -> list[Request]:
    """Return the tokens of each (what the user says, reply) by a chat template."""
    encoded = []
    for (said, answer), name in zip(requests, names, strict=True):
        try:
            pair, cut = chat.reply(chat.messages(said.strip()), answer)
        except ValueError as error:
            raise ValueError(f"{name}, message {said[-60:]!r}: {error}") from None
        tokens = (*pair.context, *pair.continuation)
        encoded.append(Request(tokens, len(pair.continuation), cut, pair.apart))
    return encoded


@torch.inference_mode()
def loglikelihood(
    model: LanguageModel,
    requests: Sequence[tuple[str, str] | Request],
    batch_tokens: int,
    under: Under = None,
    progress: Progress | None = None,
    joint: bool = True,
) -> list[Score] | list[list[Score]]:
    """Return log p(continuation | context) in nats, and whether greedy decoding would give it.

    Requests are texts, or what `encode_requests` made of them. `joint`: tokenise both together
    (see `langneurons.models.encoding.Encoder.pair`). Equal requests under one plan are computed
    once; a context that does not fit loses tokens at its left. Under a list of plans: by plan.
    """
    numbers = numbers_of(under, len(requests))
    encoded = _encoded(model, requests, joint)
    asked = list(zip(numbers or [0] * len(encoded), encoded, strict=True))
    unique = list(dict.fromkeys(asked))
    with hooked(model, under) as running:
        found: list[dict[tuple[int, Request], Score]] = [{} for _ in range(running.width)]
        sizes = [len(one.read) for _, one in unique]
        shared = Shared(model, running, [one.places(number) for number, one in unique])
        work = Batches(shared.batches(sizes, batch_tokens // running.width), sizes, "request")
        for group in work:
            with work.fitting():
                batch = [unique[i] for i in group]
                which = of_rows(group, None if numbers is None else [n for n, _ in unique])
                scores = _scores(model, running, batch, shared.within(group), which)
                for values, own in zip(found, scores, strict=True):
                    values.update(zip(batch, own, strict=True))
                if progress is not None:
                    tokens = sum(len(one.tokens) for _, one in batch)
                    progress.update(len(group), tokens=tokens * running.width)
    return results(under, [[values[item] for item in asked] for values in found])


def _encoded(
    model: LanguageModel, requests: Sequence[Request | tuple[str, str]], joint: bool
) -> list[Request]:
    """Return requests with their tokens."""
    texts = [one for one in requests if not isinstance(one, Request)]
    made = iter(encode_requests(model, texts, joint))
    return [one if isinstance(one, Request) else next(made) for one in requests]


def _scores(
    model: LanguageModel,
    running: Hooked,
    batch: Sequence[tuple[int, Request]],
    depths: Sequence[int],
    which: torch.Tensor | None,
) -> list[list[Score]]:
    """Return the score of each request of a batch, by the results of a row."""
    alike, asked = [number for number, _ in batch], [one for _, one in batch]
    if running.late and running.by_token and shareable(model.config):
        # Contexts by themselves, which some plans leave alone.
        depths = [
            min(depth or one.context, one.context) for depth, one in zip(depths, asked, strict=True)
        ]
    contexts = [one.context for one in asked]
    rows = Rows([one.read for one in asked], contexts, depths, alike, which)
    reading = Reading(model, running, rows)
    states = reading.run()
    places, owner = [], []
    for row, one in enumerate(asked):
        for column in range(one.context - 1, len(one.tokens) - 1):
            places.append((reading.place(row, column), one.tokens[column + 1]))
            owner.append(row)
    # Tokens of a shared beginning are scored once.
    pairs, inverse = np.unique(np.array(places), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    chosen = torch.from_numpy(pairs).to(model.device)
    found = []
    for of_plan in states:
        logprob, greedy = target_logprobs(
            model.head, of_plan[chosen[:, 0]], chosen[:, 1], model.config
        )
        weights = logprob.double().cpu().numpy()[inverse]
        if not np.isfinite(weights).all():
            raise NotFinite(NOT_FINITE)
        sums = np.bincount(owner, weights=weights, minlength=len(asked))
        misses = np.bincount(owner, weights=~greedy.cpu().numpy()[inverse])
        found.append([(float(sums[k]), bool(misses[k] == 0)) for k in range(len(asked))])
    return found
