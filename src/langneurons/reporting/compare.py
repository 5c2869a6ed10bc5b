"""Two runs, or two shared folders, side by side: settings, masks, matrices, scores.

Differences are second minus first. What is compared is what both have, by name: files of the same
place below `results/`. Where each side holds one model, its name does not matter, so that two
models can be compared. Differences of effects are paired over documents, facts or items where both
sides read the same ones, else unpaired; column `pairing` says which. `differs` says that the
interval holds no 0.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.base.errors import InputError
from langneurons.base.io import read_json
from langneurons.base.store import NAME
from langneurons.base.words import UNTOUCHED
from langneurons.evaluation.metrics import METRICS
from langneurons.evaluation.paired import at_each_look, paired_ratio_change
from langneurons.reporting.compare_shared import compare_folders, differences, mask_rows
from langneurons.reporting.layouts import LAYOUTS, names_of
from langneurons.reporting.records import evaluation_files, matrix_files, planned_looks
from langneurons.reporting.tables.steering_shift import judged
from langneurons.reporting.tables.tasks import CONDITION, corpus_rows, held_metrics, mean_rows
from langneurons.reporting.uncertainty import (
    CHANGES,
    from_draws,
    holm,
    paired_proportions,
    resampling_counts,
    unpaired_ratio_change,
)
from langneurons.selection.table import NeuronTable
from langneurons.sharing.card import CARD

KINDS = ("neurons", "perplexity", "steering", "evaluation")
PAIRED, UNPAIRED = "paired", "unpaired"
Limits = tuple[float, float, float, float]
Results = dict[str, Any]
Names = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs or two shared folders: tables by name, and remarks."""

    first: str
    second: str
    tables: dict[str, pd.DataFrame]
    remarks: list[str]


@dataclass(frozen=True)
class _Run:
    """The files of a run below a folder: of all its models, or of one."""

    root: Path
    model: str = "*"

    def paths(self, kind: str) -> list[Path]:
        """Return the result files of a kind."""
        pattern = re.sub(r"\{\w+\}", "*", LAYOUTS[kind])
        found = self.root.glob(pattern.replace("results/*", f"results/{self.model}", 1))
        # The store of finished parts lies beside the models.
        return sorted(path for path in found if NAME not in path.relative_to(self.root).parts)

    def models(self) -> set[str]:
        """Return the models of which there are results."""
        return {names_of(path, kind)["model"] for kind in KINDS for path in self.paths(kind)}

    def files(self, kind: str, named: bool) -> dict[Names, Path]:
        """Return the files of a kind by the names of their cells; named: the model is one."""
        found = {}
        for path in self.paths(kind):
            names = names_of(path, kind)
            if not named:
                del names["model"]
            found[tuple(names.items())] = path
        return found


