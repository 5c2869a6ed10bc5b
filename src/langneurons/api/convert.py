"""Neurons from one of their forms into another."""

from pathlib import Path

from langneurons.base.errors import InputError
from langneurons.selection.orders import ORDERS

FORMS = (
    "a shared folder (no suffix), the file of one (.safetensors; source only), a neuron table of"
    " the graph (.parquet), published masks (.pth)"
)
SUFFIXES = ("", ".safetensors", ".parquet", ".pth")


def convert(
    source: Path,
    target: Path,
    languages: str | None = None,
    neurons_per_layer: int | None = None,
    model: str | None = None,
) -> None:
    """Convert neurons between a shared folder, a table of the graph, and published masks.

    languages: codes in the order of a .pth source, by commas, or a name of `ORDERS`;
    neurons_per_layer: the model's intermediate size; both are needed of a .pth source only. model:
    the model of neurons that do not name theirs.

    Raises:
        InputError: One of them is missing, the forms are the same or unknown, or the neurons name
            another model.
    """
    kinds = tuple("" if path.is_dir() else path.suffix for path in (source, target))
    if not {*kinds} <= {*SUFFIXES} or kinds[0] == kinds[1] or kinds[1] == ".safetensors":
        raise InputError(f"{source} to {target}: name two different forms of: {FORMS}.")
    if not source.exists():
        raise FileNotFoundError(f"{source}: no file or folder has this name.")
    codes = None
    if kinds[0] == ".pth":
        if not languages or not neurons_per_layer:
            raise InputError(
                f"{source}: masks hold neither the languages nor the number of neurons per layer;"
                f" name both. Known orders of languages: {', '.join(ORDERS)}."
            )
        codes = ORDERS.get(languages) or languages.split(",")
    from langneurons.api.neurons import Neurons  # torch: seconds, which no mistake above waits for

    neurons = Neurons.load(source, codes, neurons_per_layer)
    known = neurons.metadata.get("model")
    if model is not None and known not in (None, model):
        raise InputError(f"--model {model}: the neurons in {source} are of {known!r}.")
    if model is not None:
        neurons.metadata["model"] = model
    if kinds[1] == ".parquet":
        neurons.to_parquet(target)
    elif kinds[1] == ".pth":
        neurons.to_pth(target)
    else:
        neurons.save(target)
