"""The file of shared neurons: `neurons.safetensors` (docs/format.md, Neurons)."""

import json
import os
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from langneurons.base.errors import InputError
from langneurons.base.io import write_tensors
from langneurons.sharing.headers import (
    FORMAT,
    LIBRARY,
    UNKNOWN,
    VERSION,
    NeuronsHeader,
    header_of,
)
from langneurons.sharing.tensors import check_arrays, read_checked

NAME = "neurons.safetensors"
PLACE = ("layer", "neuron")
INT, FLOAT = np.dtype("int32"), np.dtype("float64")


def neurons_header(frame: pd.DataFrame, metadata: Mapping[str, Any], shown: str) -> NeuronsHeader:
    """Return the header of neurons from a table and its metadata.

    Raises:
        ValueError: The table does not name its model.
    """
    if not metadata.get("model"):
        raise InputError(
            f"{shown}: these neurons do not name their model, and shared neurons have to. Give it:"
            " metadata['model'] in Python, --model on the command line."
        )
    scored = not len(frame) or not frame["score"].isna().all()
    columns = [str(one) for one in frame.columns if one not in ("lang", *PLACE, "score")]
    own = {key: metadata.get(key) for key in UNKNOWN}
    content = own | {
        "format": FORMAT,
        "version": VERSION,
        "kind": "neurons",
        "library": LIBRARY,
        "model": metadata["model"],
        "n_layers": metadata["n_layers"],
        "d_mlp": metadata["d_mlp"],
        "units": metadata.get("units", "neurons"),
        "d_model": metadata.get("width"),
        "languages": list(metadata["languages"]),
        "sites": list(metadata.get("sites", ())),
        "method": metadata.get("method", "not known"),
        "parameters": json.loads(metadata.get("parameters", "{}")),
        "columns": (["score"] if scored else []) + columns,
    }
    return cast(NeuronsHeader, header_of(content, shown, "neurons"))


def write_neurons(path: str | os.PathLike[str], frame: pd.DataFrame, header: NeuronsHeader) -> None:
    """Write neurons; the frame has lang, layer, neuron and the columns of the header."""
    arrays = {}
    for lang in header.languages:
        own = frame[frame["lang"] == lang]
        for name in PLACE:
            arrays[f"{lang}.{name}"] = own[name].to_numpy(INT)
        for name in header.columns:
            arrays[f"{lang}.{name}"] = own[name].to_numpy(FLOAT)
    write_tensors(path, arrays, header.plain())


def read_neurons(path: str | os.PathLike[str]) -> tuple[pd.DataFrame, NeuronsHeader]:
    """Return the rows (lang, layer, neuron, score, ...) of shared neurons, and the header.

    Raises:
        ValueError: The file is not one of shared neurons, is damaged, or holds neurons that
            cannot be: outside the model, twice, out of order, with a score that is not finite.
    """
    arrays, content = read_checked(path)
    header = cast(NeuronsHeader, header_of(content, str(path), "neurons"))
    columns = dict.fromkeys(PLACE, INT) | dict.fromkeys(header.columns, FLOAT)
    names = {f"{lang}.{name}": kind for lang in header.languages for name, kind in columns.items()}
    check_arrays(path, arrays, names)
    parts = []
    for lang in header.languages:
        own = {name: arrays[f"{lang}.{name}"] for name in columns}
        check_neurons(f"{path}: {lang}", own, header)
        data = {"lang": np.repeat(lang, len(own["layer"])), **{k: own[k] for k in PLACE}}
        score = own.pop("score", np.full(len(own["layer"]), np.nan))
        parts.append(pd.DataFrame(data | {"score": score} | own))
    return pd.concat(parts, ignore_index=True), header


def check_neurons(where: str, own: Mapping[str, np.ndarray], header: NeuronsHeader) -> None:
    """Refuse the neurons of a language that cannot be; `own` holds its columns, (neurons,) each."""
    layer, neuron = own["layer"].astype(np.int64), own["neuron"].astype(np.int64)
    sizes = {name: one.shape for name, one in own.items()}
    if len(set(sizes.values())) > 1 or layer.ndim != 1:
        raise InputError(f"{where}: arrays of different shapes: {sizes}; expected (neurons,) each.")
    if not len(layer):
        return
    outside = (layer < 0) | (layer >= header.n_layers) | (neuron < 0) | (neuron >= header.width)
    if outside.any():
        place = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"{where}: neuron {neuron[place]} of layer {layer[place]} is outside the"
            f" {header.n_layers} layers x {header.width} {header.units} of the model."
        )
    steps = np.diff(layer * header.width + neuron)
    if (steps <= 0).any():
        place = int(np.flatnonzero(steps <= 0)[0])
        reason = "is listed twice" if steps[place] == 0 else "is followed by an earlier one"
        raise InputError(
            f"{where}: neuron {neuron[place]} of layer {layer[place]} {reason}; neurons are listed"
            " once, by layer and then by number."
        )
    score = own.get("score")
    if score is not None and not np.isfinite(score).all():
        place = int(np.flatnonzero(~np.isfinite(score))[0])
        raise InputError(
            f"{where}: the score of neuron {neuron[place]} of layer {layer[place]} is"
            f" {score[place]}; scores are finite, or left out for all neurons."
        )


def metadata_of(header: NeuronsHeader) -> dict[str, Any]:
    """Return the metadata of a neuron table from the header; what is not known is left out."""
    kept = header.plain()
    for key in ("format", "version", "kind", "library", "columns"):
        del kept[key]
    kept["parameters"] = json.dumps(kept["parameters"], sort_keys=True)
    width = kept.pop("d_model")
    if width is None:
        del kept["units"]  # a table of neurons does not name them
    else:
        kept["width"] = width
    return {key: value for key, value in kept.items() if value is not None}
