"""The statistics of a model's languages, read slice by slice until a selection is stable."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from langneurons.activations.merging import PooledStatistics, joined
from langneurons.activations.settings import StatisticsConfig
from langneurons.activations.statistics import Statistics
from langneurons.jobs.common import ModelJob
from langneurons.jobs.statistics import check_slices, slice_file
from langneurons.models.weights import read_weights
from langneurons.reporting.layouts import names_of
from langneurons.selection.method import More
from langneurons.selection.methods import Selection
from langneurons.selection.until import agreements, budgets, compared, set_means, stable_at

log = logging.getLogger(__name__)
Slices = dict[str, list[Statistics]]


@dataclass(frozen=True)
class Read:
    """What was read: the curve with its metadata, and the slices of each language.

    Slices lie in the side store.
    """

    curve: pd.DataFrame
    metadata: dict[str, Any]
    slices: Slices

    def write(self, statistics: Sequence[str], parts: Sequence[str]) -> int:
        """Write the statistics of every language and the parts of them; return all tokens.

        parts: for each language as many paths as parts of equal size are kept, or none.
        """
        tokens = 0
        for path in statistics:
            lang = names_of(path, "activations")["lang"]
            slices = self.slices[lang]
            own = [one for one in parts if names_of(one, "slices")["lang"] == lang]
            size = len(slices) // max(len(own), 1)
            for number, part in enumerate(own):
                joined(slices[number * size : (number + 1) * size]).write(part)
            whole = joined(slices)
            whole.header["slices"] = [self.metadata["read"], self.metadata["slices"]]
            whole.write(path)
            tokens += whole.tokens
        return tokens

    def forget(self) -> None:
        """Delete the slices from the side store: the statistics hold them."""
        for slices in self.slices.values():
            for one in slices:
                Path(one.path).unlink(missing_ok=True)


def until_cell(job: ModelJob, checkpoint_seconds: float) -> Read:
    """Read slices of every language until the selection is stable on every set of it.

    checkpoint_seconds: how often the state of a slice is saved, from which a killed job goes on.
    """
    rule, model = job.cfg["until"], job.model()
    plain = StatisticsConfig.model_validate(job.cfg["statistics"])
    settings = plain.model_copy(update={"slices": rule["slices"]})
    adapter: TypeAdapter[Selection] = TypeAdapter(Selection)
    selections = {name: adapter.validate_python(one) for name, one in job.cfg["selections"]}
    manifest = next(iter(job.inputs.get("weights", [])), None)
    more = More(None if manifest is None else read_weights(manifest))
    corpora = dict(sorted(job.corpora(model).items()))
    for corpus in corpora.values():
        check_slices(corpus, settings, "statistics.until.slices")
    own = [settings.model_dump(mode="json"), model.identity, job.code]
    slices: Slices = {lang: [] for lang in corpora}
    rows: list[dict[str, Any]] = []
    stable, budget = None, 0
    for budget in budgets(settings.slices):
        for lang, corpus in corpora.items():
            key = [*own, corpus.header]
            for number in range(len(slices[lang]), budget):
                file = slice_file(model, corpus, settings, number, key, checkpoint_seconds)
                slices[lang].append(Statistics.read(file, lang=lang))
        if budget == 1:
            continue
        first, second = (
            {lang: PooledStatistics([read[i] for i in chosen]) for lang, read in slices.items()}
            for chosen in compared(budget, rule["halves"])
        )
        for row in agreements(selections, job.cfg["sets"], first, second, more):
            tokens = sum(one.tokens for one in slices[row["lang"]])
            rows.append({"slices": budget, "tokens": tokens} | row)
        _say(rows, budget, rule)
        stable = stable_at(rows, rule["jaccard"])
        if stable is not None:
            break
    metadata = rule | {
        "revision": model.identity["revision"],
        "read": budget,
        "stable": stable is not None,
        "tokens": {lang: sum(one.tokens for one in read) for lang, read in slices.items()},
        "there": {lang: int(one.identification.scored.sum()) for lang, one in corpora.items()},
    }
    return Read(pd.DataFrame(rows), metadata, slices)


def _say(rows: Sequence[Mapping[str, Any]], budget: int, rule: Mapping[str, Any]) -> None:
    means = ", ".join(f"{name} {value:.3f}" for name, value in set_means(rows).loc[budget].items())
    log.info(
        "%d of %d slices: mean Jaccard %s; asked for: %g at two budgets in a row",
        budget,
        rule["slices"],
        means,
        rule["jaccard"],
    )
