"""What a configuration needs of a model: layers, and linear layers by name."""

from collections.abc import Mapping
from pathlib import Path

from langneurons.base.errors import ConfigError, nearest
from langneurons.models import geometry
from langneurons.models.families import FAMILIES, family_of, unknown_modules


def layer_errors(model: str, layers: int, deepest: Mapping[str, int]) -> list[str]:
    """Return an error for each key that names a layer beyond a model's last one."""
    return [
        f"{key}: layer {last} is beyond models.{model}, which has {layers} layers; legal: 0 to"
        f" {layers - 1}."
        + (f" Write `sweep: {layers}`." if key.endswith(".sweep") else "")
        + " Interventions for some models only: `models`."
        for key, last in deepest.items()
        if last >= layers
    ]


def module_errors(model: str, folder: Path, modules: Mapping[str, str]) -> list[str]:
    """Return an error for each module that the model in a folder does not have.

    modules: names of linear layers, each with the key that names it.
    """
    family = family_of(folder)
    known = FAMILIES[family].linear.split() if family in FAMILIES else []
    return [
        f"{modules[name]}: {name!r} is not a linear layer of models.{model} (model_type"
        f" {family}); its layers: {', '.join(known)}.{nearest(name, known)}"
        for name in unknown_modules(family, modules)
    ]


def check_prepared(model: str, folder: Path, needed: int, modules: str = "") -> None:
    """Refuse a model without the layers that the configuration names.

    folder: that of the weights; needed: the number of layers that the interventions need;
    modules: names of linear layers that are trained, joined by spaces.
    """
    wrong = module_errors(model, folder, dict.fromkeys(modules.split(), "training.modules"))
    if wrong:
        raise ConfigError("\n".join(wrong))
    layers = geometry.depth(folder)
    if layers is not None and layers < needed:
        raise ConfigError(
            f"models.{model}: the model has {layers} layers, and interventions name layer"
            f" {needed - 1}; legal: 0 to {layers - 1}. Change `layers` or `sweep` of the"
            " intervention, or limit it to some models by `models`."
        )
