"""Tokenise and pack the documents of a language."""

from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from langneurons.base.io import read_json
from langneurons.data.corpus import pack_corpus
from langneurons.data.settings import CorpusConfig, Variant
from langneurons.data.varied_tokens import vary_corpus
from langneurons.models.load import load_tokenizer, tokenizer_hash
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    settings = dict(snakemake.params.cfg)
    lang, variant = settings.pop("lang"), settings.pop("variant", None)
    tokenizer = load_tokenizer(snakemake.input.manifest)
    corpus = pack_corpus(
        CorpusConfig.model_validate(settings),
        lang,
        snakemake.input.text,
        tokenizer,
        tokenizer_hash(tokenizer),
        read_json(snakemake.input.manifest)["max_positions"],
        read_json(snakemake.input.about),
    )
    if variant is not None:
        corpus = vary_corpus(TypeAdapter(Variant).validate_python(variant), corpus)
    corpus.write(snakemake.output[0])
    job.done(tokens=corpus.header["tokens"])


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
