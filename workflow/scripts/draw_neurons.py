"""Draw the neurons per language."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.display import neuron_tables, order
from langneurons.figures import draw_neurons, read_on
from langneurons.runtime import start
from langneurons.tables import neuron_counts

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
