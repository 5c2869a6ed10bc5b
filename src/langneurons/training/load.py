"""Put what a fine-tuning left onto a model: a LoRA adapter, or weights of chosen neurons."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from langneurons.base.io import read_json
from langneurons.training import neuron_weights as rows
from langneurons.training.lora import load_adapter


def load_tuned(model: nn.Module, weights: str, who: Mapping[str, Any]) -> nn.Module:
    """Return the model as it was tuned, in eval mode; `weights` is the file beside its config.

    `who` is the identity of the model; neurons of another are a `DamagedFile`.
    """
    folder = Path(weights).parent
    if read_json(folder / rows.CONFIG).get("kind") == rows.KIND:
        return rows.apply(model, folder, who)
    return load_adapter(model, weights, who)
