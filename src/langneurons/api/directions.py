"""Directions of the residual stream, one per language and layer."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from langneurons.api.neurons import Neurons
from langneurons.api.shared import Shared
from langneurons.base.errors import InputError
from langneurons.sharing.card import body_of, table
from langneurons.sharing.directions import (
    NAME,
    check_directions,
    read_directions,
    write_directions,
)
from langneurons.sharing.folder import check_same
from langneurons.sharing.headers import (
    FORMAT,
    LIBRARY,
    UNKNOWN,
    VERSION,
    DirectionsHeader,
    Origin,
    Stream,
    header_of,
)


@dataclass(frozen=True, eq=False)
class Directions(Shared):
    """A direction of the residual stream for each language and layer of one model.

    Args:
        arrays: By language, float32 (n_layers, d_model).
        model: Repository or name of the model.
        site: `residual_in`, before the layer, or `residual_out`, after it.
        method: How the directions were found.
        parameters: Parameters of the method.
        metadata: Of what is known: revision, tokenizer_hash, dtype, quantization; and by language
            tokens, corpora (digests) and statistics (digests).

    Raises:
        ValueError: The arrays are not of one shape, not float32, or not finite.

    Example:
        >>> import langneurons as ln
        >>> import numpy as np
        >>> arrays = {lang: np.ones((18, 640), np.float32) for lang in ("fr", "vi")}
        >>> directions = ln.Directions(arrays, "google/gemma-3-270m", "residual_out", "mean")
        >>> directions.languages, directions.n_layers, directions.d_model
        (['fr', 'vi'], 18, 640)
    """

    KIND = "directions"

    arrays: dict[str, np.ndarray]
    model: str
    site: Stream
    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arrays that are not directions."""
        if not self.arrays:
            raise InputError("directions: arrays is empty; give an array for each language.")
        for lang, one in self.arrays.items():
            if not isinstance(one, np.ndarray) or one.ndim != 2:
                shape = getattr(one, "shape", type(one).__name__)
                raise InputError(
                    f"directions: {lang} is {shape}; expected float32 (n_layers, d_model)."
                )
        stray = sorted(set(self.metadata) - set(UNKNOWN))
        if stray:
            raise InputError(
                f"directions: metadata {stray[0]!r} is not known; known: {', '.join(UNKNOWN)}."
            )
        check_directions("directions", self.arrays, self._header())

    @property
    def languages(self) -> list[str]:
        """The languages, in their order."""
        return list(self.arrays)

    @property
    def n_layers(self) -> int:
        """Number of layers of the model."""
        return next(iter(self.arrays.values())).shape[0]

    @property
    def d_model(self) -> int:
        """Numbers of the residual stream."""
        return next(iter(self.arrays.values())).shape[1]

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Directions":
        """Read a folder that `save` wrote.

        Raises:
            ValueError: The folder holds no directions, or damaged ones.
        """
        return cls._loaded(Path(folder))

    def dimensions(self) -> Neurons:
        """Return the directions as dimensions of the residual stream, which `plan` takes.

        Each is after its layer; a direction before a layer is one after the layer before it.

        Raises:
            ValueError: There is a direction before the first layer, which is after none.
        """
        before = self.site == "residual_in"
        frames = []
        for lang, array in self.arrays.items():
            if before and array[0].any():
                raise InputError(
                    f"directions of {lang}: one is before layer 0, which follows no layer; set it"
                    " to 0."
                )
            layer, dimension = np.nonzero(array[1:] if before else array)
            score = array[layer + (1 if before else 0), dimension].astype(np.float64)
            columns = {"lang": lang, "layer": layer, "neuron": dimension, "score": score}
            frames.append(pd.DataFrame(columns))
        frame = pd.concat(frames, ignore_index=True)
        metadata = {key: one for key, one in self.metadata.items() if one is not None} | {
            "model": self.model,
            "languages": self.languages,
            "n_layers": self.n_layers,
            "units": "dimensions",
            "width": self.d_model,
            "d_mlp": self.d_model,
            "method": self.method,
        }
        return Neurons(frame.astype({"layer": np.int32, "neuron": np.int32}), metadata)

    def _header(self) -> DirectionsHeader:
        content = {key: self.metadata.get(key) for key in UNKNOWN} | {
            "format": FORMAT,
            "version": VERSION,
            "kind": "directions",
            "library": LIBRARY,
            "model": self.model,
            "n_layers": self.n_layers,
            "d_model": self.d_model,
            "languages": self.languages,
            "site": self.site,
            "method": self.method,
            "parameters": self.parameters,
        }
        return cast(DirectionsHeader, header_of(content, "directions", "directions"))

    def _write(self, folder: Path) -> list[str]:
        write_directions(folder / NAME, self.arrays, self._header())
        return [NAME]

    def _norms(self) -> pd.DataFrame:
        rows = {lang: np.linalg.norm(one, axis=1) for lang, one in self.arrays.items()}
        return pd.DataFrame.from_dict(rows, orient="index")

    def _draw(self, stem: Path, title: str) -> None:
        from langneurons.reporting.figures.shared import draw_profiles

        draw_profiles(self._norms(), "length of the direction", title, stem)

    def _body(self, header: Origin, drawn: bool) -> list[str]:
        norms = self._norms()
        sizes: dict[str, list[Any]] = {
            "mean length": [f"{one:.4g}" for one in norms.mean(axis=1)],
            "longest in layer": norms.to_numpy().argmax(axis=1).tolist(),
        }
        if header.tokens is not None:
            sizes["tokens"] = [header.tokens[lang] for lang in header.languages]
        more = ["", f"Site: {self.site}.", "", "## Overlap", ""]
        more += ["Cosine of the directions of two languages, mean over layers.", ""]
        rows = [[lang, *(f"{c:.3f}" for c in line)] for lang, line in self._cosines().items()]
        return body_of(header, sizes, [*more, *table(["", *self.languages], rows)], drawn)

    def _cosines(self) -> dict[str, list[float]]:
        """Return the mean cosine of each language with each; a direction of length 0 counts 0."""
        stacked = np.stack([one.astype(np.float64) for one in self.arrays.values()])
        length = np.linalg.norm(stacked, axis=2, keepdims=True)
        unit = stacked / np.where(length > 0, length, 1.0)
        cosines = np.einsum("ald,bld->ab", unit, unit) / self.n_layers
        return dict(zip(self.arrays, cosines.tolist(), strict=True))

    @classmethod
    def _read(cls, paths: list[Path], header: Origin) -> "Directions":
        if [path.name for path in paths] != [NAME]:
            raise InputError(
                f"{paths[0].parent}: the card lists {', '.join(path.name for path in paths)};"
                f" directions are in {NAME} alone."
            )
        arrays, own = read_directions(paths[0])
        check_same(header, own, str(paths[0]))
        plain = own.plain()
        known = {key: plain[key] for key in UNKNOWN if plain[key] is not None}
        return cls(arrays, own.model, own.site, own.method, own.parameters, known)
