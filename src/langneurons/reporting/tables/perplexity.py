"""Tables of the change of perplexity."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from langneurons.base.words import UNTOUCHED
from langneurons.evaluation.paired import at_each_look, paired_ratio_change
from langneurons.evaluation.power import smallest_p, smallest_p_of_two, thin_evidence
from langneurons.reporting.labels import Labels
from langneurons.reporting.records import perplexity_matrices, read_as, with_names
from langneurons.reporting.tables.write import write_table
from langneurons.reporting.uncertainty import (
    holm,
    mean_interval,
    unpaired_ratio_change,
)


def _wide(frame: pd.DataFrame, evaluated: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Return NLL (document x deactivated), tokens and bytes of one evaluated language."""
    if frame.duplicated(["deactivated", "document"]).any():
        raise ValueError(f"{evaluated}: a document occurs twice under one condition")
    nll = frame.pivot(index="document", columns="deactivated", values="nll")
    if UNTOUCHED not in nll:
        raise ValueError(f"{evaluated}: no baseline (deactivated = {UNTOUCHED!r})")
    if len(nll) * nll.shape[1] != len(frame):
        raise ValueError(f"{evaluated}: conditions hold different documents; they must be paired")
    sizes = frame.groupby("document", sort=True)[["tokens", "bytes"]].agg(["min", "max"])
    for column in ("tokens", "bytes"):
        if (sizes[column, "min"] != sizes[column, "max"]).any():
            raise ValueError(f"{evaluated}: a document's {column} differ between conditions")
    sizes = sizes.loc[nll.index]
    return nll, sizes["tokens", "min"].to_numpy(), sizes["bytes", "min"].to_numpy()


def perplexity_change(
    frame: pd.DataFrame, results: Mapping, sampled: bool = False, looks: int = 1
) -> pd.DataFrame:
    """Return one row per (deactivated, evaluated); NLL in nats per token.

    Intervals and tests are over documents, paired with and without the intervention, or of two
    samples where every cell read a sample of its own (`sampled`). `results` holds confidence.
    p_least is the smallest p after Holm that the cell's number of documents allows. Reading that
    may have stopped after any of several planned looks has wider intervals and larger p
    (`evaluation.paired.at_each_look`).
    """
    if sampled:
        return _sampled_change(frame, results)
    cells = frame[["deactivated", "evaluated"]].drop_duplicates()
    family = int((cells["deactivated"] != UNTOUCHED).sum())
    parts, confidence = [], at_each_look(results["confidence"], looks)
    for evaluated, part in frame.groupby("evaluated", sort=True):
        nll, tokens, size = _wide(part, evaluated)
        baseline = nll[UNTOUCHED].to_numpy()
        conditions = [name for name in nll if name != UNTOUCHED]
        if not conditions:
            continue
        change, low, high, p = paired_ratio_change(
            baseline, nll[conditions].to_numpy(), tokens, confidence
        )
        before = baseline.sum() / tokens.sum()
        with np.errstate(over="ignore"):
            after_ppl = np.exp(before + change)
        columns = {
            "deactivated": conditions,
            "evaluated": evaluated,
            "documents": len(nll),
            "tokens": int(tokens.sum()),
            "nll_baseline": before,
            "nll": before + change,
            "nll_change": change,
            "low": low,
            "high": high,
            "ppl_baseline": np.exp(before),
            "ppl_change": after_ppl - np.exp(before),
            "bits_per_byte": baseline.sum() / (math.log(2) * size.sum()),
            "bits_per_byte_change": change * tokens.sum() / (math.log(2) * size.sum()),
            "p": np.minimum(p * looks, 1.0),
            "p_least": min(1.0, smallest_p(int((tokens > 0).sum())) * family * looks),
        }
        parts.append(pd.DataFrame(columns))
    if not parts:
        raise ValueError("no intervened condition in the perplexity records")
    cells = pd.concat(parts, ignore_index=True)
    cells.insert(len(cells.columns) - 1, "p_holm", holm(cells["p"].to_numpy()))
    return cells.sort_values(["deactivated", "evaluated"], ignore_index=True)


