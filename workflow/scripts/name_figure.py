"""Give a figure the name that it has in the paper's order."""

import shutil
from typing import TYPE_CHECKING

from langneurons.base.io import atomic
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    for source, target in zip(snakemake.input, snakemake.output, strict=True):
        with atomic(target) as temporary:
            shutil.copyfile(source, temporary)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
