"""What a selection method is: a block of parameters that can select neurons.

A method is one module of this package that defines a subclass of `SelectionBase` with a literal
`method` and a `select`. Modules are found by name, so adding one file adds a method.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.attribution import Attribution
    from langneurons.activations.statistics import Statistics
    from langneurons.models.weights import DownProjections
    from langneurons.selection.table import NeuronTable


@dataclass(frozen=True)
class More:
    """What some methods read beside statistics and tables.

    weights: the down projections of the model; attributions: by language.
    """

    weights: "DownProjections | None" = None
    attributions: "Mapping[str, Attribution] | None" = None


class SelectionBase(BaseModel):
    """Parameters common to all methods; subclasses add their own and `select`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    depends_key: ClassVar[str] = "like"  # where the names of `depends_on` stand
    units: ClassVar[Literal["neurons", "dimensions"]] = "neurons"  # what rows of its tables are
    random: ClassVar[bool] = False  # whether it is a control that nothing ranks

    language_sets: tuple[str, ...] | None = Field(
        None, description="The language sets it is applied to; all if left out."
    )
    label: str | None = Field(None, description="Name in tables and figures.")
    method: str  # a literal in each method

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Names of the selections whose tables are needed as well."""
        return ()

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """Sites whose statistics are read."""
        return ()

    @property
    def needs_histograms(self) -> tuple[str, ...]:
        """Sites whose distribution is read."""
        return ()

    @property
    def needs_document_means(self) -> tuple[str, ...]:
        """Sites whose mean per document is read."""
        return ()

    @property
    def needs_batch_quantiles(self) -> tuple[float, ...]:
        """Levels of batch quantiles that are read."""
        return ()

    @property
    def needs_more(self) -> tuple[str, ...]:
        """What is read beside statistics and tables: `weights`, `attributions`."""
        return ()

    def file_of(self, model: str) -> str | None:
        """Return a file that is read; its digest enters a job's identity, its path does not."""
        return None

    @property
    def knows(self) -> tuple[str, ...] | None:
        """The only languages that it can give neurons of; any if None."""
        return None

    def identity(self) -> dict[str, Any]:
        """Return what the selected neurons depend on: all but labels and sets."""
        return self.model_dump(mode="json", exclude={"label", "language_sets"})

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable]"
    ) -> "pd.DataFrame":
        """Return rows (lang, layer, neuron, score, ...).

        `statistics` by language, sorted; `tables` by the names of `depends_on`.
        """
        raise NotImplementedError

    def select_by(
        self,
        statistics: "dict[str, Statistics]",
        tables: "dict[str, NeuronTable]",
        more: More,
    ) -> "pd.DataFrame":
        """Return the rows of a selection that `needs_more`.

        What the frame's `attrs` hold enters the table's metadata.
        """
        raise NotImplementedError


def rows(lang: str, flat: np.ndarray, d_mlp: int, **columns: np.ndarray) -> "pd.DataFrame":
    """Build table rows of one language from flat indices layer * d_mlp + neuron."""
    flat = np.asarray(flat, dtype=np.int64)
    data = {
        "lang": np.repeat(lang, len(flat)),
        "layer": (flat // d_mlp).astype(np.int32),
        "neuron": (flat % d_mlp).astype(np.int32),
    }
    import pandas as pd  # here, as the configuration is parsed by every job

    return pd.DataFrame(data | {name: np.asarray(v, np.float64) for name, v in columns.items()})


def stacked(tables: "list[pd.DataFrame]") -> "pd.DataFrame":
    """Return the rows of all languages as one table."""
    import pandas as pd

    return pd.concat(tables, ignore_index=True)


def contrasts(means: np.ndarray) -> np.ndarray:
    """Return each language's mean minus the mean of the others' means, (languages, ...)."""
    if len(means) < 2:
        raise ValueError("there is no other language to compare with")
    return means - (means.sum(axis=0) - means) / (len(means) - 1)


def exclusive(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows whose neuron belongs to one language only."""
    return frame[~frame.duplicated(["layer", "neuron"], keep=False)].reset_index(drop=True)


def highest(scores: np.ndarray, number: int) -> np.ndarray:
    """Return flat indices of the `number` largest scores; ties go to the lower index.

    Infinite scores are never kept.
    """
    return lowest(-scores.ravel(), number)


def lowest(scores: np.ndarray, number: int, include_ties: bool = False) -> np.ndarray:
    """Return flat indices of the `number` smallest scores; ties go to the lower index.

    With `include_ties` every score equal to the last one kept is kept as well. Infinite scores
    are never kept.
    """
    flat = scores.ravel()
    order = np.argsort(flat, kind="stable")[:number]
    if include_ties and len(order):
        order = np.flatnonzero(flat <= flat[order[-1]])
    return np.sort(order[np.isfinite(flat[order])])
