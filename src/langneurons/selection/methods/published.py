"""A published mask as a selection: a list over languages of lists over layers, in a .pth file.

The file holds no codes: `order` names the order of a known paper (`langneurons.selection.orders`),
`languages` lists another. Only tensors and lists are unpickled. The file's digest, not its path,
is part of what the selection is.
"""

from typing import TYPE_CHECKING, Any, Literal

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


class Published(SelectionBase):
    """Neurons of a mask in the published .pth layout."""

    method: Literal["published"]
    path: str = Field(min_length=1, description="The .pth file; {model} is filled in.")
    order: Order | None = Field(
        None, description="The paper whose order of languages the file has; or give languages."
    )
    languages: tuple[str, ...] = Field((), description="Codes in the order of the file.")
    neurons_per_layer: int | None = Field(
        None,
        ge=1,
        description="Intermediate size that the mask's model must have.",
    )
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="Digest that the file must have."
    )

    @field_validator("path")
    @classmethod
    def _model_only(cls, value: str) -> str:
        try:
            wrong = sorted(braces(value) - {"model"})
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
    def _one_order(self) -> "Published":
        if (self.order is None) == (not self.languages):
            raise ValueError("give either `order` or `languages`")
        return self

    @property
    def knows(self) -> tuple[str, ...]:
        """The languages of the file, in its order."""
        return self.languages if self.order is None else ORDERS[self.order]

    def file(self, model: str) -> str:
        """Return the mask of a model."""
        return self.path.replace("{model}", model)

    def identity(self) -> dict[str, Any]:
        """Return what the selected neurons depend on: not where the file lies."""
        return {key: value for key, value in super().identity().items() if key != "path"}

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return rows with column score (NaN: a mask has none)."""
        from langneurons.base.digests import file_digest
        from langneurons.selection.table import NeuronTable

        found = file_digest(self.path, 64)
        if self.sha256 not in (None, found):
            raise ValueError(f"{self.path}: its SHA-256 is {found}, not {self.sha256}")
        shape = next(iter(statistics.values())).shape
        d_mlp = self.neurons_per_layer or shape[1]
        table = NeuronTable.from_pth(self.path, self.knows, d_mlp)
        if (table.n_layers, table.d_mlp) != shape:
            raise ValueError(
                f"{self.path}: a mask of {table.n_layers} layers x {table.d_mlp} neurons; the model"
                f" has {shape[0]} x {shape[1]}. Is it of another model?"
            )
        lacking = sorted(set(statistics) - set(self.knows))
        if lacking:
            raise ValueError(f"{self.path}: no neurons of {', '.join(lacking)} in this mask")
        frame = table.frame[table.frame["lang"].isin(list(statistics))]
        return frame.assign(score=frame["score"].astype(np.float64)).reset_index(drop=True)