def _run(path: Path) -> _Run | None:
    """Return the run that a path names: a project folder, its `results`, or a model there."""
    if (path / "results").is_dir():
        return _Run(path)
    path = path.absolute()
    if path.name == "results":
        return _Run(path.parent)
    if path.parent.name == "results":
        return _Run(path.parent.parent, path.name)
    return None


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    confidence: float = 0.95,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Return what differs between two runs, or between two shared folders of one kind.

    Args:
        first: A folder in which the graph ran, its `results`, `results/{model}`, or a shared
            folder.
        second: Another one.
        confidence: Of all intervals.
        bootstrap: Replicates, for metrics of a whole corpus.
        seed: Of the bootstrap.

    Raises:
        InputError: A folder is not one of these, or they have nothing in common.
    """
    one, other = Path(first), Path(second)
    for path in (one, other):
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: there is no such folder.")
    shared = [(path / CARD).is_file() and _run(path) is None for path in (one, other)]
    if all(shared):
        return Comparison(str(one), str(other), *compare_folders(one, other))
    runs = [_run(path) for path in (one, other)]
    for path, run, is_shared in zip((one, other), runs, shared, strict=True):
        if is_shared:
            raise InputError(f"{path}: a shared folder, but the other one is not; name two.")
        if run is None or not run.models():
            raise InputError(
                f"{path}: there are no results of a run in it. Name a folder with `results/`, its"
                " `results`, or `results/{model}`; or two shared folders."
            )
    results = {"confidence": confidence, "bootstrap": bootstrap, "seed": seed}
    assert runs[0] is not None and runs[1] is not None
    return _compare_runs(runs[0], runs[1], str(one), str(other), results)


def _compare_runs(one: _Run, other: _Run, first: str, second: str, results: Results) -> Comparison:
    models = [run.models() for run in (one, other)]
    named = not all(len(found) == 1 for found in models)
    remarks, lacking = [], []
    pairs: dict[str, list[tuple[Names, Path, Path]]] = {}
    for kind in KINDS:
        left, right = one.files(kind, named), other.files(kind, named)
        pairs[kind] = [(key, left[key], right[key]) for key in left if key in right]
        for place, here, there in ((first, left, right), (second, right, left)):
            lacking += [
                {"only in": place, "kind": kind, "names": _shown(key)}
                for key in here
                if key not in there
            ]
    if not any(pairs.values()):
        raise InputError(
            f"{first} and {second} have no result in common: not one file of the same model,"
            " language set, selection and task. `results/{model}` compares two models."
        )
    if not named and models[0] != models[1]:
        remarks.append(f"Different models: {min(models[0])} and {min(models[1])}.")
    tables: dict[str, pd.DataFrame] = {}
    if all((run.root / "logs").is_dir() for run in (one, other)):
        tables["settings"] = _settings(one, other, named)
    else:
        remarks.append("Settings: a folder has no logs/, so that its settings are not known.")
    tables["only"] = pd.DataFrame(lacking, columns=["only in", "kind", "names"])
    readers: dict[str, tuple[str, Callable[..., Iterator[dict[str, Any]]]]] = {
        "neurons": ("masks", _masks),
        "perplexity": ("perplexity", _perplexity),
        "steering": ("steering", _steering),
        "evaluation": ("scores", _scores),
    }
    for kind, (name, rows) in readers.items():
        found = [
            dict(key) | row
            for key, left_path, right_path in pairs[kind]
            for row in rows(left_path, right_path, results)
        ]
        if found:
            tables[name] = _corrected(pd.DataFrame(found))
    return Comparison(first, second, tables, remarks)


def _shown(key: Names) -> str:
    return ", ".join(f"{name}: {value}" for name, value in key)


def _corrected(frame: pd.DataFrame) -> pd.DataFrame:
    """Add `differs`, and p after Holm within a matrix or a task's metric."""
    if "p" not in frame:
        return frame
    frame["differs"] = (frame["low"] > 0) | (frame["high"] < 0)
    groups = [
        name
        for name in ("model", "variant", "langset", "selection", "intervention", "task", "metric")
        if name in frame and (name not in CONDITION or "metric" not in frame)
    ]
    frame["p_holm"] = frame.groupby(groups, sort=False, dropna=False)["p"].transform(
        lambda p: pd.Series(holm(p.to_numpy()), index=p.index)
    )
    return frame


# Settings -----------------------------------------------------------------------------------------


def _settings(one: _Run, other: _Run, named: bool) -> pd.DataFrame:
    """Return the settings on which the jobs of two runs differ, equal rows of a rule once."""
    rows: dict[tuple[str, ...], int] = {}
    left, right = (_records(run, named) for run in (one, other))
    for place in sorted(left.keys() & right.keys()):
        given = [read_json(side[place]).get("settings") for side in (left, right)]
        for row in differences(*given):
            key = (place.split("/")[0], row["key"], row["first"], row["second"])
            rows[key] = rows.get(key, 0) + 1
    columns = ["job", "key", "first", "second"]
    frame = pd.DataFrame([dict(zip(columns, key, strict=True)) for key in rows], columns=columns)
    return frame.assign(jobs=list(rows.values()))


def _records(run: _Run, named: bool) -> dict[str, Path]:
    """Return the records of a run's jobs by rule and names."""
    found = {}
    models = run.models()
    for path in sorted((run.root / "logs").glob("**/*.json")):
        parts = list(path.relative_to(run.root / "logs").parts)
        if run.model != "*" and len(parts) > 2 and parts[1] not in models:
            continue
        if not named and len(parts) > 2 and parts[1] in models:
            parts[1] = "model"
        found["/".join(parts)] = path
    return found


# Masks --------------------------------------------------------------------------------------------


def _masks(first: Path, second: Path, results: Results) -> Iterator[dict[str, Any]]:
    yield from mask_rows(NeuronTable.from_parquet(first), NeuronTable.from_parquet(second))


# Matrices -----------------------------------------------------------------------------------------


