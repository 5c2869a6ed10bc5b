"""How stable a selection is: made again on other parts of the same text, it should not change.

Statistics lie in slices, contiguous parts of equal size of each language's text. A selection is
made again on random halves of the slices, which are compared with each other; on growing parts from
the beginning, compared with the whole; and on bootstrap draws of slices, compared with the whole.
The same slices are drawn of every language, so that of parallel text the same documents are.
Selections of another language set are compared on all slices, and on bootstrap draws of both.

Compared are neurons by the Jaccard index of a language's sets, and directions by the cosine,
averaged over layers.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from langneurons.activations.merging import PooledStatistics
from langneurons.selection.method import More
from langneurons.selection.run import selected
from langneurons.selection.stability_settings import BOOTSTRAP, BUDGET, HALVES
from langneurons.selection.table import NeuronTable

if TYPE_CHECKING:
    from langneurons.activations.statistics import Statistics
    from langneurons.selection.methods import Selection
    from langneurons.selection.stability_settings import StabilityConfig

log = logging.getLogger(__name__)
Slices = Mapping[str, "Sequence[Statistics]"]
Draw = Sequence[int]


@dataclass(frozen=True)
class OtherSet:
    """Slices of another language set, and the languages that are compared.

    pairs: languages of the other set by those of the measured one. same: slices of one number hold
    the same documents in both, so draws are of the same numbers.
    """

    name: str
    slices: Slices
    pairs: Mapping[str, str]
    same: bool


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
    others: Sequence[OtherSet] = (),
) -> pd.DataFrame:
    """Return a row per draw and language: how much its neurons agree with the others'.

    selections: the measured one last, before it those that it depends on. Columns: kind, draw,
    share (of the text), lang, other (its language on another set), tokens, and those of
    `agreement`. The other neurons are those of the second half, of the whole, or of another set:
    then kind is the name of the comparison, and draw 0 is all slices, the others bootstrap draws.
    """
    number = _number(slices)
    whole = _table(selections, slices, range(number), more)
    rows: list[dict[str, Any]] = []
    drawn: list[tuple[Draw, NeuronTable]] = [(range(number), whole)]
    for kind, draw, chosen, other in draws(settings, number):
        one = _table(selections, slices, chosen, more)
        two = whole if other is None else _table(selections, slices, other, more)
        if kind == BOOTSTRAP:
            drawn.append((chosen, one))
        for lang in one.languages:
            tokens = sum(slices[lang][i].tokens for i in chosen)
            row = {"kind": kind, "draw": draw, "share": len(chosen) / number, "lang": lang}
            rows.append(row | {"other": lang, "tokens": tokens} | agreement(one, two, lang))
        log.info("%s %d: %d of %d slices", kind, draw, len(set(chosen)), number)
    for place, another in enumerate(others):
        if _number(another.slices) != number:
            raise ValueError(f"{another.name}: the two sets have different numbers of slices")
        generator = np.random.default_rng([settings.seed, place])
        for draw, (chosen, one) in enumerate(drawn):
            own = chosen
            if draw and not another.same:
                own = sorted(generator.integers(0, number, number))
            two = _table(selections, another.slices, own, more)
            for lang, match in another.pairs.items():
                tokens = sum(slices[lang][i].tokens for i in chosen)
                row = {"kind": another.name, "draw": draw, "share": 1.0, "lang": lang}
                row |= {"other": match, "tokens": tokens}
                rows.append(row | agreement(one, two, lang, match))
        log.info("%s: all slices and %d draws", another.name, len(drawn) - 1)
    return pd.DataFrame(rows)


def _number(slices: Slices) -> int:
    numbers = {len(parts) for parts in slices.values()}
    if len(numbers) != 1:
        raise ValueError(f"languages of {sorted(numbers)} slices; all need the same number")
    return numbers.pop()


def agreement(
    one: NeuronTable, two: NeuronTable, lang: str, other: str | None = None
) -> dict[str, Any]:
    """Return sizes, shared neurons, Jaccard and cosine of a language's neurons in two tables.

    other: its name in the second table. chance: the Jaccard index of two random sets with as many
    neurons in each layer, from the number that they share on average. Jaccard is NaN where neither
    has any; cosine is the mean over layers in which both have a direction, NaN of neurons.
    """
    other = other or lang
    masks = one.mask(lang), two.mask(other)
    sizes = [int(mask.sum()) for mask in masks]
    shared = int((masks[0] & masks[1]).sum())
    union = sum(sizes) - shared
    by_layer = [mask.sum(axis=1) for mask in masks]
    expected = float(by_layer[0] @ by_layer[1]) / masks[0].shape[1]
    found: dict[str, Any] = {"neurons": sizes[0], "other_neurons": sizes[1], "shared": shared}
    found["jaccard"] = shared / union if union else math.nan
    found["chance"] = expected / (sum(sizes) - expected) if union else math.nan
    found["cosine"] = math.nan
    if one.units == "dimensions":
        found |= {"cosine": _cosine(one.values(lang), two.values(other)), "chance": math.nan}
    return found


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    there = lengths > 0
    products = (first * second).sum(axis=1)
    return float(np.mean(products[there] / lengths[there])) if there.any() else math.nan


def _table(
    selections: "Mapping[str, Selection]", slices: Slices, chosen: Draw, more: More
) -> NeuronTable:
    """Return the neurons that the last selection gives on chosen slices of every language."""
    pooled = {lang: PooledStatistics([slices[lang][i] for i in chosen]) for lang in sorted(slices)}
    return made(selections, pooled, more)


def made(
    selections: "Mapping[str, Selection]", statistics: "Mapping[str, Statistics]", more: More
) -> NeuronTable:
    """Return the neurons that the last selection gives, after those that it depends on."""
    tables: dict[str, NeuronTable] = {}
    for name, selection in selections.items():
        others = {other: tables[other] for other in selection.depends_on}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a language without neurons is counted
            tables[name] = selected(selection, statistics, others, more)
    return tables[name]
