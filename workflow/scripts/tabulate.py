"""Write the tables of one family."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.families import FAMILIES
from langneurons.reporting.labels import Labels
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    family, labels = snakemake.params.family, Labels(**snakemake.params.cfg)
    inputs = {name: list(files) for name, files in snakemake.input.items()}
    FAMILIES[family].write(labels, Path(snakemake.output[0]).parent, inputs)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
