"""Configuration key `interventions`: what is written into which neurons."""

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from langneurons.activations.settings import Site
from langneurons.base.errors import nearest
from langneurons.base.protocols import Protocol
from langneurons.base.settings import Frozen, doubled
from langneurons.interventions.operations import OPERATIONS

# Words that stand for languages; `source` only where a stage gives a pair of languages.
ROLES = ("target", "source", "others")
POLICIES = ("in_order", "neither")
LEVEL = r"p(0[1-9]|[1-9]\d)"
STATISTIC = re.compile(
    "mean|std|min|max|abs_mean|probability|normal|mean_difference|mean_of_others|document_max|document_median|"
    + LEVEL
)
FACTOR = re.compile(rf"layer_(max|mean|median|std|{LEVEL})")
# What of a language's direction in the residual stream is written.
DIRECTIONS = ("direction", "unit_direction")
# Statistics of a dimension of the residual stream.
OF_DIMENSIONS = ("mean", "std", "min", "max", "abs_mean", "mean_difference", "mean_of_others")
EXAMPLES = (
    *("mean", "std", "min", "max", "abs_mean", "probability", "normal", "mean_difference"),
    "mean_of_others",
    *("document_max", "document_median", "p05", "p10", "p90", "p95"),
    *("layer_max", "layer_mean", "layer_median", "layer_std", "layer_p10"),
    *DIRECTIONS,
)
Words = str | tuple[str, ...]
LARGEST = 1e6  # of a written number, and of what multiplies a statistic


def percentile(value: str | None) -> int | None:
    """Return the level that a statistic such as p90 or layer_p10 names, or None."""
    found = re.fullmatch(rf"(?:layer_)?{LEVEL}", value or "")
    return int(found.group(1)) if found else None


def several(words: Words) -> tuple[str, ...]:
    """Return one word, or a list of words, as a tuple."""
    return (words,) if isinstance(words, str) else words


