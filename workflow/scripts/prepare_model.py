"""Fetch or convert a model into resources/models/{model}."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.models.needs import check_prepared
from langneurons.models.prepare import prepare_model
from langneurons.models.settings import ModelEntry
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake, offline=False)
    source = dict(snakemake.params.cfg["source"])
    entry = ModelEntry.model_validate({"source": source, "dtype": "float32"})
    folder = Path(snakemake.output[0]).parent
    manifest = prepare_model(entry, folder)
    asked = snakemake.resources.layers, snakemake.resources.modules
    check_prepared(snakemake.wildcards.model, folder / manifest["path"], *asked)
    job.done(revision=manifest["revision"])


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
