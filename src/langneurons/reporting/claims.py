"""The claims of Mondal et al. 2025, each put to a stated test.

Items are the units: an item's translations and its scores under all conditions are resampled
together, since they are not independent. A claim that nothing changes is not proved by a test that
finds no change, so such claims need an interval that lies inside a margin (two one-sided tests).
Each function returns one row per model, protocol and task with a verdict: holds, contradicted,
undecided, or not run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from langneurons.base.words import UNTOUCHED
from langneurons.reporting.labels import Labels
from langneurons.reporting.tables.tasks import ITEM_COLUMNS, task_scores
from langneurons.reporting.uncertainty import CHANGES, from_draws, resampling_counts

HOLDS, CONTRADICTED, UNDECIDED, NOT_RUN = "holds", "contradicted", "undecided", "not run"
VERDICTS = (HOLDS, CONTRADICTED, UNDECIDED, NOT_RUN)
PERMUTATIONS = 20_000
CELL = ["adapter", "lang", "langset", "selection", "intervention"]


@dataclass(frozen=True)
class Claim:
    """A claim in the paper's sense, the test that decides it, and the function that does."""

    title: str
    test: str
    decide: Callable[..., dict[str, Any]]


def pooled(
    differences: pd.DataFrame, results: Mapping[str, Any]
) -> tuple[float, float, float, float]:
    """Return mean, low, high and p of differences (items x cells, NaN where not scored).

    The mean is over cells of each cell's mean over items; items are resampled, all cells of an item
    together, and Student's t takes the standard error of the replicates. No sample shows what no
    item shows, so the interval is never narrower than the exact one of items that are all alike:
    of n items at most a share u = 1 - tail^(1/n) differs, by 1 + |mean| toward 0. p is the larger
    of the two tests'.
    """
    values = differences.to_numpy(np.float64)
    present = ~np.isnan(values)
    filled = np.where(present, values, 0.0)
    mean, n = float((filled.sum(axis=0) / present.sum(axis=0)).mean()), len(values)
    if n < 2:
        return mean, math.nan, math.nan, 1.0
    draws = []
    for counts in resampling_counts(n, results["bootstrap"], results["seed"]):
        drawn = counts @ present
        with np.errstate(invalid="ignore", divide="ignore"):
            draws.append(np.nanmean((counts @ filled) / drawn, axis=1))
    joined, estimate = np.concatenate(draws), np.asarray(mean)
    found = from_draws(estimate, joined, n, results["confidence"], CHANGES)
    alike = from_draws(estimate, np.full(1, mean), n, results["confidence"], CHANGES)
    low, high = min(found[0], alike[0]), max(found[1], alike[1])
    return mean, float(low), float(high), float(max(found[2], alike[2]))


def _columns(frame: pd.DataFrame, metric: str, keys: Sequence[str]) -> pd.DataFrame:
    """Return scores as items x cells."""
    return frame.pivot_table(index="item", columns=list(keys), values=metric, aggfunc="first")


