"""Draw the Language Steering Shift under one intervention."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.steering_shift import draw_lss
from langneurons.reporting.records import lss_matrices, order
from langneurons.reporting.tables.steering_shift import lss_cells, matrix
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    matrices = lss_matrices(snakemake.input, show, snakemake.wildcards.protocol)
    langs = order(show, snakemake.wildcards.label)
    cells = [lss_cells(frame, metadata, show["results"]) for _, frame, metadata in matrices]
    pairs = zip(matrices, cells, strict=True)
    panels = [(labels["selection"], matrix(own, langs)) for (labels, _, _), own in pairs]
    facts = [number for own in cells for number in own["n"]]
    first = matrices[0][0]
    title = f"{first['model']}: Language Steering Shift, intervention {first['intervention']}"
    if len(show["protocols"]) > 1:
        title += f", protocol {first['protocol']}"
    stem = Path(snakemake.output.svg).with_suffix("")
    draw_lss(panels, title, stem, show["language_names"], facts)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
