"""Statistics of activations: measured, and where there are several shards, added."""

from typing import Any

from langneurons.activations.histogram import N_BINS
from langneurons.config.config import Config
from langneurons.jobs.estimates import GB, Sizes
from langneurons.jobs.shared_parameters import model_settings
from langneurons.jobs.stage import Cell, Need, Stage, Work
from langneurons.reporting.layouts import LAYOUTS


def _measured(config: Config, model: str, lang: str, shard: str = "0") -> dict[str, Any]:
    """Return what is measured, in which numeric format."""
    statistics = config.statistics.model_dump(mode="json")
    return {"statistics": statistics, "model": model_settings(config, model), "shard": int(shard)}


def _merged(config: Config, model: str, lang: str) -> dict[str, Any]:
    """Return the number of shards."""
    return {"shards": config.statistics.shards}


def _languages(config: Config) -> list[Cell]:
    return [
        {"model": model, "lang": lang}
        for model in config.models
        for lang in config.model_languages(model)
    ]


def _shards(config: Config) -> list[Cell]:
    """Return a cell per shard; where there is one, it is the whole, and no cell names it."""
    if config.statistics.shards == 1:
        return _languages(config)
    numbers = range(config.statistics.shards)
    return [cell | {"shard": str(number)} for cell in _languages(config) for number in numbers]


class _Collect(Stage):
    """Shards, or the statistics themselves."""

    def file(self, cell: Cell) -> str:
        """Return the file of a job."""
        pattern = self.output if "shard" in cell else LAYOUTS["activations"]
        return pattern.format(**cell)


def _documents(sizes: Sizes) -> int:
    statistics = sizes.config.statistics
    return len(statistics.document_means) * statistics.max_documents


def _work(sizes: Sizes, cell: Cell) -> Work:
    statistics = sizes.config.statistics
    tokens = sizes.config.corpus.tokens / statistics.shards
    size = sizes.neurons * (len(statistics.histograms) * N_BINS * 1.2 + 3 * 48)
    size += sizes.neurons * _documents(sizes) * 6
    return Work(tokens, sizes.load + sizes.seconds(tokens, 2, "statistics"), size)


def _need(sizes: Sizes) -> Need:
    statistics, geometry = sizes.config.statistics, sizes.geometry
    block = statistics.batch_blocks * sizes.config.corpus.block_size
    per_neuron = N_BINS * 4 * len(statistics.histograms) + 3 * 64 + 8 * _documents(sizes)
    counts = sizes.neurons * per_neuron
    passing = block * (geometry.hidden * 8 + geometry.intermediate * 6) * sizes.wide
    return Need(sizes.on_each(sizes.held + counts, passing), sizes.host + counts / GB)


COLLECT = _Collect(
    rule="collect_statistics",
    order=30,
    output="results/{model}/shards/{lang}/{shard}.safetensors",
    cells=_shards,
    parameters=_measured,
    loads_model=True,
    work=_work,
    need=_need,
)
MERGE = Stage(
    rule="merge_statistics",
    order=31,
    output=LAYOUTS["activations"],
    cells=lambda config: _languages(config) if config.statistics.shards > 1 else [],
    parameters=_merged,
)
