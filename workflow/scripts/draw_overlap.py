"""Draw: neurons that languages share."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.neurons import draw_overlap
from langneurons.reporting.records import neuron_tables, order
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    ((labels, table),) = neuron_tables(snakemake.input, show)
    title = f"{labels['model']}, {labels['selection']}: neurons that languages share"
    stem = Path(snakemake.output.svg).with_suffix("")
    families = show["families"] if show["results"]["group_by"] == "family" else None
    langs, names = order(show, snakemake.wildcards.label), show["language_names"]
    draw_overlap(table, langs, title, stem, families, names)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
