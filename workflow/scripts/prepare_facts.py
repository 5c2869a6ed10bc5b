"""Fetch the cloze facts of a premise language."""

from typing import TYPE_CHECKING

from langneurons.data.facts import prepare_facts
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake, offline=False)
    settings = snakemake.params.cfg
    rows, about = snakemake.output
    prepare_facts(settings["source"], settings["lang"], rows, settings["limit"], about)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
