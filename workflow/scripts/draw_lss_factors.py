"""Draw the mean Language Steering Shift of every intervention, with random neurons beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.steering_shift import draw_lss_factors
from langneurons.reporting.records import lss_matrices
from langneurons.reporting.tables.steering_shift import ALL, lss_summary
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    matrices = lss_matrices(snakemake.input, show, snakemake.wildcards.protocol)
    summary = lss_summary(matrices, show["results"], show["controls"])
    means = summary[summary["target"] == ALL].drop_duplicates(["intervention", "selection"])
    first = matrices[0][0]
    title = f"{first['model']}: Language Steering Shift by intervention"
    if len(show["protocols"]) > 1:
        title += f", protocol {first['protocol']}"
    stem = Path(snakemake.output.svg).with_suffix("")
    draw_lss_factors(means, title, stem, show["results"]["confidence"])
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
