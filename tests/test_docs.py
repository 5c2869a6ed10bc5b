"""What the documentation shows is what the code does."""

import json
import re
from pathlib import Path

import pytest
from inprocess import planned

from langneurons.base.yaml import parse_yaml
from langneurons.cli import main
from langneurons.config import build
from langneurons.models.families import ADAPTERS

ROOT = Path(__file__).parent.parent
ADDING = (ROOT / "docs/adding.md").read_text(encoding="utf-8")
OWN = (ROOT / "docs/own_model.md").read_text(encoding="utf-8")
SIZE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 100}


def blocks(text):
    """Return the YAML blocks of a page."""
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def test_the_families_of_the_page_are_those_of_the_table():
    table = re.search(r"<!-- families -->(.*?)<!-- /families -->", ADDING, re.DOTALL).group(1)
    gated, plain = re.findall(r"^\| (?:gated|plain).*\| (.*) \|$", table, re.M)
    shown = [re.findall(r"`([a-z0-9_]+)`", line) for line in (gated, plain)]
    gates = {name: one.gate is not None for name, one in ADAPTERS.items()}
    assert shown[0] == sorted(name for name, gate in gates.items() if gate)
    assert shown[1] == sorted(name for name, gate in gates.items() if not gate)


def test_the_entries_of_a_model_are_legal():
    section = ADDING.split("## A model\n")[1].split("\n## ")[0]
    (block,) = blocks(section)
    raw = parse_yaml(blocks(OWN)[0]) | parse_yaml(block)
    kinds = {entry.source.kind for entry in build(raw).models.values()}
    assert kinds == {"hub", "local", "gguf"}


def test_ten_lines_are_a_whole_run(tmp_path, monkeypatch, capsys):
    (block,) = blocks(OWN)
    assert len(block.splitlines()) == 10
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/mine").mkdir(parents=True)
    (tmp_path / "models/mine/config.json").write_text(json.dumps(SIZE))
    (tmp_path / "mine.yaml").write_text(block)
    rules = [job.rule.name for job in planned(tmp_path, tmp_path / "mine.yaml")]
    assert rules.count("collect_statistics") == 4 and rules.count("select_neurons") == 2
    assert rules.count("measure_perplexity") == 2 and rules[-1] == "write_report"
    assert main(["plan", "mine.yaml"]) == 0
    assert "collect_statistics" in capsys.readouterr().out


@pytest.mark.parametrize(
    "key, value",
    [
        ("tasks", {"xnli": {"source": {"kind": "mini"}, "languages": ["vi", "zh"]}}),
        ("corpus", {"source": {"kind": "jsonl", "path": "text/{lang}.jsonl"}}),
    ],
)
def test_the_next_steps_are_legal(key, value):
    build(parse_yaml(blocks(OWN)[0]) | {key: value})


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), target
