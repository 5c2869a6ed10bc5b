"""From result files to what tables and figures show: labels of models, sets, selections."""

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.activations.statistics import Statistics
from langneurons.base.io import read_records
from langneurons.evaluation.metrics import METRICS
from langneurons.selection.table import NeuronTable

Labelled = tuple[dict[str, str], Any]
# Where results lie below their folder: the names of a file's cell, which its labels are of.
LAYOUTS = {
    "corpora": "{model}/corpora/{lang}.safetensors",
    "activations": "{model}/activations/{lang}.safetensors",
    "neurons": "{model}/neurons/{langset}/{selection}.parquet",
    "perplexity": "{model}/perplexity/{variant}/{langset}/{selection}/{intervention}.parquet",
    "steering": "{model}/lss/{variant}/{langset}/{selection}/{intervention}.parquet",
    "evaluation": "{model}/evaluation/{variant}/{adapter}/{task}/{lang}.parquet",
    "generation": "{model}/judged/{analysis}/{variant}/{langset}/{selection}"
    "/{intervention}.parquet",
    "lens": "{model}/lens/{variant}/{langset}.parquet",
}
# The same of what is fetched: the weights, and the file beside each that names its source.
FETCHED = {
    "models": "models/{model}/manifest.json",
    "text": "text/{lang}.json",
    "tasks": "tasks/{variant}/{task}/{lang}.json",
    "training": "training/{variant}/{finetuning}.json",
    "facts": "facts/{lang}.json",
    "questions": "questions/{analysis}/{lang}.json",
}


def names_of(path: str | os.PathLike, kind: str) -> dict[str, str]:
    """Return the names that a file's path holds, by the layout of its kind."""
    layout = (LAYOUTS | FETCHED)[kind]
    parts = re.split(r"\{(\w+)\}", layout)
    pattern = "".join(
        f"(?P<{part}>[^/]+)" if number % 2 else re.escape(part) for number, part in enumerate(parts)
    )
    match = re.search(rf"(?:^|/){pattern}$", Path(path).as_posix())
    if match is None:
        raise ValueError(f"{path} does not lie where results of its kind do: {layout}")
    return match.groupdict()


def in_sequence(paths: Iterable[str], kind: str, show: dict[str, Any]) -> list[str]:
    """Sort the paths of results as the configuration lists models, selections, interventions."""
    sections = ("model", "selection", "intervention")
    places = {
        key: {name: place for place, name in enumerate(show["sequence"][f"{key}s"])}
        for key in sections
    }

    def place(path: str) -> tuple:
        names = names_of(path, kind)
        ranks = (places[key].get(names[key], 0) for key in sections if key in names)
        return (*ranks, Path(path).as_posix())

    return sorted(map(str, paths), key=place)


def neuron_tables(paths: Iterable[str], show: dict[str, Any]) -> list[Labelled]:
    """Read tables at results/{model}/neurons/{langset}/{selection}.parquet with their labels."""
    result = []
    for path in in_sequence(paths, "neurons", show):
        names = names_of(path, "neurons")
        labels = {
            "model": show["models"][names["model"]],
            "languages": show["labels"][names["langset"]],
            "selection": show["selections"][names["selection"]],
        }
        table = NeuronTable.from_parquet(path)
        table.metadata["name"] = names["selection"]
        result.append((labels, table))
    return result


def statistics(paths: Iterable[str], show: dict[str, Any]) -> Iterable[Labelled]:
    """Yield statistics at results/{model}/activations/{lang}.safetensors, one at a time."""
    for path in paths:
        names = names_of(path, "activations")
        labels = {"model": show["models"][names["model"]]}
        yield labels, Statistics.read(path, lang=names["lang"])


def protocols(
    path: str | os.PathLike, kind: str, show: dict[str, Any], stage: str | None = None
) -> list[str]:
    """Return the protocols to which a result belongs: those with its points of a stage.

    `kind` is that of its layout, and the stage where it has no other name.
    """
    points = names_of(path, kind)["variant"]
    return [name for name, one in show["protocols"].items() if one[stage or kind] == points]


