"""What the jobs share: the model, files of it and of no other, plans."""

from pathlib import Path
from typing import Any

from langneurons.activations.statistics import Statistics
from langneurons.base.io import DamagedFile, damaged, read_json
from langneurons.base.languages import set_directory
from langneurons.interventions.hooks import Plan, resolve
from langneurons.interventions.settings import InterventionEntry
from langneurons.models.load import identity, load_model, tokenizer_hash
from langneurons.models.settings import ModelEntry
from langneurons.selection.table import NeuronTable

STORE = "results/.work"


def load(cfg: dict[str, Any], manifest: str):
    """Return model, tokenizer and the model's identity."""
    entry = ModelEntry.model_validate(cfg["model"])
    model, tokenizer = load_model(entry, manifest)
    return model, tokenizer, identity(entry, read_json(manifest))


def read_statistics(paths: list[str], who: dict[str, Any], tokenizer) -> dict[str, Statistics]:
    """Read statistics; refuse those of another model, revision, number format or tokenizer."""
    same = who | {"tokenizer_hash": tokenizer_hash(tokenizer)}
    read = [Statistics.read(path, lang=Path(path).stem, **same) for path in paths]
    return {one.lang: one for one in read}


def read_table(path: str, who: dict[str, Any]) -> NeuronTable:
    """Read a neuron table; refuse one of another model."""
    table = NeuronTable.from_parquet(path, **{key: who[key] for key in ("model", "revision")})
    folder = Path(path).parent.name
    if table.languages != sorted(table.languages) or set_directory(table.languages) != folder:
        raise DamagedFile(damaged(path, f"its languages are {', '.join(table.languages)}"))
    return table


def plan(
    name: str,
    settings: dict[str, Any],
    target: str,
    table: NeuronTable,
    statistics: dict[str, Statistics],
    source: str | None = None,
) -> Plan:
    """Return what an intervention writes for one language, or for a pair of source and target.

    A source that no step speaks of is as none.
    """
    entry = InterventionEntry.model_validate({"steps": settings["steps"]})
    source = source if "source" in entry.roles else None
    own = {lang: one for lang, one in statistics.items() if lang in table.languages}
    quantiles = settings.get("quantiles", "corrected")
    shared = settings.get("shared", "in_order")
    return resolve(name, entry.steps, target, table, own, quantiles, source, shared)
