"""Drawn configurations are run to the end on a tiny random model.

No accepted configuration fails in a job for a reason that was in the configuration.
"""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from drawn import LANGS, Drawer
from inprocess import JobFailed, run
from test_fuzz_config import outcome, without
from test_workflow import save_tiny_model

DRAWS = max(5, int(os.environ.get("LANGNEURONS_DRAWS", "0")) // 10)
SEED = int(os.environ.get("LANGNEURONS_SEED", "0"))
MOST_JOBS = 45
# Refused in words, by a job: how many neurons of a layer a selection takes, how many batches a text
# fills and how many documents it holds out is not known before.
ONLY_DATA_SHOW = {
    "select_neurons": "are not selected themselves; lower the rate",
    "collect_statistics": " of identification text, fewer than statistics.slices",
    "collect_until": " of identification text, fewer than statistics.until.slices",
    "try_method": "at least 2 are needed. Raise corpus.heldout_tokens",
}
WORDS = "one two three four five six seven eight nine ten".split()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return where a tiny model, texts, rows and a mask lie."""
    here = tmp_path_factory.mktemp("jobs")
    save_tiny_model(here / "model")
    for number, lang in enumerate(LANGS):
        draw = random.Random(number)
        rows = []
        for document in range(16):
            text = " ".join(draw.choices(WORDS, k=12))
            row = {"id": f"d{document}", "text": text, "question": text, "label": document % 3}
            rows.append(json.dumps(row | {"premise": text, "hypothesis": text}))
        (here / f"{lang}.jsonl").write_text("\n".join(rows) + "\n")
        (here / f"{lang}.txt").write_text("".join(f"{json.loads(r)['text']}\n" for r in rows))
    layers = [[torch.arange(k, 64, 7) for k in (index, index + 1)] for index in range(len(LANGS))]
    torch.save(layers, here / "mask.pth")
    kinds = {"jsonl": "{lang}.jsonl", "text": "{lang}.txt", "model": "model", "mask": "mask.pth"}
    return {kind: str(here / name) for kind, name in kinds.items()}


def accepted(files: dict[str, str], generator: random.Random, work: Path) -> dict | None:
    """Return a configuration that is accepted and needs nothing from outside, or None."""
    raw = Drawer(generator, files, 0.0).configuration()
    for _ in range(40):
        found = outcome(raw, work)
        if found == "planned":
            text = json.dumps(raw)
            outside = any(f'"kind": "{kind}"' in text for kind in ("hub", "gguf", "fasttext"))
            hub = any("source" not in task for task in raw.get("tasks", {}).values())
            # 4-bit blocks are wider than the tiny model.
            for model in raw["models"].values():
                model.pop("quantization", None)
            return None if outside or hub else raw
        if not without(raw, found):
            return None
    return None


@pytest.mark.parametrize("number", range(DRAWS))
def test_an_accepted_configuration_runs_to_its_end(files, tmp_path, number):
    generator = random.Random(SEED * 1000 + number)
    rules: list[str] = []
    while not rules:
        raw = None
        while raw is None or not small(raw):
            raw = accepted(files, generator, tmp_path)
        (tmp_path / "drawn.json").write_text(json.dumps(raw))
        print(f"configuration: {tmp_path / 'drawn.json'}")
        try:
            rules = run(tmp_path, tmp_path / "drawn.json")
        except JobFailed as error:
            rule = str(error).split()[0].split("@")[0]
            if ONLY_DATA_SHOW.get(rule, "another rule") not in str(error):
                raise
        shutil.rmtree(tmp_path / "results")
    assert "write_report" in rules


def small(raw: dict) -> bool:
    """Return whether a configuration is quick to run."""
    from planned import jobs

    from langneurons.config import build

    config = build(raw)
    return len(jobs(config)) <= MOST_JOBS and len(config.models) == 1
