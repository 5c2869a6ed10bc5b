"""The logit lens by language (nostalgebraist 2020; Gurgurov et al. 2025): what each layer says.

At the last position of a prompt the output of every layer goes through the final norm, once, and
the head, with the model's logit scale or soft cap, so that the last layer gives the model's own
next-token distribution. Of each distribution: the probability on the tokens of each language, the
rank of the language's best token, the entropy (nats).

Which tokens are a language's is read off the corpora, not asked of an identifier (single tokens
cannot be identified): a token belongs to a language if that language holds at least `purity` of its
relative frequencies over the set, and it occurs there `min_count` times. Tokens that languages
share (names, digits, punctuation, common stems) belong to none, so masses are lower bounds, more so
for languages that share a script. How many held-out tokens of a language are its own, and how many
another's, is measured (`coverage`).

`reading: top` repeats the code of Gurgurov et al. 2025 instead: of the five most probable tokens,
each is given to an identifier by itself; the last layer is normed twice; scale and cap are left
out.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from langneurons.base.batching import batches
from langneurons.base.digests import digest
from langneurons.base.words import UNTOUCHED
from langneurons.data.corpus import Corpus, Part
from langneurons.data.questions import plain_prompt
from langneurons.evaluation.identification import identify
from langneurons.evaluation.run import Run
from langneurons.interventions.apply import hooked
from langneurons.interventions.plan import Plan, untouched
from langneurons.models.encoding import controls_of, report_cuts
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.runtime.progress import Progress
from langneurons.scoring.head import NOT_FINITE, NotFinite, logit_blocks

log = logging.getLogger(__name__)
NOBODY = -1
ROWS = 32  # distributions held at once
COLUMNS = ["id", "layer", "language", "mass", "rank", "entropy", "top"]
Condition = tuple[str, str, str]


# Tokens of a language --------------------------------------------------------------------------


def _counts(part: Part, size: int) -> np.ndarray:
    """Return how often each token stands in the documents of a part, int64 (size,)."""
    return np.bincount(part.tokens[part.document >= 0], minlength=size)


def token_languages(
    corpora: Mapping[str, Corpus], size: int, purity: float, min_count: int
) -> np.ndarray:
    """Return the language of each token: place in sorted(corpora), or -1; int64 (size,)."""
    counts = np.stack([_counts(corpora[lang].identification, size) for lang in sorted(corpora)])
    frequency = counts / counts.sum(axis=1, keepdims=True)
    total = frequency.sum(axis=0)
    share = np.divide(frequency, total, out=np.zeros_like(frequency), where=total > 0)
    best = share.argmax(axis=0)
    column = np.arange(size)
    own = (share[best, column] >= purity) & (counts[best, column] >= min_count)
    return np.where(own, best, NOBODY)


def coverage(corpora: Mapping[str, Corpus], languages: np.ndarray) -> pd.DataFrame:
    """Return per language its tokens, and whose the tokens of its held-out text are (shares)."""
    rows = []
    for place, lang in enumerate(sorted(corpora)):
        counts = _counts(corpora[lang].heldout, len(languages))
        own = counts[languages == place].sum() / counts.sum()
        nobody = counts[languages == NOBODY].sum() / counts.sum()
        rows.append(
            {
                "language": lang,
                "vocabulary": int((languages == place).sum()),
                "own": float(own),
                "others": float(1 - own - nobody),
                "nobody": float(nobody),
            }
        )
    return pd.DataFrame(rows)


# Layers ----------------------------------------------------------------------------------------


def final_norm(sites: MlpSites) -> nn.Module:
    """Return the norm before the head; models without one get the identity."""
    if getattr(getattr(sites.backbone, "decoder", None), "project_out", None) is not None:
        raise ValueError("logit lens: the model projects its states before the head; unsupported")
    try:
        norm = sites.backbone.get_submodule(sites.family.norm)
    except AttributeError:
        if sites.family.norm.startswith("decoder."):
            return nn.Identity()
        raise ValueError(
            f"logit lens: no module {sites.family.norm!r} in {type(sites.backbone).__name__}."
            " Mend `norm` in FAMILIES in src/langneurons/models/families.py."
        ) from None
    return norm if norm is not None else nn.Identity()


@torch.inference_mode()
def layer_states(
    model: LanguageModel,
    encoded: Sequence[Sequence[int]],
    batch_tokens: int,
    under: Plan | None = None,
) -> list[torch.Tensor]:
    """Return the output of every layer at each prompt's last token, (n_layers, d_model) each."""
    sites, device = model.sites, model.device
    states: dict[int, torch.Tensor] = {}
    with hooked(model, under) as running:
        for group in batches([len(ids) for ids in encoded], batch_tokens):
            longest = len(encoded[group[0]])
            batch = torch.zeros(len(group), longest, dtype=torch.int64)
            for row, i in enumerate(group):
                batch[row, : len(encoded[i])] = torch.tensor(encoded[i])
            last = torch.tensor([len(encoded[i]) - 1 for i in group], device=device)
            kept: list[torch.Tensor] = []

            def keep(
                _module: nn.Module,
                _inputs: tuple,
                output: Any,
                kept: list[torch.Tensor] = kept,
                last: torch.Tensor = last,
            ) -> None:
                hidden = output[0] if isinstance(output, tuple) else output
                rows, last = torch.arange(len(last)), last.to(hidden.device)
                kept.append(hidden[rows.to(hidden.device), last].to(sites.head_device, copy=True))

            handles = [layer.register_forward_hook(keep) for layer in sites.layers]
            try:
                valid = torch.arange(longest, device=device) <= last[:, None]
                running.begin()
                running.announce(torch.ones_like(valid), valid)
                sites.backbone(input_ids=batch.to(device), use_cache=False)
            finally:
                for handle in handles:
                    handle.remove()
            for row, i in enumerate(group):
                states[i] = torch.stack([layer[row] for layer in kept])
    return [states[i] for i in range(len(encoded))]


