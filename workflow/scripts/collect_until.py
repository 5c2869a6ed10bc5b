"""Measure every neuron on the text of all languages, as far as a selection needs it."""

from typing import TYPE_CHECKING

from langneurons.base.io import write_parquet
from langneurons.jobs.common import ModelJob
from langneurons.jobs.until import until_cell
from langneurons.reporting.layouts import names_of
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    output = snakemake.output
    found = until_cell(ModelJob.of(snakemake), snakemake.resources.checkpoint_seconds)
    tokens = found.write(output.statistics, output.slices)
    names = names_of(output.curve, "until")
    write_parquet(output.curve, found.curve, names | found.metadata)
    found.forget()
    job.done(tokens=tokens)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
