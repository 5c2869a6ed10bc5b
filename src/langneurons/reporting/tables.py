"""Tables of the results as pandas frames, written as CSV, Markdown and LaTeX.

The CSV holds full precision; Markdown and LaTeX (booktabs) are rounded for reading. Builders are
pure: frames in, frames out. Changes are paired (the same documents or items with and without the
intervention); p_holm is corrected over the whole matrix, or over the task and metric.
"""

import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from langneurons.base.io import write_text
from langneurons.evaluation.corpus_metrics import COUNTS, columns, score
from langneurons.evaluation.power import shortfall, smallest_p, smallest_p_of_two
from langneurons.evaluation.tasks import METRICS
from langneurons.reporting.uncertainty import (
    CHANGES,
    SCORES,
    aggregate_change,
    holm,
    mean_interval,
    paired_proportions,
    paired_ratio_change,
    unpaired_ratio_change,
    wilson,
)

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

BASELINE = "none"
QUANTITIES = ("mean", "p75", "p90", "p95", "p05", "p10", "p25")
CONDITION = ["langset", "selection", "intervention", "target"]
ALL_METRICS = frozenset(metric for names in METRICS.values() for metric in names)
# Items of which something was cut, or encoded otherwise than asked for.
COUNTED = ("cut", "apart")
# How many items have no record, the same in every record of a cell.
LEFT_OUT = "left_out"
ITEM_COLUMNS = {
    "task",
    "lang",
    "adapter",
    "item",
    "prediction",
    "gold",
    *CONDITION,
    *COUNTED,
    LEFT_OUT,
}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "\N{MINUS SIGN}": r"$-$",
    **{character: "\\" + character for character in "&%$#_{}"},
}
# Punctuation that Markdown (CommonMark, and GitHub's tables and formulas) could read as markup.
_MARKDOWN = re.compile(
    r"[\\`*|~$]"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<=\])\("
    r"|^[>#](?=.)|^[+-](?=\s)|(?<=^\d)[.)](?=\s)|(?<=^\d\d)[.)](?=\s)"
)


# Writing ---------------------------------------------------------------------------------------


