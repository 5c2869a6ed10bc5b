"""Tell the language of each answer, and whether it is one."""

from typing import TYPE_CHECKING

from langneurons.base.io import write_parquet
from langneurons.jobs.answers import scored_answers
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    found = scored_answers(snakemake.input.answers, snakemake.input.ratings, snakemake.params.cfg)
    write_parquet(snakemake.output[0], *found)
    job.done(answers=len(found[0]))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
