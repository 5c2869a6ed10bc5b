"""Put what a fine-tuning left onto a model: a LoRA adapter, or weights of chosen neurons."""

from pathlib import Path

from langneurons.base.io import read_json
from langneurons.models.language_model import LanguageModel
from langneurons.training import neuron_weights
from langneurons.training.lora import load_adapter


def load_tuned(model: LanguageModel, weights: str) -> LanguageModel:
    """Return the model as it was tuned, in eval mode; `weights` is the file beside its config.

    What was trained on another model is a `DamagedFile`.
    """
    folder = Path(weights).parent
    if read_json(folder / neuron_weights.CONFIG).get("kind") == neuron_weights.KIND:
        return model.tuned(neuron_weights.apply(model.model, folder, model.identity))
    return model.tuned(load_adapter(model.model, weights, model.identity))
