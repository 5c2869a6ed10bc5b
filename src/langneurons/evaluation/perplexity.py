"""Perplexity matrices: each language's neurons overwritten, every language's held-out text read.

The same text is read with and without the intervention (or, to repeat the paper's code, every cell
reads a random sample of its own: `sampled`). Per document the negative log-likelihood
(nats, summed over its predicted tokens), the number of those tokens and their bytes are kept, so
that NLL per token, perplexity exp(NLL), bits per byte and their intervals follow. Mondal et al.
2025, figures 1 and 20-24, draw PPL(j | i overwritten) - PPL(j).

The documents may be read in several looks, so that whoever takes the records can stop in between.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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
    predicted = _predicted(part)
    owner = part.document[predicted]
    n_documents = len(part.documents)
    counts = np.bincount(owner, minlength=n_documents)
    sums = np.bincount(owner, weights=nll[predicted], minlength=n_documents)
    frame = pd.DataFrame(
        {
            "document": part.documents,
            "nll": sums,
            "tokens": counts.astype(np.int64),
            "bytes": _bytes(corpus, part, counts),
        }
    )
    return frame[frame["tokens"] > 0].reset_index(drop=True)


def _predicted(part: Part) -> np.ndarray:
    predicted = _scored(part)
    predicted[:, 0] = False
    return predicted


def _bytes(corpus: Corpus, part: Part, counts: np.ndarray) -> np.ndarray:
    """Return each document's share of its bytes, from the number of its predicted tokens."""
    full = corpus.heldout.document
    totals = np.bincount(full[full >= 0], minlength=len(part.documents))
    sizes = np.asarray(part.document_bytes, np.float64) * counts / np.maximum(totals, 1)
    return np.rint(sizes).astype(np.int64)


