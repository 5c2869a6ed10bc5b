"""Our results beside the numbers that a paper prints, table by table, in the paper's layout.

A YAML file names, for each printed table, its CSV (one printed cell per row), our task, fine-tuning
and metrics, the layout, and how the paper's words translate to keys of the configuration. A printed
cell is matched with the records of the same model, selection, language, neuron choice and
intervention; it agrees if it lies in our confidence interval. The printed number counts as exact:
the interval of a difference is ours, shifted. Percentages are turned into 0..1.

Numbers of neurons, counted from published masks (`masks` in the YAML file,
`langneurons.reporting.masks`), stand beside those of our neuron table of the same model, selection
and languages. They have no interval: there are a difference and a ratio instead.
"""

import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from langneurons.activations import histogram
from langneurons.base.words import UNTOUCHED
from langneurons.base.yaml import read_yaml
from langneurons.evaluation.metrics import METRICS
from langneurons.reporting.labels import Labels
from langneurons.reporting.masks import PAIR, SHARES, Counts, cells, correlations, read_counts
from langneurons.reporting.printed import NEURONS as NEURON_TASK
from langneurons.reporting.printed import STATISTICS as STATISTIC_TASK
from langneurons.reporting.tables.neurons import QUANTITIES
from langneurons.reporting.tables.tasks import own_language
from langneurons.reporting.uncertainty import SCORES, aggregate_change, mean_interval, wilson

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

KEYS = ("model", "task", "finetuning", "choice", "selection", "lang", "intervention", "metric")
OWN = ["n", "ours", "low", "high"]
TOKEN_IDS = {"exact_match": "token_id_exact_match", "f1": "token_id_f1"}


def specification(path: str | os.PathLike) -> dict[str, Any]:
    """Return the YAML file of printed numbers."""
    return read_yaml(Path(path))


def _file_name(item: str) -> str:
    return item.lower().replace(" ", "")


