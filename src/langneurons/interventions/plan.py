"""What an intervention writes into a model: plans, and which requests follow which plan."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from langneurons.interventions.factors import Factor

SCOPES = ("all", "prompt", "generated")


@dataclass(frozen=True)
class Write:
    """One operation (`langneurons.interventions.operations`) on neurons of one layer, at `index`.

    With a `factor`, v is `value` times the factor of the row's sequence. At site `residual` the
    layer's output is written, and `index` are dimensions; an operation along a direction takes
    `value` as the unit vector u and `amount` as the coefficient c. A write into neurons of
    an expert has an effect at the tokens that are routed to it only.
    """

    layer: int
    site: str
    operation: str
    index: np.ndarray
    value: np.ndarray
    tokens: str = "all"
    factor: Factor | None = None
    amount: float = 1.0

    @property
    def content(self) -> bytes:
        """What is done, without where: equal contents are equal operations."""
        name = "" if self.factor is None else f"{self.factor.name}:{self.factor.ranks}"
        index, value = np.asarray(self.index, np.int64), np.asarray(self.value, np.float64)
        start = f"{self.operation}:{self.tokens}:{name}:{index.size}:{value.size}:"
        start += f"{self.amount}:" if self.amount != 1.0 else ""
        return start.encode() + index.tobytes() + value.tobytes()


@dataclass
class Plan:
    """The writes of an intervention, in order; `empty` if no neuron is touched."""

    name: str
    writes: list[Write] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether no neuron is touched."""
        return not self.writes

    @property
    def neurons(self) -> int:
        """Number of (layer, neuron) pairs written."""
        return len({(w.layer, int(i)) for w in self.writes for i in w.index})

    @property
    def by_token(self) -> bool:
        """Whether what is written at a token depends on no other: no value of the layer itself."""
        return all(write.factor is None for write in self.writes)

    @property
    def digest(self) -> str:
        """A digest of what is written: equal plans under other names have equal digests."""
        return _digest(self.writes)

    def begins(self, n_layers: int, of_prompts: bool = False) -> int:
        """Return the lowest layer that is touched, in prompts if so asked; n_layers if none is."""
        acting = self.of_prompts() if of_prompts else self.writes
        return min((write.layer for write in acting), default=n_layers)

    def of_prompts(self) -> list[Write]:
        """Return the writes that act on tokens of a prompt."""
        return [write for write in self.writes if write.tokens != "generated"]

    def prompt_digest(self) -> str:
        """Return a digest of what is written into prompts."""
        return _digest(self.of_prompts())


def _digest(writes: Sequence[Write]) -> str:
    result = hashlib.sha256()
    for write in writes:
        result.update(f"{write.layer}:{write.site}:".encode())
        result.update(write.content)
    return result.hexdigest()[:32]


def untouched() -> Plan:
    """Return the plan that writes nothing."""
    return Plan("none")


@dataclass(frozen=True)
class PerRequest:
    """Plans, and for each request of a call the place in `plans` of the plan that it follows.

    Requests under different plans share batches; each gets what it would get under its plan alone.
    """

    plans: Sequence[Plan | None]
    numbers: Sequence[int]

    def __post_init__(self) -> None:
        known = range(len(self.plans))
        wrong = sorted({int(number) for number in self.numbers} - set(known))
        if wrong:
            raise ValueError(f"PerRequest: no plan {wrong[0]}; there are {len(self.plans)} plans")

    def check(self, requests: int) -> None:
        """Refuse another number of requests than there are numbers."""
        if len(self.numbers) != requests:
            raise ValueError(f"PerRequest: {len(self.numbers)} numbers for {requests} requests")


# What a call runs under: None leaves the model untouched, a plan acts on every request, a list of
# plans (None among them: untouched) gives results under each, by plan.
Under = None | Plan | Sequence[Plan | None] | PerRequest
