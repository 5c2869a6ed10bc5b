"""Result files as frames: checked, each with the names of its cell (keys of the configuration)."""

import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.activations.statistics import Statistics
from langneurons.base.io import DamagedFile, damaged, read_records
from langneurons.base.words import UNTOUCHED
from langneurons.evaluation.metrics import METRICS
from langneurons.reporting.labels import Labels
from langneurons.reporting.layouts import in_sequence, names_of
from langneurons.selection.table import NeuronTable

Names = dict[str, str]
TRIAL_COLUMNS = (
    *("phase", "target", "evaluated", "selection", "intervention", "asked", "strength", "dose"),
    *("reached", "match", "draw", "document", "nll", "kl", "tokens"),
)
Read = tuple[Path, pd.DataFrame, dict[str, Any]]


def _named(path: str | os.PathLike, kind: str, *keys: str) -> dict[str, Any]:
    """Return the names of a file's cell that its metadata must hold."""
    names = names_of(path, kind)
    return {key: names[key] for key in keys}


def neuron_tables(paths: Iterable[str], labels: Labels) -> list[tuple[Names, NeuronTable]]:
    """Read neuron tables in the configuration's order, each with its model, set and selection."""
    result = []
    for path in in_sequence(paths, "neurons", labels.sequence):
        names = names_of(path, "neurons")
        cell = {"model": names["model"], "languages": names["langset"]}
        cell["selection"] = names["selection"]
        result.append((cell, NeuronTable.from_parquet(path)))
    return result


def statistics(paths: Iterable[str]) -> Iterator[tuple[Names, Statistics]]:
    """Yield statistics with their model, one at a time."""
    for path in paths:
        names = names_of(path, "activations")
        yield {"model": names["model"]}, Statistics.read(path, lang=names["lang"])


def stability_records(
    paths: Iterable[str], labels: Labels
) -> list[tuple[Names, pd.DataFrame, dict[str, Any]]]:
    """Read the records of stability in the configuration's order: cell, frame, metadata."""
    columns = ("kind", "draw", "lang", "other", "jaccard", "chance", "cosine")
    numbers = ("share", "tokens", "neurons")
    found = []
    for path in in_sequence(paths, "stability", labels.sequence):
        same = _named(path, "stability", "model", "langset", "selection")
        cell = {"model": same["model"], "languages": same["langset"]}
        cell["selection"] = same["selection"]
        found.append((cell, *read_records(path, columns, numbers, **same)))
    return found


def until_records(
    paths: Iterable[str], labels: Labels
) -> list[tuple[Names, pd.DataFrame, dict[str, Any]]]:
    """Read how stable selections were while text was read: model, frame, metadata."""
    columns, numbers = ("langset", "lang", "jaccard", "chance"), ("slices", "tokens", "neurons")
    found = []
    for path in in_sequence(paths, "until", labels.sequence):
        same = _named(path, "until", "model")
        found.append((same, *read_records(path, columns, numbers, **same)))
    return found


def protocols(
    path: str | os.PathLike, kind: str, labels: Labels, stage: str | None = None
) -> list[str]:
    """Return the protocols to which a result belongs: those with its variant of a stage.

    `kind` is that of its layout, and the stage where it has no other name.
    """
    variant = names_of(path, kind)["variant"]
    return [name for name, one in labels.protocols.items() if one[stage or kind] == variant]


def _under(
    read: Iterable[Read], kind: str, labels: Labels, protocol: str | None, stage: str
) -> Iterator[tuple[Names, pd.DataFrame, dict[str, Any]]]:
    """Yield each file once for each protocol it belongs to, with the names of its cell."""
    for name, (path, frame, metadata) in itertools.product(labels.protocols, list(read)):
        if name in protocols(path, kind, labels, stage) and protocol in (None, name):
            keys = ("model", "langset", "selection", "intervention")
            cell = {key: metadata[key] for key in keys if key in metadata}
            cell = {"model": cell.pop("model"), "protocol": name, "languages": cell.pop("langset")}
            cell |= {key: metadata[key] for key in keys[2:] if key in metadata}
            yield cell, frame, metadata


# Files that hold a matrix for each intervention: their columns, and those of finite numbers.
MATRICES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "perplexity": (("deactivated", "evaluated", "document"), ("nll", "tokens", "bytes")),
    "steering": (("base", "target", "fact"), ()),
}


