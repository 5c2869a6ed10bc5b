"""Methods compared by answers: development and test answers, ratings by a judge, scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.base.io import read_jsonl, read_parquet
from langneurons.base.words import UNTOUCHED
from langneurons.evaluation.answer_scores import score_of, scored
from langneurons.evaluation.answer_settings import DEVELOPMENT, TEST
from langneurons.evaluation.answers import (
    Setting,
    answer,
    choose,
    development_conditions,
    divided,
    instructed,
    test_conditions,
)
from langneurons.evaluation.identification import check_labels
from langneurons.evaluation.judge import rate
from langneurons.interventions.plan import Plan, untouched
from langneurons.jobs.common import ModelJob, plan, read_table
from langneurons.models.chat import chat_of
from langneurons.models.language_model import LanguageModel
from langneurons.models.weights import weights_of
from langneurons.reporting.layouts import names_of
from langneurons.selection.method import More
from langneurons.selection.run import run_selection
from langneurons.selection.table import NeuronTable

CELL = ("model", "variant", "langset", "method")


class _Method:
    """A method's settings, what each asks and what it writes."""

    def __init__(self, job: ModelJob, model: LanguageModel):
        self.cfg, self.model = job.cfg, model
        self.statistics = job.statistics(model)
        self.tables = {
            names_of(path, "neurons")["selection"]: read_table(path, model)
            for path in job.inputs.get("neurons", [])
        }
        self.settings = [
            Setting(selection, intervention)
            for selection in self.cfg["selections"]
            for intervention in self.cfg["interventions"]
        ] + [Setting(prompt=name) for name in self.cfg["prompts"]]
        self._drawn: dict[str, list[NeuronTable]] = {}
        asked = {Path(path).stem: read_jsonl(path) for path in job.inputs["questions"]}
        questions = {source: asked[source] for source in self.cfg["sources"]}
        share, seed = self.cfg["development"], self.cfg["seed"]
        same = {DEVELOPMENT: questions, TEST: questions}
        self.questions = same if share is None else divided(questions, share, seed)

    def rows(self, setting: Setting, target: str, rows: Sequence) -> list[dict[str, Any]]:
        """Return the questions as a setting asks them."""
        prompt = self.cfg["prompts"].get(setting.prompt)
        return instructed(rows, prompt, target, self.cfg["names"][target])

    def plan(self, setting: Setting, target: str, source: str) -> Plan:
        """Return what a setting writes for a pair of languages."""
        if not setting.selection:
            return untouched()
        return self._written(setting, self.tables[setting.selection], target, source)

    def _written(self, setting: Setting, table: NeuronTable, target: str, source: str) -> Plan:
        settings = self.cfg["interventions"][setting.intervention]
        return plan(setting.intervention, settings, target, table, self.statistics, source)

    def draws(self, setting: Setting, target: str, source: str) -> list[Plan]:
        """Return what the random draws of a setting write for a pair of languages."""
        if not setting.selection:
            return []
        if setting.selection not in self._drawn:
            self._drawn[setting.selection] = self._draw(self.tables[setting.selection])
        return [
            self._written(setting, table, target, source)
            for table in self._drawn[setting.selection]
        ]

    def _draw(self, like: NeuronTable) -> list[NeuronTable]:
        own = {lang: self.statistics[lang] for lang in like.languages}
        more, controls = More(weights_of(self.model.sites)), self.cfg["controls"]
        kind: dict[str, Any] = {"method": "random_direction"}
        if like.units == "neurons":
            kind = {"method": "random", "match": controls["match"]}
        return [
            run_selection(kind | {"like": "mirrored", "seed": seed}, own, [like], more=more)
            for seed in range(controls["draws"])
        ]


def development_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the answers of every setting to the development questions, and their metadata."""
    model = job.model()
    method = _Method(job, model)
    asked = development_conditions(
        method.questions[DEVELOPMENT],
        job.cfg["targets"],
        method.settings,
        method.rows,
        method.plan,
        job.cfg["pairs"],
    )
    frame = answer(job.run(model, "generation"), asked, method.settings, job.cfg["decoding"])
    return frame, job.names(*CELL) | {"phase": DEVELOPMENT, "identity": model.identity}


def test_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the answers of the chosen settings to the test questions, and their metadata.

    The input `scored` holds the scored answers to the development questions.
    """
    model = job.model()
    method, targets = _Method(job, model), job.cfg["targets"]
    developed = read_parquet(job.inputs["scored"])[0]
    own = [score_of(developed[developed["target"] == lang], lang) for lang in targets]
    chosen = choose(pd.concat(own), targets, method.settings, job.cfg["choose"])
    numbers = dict(zip(chosen["target"], chosen["setting"], strict=True))
    asked = test_conditions(
        method.questions[TEST],
        numbers,
        method.settings,
        method.rows,
        method.plan,
        method.draws,
        job.cfg["pairs"],
    )
    frame = answer(job.run(model, "generation"), asked, method.settings, job.cfg["decoding"])
    more = {"phase": TEST, "identity": model.identity, "chosen": chosen.to_dict("records")}
    more |= job.cfg["controls"] or {}
    return frame, job.names(*CELL) | more


def rating_cell(job: ModelJob) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return a judge's rating of each answer by each version of the prompt, and metadata."""
    cfg, judge = job.cfg, job.model()
    answers = read_parquet(job.inputs["answers"])[0]
    run, chat = job.run(judge, "ratings"), chat_of(judge, cfg.get("chat"))
    pairs = list(zip(answers["question"], answers["text"], strict=True))
    frame = pd.DataFrame(
        {version: rate(run, pairs, version, chat, cfg["sampled"]) for version in cfg["prompts"]}
    )
    more = {"identity": judge.identity, "sampled": cfg["sampled"]}
    return frame, job.names(*CELL, "phase", "judge") | more


def scored_answers(
    answers: str, ratings: Sequence[str], cfg: Mapping[str, Any]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return answers with language, script, relevance and all ratings, and their metadata.

    ratings: files of the judges, in any order; columns `rating:JUDGE:VERSION`.
    """
    frame, metadata = read_parquet(answers)
    check_labels(sorted(set(frame["target"]) - {UNTOUCHED}), cfg["identifier"])
    judge = cfg["judge"]
    found: dict[str, np.ndarray] = {}
    for path in ratings:
        own = read_parquet(path)[0]
        if len(own) != len(frame):
            raise ValueError(f"{path}: {len(own)} ratings of {len(frame)} answers")
        name = names_of(path, "ratings")["judge"]
        found |= {f"rating:{name}:{version}": own[version].to_numpy() for version in own}
    first = None
    if judge is not None:
        first = found[f"rating:{judge['models'][0]}:{judge['prompts'][0]}"]
    frame = scored(frame, cfg, first).assign(**found)
    kept = ("identifier", "second_identifier", "degenerate", "english_words")
    more = {key: cfg[key] for key in kept}
    return frame, metadata | more | {"judge": judge}
