"""Draw the Language Steering Shift under one intervention."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.display import lss_matrices, order
from langneurons.figures import draw_lss
from langneurons.lss_tables import lss_cells, matrix
from langneurons.runtime import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    matrices = lss_matrices(snakemake.input, show, snakemake.wildcards.protocol)
    langs = order(show, snakemake.wildcards.label)
    panels = [
        (labels["selection"], matrix(lss_cells(frame, metadata, show["results"]), langs))
        for labels, frame, metadata in matrices
    ]
    first = matrices[0][0]
    title = f"{first['model']}: Language Steering Shift, intervention {first['intervention']}"
    if len(show["protocols"]) > 1:
        title += f", protocol {first['protocol']}"
    draw_lss(panels, title, Path(snakemake.output.svg).with_suffix(""))
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