def perplexity_files(paths: Iterable[str]) -> list[tuple[Path, pd.DataFrame, dict[str, Any]]]:
    """Read and check matrices at .../{variant}/{langset}/{selection}/{intervention}.parquet."""
    result = []
    for path in map(Path, paths):
        names = names_of(path, "perplexity")
        who = {key: names[key] for key in ("model", "langset", "selection", "intervention")}
        columns = ("deactivated", "evaluated", "document")
        numbers = ("nll", "tokens", "bytes")
        frame, metadata = read_records(path, columns, numbers, **who)
        result.append((path, frame, metadata))
    return result


def evaluation_files(paths: Iterable[str]) -> list[tuple[Path, pd.DataFrame, dict[str, Any]]]:
    """Read and check records at .../evaluation/{variant}/{adapter}/{task}/{lang}.parquet."""
    columns = ("lang", "langset", "selection", "intervention", "target")
    columns += ("item", "prediction", "gold")
    result = []
    for path in map(Path, paths):
        names = names_of(path, "evaluation")
        who = {key: names[key] for key in ("model", "adapter", "task", "lang")}
        metadata = read_records(path, columns, (), **who)[1]
        metrics = [METRICS[one] for one in metadata["metrics"]]
        grouped = [one.name for one in metrics if one.groups is not None]
        held = (one.columns for one in metrics if one.groups is None)
        numbers = list(itertools.chain.from_iterable(held))
        frame, metadata = read_records(path, (*columns, *grouped), numbers, **who)
        result.append((path, frame, metadata))
    return result


def perplexity_matrices(
    paths: Iterable[str], show: dict[str, Any], protocol: str | None = None
) -> list[tuple[dict[str, str], pd.DataFrame, bool]]:
    """Read matrices at .../perplexity/{variant}/{langset}/{selection}/{intervention}.parquet.

    Returns labels, records and whether every cell read a sample of its own; of all protocols, or
    of one.
    """
    read = perplexity_files(in_sequence(paths, "perplexity", show))
    result = []
    for name, (path, frame, metadata) in itertools.product(show["protocols"], read):
        if name not in protocols(path, "perplexity", show) or protocol not in (None, name):
            continue
        labels = {
            "model": show["models"][metadata["model"]],
            "protocol": name,
            "languages": show["labels"][metadata["langset"]],
            "selection": show["selections"][metadata["selection"]],
            "intervention": show["interventions"][metadata["intervention"]],
        }
        result.append((labels, frame, metadata["sampled"]))
    return result


def _condition(path: str, kind: str) -> dict[str, str]:
    names = names_of(path, kind)
    return {key: names[key] for key in ("selection", "intervention")}


def lss_matrices(
    paths: Iterable[str], show: dict[str, Any], protocol: str | None = None
) -> list[tuple[dict[str, str], pd.DataFrame, dict[str, Any]]]:
    """Read matrices at .../lss/{variant}/{langset}/{selection}/{intervention}.parquet.

    Returns labels, records and metadata; of all protocols, or of one.
    """
    columns = ("base", "target", "fact")
    read = [
        (path, *read_records(path, columns, (), **_condition(path, "steering")))
        for path in in_sequence(paths, "steering", show)
    ]
    result = []
    for name, (path, frame, metadata) in itertools.product(show["protocols"], read):
        if name not in protocols(path, "steering", show) or protocol not in (None, name):
            continue
        labels = {
            "model": show["models"][metadata["model"]],
            "protocol": name,
            "languages": show["labels"][metadata["langset"]],
            "selection": show["selections"][metadata["selection"]],
            "intervention": show["interventions"][metadata["intervention"]],
        }
        result.append((labels, frame, metadata))
    return result


def task_records(
    paths: Iterable[str], show: dict[str, Any], protocol: str | None = None
) -> list[Labelled]:
    """Read records at .../evaluation/{variant}/{adapter}/{task}/{lang}.parquet.

    Returns one frame per model and protocol (or of one protocol). Selections, interventions and
    sets get their labels; `none` stays the untouched model.
    """
    frames: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for path, frame, metadata in evaluation_files(paths):
        frame = frame.assign(
            langset=frame["langset"].map(show["labels"] | {"none": "none"}),
            selection=frame["selection"].map(show["selections"] | {"none": "none"}),
            intervention=frame["intervention"].map(show["interventions"] | {"none": "none"}),
            adapter=frame["adapter"].map(show["adapters"]),
            task=show["tasks"][metadata["task"]],
        )
        for name in protocols(path, "evaluation", show):
            if protocol in (None, name):
                frames.setdefault((show["models"][metadata["model"]], name), []).append(frame)
    return [
        ({"model": model, "protocol": name}, pd.concat(parts))
        for (model, name), parts in frames.items()
    ]


