"""Hook plans into a model for the length of a block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from langneurons.interventions.branches import Branched
from langneurons.interventions.hooks import Hooked, OnePlan, PlanPerRow
from langneurons.interventions.plan import PerRequest, Plan, Under, untouched
from langneurons.models.language_model import LanguageModel


@contextmanager
def applied(model: LanguageModel, plan: Plan, strict: bool = True) -> Iterator[Hooked]:
    """Hook a plan into a model for the length of the block, in which any code may run the model.

    A plan that is limited to prompt or generated tokens, or that takes its value from the layer,
    needs to know the tokens of each forward pass: call `announce(prompt, valid)` of what the block
    gets before each. Functions with an argument `under` do that themselves.

    Args:
        model: The model; hooks are removed at the end of the block in any case.
        plan: What is written.
        strict: Whether the plan must have changed at least one value.

    Raises:
        NoEffect: At the end of the block, the plan has not fired in a layer that it writes, or has
            changed nothing.

    Example:
        >>> import langneurons as ln
        >>> import torch
        >>> model = ln.load("gemma3-270m")
        >>> statistics = ln.collect(model, ln.mini_texts(["fr", "vi"], 30))
        >>> plan = ln.plan(ln.select(statistics, "lape", rate=0.01), "vi", "set", 0)
        >>> ids = model.tokenizer("Hà Nội", return_tensors="pt")["input_ids"]
        >>> with ln.applied(model, plan), torch.inference_mode():
        ...     answer = model.model.generate(ids, max_new_tokens=3, do_sample=False)
        >>> answer.shape[1] <= ids.shape[1] + 3
        True
    """
    running = OnePlan(model.sites, plan)
    try:
        yield running
        running.check(strict)
    finally:
        running.remove()


@contextmanager
def hooked(model: LanguageModel, under: Under, strict: bool = True) -> Iterator[Hooked]:
    """Hook in what a call runs under; checked on leaving as by `applied`, if anything was read."""
    running = _hooked(model, under)
    try:
        yield running
        if running.begun:
            running.check(strict)
    finally:
        running.remove()


def _hooked(model: LanguageModel, under: Under) -> Hooked:
    if isinstance(under, PerRequest):
        return PlanPerRow(model.sites, [plan or untouched() for plan in under.plans])
    if under is None or isinstance(under, Plan):
        return OnePlan(model.sites, under or untouched())
    plans = [plan or untouched() for plan in under]
    if not plans:
        raise ValueError("under: an empty list of plans; name one, or None for the model untouched")
    return Branched(model.sites, plans) if len(plans) > 1 else OnePlan(model.sites, plans[0])


def several(under: Under) -> bool:
    """Return whether results have one more level, by plan: those under a list of plans."""
    return not (under is None or isinstance(under, (Plan, PerRequest)))


def results(under: Under, by_plan: Any) -> Any:
    """Return what was found under each plan, or the only one where no list of plans was given."""
    return by_plan if several(under) else by_plan[0]


def each(under: Under, function: Callable[[Any], Any], found: Any) -> Any:
    """Return a function of what a call gave, or of what it gave under each plan."""
    return [function(one) for one in found] if several(under) else function(found)