@torch.inference_mode()
def distributions(
    sites: MlpSites, states: torch.Tensor, twice: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the logits (n, vocabulary), float32, of states (n, d_model) through norm and head.

    `twice`, bool (n,): where the norm acts twice; scale and cap are then left out.
    """
    norm = final_norm(sites)
    places = [parameter.device for parameter in norm.parameters()]
    hidden = norm(states.to(places[0]) if places else states)
    if twice is not None:
        hidden = torch.where(twice[:, None].to(hidden.device), norm(hidden), hidden)
        return sites.head(hidden.to(sites.head_device)).float()
    hidden = hidden.to(sites.head_device)
    return torch.cat([part for _, part in logit_blocks(sites.head, hidden, sites.config)], 1)


def by_language(
    logits: torch.Tensor, languages: torch.Tensor, n_languages: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mass (n, language), rank of the best token (n, language; 1 first), entropy (n,).

    languages: int64 (vocabulary,), -1 for tokens of nobody. A language without tokens has mass 0
    and rank 0.
    """
    logprob = torch.log_softmax(logits.double(), 1)
    probability = logprob.exp()
    entropy = -(probability * logprob.clamp(min=-1e4)).sum(1)
    # A model may have more rows in its head than its corpus has tokens; they are nobody's.
    place = torch.full((logits.shape[1],), n_languages, device=logits.device)
    given = languages[: logits.shape[1]].to(logits.device)
    place[: len(given)] = torch.where(given < 0, n_languages, given)
    mass = torch.zeros(len(logits), n_languages + 1, dtype=torch.float64, device=logits.device)
    mass.index_add_(1, place, probability)
    ranks = torch.zeros(len(logits), n_languages, dtype=torch.int64, device=logits.device)
    for number in range(n_languages):
        own = place == number
        if own.any():
            best = logits[:, own].amax(1, keepdim=True)
            ranks[:, number] = 1 + (logits > best).sum(1)
    return mass[:, :n_languages], ranks, entropy


class _Top:
    """Languages of the most probable tokens, each identified by itself."""

    NUMBER = 5

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, identifier: Mapping, order: Sequence[str]
    ):
        self.tokenizer, self.identifier = tokenizer, identifier
        self.places = {lang: place for place, lang in enumerate(order)}
        self.known: dict[int, int] = {}

    def __call__(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what `by_language` returns; the rank is 1 to 5, or 0."""
        logprob = torch.log_softmax(logits.double(), 1)
        entropy = -(logprob.exp() * logprob.clamp(min=-1e4)).sum(1)
        best, tokens = logprob.topk(self.NUMBER, dim=1)
        mass = torch.zeros(len(logits), len(self.places), dtype=torch.float64)
        ranks = torch.zeros(len(logits), len(self.places), dtype=torch.int64)
        self._identify(tokens.unique().tolist())
        for row, own in enumerate(tokens.tolist()):
            for place, token in reversed(list(enumerate(own))):
                lang = self.known[token]
                if lang != NOBODY:
                    mass[row, lang] += float(best[row, place].exp())
                    ranks[row, lang] = place + 1
        return mass, ranks, entropy

    def _identify(self, tokens: list[int]) -> None:
        new = [token for token in tokens if token not in self.known]
        texts = [str(self.tokenizer.decode([token])) for token in new]
        for token, lang in zip(new, identify(texts, self.identifier), strict=True):
            self.known[token] = self.places.get(lang, NOBODY)


@dataclass(frozen=True)
class Lens:
    """How layers are read.

    order: languages behind the places in `languages`; languages: the language of each token, place
    in `order` or -1, int64 (vocabulary,); template: of the prompts; identifier: settings of the
    identifier of `reading: top`, None for `reading: corpus`.
    """

    order: Sequence[str]
    languages: np.ndarray
    template: str
    identifier: Mapping | None = None

    @property
    def digest(self) -> str:
        """A digest of what is read off a distribution."""
        return digest([list(self.order), self.languages.tolist(), self.identifier])


def read_prompts(
    model: LanguageModel,
    rows: Sequence[Mapping],
    lens: Lens,
    batch_tokens: int,
    under: Plan | None = None,
) -> pd.DataFrame:
    """Return id, layer, language, mass, rank, entropy, top: a row per prompt, layer, language.

    `top` is the most probable token.
    """
    encoder = model.encoder(controls_of(model.tokenizer, [lens.template]))
    made = [encoder.prompt(plain_prompt(row, lens.template)) for row in rows]
    report_cuts("prompts of the logit lens", [one.cut for one in made], model.max_positions)
    states = layer_states(model, [one.tokens for one in made], batch_tokens, under)
    n_layers = len(states[0])
    flat = torch.cat(states)
    chosen, frames = torch.from_numpy(lens.languages), []
    as_paper = None
    if lens.identifier is not None:
        as_paper = _Top(model.tokenizer, lens.identifier, lens.order)
    last = torch.arange(len(flat)) % n_layers == n_layers - 1
    for start in range(0, len(flat), ROWS):
        some = slice(start, start + ROWS)
        if as_paper is None:
            logits = distributions(model.sites, flat[some])
            mass, rank, entropy = by_language(logits, chosen, len(lens.order))
        else:
            logits = distributions(model.sites, flat[some], last[some])
            mass, rank, entropy = as_paper(logits)
        if not torch.isfinite(logits).all():
            raise NotFinite(f"logit lens: {NOT_FINITE}")
        top = model.tokenizer.convert_ids_to_tokens(logits.argmax(1).tolist())
        for row in range(len(logits)):
            prompt, layer = divmod(start + row, n_layers)
            frames.append(
                pd.DataFrame(
                    {
                        "id": rows[prompt]["id"],
                        "layer": layer,
                        "language": list(lens.order),
                        "mass": mass[row].cpu().numpy(),
                        "rank": rank[row].cpu().numpy(),
                        "entropy": float(entropy[row]),
                        "top": str(top[row]),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)[COLUMNS]


def read_layers(
    run: Run,
    questions: Mapping[str, Sequence[dict]],
    plans: Mapping[Condition, Mapping[str, Plan]],
    corpora: Mapping[str, Corpus],
    settings: Mapping,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the records of every prompt language and condition, and `coverage`.

    `plans` by (selection, intervention, target) hold a plan per prompt language; the untouched
    model is always among the records. `settings` holds template, purity, min_count, and may hold
    reading and identifier.
    """
    languages = token_languages(
        corpora, run.model.vocabulary, settings["purity"], settings["min_count"]
    )
    identifier = settings["identifier"] if settings.get("reading") == "top" else None
    lens = Lens(sorted(corpora), languages, settings["template"], identifier)
    none = {lang: untouched() for lang in questions}
    conditions = {(UNTOUCHED, UNTOUCHED, UNTOUCHED): none, **plans}
    progress = Progress("logit lens", sum(map(len, conditions.values())), "conditions")
    read, frames = {"template": lens.template, "tokens": lens.digest}, []
    for (selection, intervention, target), own in conditions.items():
        for lang, plan in own.items():
            rows = list(questions[lang])
            part = run.key | read | {"questions": digest(rows), "plan": plan.digest}
            frame = run.store.get(part)
            if frame is None:
                frame = read_prompts(run.model, rows, lens, run.batch_tokens, plan)
                run.store.put(part, frame)
            progress.update()
            labels = {"selection": selection, "intervention": intervention, "target": target}
            frames.append(frame.assign(**labels, lang=lang))
    progress.finish()
    first = ["selection", "intervention", "target", "lang"]
    return pd.concat(frames, ignore_index=True)[first + COLUMNS], coverage(corpora, languages)
