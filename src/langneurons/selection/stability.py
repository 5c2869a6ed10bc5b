"""How stable a selection is: made again on other parts of the same text, it should not change.

Statistics lie in slices, contiguous parts of equal size of each language's text. A selection is
made again on random halves of the slices, which are compared with each other; on growing parts from
the beginning, compared with the whole; and on bootstrap draws of slices, compared with the whole.
The same slices are drawn of every language, so that of parallel text the same documents are.

Compared are neurons by the Jaccard index of a language's sets, and directions by the cosine,
averaged over layers.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from langneurons.activations.merging import PooledStatistics
from langneurons.selection.method import More
from langneurons.selection.run import selected
from langneurons.selection.table import NeuronTable

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics
    from langneurons.selection.methods import Selection
    from langneurons.selection.stability_settings import StabilityConfig

log = logging.getLogger(__name__)
HALVES, BUDGET, BOOTSTRAP = "halves", "budget", "bootstrap"
KINDS = (HALVES, BUDGET, BOOTSTRAP)
Slices = Mapping[str, "Sequence[Statistics]"]
Draw = Sequence[int]


def draws(settings: "StabilityConfig", slices: int) -> Iterator[tuple[str, int, Draw, Draw | None]]:
    """Yield kind, number, the slices of a draw, and those of the other half; None: the whole.

    Of an odd number of slices one is in neither half, another one in each draw.
    """
    generator = np.random.default_rng(settings.seed)
    half = slices // 2
    for number in range(settings.draws):
        order = generator.permutation(slices)
        yield HALVES, number, sorted(order[:half]), sorted(order[half : 2 * half])
    for number, share in enumerate(sorted(settings.budgets)):
        yield BUDGET, number, range(round(share * slices)), None
    for number in range(settings.draws):
        yield BOOTSTRAP, number, sorted(generator.integers(0, slices, slices)), None


def measure_stability(
    selections: "Mapping[str, Selection]",
    slices: Slices,
    settings: "StabilityConfig",
    more: More,
) -> pd.DataFrame:
    """Return a row per draw and language: how much its neurons agree with the others'.

    selections: the measured one last, before it those that it depends on. Columns: kind, draw,
    share (of the text), lang, tokens, neurons, other_neurons, shared, jaccard, cosine (of
    directions, else NaN). The other neurons are those of the second half, or of the whole.
    """
    numbers = {len(parts) for parts in slices.values()}
    if len(numbers) != 1:
        raise ValueError(f"languages of {sorted(numbers)} slices; all need the same number")
    (number,) = numbers
    whole = _table(selections, slices, range(number), more)
    rows: list[dict[str, Any]] = []
    for kind, draw, chosen, other in draws(settings, number):
        one = _table(selections, slices, chosen, more)
        two = whole if other is None else _table(selections, slices, other, more)
        for lang in one.languages:
            tokens = sum(slices[lang][i].tokens for i in chosen)
            row = {"kind": kind, "draw": draw, "share": len(chosen) / number, "lang": lang}
            rows.append(row | {"tokens": tokens} | agreement(one, two, lang))
        log.info("%s %d: %d of %d slices", kind, draw, len(set(chosen)), number)
    return pd.DataFrame(rows)


def agreement(one: NeuronTable, two: NeuronTable, lang: str) -> dict[str, Any]:
    """Return sizes, shared neurons, Jaccard and cosine of a language's neurons in two tables.

    Jaccard is NaN where neither has any; cosine is the mean over layers in which both have a
    direction, NaN of neurons.
    """
    masks = one.mask(lang), two.mask(lang)
    sizes = [int(mask.sum()) for mask in masks]
    shared = int((masks[0] & masks[1]).sum())
    union = sum(sizes) - shared
    found: dict[str, Any] = {"neurons": sizes[0], "other_neurons": sizes[1], "shared": shared}
    found["jaccard"] = shared / union if union else math.nan
    found["cosine"] = _cosine(one, two, lang) if one.units == "dimensions" else math.nan
    return found


def _cosine(one: NeuronTable, two: NeuronTable, lang: str) -> float:
    first, second = one.values(lang), two.values(lang)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    there = lengths > 0
    products = (first * second).sum(axis=1)
    return float(np.mean(products[there] / lengths[there])) if there.any() else math.nan


def _table(
    selections: "Mapping[str, Selection]", slices: Slices, chosen: Draw, more: More
) -> NeuronTable:
    """Return the neurons that the last selection gives on chosen slices of every language."""
    statistics = {
        lang: PooledStatistics([slices[lang][i] for i in chosen]) for lang in sorted(slices)
    }
    tables: dict[str, NeuronTable] = {}
    for name, selection in selections.items():
        others = {other: tables[other] for other in selection.depends_on}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a language without neurons is counted
            tables[name] = selected(selection, statistics, others, more)
    return tables[name]
