"""Copy figures to the names that they have in the paper's order."""

import shutil
from typing import TYPE_CHECKING

from langneurons.base.io import atomic
from langneurons.reporting.drawing import write_caption
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    captions, output = snakemake.params.cfg, snakemake.output
    for kind in ("svg", "png"):
        for source, target in zip(snakemake.input[kind], output[kind], strict=True):
            with atomic(target) as temporary:
                shutil.copyfile(source, temporary)
    for name, path in zip(captions, output.rst, strict=True):
        write_caption(path.removesuffix(".rst"), captions[name])
    job.done(figures=len(captions))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
