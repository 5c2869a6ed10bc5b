"""What the shipped configurations ask of the hub: their fetch jobs, and repositories for them."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hub import repositories
from hub.server import Hub

from langneurons.base.shipped import project_file
from langneurons.config import read_configs
from langneurons.evaluation.definition import load_task
from langneurons.jobs.parameters import stage

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in [ROOT / "config" / "config.yaml", *(ROOT / "config" / "papers").glob("*.yaml")]
    if path.stem != "protocols"
)


@cache
def config(path: Path):
    """Return a shipped configuration."""
    return read_configs([path])


def definition(name: str, entry):
    """Return the definition of a task of a configuration."""
    return load_task(project_file(entry.definition or f"config/tasks/{name}.yaml"))


def jobs(path: Path) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield (rule, parameters, task) of each job of a configuration that asks the hub."""
    one = config(path)
    for model, entry in one.models.items():
        if entry.source.kind == "hub":
            yield "prepare_model", stage(one, "prepare_model", model=model), None
    langs = {lang for model in one.models for lang in one.model_languages(model)}
    if one.corpus.source.kind == "hub":
        for lang in sorted(langs):
            yield "fetch_text", stage(one, "fetch_text", lang=lang), None
    for variant in one.variants("items"):
        for name, entry in one.tasks.items():
            if entry.source.kind == "hub":
                task = definition(name, entry.under(one.under("items", variant)))
                for lang in entry.languages:
                    given = {"variant": variant, "task": name, "lang": lang}
                    yield "prepare_task", stage(one, "prepare_task", **given), task
    for variant in one.variants("rows"):
        for name, entry in one.finetunings.items():
            if entry.source.kind == "hub":
                given = {"variant": variant, "finetuning": name}
                task = definition(name, entry)
                yield "prepare_task", stage(one, "prepare_training", **given), task
    if one.lss is not None and one.lss.source.kind == "hub":
        folders = {folder for model in one.models for folder, _, _ in one.lss_cells(model)}
        for lang in sorted({lang for folder in folders for lang in one.lss_languages(folder)[0]}):
            yield "prepare_facts", stage(one, "prepare_facts", lang=lang), None


def asked(rule: str, cfg: dict[str, Any], task: Any) -> tuple[str, str, str, set[str]]:
    """Return kind, name and revision of what a job asks for, and its languages' codes."""
    source = cfg["source"]
    if rule == "prepare_model":
        return "models", source["repo"], source["revision"], set()
    lang = cfg["lang"]
    if rule in ("fetch_text", "prepare_facts"):
        code = source.get("codes", {}).get(lang, lang)
        return "datasets", source["dataset"], source["revision"], {code}
    if source.get("dataset"):
        return "datasets", source["dataset"], source["revision"], {lang}
    codes = {task.hub.codes.get(lang, task.code(lang))}
    return "datasets", task.hub.dataset, task.hub.revision, codes


def fill(hub: Hub) -> None:
    """Make every repository that configurations ask for, at the commits that they name."""
    if ("models", "microsoft/phi-2") in hub.repositories:
        return
    commits: dict[tuple[str, str], set[str]] = {}
    codes: dict[str, set[str]] = {}
    for path in CONFIGS:
        for job in jobs(path):
            kind, name, revision, some = asked(*job)
            commits.setdefault((kind, name), set()).add(revision)
            codes.setdefault(name, set()).update(some)
    for (kind, name), revisions in sorted(commits.items()):
        layouts = repositories.MODELS if kind == "models" else repositories.DATASETS
        make, gated = layouts[name]
        files = make() if kind == "models" else make(codes[name])
        for revision in sorted(revisions):
            commit = repositories.NEWEST if revision == "newest" else revision
            hub.add(kind, name, files, commit, gated)