def printed_cells(
    path: str | os.PathLike,
    answers: str = "corrected",
    stand_ins: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the printed cells: item, the columns of `KEYS`, printed.

    `stand_ins` name, for a printed model, the model of ours that is set in its place. `answers` is
    the protocol's choice: under `paper`, printed answer scores stand beside our scores on token
    ids.
    """
    spec, folder = specification(path), Path(path).parent
    rows = []
    for table in spec.get("tables", ()):
        frame = pd.read_csv(folder / table["file"], keep_default_na=False)
        for row in frame.to_dict("records"):
            for misprint in table.get("misprints", []):
                if all(str(row[key]) == value for key, value in misprint["where"].items()):
                    row |= misprint["meant"]
            for column, metric in table["values"].items():
                if answers == "paper":
                    metric = TOKEN_IDS.get(metric, metric)
                rows.append(_printed(spec, table, row, column, metric))
    for mask in published_masks(path):
        rows += [
            {"item": cell["item"], **_neuron_cell(mask["model"], mask["selection"], cell)}
            | {"printed": cell["value"]}
            for cell in cells(mask["counts"])
        ]
    frame = pd.DataFrame(rows)
    return frame.assign(model=frame["model"].replace(dict(stand_ins or {})))


def published_masks(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the masks of a YAML file: mask (its name), model, selection, counts."""
    masks = specification(path).get("masks")
    if masks is None:
        return []
    counts = read_counts(Path(path).parent, masks["files"])
    return [{"mask": name, **ours, "counts": counts[name]} for name, ours in masks["of"].items()]


def _neuron_cell(model: str, selection: str, cell: Mapping) -> dict[str, Any]:
    empty = {"task": NEURON_TASK, "finetuning": "", "choice": "", "intervention": UNTOUCHED}
    ours = {"model": model, "selection": selection, "lang": cell["lang"], "metric": cell["metric"]}
    return empty | ours


def _printed(spec: Mapping, table: Mapping, row: Mapping, column: str, metric: str) -> dict:
    cell = {"item": table["item"], "model": spec["models"].get(row["model"], row["model"])}
    cell |= {"task": table["task"], "finetuning": "", "choice": "", "selection": ""}
    cell |= {"lang": row.get("eval_language", row.get("language")), "intervention": UNTOUCHED}
    if table["task"] == STATISTIC_TASK:
        return cell | {"metric": metric, "printed": float(row[column])}
    intervention = str(row.get("intervention", UNTOUCHED))
    trained = row.get("finetune_language")
    cell["finetuning"] = table["finetuning"]
    cell["choice"] = "none" if trained is None else _choice(trained, row["eval_language"])
    cell["selection"] = table.get("selection") or row["method"]
    cell["intervention"] = spec["interventions"].get(intervention, intervention)
    return cell | {"metric": metric, "printed": float(row[column]) / 100}


def _choice(trained: str, lang: str) -> str:
    """Return the neuron choice that a paper's fine-tuned languages stand for."""
    languages = trained.split("+")
    if languages == ["en"]:
        return "source"
    return "source_target" if len(languages) > 1 else "target"


def own_cells(
    frames: Iterable[tuple[Mapping[str, Any], pd.DataFrame]],
    results: Mapping,
    adapters: Mapping[str, Mapping[str, str | None]],
) -> pd.DataFrame:
    """Return our cells: the columns of `KEYS`, n, ours, low, high.

    `frames` are evaluation records with their metadata, `adapters` the fields of each adapter. The
    untouched model counts for every selection on which its adapter was evaluated.
    """
    rows = []
    for metadata, frame in frames:
        frame = own_language(frame)
        metrics = [name for name in metadata["metrics"] if name in frame or METRICS[name].counts]
        selections = sorted(set(frame["selection"]) - {UNTOUCHED})
        keys = ["adapter", "task", "lang", "langset", "selection", "intervention"]
        for (adapter, task, lang, _, selection, intervention), group in frame.groupby(keys):
            fields = adapters.get(adapter, {"finetuning": "", "choice": adapter})
            trained_on = [one for one in [fields.get("selection")] if one is not None]
            for metric in metrics:
                mean, low, high = _scored(group, metric, results)
                row = {"model": metadata["model"], "task": task, "lang": lang}
                row |= {key: fields[key] for key in ("finetuning", "choice")}
                row |= {"intervention": intervention, "metric": metric, "n": len(group)}
                row |= {"ours": mean, "low": low, "high": high}
                names = [selection] if selection != UNTOUCHED else trained_on or selections
                rows += [row | {"selection": name} for name in names]
    return pd.DataFrame(rows, columns=[*KEYS, *OWN])


def _scored(group: pd.DataFrame, metric: str, results: Mapping) -> tuple[float, float, float]:
    """Return the score of a metric over items, and its interval."""
    settings = (results["bootstrap"], results["confidence"], results["seed"])
    if METRICS[metric].counts:
        counts = group[METRICS[metric].columns].to_numpy(np.float64)
        return aggregate_change(None, counts, METRICS[metric].of_sums, *settings)[0]
    values = group[metric].to_numpy(np.float64)
    low: Any
    high: Any
    if np.isin(values, SCORES).all():
        low, high = wilson(values.sum(), len(values), results["confidence"])
    else:
        _, low, high = mean_interval(values, results["confidence"], SCORES)
    return float(values.mean()), float(low), float(high)


def own_statistics(
    files: "Iterable[tuple[str, Statistics]]", quantiles: str = "corrected"
) -> pd.DataFrame:
    """Return our activation statistics of the gate as cells (Mondal et al. 2025, Table 6).

    low and high: for a quantile, the bound of the histogram (one bin), averaged over neurons; for
    the mean, 1.96 standard errors of a neuron's mean with tokens as independent, averaged over
    neurons. Under `quantiles: paper` quantiles are those of batches, averaged, where measured.
    """
    rows = []
    for model, one in files:
        for name in QUANTITIES:
            low = high = np.nan
            if name == "mean":
                value = one.mean("gate")
                error = 1.96 * float(np.mean(one.std("gate"))) / np.sqrt(max(one.tokens, 1))
                low, high = value.mean() - error, value.mean() + error
            elif quantiles == "paper":
                level = int(name[1:]) / 100
                if level not in one.header["batch_quantiles"]:
                    continue
                value = one.batch_quantile(level, "gate")
            else:
                value = one.value(name, "gate")
                error = float(np.mean(histogram.bin_width(value)))
                low, high = value.mean() - error, value.mean() + error
            row: dict[str, Any] = {"model": model, "task": STATISTIC_TASK, "selection": ""}
            row |= {"finetuning": "", "choice": ""}
            row |= {"lang": one.lang, "intervention": UNTOUCHED, "metric": name, "n": one.tokens}
            rows.append(row | {"ours": float(value.mean()), "low": low, "high": high})
    return pd.DataFrame(rows, columns=[*KEYS, *OWN])


def own_neurons(
    masks: Iterable[Mapping[str, Any]],
    tables: "Iterable[tuple[str, str, NeuronTable]]",
    stand_ins: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return our cells beside published masks, and one row of rank correlations per mask.

    `tables` are (model, selection, neuron table). One counts if a mask has its model, selection
    and languages: on other languages a selection gives other neurons. n is the neurons of a model.
    """
    found = {(m, s, frozenset(table.languages)): table for m, s, table in tables}
    rows, related = [], []
    for mask in masks:
        model = dict(stand_ins or {}).get(mask["model"], mask["model"])
        published, who = mask["counts"], {"model": model, "selection": mask["selection"]}
        table = found.get((*who.values(), frozenset(published.languages)))
        row = {"mask": mask["mask"], **who, "run": table is not None}
        if table is not None:
            own = Counts.of(table)
            n = table.n_layers * table.width
            rows += [
                _neuron_cell(**who, cell=cell)
                | {"n": n, "ours": cell["value"], "low": np.nan, "high": np.nan}
                for cell in cells(own)
            ]
            row |= correlations(published, own)
        related.append(row)
    return pd.DataFrame(rows, columns=[*KEYS, *OWN]), pd.DataFrame(related)


def compare(printed: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """Return one row per printed cell: printed, ours, difference, whether it is in our interval.

    Cells that were not run have no `ours`, those without interval no `inside`. Numbers of neurons
    have a `ratio`, ours / printed.
    """
    ours = ours.merge(printed[list(KEYS)].drop_duplicates(), on=list(KEYS))
    again = ours.duplicated(list(KEYS))
    if again.any():
        cell = ours.loc[again, list(KEYS)].iloc[0].to_dict()
        raise ValueError(
            f"two of our cells belong to one printed cell: {cell}. Run the selection on one"
            " language set (tasks.<name>.language_sets), so that it is clear which is meant."
        )
    merged = printed.merge(ours, on=list(KEYS), how="left")
    merged = merged.astype(dict.fromkeys(OWN[1:], np.float64))
    merged["difference"] = merged["ours"] - merged["printed"]
    merged["difference_low"] = merged["low"] - merged["printed"]
    merged["difference_high"] = merged["high"] - merged["printed"]
    inside = (merged["printed"] >= merged["low"]) & (merged["printed"] <= merged["high"])
    unknown = merged["ours"].isna() | merged["low"].isna()
    merged["inside"] = np.where(unknown, "", np.where(inside, "yes", "no"))
    counted = (merged["task"] == NEURON_TASK) & (merged["printed"] != 0)
    if (merged["task"] == NEURON_TASK).any():
        merged["ratio"] = (merged["ours"] / merged["printed"]).where(counted)
    return merged


def agreement(compared: pd.DataFrame) -> pd.DataFrame:
    """Return one row per protocol, printed table and model: cells printed, run, inside.

    Numbers of neurons, counts and shares, have the median ratio of ours to the printed instead.
    """
    keys = [key for key in ("protocol", "item", "model") if key in compared]
    rows = []
    for values, group in compared.groupby(keys, sort=False):
        row = dict(zip(keys, values, strict=True)) | {
            "printed": len(group),
            "run": int(group["ours"].notna().sum()),
            "inside": int((group["inside"] == "yes").sum()),
            "mean_difference": group["difference"].mean(),
        }
        if (group["task"] == NEURON_TASK).all():
            del row["inside"], row["mean_difference"]
            row["median_ratio"] = group["ratio"].median()
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.astype({"inside": "Int64"}) if "inside" in frame else frame


def laid_out(compared: pd.DataFrame, layout: Mapping[str, Any], labels: Labels) -> pd.DataFrame:
    """Return a table as the paper lays it out, three lines per printed row.

    Lines: the printed number, ours with its interval, and the difference with its interval; scores
    in per cent. `layout` names the printed table (`of`), its `rows` and `columns` (of `KEYS`), and
    the `models` if it prints a part of them. Numbers of neurons have a fourth line, their ratio;
    `pairs` asks for as many pairs of languages per table of neurons, those with the largest
    published Jaccard index.
    """
    cells = compared[compared["item"] == layout.get("of", layout["item"])]
    if "models" in layout:
        stand_ins = labels.results["stand_ins"]
        models = [stand_ins.get(model, model) for model in layout["models"]]
        cells = cells[cells["model"].isin(models)]
    if "pairs" in layout:
        cells = _closest(cells, layout["pairs"])
    heads = [key for key in ("protocol", *layout["rows"]) if key in cells]
    rows = []
    for values, group in cells.groupby(heads, sort=False):
        shown = {
            _HEADS.get(key, key): _label(key, value, labels)
            for key, value in zip(heads, values, strict=True)
        }
        kind = NEURON_TASK if (group["task"] == NEURON_TASK).all() else "scores"
        lines: dict[str, dict[str, str]] = {line: {} for line in _LINES[kind]}
        for cell in group.to_dict("records"):
            column = ", ".join(_label(key, cell[key], labels) for key in layout["columns"])
            for line, text in _lines(cell).items():
                lines[line][column] = text
        rows += [shown | {"": line} | content for line, content in lines.items()]
    return pd.DataFrame(rows).fillna("")


def _closest(cells: pd.DataFrame, number: int) -> pd.DataFrame:
    """Return the cells of the pairs of languages with the largest published Jaccard index."""
    keys = ["model", "selection", "lang"]
    known = cells[cells["metric"] == "jaccard"].drop_duplicates(keys)[[*keys, "printed"]]
    tables = known.groupby(keys[:2], sort=False)
    rank = tables["printed"].rank(ascending=False, method="first")
    known = known.drop(columns="printed").assign(_table=tables.ngroup(), _rank=rank)
    chosen = cells.merge(known[known["_rank"] <= number], on=keys)
    return chosen.sort_values(["_table", "_rank"], kind="stable")


def _pairs(labels: Labels) -> dict[str, str]:
    """Return what is shown of each pair of languages."""
    names = labels.language_names
    return {
        PAIR.join(pair): ", ".join(names[lang] for lang in pair)
        for pair in itertools.combinations(sorted(names), 2)
    }


_LINES = {
    "scores": ("printed", "ours", "difference"),
    NEURON_TASK: ("published", "ours", "difference", "ratio"),
}
_HEADS = {"lang": "language", "choice": "trained neurons"}


def _label(key: str, value: str, labels: Labels) -> str:
    known = {
        "model": labels.models,
        "selection": labels.selections,
        "intervention": labels.interventions,
        "lang": {**labels.language_names, **_pairs(labels)},
        "choice": {value: value.replace("_", " + ")},
        "metric": {value: value.removeprefix("token_id_").replace("_", " ")},
    }
    return known.get(key, {}).get(value, value)


def _lines(cell: Mapping[str, Any]) -> dict[str, str]:
    """Return the entries of a printed cell; scores and shares in per cent, others as they are."""
    if cell["task"] == NEURON_TASK:
        return _neuron_lines(cell)
    percent = cell["task"] != STATISTIC_TASK
    scale, digits = (100, 1) if percent else (1, 4)
    missing = "not run"
    if pd.isna(cell["ours"]):
        return {"printed": _number(cell["printed"] * scale, digits), "ours": missing}

    def interval(value: float, low: float, high: float) -> str:
        text = _number(value * scale, digits)
        if pd.isna(low):
            return text
        return f"{text} [{_number(low * scale, digits)}, {_number(high * scale, digits)}]"

    return {
        "printed": _number(cell["printed"] * scale, digits),
        "ours": interval(cell["ours"], cell["low"], cell["high"]),
        "difference": interval(cell["difference"], cell["difference_low"], cell["difference_high"]),
    }


def _neuron_lines(cell: Mapping[str, Any]) -> dict[str, str]:
    scale, digits = (100, 1) if cell["metric"] in SHARES else (1, 0)
    published = {"published": _number(cell["printed"] * scale, digits)}
    if pd.isna(cell["ours"]):
        return published | {"ours": "not run"}
    values = {name: _number(cell[name] * scale, digits) for name in ("ours", "difference")}
    ratio = "" if pd.isna(cell["ratio"]) else _number(cell["ratio"], 2)
    return published | values | {"ratio": ratio}


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def layouts(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the layouts of the printed tables, each with its file name."""
    return [
        {"file": _file_name(layout["item"])} | layout for layout in specification(path)["layouts"]
    ]
