"""Draw the distribution of activations by language."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.neurons import draw_activations
from langneurons.reporting.records import order, statistics
from langneurons.reporting.tables.neurons import activation_statistics
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    frame = activation_statistics(statistics(snakemake.input, show), show["site"])
    title = f"{frame['model'].iloc[0]}: activations by language"
    stem = Path(snakemake.output.svg).with_suffix("")
    draw_activations(frame, order(show), title, stem, show["language_names"])
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
