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
    lang = settings.pop("lang")
    fetch_text(CorpusConfig.model_validate(settings), lang, *snakemake.output)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
