"""The down projections of a model: what each neuron writes into the residual stream.

Read from the files of a prepared model, a layer at a time, without loading the model; or from a
model in memory. A 4-bit model's own weights are those in memory; its files hold them unrounded.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langneurons.base.io import DamagedFile
from langneurons.models.families import Family, family_for

if TYPE_CHECKING:
    from langneurons.models.sites import MlpSites


class DownProjections:
    """The down projection of each layer, float32 (d_model, d_mlp), read when it is asked for."""

    def __init__(self, layers: Sequence[Callable[[], np.ndarray]]):
        self._layers = list(layers)

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self._layers)

    def layer(self, number: int) -> np.ndarray:
        """Return the matrix of a layer; column i is what neuron i writes at activation 1."""
        return self._layers[number]()

    def norms(self) -> np.ndarray:
        """Return the Euclidean norm of what each neuron writes, float64 (n_layers, d_mlp)."""
        every = (self.layer(number).astype(np.float64) for number in range(self.n_layers))
        return np.stack([np.sqrt((one * one).sum(axis=0)) for one in every])


def weights_of(sites: "MlpSites") -> DownProjections:
    """Return those of a model in memory, with its quantisation and adapters."""
    return DownProjections([_of_module(sites, number) for number in range(sites.n_layers)])


def read_weights(manifest: str | Path) -> DownProjections:
    """Return those of a prepared model.

    Raises:
        DamagedFile: A layer's matrix is not among the weights.
    """
    from langneurons.models.load import checked_folder, read_config  # only here: transformers

    folder = checked_folder(Path(manifest))
    config = read_config(folder)
    family = family_for(config.model_type, config)
    n_layers = config.get_text_config(decoder=True).num_hidden_layers
    if family.experts:
        return _of_experts(folder, family, n_layers, config.num_experts)
    place = rf"(?:^|\.){re.escape(family.layers)}\.(\d+)\.{re.escape(family.down)}\.weight$"
    found = {int(matched[1]): there for matched, there in _placed(folder, place)}
    lacking = sorted(set(range(n_layers)) - set(found))
    if lacking:
        raise DamagedFile(
            f"{folder}: the weights hold no {family.layers}.{lacking[0]}.{family.down}.weight"
        )
    return DownProjections([_of_file(*found[n], family.transposed) for n in range(n_layers)])


def _placed(folder: Path, place: str) -> Iterator[tuple[re.Match[str], tuple[Path, str]]]:
    """Yield the tensors of a folder whose name has a form: the match, the file and the name."""
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        for name in _names(path):
            if matched := re.search(place, name):
                yield matched, (path, name)


def _of_experts(folder: Path, family: Family, n_layers: int, experts: int) -> DownProjections:
    """Return those of a mixture of experts, stored one by one or together, expert after expert."""
    start = rf"(?:^|\.){re.escape(family.layers)}\.(\d+)\.{re.escape(str(family.experts))}\."
    whole = {int(m[1]): there for m, there in _placed(folder, rf"{start}down_proj$")}
    single = {
        (int(m[1]), int(m[2])): there
        for m, there in _placed(folder, rf"{start}(\d+)\.down_proj\.weight$")
    }

    def reader(layer: int) -> Callable[[], np.ndarray]:
        if layer in whole:
            read = _of_file(*whole[layer], False)
            return lambda: np.concatenate(list(read()), axis=1)
        lacking = [one for one in range(experts) if (layer, one) not in single]
        if lacking:
            raise DamagedFile(
                f"{folder}: the weights hold no"
                f" {family.layers}.{layer}.{family.experts}.{lacking[0]}.down_proj.weight"
            )
        parts = [_of_file(*single[layer, one], False) for one in range(experts)]
        return lambda: np.concatenate([part() for part in parts], axis=1)

    return DownProjections([reader(layer) for layer in range(n_layers)])


def _names(path: Path) -> list[str]:
    import torch
    from safetensors import safe_open

    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as opened:
            return list(opened.keys())
    return list(torch.load(path, map_location="cpu", weights_only=True, mmap=True))


def _of_file(path: Path, name: str, transposed: bool) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        import torch
        from safetensors import safe_open

        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                weight = opened.get_tensor(name)
        else:
            weight = torch.load(path, map_location="cpu", weights_only=True, mmap=True)[name]
        return (weight.T if transposed else weight).float().numpy()

    return read


def _of_module(sites: "MlpSites", number: int) -> Callable[[], np.ndarray]:
    """Return what reads a module's matrix off its outputs, whatever stores it: W = f(1) - f(0)."""

    def read() -> np.ndarray:
        import torch

        module = sites.down[number]
        if sites.experts:
            parts: Any = module.weight
            return torch.cat(list(parts), 1).float().cpu().numpy()
        device, stored = sites.kind_of(number)
        dtype = stored if stored.is_floating_point else torch.bfloat16
        units = torch.eye(sites.d_mlp, dtype=dtype, device=device)
        with torch.inference_mode():
            written = module(units).float() - module(torch.zeros_like(units[:1])).float()
        return written.T.contiguous().cpu().numpy()

    return read
