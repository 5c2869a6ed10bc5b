"""Write the tables of neurons, overlap and layers."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.records import neuron_tables
from langneurons.reporting.tables.neurons import (
    layer_counts,
    neuron_counts,
    overlap_counts,
    selection_overlap,
)
from langneurons.reporting.tables.write import write_table
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    folder = Path(snakemake.output[0]).parent
    tables = neuron_tables(snakemake.input, show)
    write_table(
        neuron_counts(tables),
        folder / "neurons",
        "Neurons per language",
        "unique: distinct neurons; pairs: (language, neuron) pairs, as a neuron may have several.",
    )
    write_table(
        overlap_counts(tables),
        folder / "overlap",
        "Neurons that two languages share",
        "chance: shared on average by random sets with as many neurons in each layer.",
    )
    write_table(
        selection_overlap(tables),
        folder / "selections",
        "Neurons that two selections share",
        "Of one language, on one language set; chance: shared on average by two random sets of"
        " these sizes, or with a control drawn anew from the neurons that it may contain.",
    )
    write_table(layer_counts(tables), folder / "layers", "Neurons per language and layer")
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
