"""When enough text is read: a selection is stable at two budgets in a row.

The text of every language lies in slices of equal size. Budgets are 1, 2, 4, ... slices of every
language. From 2 slices on the selection is made twice at each budget: on the first half of what was
read and on the second half, or on the first half, which is the budget before, and on all of it. A
language set agrees at a budget where the mean Jaccard index over its languages reaches the
threshold. Languages without neurons in both are left out of the mean; a set in which all are left
out does not agree. Reading stops as soon as every set agrees at two budgets in a row, and at the
end of the text. So at least 4 slices are read.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from langneurons.selection.method import More
from langneurons.selection.stability import agreement, made

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics
    from langneurons.selection.methods import Selection

log = logging.getLogger(__name__)
KEYS = ["slices", "langset"]


def budgets(slices: int) -> list[int]:
    """Return the budgets in slices, each twice the one before; slices: a power of two."""
    return [2**power for power in range(slices.bit_length())]


def compared(budget: int, halves: bool) -> tuple[range, range]:
    """Return the slices on which a selection is made, and those on which it is made again."""
    return range(budget // 2), range(budget // 2 if halves else 0, budget)


def agreements(
    selections: "Mapping[str, Selection]",
    sets: Mapping[str, Sequence[str]],
    first: "Mapping[str, Statistics]",
    second: "Mapping[str, Statistics]",
    more: More,
) -> list[dict[str, Any]]:
    """Return a row per language set and language: how much the neurons of two parts agree.

    selections: the compared one last, before it those that it depends on. first, second: the
    statistics of both parts by language.
    """
    rows: list[dict[str, Any]] = []
    for langset, langs in sets.items():
        one, two = (
            made(selections, {lang: part[lang] for lang in sorted(langs)}, more)
            for part in (first, second)
        )
        for lang in one.languages:
            found = agreement(one, two, lang)
            found.pop("cosine")
            rows.append({"langset": langset, "lang": lang} | found)
    return rows


def set_means(rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Return the mean Jaccard index by budget (slices, ascending) and language set.

    NaN of a set in which no language has neurons in either part.
    """
    frame = pd.DataFrame(rows)
    means = frame.groupby(KEYS, sort=True)["jaccard"].mean()
    return means.unstack("langset").sort_index()


def stable_at(rows: Sequence[Mapping[str, Any]] | pd.DataFrame, jaccard: float) -> int | None:
    """Return the first budget at which every set agrees for the second time in a row, if any."""
    agree = (set_means(rows) >= jaccard).all(axis=1)
    twice = agree & agree.shift(1, fill_value=False)
    return int(twice.idxmax()) if twice.any() else None
