"""Draw the neurons per language."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.neurons import draw_neurons, read_on
from langneurons.reporting.records import neuron_tables, order
from langneurons.reporting.tables.neurons import neuron_counts
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    label = snakemake.wildcards.label
    tables = neuron_tables(snakemake.input, show)
    title = f"{tables[0][0]['model']}: neurons per language"
    stem = Path(snakemake.output.svg).with_suffix("")
    langs, names = order(show, label), show["language_names"]
    draw_neurons(neuron_counts(tables), langs, title, stem, names, read_on(tables[0][1]))
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
