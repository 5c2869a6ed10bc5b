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

from langneurons.adapters import MlpSites
from langneurons.branches import Branched, branched, portions
from langneurons.corpora import Corpus, Part
from langneurons.interventions import Plan, applied
from langneurons.progress import Progress
from langneurons.scoring import token_nll
from langneurons.sidestore import SideStore

log = logging.getLogger(__name__)
BASELINE = "none"


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
):
    """Return per document of the held-out part: document, nll (sum), tokens, bytes.

    `seed` draws the blocks at random instead of taking the first.
    """
    part = corpus.heldout.first(tokens) if seed is None else corpus.heldout.sample(tokens, seed)
    scored = part.scored & (part.document >= 0)
    nll = token_nll(model, part.tokens, part.lengths, scored, batch_tokens, on_forward=on_forward)
    return _by_document(corpus, part, scored, nll)


def branch_nll(model, corpus: Corpus, tokens: int | None, batch_tokens: int, running: Branched):
    """Return what `document_nll` returns, under each plan of `running`."""
    part = corpus.heldout.first(tokens)
    scored = part.scored & (part.document >= 0)
    losses = token_nll(
        model,
        part.tokens,
        part.lengths,
        scored,
        batch_tokens,
        on_forward=running.on_forward,
        branches=running.blocks,
    )
    return [_by_document(corpus, part, scored, nll) for nll in losses]


def _by_document(corpus: Corpus, part: Part, scored: np.ndarray, nll: np.ndarray) -> pd.DataFrame:
    """Return the sums of a loss per token over each document that has predicted tokens."""
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
) -> pd.DataFrame:
    """Return the records of one matrix, rows `none` (untouched) and each language of `plans`.

    Finished (plan, language) parts come from the store; `key` holds the identity of model and
    code. Plans that leave the first layers alone read them once (`langneurons.branches`).
    """
    sites = MlpSites(model)
    rows = {BASELINE: Plan(BASELINE), **plans}
    sizes = {lang: int(one.heldout.first(tokens).scored.sum()) for lang, one in corpora.items()}
    progress = Progress("perplexity", sum(sizes.values()) * len(rows), "tokens")
    written = {deactivated: plan_digest(plan) for deactivated, plan in rows.items()}
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for lang, corpus in corpora.items():
        keys: dict[str, dict] = {}
        first: dict[tuple, str] = {}  # by what is written and read: equal cells are run once
        for deactivated in rows:
            keys[deactivated] = key | {
                "lang": lang,
                "corpus_hash": corpus.header["corpus_hash"],
                "tokens": tokens,
                "plan": written[deactivated],
            }
            if sampled:
                keys[deactivated]["seed"] = _cell_seed(deactivated, lang)
            content = (written[deactivated], keys[deactivated].get("seed"))
            frame = None if content in first else store.get(keys[deactivated])
            if frame is None:
                first.setdefault(content, deactivated)
            else:
                found[deactivated, lang] = frame
                progress.update(sizes[lang])
        pending = list(first.values())
        longest = int(corpus.heldout.first(tokens).lengths.max(initial=1))
        limit = 1 if sampled else batch_tokens // longest
        chosen = portions([rows[name] for name in pending], sites.n_layers, limit)
        for names in [[pending[number] for number in numbers] for numbers in chosen]:
            if len(names) > 1:
                with branched(sites, [rows[name] for name in names]) as running:
                    frames = branch_nll(model, corpus, tokens, batch_tokens, running)
            else:
                with applied(sites, rows[names[0]]) as running:
                    seed = keys[names[0]].get("seed")
                    frames = [
                        document_nll(model, corpus, tokens, batch_tokens, running.on_forward, seed)
                    ]
            for deactivated, frame in zip(names, frames, strict=True):
                if not np.isfinite(frame["nll"]).all():
                    name = rows[deactivated].name
                    raise RuntimeError(f"NLL of {lang} is not finite with {name} on {deactivated}")
                store.put(keys[deactivated], frame)
                found[deactivated, lang] = frame
                progress.update(sizes[lang])
        for deactivated in rows:
            if (deactivated, lang) not in found:
                same = first[written[deactivated], keys[deactivated].get("seed")]
                found[deactivated, lang] = found[same, lang]
                progress.update(sizes[lang])
    frames = [
        found[deactivated, lang].assign(deactivated=deactivated, evaluated=lang)
        for deactivated in rows
        for lang in corpora
    ]
    progress.finish()
    columns = ["deactivated", "evaluated", "document", "nll", "tokens", "bytes"]
    return pd.concat(frames, ignore_index=True)[columns]
