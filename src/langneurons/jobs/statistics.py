"""The statistics of one shard of a language's corpus."""

from pathlib import Path

from langneurons.activations.collect import collect
from langneurons.activations.settings import StatisticsConfig
from langneurons.activations.statistics import Statistics
from langneurons.base.digests import digest
from langneurons.data.corpus import Corpus
from langneurons.jobs.common import STORE, ModelJob


def statistics_cell(job: ModelJob, checkpoint_seconds: float) -> tuple[Statistics, Path]:
    """Return the statistics of a shard, and the file of its state, which is no longer needed.

    checkpoint_seconds: how often the state is saved, from which a killed job goes on.
    """
    settings = StatisticsConfig.model_validate(job.cfg["statistics"])
    model = job.model()
    lang, shard = job.wildcards["lang"], job.cfg["shard"]
    corpus = Corpus.read(job.inputs["corpus"], lang=lang, tokenizer_hash=model.tokenizer_hash)
    key = [settings.model_dump(mode="json"), shard, model.identity, corpus.header, job.code]
    state = Path(STORE, "statistics", f"{digest(key, 32)}.safetensors")
    found = collect(
        model,
        corpus,
        settings,
        shard,
        settings.shards,
        checkpoint=state,
        checkpoint_seconds=checkpoint_seconds,
    )
    return found, state
