"""Find out about the selected neurons of a language set: contexts, tokens written, costs."""

from typing import TYPE_CHECKING

from langneurons.base.io import write_parquet
from langneurons.jobs.common import ModelJob
from langneurons.jobs.describing import described
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    seconds = snakemake.resources.checkpoint_seconds
    found, metadata = described(ModelJob.of(snakemake), seconds)
    for name, frame in found.items():
        write_parquet(snakemake.output[name], frame, metadata)
    job.done(**{name: len(frame) for name, frame in found.items()})


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
