"""Fetch the documents of a language and split them."""

from typing import TYPE_CHECKING

from langneurons.data.corpus import fetch_text
from langneurons.data.settings import CorpusConfig
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake, offline=False)
    settings = dict(snakemake.params.cfg)
    lang, key = settings.pop("lang"), settings.pop("key", "corpus")
    fetch_text(CorpusConfig.model_validate(settings), lang, *snakemake.output, key)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
