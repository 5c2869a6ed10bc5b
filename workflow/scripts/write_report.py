"""Write the results page: summary, claims, sortable tables, figures."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.report import write_report
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    write_report(
        snakemake.output[0],
        list(snakemake.input.tables),
        list(snakemake.input.figures),
        list(snakemake.input.neurons),
        snakemake.params.cfg,
        Path(snakemake.input.captions[0]).parent,
    )
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
