"""The file of shared directions: `directions.safetensors` (docs/format.md, Directions)."""

import os
from collections.abc import Mapping
from typing import cast

import numpy as np

from langneurons.base.errors import InputError
from langneurons.base.io import write_tensors
from langneurons.sharing.headers import DirectionsHeader, header_of
from langneurons.sharing.tensors import check_arrays, read_checked

NAME = "directions.safetensors"
FLOAT = np.dtype("float32")


def write_directions(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], header: DirectionsHeader
) -> None:
    """Write directions, float32 (n_layers, d_model) by language."""
    check_directions(str(path), arrays, header)
    write_tensors(path, {lang: arrays[lang] for lang in header.languages}, header.plain())


def read_directions(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], DirectionsHeader]:
    """Return directions, float32 (n_layers, d_model) by language, and the header.

    Raises:
        ValueError: The file is not one of shared directions, is damaged, misshapen, or holds
            numbers that are not finite.
    """
    arrays, content = read_checked(path)
    header = cast(DirectionsHeader, header_of(content, str(path), "directions"))
    check_directions(str(path), arrays, header)
    return {lang: arrays[lang] for lang in header.languages}, header


def check_directions(path: str, arrays: Mapping[str, np.ndarray], header: DirectionsHeader) -> None:
    """Refuse directions that are not those of the header, misshapen or not finite."""
    check_arrays(path, dict(arrays), dict.fromkeys(header.languages, FLOAT))
    shape = (header.n_layers, header.d_model)
    for lang in header.languages:
        if arrays[lang].shape != shape:
            raise InputError(
                f"{path}: directions of {lang} have the shape {arrays[lang].shape}; the header says"
                f" {shape} (n_layers, d_model)."
            )
        if not np.isfinite(arrays[lang]).all():
            raise InputError(f"{path}: directions of {lang} are not finite everywhere.")
