"""Answer development questions under every setting of a method."""

from typing import TYPE_CHECKING

from langneurons.base.io import write_parquet
from langneurons.jobs.answers import development_cell
from langneurons.jobs.common import ModelJob
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    own = ModelJob.of(snakemake)
    frame, metadata = development_cell(own)
    write_parquet(snakemake.output[0], frame, metadata)
    job.done(tokens=int(frame["tokens"].sum()), **own.engine.record())


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
