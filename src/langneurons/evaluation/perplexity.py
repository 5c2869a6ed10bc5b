"""The perplexity matrix: each language's neurons overwritten, every language's held-out text read.

The same text is read with and without the intervention (or, to repeat the paper's code, every cell
reads a random sample of its own: `sampled`). Per document the negative log-likelihood
(nats, summed over its predicted tokens), the number of those tokens and their bytes are kept, so
that NLL per token, perplexity exp(NLL), bits per byte and their intervals follow. Mondal et al.
2025, figures 1 and 20-24, draw PPL(j | i overwritten) - PPL(j).
"""

import hashlib
import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd

from langneurons.base.store import SideStore
from langneurons.data.corpus import Corpus, Part
from langneurons.evaluation.power import shortfall
from langneurons.interventions.branches import Branched, branched, portions
from langneurons.interventions.hooks import Plan, applied
from langneurons.models.families import MlpSites
from langneurons.runtime.progress import Progress
from langneurons.scoring.primitives import token_nll

log = logging.getLogger(__name__)
BASELINE = "none"
LEVEL = 0.05  # of the warning alone: the level of the tests changes no record


def plan_digest(plan: Plan) -> str:
    """Return a digest of what a plan writes: equal plans under other names are equal."""
    result = hashlib.sha256()
    for write in plan.writes:
        result.update(f"{write.layer}:{write.site}:{write.operation}:{write.tokens}:".encode())
        result.update(np.ascontiguousarray(write.index).tobytes())
        result.update(np.ascontiguousarray(write.value).tobytes())
        if write.factor is not None:
            result.update(f":{write.factor.name}:{write.factor.ranks}".encode())
    return result.hexdigest()[:32]


def document_nll(
    model,
    corpus: Corpus,
    tokens: int | None,
    batch_tokens: int,
    on_forward=None,
    seed: int | None = None,
    documents: int | None = None,
) -> pd.DataFrame:
    """Return per document of the held-out part: document, nll (sum), tokens, bytes.

    `seed` draws the blocks at random instead of taking the first.
    """
    part = (
        corpus.heldout.first(tokens, documents)
        if seed is None
        else corpus.heldout.sample(tokens, seed)
    )
    scored = _scored(part)
    nll = token_nll(model, part.tokens, part.lengths, scored, batch_tokens, on_forward=on_forward)
    return _documents(corpus, part, nll)


def branch_nll(
    model,
    corpus: Corpus,
    tokens: int | None,
    batch_tokens: int,
    branches: Branched,
    documents: int | None = None,
) -> list[pd.DataFrame]:
    """Return what `document_nll` returns, under each plan."""
    part = corpus.heldout.first(tokens, documents)
    scored = _scored(part)
    nll = token_nll(model, part.tokens, part.lengths, scored, batch_tokens, branches=branches)
    return [_documents(corpus, part, of_plan) for of_plan in nll]


def _scored(part: Part) -> np.ndarray:
    return part.scored & (part.document >= 0)


def _documents(corpus: Corpus, part: Part, nll: np.ndarray) -> pd.DataFrame:
    """Sum the NLL of tokens over their documents."""
    scored = _scored(part)
    predicted = scored.copy()
    predicted[:, 0] = False
    owner = part.document[predicted]
    n_documents = len(part.documents)
    counts = np.bincount(owner, minlength=n_documents)
    sums = np.bincount(owner, weights=nll[predicted], minlength=n_documents)
    full = corpus.heldout.document
    totals = np.bincount(full[full >= 0], minlength=n_documents)
    sizes = np.asarray(part.document_bytes, np.float64) * counts / np.maximum(totals, 1)
    frame = pd.DataFrame(
        {
            "document": part.documents,
            "nll": sums,
            "tokens": counts.astype(np.int64),
            "bytes": np.rint(sizes).astype(np.int64),
        }
    )
    return frame[frame["tokens"] > 0].reset_index(drop=True)


def _cell_seed(deactivated: str, evaluated: str) -> int:
    """Return the seed of a cell's own sample."""
    return int(hashlib.sha256(f"{deactivated}>{evaluated}".encode()).hexdigest()[:8], 16)