def _sampled_change(frame: pd.DataFrame, results: Mapping) -> pd.DataFrame:
    """Return what `perplexity_change` does, of cells that read different samples."""
    groups = {key: part for key, part in frame.groupby(["deactivated", "evaluated"], sort=True)}
    conditions = [key for key in groups if key[0] != UNTOUCHED]
    rows = []
    for deactivated, evaluated in conditions:
        samples = groups[UNTOUCHED, evaluated], groups[deactivated, evaluated]
        own, moved = ((one["nll"].to_numpy(), one["tokens"].to_numpy()) for one in samples)
        change, low, high, p = unpaired_ratio_change(own, moved, results["confidence"])
        plain, tokens = samples[0]["nll"].sum(), samples[0]["tokens"].sum()
        before = plain / tokens
        with np.errstate(over="ignore"):
            after = np.exp(before + change)
        row = {"deactivated": deactivated, "evaluated": evaluated, "documents": len(samples[1])}
        row |= {"tokens": int(samples[1]["tokens"].sum()), "nll_baseline": before}
        row |= {"nll": before + change, "nll_change": change, "low": low, "high": high}
        row |= {"ppl_baseline": np.exp(before), "ppl_change": after - np.exp(before)}
        bits = [one["nll"].sum() / (math.log(2) * one["bytes"].sum()) for one in samples]
        row |= {"bits_per_byte": bits[0], "bits_per_byte_change": bits[1] - bits[0], "p": p}
        least = smallest_p_of_two(*map(len, samples)) * len(conditions)
        rows.append(row | {"p_least": min(1.0, least)})
    cells = pd.DataFrame(rows)
    cells.insert(len(cells.columns) - 1, "p_holm", holm(cells["p"].to_numpy()))
    return cells


def perplexity_notes(cells: pd.DataFrame, results: Mapping) -> list[str]:
    """Return what stands under the table of changes of perplexity."""
    note = (
        "The same text with and without (protocol point perplexity_text: paper: a sample of its own"
        " for every cell, unpaired); NLL in nats per token. Intervals and p: Student's t over"
        f" documents, paired (Welch's, unpaired), confidence {results['confidence']:g}; Holm within"
        " a matrix; p_least: the smallest p after Holm that n documents allow."
    )
    groups = ("model", "protocol", "languages", "selection", "intervention")
    return [note, *thin_evidence(cells, results["alpha"], "documents", groups)]


def _stop(names: Mapping[str, str], until: Mapping, labels: Labels) -> str:
    """Return after how many looks the reading of a file's documents stopped."""
    where = f"{labels.of('models', names['model'])}, {labels.of('selections', names['selection'])}"
    looks, numbers = until["looks"], sorted(set(until["documents"].values()))
    shown = " to ".join(f"{one}" for one in dict.fromkeys((numbers[0], numbers[-1])))
    return (
        f"{where}: {shown} documents a language, read in {until['taken']} of {looks} looks; reading"
        f" stops when every interval is narrower than {until['width']:g}. Intervals hold at all"
        f" {looks} looks together (Bonferroni), and p is that of one look times {looks}."
    )


def matrix(cells: pd.DataFrame, value: str, order: Sequence[str]) -> pd.DataFrame:
    """Return `value` as deactivated (rows) x evaluated (columns) in the given order."""
    wide = cells.pivot(index="deactivated", columns="evaluated", values=value)
    rows = [lang for lang in order if lang in wide.index]
    columns = [lang for lang in order if lang in wide.columns]
    return wide.loc[rows, columns]


def perplexity_summary(cells: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return one row: how much more a language's neurons matter to it than to the others.

    own_low and own_high: Student's t over languages. Rows whose own language was not evaluated do
    not count.
    """
    langs = sorted(set(cells["deactivated"]) & set(cells["evaluated"]))
    square = matrix(cells, "nll_change", langs).to_numpy()
    n = len(langs)
    own = np.diag(square)
    off = square[~np.eye(n, dtype=bool)].reshape(n, max(n - 1, 0))
    if n < 2:
        mean_off, above, largest = math.nan, 0, 0
    else:
        mean_off = float(off.mean())
        above = int((own > off.mean(axis=1)).sum())
        largest = int((own > off.max(axis=1)).sum())
    mean_own, low, high = mean_interval(own, confidence)
    row = {
        "mean_own": float(mean_own),
        "own_low": float(low),
        "own_high": float(high),
        "mean_others": mean_off,
        "own_above_mean_of_others": above,
        "own_largest": largest,
        "n_languages": n,
    }
    return pd.DataFrame([row])


def tabulate_perplexity(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the tables of perplexity changes."""
    cells, summaries, results = [], [], labels.results
    stopped: list[str] = []
    for names, frame, metadata in perplexity_matrices(files, labels):
        how = read_as(metadata)
        change = perplexity_change(frame, results, **how)
        confidence = at_each_look(results["confidence"], how["looks"])
        summaries.append(with_names(names, perplexity_summary(change, confidence)))
        cells.append(with_names(names, change))
        if metadata.get("until"):
            stopped.append(_stop(names, metadata["until"], labels))
    table = labels.shown(pd.concat(cells, ignore_index=True))
    lines = [*perplexity_notes(table, results), *dict.fromkeys(stopped)]
    write_table(table, folder / "perplexity", "Change of perplexity", lines)
    notes = (
        "Changes of NLL in nats per token; means, and interval of the own language's, over"
        " n_languages languages."
    )
    table = labels.shown(pd.concat(summaries))
    write_table(table, folder / "perplexity_summary", "Own against other languages", notes)
