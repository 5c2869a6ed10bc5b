"""Fetch published neurons of the hub and compare them with the model."""

from typing import TYPE_CHECKING

from langneurons.jobs.masks import prepare_mask
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake, offline=False)
    number = prepare_mask(snakemake.params.cfg, snakemake.input.manifest, snakemake.output[0])
    job.done(neurons=number)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
