"""Which device each layer of a model is on."""

from collections.abc import Sequence
from typing import Any

import torch

from langneurons.models.sites import MlpSites

# Bytes of 4-bit weights with their scales, as a share of 16-bit ones.
NF4_SHARE = 0.28


def devices_of(device: str | torch.device | Sequence | None) -> list[torch.device]:
    """Return the devices that a model is loaded onto."""
    if device is None:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        device = [f"cuda:{number}" for number in range(count)] or "cpu"
    several = [device] if isinstance(device, (str, torch.device)) else device
    return [torch.device(one) for one in several]


def spread(
    model: Any, devices: Sequence[str | torch.device], quantization: str = "none"
) -> dict[str, torch.device]:
    """Return Accelerate's device map of a model's modules, about equal bytes on each device.

    Layers stay whole and in order. What comes before them is on the first device; the norm after
    them on the last, with the head unless its weights are the embeddings'. It follows from the
    model and the number of devices, not from what memory happens to be free.
    """
    sites, places = MlpSites(model), [torch.device(device) for device in devices]
    names = {id(module): name for name, module in model.named_modules()}
    path = names[id(sites.layers[0])].rpartition(".")[0]
    head: Any = sites.output_embedding
    tied = head is None or head.weight is model.get_input_embeddings().weight
    tied |= getattr(model.config.get_text_config(decoder=True), "tie_word_embeddings", False)
    last = {f"{names[id(sites.backbone)]}.{sites.family.norm}".lstrip(".")}
    last |= set() if tied else {names[id(head)]}
    found: dict[str, torch.device] = {}
    for name in names.values():
        parent = name.rpartition(".")[0]
        on_path = parent == "" or path == parent or path.startswith(f"{parent}.")
        within = path == name or path.startswith(f"{name}.")
        if name and on_path and not within and parent != path:
            found[name] = places[-1] if name in last else places[0]
    sizes = [_bytes(layer) * (NF4_SHARE if quantization == "nf4" else 1) for layer in sites.layers]
    before = sum(_bytes(model.get_submodule(n)) for n in found if found[n] == places[0])
    after = sum(_bytes(model.get_submodule(n)) for n in last if n in found and not tied)
    total, done = before + sum(sizes) + after, float(before)
    for number, size in enumerate(sizes):
        place = int((done + size / 2) / total * len(places))
        found[f"{path}.{number}"] = places[min(place, len(places) - 1)]
        done += size
    return found


def _bytes(module: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())