def write_table(
    frame: pd.DataFrame,
    stem: str | os.PathLike,
    caption: str = "",
    notes: str | Sequence[str] = (),
) -> None:
    """Write stem.csv, stem.md and stem.tex."""
    stem = os.fspath(stem)
    notes = [notes] if isinstance(notes, str) else list(notes)
    notes = [note for note in notes if note]
    write_text(f"{stem}.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_text(f"{stem}.md", to_markdown(frame, caption, notes))
    write_text(f"{stem}.tex", to_latex(frame, caption, notes))


def format_value(value: object, column: str = "") -> str:
    """Return a value as a reader wants it: integers whole, four digits, p not below 0.001."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return ""
        if column == "p" or column.startswith("p_"):
            return "<0.001" if value < 0.001 else f"{value:.3f}"
        if value == 0:
            return "0"
        if math.isfinite(value) and value == int(value) and abs(value) < 1e6:
            return f"{value:.1f}"
        return f"{value:.4g}"
    return "" if value is None or value is pd.NA else str(value)


def _formatted(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[bool]]:
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame]
    columns = {
        str(column): [format_value(value, str(column)) for value in frame[column]]
        for column in frame
    }
    return pd.DataFrame(columns, dtype=object), numeric


def to_markdown(frame: pd.DataFrame, caption: str = "", notes: Sequence[str] = ()) -> str:
    """Return a Markdown table with its caption above and its notes below."""
    text, numeric = _formatted(frame)
    text = text.map(escape_markdown)
    text.columns = [escape_markdown(column) for column in text.columns]
    if len(text):
        table = text.to_markdown(
            index=False,
            disable_numparse=True,
            colalign=["right" if one else "left" for one in numeric],
        )
    else:
        table = "| " + " | ".join(text.columns) + " |\n|" + "---|" * len(text.columns)
    parts = [f"**{escape_markdown(caption)}**"] if caption else []
    return "\n\n".join([*parts, table, *map(escape_markdown, notes)]) + "\n"


def escape_markdown(text: str) -> str:
    """Return text in one line in which Markdown's special characters stand for themselves.

    What cannot be markup where it stands keeps its form: `p_holm`, `<0.001`, `[0.1, 0.2]`.
    """
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


def plain_markdown(text: str) -> str:
    """Return what `escape_markdown` was given, in one line."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


def escape_latex(text: str) -> str:
    """Return text in one line in which LaTeX's special characters stand for themselves."""
    line = " ".join(text.split())
    escaped = "".join(_LATEX.get(character, character) for character in line)
    # A row may not begin with what `\\\\` before it takes for its argument; dashes stay apart.
    escaped = re.sub(r"-(?=-)", "-{}", escaped)
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def to_latex(frame: pd.DataFrame, caption: str = "", notes: Sequence[str] = ()) -> str:
    """Return a booktabs table; past 45 rows a longtable (packages booktabs, longtable)."""
    text, numeric = _formatted(frame)
    align = "".join("r" if one else "l" for one in numeric)
    head = " & ".join(escape_latex(column) for column in text.columns) + r" \\"
    rows = [
        " & ".join(escape_latex(cell) for cell in row) + r" \\"
        for row in text.itertuples(index=False, name=None)
    ]
    lines = [r"\toprule", head, r"\midrule"]
    title = [rf"\caption{{{escape_latex(caption)}}}"] if caption else []
    footnotes = [rf"{{\footnotesize {escape_latex(note)}\par}}" for note in notes]
    if len(rows) > 45:
        title = [line + r" \\" for line in title]
        body = [rf"\begin{{longtable}}{{{align}}}", *title, *lines, r"\endhead", *rows]
        body += [r"\bottomrule", r"\end{longtable}", *footnotes]
    else:
        body = [r"\begin{table}", r"\centering", *title, rf"\begin{{tabular}}{{{align}}}", *lines]
        body += [*rows, r"\bottomrule", r"\end{tabular}", *footnotes, r"\end{table}"]
    return "\n".join(body) + "\n"


# Neurons ---------------------------------------------------------------------------------------


def neuron_counts(tables: "Iterable[tuple[Mapping, NeuronTable]]") -> pd.DataFrame:
    """Return one row per table and language; what describes a whole table repeats in its rows."""
    rows = []
    for labels, table in tables:
        multiplicity = table.multiplicity()
        whole = {
            "unique": table.unique,
            "pairs": len(table.frame),
            "exactly_one_language": int(multiplicity.get(1, 0)),
            "max_languages": int(multiplicity.index.max()) if len(multiplicity) else 0,
        }
        for lang, number in table.counts().items():
            rows.append({**labels, "lang": lang, "neurons": int(number), **whole})
    return pd.DataFrame(rows)


def overlap_counts(tables: "Iterable[tuple[Mapping, NeuronTable]]") -> pd.DataFrame:
    """Return one row per table and unordered pair of languages: shared neurons and Jaccard.

    chance: how many neurons two random sets with as many neurons in each layer share on average.
    """
    rows = []
    for labels, table in tables:
        shared, jaccard = table.overlap().to_numpy(), table.jaccard().to_numpy()
        chance = expected_overlap(table).to_numpy()
        for i, first in enumerate(table.languages):
            for j in range(i + 1, len(table.languages)):
                pair = {"lang": first, "other": table.languages[j]}
                values = {"shared": int(shared[i, j]), "chance": float(chance[i, j])}
                rows.append({**labels, **pair, **values, "jaccard": float(jaccard[i, j])})
    columns = ["lang", "other", "shared", "chance", "jaccard"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def expected_overlap(table: "NeuronTable") -> pd.DataFrame:
    """Return how many neurons two languages share if each draws its own number in each layer."""
    counts = table.layer_counts().to_numpy(np.float64)
    chance = counts @ counts.T / table.d_mlp
    return pd.DataFrame(chance, table.languages, table.languages)


def selection_overlap(tables: "Iterable[tuple[Mapping, NeuronTable]]") -> pd.DataFrame:
    """Return one row per model, language and pair of selections on one language set.

    shared: neurons that both assign to the language; chance: how many they would share on average
    if both were random sets of these sizes, or, of a random selection, if it were drawn again: of
    the neurons that it may contain, in the layers that it follows.
    """
    rows, groups = [], {}
    for labels, table in tables:
        groups.setdefault((labels["model"], labels["languages"]), []).append((labels, table))
    for (model, languages), members in groups.items():
        named = {table.metadata.get("name"): table for _, table in members}
        for (first, one), (second, other) in itertools.combinations(members, 2):
            for lang in one.languages:
                masks = one.mask(lang), other.mask(lang)
                sizes = [int(mask.sum()) for mask in masks]
                shared = int((masks[0] & masks[1]).sum())
                union = sum(sizes) - shared
                row = {"model": model, "languages": languages, "lang": lang}
                row |= {"selection": first["selection"], "other": second["selection"]}
                row |= {"neurons": sizes[0], "other_neurons": sizes[1], "shared": shared}
                row |= {"chance": _chance(one, other, lang, named)}
                rows.append(row | {"jaccard": shared / union if union else math.nan})
    columns = ["model", "languages", "lang", "selection", "other", "neurons", "other_neurons"]
    return pd.DataFrame(rows, columns=[*columns, "shared", "chance", "jaccard"])


def _chance(
    one: "NeuronTable", other: "NeuronTable", lang: str, named: "Mapping[str, NeuronTable]"
) -> float:
    """Return how many neurons of a language two tables share on average; NaN if not known."""
    pair = one, other
    drawn = [table.metadata.get("method") == "random" for table in pair]
    if not any(drawn):
        sizes = [table.mask(lang).sum() for table in pair]
        return float(sizes[0] * sizes[1] / one.mask(lang).size)
    parts = [
        _inclusion(table, lang, named) if random else table.mask(lang).astype(np.float64)
        for table, random in zip(pair, drawn, strict=True)
    ]
    return math.nan if any(part is None for part in parts) else float((parts[0] * parts[1]).sum())


def _inclusion(
    table: "NeuronTable", lang: str, named: "Mapping[str, NeuronTable]"
) -> np.ndarray | None:
    """Return the probability of each neuron (n_layers, d_mlp) to be in a random selection."""
    mask, settings = table.mask(lang), json.loads(table.metadata.get("parameters", "{}"))
    free = np.ones_like(mask)
    if settings.get("like") is not None:
        like = named.get(settings["like"])
        if like is None:
            return None
        free[like.frame["layer"], like.frame["neuron"]] = False
        if settings.get("match", "layer") != "none":
            number, room = mask.sum(axis=1, keepdims=True), free.sum(axis=1, keepdims=True)
            return free * number / np.maximum(room, 1)
    return free * mask.sum() / max(free.sum(), 1)


def layer_counts(tables: "Iterable[tuple[Mapping, NeuronTable]]") -> pd.DataFrame:
    """Return one row per table and language with a column per layer (layer_0, layer_1, ...)."""
    frames = []
    for labels, table in tables:
        counts = table.layer_counts().rename(columns=lambda layer: f"layer_{layer}")
        counts = counts.rename_axis("lang").reset_index()
        for place, (key, value) in enumerate(labels.items()):
            counts.insert(place, key, value)
        frames.append(counts)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def activation_statistics(
    statistics: "Iterable[tuple[Mapping, Statistics]]", site: str
) -> pd.DataFrame:
    """Return one row per model and language: tokens, each statistic averaged over all neurons."""
    rows = []
    for labels, one in statistics:
        values = {name: float(np.mean(one.value(name, site))) for name in QUANTITIES}
        rows.append({**labels, "lang": one.lang, "site": site, "tokens": one.tokens, **values})
    return pd.DataFrame(rows)


# Perplexity ------------------------------------------------------------------------------------


def _wide(frame: pd.DataFrame, evaluated: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Return NLL (document x deactivated), tokens and bytes of one evaluated language."""
    if frame.duplicated(["deactivated", "document"]).any():
        raise ValueError(f"{evaluated}: a document occurs twice under one condition")
    nll = frame.pivot(index="document", columns="deactivated", values="nll")
    if BASELINE not in nll:
        raise ValueError(f"{evaluated}: no baseline (deactivated = {BASELINE!r})")
    if len(nll) * nll.shape[1] != len(frame):
        raise ValueError(f"{evaluated}: conditions hold different documents; they must be paired")
    sizes = frame.groupby("document", sort=True)[["tokens", "bytes"]].agg(["min", "max"])
    for column in ("tokens", "bytes"):
        if (sizes[column, "min"] != sizes[column, "max"]).any():
            raise ValueError(f"{evaluated}: a document's {column} differ between conditions")
    sizes = sizes.loc[nll.index]
    return nll, sizes["tokens", "min"].to_numpy(), sizes["bytes", "min"].to_numpy()


def perplexity_change(frame: pd.DataFrame, results: Mapping, sampled: bool = False) -> pd.DataFrame:
    """Return one row per (deactivated, evaluated); NLL in nats per token.

    Intervals and tests are over documents, paired with and without the intervention, or of two
    samples where every cell read a sample of its own (`sampled`). `results` holds confidence.
    p_least is the smallest p after Holm that the cell's number of documents allows.
    """
    if sampled:
        return _sampled_change(frame, results)
    cells = frame[["deactivated", "evaluated"]].drop_duplicates()
    family = int((cells["deactivated"] != BASELINE).sum())
    parts = []
    for evaluated, part in frame.groupby("evaluated", sort=True):
        nll, tokens, size = _wide(part, evaluated)
        baseline = nll[BASELINE].to_numpy()
        conditions = [name for name in nll if name != BASELINE]
        if not conditions:
            continue
        change, low, high, p = paired_ratio_change(
            baseline, nll[conditions].to_numpy(), tokens, results["confidence"]
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
            "p": p,
            "p_least": min(1.0, smallest_p(int((tokens > 0).sum())) * family),
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
    conditions = [key for key in groups if key[0] != BASELINE]
    rows = []
    for deactivated, evaluated in conditions:
        samples = groups[BASELINE, evaluated], groups[deactivated, evaluated]
        change, low, high, p = unpaired_ratio_change(
            *((one["nll"].to_numpy(), one["tokens"].to_numpy()) for one in samples),
            results["confidence"],
        )
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


def thin_evidence(cells: pd.DataFrame, alpha: float, unit: str, groups: Sequence[str]) -> list[str]:
    """Return a sentence for each family of tests of which no cell can reach the level.

    `groups` are the columns that tell families apart; `cells` have p, p_least and a column of the
    units: documents, facts or n.
    """
    counted = next(name for name in ("documents", "facts", "n") if name in cells)
    tested = cells[cells["p"].notna()]
    notes = []
    for values, part in tested.groupby(list(groups), sort=False) if groups else [((), tested)]:
        if part.empty or (part["p_least"] < alpha).any():
            continue
        where = ", ".join(str(value) for value in values)
        text = shortfall(int(part[counted].max()), len(part), alpha, unit)
        if text:
            notes.append(f"{where}: {text[0].lower()}{text[1:]}" if where else text)
    return notes


def perplexity_notes(cells: pd.DataFrame, results: Mapping) -> list[str]:
    """Return what stands under the table of changes of perplexity."""
    note = (
        "The same text with and without (protocol point perplexity_text: paper: a sample of its own"
        " for every cell, unpaired); NLL in nats per token. Intervals and p: Student's t over"
        f" documents, paired (Welch's, unpaired), confidence {results['confidence']:g}; Holm within"
        " a matrix; p_least: the smallest p after Holm that so many documents allow."
    )
    groups = ("model", "protocol", "languages", "selection", "intervention")
    return [note, *thin_evidence(cells, results["alpha"], "documents", groups)]


def task_notes(scores: pd.DataFrame, results: Mapping) -> list[str]:
    """Return what stands under the table of task scores."""
    note = (
        "Differences to the untouched model on the same n items, with intervals of confidence"
        f" {results['confidence']:g}; test: McNemar (exact, with Tango's interval), paired t"
        " (Student's, over items), or bootstrap t (with the bootstrap's standard error); Holm"
        " within task and metric; p_least: the smallest p after Holm that so many items allow."
    )
    groups = ("model", "protocol", "task", "metric")
    return [note, *thin_evidence(scores, results["alpha"], "items", groups)]


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


# Tasks -----------------------------------------------------------------------------------------


def own_language(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the records of the untouched model and of each language's own neurons."""
    own = frame["target"].isin([BASELINE]) | (frame["target"] == frame["lang"])
    return frame[own].drop(columns="target")


def _metrics(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return each metric of an evaluation frame with its columns (not empty).

    A metric of the whole corpus has the columns of its counts, any other its own.
    """
    present = [
        column
        for column in frame
        if column.partition(":")[0] in ALL_METRICS and frame[column].notna().any()
    ]
    found: dict[str, list[str]] = {}
    for column in present:
        metric = column.partition(":")[0]
        found[metric] = columns(metric) if ":" in column else [column]
    return found


EMPTY = ("baseline", "difference", "difference_low", "difference_high", "p")
# The test of a difference, which names its interval too (`uncertainty`).
TESTS = {True: "McNemar", False: "paired t"}
BOOTSTRAPPED = "bootstrap t"


def _mean_rows(
    baseline: np.ndarray | None, values: np.ndarray, results: Mapping
) -> dict[str, np.ndarray | list]:
    """Return columns of rows, one row per condition; values (n, conditions) of one metric."""
    confidence = results["confidence"]
    binary = bool(np.isin(values, SCORES).all())
    binary = binary and (baseline is None or bool(np.isin(baseline, SCORES).all()))
    if binary:
        pairs = [wilson(won, len(values), confidence) for won in values.sum(axis=0)]
        low, high = np.array(pairs).T
    else:
        _, low, high = mean_interval(values, confidence, SCORES)
    rows = {"mean": values.mean(axis=0), "low": low, "high": high}
    if baseline is None:
        return rows | dict.fromkeys(EMPTY, math.nan) | {"test": ""}
    if binary:
        change = values - baseline[:, None]
        lost, won = (change < 0).sum(axis=0), (change > 0).sum(axis=0)
        below, above, p = paired_proportions(lost, won, len(values), confidence)
        difference = change.mean(axis=0)
    else:
        difference, below, above, p = paired_ratio_change(
            baseline, values, np.ones(len(values)), confidence, CHANGES
        )
    found = (baseline.mean(), difference, below, above, p)
    return rows | dict(zip(EMPTY, found, strict=True)) | {"test": TESTS[binary]}


def _corpus_rows(
    baseline: np.ndarray | None,
    counts: np.ndarray,
    metric: str,
    results: Mapping,
) -> dict[str, np.ndarray | float | str]:
    """Return the same of a metric of the whole corpus; counts (n, conditions, counts)."""
    own, change = aggregate_change(
        baseline,
        counts,
        lambda sums: score(metric, sums),
        results["bootstrap"],
        results["confidence"],
        results["seed"],
    )
    rows = dict(zip(("mean", "low", "high"), own, strict=True))
    rows["baseline"] = math.nan if baseline is None else float(score(metric, baseline.sum(axis=0)))
    rows |= dict(zip(EMPTY[1:], change, strict=True))
    return rows | {"test": "" if baseline is None else BOOTSTRAPPED}


def task_scores(frame: pd.DataFrame, results: Mapping) -> pd.DataFrame:
    """Return one row per task, language, condition and metric.

    `mean` is the mean over items or, for metrics of a whole corpus (`corpus_metrics`), the score of
    their summed counts. Differences are to the untouched model on the same items. 0/1 metrics:
    Wilson's interval, of differences Tango's with the exact McNemar test; others: Student's t over
    items; corpus metrics: t with the bootstrap's standard error, the same draws under all
    conditions of a language. Holm runs within a task and metric. `target` is the language whose
    neurons are overwritten. p_least is the smallest p after Holm that the number of items allows.
    cut and apart are the items that lost tokens, or of which a choice was encoded by itself;
    left_out are those that are not among the n, since a classification reads none that is too long.
    """
    plain = [key for key in ("lang", "adapter") if key in frame]
    condition = [key for key in CONDITION if key in frame]
    parts = []
    for task, of_task in frame.groupby("task", sort=True):
        for metric, held in _metrics(of_task).items():
            scored = of_task[of_task[held].notna().all(axis=1)]
            touched = scored[scored["intervention"] != BASELINE]
            family = len(touched[[*plain, *condition]].drop_duplicates())
            for place, own in scored.groupby(plain, sort=True):
                labels = {"task": task} | dict(zip(plain, place, strict=True))
                what = f"{task} {labels['lang']} {metric}"
                groups = dict(list(own.groupby(condition, sort=True)))
                names = [name for name in groups if _intervened(name, condition)]
                untouched = [name for name in groups if name not in names]
                baseline = None
                if names:
                    _check_paired(groups, names, untouched, what)
                    baseline = groups[untouched[0]].set_index("item")[held]
                for members in filter(None, (untouched, names)):
                    before = baseline if members is names else None
                    index = groups[members[0]]["item"] if before is None else before.index
                    stacked = np.stack(
                        [
                            groups[name].set_index("item")[held].loc[index].to_numpy(np.float64)
                            for name in members
                        ],
                        axis=1,
                    )
                    given = None if before is None else before.to_numpy(np.float64)
                    if metric in COUNTS:
                        rows = _corpus_rows(given, stacked, metric, results)
                    else:
                        given = None if given is None else given[:, 0]
                        rows = _mean_rows(given, stacked[..., 0], results)
                    least = (
                        math.nan if before is None else min(1.0, smallest_p(len(index)) * family)
                    )
                    made = pd.DataFrame(members, columns=condition).assign(
                        **labels, metric=metric, n=len(index), **rows, p_least=least
                    )
                    for column in COUNTED:
                        known = groups[members[0]].get(column)
                        made[column] = 0 if known is None else int((known.fillna(0) > 0).sum())
                    known = groups[members[0]].get(LEFT_OUT)
                    made[LEFT_OUT] = 0 if known is None else int(known.fillna(0).max())
                    parts.append(made)
    order = ["task", *plain, *condition, "metric", "n", "mean", "low", "high", *EMPTY, "test"]
    last = ["p_least", *COUNTED, LEFT_OUT]
    table = pd.concat(parts, ignore_index=True)[[*order, *last]]
    table["p_holm"] = table.groupby(["task", "metric"], sort=False)["p"].transform(
        lambda p: pd.Series(holm(p.to_numpy()), index=p.index)
    )
    return table[[*order, "p_holm", *last]]


def _intervened(name: tuple, condition: Sequence[str]) -> bool:
    return dict(zip(condition, name, strict=True))["intervention"] != BASELINE


def _check_paired(
    groups: Mapping[tuple, pd.DataFrame], names: list, untouched: list, what: str
) -> None:
    """Refuse conditions without an untouched model, or on other items than its."""
    if len(untouched) != 1:
        raise ValueError(f"{what}: no baseline (intervention = {BASELINE!r}) to compare with")
    items = groups[untouched[0]]["item"]
    for name in [*untouched, *names]:
        own = groups[name]["item"]
        if own.duplicated().any():
            raise ValueError(f"{what}: an item occurs twice under one condition")
        if set(own) != set(items):
            raise ValueError(f"{what}: baseline and intervention hold different items")


def by_layer(scores: pd.DataFrame, sweep: Mapping[str, str]) -> pd.DataFrame:
    """Return panel, curve, layers, value, low, high: 100 x mean difference by the layers written.

    `scores` is what `task_scores` returns, of one metric; `sweep` maps interventions to their
    layers. A panel per selection, in it a curve for the languages' own neurons and one for those
    of others; low and high are the quartiles over the cells.
    """
    kept = scores[scores["intervention"].isin(list(sweep))]
    kept = kept.assign(
        panel=kept["selection"],
        curve=np.where(kept["target"] == kept["lang"], "the language's own", "another's"),
        layers=kept["intervention"].map(dict(sweep)),
        points=100 * kept["difference"],
    )
    groups = kept.groupby(["panel", "curve", "layers"], sort=False)["points"]
    table = groups.agg(
        value="mean",
        low=lambda one: one.quantile(0.25),
        high=lambda one: one.quantile(0.75),
    )
    return table.reset_index()
