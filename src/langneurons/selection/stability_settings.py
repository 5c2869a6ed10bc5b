"""Configuration key `stability`: how stable selections are when their text is drawn again."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, field_validator

from langneurons.base.languages import parts_of
from langneurons.base.settings import NAME_LENGTH, Frozen, Seed, doubled, is_name

Budget = Annotated[float, Field(gt=0, le=1)]
HALVES, BUDGET, BOOTSTRAP = "halves", "budget", "bootstrap"
KINDS = (HALVES, BUDGET, BOOTSTRAP)


def matched(first: Sequence[str], second: Sequence[str]) -> dict[str, str]:
    """Return, by language of the first set, the same language or its variant of the second.

    Raises:
        ValueError: of a language that both sets do not share as it is, one has several variants.
    """
    found = {lang: lang for lang in first if lang in second}
    left = [[lang for lang in langs if lang not in found] for langs in (first, second)]
    for base in dict.fromkeys(parts_of(lang)[0] for lang in left[0]):
        here, there = ([one for one in langs if parts_of(one)[0] == base] for langs in left)
        if not there:
            continue
        if len(here) > 1 or len(there) > 1:
            raise ValueError(
                f"{', '.join(here)} of one and {', '.join(there)} of the other are all {base!r};"
                " a comparison needs one of each"
            )
        found[here[0]] = there[0]
    return {lang: found[lang] for lang in first if lang in found}


def compared(pairs: dict[str, str]) -> dict[str, str]:
    """Return the pairs that differ in their text; all where only the rest of the set differs."""
    return {one: two for one, two in pairs.items() if one != two} or pairs


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
    comparisons: dict[str, tuple[str, str]] = Field(
        default_factory=dict,
        description="Two names from `language_sets` each, by a name: neurons of a language on the"
        " first set against those of the same language, or of its variant, on the second.",
    )
    seed: Seed = Field(0, description="Seed of the draws.")

    @field_validator("comparisons")
    @classmethod
    def _named(cls, value: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
        for name in value:
            if name in KINDS:
                raise ValueError(f"{name!r} is a kind of draw ({', '.join(KINDS)}); rename it")
            if not is_name(name):
                raise ValueError(
                    f"name {name!r}: names hold letters, digits, '.', '_', '+', '-' and begin with"
                    f" a letter or digit ({NAME_LENGTH} characters at most)"
                )
        return value

    @field_validator("budgets")
    @classmethod
    def _each_once(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        again = doubled(value)
        if again:
            raise ValueError(f"{', '.join(again)} listed more than once")
        return value
