"""Train chosen neurons."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.base.io import write_parquet
from langneurons.jobs.training import finetuning_cell
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    curves, more = finetuning_cell(
        snakemake.params.cfg,
        list(snakemake.params.code),
        snakemake.resources.report_to,
        dict(snakemake.input.items()),
        str(Path(snakemake.output.adapter).parent),
    )
    write_parquet(snakemake.output.curves, curves, dict(snakemake.wildcards.items()) | more)
    job.done(steps=int(curves["step"].max()) if len(curves) else 0, **more)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
