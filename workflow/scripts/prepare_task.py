"""Fetch the items of a task in a language."""

from typing import TYPE_CHECKING

from langneurons.evaluation.definition import load_task
from langneurons.evaluation.items import prepare_task
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake, offline=False)
    settings = snakemake.params.cfg
    task = load_task(snakemake.input.definition)
    prepare_task(
        task,
        settings["source"],
        settings["lang"],
        snakemake.output[0],
        settings["limit"],
        settings["rows"],
        snakemake.output[1],
    )
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
