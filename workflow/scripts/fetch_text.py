"""Fetch the documents of a language and split them."""

from typing import TYPE_CHECKING

from langneurons.config.corpus import CorpusConfig
from langneurons.corpora import fetch_text
from langneurons.runtime import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake, offline=False)
    settings = dict(snakemake.params.cfg)
    lang = settings.pop("lang")
    fetch_text(CorpusConfig.model_validate(settings), lang, *snakemake.output)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
