"""Score a task in one language under every condition."""

from typing import TYPE_CHECKING

from langneurons.base.io import read_json, write_parquet
from langneurons.jobs.evaluation import evaluation_cell
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    frame, metadata = evaluation_cell(
        snakemake.params.cfg,
        list(snakemake.params.code),
        dict(snakemake.wildcards.items()),
        snakemake.input.manifest,
        snakemake.input.definition,
        snakemake.input.rows,
        list(snakemake.input.get("neurons", [])),
        list(snakemake.input.get("statistics", [])),
        snakemake.resources.batch_tokens,
        snakemake.input.get("adapter"),
    )
    write_parquet(snakemake.output[0], frame, metadata | {"rows": read_json(snakemake.input.about)})
    job.done(records=len(frame))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
