"""Our scores beside the numbers that a paper prints.

A YAML file names, for each printed table, its CSV (one printed cell per row), our task, fine-tuning
and metrics, and how the paper's words translate to keys of the configuration. A printed cell is
matched with the records of the same model, selection, language, neuron choice and intervention; it
agrees if it lies in our confidence interval over items. Percentages are turned into 0..1.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.uncertainty import bootstrap_mean, wilson

KEYS = ("model", "task", "choice", "selection", "lang", "intervention", "metric")


def printed_cells(path: str | os.PathLike) -> pd.DataFrame:
    """Return the printed cells: item, the columns of `KEYS`, printed (0..1)."""
    from langneurons.config import parse_yaml

    path = Path(path)
    spec = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    rows = []
    for table in spec["tables"]:
        frame = pd.read_csv(path.parent / table["file"], keep_default_na=False)
        for row in frame.to_dict("records"):
            intervention = str(row.get("intervention", "none"))
            trained = row.get("finetune_language")
            choice = "none" if trained is None else _choice(trained, row["eval_language"])
            for column, metric in table["values"].items():
                rows.append(
                    {
                        "item": table["item"],
                        "model": spec["models"].get(row["model"], row["model"]),
                        "task": table["task"],
                        "choice": f"{table['finetuning']}+{choice}",
                        "selection": table.get("selection") or row["method"],
                        "lang": row["eval_language"],
                        "intervention": spec["interventions"].get(intervention, intervention),
                        "metric": metric,
                        "printed": float(row[column]) / 100,
                    }
                )
    return pd.DataFrame(rows)


def _choice(trained: str, lang: str) -> str:
    """Return the neuron choice that a paper's fine-tuned languages stand for."""
    languages = trained.split("+")
    if languages == ["en"]:
        return "source"
    return "source_target" if len(languages) > 1 else "target"


def own_cells(frames: Iterable[tuple[Mapping[str, Any], pd.DataFrame]], results: Mapping):
    """Return our cells: the columns of `KEYS`, n, ours, low, high.

    `frames` are evaluation records with their metadata. The untouched model counts for every
    selection on which its adapter was evaluated.
    """
    rows = []
    for metadata, frame in frames:
        metrics = [name for name in metadata["metrics"] if name in frame]
        selections = sorted(set(frame["selection"]) - {"none"})
        keys = ["adapter", "task", "lang", "selection", "intervention"]
        for (adapter, task, lang, selection, intervention), group in frame.groupby(keys):
            parts = adapter.split("+")
            choice = "+".join(parts[:2])
            trained_on = parts[2:3]
            for metric in metrics:
                values = group[metric].to_numpy(np.float64)
                if np.isin(values, (0.0, 1.0)).all():
                    low, high = wilson(values.sum(), len(values), results["confidence"])
                else:
                    settings = (results["bootstrap"], results["confidence"], results["seed"])
                    _, low, high = bootstrap_mean(values, *settings)
                row = {"model": metadata["model"], "task": task, "choice": choice, "lang": lang}
                row |= {"intervention": intervention, "metric": metric, "n": len(values)}
                row |= {"ours": values.mean(), "low": float(low), "high": float(high)}
                names = [selection] if selection != "none" else trained_on or selections
                rows += [row | {"selection": name} for name in names]
    return pd.DataFrame(rows, columns=[*KEYS, "n", "ours", "low", "high"])


def compare(printed: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """Return one row per printed cell: printed, ours, difference, whether it is in our interval.

    Cells that were not run have no `ours`.
    """
    merged = printed.merge(ours.drop_duplicates(list(KEYS)), on=list(KEYS), how="left")
    merged["difference"] = merged["ours"] - merged["printed"]
    inside = (merged["printed"] >= merged["low"]) & (merged["printed"] <= merged["high"])
    merged["inside"] = np.where(merged["ours"].isna(), "", np.where(inside, "yes", "no"))
    return merged


def agreement(compared: pd.DataFrame) -> pd.DataFrame:
    """Return one row per printed table and model: cells printed, run, inside our interval."""
    groups = compared.groupby(["item", "model"], sort=True)
    return pd.DataFrame(
        [
            {
                "item": item,
                "model": model,
                "printed": len(group),
                "run": int(group["ours"].notna().sum()),
                "inside": int((group["inside"] == "yes").sum()),
                "mean_difference": group["difference"].mean(),
            }
            for (item, model), group in groups
        ]
    )
