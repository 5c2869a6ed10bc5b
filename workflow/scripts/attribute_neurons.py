"""Attribute a language's likelihood to every neuron."""

from typing import TYPE_CHECKING

from langneurons.jobs.attribution import attribution_cell
from langneurons.jobs.common import ModelJob
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    seconds = snakemake.resources.checkpoint_seconds
    attribution, state = attribution_cell(ModelJob.of(snakemake), seconds)
    attribution.write(snakemake.output[0])
    state.unlink(missing_ok=True)
    job.done(tokens=attribution.tokens)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
