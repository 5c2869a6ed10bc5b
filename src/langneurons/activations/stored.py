"""The arrays of a statistics file, each read and decompressed as it is asked for."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from langneurons.activations.frames import decompress
from langneurons.base.io import DamagedFile, damaged

FRAMES = (".histogram", ".histogram_ends")
BY_LAYER = ".document_sum"  # (documents, n_layers, d_mlp); a file holds one array for each layer


class StoredArrays(Mapping):
    """The arrays of a file, each read and decompressed at every access, and kept by nobody."""

    def __init__(self, path: str | os.PathLike, packed: Mapping[str, list[int]]):
        self._path, self._packed = str(path), packed
        with self._open() as opened:
            stored = sorted(opened.keys())
        self._layers: dict[str, int] = {}
        for key in stored:
            whole, found, _ = key.partition(f"{BY_LAYER}.")
            if found:
                self._layers[whole + BY_LAYER] = self._layers.get(whole + BY_LAYER, 0) + 1
        self._keys = [key for key in stored if f"{BY_LAYER}." not in key] + sorted(self._layers)

    def _open(self) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(self._path, framework="numpy")
        except (OSError, SafetensorError) as error:
            raise DamagedFile(damaged(self._path, error)) from error

    def _read(self, key: str) -> np.ndarray:
        with self._open() as opened:
            array = opened.get_tensor(key)
        if key not in self._packed:
            return array
        return decompress(array, tuple(self._packed[key]), np.int64, self._path)

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._keys:
            raise KeyError(key)
        if key in self._layers:
            return np.stack([self.layer(key, i) for i in range(self._layers[key])], axis=1)
        return self._read(key)

    def layer(self, key: str, layer: int) -> np.ndarray:
        """Return one layer of sums per document, int64 (documents, d_mlp)."""
        return self._read(f"{key}.{layer}")

    @contextmanager
    def sliced(self, key: str) -> Iterator[Callable[[int, int], np.ndarray]]:
        """Give what reads a part of a 1-d array, from a place to another."""
        with self._open() as opened:
            part = opened.get_slice(key)
            yield lambda start, end: part[start:end]

    def packed_shape(self, key: str) -> tuple[int, ...] | None:
        """Return the shape of a compressed array without reading it, or None if there is none."""
        return tuple(self._packed[key]) if key in self._keys and key in self._packed else None

    def __contains__(self, key: object) -> bool:
        return key in self._keys  # the default would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class KeptArrays(StoredArrays):
    """The arrays of a file, of which those that are not frames stay in memory once read."""

    def __init__(self, stored: StoredArrays):
        self.__dict__ |= stored.__dict__
        self._kept: dict[str, np.ndarray] = {}

    def __getitem__(self, key: str) -> np.ndarray:
        if key in self._kept:
            return self._kept[key]
        array = super().__getitem__(key)
        if not key.endswith((*FRAMES, BY_LAYER)):
            self._kept[key] = array
        return array
