"""Random directions: the control of every claim about directions.

In each language and layer a direction of the mirrored one's length, drawn with equal chance in all
directions; of a mirrored one that has some dimensions only, over as many dimensions, drawn from
those that it has not as far as there are enough.
"""

import hashlib
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from langneurons.selection.method import SelectionBase, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable


class RandomDirection(SelectionBase):
    """Seeded random directions, as long as those of another selection."""

    units: ClassVar[Literal["neurons", "dimensions"]] = "dimensions"
    random: ClassVar[bool] = True
    method: Literal["random_direction"]
    like: str = Field(description="Selection of directions to mirror.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the draw.")

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The mirrored selection."""
        return (self.like,)

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The residual stream, for its width."""
        return ("residual",)

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable]"
    ) -> "pd.DataFrame":
        """Return a row per language, layer and dimension; score: the component."""
        like, chosen = tables[self.like], []
        for lang in statistics:
            values = like.values(lang)
            for layer, mirrored in enumerate(values):
                text = f"{self.seed}:{lang}:{layer}".encode()
                start = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
                found = mirror(mirrored, np.random.default_rng(start))
                kept = np.flatnonzero(found)
                place = layer * len(found) + kept
                chosen.append(rows(lang, place, len(found), score=found[kept]))
        return stacked(chosen)


def mirror(direction: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return a random direction of the same length over as many dimensions, (d_model,)."""
    taken = direction != 0
    number, size = int(taken.sum()), len(direction)
    found = np.zeros(size)
    if not number:
        return found
    free = np.flatnonzero(~taken)
    pool = free if len(free) >= number else np.arange(size)
    values = generator.standard_normal(number)
    length = np.linalg.norm(direction) / np.linalg.norm(values)
    found[generator.choice(pool, number, replace=False)] = values * length
    return found
