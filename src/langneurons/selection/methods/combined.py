"""Intersection, union or difference of other selections, language by language.

`difference` is the first without all others. The intersection of LAPE and average precision is the
narrowest set of Rahmanisa et al. 2025.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from langneurons.selection.method import SelectionBase

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

PLACE = ["lang", "layer", "neuron"]


class Combined(SelectionBase):
    """Neurons that several other selections give to a language, that one of them does, or not."""

    method: Literal["combined"]
    depends_key: ClassVar[str] = "selections"
    operation: Literal["intersection", "union", "difference"] = Field(
        "intersection", description="difference: the first without all others."
    )
    selections: tuple[str, ...] = Field(
        min_length=2, description="Names of the selections; each neuron's score is the first's."
    )

    @field_validator("selections")
    @classmethod
    def _different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        again = sorted({name for name in value if value.count(name) > 1})
        if again:
            raise ValueError(f"{', '.join(again)} listed more than once")
        return value

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The combined selections."""
        return self.selections

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable]"
    ) -> "pd.DataFrame":
        """Return rows with column score, that of the first selection which holds the neuron."""
        import pandas as pd

        frames = [tables[name].frame for name in self.selections]
        kept, *others = [frame[frame["lang"].isin(list(statistics))] for frame in frames]
        if self.operation == "union":
            kept = pd.concat([kept, *others]).drop_duplicates(PLACE)
            others = []
        for other in others:
            theirs = pd.MultiIndex.from_frame(other[PLACE])
            held = pd.MultiIndex.from_frame(kept[PLACE]).isin(theirs)
            kept = kept[held if self.operation == "intersection" else ~held]
        return kept[[*PLACE, "score"]].reset_index(drop=True)
