"""What a stage of the graph is: one object that says everything of it but how it computes.

The objects lie in `jobs.stages`, one module per family; the body of a job lies in a module of its
own, so that an edit of a cost reruns nothing. Nothing here loads a model.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langneurons.config.config import Config

if TYPE_CHECKING:
    from langneurons.jobs.estimates import Sizes

Cell = dict[str, str]
PATTERN = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Work:
    """What a job costs: tokens that it reads, seconds that it takes, bytes that it leaves.

    answers: how many texts it writes.
    """

    tokens: float
    seconds: float
    disk: float
    answers: float = 0.0


@dataclass(frozen=True)
class Need:
    """The memory of a stage's largest job in GB: on one GPU, and on the host.

    Where a job asks for no GPU, what would lie on one lies on the host.
    """

    gpu: float
    host: float


@dataclass(frozen=True)
class Stage:
    """A stage: the rule, the files of its jobs, what a job depends on, and what it costs.

    `output` is the pattern of a job's first file; its braces are the wildcards. `cells` yields the
    wildcards of every job of a configuration. `parameters` returns what of the configuration a job
    depends on. `order` is the place in the data flow. Stages without `work` cost next to nothing
    and are left out of the cost plan. `loads_model` marks jobs that ask for a model's resources,
    `final` a stage that a run makes for itself: no table or figure reads it. With `at_most`, jobs
    may stop before they have done all of `work`.
    """

    rule: str
    order: int
    output: str
    cells: Callable[[Config], Iterable[Cell]]
    parameters: Callable[..., dict[str, Any]]
    loads_model: bool = False
    final: bool = False
    at_most: bool = False
    work: "Callable[[Sizes, Cell], Work] | None" = None
    need: "Callable[[Sizes], Need] | None" = field(default=None)

    @cached_property
    def wildcards(self) -> tuple[str, ...]:
        """The names in braces of the output."""
        return tuple(PATTERN.findall(self.output))

    def file(self, cell: Cell) -> str:
        """Return the first file of a job."""
        return self.output.format(**cell)

    def files(self, config: Config) -> list[str]:
        """Return the first file of every job of a configuration."""
        return [self.file(cell) for cell in self.cells(config)]


def by_model(config: Config, *variant_of: str) -> Iterator[Cell]:
    """Yield a cell for every model and, where a group of protocol points is named, variant."""
    for model in config.models:
        if not variant_of:
            yield {"model": model}
        for stage in variant_of:
            for variant in config.variants(stage):
                yield {"model": model, "variant": variant}


CONDITION = ("langset", "selection", "intervention")


def conditioned(
    config: Config,
    stage: str,
    conditions: Callable[[str], Iterable[tuple[str, str, str]]],
    keys: tuple[str, ...] = CONDITION,
) -> Iterator[Cell]:
    """Yield model, variant and the keys of a model's conditions, a cell per value of these.

    `conditions` returns (set folder, selection, intervention) of a model. What is no key, a job
    covers whole.
    """
    for cell in by_model(config, stage):
        found = (dict(zip(CONDITION, one, strict=True)) for one in conditions(cell["model"]))
        for values in dict.fromkeys(tuple(one[key] for key in keys) for one in found):
            yield cell | dict(zip(keys, values, strict=True))


def interventions_of(
    conditions: Iterable[tuple[str, str, str]], langset: str, selection: str
) -> list[str]:
    """Return the interventions of a set's folder and a selection among conditions."""
    return [name for *place, name in conditions if place == [langset, selection]]
