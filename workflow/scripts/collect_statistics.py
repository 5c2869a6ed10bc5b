"""Measure every neuron on one shard of a corpus."""

from typing import TYPE_CHECKING

from langneurons.jobs.common import ModelJob
from langneurons.jobs.statistics import statistics_cell
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    seconds = snakemake.resources.checkpoint_seconds
    statistics, state = statistics_cell(ModelJob.of(snakemake), seconds)
    statistics.write(snakemake.output[0])
    state.unlink(missing_ok=True)
    job.done(tokens=statistics.tokens)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
