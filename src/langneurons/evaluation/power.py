"""What a number of documents or items can show at best: the smallest p of the tests in use.

A paired test of n units cannot give less than 2 / 2^n, the p of n equal signs (`uncertainty`), and
Holm multiplies the smallest p of a family by the size of the family.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def smallest_p(units: int) -> float:
    """Return the smallest p that a paired test of n units can give: 2 / 2^n, at most 1."""
    return min(1.0, 2.0 ** (1 - units))


def smallest_p_of_two(first: int, second: int) -> float:
    """Return the smallest p of a test of two samples: 2 / (number of ways to divide the units)."""
    if min(first, second) < 1:
        return 1.0
    ways = math.lgamma(first + second + 1) - math.lgamma(first + 1) - math.lgamma(second + 1)
    return min(1.0, 2.0 * math.exp(-ways))


def units_needed(family: int, level: float) -> int:
    """Return the least number of units with which one of `family` tests can be below `level`."""
    return max(2, math.floor(1 + math.log2(family / level)) + 1)


def attainable(units: int, family: int, level: float) -> bool:
    """Return whether a test of `units` units can be below `level` after Holm over `family`."""
    return smallest_p(units) * family < level


def shortfall(units: int, family: int, level: float, unit: str, cells: str = "cell") -> str:
    """Return a sentence if no test of a family can reach the level with so few units, else ""."""
    if attainable(units, family, level):
        return ""
    plural = unit if units != 1 else unit.removesuffix("s")
    return (
        f"With {units} {plural} no {cells} of {family} can reach {level:g}: the smallest p is"
        f" {smallest_p(units):.2g}, after Holm {min(1.0, smallest_p(units) * family):.2g};"
        f" use {units_needed(family, level)} {unit} or more."
    )


def thin_evidence(
    cells: "pd.DataFrame", alpha: float, unit: str, groups: Sequence[str]
) -> list[str]:
    """Return a sentence for each family of tests of which no cell can reach the level.

    `groups` are the columns that tell families apart; `cells` have p, p_least and a column of the
    units: documents, facts or n.
    """
    counted = next(name for name in ("documents", "facts", "n") if name in cells)
    tested = cells[cells["p"].notna()]
    notes = []
    for values, part in tested.groupby(list(groups), sort=False) if groups else [((), tested)]:
        if part.empty or (part["p_least"] < alpha).any():
            continue
        where = ", ".join(str(value) for value in values)
        text = shortfall(int(part[counted].max()), len(part), alpha, unit)
        if text:
            notes.append(f"{where}: {text[0].lower()}{text[1:]}" if where else text)
    return notes
