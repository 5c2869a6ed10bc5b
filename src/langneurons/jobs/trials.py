"""A method on trial: its settings tuned and tested, beside random controls."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from langneurons.activations.statistics import Statistics
from langneurons.evaluation.trials import AS_IT_IS, Draw, Protocol, Setting, Texts, run_trial
from langneurons.interventions.plan import Plan
from langneurons.jobs.common import ModelJob, plan, read_table
from langneurons.models.language_model import LanguageModel
from langneurons.models.weights import weights_of
from langneurons.reporting.layouts import names_of
from langneurons.selection.method import More
from langneurons.selection.run import run_selection
from langneurons.selection.table import NeuronTable


def trial_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of a method's trial and their metadata."""
    cfg, model = job.cfg, job.model()
    statistics, corpora = job.statistics(model), job.corpora(model)
    tables = {
        names_of(path, "neurons")["selection"]: read_table(path, model)
        for path in job.inputs["neurons"]
    }
    targets = next(iter(tables.values())).languages
    protocol = Protocol(**cfg["protocol"])
    settings = [
        Setting(selection, intervention, dose)
        for selection in cfg["selections"]
        for intervention in cfg["interventions"]
        for dose in cfg["doses"] or [AS_IT_IS]
    ]

    def plan_of(setting: Setting, target: str) -> Plan:
        written = cfg["interventions"][setting.intervention]
        table = tables[setting.selection]
        return plan(setting.intervention, written, target, table, statistics)

    draws = _Draws(model, statistics, tables, cfg["matches"], cfg["draws"])

    def controls(setting: Setting, target: str) -> Iterator[tuple[Draw, Plan]]:
        written = cfg["interventions"][setting.intervention]
        for draw, table in draws.of(setting.selection):
            yield draw, plan(setting.intervention, written, target, table, statistics)

    texts = Texts(job.run(model, "trials"), corpora, protocol)
    records, chosen = run_trial(texts, targets, settings, plan_of, controls)
    more = {
        "languages": targets,
        "evaluated": list(corpora),
        "settings": len(settings),
        "protocol": cfg["protocol"],
        "chosen": chosen.to_dict("records"),
        "identity": model.identity,
        "texts": {lang: text.header.get("text", {}) for lang, text in corpora.items()},
    }
    return records, job.names("model", "langset", "method") | more


class _Draws:
    """Random tables of each selection, drawn when they are first asked for."""

    def __init__(
        self,
        model: LanguageModel,
        statistics: dict[str, Statistics],
        tables: dict[str, NeuronTable],
        matches: list[str],
        number: int,
    ):
        self._statistics, self._tables = statistics, tables
        self._matches, self._number = matches, number
        self._more = More(weights_of(model.sites))
        self._drawn: dict[str, list[tuple[Draw, NeuronTable]]] = {}

    def of(self, selection: str) -> list[tuple[Draw, NeuronTable]]:
        """Return the draws that mirror a selection."""
        if selection not in self._drawn:
            self._drawn[selection] = list(self._draw(self._tables[selection]))
        return self._drawn[selection]

    def _draw(self, like: NeuronTable) -> Iterator[tuple[Draw, NeuronTable]]:
        own = {lang: self._statistics[lang] for lang in like.languages}
        kinds = self._matches if like.units == "neurons" else ["direction"]
        for match in kinds:
            for seed in range(self._number):
                parameters: dict[str, Any] = {"like": "mirrored", "seed": seed}
                if like.units == "neurons":
                    parameters |= {"method": "random", "match": match}
                else:
                    parameters |= {"method": "random_direction"}
                yield Draw(match, seed), run_selection(parameters, own, [like], more=self._more)