class Step(Frozen):
    """One operation on one group of neurons; steps act in the order in which they are listed."""

    neurons: Words = Field(
        "target",
        description="Whose neurons: `target` (the language of the row or of the evaluation),"
        " `source` (the first language of a pair, where a stage gives pairs), `others` (every"
        " language of the set but the target), a language code, or a list of these (their union).",
    )
    without: Words | None = Field(
        None, description="Whose neurons are left out of these; words as for `neurons`."
    )
    operation: str = Field(
        description="; ".join(f"{name}: {one.meaning}" for name, one in OPERATIONS.items()) + ".",
        json_schema_extra={"enum": list(OPERATIONS)},
    )
    value: float | str = Field(
        description="A number. Or a statistic of each neuron: mean, std, min, max, abs_mean,"
        " probability (P(a > 0)), normal (a standard normal number per neuron, drawn once, the same"
        " in every language), mean_difference (mean minus the mean of the set's other"
        " languages), mean_of_others (that mean: what the neuron does in the other languages),"
        " document_max, document_median (of the means per document; the lower median),"
        " p01 ... p99. Or a value of the layer in this forward pass (not scale): layer_max,"
        " layer_mean, layer_median, layer_std, layer_p01 ... layer_p99, per sequence over its"
        " tokens, without padding, and all neurons. At site `residual`: a number; or mean, std,"
        " min, max, abs_mean, mean_difference or mean_of_others of each dimension; or `direction`"
        " (the scores of the language's dimensions in the layer), or `unit_direction` (the same"
        " at length 1)."
    )
    coefficient: float = Field(
        1.0, description="Multiplies the value; of project_out, the share that is taken out."
    )
    statistic_language: str = Field(
        "neurons",
        description="Language of the statistic: `neurons` (that of the neurons), `target`,"
        " `source`, or a language code.",
    )
    site: Site = Field(
        "act",
        description="Where the value is written. `residual`: over the output of the layer, with"
        " selections whose units are dimensions of the residual stream; the other sites, with"
        " selections of neurons.",
    )
    statistic_site: Site | None = Field(
        None,
        description="Where the statistic was measured; left out: at `site`, or as the protocol"
        " says.",
    )
    layers: tuple[int, int] | None = Field(None, description="First and last layer, inclusive.")
    tokens: Literal["all", "prompt", "generated"] = Field(
        "all", description="At which tokens: all, the prompt's, or those that follow it."
    )

    @field_validator("operation")
    @classmethod
    def _known_operation(cls, value: str) -> str:
        if value not in OPERATIONS:
            raise ValueError(
                f"{value!r} is no operation.{nearest(value, OPERATIONS)} Legal here:"
                f" {', '.join(OPERATIONS)}"
            )
        return value

    @field_validator("value")
    @classmethod
    def _known_statistic(cls, value: float | str) -> float | str:
        known = not isinstance(value, str) or STATISTIC.fullmatch(value) or FACTOR.fullmatch(value)
        if not known and value not in DIRECTIONS:
            raise ValueError(
                f"{value!r} is neither a number nor a statistic ({', '.join(EXAMPLES)},"
                f" p01-p99, layer_p01-layer_p99).{nearest(value, EXAMPLES)}"
            )
        return value

    @field_validator("neurons", "without")
    @classmethod
    def _some(cls, value: Words | None) -> Words | None:
        if value is not None and not several(value):
            raise ValueError("empty; name a language or a role")
        again = doubled(several(value or ()))
        if again:
            raise ValueError(f"{', '.join(again)} listed more than once")
        return value

    @model_validator(mode="after")
    def _meaningful(self) -> "Step":
        if self.layers is not None and not 0 <= self.layers[0] <= self.layers[1]:
            raise ValueError(f"layers: {list(self.layers)} is not [first, last] with first <= last")
        if abs(self.coefficient) > LARGEST:
            raise ValueError(
                f"coefficient: {self.coefficient:g} is beyond what is written; legal:"
                f" {-LARGEST:g} to {LARGEST:g}"
            )
        if isinstance(self.value, float):
            amount = self.value * self.coefficient
            if abs(amount) > LARGEST:
                raise ValueError(
                    f"value: {self.value:g} x coefficient {self.coefficient:g} is beyond what is"
                    f" written; legal: {-LARGEST:g} to {LARGEST:g}"
                )
            if (self.operation, amount) in {("add", 0.0), ("scale", 1.0)}:
                raise ValueError(f"{self.operation} {amount:g} changes nothing")
        elif self.coefficient == 0.0 and self.operation in ("add", "project_out"):
            raise ValueError(f"{self.operation} with coefficient 0 changes nothing")
        self._check_site()
        if self.statistic is None:
            what = "a number" if self.factor is None else "the layer's own"
            what = "a direction" if self.direction else what
            if self.statistic_site is not None:
                raise ValueError(f"statistic_site: the value is {what}, not a statistic")
            if not self.direction and self.statistic_language != "neurons":
                raise ValueError(f"statistic_language: the value is {what}, not a statistic")
        if self.factor is not None and self.operation == "scale":
            raise ValueError(
                f"operation: {self.value} is no factor to scale by; legal with it:"
                f" {', '.join(name for name in OPERATIONS if name != 'scale')}"
            )
        if self.statistic_language == "others":
            raise ValueError(
                "statistic_language: 'others' is more than one language; legal: neurons, target,"
                " source or a language code"
            )
        own = several(self.neurons)
        many = len(own) > 1 or "others" in own
        if (self.statistic or self.direction) and self.statistic_language == "neurons" and many:
            raise ValueError(
                f"statistic_language: neurons of {', '.join(own)} are of more than one language;"
                f" name the one whose {'direction' if self.direction else 'statistic'} is written:"
                " target, source or a language code"
            )
        if set(own) <= set(several(self.without or ())):
            raise ValueError("without: names all whose neurons are written; none are left")
        return self

    def _check_site(self) -> None:
        """Refuse what the residual stream does not have, and what it alone has."""
        residual, along = self.site == "residual", OPERATIONS[self.operation].along
        if self.statistic_site is not None and (self.statistic_site == "residual") != residual:
            raise ValueError(
                f"statistic_site: a statistic of site {self.statistic_site!r} is of other units"
                f" than what is written at site {self.site!r}; leave the key out"
            )
        if not residual:
            if along or self.direction:
                key, word = ("operation", self.operation) if along else ("value", self.value)
                raise ValueError(
                    f"{key}: {word} is of the residual stream; legal with it: site: residual"
                )
            return
        if along and not self.direction:
            raise ValueError(
                f"value: {self.value} is not a direction to project out; legal with"
                f" {self.operation}: {', '.join(DIRECTIONS)}"
            )
        if self.factor is not None:
            raise ValueError(
                f"value: {self.value} is a value of a layer's neurons; legal at site residual: a"
                f" number, {', '.join((*DIRECTIONS, *OF_DIMENSIONS))}"
            )
        if self.statistic is not None and self.statistic not in OF_DIMENSIONS:
            raise ValueError(
                f"value: {self.value} is not known of dimensions of the residual stream; legal at"
                f" site residual: a number, {', '.join((*DIRECTIONS, *OF_DIMENSIONS))}"
            )

    @property
    def direction(self) -> str | None:
        """What of the language's direction the value names, if it names that."""
        return self.value if isinstance(self.value, str) and self.value in DIRECTIONS else None

    @property
    def units(self) -> str:
        """What is written: `neurons`, or `dimensions` of the residual stream."""
        return "dimensions" if self.site == "residual" else "neurons"

    @property
    def statistic(self) -> str | None:
        """The statistic that the value names, if it names one."""
        value = self.value
        return value if isinstance(value, str) and STATISTIC.fullmatch(value) else None

    @property
    def factor(self) -> str | None:
        """The value of the layer itself that `value` names, if it names one."""
        value = self.value
        return value if isinstance(value, str) and FACTOR.fullmatch(value) else None

    @property
    def group(self) -> tuple[str, ...]:
        """Whose neurons, sorted: steps of one group write the same neurons."""
        return tuple(sorted(several(self.neurons)))

    @property
    def words(self) -> list[tuple[str, str]]:
        """Every (key, word) that stands for a language, be it a role or a code."""
        pairs = [("neurons", word) for word in several(self.neurons)]
        pairs += [("without", word) for word in several(self.without or ())]
        if self.statistic_language != "neurons":
            pairs.append(("statistic_language", self.statistic_language))
        return pairs


