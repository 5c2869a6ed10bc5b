"""What a configuration needs of a model: layers, and linear layers by name."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

from langneurons.base.errors import ConfigError, nearest
from langneurons.models import geometry
from langneurons.models.families import (
    FAMILIES,
    NO_TRAINING,
    family_for,
    family_of,
    unknown_modules,
)

# Linear layers of a dense MLP, which a mixture of experts does not have.
OF_MLP = ("gate_proj", "up_proj", "down_proj")


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
    experts = has_experts(folder)
    return [
        f"{modules[name]}: {name!r}: {no_training(model)}"
        if experts and name in OF_MLP
        else f"{modules[name]}: {name!r} is not a linear layer of models.{model} (model_type"
        f" {family}); its layers: {', '.join(known)}.{nearest(name, known)}"
        for name in unknown_modules(family, modules)
    ]


def has_experts(folder: Path) -> bool:
    """Return whether the model in a folder is a mixture of experts that is supported."""
    family = family_of(folder)
    return family in FAMILIES and FAMILIES[family].experts is not None


def unread(folder: Path) -> str | None:
    """Return why the neurons of the model in a folder cannot be read, None if they can."""
    family, settings = family_of(folder), None
    if family is None:
        return None
    if has_experts(folder):
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        keys = {"num_experts": 1, "decoder_sparse_step": 1, "mlp_only_layers": None}
        settings = SimpleNamespace(**{key: found.get(key, usual) for key, usual in keys.items()})
    try:
        family_for(family, settings)
    except ValueError as error:
        return str(error)
    return None


def no_training(model: str) -> str:
    """Return why experts of a model of the configuration are not trained."""
    modules = ", ".join(FAMILIES["qwen3_moe"].linear.split())
    return NO_TRAINING.format(model=f"models.{model}", modules=modules)


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
