"""Which selections are random controls, of which others, and what claims compare."""

from typing import Any

from langneurons.config.config import Config


def controls(config: Config) -> dict[str, str | None]:
    """Return of each random selection the one that it mirrors, None if it mirrors none."""
    random = {name: one for name, one in config.selections.items() if one.random}
    return {name: next(iter(one.depends_on), None) for name, one in random.items()}


def roles(config: Config) -> dict[str, Any]:
    """Return what claims speak of: interventions that write 0 or a low quantile, random neurons."""
    lone = {name: one.steps[0] for name, one in config.interventions.items() if len(one.steps) == 1}
    sets = {name: step for name, step in lone.items() if step.operation == "set"}
    low = {f"p{level:02d}" for level in range(1, 26)}
    return {
        "zero": [name for name, step in sets.items() if step.value == 0],
        "low": [name for name, step in sets.items() if step.statistic in low],
        "random": controls(config),
    }