class InterventionEntry(Frozen):
    """A named intervention: its steps in order."""

    one_of = "steps"

    steps: tuple[Step, ...] = Field(min_length=1, description="Operations, in order.")
    shared: str = Field(
        "in_order",
        description="Neurons that steps on different `neurons` would write. in_order: each step"
        " acts on them, in order; neither: none does; or the `neurons` of a step, such as target:"
        " only those steps do.",
    )
    sweep: int | tuple[tuple[int, int], ...] | None = Field(
        None,
        description="One intervention per layer (a number: of layers) or per range of layers (list"
        " of [first, last]) instead of one, called name.L00, name.L01, ... or name.L00-03, ..."
        " Wherever `name` is listed under `interventions`, all of them are meant.",
    )
    models: tuple[str, ...] | None = Field(
        None, description="Models on which it is used; all if left out."
    )
    label: str | None = Field(None, description="Name in tables and figures.")
    # Of an entry that stands for a part of a sweep: the sweep's name, and its layers in words.
    _part: tuple[str, str] | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        """Accept one step written without the list."""
        if isinstance(value, dict) and "steps" not in value and set(value) & set(Step.model_fields):
            own = {key: value[key] for key in set(value) & set(cls.model_fields)}
            step = {key: item for key, item in value.items() if key not in own}
            value = {"steps": [step]} | own
        return value

    @model_validator(mode="after")
    def _meaningful(self) -> "InterventionEntry":
        sites = list(dict.fromkeys(step.site for step in self.steps))
        if len({step.units for step in self.steps}) > 1:
            raise ValueError(
                f"steps: they write at sites {', '.join(sites)}, of which residual has dimensions"
                " and the others have neurons; a selection has one of the two. Make two"
                " interventions."
            )
        groups = list(dict.fromkeys(step.group for step in self.steps))
        legal = [*POLICIES, *(group[0] for group in groups if len(group) == 1)]
        if self.shared not in legal:
            raise ValueError(
                f"shared: {self.shared!r} is not legal.{nearest(self.shared, legal)}"
                f" Legal here: {', '.join(legal)}"
            )
        if self.shared != "in_order" and len(groups) < 2:
            raise ValueError(f"shared: {self.shared!r}, but all steps write the same neurons")
        if self.sweep is not None:
            self._check_sweep(self.sweep)
        return self

    def _check_sweep(self, sweep: int | tuple[tuple[int, int], ...]) -> None:
        if any(step.layers is not None for step in self.steps):
            raise ValueError("sweep: it gives the layers; leave out `layers`")
        if isinstance(sweep, int):
            if not 1 <= sweep <= 999:
                raise ValueError(f"sweep: {sweep} is no number of layers (1 to 999)")
            return
        for first, last in sweep:
            if not 0 <= first <= last:
                raise ValueError(f"sweep: {[first, last]} is not [first, last] with first <= last")
        if not sweep:
            raise ValueError("sweep: empty; name a range of layers, or their number")
        again = doubled(list(pair) for pair in sweep)
        if again:
            raise ValueError(f"sweep: {', '.join(again)} listed more than once")

    @property
    def units(self) -> str:
        """What its steps write: `neurons`, or `dimensions` of the residual stream."""
        return self.steps[0].units

    @property
    def roles(self) -> set[str]:
        """The roles that the steps speak of."""
        return {word for step in self.steps for _, word in step.words if word in ROLES}

    @property
    def part(self) -> tuple[str, str] | None:
        """The sweep that it belongs to, and its layers in words, such as 03 or 00-08."""
        return self._part

    def swept(self, name: str) -> dict[str, "InterventionEntry"]:
        """Return the interventions, by name, that the entry stands for."""
        if self.sweep is None:
            return {name: self}
        ranges: Iterable[tuple[int, int]]
        if isinstance(self.sweep, int):
            ranges = [(layer, layer) for layer in range(self.sweep)]
        else:
            ranges = self.sweep
        found = {}
        for first, last in ranges:
            where = f"{first:02d}" if first == last else f"{first:02d}-{last:02d}"
            steps = tuple(step.model_copy(update={"layers": (first, last)}) for step in self.steps)
            label = f"{self.label or name}, layer{'' if first == last else 's'} {where}"
            update = {"steps": steps, "sweep": None, "label": label}
            found[f"{name}.L{where}"] = made = self.model_copy(update=update)
            made._part = (name, where)
        return found


def statistic_site(step: Step, protocol: Protocol) -> str:
    """Return the site at which the step's statistic is read, after the protocol."""
    if step.statistic_site is not None:
        return step.statistic_site
    if protocol.intervention_site == "paper" and step.site == "act":
        return "gate"
    return step.site
