"""What methods that give directions of the residual stream have in common.

A direction belongs to a language and a layer; it stands in a table with a row per dimension, whose
score is the component. Layer l is the residual stream after block l. What a direction points away
from is the mean of the set's other languages, or one language.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from langneurons.base.errors import InputError, unknown
from langneurons.selection.method import More, SelectionBase, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

OTHERS = "others"


class DirectionBase(SelectionBase):
    """Directions from a language's residual stream; subclasses give those of one layer."""

    units: ClassVar[Literal["neurons", "dimensions"]] = "dimensions"
    against: str = Field(
        OTHERS,
        description="What the direction points away from: `others` (the mean over the set's other"
        " languages of their means), or a language of the set, which then has no direction itself.",
    )
    layers: tuple[int, int] | None = Field(
        None, description="First and last layer, inclusive; all that can be if left out."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "DirectionBase":
        if self.layers is not None and not 0 <= self.layers[0] <= self.layers[1]:
            raise ValueError(f"layers: {list(self.layers)} is not [first, last] with first <= last")
        return self

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The residual stream."""
        return ("residual",)

    def _possible(self, statistics: "dict[str, Statistics]") -> list[int]:
        """Return the layers of which the statistics hold what the method reads."""
        return list(range(next(iter(statistics.values())).shape[0]))

    def _chosen(self, statistics: "dict[str, Statistics]") -> list[int]:
        possible = self._possible(statistics)
        if self.layers is None:
            return possible
        wanted = range(self.layers[0], self.layers[1] + 1)
        for layer in wanted:
            if layer not in possible:
                shown = ", ".join(map(str, possible)) or "none"
                raise InputError(
                    f"{self.method}: layers: {list(self.layers)}: layer {layer} cannot be; legal:"
                    f" {shown}"
                )
        return list(wanted)

    def direction(
        self, layer: int, own: "Statistics", others: "list[Statistics]", more: More
    ) -> np.ndarray:
        """Return the direction of a language in a layer, float64 (d_model,)."""
        raise NotImplementedError

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return a row per language, layer and dimension of a direction; score: its component."""
        return self.select_by(statistics, tables or {}, More())

    def select_by(
        self,
        statistics: "dict[str, Statistics]",
        tables: "dict[str, NeuronTable]",
        more: More,
    ) -> "pd.DataFrame":
        """Return a row per language, layer and dimension of a direction; score: its component."""
        if len(statistics) < 2:
            raise ValueError(f"only {', '.join(statistics)}: there is no other language")
        if self.against != OTHERS and self.against not in statistics:
            legal = [OTHERS, *statistics]
            raise unknown(f"{self.method}.against", self.against, "language of the set", legal)
        chosen = []
        for layer in self._chosen(statistics):
            for lang, own in statistics.items():
                if lang == self.against:
                    continue
                against = [self.against] if self.against != OTHERS else statistics
                others = [statistics[one] for one in against if one != lang]
                found = self.direction(layer, own, others, more)
                kept = np.flatnonzero(found)
                place = layer * len(found) + kept
                chosen.append(rows(lang, place, len(found), score=found[kept]))
        return stacked(chosen)


def difference(layer: int, own: "Statistics", others: "list[Statistics]") -> np.ndarray:
    """Return the mean after a layer minus the mean of the others' means, (d_model,)."""
    means = [one.mean("residual")[layer + 1] for one in (own, *others)]
    return means[0] - np.mean(means[1:], axis=0)


def along(axis: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Return what of a difference lies along an axis: its sign and length, the axis's line."""
    length = float(np.linalg.norm(axis))
    if length == 0.0:
        return np.zeros_like(axis)
    unit = axis / length
    return unit * float(unit @ delta)


class SecondMoments(DirectionBase):
    """Directions that need the second moments across dimensions, at layers that have them."""

    def _possible(self, statistics: "dict[str, Statistics]") -> list[int]:
        kept = [set(one.header.get("residual_outer", ())) for one in statistics.values()]
        possible = sorted(row - 1 for row in set.intersection(*kept) if row > 0)
        if not possible:
            raise InputError(
                f"{self.method}: no second moments after a layer; name the rows (layer + 1) in"
                " statistics.residual_outer."
            )
        return possible
