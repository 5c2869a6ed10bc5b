"""What a metric is: a name, what it scores, and a number of each item or counts of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from langneurons.base.errors import present


@dataclass(frozen=True)
class Choice:
    """A choice among several: the one that is taken and the right one, by index.

    taken: None where an answer could not be read as a choice. loglikelihoods in nats and lengths
    in characters, by choice, where the choices were scored.
    """

    taken: int | None
    label: int
    loglikelihoods: tuple[float, ...] = ()
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A text that a model wrote, and the references.

    encode: token numbers of a text; tokenizer: sacreBLEU's, for the language.
    """

    text: str
    golds: tuple[str, ...]
    lang: str = "en"
    encode: Callable[[str], list[int]] | None = None
    tokenizer: str = "13a"


@dataclass(frozen=True)
class Metric:
    """A metric between 0 and 1, of choices or of answers.

    kinds: the kinds of task that it scores. One of these is given:
    item: the score of an item.
    count, counts, total: numbers of an item, their names, and the score (...,) of their sums
    (..., count): a metric of the whole corpus, such as BLEU.
    groups: the score of each group of items at the group's first item, NaN at the others.
    """

    name: str
    meaning: str
    kinds: tuple[str, ...]
    item: Callable[..., float] | None = None
    count: Callable[..., Sequence[float]] | None = None
    counts: tuple[str, ...] = ()
    total: Callable[[np.ndarray], np.ndarray] | None = None
    groups: Callable[[Sequence[Answer], int], list[float]] | None = None

    @property
    def columns(self) -> list[str]:
        """The columns of records that hold it."""
        return [f"{self.name}:{one}" for one in self.counts] or [self.name]

    def of_item(self, scored: Choice | Answer) -> dict[str, float]:
        """Return what a record holds of an item, by column; nothing for a metric of groups."""
        if self.item is not None:
            return {self.name: float(self.item(scored))}
        if self.count is None:
            return {}
        return dict(zip(self.columns, map(float, self.count(scored)), strict=True))

    def of_sums(self, sums: np.ndarray) -> np.ndarray:
        """Return the score (...,) of summed counts (..., count)."""
        return present(self.total, f"metric {self.name}: it has no counts")(sums)

    def of_groups(self, answers: Sequence[Answer], number: int) -> list[float]:
        """Return the score of each group of so many answers at its first one, NaN elsewhere."""
        return present(self.groups, f"metric {self.name}: it has no groups")(answers, number)


def of_answers(name: str, meaning: str) -> Callable[[Callable[[Answer], float]], Metric]:
    """Make a metric of each answer from a function."""
    return lambda function: Metric(name, meaning, ("generation",), item=function)


def of_choices(
    name: str, meaning: str, *kinds: str
) -> Callable[[Callable[[Choice], float]], Metric]:
    """Make a metric of each choice from a function."""
    return lambda function: Metric(name, meaning, kinds, item=function)
