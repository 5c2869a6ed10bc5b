"""Statistics of activations: measured, and where there are several shards, added."""

from collections.abc import Iterable
from typing import Any

from langneurons.activations.histogram import N_BINS
from langneurons.base.errors import present
from langneurons.config.config import Config
from langneurons.jobs.estimates import GB, Sizes
from langneurons.jobs.shared_parameters import model_settings
from langneurons.jobs.stage import Cell, Need, Stage, Work, by_model
from langneurons.reporting.layouts import LAYOUTS


def _measured(config: Config, model: str, lang: str, shard: str = "0") -> dict[str, Any]:
    """Return what is measured, in which numeric format."""
    return _settings(config, model) | {"shard": int(shard)}


def _settings(config: Config, model: str) -> dict[str, Any]:
    statistics = config.statistics.model_dump(mode="json", exclude={"until"})
    return {"statistics": statistics, "model": model_settings(config, model)}


def _until(config: Config, model: str) -> dict[str, Any]:
    """Return what is measured, and when reading stops: names of sets and selections are nothing.

    Of the selections that the compared one depends on the names stay: it calls them by these.
    """
    until = present(config.statistics.until, "statistics.until: left out of the configuration")
    *others, _ = config.with_dependencies(until.selection)
    named = [[name, config.selections[name].identity()] for name in others]
    return _settings(config, model) | {
        "until": until.model_dump(mode="json", exclude={"selection"}),
        "languages": sorted(config.model_languages(model)),
        "sets": {folder: list(langs) for folder, langs in config.until_sets(model).items()},
        "selections": [*named, ["", config.selections[until.selection].identity()]],
    }


def _merged(config: Config, model: str, lang: str) -> dict[str, Any]:
    """Return the number of shards."""
    return {"shards": config.statistics.shards}


def _languages(config: Config) -> list[Cell]:
    return [
        {"model": model, "lang": lang}
        for model in config.models
        for lang in config.model_languages(model)
    ]


def _until_cells(config: Config) -> list[Cell]:
    """Return a cell per model, of those that read text for statistics."""
    if config.statistics.until is None:
        return []
    return [cell for cell in by_model(config) if config.model_languages(cell["model"])]


def _shards(config: Config) -> list[Cell]:
    """Return a cell per shard; where there is one, it is the whole, and no cell names it.

    Where reading stops as soon as a selection is stable, one job reads all languages of a model.
    """
    if config.statistics.until is not None:
        return []
    if config.statistics.shards == 1:
        return _languages(config)
    numbers = range(config.statistics.shards)
    return [cell | {"shard": str(number)} for cell in _languages(config) for number in numbers]


