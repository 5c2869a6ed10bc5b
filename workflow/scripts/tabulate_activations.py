"""Write the table of activation statistics."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.records import statistics
from langneurons.reporting.tables.neurons import activation_statistics
from langneurons.reporting.tables.write import write_table
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    path = Path(snakemake.output[0])
    frame = activation_statistics(statistics(snakemake.input, show), show["site"])
    write_table(
        frame,
        path.with_suffix(""),
        "Activation statistics, averaged over all neurons",
        "Quantiles from log-linear histograms, within the width of a bin.",
    )
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
