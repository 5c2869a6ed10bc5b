"""Measure every neuron on one shard of a corpus."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.activations.collect import Settings, collect
from langneurons.base.digests import digest
from langneurons.data.corpus import Corpus
from langneurons.models.language_model import load
from langneurons.models.settings import ModelEntry
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    settings = dict(snakemake.params.cfg["statistics"])
    n_shards = settings.pop("shards")
    entry = ModelEntry.model_validate(snakemake.params.cfg["model"])
    model = load(entry, snakemake.input.manifest)
    corpus = Corpus.read(
        snakemake.input.corpus,
        lang=snakemake.wildcards.lang,
        tokenizer_hash=model.tokenizer_hash,
    )
    shard = snakemake.params.cfg["shard"]
    key = [settings, n_shards, shard, model.identity, corpus.header, list(snakemake.params.code)]
    state = Path("results/.work/statistics", f"{digest(key, 32)}.safetensors")
    statistics = collect(
        model,
        corpus,
        Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}),
        shard,
        n_shards,
        checkpoint=state,
        checkpoint_seconds=snakemake.resources.checkpoint_seconds,
    )
    statistics.write(snakemake.output[0])
    state.unlink(missing_ok=True)
    job.done(tokens=statistics.tokens)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
