"""Write the 4-bit weights of a prepared model."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.models.prepare import quantize_model
from langneurons.models.settings import ModelEntry
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    entry = ModelEntry.model_validate(snakemake.params.cfg)
    manifest = quantize_model(entry, snakemake.input.manifest, Path(snakemake.output[0]).parent)
    job.done(revision=manifest["revision"])


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
