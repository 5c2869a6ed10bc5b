"""Score a task in one language under every condition."""

from typing import TYPE_CHECKING

from langneurons.base.io import read_json, write_parquet
from langneurons.jobs.common import ModelJob
from langneurons.jobs.evaluation import evaluation_cell
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    own = ModelJob.of(snakemake)
    frame, metadata = evaluation_cell(own)
    write_parquet(snakemake.output[0], frame, metadata | {"rows": read_json(snakemake.input.about)})
    job.done(records=len(frame), **own.engine.record())


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
