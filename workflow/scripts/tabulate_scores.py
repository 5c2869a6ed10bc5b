"""Sum up the records of tasks: scores, intervals and tests of every language and condition."""

from typing import TYPE_CHECKING

from langneurons.reporting.labels import Labels
from langneurons.reporting.tables.tasks import sum_up
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    labels = Labels(**snakemake.params.cfg)
    for path in snakemake.output:
        sum_up(list(snakemake.input), labels, path)
    job.done(tasks=len(snakemake.output))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