def slice_names(config: Config, shard: str = "0") -> list[str]:
    """Return the names of the files of the slices that a shard holds; none of a single slice."""
    statistics = config.statistics
    if statistics.slices == 1:
        return []
    own = range(statistics.slices // statistics.shards)
    return [str(number) if statistics.shards == 1 else f"{shard}.{number}" for number in own]


def slice_files(config: Config, model: str, langs: Iterable[str]) -> list[str]:
    """Return the slices of languages."""
    shards = range(config.statistics.shards)
    names = [name for shard in shards for name in slice_names(config, str(shard))]
    return [
        LAYOUTS["slices"].format(model=model, lang=lang, slice=name)
        for lang in langs
        for name in names
    ]


class _Collect(Stage):
    """Shards, or the statistics themselves."""

    def file(self, cell: Cell) -> str:
        """Return the file of a job."""
        pattern = self.output if "shard" in cell else LAYOUTS["activations"]
        return pattern.format(**cell)


def _stream(sizes: Sizes) -> tuple[int, int]:
    """Return the numbers of the residual stream's rows, and of their second moments."""
    statistics, geometry = sizes.config.statistics, sizes.geometry
    rows = geometry.layers + 1 if "residual" in statistics.sites else 0
    return rows * geometry.hidden, len(statistics.residual_outer) * geometry.hidden**2


def _documents(sizes: Sizes) -> int:
    """Return the numbers that are kept of documents."""
    statistics, stream = sizes.config.statistics, _stream(sizes)[0]
    widths = [stream if site == "residual" else sizes.neurons for site in statistics.document_means]
    return sum(widths) * statistics.max_documents


def _neuron_sites(sizes: Sizes) -> int:
    return len([site for site in sizes.config.statistics.sites if site != "residual"])


def _work(sizes: Sizes, cell: Cell) -> Work:
    tokens = sizes.config.tokens(cell["lang"]) / sizes.config.statistics.shards
    seconds = sizes.seconds(tokens, 2, "statistics")
    return Work(tokens, sizes.load + seconds, _stored(sizes) * (1 + len(slice_names(sizes.config))))


def _until_work(sizes: Sizes, cell: Cell) -> Work:
    """The whole text of every language, which is the most that is read."""
    langs = sizes.config.model_languages(cell["model"])
    tokens = sum(map(sizes.config.tokens, langs))
    seconds = sizes.seconds(tokens, 2, "statistics")
    disk = len(langs) * _stored(sizes) * (1 + len(slice_names(sizes.config)))
    return Work(tokens, sizes.load + seconds, disk)


def _until_need(sizes: Sizes) -> Need:
    """While slices are added, three lie in memory: two of them, and their sum."""
    one = _need(sizes)
    return Need(one.gpu, one.host + 2 * _counts(sizes) / GB)


def _stored(sizes: Sizes) -> float:
    """Return the bytes of a file of statistics."""
    statistics = sizes.config.statistics
    stream, outer = _stream(sizes)
    size = sizes.neurons * (len(statistics.histograms) * N_BINS * 1.2 + _neuron_sites(sizes) * 48)
    size += stream * 48 + outer * 7  # of a triangle of 16 bytes, compressed
    return size + _documents(sizes) * 6


def _counts(sizes: Sizes) -> float:
    """Return the bytes of the running integers of a pass."""
    statistics = sizes.config.statistics
    stream, outer = _stream(sizes)
    per_neuron = N_BINS * 4 * len(statistics.histograms) + _neuron_sites(sizes) * 64
    return sizes.neurons * per_neuron + stream * 64 + outer * 16 + 8 * _documents(sizes)


def _need(sizes: Sizes) -> Need:
    statistics, geometry = sizes.config.statistics, sizes.geometry
    block = statistics.batch_blocks * sizes.config.corpus.block_size
    counts = _counts(sizes)
    passing = block * (geometry.hidden * 8 + geometry.intermediate * 6) * sizes.wide
    # A product in float64, its parts and their sums, while they are added.
    passing += geometry.hidden**2 * 48 if statistics.residual_outer else 0
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
COLLECT_UNTIL = Stage(
    rule="collect_until",
    order=30,
    output=LAYOUTS["until"],
    cells=_until_cells,
    parameters=_until,
    loads_model=True,
    work=_until_work,
    need=_until_need,
    at_most=True,
)
MERGE = Stage(
    rule="merge_statistics",
    order=31,
    output=LAYOUTS["activations"],
    cells=lambda config: _languages(config) if config.statistics.shards > 1 else [],
    parameters=_merged,
)


def _attributed(config: Config, model: str, lang: str) -> dict[str, Any]:
    """Return what is attributed, in which numeric format."""
    settings = config.attribution.model_dump(mode="json")
    return {"attribution": settings, "model": model_settings(config, model)}


def _attributed_languages(config: Config) -> list[Cell]:
    """Return the languages of the sets on which a selection reads attributions."""
    found = {
        (model, lang)
        for model in config.models
        for langset, name in config.cells(model)
        if "attributions" in config.selections[name].needs_more
        for lang in config.language_sets[langset]
    }
    return [dict(zip(("model", "lang"), one, strict=True)) for one in sorted(found)]


def _attribution_tokens(sizes: Sizes, lang: str) -> float:
    asked, there = sizes.config.attribution.tokens, sizes.config.tokens(lang)
    return min(asked or there, there)


def _attribution_work(sizes: Sizes, cell: Cell) -> Work:
    """A pass with gradients costs about two more; weights get none."""
    tokens = _attribution_tokens(sizes, cell["lang"])
    return Work(tokens, sizes.load + sizes.seconds(tokens, 4, "training"), sizes.neurons * 16)


def _attribution_need(sizes: Sizes) -> Need:
    geometry, corpus = sizes.geometry, sizes.config.corpus
    block = sizes.config.attribution.batch_blocks * corpus.block_size
    kept = geometry.layers * (geometry.hidden * 8 + geometry.intermediate * 4)
    return Need(sizes.on_each(sizes.held, block * kept * sizes.wide), sizes.host + 2)


ATTRIBUTE = Stage(
    rule="attribute_neurons",
    order=32,
    output="results/{model}/attribution/{lang}.safetensors",
    cells=_attributed_languages,
    parameters=_attributed,
    loads_model=True,
    work=_attribution_work,
    need=_attribution_need,
)
