"""Tables of the Language Steering Shift (Rahmanisa et al. 2025), as frames from its records.

The margin of a fact is (target_after - own_after) - (target_before - own_before) in nats, and
LSS the share of facts whose margin is above 0. Under `corrected`, facts whose two objects are the
same string are left out and counted (their margin is 0 whatever is written), as are targets
without neurons, and the diagonal is undefined; under `paper` they are failures and 0. Averages are
over off-diagonal cells under both.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.evaluation.power import smallest_p, thin_evidence
from langneurons.reporting.labels import Labels
from langneurons.reporting.records import lss_matrices, with_names
from langneurons.reporting.tables.write import write_table
from langneurons.reporting.uncertainty import (
    CHANGES,
    SCORES,
    from_draws,
    holm,
    mean_interval,
    resampling_counts,
    wilson,
)

ALL = "all"
Matrix = tuple[dict[str, str], pd.DataFrame, dict[str, Any]]


def judged(frame: pd.DataFrame, metadata: Mapping[str, Any]) -> pd.DataFrame:
    """Return the records with `margin`, `shifted` (margin above 0) and `counted`, all per fact."""
    after = frame["target_after"] - frame["own_after"]
    margin = after - (frame["target_before"] - frame["own_before"])
    # Equal objects are equal requests, but perhaps of two batches that round differently.
    margin = margin.mask(frame["tie"], 0.0)
    counted = pd.Series(True, index=frame.index)
    if metadata["premises"] == "corrected":
        counted = ~frame["tie"] & (frame["target"].map(metadata["neurons"]) > 0)
    return frame.assign(margin=margin, shifted=margin > 0, counted=counted)


def lss_cells(
    frame: pd.DataFrame, metadata: Mapping[str, Any], results: Mapping[str, Any]
) -> pd.DataFrame:
    """Return one row per (base, target), diagonal included.

    facts: as prepared; unusable: without premise or object; ties: with equal objects; cut: with a
    premise that lost tokens; n: facts that LSS is the share of. Wilson's interval for LSS,
    Student's t over facts for the mean margin (nats).
    """
    cells = dict(list(judged(frame, metadata).groupby(["base", "target"], sort=False)))
    rows = []
    for base in metadata["bases"]:
        for target in metadata["targets"]:
            facts, neurons = metadata["facts"][base], metadata["neurons"][target]
            row = {"base": base, "target": target, "neurons": neurons, "facts": facts}
            own = cells.get((base, target))
            if own is None:
                failed = base == target and metadata["premises"] == "paper"
                empty = {"unusable": 0 if base == target else facts, "ties": 0, "cut": 0, "n": 0}
                values = dict.fromkeys(("lss", "low", "high", "margin"), math.nan)
                values |= dict.fromkeys(("margin_low", "margin_high"), math.nan)
                rows.append(row | empty | values | ({"lss": 0.0} if failed else {}))
                continue
            kept = own[own["counted"]]
            n, shifted = len(kept), int(kept["shifted"].sum())
            margin, low, high = mean_interval(kept["margin"].to_numpy(), results["confidence"])
            row |= {"unusable": facts - len(own), "ties": int(own["tie"].sum())}
            row |= {"cut": int((kept["cut"] > 0).sum()), "n": n}
            row |= {"lss": shifted / n if n else math.nan}
            row |= dict(
                zip(("low", "high"), wilson(shifted, n, results["confidence"]), strict=True)
            )
            row |= {"margin": float(margin), "margin_low": float(low), "margin_high": float(high)}
            rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Averages:
    """Mean LSS over cells, and its replicates over facts: of all cells, and of each target."""

    lss: dict[str, float]
    margin: dict[str, float]
    draws: dict[str, np.ndarray]
    cells: dict[str, int]
    n: dict[str, int]
    facts: dict[str, int]
    low: dict[str, float]
    high: dict[str, float]


def _averages(one: pd.DataFrame, facts: list[str], results: Mapping) -> _Averages:
    """Average cells; a replicate draws facts, jointly in every cell that holds them."""
    kept = one[one["counted"]]
    cells = sorted(set(zip(kept["base"], kept["target"], strict=True)))
    place = {cell: k for k, cell in enumerate(cells)}
    row = kept["fact"].map({fact: k for k, fact in enumerate(facts)}).to_numpy(np.int64)
    pairs = zip(kept["base"], kept["target"], strict=True)
    column = np.array([place[pair] for pair in pairs], np.int64)
    counted, shifted = (np.zeros((len(facts), len(cells))) for _ in range(2))
    counted[row, column] = 1.0
    shifted[row, column] = kept["shifted"].to_numpy(np.float64)
    margins = kept.groupby(["base", "target"])["margin"].mean()
    groups = {ALL: list(range(len(cells)))}
    for k, (_, target) in enumerate(cells):
        groups.setdefault(target, []).append(k)
    drawn = []
    for counts in resampling_counts(len(facts), results["bootstrap"], results["seed"]):
        number = counts @ counted
        # A replicate without a fact of a cell says nothing of it.
        with np.errstate(invalid="ignore"):
            drawn.append((counts @ shifted) / np.where(number > 0, number, np.nan))
    shares = np.concatenate(drawn)
    draws = {}
    for name, own in groups.items():
        part = shares[:, own]
        filled = np.isfinite(part)
        with np.errstate(invalid="ignore"):
            draws[name] = np.where(filled, part, 0.0).sum(1) / filled.sum(1)
    means = shifted.sum(0) / np.maximum(counted.sum(0), 1.0)
    lss = {name: float(means[own].mean()) if own else math.nan for name, own in groups.items()}
    units = {name: int(counted[:, own].any(axis=1).sum()) for name, own in groups.items()}
    limits = {
        name: _limits(lss[name], draws[name], units[name], results, SCORES, tested=False)
        for name in groups
    }
    return _Averages(
        lss,
        {
            name: float(np.mean([margins[cells[k]] for k in own])) if own else math.nan
            for name, own in groups.items()
        },
        draws,
        {name: len(own) for name, own in groups.items()},
        {name: int(counted[:, own].sum()) for name, own in groups.items()},
        units,
        {name: limits[name][0] for name in groups},
        {name: limits[name][1] for name in groups},
    )


def _limits(
    value: float,
    draws: np.ndarray,
    units: int,
    results: Mapping,
    bounds: tuple[float, float],
    tested: bool = True,
) -> tuple[float, float, float]:
    """Return low, high and p by Student's t with the replicates' standard error."""
    kept, level = draws[np.isfinite(draws)], results["confidence"]
    found = from_draws(np.asarray(value), kept, units, level, bounds, tested)
    low, high, p = (float(one) for one in found)
    return low, high, p


def lss_summary(
    matrices: Iterable[Matrix], results: Mapping[str, Any], controls: Mapping[str, str]
) -> pd.DataFrame:
    """Return mean LSS of each intervention and selection: over all cells, and by target.

    `controls` maps a random selection to the one that it mirrors (labels): each selection stands
    beside its random neurons on the same facts and cells, with the paired difference. Intervals
    and tests are Student's t over facts, with the standard error of resampled facts, jointly in all
    cells and in both. Holm within a model, protocol and
    language set, over the averages of all cells or over those by target.
    """
    matrices = list(matrices)
    read = [(labels, judged(frame, metadata)) for labels, frame, metadata in matrices]
    keys = ("model", "protocol", "languages", "intervention")
    found = {}
    for labels, one in read:
        place = tuple(labels[key] for key in keys)
        group = [each for other, each in read if tuple(other[key] for key in keys) == place]
        facts = sorted({fact for each in group for fact in each["fact"]})
        found[place, labels["selection"]] = _averages(one, facts, results)
    rows = []
    for labels, _ in read:
        place = tuple(labels[key] for key in keys)
        own = found[place, labels["selection"]]
        mirrors = [name for name, like in controls.items() if like == labels["selection"]]
        mirrors = [name for name in mirrors if (place, name) in found]
        for control in mirrors or [""]:
            other = found.get((place, control))
            for target in own.draws:
                rows.append(labels | _summary_row(own, target, control, other, results))
    table = pd.DataFrame(rows)
    table.insert(
        table.columns.get_loc("target"),
        "over",
        np.where(table["target"] == ALL, "cells", "targets"),
    )
    table["p_holm"] = np.nan
    groups = [table[key] for key in ("model", "protocol", "languages")] + [table["over"]]
    table["p_least"] = np.nan
    for _, part in table.groupby(groups, sort=False):
        table.loc[part.index, "p_holm"] = holm(part["p"].to_numpy())
        family = int(part["p"].notna().sum())
        least = [min(1.0, smallest_p(int(facts)) * family) for facts in part["facts"]]
        table.loc[part.index, "p_least"] = least
    return table


def _summary_row(
    own: _Averages, target: str, control: str, other: _Averages | None, results: Mapping
) -> dict[str, Any]:
    row = {"target": target, "cells": own.cells[target], "n": own.n[target]}
    row |= {"facts": own.facts[target]}
    row |= {"lss": own.lss[target], "low": own.low[target], "high": own.high[target]}
    row |= {"margin": own.margin[target], "control": control}
    empty = ("control_lss", "difference", "difference_low", "difference_high", "p")
    if other is None or target not in other.draws or not own.cells[target]:
        return row | dict.fromkeys(empty, math.nan)
    change = own.lss[target] - other.lss[target]
    draws = own.draws[target] - other.draws[target]
    units = min(own.facts[target], other.facts[target])
    low, high, p = _limits(change, draws, units, results, CHANGES)
    values = (other.lss[target], change, low, high, p)
    return row | dict(zip(empty, values, strict=True))


def matrix(cells: pd.DataFrame, order: Iterable[str]) -> pd.DataFrame:
    """Return LSS as base (rows) x target (columns) in the given order; others follow by name."""
    wide = cells.pivot(index="base", columns="target", values="lss")
    first = list(dict.fromkeys(order))
    rows, columns = (
        [lang for lang in first if lang in axis] + sorted(set(axis) - set(first))
        for axis in (wide.index, wide.columns)
    )
    return wide.loc[rows, columns]


def tabulate_shift(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the tables of the Language Steering Shift."""
    matrices, results = lss_matrices(files, labels), labels.results
    cells = [
        with_names(names, lss_cells(frame, metadata, results))
        for names, frame, metadata in matrices
    ]
    notes = (
        "lss: share of the n facts whose log-odds move from the base's to the target's object;"
        " ties (equal objects) are left out under corrected and fail under paper, where the"
        " diagonal is 0. Margin in nats, t over facts; interval of lss after Wilson."
    )
    write_table(labels.shown(pd.concat(cells)), folder / "lss", "Language Steering Shift", notes)
    notes = (
        "Means over off-diagonal cells (target: all, or one column). control: random neurons that"
        " mirror the selection, on the same facts; intervals and p: t over facts with the"
        " bootstrap's standard error, paired; Holm within a model, protocol and set. LSS has no"
        " chance level of its own."
    )
    summary = labels.shown(lss_summary(matrices, results, labels.controls))
    family = ("model", "protocol", "languages", "over")
    lines = [notes, *thin_evidence(summary, results["alpha"], "facts", family)]
    write_table(summary, folder / "lss_summary", "Language Steering Shift by intervention", lines)
