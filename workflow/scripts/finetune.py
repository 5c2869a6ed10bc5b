"""Train chosen neurons."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.base.io import write_parquet
from langneurons.jobs.common import ModelJob
from langneurons.jobs.training import finetuning_cell
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    folder = str(Path(snakemake.output.adapter).parent)
    report_to = snakemake.resources.report_to
    curves, more = finetuning_cell(ModelJob.of(snakemake), report_to, folder)
    write_parquet(snakemake.output.curves, curves, dict(snakemake.wildcards.items()) | more)
    job.done(steps=int(curves["step"].max()) if len(curves) else 0, **more)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
