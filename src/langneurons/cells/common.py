"""What the jobs share: the model, files of it and of no other, plans."""

from typing import Any

from langneurons.config.interventions import InterventionEntry
from langneurons.config.models import ModelEntry
from langneurons.interventions import Plan, resolve
from langneurons.io import DamagedFile, damaged, read_json
from langneurons.loading import identity, load_model
from langneurons.neurons import NeuronTable
from langneurons.statistics import Statistics

STORE = "results/.work"


def load(cfg: dict[str, Any], manifest: str):
    """Return model, tokenizer and the model's identity."""
    entry = ModelEntry.model_validate(cfg["model"])
    model, tokenizer = load_model(entry, manifest)
    return model, tokenizer, identity(entry, read_json(manifest))


def read_statistics(paths: list[str], who: dict[str, Any]) -> dict[str, Statistics]:
    """Read statistics; refuse those of another model, revision, dtype or quantisation."""
    result = {}
    for path in paths:
        one = Statistics.read(path)
        for key, value in who.items():
            if one.header[key] != value:
                reason = f"{key} is {one.header[key]!r}, the model's is {value!r}"
                raise DamagedFile(damaged(path, reason))
        result[one.lang] = one
    return result


def read_table(path: str, who: dict[str, Any]) -> NeuronTable:
    """Read a neuron table; refuse one of another model."""
    table = NeuronTable.from_parquet(path)
    for key in ("model", "revision"):
        if table.metadata.get(key) != who[key]:
            reason = f"{key} is {table.metadata.get(key)!r}, the model's is {who[key]!r}"
            raise DamagedFile(damaged(path, reason))
    return table


def plan(
    name: str,
    settings: dict[str, Any],
    target: str,
    table: NeuronTable,
    statistics: dict[str, Statistics],
    source: str | None = None,
) -> Plan:
    """Return what an intervention writes for one language, or for a pair of source and target."""
    steps = InterventionEntry.model_validate({"steps": settings["steps"]}).steps
    own = {lang: one for lang, one in statistics.items() if lang in table.languages}
    quantiles = settings.get("quantiles", "corrected")
    return resolve(name, steps, target, table, own, quantiles, source)
