"""Try a method: tune it on development documents, test it on others, beside random controls."""

from typing import TYPE_CHECKING

from langneurons.base.io import write_parquet
from langneurons.jobs.common import ModelJob
from langneurons.jobs.trials import trial_cell
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    frame, metadata = trial_cell(ModelJob.of(snakemake))
    write_parquet(snakemake.output[0], frame, metadata)
    job.done(records=len(frame))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
