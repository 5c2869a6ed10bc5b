"""Perplexity matrices: each language's neurons overwritten, every language's held-out text read.

The same text is read with and without the intervention (or, to repeat the paper's code, every cell
reads a random sample of its own: `sampled`). Per document the negative log-likelihood
(nats, summed over its predicted tokens), the number of those tokens and their bytes are kept, so
that NLL per token, perplexity exp(NLL), bits per byte and their intervals follow. Mondal et al.
2025, figures 1 and 20-24, draw PPL(j | i overwritten) - PPL(j).
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from langneurons.base.errors import present
from langneurons.base.words import UNTOUCHED
from langneurons.data.corpus import Corpus, Part
from langneurons.evaluation.power import shortfall
from langneurons.evaluation.run import Run
from langneurons.interventions.apply import each
from langneurons.interventions.branches import portions
from langneurons.interventions.plan import Plan, Under, untouched
from langneurons.models.language_model import LanguageModel
from langneurons.runtime.progress import Progress
from langneurons.scoring.nll import token_nll

log = logging.getLogger(__name__)
SAMPLED = "HeldOut: blocks drawn at random need the number of tokens"
K = TypeVar("K")
Row = tuple[str, str]  # intervention, and the language whose neurons are overwritten
LEVEL = 0.05  # of the warning alone: the level of the tests changes no record


@dataclass(frozen=True)
class HeldOut:
    """Which held-out text is read: its first tokens, or documents; all without a number.

    sampled: every cell of the matrix draws blocks of its own at random, as the paper's code does.
    """

    tokens: int | None = None
    documents: int | None = None
    sampled: bool = False


def document_nll(
    model: LanguageModel,
    corpus: Corpus,
    heldout: HeldOut,
    batch_tokens: int,
    under: Under = None,
    seed: int | None = None,
) -> pd.DataFrame | list[pd.DataFrame]:
    """Return per document of the held-out part: document, nll (sum), tokens, bytes.

    seed: draws the blocks at random instead of taking the first. Under a list of plans: by plan.
    """
    part = (
        corpus.heldout.first(heldout.tokens, heldout.documents)
        if seed is None
        else corpus.heldout.sample(present(heldout.tokens, SAMPLED), seed)
    )
    nll = token_nll(model, part.tokens, part.lengths, _scored(part), batch_tokens, under)
    return each(under, lambda own: by_document(corpus, part, own), nll)


def _scored(part: Part) -> np.ndarray:
    return part.scored & (part.document >= 0)


def by_document(corpus: Corpus, part: Part, nll: np.ndarray) -> pd.DataFrame:
    """Return document, nll (sum), tokens, bytes of the held-out documents that were read."""
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
    run: Run,
    corpora: Mapping[str, Corpus],
    plans: Mapping[str, Mapping[str, Plan]],
    heldout: HeldOut,
) -> pd.DataFrame:
    """Return the records of the matrix of each intervention, and of the untouched model once.

    `plans` are by intervention and language; the untouched model is `none` in both columns.
    Finished (plan, language) parts come from the store.
    """
    rows = {(UNTOUCHED, UNTOUCHED): untouched()}
    rows |= {(name, lang): plan for name, own in plans.items() for lang, plan in own.items()}
    digests = {row: plan.digest for row, plan in rows.items()}
    parts = {
        lang: one.heldout.first(heldout.tokens, heldout.documents) for lang, one in corpora.items()
    }
    sizes = {lang: int(part.scored.sum()) for lang, part in parts.items()}
    _warn_of_few(parts, max(map(len, plans.values()), default=0) * len(corpora))
    progress = Progress("perplexity", sum(sizes.values()) * len(rows), "tokens")
    found: dict[tuple[Row, str], pd.DataFrame] = {}
    for lang, corpus in corpora.items():
        text = {"lang": lang, "corpus_hash": corpus.header["corpus_hash"]}
        text |= {"tokens": heldout.tokens, "documents": heldout.documents}
        seeds = {row: _cell_seed(row[1], lang) if heldout.sampled else None for row in rows}
        same: dict[tuple, Row] = {}  # equal plans on equal text are run once
        for row in rows:
            same.setdefault((digests[row], seeds[row]), row)
        keys = {
            row: run.key | text | {"seed": seed, "plan": plan} for (plan, seed), row in same.items()
        }
        frames = {row: run.store.get(part) for row, part in keys.items()}
        pending = {row: rows[row] for row, frame in frames.items() if frame is None}
        progress.update(sizes[lang] * (len(rows) - len(pending)))
        for portion in _portions(run, corpus, pending, heldout.sampled):
            some, seed = [pending[row] for row in portion], seeds[portion[0]]
            nll = document_nll(run.model, corpus, heldout, run.batch_tokens, some, seed)
            for row, frame in zip(portion, nll, strict=True):
                if not np.isfinite(frame["nll"]).all():
                    where = f"{rows[row].name} on {row[1]}"
                    raise RuntimeError(f"NLL of {lang} is not finite with {where}")
                run.store.put(keys[row], frame)
                frames[row] = frame
                progress.update(sizes[lang])
        for row in rows:
            found[row, lang] = frames[same[digests[row], seeds[row]]]
    progress.finish()
    labelled = [
        found[row, lang].assign(intervention=row[0], deactivated=row[1], evaluated=lang)
        for row in rows
        for lang in corpora
    ]
    columns = ["intervention", "deactivated", "evaluated", "document", "nll", "tokens", "bytes"]
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
    run: Run, corpus: Corpus, plans: Mapping[Row, Plan], sampled: bool
) -> list[list[Row]]:
    """Return which plans to read the text under together: those that share layers."""
    if sampled:  # every cell has its own text
        return [[row] for row in plans]
    return portions_of(run, int(corpus.heldout.lengths.max()), plans)


def portions_of(run: Run, longest: int, plans: Mapping[K, Plan]) -> list[list[K]]:
    """Return which plans to read a text under together, by their keys; longest: of its rows."""
    rows = list(plans)
    if len(rows) < 2:
        return [[row] for row in rows]
    n_layers = run.model.n_layers
    first = [plans[row].begins(n_layers, of_prompts=True) for row in rows]
    return [
        [rows[k] for k in one] for one in portions(first, n_layers, run.batch_tokens // longest)
    ]
