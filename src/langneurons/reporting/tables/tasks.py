"""Tables of task scores."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.base.io import write_parquet
from langneurons.base.words import UNTOUCHED
from langneurons.evaluation.metrics import METRICS
from langneurons.evaluation.paired import paired_ratio_change
from langneurons.evaluation.power import smallest_p, thin_evidence
from langneurons.reporting.labels import Labels
from langneurons.reporting.layouts import names_of
from langneurons.reporting.records import in_order, scores_of, task_records, with_names
from langneurons.reporting.tables.write import write_table
from langneurons.reporting.uncertainty import (
    CHANGES,
    SCORES,
    aggregate_change,
    holm,
    mean_interval,
    paired_proportions,
    wilson,
)

CONDITION = ["langset", "selection", "intervention", "target"]
# Items that were cut, or encoded in another way than the task asks for.
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


def task_notes(scores: pd.DataFrame, results: Mapping) -> list[str]:
    """Return what stands under the table of task scores."""
    note = (
        "Differences to the untouched model on the same n items, with intervals of confidence"
        f" {results['confidence']:g}; test: McNemar (exact, with Tango's interval), paired t"
        " (Student's, over items), or bootstrap t (with the bootstrap's standard error); Holm"
        " within task and metric; p_least: the smallest p after Holm that n items allow."
    )
    groups = ("model", "protocol", "task", "metric")
    return [note, *thin_evidence(scores, results["alpha"], "items", groups)]


def own_language(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the records of the untouched model and of each language's own neurons."""
    own = frame["target"].isin([UNTOUCHED]) | (frame["target"] == frame["lang"])
    return frame[own].drop(columns="target")


def held_metrics(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return each metric of an evaluation frame with its columns (not empty).

    A metric of the whole corpus has the columns of its counts, any other its own.
    """
    present = [
        column
        for column in frame
        if column.partition(":")[0] in METRICS and frame[column].notna().any()
    ]
    found: dict[str, list[str]] = {}
    for column in present:
        metric = column.partition(":")[0]
        found[metric] = METRICS[metric].columns
    return found


EMPTY = ("baseline", "difference", "difference_low", "difference_high", "p")
# The test of a difference, which names its interval too (`uncertainty`).
TESTS = {True: "McNemar", False: "paired t"}
BOOTSTRAPPED = "bootstrap t"


def mean_rows(baseline: np.ndarray | None, values: np.ndarray, results: Mapping) -> dict[str, Any]:
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


def corpus_rows(
    baseline: np.ndarray | None,
    counts: np.ndarray,
    metric: str,
    results: Mapping,
) -> dict[str, Any]:
    """Return the same of a metric of the whole corpus; counts (n, conditions, counts)."""
    own, change = aggregate_change(
        baseline,
        counts,
        METRICS[metric].of_sums,
        results["bootstrap"],
        results["confidence"],
        results["seed"],
    )
    rows: dict[str, Any] = dict(zip(("mean", "low", "high"), own, strict=True))
    rows["baseline"] = (
        math.nan if baseline is None else float(METRICS[metric].of_sums(baseline.sum(axis=0)))
    )
    rows |= dict(zip(EMPTY[1:], change, strict=True))
    return rows | {"test": "" if baseline is None else BOOTSTRAPPED}


def task_scores(frame: pd.DataFrame, results: Mapping) -> pd.DataFrame:
    """Return one row per task, language, condition and metric.

    `mean` is the mean over items or, for metrics of a whole corpus (BLEU, chrF), the score of
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
        for metric, held in held_metrics(of_task).items():
            scored = of_task[of_task[held].notna().all(axis=1)]
            touched = scored[scored["intervention"] != UNTOUCHED]
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
                    if METRICS[metric].counts:
                        rows = corpus_rows(given, stacked, metric, results)
                    else:
                        given = None if given is None else given[:, 0]
                        rows = mean_rows(given, stacked[..., 0], results)
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
    return dict(zip(condition, name, strict=True))["intervention"] != UNTOUCHED


def _check_paired(
    groups: Mapping[tuple, pd.DataFrame], names: list, untouched: list, what: str
) -> None:
    """Refuse conditions without an untouched model, or on other items than its."""
    if len(untouched) != 1:
        raise ValueError(f"{what}: no baseline (intervention = {UNTOUCHED!r}) to compare with")
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


# Written ---------------------------------------------------------------------------------------


def sum_up(files: list[str], labels: Labels, path: str) -> None:
    """Write the scores of one task under a model and protocol, by name."""
    cell = names_of(path, "scores")
    kept = [one for one in files if names_of(one, "evaluation")["task"] == cell["task"]]
    ((names, frame),) = task_records(kept, labels, cell["protocol"])
    scores = with_names(names, in_order(task_scores(frame, labels.results), labels))
    write_parquet(path, scores, names | {"task": cell["task"]})


def tabulate_tasks(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the table of task scores."""
    table = labels.shown(pd.concat([scores_of(one) for one in files], ignore_index=True))
    write_table(table, folder / "tasks", "Task scores", task_notes(table, labels.results))
