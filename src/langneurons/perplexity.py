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
from langneurons.corpora import Corpus
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
    code.
    """
    sites = MlpSites(model)
    rows = {BASELINE: Plan(BASELINE), **plans}
    sizes = {lang: int(one.heldout.first(tokens).scored.sum()) for lang, one in corpora.items()}
    progress = Progress("perplexity", sum(sizes.values()) * len(rows), "tokens")
    frames = []
    for deactivated, plan in rows.items():
        for lang, corpus in corpora.items():
            seed = _cell_seed(deactivated, lang) if sampled else None
            part_key = (
                key
                | ({"seed": seed} if sampled else {})
                | {
                    "lang": lang,
                    "corpus_hash": corpus.header["corpus_hash"],
                    "tokens": tokens,
                    "plan": plan_digest(plan),
                }
            )
            frame = store.get(part_key)
            if frame is None:
                with applied(sites, plan) as running:
                    frame = document_nll(
                        model, corpus, tokens, batch_tokens, running.on_forward, seed
                    )
                if not np.isfinite(frame["nll"]).all():
                    raise RuntimeError(
                        f"NLL of {lang} is not finite with {plan.name} on {deactivated}"
                    )
                store.put(part_key, frame)
            progress.update(sizes[lang])
            frames.append(frame.assign(deactivated=deactivated, evaluated=lang))
    progress.finish()
    columns = ["deactivated", "evaluated", "document", "nll", "tokens", "bytes"]
    return pd.concat(frames, ignore_index=True)[columns]
