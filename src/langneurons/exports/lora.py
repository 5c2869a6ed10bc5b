"""A plan that scales neurons as a LoRA of the down projections, for PEFT and what reads its files.

Of a layer with neurons S and factors s, A (rank, d_mlp) holds the rows of the identity at S, and
B (d_model, rank) the columns (s - 1) W[:, S]; B A is the change of W. The rank is that of the
fullest layer and alpha is equal to it, so that the scale alpha / rank is 1. Layers with fewer
neurons are filled with zeros. A rank per layer would give smaller files, and another scale in tools
that divide one alpha by each layer's own rank, as llama.cpp does. Layers without neurons are left
out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from langneurons.base.errors import InputError
from langneurons.exports.scaling import factors
from langneurons.interventions.plan import Plan
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.sharing.adapters import write_adapter
from langneurons.sharing.headers import AdapterHeader

# Ranks that vLLM can be started for: vllm.config.lora, MaxLoRARanks (docs.vllm.ai, v0.14.0).
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Lora:
    """A LoRA of the down projections of a model; matrices are made when they are asked for.

    scaled: by layer the neurons, ascending int64 (n,), and their factors, float64 (n,).
    """

    model: LanguageModel
    scaled: dict[int, tuple[np.ndarray, np.ndarray]]

    @property
    def rank(self) -> int:
        """Neurons of the fullest layer."""
        return max(len(index) for index, _ in self.scaled.values())

    @property
    def neurons(self) -> int:
        """Number of (layer, neuron) pairs."""
        return sum(len(index) for index, _ in self.scaled.values())

    @cached_property
    def modules(self) -> dict[int, str]:
        """The name of each down projection, seen from the model."""
        names = {id(module): name for name, module in self.model.model.named_modules()}
        return {layer: names[id(self.model.sites.down[layer])] for layer in self.scaled}

    @cached_property
    def dtype(self) -> torch.dtype:
        """The shortest format in which every B is exact; float32 if none is."""
        for dtype in (torch.bfloat16, torch.float16):
            changes = (self._change(layer) for layer in self.scaled)
            if all(torch.equal(one.to(dtype).double(), one) for one in changes):
                return dtype
        return torch.float32

    def _change(self, layer: int) -> torch.Tensor:
        """Return (s - 1) W[:, S] of a layer, float64 (d_model, n)."""
        index, factor = self.scaled[layer]
        written = down_weight(self.model.sites, layer)[:, torch.from_numpy(index)]
        return written.double() * torch.from_numpy(factor - 1.0)

    def matrices(self) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yield layer, A (rank, d_mlp) and B (d_model, rank) in `dtype`, on the CPU."""
        sites = self.model.sites
        for layer, (index, _) in self.scaled.items():
            a = torch.zeros(self.rank, sites.d_mlp, dtype=self.dtype)
            a[torch.arange(len(index)), torch.from_numpy(index)] = 1.0
            b = torch.zeros(sites.d_model, self.rank, dtype=self.dtype)
            b[:, : len(index)] = self._change(layer).to(self.dtype)
            yield layer, a, b

    def write(self, folder: Path, header: AdapterHeader) -> list[str]:
        """Write `adapter_model.safetensors` and `adapter_config.json`; return their names."""
        pairs = {self.modules[layer]: (a, b) for layer, a, b in self.matrices()}
        return write_adapter(folder, pairs, header, self.model.sites.family.transposed)


def lora_of(plan: Plan, model: LanguageModel) -> Lora:
    """Return the LoRA that does what a plan does.

    Raises:
        InputError: No LoRA does, or the model's weights are quantised or have an adapter already.
    """
    if hasattr(model.model, "peft_config"):
        raise InputError(
            "the model has an adapter already, so that a LoRA would belong to the two together;"
            " load the base model, or one into which the adapter was merged."
        )
    scaled = factors(plan, model.sites)
    for layer in scaled:
        down_weight(model.sites, layer)
    return Lora(model, scaled)


def down_weight(sites: MlpSites, layer: int) -> torch.Tensor:
    """Return the down projection of a layer, (d_model, d_mlp), on the CPU.

    Raises:
        InputError: The weight is quantised.
    """
    weight = sites.down[layer].weight
    assert isinstance(weight, (nn.Parameter, torch.Tensor))
    if not weight.is_floating_point() or weight.dim() != 2:
        raise InputError(
            "the weights are quantised, and a LoRA holds columns of the weights; load the model"
            " with quantization none. The adapter can then be used on quantised weights, to the"
            " precision of their quantisation."
        )
    plain = weight.detach().cpu()
    return plain.T.contiguous() if sites.family.transposed else plain


def vllm_rank(rank: int) -> int | None:
    """Return the smallest `--max-lora-rank` of vLLM that holds a rank; None if there is none."""
    return next((one for one in VLLM_RANKS if one >= rank), None)
