"""Draw: neurons by language and layer."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.neurons import draw_layers
from langneurons.reporting.records import neuron_tables, order
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    ((labels, table),) = neuron_tables(snakemake.input, show)
    title = f"{labels['model']}, {labels['selection']}: neurons by language and layer"
    stem = Path(snakemake.output.svg).with_suffix("")
    langs, names = order(show, snakemake.wildcards.label), show["language_names"]
    draw_layers(table, langs, title, stem, names)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
