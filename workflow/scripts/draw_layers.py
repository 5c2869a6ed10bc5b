"""Draw: neurons by language and layer."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.display import neuron_tables, order
from langneurons.figures import draw_layers
from langneurons.runtime import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    ((labels, table),) = neuron_tables(snakemake.input, show)
    title = f"{labels['model']}, {labels['selection']}: neurons by language and layer"
    stem = Path(snakemake.output.svg).with_suffix("")
    draw_layers(table, order(show, snakemake.wildcards.label), title, stem)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
