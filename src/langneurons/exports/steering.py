"""Directions as a `steer_path` of the EleutherAI LM Evaluation Harness (model `steered`).

The file is a dictionary by hook point, which is the name of a layer seen from the model without its
head. Each entry has `action`, `steering_vector`, `steering_coefficient`, `bias` and `head_index`.
`add` adds the vector to the layer's output; `clamp` sets the output's part along it to the
coefficient, which is 0 where a direction is projected out.
"""

from pathlib import Path
from typing import Any

import torch

from langneurons.base.io import atomic
from langneurons.exports.streams import StreamWrite
from langneurons.models.language_model import LanguageModel


def steering(writes: dict[int, StreamWrite], model: LanguageModel) -> dict[str, dict[str, Any]]:
    """Return the entries by hook point."""
    whole: Any = model.model
    names = {id(module): name for name, module in whole.base_model.named_modules()}
    return {
        names[id(model.sites.layers[layer])]: {
            "action": "clamp" if write.along else "add",
            "steering_vector": torch.from_numpy(write.vector),
            "steering_coefficient": 0.0 if write.along else 1.0,
            "bias": None,
            "head_index": None,
        }
        for layer, write in writes.items()
    }


def write_steering(path: Path, entries: dict[str, dict[str, Any]]) -> None:
    """Write a file that `steer_path` names."""
    with atomic(path) as temporary:
        torch.save(entries, temporary)
