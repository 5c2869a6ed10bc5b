"""Draw the Venn diagrams of three languages."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.neurons import draw_venn
from langneurons.reporting.records import neuron_tables
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    ((labels, table),) = neuron_tables(snakemake.input, show)
    title = f"{labels['model']}, {labels['selection']}: neurons of three languages"
    triples = [t for t in show["results"]["venn"] if set(t) <= set(table.languages)]
    stem = Path(snakemake.output.svg).with_suffix("")
    draw_venn(table, triples, title, stem, show["language_names"])
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