def _changes(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the change of every overwritten cell against its untouched one, items x cells."""
    wide = _columns(frame, metric, CELL)
    columns = {
        cell: wide[cell] - wide[(*cell[:2], UNTOUCHED, UNTOUCHED, UNTOUCHED)]
        for cell in wide.columns
        if cell[-1] != UNTOUCHED
    }
    return pd.DataFrame(columns, index=wide.index)


def _verdict(low: float, high: float, margin: float, equal: bool = False) -> str:
    """Judge "no gain" (or, with `equal`, "no difference") by an interval and a margin."""
    if math.isnan(low):
        return UNDECIDED
    inside = high < margin and (low > -margin or not equal)
    outside = low > margin or (equal and high < -margin)
    return HOLDS if inside else CONTRADICTED if outside else UNDECIDED


def interventions_do_not_help(
    frame: pd.DataFrame, metric: str, labels: Labels, **_: Any
) -> dict[str, Any]:
    """Test-time interventions do not raise the score."""
    results = labels.results
    changes = _changes(frame, metric)
    if changes.empty:
        return {"verdict": NOT_RUN}
    kept = [column for column in frame if column in ITEM_COLUMNS or column == metric]
    scores = task_scores(frame[kept], results)
    tested = scores[scores["intervention"] != UNTOUCHED]
    better = (tested["p_holm"] < results["alpha"]) & (tested["difference"] > 0)
    mean, low, high, p = pooled(changes, results)
    verdict = CONTRADICTED if better.any() else _verdict(low, high, results["margin"])
    return {
        "verdict": verdict,
        "estimate": mean,
        "low": low,
        "high": high,
        "p": p,
        "cells": len(tested),
        "details": f"{int(better.sum())} of {len(tested)} cells significantly better",
    }


def zero_is_no_deactivation(
    frame: pd.DataFrame, metric: str, labels: Labels, **_: Any
) -> dict[str, Any]:
    """Writing 0 hurts no more than writing a low quantile of the activation."""
    results, roles = labels.results, labels.roles
    changes = _changes(frame, metric)
    pairs = {}
    for cell in changes.columns:
        if cell[-1] not in roles["zero"]:
            continue
        for other in roles["low"]:
            twin = (*cell[:-1], other)
            if twin in changes.columns:
                pairs[(*cell, other)] = changes[cell] - changes[twin]
    if not pairs:
        return {"verdict": NOT_RUN}
    differences = pd.DataFrame(pairs)
    mean, low, high, p = pooled(differences, results)
    margin = results["margin"]
    verdict = HOLDS if low > -margin else CONTRADICTED if high < -margin else UNDECIDED
    count = differences.shape[1]
    details = f"score under 0 minus score under a low quantile, {count} pairs of cells"
    row = {"verdict": UNDECIDED if math.isnan(low) else verdict, "estimate": mean, "low": low}
    return row | {"high": high, "p": p, "cells": count, "details": details}


def perplexity_does_not_carry_over(
    frame: pd.DataFrame,
    metric: str,
    labels: Labels,
    perplexity: pd.DataFrame,
    **_: Any,
) -> dict[str, Any]:
    """Where a language's perplexity rises, its score does not fall."""
    results = labels.results
    own = perplexity[perplexity["deactivated"] == perplexity["evaluated"]]
    keys = ["evaluated", "langset", "selection", "intervention"]
    rises = {tuple(row[key] for key in keys): row for row in own.to_dict("records")}
    changes = _changes(frame, metric)
    cells = {cell: rises[cell[1:]] for cell in changes.columns if cell[1:] in rises}
    if not cells:
        return {"verdict": NOT_RUN}
    nll = np.array([row["nll_change"] for row in cells.values()])
    score = np.array([changes[cell].mean() for cell in cells])
    risen = [
        cell
        for cell, row in cells.items()
        if row["nll_change"] > 0 and row["p_holm"] < results["alpha"]
    ]
    rho, p = spearman(nll, score, results["seed"])
    row = {"estimate": rho, "low": math.nan, "high": math.nan, "p": p, "cells": len(cells)}
    details = f"Spearman's rho over {len(cells)} cells; perplexity rises in {len(risen)}"
    if not risen:
        return row | {"verdict": UNDECIDED, "details": details}
    mean, low, high = pooled(changes[risen], results)[:3]
    details += f", where the score changes by {mean:.3f} [{low:.3f}, {high:.3f}]"
    carried = (not math.isnan(p) and rho < 0 and p < results["alpha"]) or high < -results["margin"]
    kept = low > -results["margin"]
    verdict = CONTRADICTED if carried else HOLDS if kept else UNDECIDED
    return row | {"verdict": verdict, "details": details}


def spearman(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, float]:
    """Return Spearman's rho and its two-sided permutation p; NaN with fewer than four pairs."""
    if len(x) < 4:
        return math.nan, math.nan
    a, b = (pd.Series(one).rank().to_numpy() for one in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt((a @ a) * (b @ b))
    if scale == 0:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    shuffled = generator.permuted(np.tile(b, (PERMUTATIONS, 1)), axis=1)
    rho = float(a @ b / scale)
    extreme = int((np.abs(shuffled @ a / scale) >= abs(rho) - 1e-12).sum())
    return rho, (1 + extreme) / (PERMUTATIONS + 1)


def language_neurons_equal_random(
    frame: pd.DataFrame, metric: str, labels: Labels, **_: Any
) -> dict[str, Any]:
    """Fine-tuning the target's neurons scores as fine-tuning random ones.

    A selection is set beside the random neurons that mirror it, or that mirror none.
    """
    results, random = labels.results, labels.roles["random"]
    untouched = frame[frame["intervention"] == UNTOUCHED]
    wide = _columns(untouched, metric, ["adapter", "lang"])
    pairs = {}
    fields = labels.adapter_fields
    named = {tuple(sorted(one.items(), key=str)): name for name, one in fields.items()}
    for adapter, lang in wide.columns:
        one = fields.get(adapter)
        if one is None or one["choice"] != "target" or one["selection"] in random:
            continue
        for name, like in random.items():
            if like not in (None, one["selection"]):
                continue
            twin = named.get(tuple(sorted((dict(one) | {"selection": name}).items(), key=str)))
            if (twin, lang) in wide.columns:
                pairs[(adapter, name, lang)] = wide[(adapter, lang)] - wide[(twin, lang)]
    if not pairs:
        return {"verdict": NOT_RUN}
    differences = pd.DataFrame(pairs)
    mean, low, high, p = pooled(differences, results)
    verdict = _verdict(low, high, results["margin"], equal=True)
    details = f"language neurons minus random neurons, {differences.shape[1]} pairs of adapters"
    row = {"verdict": verdict, "estimate": mean, "low": low, "high": high, "p": p}
    return row | {"cells": differences.shape[1], "details": details}


CLAIMS = {
    "interventions_do_not_help": Claim(
        "Test-time interventions do not help",
        "Holds if no cell scores significantly above the untouched model (exact McNemar or paired"
        " t, Holm over the task) and the mean change over all cells has an upper limit"
        " below the margin; contradicted if a cell is significantly better or the mean change lies"
        " above the margin.",
        interventions_do_not_help,
    ),
    "zero_is_no_deactivation": Claim(
        "Zero is no deactivation",
        "If 0 switched neurons off, it would hurt most. Holds if the score under 0 minus that under"
        " a low quantile (P5, P10, P25), paired, has a lower limit above minus the margin;"
        " contradicted if its upper limit lies below minus the margin.",
        zero_is_no_deactivation,
    ),
    "perplexity_does_not_carry_over": Claim(
        "Perplexity change does not carry over to the task",
        "Contradicted if changes of NLL and of the score correlate negatively over cells"
        " (Spearman, permutation test) or the score falls by more than the margin where NLL rises"
        " significantly; holds if in those cells the change has a lower limit above minus the"
        " margin.",
        perplexity_does_not_carry_over,
    ),
    "language_neurons_equal_random": Claim(
        "Fine-tuning language neurons equals fine-tuning random neurons",
        "Equivalence: holds if the paired difference between adapters on the target's neurons and"
        " on random ones lies inside plus or minus the margin with its whole interval; contradicted"
        " if its interval lies outside.",
        language_neurons_equal_random,
    ),
}


def decide(
    names: Sequence[str],
    records: Mapping[tuple[str, str, str], tuple[str, pd.DataFrame]],
    perplexity: Mapping[tuple[str, str], pd.DataFrame],
    labels: Labels,
) -> pd.DataFrame:
    """Return one row per claim, protocol, model and task: verdict, estimate, interval, p, details.

    `records` by (protocol, model, task) hold the metric and the evaluation records with the
    configuration's own names; `perplexity` by (protocol, model) holds the cells of
    `tables.perplexity_change` with langset, selection and intervention.
    """
    rows = []
    empty = pd.DataFrame(columns=["deactivated", "evaluated"])
    for name in names:
        claim = CLAIMS[name]
        for (protocol, model, task), (metric, frame) in records.items():
            found = claim.decide(
                frame=frame,
                metric=metric,
                labels=labels,
                perplexity=perplexity.get((protocol, model), empty),
            )
            about = {"claim": name, "protocol": protocol, "model": model}
            rows.append(about | {"task": task, "metric": metric} | found)
    columns = ["claim", "protocol", "model", "task", "metric", "verdict", "estimate", "low", "high"]
    table = pd.DataFrame(rows).reindex(columns=[*columns, "p", "cells", "details"])
    return table.astype({"cells": "Int64"})
