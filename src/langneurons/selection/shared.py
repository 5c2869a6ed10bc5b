"""Shared neurons as a neuron table; apart from the table, whose code most jobs depend on."""

import os

from langneurons.selection.table import NeuronTable
from langneurons.sharing.neurons import metadata_of, read_neurons


def shared_table(path: str | os.PathLike[str]) -> NeuronTable:
    """Return the table of a file of shared neurons (docs/format.md); it is checked as a whole."""
    frame, header = read_neurons(path)
    return NeuronTable(frame, metadata_of(header))