def _matrices(first: Path, second: Path, kind: str) -> Iterator[tuple[str, list, list]]:
    """Yield each intervention that both files hold, with records and metadata of each."""
    left, right = (
        {metadata["intervention"]: (frame, metadata) for _, frame, metadata in found}
        for found in (matrix_files([str(path)], kind) for path in (first, second))
    )
    for name in left:
        if name in right:
            frames, metadata = zip(left[name], right[name], strict=True)
            yield name, list(frames), list(metadata)


def _perplexity(first: Path, second: Path, results: Results) -> Iterator[dict[str, Any]]:
    """Yield the change of NLL of each cell (nats per token), and the difference of the changes."""
    for name, frames, metadata in _matrices(first, second, "perplexity"):
        groups = [dict(list(one.groupby(["deactivated", "evaluated"]))) for one in frames]
        sampled = any(one.get("sampled", False) for one in metadata)
        # Whichever looks ended the reading of both: every pair of looks is corrected for.
        looks = math.prod(planned_looks(one) for one in metadata)
        own = results | {"confidence": at_each_look(results["confidence"], looks)}
        for cell in groups[0]:
            if cell[0] == UNTOUCHED or cell not in groups[1]:
                continue
            written = [one[cell] for one in groups]
            untouched = [one[UNTOUCHED, cell[1]] for one in groups]
            place = {"intervention": name, "deactivated": cell[0], "evaluated": cell[1]}
            row = place | _change_of_nll(untouched, written, sampled, own)
            yield row | {"p": float(np.minimum(1.0, row["p"] * looks))}


def _change_of_nll(
    untouched: list[pd.DataFrame], written: list[pd.DataFrame], sampled: bool, results: Results
) -> dict[str, Any]:
    changes = [_per_token(w) - _per_token(u) for u, w in zip(untouched, written, strict=True)]
    row = {"documents": len(written[1]), "first": changes[0], "second": changes[1]}
    confidence = results["confidence"]
    if sampled:
        return row | _sampled(untouched, written, changes, confidence)
    sides = [_by_document(u, w) for u, w in zip(untouched, written, strict=True)]
    if _same(sides[0][["tokens"]], sides[1][["tokens"]]):
        baseline, moved = (one["change"].to_numpy() for one in sides)
        found = paired_ratio_change(
            baseline, moved[:, None], sides[0]["tokens"].to_numpy(), confidence
        )
        return row | _limits(tuple(float(one[0]) for one in found), PAIRED)
    pairs = [(one["change"].to_numpy(), one["tokens"].to_numpy()) for one in sides]
    return row | _limits(unpaired_ratio_change(pairs[0], pairs[1], confidence), UNPAIRED)


def _sampled(
    untouched: list[pd.DataFrame],
    written: list[pd.DataFrame],
    changes: list[float],
    confidence: float,
) -> dict[str, Any]:
    """Return the difference of changes where every cell read a sample of its own.

    Where both sides read the same samples, the samples with and without neurons overwritten are
    independent of each other, and each is paired over the sides.
    """
    parts = []
    for two in (untouched, written):
        left, right = (one.set_index("document").sort_index() for one in two)
        if not _same(left[["tokens"]], right[["tokens"]]):
            none = (changes[1] - changes[0], math.nan, math.nan, math.nan)
            return _limits(none, "none: four samples")
        parts.append(((right["nll"] - left["nll"]).to_numpy(), left["tokens"].to_numpy()))
    return _limits(unpaired_ratio_change(parts[0], parts[1], confidence), PAIRED)


def _per_token(frame: pd.DataFrame) -> float:
    return float(frame["nll"].sum() / frame["tokens"].sum())


def _by_document(untouched: pd.DataFrame, written: pd.DataFrame) -> pd.DataFrame:
    """Return change of NLL and tokens of each document."""
    before, after = (one.set_index("document").sort_index() for one in (untouched, written))
    return pd.DataFrame({"change": after["nll"] - before["nll"], "tokens": after["tokens"]})


def _same(left: pd.DataFrame, right: pd.DataFrame) -> bool:
    """Return whether two frames have the same units in their index, with the same values."""
    return bool(left.index.equals(right.index) and left.equals(right))


def _limits(found: tuple[float, ...], pairing: str) -> dict[str, Any]:
    difference, low, high, p = found
    return {"difference": difference, "low": low, "high": high, "p": p, "pairing": pairing}


