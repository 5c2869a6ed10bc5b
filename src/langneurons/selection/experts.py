"""Tables of whole experts as tables of their neurons, and back."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.selection.table import NeuronTable

PLACE = ["lang", "layer", "expert"]


def neurons_of(experts: "pd.DataFrame", own: int) -> "pd.DataFrame":
    """Return a row for each of the `own` neurons of each expert, which column neuron names."""
    found = experts.loc[experts.index.repeat(own)].reset_index(drop=True)
    neuron = found["neuron"].to_numpy(np.int64) * own + np.tile(np.arange(own), len(experts))
    return found.assign(neuron=neuron.astype(np.int32))


def with_expert(neurons: "pd.DataFrame", own: int) -> "pd.DataFrame":
    """Return the rows with the expert of each neuron; an expert has `own` neurons."""
    return neurons.assign(expert=(neurons["neuron"] // own).astype(np.int32))


def whole_experts(table: "NeuronTable", n_experts: int) -> "NeuronTable | None":
    """Return a table whose neurons are experts, if every expert is there with all its neurons."""
    from langneurons.selection.table import NeuronTable

    own = table.d_mlp // n_experts if n_experts else 0
    if not own or not len(table.frame):
        return None
    frame = with_expert(table.frame, own)
    if not (frame.groupby(PLACE).size() == own).all():
        return None
    frame = frame.drop_duplicates(PLACE).drop(columns="neuron").rename(columns={"expert": "neuron"})
    return NeuronTable(frame, table.metadata | {"d_mlp": n_experts})
