"""The statistics of one shard of a language's corpus, and of the slices that it holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langneurons.activations.collect import collect, slices_of
from langneurons.activations.merging import joined
from langneurons.activations.settings import StatisticsConfig
from langneurons.activations.statistics import Statistics
from langneurons.base.digests import digest
from langneurons.base.errors import InputError
from langneurons.data.corpus import Corpus
from langneurons.jobs.common import STORE, ModelJob
from langneurons.models.language_model import LanguageModel


@dataclass(frozen=True)
class Collected:
    """The statistics of a shard; files of its slices; files of states that nobody needs any more.

    Slices and states lie in the side store.
    """

    whole: Statistics
    slices: list[Path]
    states: list[Path]


def statistics_cell(job: ModelJob, checkpoint_seconds: float) -> Collected:
    """Return the statistics of a shard.

    checkpoint_seconds: how often the state is saved, from which a killed job goes on.
    """
    settings = StatisticsConfig.model_validate(job.cfg["statistics"])
    model = job.model()
    lang, shard = job.wildcards["lang"], job.cfg["shard"]
    corpus = Corpus.read(job.inputs["corpus"], lang=lang, tokenizer_hash=model.tokenizer_hash)
    key = [settings.model_dump(mode="json"), shard, model.identity, corpus.header, job.code]
    if settings.slices == 1:
        state = Path(STORE, "statistics", f"{digest(key, 32)}.safetensors")
        parts = (shard, settings.shards)
        whole = collect(model, corpus, settings, *parts, state, checkpoint_seconds)
        return Collected(whole, [], [state])
    check_slices(corpus, settings)
    own = settings.slices // settings.shards
    files = [
        slice_file(model, corpus, settings, number, key, checkpoint_seconds)
        for number in range(shard * own, (shard + 1) * own)
    ]
    return Collected(joined(Statistics.read(file, lang=lang) for file in files), files, [])


def slice_file(
    model: LanguageModel,
    corpus: Corpus,
    settings: StatisticsConfig,
    number: int,
    key: list[Any],
    seconds: float,
) -> Path:
    """Return the file of a slice, from the side store or from a pass over its part."""
    stem = Path(STORE, "statistics", digest([*key, number], 32))
    file, state = stem.with_suffix(".slice.safetensors"), stem.with_suffix(".safetensors")
    if not file.exists():
        found = collect(model, corpus, settings, number, settings.slices, state, seconds)
        found.write(file)
        state.unlink(missing_ok=True)
    return file


def check_slices(
    corpus: Corpus, settings: StatisticsConfig, named: str = "statistics.slices"
) -> None:
    """Refuse more slices than the text fills; named: the key of their number."""
    slices = slices_of(corpus.identification, settings)
    if not all(slices):
        batches, blocks = sum(map(len, slices)), len(corpus.identification.lengths)
        few = f"{blocks} blocks" if blocks < settings.slices else f"{batches} batches"
        raise InputError(
            f"{corpus.lang}: {few} of identification text, fewer than"
            f" {named}: {settings.slices}. Lower {named},"
            " statistics.batch_blocks or corpus.block_size, or give more text."
        )
