"""The weights of a model: fetched or converted, and quantised."""

from typing import Any

from langneurons.config.config import Config
from langneurons.jobs.estimates import GB, Sizes
from langneurons.jobs.shared_parameters import model_settings
from langneurons.jobs.stage import Cell, Need, Stage, Work, by_model


def _source(config: Config, model: str) -> dict[str, Any]:
    """Return the source of the weights."""
    return {"source": config.models[model].source.model_dump(mode="json", exclude={"terms"})}


def _format(config: Config, model: str) -> dict[str, Any]:
    """Return the source of the weights and their numeric format."""
    return model_settings(config, model)


def _fetched(sizes: Sizes, cell: Cell) -> Work:
    return Work(0, sizes.stored / 50e6, sizes.stored)


def _quantized(sizes: Sizes, cell: Cell) -> Work:
    # Read, quantised on a CPU in about the same time, written.
    slow = (2 * sizes.stored + sizes.held) / GB / sizes.assumed["load_gb_per_second"]
    return Work(0, slow, sizes.held)


def _quantized_models(config: Config) -> list[Cell]:
    return [{"model": name} for name, one in config.models.items() if one.quantization != "none"]


PREPARE = Stage(
    rule="prepare_model",
    order=10,
    output="resources/models/{model}/manifest.json",
    cells=by_model,
    parameters=_source,
    work=_fetched,
    need=lambda sizes: Need(0.0, 4.0),
)
QUANTIZE = Stage(
    rule="quantize_model",
    order=11,
    output="resources/models/{model}/nf4/manifest.json",
    cells=_quantized_models,
    parameters=_format,
    work=_quantized,
    need=lambda sizes: Need(0.0, 0.5 * sizes.stored / GB + sizes.held / GB),
)
