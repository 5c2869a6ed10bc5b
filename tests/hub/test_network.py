"""How many jobs fetch at once, and what a run of a part of the graph says at its end."""

import json
import re

from hub.repositories import card, parquet
from test_workflow import Checkout

COMMIT = "3" * 40
LANGS = ["en", "fr", "vi", "hi", "zh"]
CONFIG = {
    "name": "fetching",
    "models": {"m": {"source": {"kind": "local", "path": "none"}}},
    "language_sets": {"all": LANGS},
    "corpus": {
        "source": {"kind": "hub", "dataset": "owner/many", "revision": COMMIT, "seed": None},
        "heldout_fraction": 0.3,
    },
    "selections": {"lape": {"method": "lape"}},
}


def served(hub, tmp_path):
    """Put a text of every language on the hub, and return a checkout that fetches them."""
    files = {
        f"{lang}/train.parquet": parquet([{"id": i, "text": f"{lang} {i}"} for i in range(40)], 5)
        for lang in LANGS
    }
    made = card({lang: {"train": f"{lang}/*"} for lang in LANGS}, files)
    hub.add("datasets", "owner/many", made, COMMIT)
    checkout = Checkout(tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    checkout.config = CONFIG
    checkout.save()
    return checkout


def at_once(hub) -> int:
    """Return how many languages were fetched at the same time, by their requests' times."""
    spans: dict[str, list[float]] = {}
    for (_, path, _), at in zip(hub.requests, hub.times, strict=True):
        if match := re.search(r"/(\w\w)/train", path):
            spans.setdefault(match[1], []).append(at)
    assert set(spans) == set(LANGS)
    ends = [(min(times), 1) for times in spans.values()]
    ends += [(max(times), -1) for times in spans.values()]
    running, most = 0, 0
    for _, step in sorted(ends):
        running += step
        most = max(most, running)
    return most


def test_two_jobs_fetch_at_once_whatever_the_number_of_cores(hub, tmp_path):
    checkout = served(hub, tmp_path)
    files = [f"resources/text/{lang}.jsonl" for lang in LANGS]
    done = checkout.run(*files, "-c5", "--configfile", "tiny.yaml", hub=True)
    assert at_once(hub) <= 2
    last = done.stderr.split("langneurons: ")[-1]
    assert last.startswith("fetching finished. What it was asked for is there: resources/text/en")
    assert "reports" not in last and "and 2 more" in last
    assert not (tmp_path / "results").exists()


def test_the_number_of_fetching_jobs_is_given_on_the_command_line(hub, tmp_path):
    checkout = served(hub, tmp_path)
    files = [f"resources/text/{lang}.jsonl" for lang in LANGS]
    given = ("--resources", "network=1", "--configfile", "tiny.yaml")
    checkout.run(*files, "-c3", *given, hub=True)
    assert at_once(hub) == 1


def test_resources_of_a_paper_are_fetched_and_nothing_is_quantised(tmp_path):
    checkout = Checkout(tmp_path)
    paper = "config/papers/mondal2025.yaml"
    done = checkout.run("resources", "-n", "--quiet", "rules", "--configfile", paper, hub=True)
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE))
    assert {name: int(number) for name, number in counts.items()} == {
        "prepare_model": 2,
        "fetch_text": 16,
        "prepare_task": 12,
        "prepare_training": 4,
        "resources": 1,
        "total": 35,
    }