def matrix_files(
    paths: Iterable[str], kind: str, interventions: Collection[str] | None = None
) -> Iterator[Read]:
    """Yield the checked records of each intervention of each file, or of chosen interventions.

    Those of the untouched model are in each; metadata name the intervention.
    """
    columns, numbers = MATRICES[kind]
    wanted = None if interventions is None else {"intervention": [*interventions, UNTOUCHED]}
    for path in map(Path, paths):
        same = _named(path, kind, "model", "langset", "selection")
        frame, metadata = read_records(path, ("intervention", *columns), numbers, wanted, **same)
        untouched = frame["intervention"] == UNTOUCHED
        for name in metadata["interventions"]:
            if interventions is not None and name not in interventions:
                continue
            written = frame["intervention"] == name
            if not written.any():
                raise DamagedFile(damaged(path, f"it holds no rows of intervention {name!r}"))
            own = frame[untouched | written].drop(columns="intervention").reset_index(drop=True)
            yield path, own, metadata | {"intervention": name}


def _matrices(
    paths: Iterable[str],
    kind: str,
    labels: Labels,
    protocol: str | None,
    interventions: Collection[str] | None,
) -> Iterator[tuple[Names, pd.DataFrame, dict[str, Any]]]:
    """Yield matrices in the configuration's order: by model, selection, intervention and file."""
    keys = ("model", "selection", "intervention")
    places = {
        key: {name: number for number, name in enumerate(labels.sequence[f"{key}s"])}
        for key in keys
    }
    read = matrix_files(in_sequence(paths, kind, labels.sequence), kind, interventions)
    ordered = sorted(read, key=lambda one: [places[key].get(one[2][key], 0) for key in keys])
    return _under(ordered, kind, labels, protocol, kind)


def evaluation_files(paths: Iterable[str]) -> list[Read]:
    """Read and check the records of tasks."""
    condition = ("lang", "langset", "selection", "intervention", "target")
    columns = (*condition, "item", "prediction", "gold")
    result = []
    for path in map(Path, paths):
        same = _named(path, "evaluation", "model", "adapter", "task", "lang")
        metadata = read_records(path, columns, (), **same)[1]
        metrics = [METRICS[one] for one in metadata["metrics"]]
        grouped = [one.name for one in metrics if one.groups is not None]
        held = (one.columns for one in metrics if one.groups is None)
        numbers = list(itertools.chain.from_iterable(held))
        frame, metadata = read_records(path, (*columns, *grouped), numbers, **same)
        result.append((path, frame, metadata))
    return result


def perplexity_matrices(
    paths: Iterable[str],
    labels: Labels,
    protocol: str | None = None,
    interventions: Collection[str] | None = None,
) -> list[tuple[Names, pd.DataFrame, dict[str, Any]]]:
    """Read perplexity matrices of all protocols, or of one; of all interventions, or of some.

    Returns names, records and metadata (`read_as` of it goes to `tables.perplexity_change`).
    """
    return list(_matrices(paths, "perplexity", labels, protocol, interventions))