def _steering(first: Path, second: Path, results: Results) -> Iterator[dict[str, Any]]:
    """Yield LSS of each cell and its difference, and the difference of the margins (nats)."""
    for name, frames, metadata in _matrices(first, second, "steering"):
        sides = []
        for frame, one in zip(frames, metadata, strict=True):
            own = judged(frame, one | {"neurons": one["neurons"][name]})
            sides.append(dict(list(own[own["counted"]].groupby(["base", "target"]))))
        for cell in sides[0]:
            if cell in sides[1]:
                place = {"intervention": name, "base": cell[0], "target": cell[1]}
                left, right = (
                    one[cell].set_index("fact").sort_index()[["shifted", "margin"]] for one in sides
                )
                yield place | _shift(left, right, results["confidence"])


def _shift(left: pd.DataFrame, right: pd.DataFrame, confidence: float) -> dict[str, Any]:
    row: dict[str, Any] = {"facts": len(right)}
    row |= {"first": left["shifted"].mean(), "second": right["shifted"].mean()}
    values = [one["shifted"].to_numpy(np.float64) for one in (left, right)]
    if left.index.equals(right.index):
        moved = values[1] - values[0]
        low, high, p = paired_proportions(
            int((moved < 0).sum()), int((moved > 0).sum()), len(moved), confidence
        )
        row |= _limits((moved.mean(), float(low[0]), float(high[0]), float(p[0])), PAIRED)
    else:
        row |= _limits(_unpaired_means(values, confidence), UNPAIRED)
    return row | {"margin_difference": right["margin"].mean() - left["margin"].mean()}


def _unpaired_means(values: list[np.ndarray], confidence: float) -> Limits:
    """Return difference, low, high and p of two means of scores in 0..1 of different units."""
    left, right = ((one, np.ones(len(one))) for one in values)
    difference, low, high, p = unpaired_ratio_change(left, right, confidence)
    return difference, max(low, CHANGES[0]), min(high, CHANGES[1]), p


# Task scores --------------------------------------------------------------------------------------


def _scores(first: Path, second: Path, results: Results) -> Iterator[dict[str, Any]]:
    """Yield the score of each condition and metric, and its difference."""
    frames = [evaluation_files([str(path)])[0][1] for path in (first, second)]
    groups = [dict(list(one.groupby(CONDITION, sort=True))) for one in frames]
    metrics = [held_metrics(one) for one in frames]
    for condition in groups[0]:
        for metric, held in metrics[0].items():
            if condition not in groups[1] or metric not in metrics[1]:
                continue
            left, right = (
                one[condition].set_index("item").sort_index().dropna(subset=held) for one in groups
            )
            if len(left) and len(right):
                place = dict(zip(CONDITION, condition, strict=True)) | {"metric": metric}
                yield place | _difference(left, right, metric, held, results)


def _difference(
    left: pd.DataFrame, right: pd.DataFrame, metric: str, held: list[str], results: Results
) -> dict[str, Any]:
    values = [one[held].to_numpy(np.float64) for one in (left, right)]
    of_corpus = bool(METRICS[metric].counts)
    row: dict[str, Any] = {"items": len(right)}
    if _same(left[["gold"]], right[["gold"]]):
        found = (
            corpus_rows(values[0], values[1][:, None], metric, results)
            if of_corpus
            else mean_rows(values[0][:, 0], values[1], results)
        )
        row |= {"first": float(found["baseline"]), "second": float(found["mean"][0])}
        names = ("difference", "difference_low", "difference_high", "p")
        return row | _limits(tuple(float(found[name][0]) for name in names), PAIRED)
    if of_corpus:
        return row | _unpaired_corpus(values, metric, results)
    row |= {"first": values[0].mean(), "second": values[1].mean()}
    flat = [one[:, 0] for one in values]
    return row | _limits(_unpaired_means(flat, results["confidence"]), UNPAIRED)


def _unpaired_corpus(values: list[np.ndarray], metric: str, results: Results) -> dict[str, Any]:
    """Return the difference of two scores of summed counts, each with draws of its own."""
    score = METRICS[metric].of_sums
    means = [float(score(one.sum(axis=0))) for one in values]
    draws = [
        np.concatenate(
            [
                score(counts @ one)
                for counts in resampling_counts(
                    len(one), results["bootstrap"], results["seed"] + side
                )
            ]
        )
        for side, one in enumerate(values)
    ]
    change, units = means[1] - means[0], min(map(len, values))
    low, high, p = from_draws(
        np.asarray(change), draws[1] - draws[0], units, results["confidence"], CHANGES
    )
    row = {"first": means[0], "second": means[1]}
    return row | _limits((change, float(low), float(high), float(p)), UNPAIRED)
