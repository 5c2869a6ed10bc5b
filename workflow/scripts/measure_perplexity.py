"""Measure one perplexity matrix."""

from typing import TYPE_CHECKING

from langneurons.base.io import write_parquet
from langneurons.jobs.perplexity import perplexity_cell
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    frame, metadata = perplexity_cell(
        snakemake.params.cfg,
        list(snakemake.params.code),
        dict(snakemake.wildcards.items()),
        snakemake.input.manifest,
        snakemake.input.neurons,
        list(snakemake.input.statistics),
        list(snakemake.input.corpora),
        snakemake.resources.batch_tokens,
    )
    write_parquet(snakemake.output[0], frame, metadata)
    job.done(tokens=int(frame["tokens"].sum()))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
