"""Every model and data set of every shipped configuration, fetched from a hub with its layout."""

import json
import re

import pytest
from hub import repositories, shipped

from langneurons.base.io import read_json, read_jsonl
from langneurons.data.corpus import fetch_text
from langneurons.data.facts import prepare_facts
from langneurons.data.settings import CorpusConfig
from langneurons.evaluation.definition import load_task
from langneurons.evaluation.examples import build
from langneurons.evaluation.items import prepare_task
from langneurons.models import hub as client
from langneurons.models.prepare import prepare_model
from langneurons.models.settings import ModelEntry

COMMIT = re.compile("[0-9a-f]{40}")
# Sizes alone are changed: how much text, and of how many items.
SMALL = {"characters": 8000, "buffer": 50}


def all_jobs():
    """Return the jobs that ask the hub, equal ones of several configurations once."""
    found = {}
    for path in shipped.CONFIGS:
        for rule, cfg, task in shipped.jobs(path):
            name = task.name if task else ""
            found.setdefault((rule, name, json.dumps(cfg, sort_keys=True)), (rule, cfg, task))
    return list(found.values())


JOBS = all_jobs()


def test_everything_that_config_names_has_a_layout():
    """A new entry under config/ needs one in tests/hub/repositories.py."""
    for job in JOBS:
        kind, name, revision, _ = shipped.asked(*job)
        layouts = repositories.MODELS if kind == "models" else repositories.DATASETS
        assert name in layouts, f"{kind} {name}: no layout in tests/hub/repositories.py"
        assert revision == "newest" or COMMIT.fullmatch(revision)
    definitions = (shipped.ROOT / "config" / "tasks").glob("*.yaml")
    for path in definitions:
        assert load_task(path).hub.dataset in repositories.DATASETS, path.name


def test_only_what_has_no_known_commit_is_newest():
    newest = {
        name
        for job in JOBS
        for _, name, revision, _ in [shipped.asked(*job)]
        if revision == "newest"
    }
    assert newest == {
        "SeaLLMs/SeaLLMs-v3-1.5B-Chat",
        "SeaLLMs/SeaLLMs-v3-7B-Chat",
        "Muennighoff/xwinograd",
        "CohereLabs/include-lite-44",
        "inayarhmns/MLAMA-dod-185",
    }


@pytest.fixture(scope="module")
def filled():
    from conftest import HUB

    shipped.fill(HUB)
    return HUB


def test_every_model_is_prepared(filled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, (rule, cfg, _) in enumerate(JOBS):
        if rule == "prepare_model":
            entry = ModelEntry.model_validate({"source": cfg["source"], "dtype": "float32"})
            manifest = prepare_model(entry, tmp_path / str(number))
            expected = cfg["source"]["revision"].replace("newest", repositories.NEWEST)
            assert manifest["revision"] == expected
            weights = {name.rpartition(".")[2] for name in manifest["files"]} - {"json", "txt"}
            assert weights & {"safetensors", "bin"} in ({"safetensors"}, {"bin"})


def dataset_jobs():
    """Return the jobs of each data set and rule."""
    groups = {}
    for job in JOBS:
        kind, name, _, _ = shipped.asked(*job)
        if kind == "datasets":
            groups.setdefault((name, job[0], job[2].name if job[2] else "text"), []).append(job)
    return groups


GROUPS = dataset_jobs()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group[0]}-{group[2]}")
def test_every_data_set_is_fetched(filled, tmp_path, monkeypatch, group):
    monkeypatch.chdir(tmp_path)
    # Seconds that a stream waits for its threads when it is left before its end.
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    for rule, cfg, task in GROUPS[group]:
        lang = cfg["lang"]
        out, about = tmp_path / f"{lang}.jsonl", tmp_path / f"{lang}.json"
        if rule == "prepare_task":
            prepare_task(task, cfg["source"], lang, out, cfg["limit"], cfg["rows"], about)
            examples = build(read_jsonl(out), task, lang)
            assert examples and set(read_jsonl(out)[0]) <= task.reads
        elif rule == "prepare_facts":
            prepare_facts(cfg["source"], lang, out, cfg["limit"], about)
        else:
            own = {key: cfg[key] for key in cfg.keys() - {"lang"}}
            for name in ("source", "heldout_source"):
                if name in own:
                    own[name] = own[name] | SMALL
            own["heldout_fraction"] = 0.3
            fetch_text(CorpusConfig.model_validate(own), lang, out, about)
        told = read_json(about)
        for source in told.get("sources") or [told["source"]]:
            assert source["dataset"] == group[0] and COMMIT.fullmatch(source["commit"])
    if any("newest" in json.dumps(cfg) for _, cfg, _ in GROUPS[group]):
        assert read_json(client.kept_commit(group[0]))["commit"] == repositories.NEWEST
