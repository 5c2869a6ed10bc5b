"""From result files to what tables and figures show: labels of models, sets, selections."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.io import read_parquet
from langneurons.neurons import NeuronTable
from langneurons.statistics import Statistics

Labelled = tuple[dict[str, str], Any]


def neuron_tables(paths: Iterable[str], show: dict[str, Any]) -> list[Labelled]:
    """Read tables at results/{model}/neurons/{langset}/{selection}.parquet with their labels."""
    result = []
    for path in map(Path, paths):
        labels = {
            "model": show["models"][path.parts[-4]],
            "languages": show["labels"][path.parts[-2]],
            "selection": show["selections"][path.stem],
        }
        result.append((labels, NeuronTable.from_parquet(path)))
    return result


def statistics(paths: Iterable[str], show: dict[str, Any]) -> Iterable[Labelled]:
    """Yield statistics at results/{model}/activations/{lang}.safetensors, one at a time."""
    for path in map(Path, paths):
        yield {"model": show["models"][path.parts[-3]]}, Statistics.read(path)


def perplexity_matrices(paths: Iterable[str], show: dict[str, Any]) -> list[Labelled]:
    """Read matrices at .../perplexity/{langset}/{selection}/{intervention}.parquet."""
    result = []
    for path in paths:
        frame, metadata = read_parquet(path)
        labels = {
            "model": show["models"][metadata["model"]],
            "languages": show["labels"][metadata["langset"]],
            "selection": show["selections"][metadata["selection"]],
            "intervention": show["interventions"][metadata["intervention"]],
        }
        result.append((labels, frame))
    return result


def task_records(paths: Iterable[str], show: dict[str, Any]) -> list[Labelled]:
    """Read records at .../evaluation/{adapter}/{task}/{lang}.parquet, one frame per model.

    Selections, interventions and sets get their labels; `none` stays the untouched model.
    """
    frames: dict[str, list[pd.DataFrame]] = {}
    for path in paths:
        frame, metadata = read_parquet(path)
        frame = frame.assign(
            langset=frame["langset"].map(show["labels"] | {"none": "none"}),
            selection=frame["selection"].map(show["selections"] | {"none": "none"}),
            intervention=frame["intervention"].map(show["interventions"] | {"none": "none"}),
            adapter=frame["adapter"].map(show["adapters"]),
            task=show["tasks"][metadata["task"]],
        )
        frames.setdefault(show["models"][metadata["model"]], []).append(frame)
    return [({"model": model}, pd.concat(parts)) for model, parts in frames.items()]


def with_labels(labels: dict[str, str], frame: pd.DataFrame) -> pd.DataFrame:
    """Put constant label columns before a frame's own."""
    for place, (name, value) in enumerate(labels.items()):
        frame.insert(place, name, value)
    return frame


def order(show: dict[str, Any], label: str | None = None) -> list[str]:
    """Return languages in the order of a set, or of all sets."""
    return list(show["language_sets"][label] if label else show["order"])