def measure(
    model,
    corpora: Mapping[str, Corpus],
    plans: Mapping[str, Plan],
    store: SideStore,
    key: dict,
    tokens: int | None,
    batch_tokens: int,
    sampled: bool = False,
    documents: int | None = None,
) -> pd.DataFrame:
    """Return the records of one matrix, rows `none` (untouched) and each language of `plans`.

    Finished (plan, language) parts come from the store; `key` holds the identity of model and
    code.
    """
    sites = MlpSites(model)
    rows = {BASELINE: Plan(BASELINE), **plans}
    digests = {name: plan_digest(plan) for name, plan in rows.items()}
    parts = {lang: one.heldout.first(tokens, documents) for lang, one in corpora.items()}
    sizes = {lang: int(part.scored.sum()) for lang, part in parts.items()}
    _warn_of_few(parts, len(plans) * len(corpora))
    progress = Progress("perplexity", sum(sizes.values()) * len(rows), "tokens")
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for lang, corpus in corpora.items():
        text = {"lang": lang, "corpus_hash": corpus.header["corpus_hash"], "tokens": tokens}
        text |= {} if documents is None else {"documents": documents}
        seeds = {name: _cell_seed(name, lang) if sampled else None for name in rows}
        same: dict[tuple, str] = {}  # equal plans on equal text are run once
        for name in rows:
            same.setdefault((digests[name], seeds[name]), name)
        keys = {
            name: key | ({"seed": seed} if sampled else {}) | text | {"plan": plan}
            for (plan, seed), name in same.items()
        }
        frames = {name: store.get(part) for name, part in keys.items()}
        pending = {name: rows[name] for name, frame in frames.items() if frame is None}
        progress.update(sizes[lang] * (len(rows) - len(pending)))
        for names in _portions(sites, corpus, pending, batch_tokens, sampled):
            chosen = {name: pending[name] for name in names}
            computed = _computed(
                model, sites, corpus, chosen, tokens, batch_tokens, seeds, documents
            )
            for name, frame in computed.items():
                if not np.isfinite(frame["nll"]).all():
                    intervention = rows[name].name
                    raise RuntimeError(f"NLL of {lang} is not finite with {intervention} on {name}")
                store.put(keys[name], frame)
                progress.update(sizes[lang])
            frames |= computed
        for name in rows:
            found[name, lang] = frames[same[digests[name], seeds[name]]]
    progress.finish()
    labelled = [
        found[name, lang].assign(deactivated=name, evaluated=lang)
        for name in rows
        for lang in corpora
    ]
    columns = ["deactivated", "evaluated", "document", "nll", "tokens", "bytes"]
    return pd.concat(labelled, ignore_index=True)[columns]


def _warn_of_few(parts: Mapping[str, Part], family: int) -> None:
    """Say before anything is read where no cell of the matrix can be significant."""
    for lang, part in parts.items():
        scored = _scored(part)
        scored[:, 0] = False
        units = len(np.unique(part.document[scored]))
        if few := shortfall(units, family, LEVEL, "documents"):
            log.warning("%s: %s", lang, few)


def _portions(
    sites, corpus: Corpus, plans: Mapping[str, Plan], batch_tokens: int, sampled: bool
) -> list[list[str]]:
    """Return which plans to read the text under together: those that share layers."""
    names = list(plans)
    if sampled or len(names) < 2:  # every cell has its own text, or there is one
        return [[name] for name in names]
    first = [plans[name].begins(sites.n_layers, of_prompts=True) for name in names]
    limit = batch_tokens // int(corpus.heldout.lengths.max())
    return [[names[k] for k in one] for one in portions(first, sites.n_layers, limit)]


def _computed(
    model, sites, corpus: Corpus, plans: Mapping[str, Plan], tokens, batch_tokens, seeds, documents
) -> dict[str, pd.DataFrame]:
    """Return the records of one text under each plan."""
    if len(plans) > 1:
        with branched(sites, list(plans.values())) as running:
            found = branch_nll(model, corpus, tokens, batch_tokens, running, documents)
        return dict(zip(plans, found, strict=True))
    ((name, plan),) = plans.items()
    with applied(sites, plan) as running:
        found = document_nll(
            model, corpus, tokens, batch_tokens, running.on_forward, seeds[name], documents
        )
    return {name: found}
