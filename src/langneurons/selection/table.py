"""Neuron tables: which neurons a selection gives to which language.

Rows are (lang, layer, neuron, score, ...). Languages without neurons stay in the list. The layout
in which masks are published, `List[lang][layer] -> LongTensor` in a .pth file, is read with
`weights_only` and written; the order of its languages is not in the file and must be given.
"""

import json
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from langneurons.base.io import (
    LFS_POINTER,
    DamagedFile,
    damaged,
    expect,
    read_parquet,
    write_parquet,
)

COLUMNS = ("lang", "layer", "neuron", "score")


class NeuronTable:
    """The neurons of each language of a set in one model.

    `metadata` holds languages (list), n_layers, d_mlp, and what the selection was. Where its
    `units` are `dimensions`, a row is a dimension of the residual stream after the layer, of
    `width` ones, and `score` is the component of the language's direction.
    """

    def __init__(self, frame: pd.DataFrame, metadata: dict):
        missing = [column for column in COLUMNS if column not in frame]
        if missing:
            raise ValueError(f"neuron table lacks the columns {', '.join(missing)}")
        self.metadata = dict(metadata)
        order = {lang: k for k, lang in enumerate(self.languages)}
        stray = sorted(set(frame["lang"]) - set(order))
        if stray:
            raise ValueError(f"neurons of languages that the set does not hold: {stray}")
        frame = frame.assign(_order=frame["lang"].map(order))
        frame = frame.sort_values(["_order", "layer", "neuron"], kind="stable")
        self.frame = frame.drop(columns="_order").reset_index(drop=True)
        layers, neurons = self.frame["layer"], self.frame["neuron"]
        if len(frame) and not (
            layers.between(0, self.n_layers - 1).all() and neurons.between(0, self.width - 1).all()
        ):
            raise ValueError(f"neurons outside the {self.n_layers} x {self.width} of the model")
        if self.frame.duplicated(["lang", "layer", "neuron"]).any():
            raise ValueError("a neuron is listed twice for one language")
        score = self.frame["score"].to_numpy(np.float64)
        # The neurons of a published mask have no scores, so all are NaN.
        if not (np.isfinite(score).all() or np.isnan(score).all()):
            raise ValueError("a score is not finite")

    @property
    def languages(self) -> list[str]:
        """Every language of the set, also those without neurons."""
        return self.metadata["languages"]

    @property
    def n_layers(self) -> int:
        """Number of layers of the model."""
        return self.metadata["n_layers"]

    @property
    def d_mlp(self) -> int:
        """Neurons per layer of the model."""
        return self.metadata["d_mlp"]

    @property
    def units(self) -> str:
        """What rows are: `neurons` of the MLP, or `dimensions` of the residual stream."""
        return self.metadata.get("units", "neurons")

    @property
    def width(self) -> int:
        """Units per layer: d_mlp neurons, or d_model dimensions of the residual stream."""
        return self.d_mlp if self.units == "neurons" else self.metadata["width"]

    def indices(self, lang: str) -> list[np.ndarray]:
        """Return the neurons of a language, one ascending int64 array per layer."""
        if lang not in self.languages:
            raise KeyError(f"language {lang!r} is not in the set {', '.join(self.languages)}")
        own = self.frame[self.frame["lang"] == lang]
        layers = own["layer"].to_numpy()
        neurons = own["neuron"].to_numpy(np.int64)
        return [neurons[layers == layer] for layer in range(self.n_layers)]

    def mask(self, lang: str) -> np.ndarray:
        """Return a bool array (n_layers, width)."""
        result = np.zeros((self.n_layers, self.width), dtype=bool)
        own = self.frame[self.frame["lang"] == lang]
        result[own["layer"], own["neuron"]] = True
        return result

    def values(self, lang: str) -> np.ndarray:
        """Return the score of each unit of a language, 0 elsewhere, float64 (n_layers, width)."""
        result = np.zeros((self.n_layers, self.width))
        own = self.frame[self.frame["lang"] == lang]
        result[own["layer"], own["neuron"]] = own["score"]
        return result

    def counts(self) -> pd.Series:
        """Return the number of neurons per language."""
        return self.frame.groupby("lang").size().reindex(self.languages, fill_value=0)

    @property
    def unique(self) -> int:
        """Number of distinct neurons."""
        return len(self.frame.drop_duplicates(["layer", "neuron"]))

    def multiplicity(self) -> pd.Series:
        """Return how many neurons belong to exactly 1, 2, ... languages."""
        shared = self.frame.groupby(["layer", "neuron"]).size()
        return shared.value_counts().sort_index()

    def layer_counts(self) -> pd.DataFrame:
        """Return neurons per language (rows) and layer (columns)."""
        table = [[len(layer) for layer in self.indices(lang)] for lang in self.languages]
        return pd.DataFrame(table, index=self.languages, columns=range(self.n_layers))

    def overlap(self) -> pd.DataFrame:
        """Return the number of neurons that two languages share; the diagonal is their own."""
        flat = np.stack([self.mask(lang).ravel() for lang in self.languages]).astype(np.int64)
        return pd.DataFrame(flat @ flat.T, index=self.languages, columns=self.languages)

    def jaccard(self) -> pd.DataFrame:
        """Return shared / union for each pair of languages (0 where both are empty)."""
        shared = self.overlap()
        own = np.diag(shared.to_numpy())
        union = own[:, None] + own[None, :] - shared.to_numpy()
        return shared / np.where(union > 0, union, 1)

    def to_parquet(self, path: str | os.PathLike) -> None:
        """Write the table."""
        write_parquet(path, self.frame, self.metadata)

    @classmethod
    def from_parquet(cls, path: str | os.PathLike, **expected: Any) -> Self:
        """Read a table and check it; its metadata must say what is `expected`."""
        frame, metadata = read_parquet(path)
        expect(path, metadata, expected)
        lacking = [key for key in ("languages", "n_layers", "d_mlp") if key not in metadata]
        if lacking:
            raise DamagedFile(damaged(path, f"metadata lacks {', '.join(lacking)}"))
        try:
            return cls(frame, metadata)
        except ValueError as error:
            raise DamagedFile(damaged(path, error)) from error

    def to_pth(self, path: str | os.PathLike) -> None:
        """Write the published layout: a list over languages of lists over layers of LongTensors."""
        import torch

        from langneurons.base.io import atomic

        if self.units != "neurons":
            raise ValueError(
                f"{path}: masks of this layout hold neurons, and these are {self.units} of the"
                " residual stream; save them as a shared folder or a .parquet file"
            )

        nested = [
            [torch.from_numpy(layer.copy()) for layer in self.indices(lang)]
            for lang in self.languages
        ]
        with atomic(path) as temporary:
            torch.save(nested, temporary)

    @classmethod
    def from_pth(cls, path: str | os.PathLike, languages: Sequence[str], d_mlp: int) -> Self:
        """Read the published layout; nothing but tensors and lists is unpickled.

        A file may hold fewer lists than languages: the reference code drops trailing languages
        without neurons. As it may as well have been made without these languages, a warning says
        so. Layers are 0-d or 1-d integer tensors, or lists.
        """
        import torch

        nested = _load_lists(Path(path))
        lists = isinstance(nested, list) and all(isinstance(one, list) for one in nested)
        if not lists or not nested:
            raise ValueError(f"{path}: not a list over languages of lists over layers")
        if len(nested) > len(languages):
            raise ValueError(
                f"{path}: {len(nested)} languages in the file, {len(languages)} names given"
            )
        if len(nested) < len(languages):
            warnings.warn(
                f"{path}: {len(nested)} languages in the file, {len(languages)} names given; taken"
                f" as without neurons: {', '.join(languages[len(nested) :])}",
                stacklevel=2,
            )
        n_layers = len(nested[0])
        frames = []
        for lang, layers in zip(languages, nested, strict=False):
            if len(layers) != n_layers:
                raise ValueError(f"{path}: {lang} has {len(layers)} layers, not {n_layers}")
            for layer, neurons in enumerate(layers):
                values = torch.as_tensor(neurons).reshape(-1)
                where = f"{path}: {lang}, layer {layer}"
                if len(values) and (values.is_floating_point() or values.dtype == torch.bool):
                    raise ValueError(f"{where}: indices of type {values.dtype}, not whole numbers")
                if len(values) and not 0 <= int(values.min()) <= int(values.max()) < d_mlp:
                    wrong = int(values.max()) if values.max() >= d_mlp else int(values.min())
                    raise ValueError(f"{where}: index {wrong} is outside the {d_mlp} of a layer")
                index = values.numpy().astype(np.int32)
                frames.append(
                    pd.DataFrame({"lang": lang, "layer": np.int32(layer), "neuron": index})
                )
        frame = pd.concat(frames, ignore_index=True).assign(score=np.nan)
        metadata = {
            "languages": list(languages),
            "n_layers": n_layers,
            "d_mlp": d_mlp,
            "method": "imported",
            "parameters": json.dumps({"file": os.path.basename(path)}),
        }
        return cls(frame, metadata)


def _load_lists(path: Path) -> Any:
    """Return what a file of `torch.save` holds, if that is tensors, lists and numbers only."""
    import zipfile

    import torch

    with path.open("rb") as opened:
        start = opened.read(len(LFS_POINTER))
    if not start:
        raise ValueError(f"{path}: the file is empty")
    if start == LFS_POINTER:
        raise ValueError(
            f"{path}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
        )
    if not zipfile.is_zipfile(path) and start[:1] != b"\x80":
        raise ValueError(f"{path}: not a file of torch.save, which is a zip archive or a pickle")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the unpickler, which is not imported for the class's sake
        if isinstance(error, RuntimeError | EOFError | OSError):
            raise ValueError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
        if type(error).__name__ != "UnpicklingError":
            raise
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise ValueError(
            f"{path}: it holds objects other than tensors, lists and numbers{what}, which are not"
            " unpickled. Save it as a list over languages of lists over layers of LongTensors."
        ) from None


def union(groups: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Return the neurons, per layer, that are in one group or another."""
    return [np.unique(np.concatenate(layers)) for layers in zip(*groups, strict=True)]
