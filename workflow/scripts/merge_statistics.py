"""Add the shards of a language."""

from typing import TYPE_CHECKING

from langneurons.activations.merging import merge
from langneurons.activations.statistics import Statistics
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    merged = merge(
        Statistics.read(path, lang=snakemake.wildcards.lang) for path in snakemake.input.shards
    )
    merged.write(snakemake.output[0])
    job.done(tokens=merged.tokens)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
