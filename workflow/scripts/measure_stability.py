"""Measure how stable a selection is on other parts of the text."""

from typing import TYPE_CHECKING

from langneurons.base.io import write_parquet
from langneurons.jobs.stability import stability_cell
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    inputs = {
        name: [paths] if isinstance(paths, str) else list(paths)
        for name, paths in snakemake.input.items()
    }
    frame, metadata = stability_cell(snakemake.params.cfg, inputs)
    write_parquet(snakemake.output[0], frame, dict(snakemake.wildcards.items()) | metadata)
    job.done(rows=len(frame))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