def in_looks(part: Part, looks: int) -> list[tuple[Part, int]]:
    """Return the blocks of each look, and the number up to which documents are then whole.

    Looks hold equal numbers of documents, in the order of the text; every block is in one look.
    """
    documents = np.unique(part.document[_predicted(part)])
    found, begin = [], 0
    for look in range(1, looks + 1):
        number = -(-len(documents) * look // looks)
        last = int(documents[number - 1]) + 1 if number else 0
        inside = ((part.document >= 0) & (part.document < last)).any(axis=1)
        end = max(begin, int(np.flatnonzero(inside).max(initial=-1)) + 1)
        end = len(part.lengths) if look == looks else end
        own = slice(begin, end)
        blocks = part.tokens[own], part.lengths[own], part.document[own], part.scored[own]
        found.append((Part(*blocks, part.documents, part.document_bytes), last))
        begin = end
    return found


def _joined(corpus: Corpus, part: Part, frames: Sequence[pd.DataFrame], last: int) -> pd.DataFrame:
    """Return the records of the documents before `last`, parts of which may lie in two looks."""
    if len(frames) == 1:
        whole = frames[0]
    else:
        by_name = pd.concat(frames).groupby("document", sort=False, as_index=False)
        whole = by_name[["nll", "tokens"]].sum()
    number = {name: place for place, name in enumerate(part.documents)}
    places = whole["document"].map(number).to_numpy()
    counts = np.zeros(len(part.documents), np.int64)
    counts[places] = whole["tokens"]
    whole = whole.assign(bytes=_bytes(corpus, part, counts)[places])
    return whole[places < last].reset_index(drop=True)


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
    (frame,) = measure_in_looks(run, corpora, plans, heldout, 1)
    return frame


def measure_in_looks(
    run: Run,
    corpora: Mapping[str, Corpus],
    plans: Mapping[str, Mapping[str, Plan]],
    heldout: HeldOut,
    looks: int,
) -> Iterator[pd.DataFrame]:
    """Yield the records of `measure` after each look, of all documents that are then read.

    A look is an equal share of the documents, the same in every cell of a language. The last
    records are those of the whole text. Every cell has a sample of its own: one look only.
    """
    if heldout.sampled and looks > 1:
        raise ValueError("looks: cells that draw samples of their own have one look")
    rows = {(UNTOUCHED, UNTOUCHED): untouched()}
    rows |= {(name, lang): plan for name, own in plans.items() for lang, plan in own.items()}
    parts = {
        lang: one.heldout.first(heldout.tokens, heldout.documents) for lang, one in corpora.items()
    }
    _warn_of_few(parts, max(map(len, plans.values()), default=0) * len(corpora), looks)
    shares = {lang: in_looks(part, looks) for lang, part in parts.items()}
    size = sum(int(part.scored.sum()) for part in parts.values())
    progress = Progress("perplexity", size * len(rows), "tokens")
    read: dict[tuple[Row, str], list[pd.DataFrame]] = {}
    for look in range(looks):
        found: dict[tuple[Row, str], pd.DataFrame] = {}
        for lang, corpus in corpora.items():
            part, last = shares[lang][look]
            key = {"look": [look, looks]} if looks > 1 else {}
            frames = _read(run, corpus, part, rows, heldout, key, progress)
            for row, frame in frames.items():
                read.setdefault((row, lang), []).append(frame)
                together = read[row, lang]
                found[row, lang] = (
                    frame if looks == 1 else _joined(corpus, parts[lang], together, last)
                )
        if look == looks - 1:
            progress.finish()
        labelled = [
            found[row, lang].assign(intervention=row[0], deactivated=row[1], evaluated=lang)
            for row in rows
            for lang in corpora
        ]
        columns = ["intervention", "deactivated", "evaluated", "document", "nll", "tokens", "bytes"]
        yield pd.concat(labelled, ignore_index=True)[columns]


def _read(
    run: Run,
    corpus: Corpus,
    part: Part,
    rows: Mapping[Row, Plan],
    heldout: HeldOut,
    key: Mapping[str, Any],
    progress: Progress,
) -> dict[Row, pd.DataFrame]:
    """Return the records of a language under each plan; parts that are finished are not read."""
    lang, size = corpus.lang, int(part.scored.sum())
    text: dict[str, Any] = {"lang": lang, "corpus_hash": corpus.header["corpus_hash"]}
    text |= {"tokens": heldout.tokens, "documents": heldout.documents, **key}
    seeds = {row: _cell_seed(row[1], lang) if heldout.sampled else None for row in rows}
    digests = {row: plan.digest for row, plan in rows.items()}
    same: dict[tuple, Row] = {}  # equal plans on equal text are run once
    for row in rows:
        same.setdefault((digests[row], seeds[row]), row)
    keys = {
        row: run.key | text | {"seed": seed, "plan": plan} for (plan, seed), row in same.items()
    }
    frames = {row: run.store.get(one) for row, one in keys.items()}
    pending = {row: rows[row] for row, frame in frames.items() if frame is None}
    progress.update(size * (len(rows) - len(pending)))
    for portion in _portions(run, corpus, pending, heldout.sampled):
        some, seed = [pending[row] for row in portion], seeds[portion[0]]
        own = part
        if seed is not None:
            own = corpus.heldout.sample(present(heldout.tokens, SAMPLED), seed)
        scored = _scored(own)
        nll = token_nll(run.model, own.tokens, own.lengths, scored, run.batch_tokens, some)
        for row, values in zip(portion, nll, strict=True):
            frame = by_document(corpus, own, values)
            if not np.isfinite(frame["nll"]).all():
                where = f"{rows[row].name} on {row[1]}"
                raise RuntimeError(f"NLL of {lang} is not finite with {where}")
            run.store.put(keys[row], frame)
            frames[row] = frame
            progress.update(size)
    done = {row: present(frame, "perplexity: a text was not read") for row, frame in frames.items()}
    return {row: done[same[digests[row], seeds[row]]] for row in rows}


def _warn_of_few(parts: Mapping[str, Part], family: int, looks: int) -> None:
    """Say before anything is read where no cell of the matrix can be significant."""
    for lang, part in parts.items():
        units = len(np.unique(part.document[_predicted(part)]))
        if few := shortfall(units, family, LEVEL / looks, "documents"):
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
