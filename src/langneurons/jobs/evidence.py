"""What a configuration can show at best: families of tests that no result could pass.

Documents and items are counted where they are known before a run: `perplexity.documents`, `limit`,
the mini data, files at hand.
"""

from collections.abc import Iterator

from langneurons.config.config import Config
from langneurons.evaluation.power import shortfall
from langneurons.jobs.files import number_of_rows, row_sources


def thin_evidence(config: Config) -> list[str]:
    """Return a sentence for each key under which no cell of a family can be significant."""
    return list(dict.fromkeys([*_perplexity(config), *_tasks(config)]))


def _perplexity(config: Config) -> Iterator[str]:
    entry = config.perplexity
    if entry is None or entry.documents is None:
        return
    sets = config.directory_languages()
    sizes = {
        len(sets[cell[0]]) for model in config.models for cell in config.perplexity_cells(model)
    }
    for size in sorted(sizes):
        level = config.results.alpha / (entry.until.looks if entry.until else 1)
        text = shortfall(entry.documents, size**2, level, "documents")
        if text:
            yield f"perplexity.documents: {_lower(text)}"


def _tasks(config: Config) -> Iterator[str]:
    items: dict[str, int] = {}
    for one in row_sources(config):
        if not one.key.startswith("tasks."):
            continue
        number = number_of_rows(one)
        if number is not None:
            first, last = (round(share * number) for share in one.entry.rows)
            number = last - first
        limit = one.entry.limit
        known = [count for count in (number, limit) if count is not None]
        if known:  # a cell of the language with the most items reaches the level first
            items[one.task] = max(items.get(one.task, 0), min(known))
    for task, number in items.items():
        for family in sorted({_family(config, model, task) for model in config.models}):
            text = shortfall(number, family, config.results.alpha, "items") if family else ""
            if text:
                yield f"tasks.{task}: {_lower(text)}"


def _family(config: Config, model: str, task: str) -> int:
    """Return how many conditions of a task are corrected together: languages, adapters, plans."""
    adapters = config.adapters(model)
    jobs = [job for job in config.evaluations(model) if job[1] == task]
    return sum(
        len(config.task_conditions(model, task, lang, adapters.get(adapter)))
        for adapter, _, lang in jobs
    )


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
