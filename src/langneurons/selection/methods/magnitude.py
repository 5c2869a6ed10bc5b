"""Neurons ranked by the size of one statistic in a language, e.g. the mean absolute activation."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from langneurons.selection.method import SelectionBase, lowest, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable


class Magnitude(SelectionBase):
    """Neurons of highest mean, mean absolute, maximal activation or deviation in each language."""

    method: Literal["magnitude"]
    statistic: Literal["mean", "abs_mean", "max", "std"] = Field(
        "abs_mean", description="Statistic that ranks."
    )
    rate: float = Field(0.00125, gt=0, le=1, description="Share of neurons kept per language.")
    site: Literal["gate", "act", "product"] = Field("act", description="Site of the statistic.")

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The ranked site."""
        return (self.site,)

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable] | None" = None
    ) -> "pd.DataFrame":
        """Return rows with column score (the statistic)."""
        chosen = []
        for lang, one in statistics.items():
            values = one.value(self.statistic, self.site)
            kept = lowest(-values, round(self.rate * values.size))
            chosen.append(rows(lang, kept, values.shape[1], score=values.ravel()[kept]))
        return stacked(chosen)
