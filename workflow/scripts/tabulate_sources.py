"""Write the tables of what was read: packed corpora, and the sources of models and data."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.sources import corpus_table, source_table
from langneurons.reporting.tables.write import write_table
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show, given = snakemake.params.cfg, snakemake.input
    folder = Path(snakemake.output[0]).parent
    write_table(
        corpus_table(given.corpora, show),
        folder / "corpora",
        "Text that each model has read",
        "A model whose tokenizer has no BOS token reads none.",
    )
    write_table(
        source_table(given.manifests, given.fetched, show),
        folder / "sources",
        "Where models and data come from",
        "Commits of the hub, or SHA-256 of files; left_out: blank, doubled, or beyond `rows` and"
        " `limit`.",
    )
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
