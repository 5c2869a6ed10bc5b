"""Draw the figures of a model under one protocol, those that are under none, or both."""

from typing import TYPE_CHECKING

from langneurons.reporting.drawing import draw_figures
from langneurons.reporting.labels import Labels
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    given = snakemake.params.cfg
    draw_figures(given["figures"], Labels(**given["labels"]))
    job.done(figures=len(given["figures"]))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
