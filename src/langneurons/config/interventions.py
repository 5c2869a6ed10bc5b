"""Configuration key `interventions`: what is written into which neurons."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from langneurons.config.base import Frozen
from langneurons.config.statistics import Site
from langneurons.errors import nearest

STATISTIC = re.compile(r"mean|std|min|max|abs_mean|mean_difference|p(0[1-9]|[1-9]\d)")
EXAMPLES = ("mean", "std", "min", "max", "abs_mean", "mean_difference", "p05", "p10", "p90", "p95")


class Step(Frozen):
    """One operation on one group of neurons; steps act in the order in which they are listed."""

    neurons: str = Field(
        "target",
        description="Whose neurons: `target` (the language of the row or of the evaluation),"
        " `source` (the first language of a pair, where a stage gives pairs) or a language code.",
    )
    operation: Literal["set", "add", "scale"] = Field(
        description="set: a = v; add: a = a + v; scale: a = a * v."
    )
    value: float | str = Field(
        description="A number, or a statistic of each neuron: mean, std, min, max, abs_mean,"
        " mean_difference (mean minus the mean of the set's other languages), p01 ... p99."
    )
    coefficient: float = Field(1.0, description="Multiplies the value.")
    statistic_language: str = Field(
        "neurons", description="Language of the statistic; `neurons`: that of the neurons."
    )
    site: Site = Field("act", description="Where the value is written.")
    statistic_site: Site | None = Field(
        None,
        description="Where the statistic was measured; left out: at `site`, or as the protocol"
        " says.",
    )
    layers: tuple[int, int] | None = Field(None, description="First and last layer, inclusive.")
    tokens: Literal["all", "prompt", "generated"] = Field(
        "all", description="At which tokens: all, the prompt's, or those that follow it."
    )

    @field_validator("value")
    @classmethod
    def _known_statistic(cls, value: float | str) -> float | str:
        if isinstance(value, str) and not STATISTIC.fullmatch(value):
            raise ValueError(
                f"{value!r} is neither a number nor a statistic ({', '.join(EXAMPLES)},"
                f" p01-p99).{nearest(value, EXAMPLES)}"
            )
        return value

    @model_validator(mode="after")
    def _meaningful(self) -> "Step":
        if self.layers is not None and not 0 <= self.layers[0] <= self.layers[1]:
            raise ValueError(f"layers: {list(self.layers)} is not [first, last] with first <= last")
        if isinstance(self.value, float):
            amount = self.value * self.coefficient
            if (self.operation, amount) in {("add", 0.0), ("scale", 1.0)}:
                raise ValueError(f"{self.operation} {amount:g} changes nothing")
            if self.statistic_site is not None:
                raise ValueError("statistic_site: the value is a number, not a statistic")
        elif self.coefficient == 0.0 and self.operation == "add":
            raise ValueError("add with coefficient 0 changes nothing")
        return self

    @property
    def statistic(self) -> str | None:
        """The statistic that the value names, if it names one."""
        return self.value if isinstance(self.value, str) else None


class InterventionEntry(Frozen):
    """A named intervention: its steps in order."""

    steps: tuple[Step, ...] = Field(min_length=1, description="Operations, in order.")
    label: str | None = Field(None, description="Name in tables and figures.")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value):
        """Accept one step written without the list."""
        if isinstance(value, dict) and "steps" not in value and set(value) & set(Step.model_fields):
            value = dict(value)
            label = value.pop("label", None)
            value = {"steps": [value]} | ({"label": label} if label is not None else {})
        return value