def scores_of(path: str) -> Labelled:
    """Read what `tabulate_scores` wrote: the labels of model and protocol, and the scores."""
    columns = ("model", "protocol", "task", "metric", "lang", "intervention", "target")
    frame, metadata = read_records(path, columns, ())
    return {key: metadata[key] for key in ("model", "protocol")}, frame


def generation_records(
    paths: Iterable[str], show: dict[str, Any], protocol: str | None = None
) -> list[Labelled]:
    """Read records at .../judged/{analysis}/{variant}/{langset}/{selection}/{intervention}.parquet.

    Returns one frame per file and protocol (or of one protocol), with its labels.
    """
    read = [
        (path, *read_records(path, ("text",), (), **_condition(path, "generation")))
        for path in in_sequence(paths, "generation", show)
    ]
    result = []
    for name, (path, frame, metadata) in itertools.product(show["protocols"], read):
        if name not in protocols(path, "generation", show) or protocol not in (None, name):
            continue
        labels = {
            "model": show["models"][metadata["model"]],
            "protocol": name,
            "languages": show["labels"][metadata["langset"]],
            "selection": show["selections"][metadata["selection"]],
            "intervention": show["interventions"][metadata["intervention"]],
        }
        result.append((labels, frame))
    return result


def lens_records(
    paths: Iterable[str], show: dict[str, Any], protocol: str | None = None
) -> list[tuple[dict[str, str], pd.DataFrame, pd.DataFrame]]:
    """Read records at results/{model}/lens/{variant}/{langset}.parquet, and their coverage.

    Selections and interventions get their labels; `none` stays the untouched model.
    """
    columns = ("selection", "intervention", "lang", "layer")
    read = [(path, *read_records(path, columns, ())) for path in map(Path, paths)]
    result = []
    for name, (path, frame, metadata) in itertools.product(show["protocols"], read):
        if name not in protocols(path, "lens", show, "generation") or protocol not in (None, name):
            continue
        labels = {
            "model": show["models"][metadata["model"]],
            "protocol": name,
            "languages": show["labels"][metadata["langset"]],
        }
        frame = frame.assign(
            selection=frame["selection"].map(show["selections"] | {"none": "none"}),
            intervention=frame["intervention"].map(show["interventions"] | {"none": "none"}),
        )
        result.append((labels, frame, pd.DataFrame(metadata["coverage"])))
    return result


def _listed(show: dict[str, Any], section: str) -> list[str]:
    """Return the labels of a section in the configuration's order."""
    return [show[section][name] for name in show["sequence"][section]]


def in_order(scores: pd.DataFrame, show: dict[str, Any]) -> pd.DataFrame:
    """Sort task scores as the configuration lists tasks, adapters, languages and conditions."""
    orders = {
        "task": _listed(show, "tasks"),
        "metric": dict.fromkeys(scores["metric"]),
        "adapter": show["adapters"].values(),
        "lang": show["order"],
        "selection": ["none", *_listed(show, "selections")],
        "langset": ["none", *show["labels"].values()],
        "intervention": ["none", *_listed(show, "interventions")],
        "target": ["none", *show["order"]],
    }
    ranks = {
        column: scores[column].map({value: place for place, value in enumerate(values)})
        for column, values in orders.items()
        if column in scores
    }
    order = pd.DataFrame(ranks).reset_index(drop=True).sort_values(list(ranks), kind="stable")
    return scores.iloc[order.index].reset_index(drop=True)


def with_labels(labels: dict[str, str], frame: pd.DataFrame) -> pd.DataFrame:
    """Put constant label columns before a frame's own."""
    for place, (name, value) in enumerate(labels.items()):
        frame.insert(place, name, value)
    return frame


def order(show: dict[str, Any], label: str | None = None) -> list[str]:
    """Return languages in the order of a set, or of all sets."""
    return list(show["language_sets"][label] if label else show["order"])