def read_as(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether every cell of a matrix read a sample of its own, and the planned looks."""
    return {"sampled": metadata["sampled"], "looks": planned_looks(metadata)}


def planned_looks(metadata: Mapping[str, Any]) -> int:
    """Return after how many shares of the documents reading could have stopped."""
    until = metadata.get("until")
    return until["looks"] if until else 1


def trial_records(
    paths: Iterable[str], labels: Labels
) -> Iterator[tuple[Names, pd.DataFrame, dict[str, Any]]]:
    """Read the trials of methods, in the configuration's order."""
    order = list(labels.sequence["methods"])
    for path in sorted(paths, key=lambda one: order.index(names_of(one, "trials")["method"])):
        names = names_of(path, "trials")
        same = _named(path, "trials", "model", "langset", "method")
        frame, metadata = read_records(path, TRIAL_COLUMNS, (), **same)
        cell = {"model": names["model"], "languages": names["langset"], "method": names["method"]}
        yield cell, frame, metadata


def answer_records(
    paths: Iterable[str], labels: Labels
) -> Iterator[tuple[Names, pd.DataFrame, dict[str, Any]]]:
    """Read the scored answers to test questions, once for each protocol they belong to."""
    order = list(labels.sequence["methods"])
    tested = [path for path in paths if names_of(path, "answers")["phase"] == "test"]
    tested.sort(key=lambda one: order.index(names_of(one, "answers")["method"]))
    columns = ("source", "target", "setting", "draw", "id", "part", "identified", "relevance")
    read = [
        (path, *read_records(path, columns, (), **_named(path, "answers", "model", "method")))
        for path in tested
    ]
    for name in labels.protocols:
        for path, frame, metadata in read:
            if name in protocols(path, "answers", labels, "answering"):
                own = names_of(path, "answers")
                cell = {"model": own["model"], "protocol": name, "languages": own["langset"]}
                yield cell | {"method": own["method"]}, frame, metadata


def _conditions(
    paths: Iterable[str], kind: str, columns: tuple[str, ...], labels: Labels
) -> Iterator[Read]:
    for path in in_sequence(paths, kind, labels.sequence):
        same = _named(path, kind, "model", "langset", "selection", "intervention")
        yield Path(path), *read_records(path, columns, (), **same)


def lss_matrices(
    paths: Iterable[str],
    labels: Labels,
    protocol: str | None = None,
    interventions: Collection[str] | None = None,
) -> list[tuple[Names, pd.DataFrame, dict[str, Any]]]:
    """Read the steering shift of all protocols, or of one; of all interventions, or of some.

    Returns names, records and metadata, with the neurons of the one intervention.
    """
    return [
        (names, frame, metadata | {"neurons": metadata["neurons"][names["intervention"]]})
        for names, frame, metadata in _matrices(paths, "steering", labels, protocol, interventions)
    ]


def generation_records(
    paths: Iterable[str], labels: Labels, protocol: str | None = None
) -> list[tuple[Names, pd.DataFrame]]:
    """Read judged texts, one frame per file and protocol (or of one protocol)."""
    read = _conditions(paths, "generation", ("text",), labels)
    found = _under(read, "generation", labels, protocol, "generation")
    return [(names, frame) for names, frame, _ in found]


def lens_records(
    paths: Iterable[str], labels: Labels, protocol: str | None = None
) -> list[tuple[Names, pd.DataFrame, pd.DataFrame]]:
    """Read records of the logit lens, and the coverage of each language's tokens."""
    columns = ("selection", "intervention", "lang", "layer")
    read = []
    for path in map(Path, paths):
        same = _named(path, "lens", "model", "langset")
        read.append((path, *read_records(path, columns, (), **same)))
    found = _under(read, "lens", labels, protocol, "generation")
    return [(names, frame, pd.DataFrame(more["coverage"])) for names, frame, more in found]


def task_records(
    paths: Iterable[str], labels: Labels, protocol: str | None = None
) -> list[tuple[Names, pd.DataFrame]]:
    """Read records of tasks, one frame per model and protocol (or of one protocol)."""
    frames: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for path, frame, metadata in evaluation_files(paths):
        frame = frame.assign(task=metadata["task"])
        for name in protocols(path, "evaluation", labels):
            if protocol in (None, name):
                frames.setdefault((metadata["model"], name), []).append(frame)
    return [
        ({"model": model, "protocol": name}, pd.concat(parts))
        for (model, name), parts in frames.items()
    ]


def scores_of(path: str) -> pd.DataFrame:
    """Read the scores of a task under one model and protocol."""
    columns = ("model", "protocol", "task", "metric", "lang", "intervention", "target")
    same = _named(path, "scores", "model", "protocol", "task")
    return read_records(path, columns, (), **same)[0]


def in_order(scores: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """Sort task scores as the configuration lists tasks, adapters, languages and conditions."""
    orders = {
        "task": labels.sequence["tasks"],
        "metric": dict.fromkeys(scores["metric"]),
        "adapter": labels.adapters,
        "lang": labels.languages,
        "selection": [UNTOUCHED, *labels.sequence["selections"]],
        "langset": [UNTOUCHED, *labels.sets],
        "intervention": [UNTOUCHED, *labels.sequence["interventions"]],
        "target": [UNTOUCHED, *labels.languages],
    }
    ranks = {
        column: scores[column].map({value: number for number, value in enumerate(values)})
        for column, values in orders.items()
        if column in scores
    }
    order = pd.DataFrame(ranks).reset_index(drop=True).sort_values(list(ranks), kind="stable")
    return scores.iloc[order.index].reset_index(drop=True)


def with_names(names: Names, frame: pd.DataFrame) -> pd.DataFrame:
    """Put the names of a cell before a frame's own columns."""
    for number, (name, value) in enumerate(names.items()):
        frame.insert(number, name, value)
    return frame
