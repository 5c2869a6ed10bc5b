"""Fetch the questions of a language."""

from typing import TYPE_CHECKING

from langneurons.data.questions import prepare_questions
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    settings = snakemake.params.cfg
    rows, about = snakemake.output
    prepare_questions(settings["source"], settings["lang"], settings["limit"], rows, about)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
