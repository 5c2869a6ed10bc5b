"""Measure the Language Steering Shift of a selection under every intervention."""

from typing import TYPE_CHECKING

from langneurons.base.io import read_json, write_parquet
from langneurons.jobs.common import ModelJob
from langneurons.jobs.lss import lss_cell
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    frame, metadata = lss_cell(ModelJob.of(snakemake))
    sources = {
        base: read_json(path)
        for base, path in zip(metadata["bases"], snakemake.input.abouts, strict=True)
    }
    write_parquet(snakemake.output[0], frame, metadata | {"rows": sources})
    job.done(records=len(frame))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
