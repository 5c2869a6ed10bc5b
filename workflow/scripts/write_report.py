"""Write the results page: summary, claims, sortable tables, figures."""

from typing import TYPE_CHECKING

from langneurons.reporting.labels import Labels
from langneurons.reporting.report import write_report
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    cfg, given = snakemake.params.cfg, snakemake.input
    labels = Labels(**cfg["labels"])
    write_report(snakemake.output[0], list(given.tables), list(given.neurons), labels, cfg["page"])
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
