"""What a number of documents or items can show at best: the smallest p of the tests in use.

A paired test of n units cannot give less than 2 / 2^n, the p of n equal signs (`uncertainty`), and
Holm multiplies the smallest p of a family by the size of the family. The standard library only.
"""

import math


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
