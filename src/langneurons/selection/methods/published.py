"""Neurons that others published, as a selection: shared neurons, or a mask in a .pth file.

Shared neurons (docs/format.md) name their languages and their model. A mask in the published layout
is a list over languages of lists over layers and holds no codes: `order` names the order of a known
paper (`langneurons.selection.orders`), `languages` lists another. Only tensors and lists are
unpickled. The file's digest, or repository and commit, are part of what the selection is; its path
is not.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from langneurons.base.paths import braces
from langneurons.selection.method import SelectionBase
from langneurons.selection.orders import ORDERS

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

    Order = str
else:
    Order = Literal[tuple(ORDERS)]

SHARED = "neurons.safetensors"
# Keys that are part of what a selection is only where they are given.
OF_HUB = ("repo", "revision", "file", "model")


class Published(SelectionBase):
    """Neurons that others published: shared neurons, or a mask in the .pth layout."""

    method: Literal["published"]
    path: str | None = Field(
        None,
        min_length=1,
        description="A .pth file, or a folder of shared neurons; {model} is filled in.",
    )
    names: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict,
        description="By our name of a model: the name that stands for {model} in `path` or `file`;"
        " ours where not given.",
    )
    repo: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="Repository of the hub (owner/name), in place of `path`.",
    )
    revision: str | None = Field(
        None, pattern=r"^[0-9a-f]{40}$", description="Commit of the repository."
    )
    file: str | None = Field(
        None,
        min_length=1,
        description="A .pth file in the repository; {model} is filled in. Left out: the repository"
        " holds shared neurons.",
    )
    model: str | None = Field(
        None,
        min_length=1,
        description="Name of the model in the shared neurons, where it is another than here. The"
        " revision is then not compared.",
    )
    order: Order | None = Field(
        None, description="Of a .pth file: the paper whose order of languages it has."
    )
    languages: tuple[str, ...] = Field(
        (), description="Of a .pth file: codes in its order, in place of `order`."
    )
    neurons_per_layer: int | None = Field(
        None,
        ge=1,
        description="Intermediate size that the mask's model must have.",
    )
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="Digest that the file must have."
    )

    @field_validator("path", "file")
    @classmethod
    def _model_only(cls, value: str | None) -> str | None:
        try:
            wrong = sorted(braces(value or "") - {"model"})
        except ValueError as error:
            raise ValueError(f"{value!r} cannot be filled in: {error}") from None
        if wrong:
            raise ValueError(f"{value!r}: {{{wrong[0]}}} is not filled in; legal: {{model}}")
        return value

    @field_validator("languages")
    @classmethod
    def _different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        again = sorted({code for code in value if value.count(code) > 1})
        if again:
            raise ValueError(f"{', '.join(again)} listed more than once")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> "Published":
        if (self.path is None) == (self.repo is None):
            raise ValueError("give either `path` or `repo`")
        if self.repo is None and (self.revision or self.file):
            key = "revision" if self.revision else "file"
            raise ValueError(f"{key}: it belongs to `repo`, which is not given")
        if self.repo is not None and self.revision is None:
            raise ValueError("revision: missing; name the commit of the repository (40 digits)")
        return self

    @model_validator(mode="after")
    def _names_are_filled_in(self) -> "Published":
        if self.names and "{model}" not in (self.file or self.path or ""):
            raise ValueError("names: there is no {model} in `path` or `file` that they stand for")
        return self

    @model_validator(mode="after")
    def _one_order(self) -> "Published":
        if self.order is not None and self.languages:
            raise ValueError("give either `order` or `languages`")
        if self.is_mask and not self.knows:
            raise ValueError(
                "a .pth file does not name its languages; give either `order` or `languages`"
            )
        if self.knows and (self.repo and not self.file or (self.path or "").endswith(SHARED)):
            key = "order" if self.order else "languages"
            raise ValueError(f"{key}: shared neurons name their languages; leave the key out")
        if self.model is not None and self.is_mask:
            raise ValueError("model: a .pth file does not name its model; leave the key out")
        return self

    @property
    def is_mask(self) -> bool:
        """Whether it is a file in the .pth layout, whatever its suffix."""
        return bool(self.file or self.knows or (self.path or "").endswith(".pth"))

    @property
    def knows(self) -> tuple[str, ...] | None:
        """The languages of a .pth file, in its order; None of shared neurons."""
        return (self.languages if self.order is None else ORDERS[self.order]) or None

    def file_of(self, model: str) -> str | None:
        """Return the file of a model on disk; None if it is fetched."""
        if self.path is None:
            return None
        path = self.filled(self.path, model)
        shared = self.is_mask or path.endswith(".safetensors")
        return path if shared else f"{path.rstrip('/')}/{SHARED}"

    def filled(self, template: str, model: str) -> str:
        """Return a path in which the name of a model stands for {model}."""
        return template.replace("{model}", self.names.get(model, model))

    def identity(self) -> dict[str, Any]:
        """Return what the selected neurons depend on: not where the file lies."""
        found = super().identity()
        return {
            key: value
            for key, value in found.items()
            if key not in ("path", "names") and (key not in OF_HUB or value is not None)
        }

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return rows with column score (NaN: a mask has none)."""
        from langneurons.base.digests import file_digest

        path = self.file_of(next(iter(statistics.values())).header.get("model", ""))
        if path is None:
            raise ValueError(
                f"{self.repo}: only the graph fetches it; in Python read it with"
                " Neurons.from_pretrained"
            )
        if self.sha256 is not None and self.repo is None:
            found = file_digest(path, 64)
            if self.sha256 != found:
                raise ValueError(f"{path}: its SHA-256 is {found}, not {self.sha256}")
        first = next(iter(statistics.values()))
        table = self._table(path, first)
        if table.units != "neurons":
            raise ValueError(f"{path}: it holds {table.units} of the residual stream, not neurons")
        if (table.n_layers, table.d_mlp) != first.shape:
            raise ValueError(
                f"{path}: a mask of {table.n_layers} layers x {table.d_mlp} neurons; the model has"
                f" {first.shape[0]} x {first.shape[1]}. Is it of another model?"
            )
        lacking = sorted(set(statistics) - set(table.languages))
        if lacking:
            raise ValueError(f"{path}: no neurons of {', '.join(lacking)} in this mask")
        frame = table.frame[table.frame["lang"].isin(list(statistics))]
        return frame.assign(score=frame["score"].astype(np.float64)).reset_index(drop=True)

    def _table(self, path: str, first: "Statistics") -> "NeuronTable":
        from langneurons.selection.shared import shared_table
        from langneurons.selection.table import NeuronTable

        if path.endswith(".safetensors"):
            table = shared_table(path)
            check_origin(path, table.metadata, first.header, self.model)
            return table
        if self.knows is None:
            raise ValueError(f"{path}: give `order` or `languages`")
        return NeuronTable.from_pth(path, self.knows, self.neurons_per_layer or first.shape[1])


def check_origin(path: str, metadata: dict[str, Any], own: Any, known_as: str | None) -> None:
    """Refuse shared neurons of another model than that of `own`, a header or a manifest.

    known_as: the model's name in the shared neurons; its revision is then not compared.
    """
    expected = {"model": known_as or own.get("model"), "tokenizer_hash": own.get("tokenizer_hash")}
    if known_as is None:
        expected["revision"] = own.get("revision")
    for key, value in expected.items():
        given = metadata.get(key)
        if given is not None and value is not None and given != value:
            hint = (
                " If it is the same model under another name, give its name there as `model`."
                if key != "tokenizer_hash"
                else ""
            )
            raise ValueError(f"{path}: neurons of {key} {given!r}; here it is {value!r}.{hint}")
