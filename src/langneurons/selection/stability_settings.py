"""Configuration key `stability`: how stable selections are when their text is drawn again."""

from typing import Annotated

from pydantic import Field, field_validator

from langneurons.base.settings import Frozen, Seed, doubled

Budget = Annotated[float, Field(gt=0, le=1)]


class StabilityConfig(Frozen):
    """Selections made again on halves, growing parts and bootstrap draws of the slices."""

    selections: tuple[str, ...] = Field(min_length=1, description="Names from `selections`.")
    language_sets: tuple[str, ...] | None = Field(
        None, description="Names from `language_sets`; all if left out."
    )
    draws: int = Field(
        20, ge=1, le=10_000, description="Pairs of random halves, and bootstrap draws."
    )
    budgets: tuple[Budget, ...] = Field(
        (0.1, 0.2, 0.4, 0.6, 0.8, 1.0),
        description="Shares of the text, from its beginning: whole slices each.",
    )
    seed: Seed = Field(0, description="Seed of the draws.")

    @field_validator("budgets")
    @classmethod
    def _each_once(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        again = doubled(value)
        if again:
            raise ValueError(f"{', '.join(again)} listed more than once")
        return value
