"""Write the tables of some families."""

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
    labels, folder = Labels(**snakemake.params.cfg), Path(snakemake.output[0]).parent
    for family in snakemake.params.families:
        own = {
            name.removeprefix(f"{family}_"): list(files)
            for name, files in snakemake.input.items()
            if name.startswith(f"{family}_")
        }
        FAMILIES[family].write(labels, folder, own)
    job.done(families=len(snakemake.params.families))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
