"""The neurons of every language of a set by one selection."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langneurons.activations.attribution import Attribution
from langneurons.activations.statistics import Statistics
from langneurons.models.weights import read_weights
from langneurons.selection.method import More
from langneurons.selection.run import run_selection
from langneurons.selection.table import NeuronTable


def neuron_table(
    selection: dict[str, Any], inputs: Mapping[str, Sequence[str]], mask: str
) -> NeuronTable:
    """Return the neuron table of a selection.

    inputs: files by name: statistics and attributions by language, selections that it depends on,
    the manifest of the weights; mask: the file of published neurons, or `none`.
    """
    statistics = [Statistics.read(path, lang=Path(path).stem) for path in inputs["statistics"]]
    first = statistics[0].header
    same = {key: first[key] for key in ("model", "revision", "n_layers", "d_mlp")}
    langs = sorted(one.lang for one in statistics)
    tables = [
        NeuronTable.from_parquet(path, languages=langs, **same)
        for path in inputs.get("selections", [])
    ]
    attributed = {
        Path(path).stem: Attribution.read(path, lang=Path(path).stem)
        for path in inputs.get("attributions", [])
    }
    manifest = next(iter(inputs.get("weights", [])), None)
    more = More(None if manifest is None else read_weights(manifest), attributed or None)
    return run_selection(selection, {one.lang: one for one in statistics}, tables, mask, more)
