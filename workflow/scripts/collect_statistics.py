"""Measure every neuron on one shard of a corpus."""

import shutil
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
    found = statistics_cell(ModelJob.of(snakemake), seconds)
    found.whole.write(snakemake.output[0])
    for kept, path in zip(found.slices, snakemake.output[1:], strict=True):
        shutil.move(kept, path)
    for state in found.states:
        state.unlink(missing_ok=True)
    job.done(tokens=found.whole.tokens)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
