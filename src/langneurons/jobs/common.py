"""What the jobs of a model share: what a rule gives them, files of this model only, plans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langneurons.activations.statistics import Statistics
from langneurons.base.digests import digest
from langneurons.base.io import DamagedFile, damaged
from langneurons.base.languages import set_directory
from langneurons.base.store import SideStore
from langneurons.data.corpus import Corpus
from langneurons.evaluation.run import Run
from langneurons.interventions.plan import Plan
from langneurons.interventions.resolve import Intervention, resolve
from langneurons.interventions.settings import InterventionEntry
from langneurons.models.language_model import LanguageModel, load
from langneurons.models.settings import ModelEntry
from langneurons.reporting.layouts import names_of
from langneurons.scoring.engine import CONTINUOUS, PADDED, Engine
from langneurons.selection.table import NeuronTable

STORE = "results/.work"


@dataclass(frozen=True)
class ModelJob:
    """What a rule gives the job of a model.

    cfg, code: its parameters; inputs: its input files by name, one path or a list; batch_tokens:
    tokens of one forward pass; engine: what decodes answers.
    """

    cfg: dict[str, Any]
    code: list[str]
    wildcards: Mapping[str, str]
    inputs: Mapping[str, Any]
    batch_tokens: int = 0
    engine: Engine = field(default_factory=Engine)

    @classmethod
    def of(cls, snakemake: Any) -> "ModelJob":
        """Return the job of a running script."""
        files = {
            name: str(paths) if isinstance(paths, str) else [str(path) for path in paths]
            for name, paths in snakemake.input.items()
        }
        return cls(
            snakemake.params.cfg,
            list(snakemake.params.code),
            dict(snakemake.wildcards.items()),
            files,
            snakemake.resources.get("batch_tokens", 0),
            Engine(snakemake.resources.get("engine", PADDED)),
        )

    def model(self) -> LanguageModel:
        """Return the prepared model."""
        return load(ModelEntry.model_validate(self.cfg["model"]), self.inputs["manifest"])

    def run(self, model: LanguageModel, store: str, **more: Any) -> Run:
        """Return the model with its store of finished parts; `more` is told apart with the model.

        Parts are keyed by the model's identity and by the code. The model is checked first: plans
        must change it by what is known (`langneurons.scoring.canary`), and the engine that decodes
        answers must read it as padded passes do (`langneurons.scoring.engine_check`).
        """
        # Loaded here: jobs that write nothing into a model do not need what hooks plans in.
        from langneurons.scoring.canary import check_model

        check_model(model)
        if self.engine.name == CONTINUOUS:
            from langneurons.scoring.engine_check import check_engine

            check_engine(model)
        key = {"model": model.identity | more, "code": digest(self.code)}
        return Run(model, SideStore(STORE, store), key, self.batch_tokens, self.engine)

    def statistics(self, model: LanguageModel) -> dict[str, Statistics]:
        """Return the statistics among the inputs, by language."""
        return read_statistics(self.inputs.get("statistics", []), model)

    def table(self, model: LanguageModel) -> NeuronTable:
        """Return the neuron table among the inputs."""
        return read_table(self.inputs["neurons"], model)

    def plans(
        self, targets: Sequence[str], table: NeuronTable, statistics: Mapping[str, Statistics]
    ) -> dict[str, dict[str, Plan]]:
        """Return what each intervention of the job writes for each target, by both names."""
        return {
            name: {lang: plan(name, settings, lang, table, statistics) for lang in targets}
            for name, settings in self.cfg["interventions"].items()
        }

    def corpora(self, model: LanguageModel) -> dict[str, Corpus]:
        """Return the corpora among the inputs, by language."""
        read = [
            Corpus.read(
                path, lang=names_of(path, "corpora")["lang"], tokenizer_hash=model.tokenizer_hash
            )
            for path in self.inputs["corpora"]
        ]
        return {one.lang: one for one in read}

    def names(self, *keys: str) -> dict[str, str]:
        """Return wildcards by name, for the metadata of a result."""
        return {key: self.wildcards[key] for key in keys}


def read_statistics(paths: Sequence[str], model: LanguageModel) -> dict[str, Statistics]:
    """Read statistics; refuse those of another model, revision, number format or tokenizer."""
    same = model.identity | {"tokenizer_hash": model.tokenizer_hash}
    read = [
        Statistics.read(path, lang=names_of(path, "activations")["lang"], **same) for path in paths
    ]
    return {one.lang: one for one in read}


def read_table(path: str, model: LanguageModel) -> NeuronTable:
    """Read a neuron table; refuse one of another model."""
    same = {key: model.identity[key] for key in ("model", "revision")}
    table = NeuronTable.from_parquet(path, **same)
    folder = names_of(path, "neurons")["langset"]
    if table.languages != sorted(table.languages) or set_directory(table.languages) != folder:
        raise DamagedFile(damaged(path, f"its languages are {', '.join(table.languages)}"))
    return table


def plan(
    name: str,
    settings: Mapping[str, Any],
    target: str,
    table: NeuronTable,
    statistics: Mapping[str, Statistics],
    source: str | None = None,
) -> Plan:
    """Return what an intervention writes for one language, or for a pair of source and target.

    A source that no step names is left out.
    """
    entry = InterventionEntry.model_validate({"steps": settings["steps"]})
    source = source if "source" in entry.roles else None
    own = {lang: one for lang, one in statistics.items() if lang in table.languages}
    policies = {key: settings[key] for key in ("shared", "quantiles") if key in settings}
    return resolve(Intervention(name, entry.steps, **policies), target, table, own, source)
