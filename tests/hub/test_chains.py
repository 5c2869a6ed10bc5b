"""A chain of each paper, from the hub to its tables, on one tiny model.

Models, data sets, revisions, definitions, protocols are as shipped; which languages, tasks and
interventions are kept, and the sizes, are said here.
"""

import pandas as pd
import pytest
import yaml
from hub import shipped
from inprocess import run
from test_workflow import Checkout

PAPERS = shipped.ROOT / "config" / "papers"
SIZES = {
    "corpus": {"tokens": 1500, "heldout_tokens": 600, "heldout_fraction": 0.3},
    "runtime": {"gpu": 0, "threads": 1, "mem_mb": 2000, "batch_tokens": 4096},
    "results": {"bootstrap": 100},
}
# What is kept of each paper: the model, languages by set, and of each block the entries.
KEPT = {
    "mondal2025": {
        "protocol": "corrected",
        "models": ["mistral-nemo-12b"],
        "language_sets": {"set_xnli": ["en", "vi"]},
        "selections": ["lape"],
        "interventions": ["zero", "mean"],
        "tasks": {"xnli_head": ["vi"]},
        "finetunings": {"xnli": ["target"]},
    },
    "gurgurov2025": {
        "protocol": "corrected",
        "models": ["aya-expanse-8b"],
        "language_sets": {"all": ["mt", "de"]},
        "selections": ["lape_5"],
        "interventions": ["zero", "activate"],
        "tasks": {"belebele": ["mt"]},
        "finetunings": {},
    },
    "rahmanisa2025": {
        "protocol": "paper",
        "models": ["qwen-2.5-0.5b"],
        "language_sets": {"all": ["vi", "zh"]},
        "selections": ["lape"],
        "interventions": ["p_max"],
        "tasks": {"include": ["vi"]},
        "finetunings": {},
    },
}


def reduced(paper: str) -> dict:
    """Return a shipped configuration with what is kept of it."""
    raw, kept = yaml.safe_load((PAPERS / f"{paper}.yaml").read_text(encoding="utf-8")), KEPT[paper]
    raw["name"] = f"{paper}_chain"
    for block in ("models", "selections", "interventions", "tasks", "finetunings"):
        raw[block] = {name: one for name, one in raw.get(block, {}).items() if name in kept[block]}
    raw["language_sets"] = kept["language_sets"]
    (langs,) = kept["language_sets"].values()
    names = {"interventions": kept["interventions"], "selections": kept["selections"]}
    for one in raw["models"].values():
        one.pop("language_sets", None)
    for one in raw["selections"].values():
        one.pop("language_sets", None)
    blocks = [raw.get("perplexity"), raw.get("lss"), *raw["tasks"].values()]
    for block in filter(None, [*blocks, *raw["finetunings"].values()]):
        for key, some in names.items():
            if key in block:
                block[key] = [name for name in block[key] if name in some]
                if not block[key]:
                    del block[key]
        if isinstance(block.get("language_sets"), list):
            block["language_sets"] = list(kept["language_sets"])
        if isinstance(block.get("targets"), list):
            block["targets"] = [lang for lang in block["targets"] if lang in langs]
        if "bases" in block:
            block["bases"] = [lang for lang in block["bases"] if lang in langs]
    for name, some in kept["tasks"].items():
        raw["tasks"][name] |= {"languages": some, "limit": 4}
    for name, some in kept["finetunings"].items():
        one = raw["finetunings"][name]
        one |= {"neurons": some, "rows": [0, 0.2]}
        one["training"] |= {"max_steps": 2, "log_steps": 1, "checkpoint_steps": 1}
        one.pop("paper", None)
    if isinstance(raw["protocols"], dict):
        raw["protocols"] = {kept["protocol"]: raw["protocols"][kept["protocol"]]}
    else:
        raw["protocols"] = [kept["protocol"]]
    for key in ("forcing", "fallback", "lens"):
        raw.pop(key, None)
    if "lss" in raw:
        raw["lss"]["limit"] = 3
    if raw.get("perplexity"):
        raw["perplexity"]["tokens"] = 300
    raw["results"] = {}
    raw["statistics"]["shards"] = 1
    for key in ("source", "heldout_source"):
        source = raw["corpus"].get(key, {})
        if source.get("seed") is not None:
            source |= {"characters": 30000, "buffer": 50}
        if "codes" in source:
            source["codes"] = {lang: source["codes"][lang] for lang in langs}
    for block, sizes in SIZES.items():
        raw[block] |= sizes
    if "heldout_source" in raw["corpus"]:
        del raw["corpus"]["heldout_fraction"]
    raw["corpus"] |= {key: min(raw["corpus"].get(key, 256), 256) for key in ("block_size",)}
    raw["corpus"] |= {"heldout_block_size": 128}
    return raw


# A process for each of their jobs would show nothing that the other chain does not show.
IN_THIS_PROCESS = ("gurgurov2025", "rahmanisa2025")


@pytest.mark.parametrize("paper", KEPT)
def test_a_chain_of_each_paper_ends_in_its_tables(hub, tmp_path, paper):
    shipped.fill(hub)
    checkout = Checkout(tmp_path)
    checkout.config = reduced(paper)
    checkout.save()
    if paper in IN_THIS_PROCESS:
        run(tmp_path, tmp_path / "tiny.yaml", ("tables",))
    else:
        done = checkout.run("tables", "-c2", "--configfile", "tiny.yaml", hub=True)
        # Of the page, which nobody asked for, nothing is said.
        assert "finished. What it was asked for is there: tables." in done.stderr
    name = checkout.config["name"]
    tables = tmp_path / "results" / "tables" / name
    sources = pd.read_csv(tables / "sources.csv")
    commits = sources["revision"].str.fullmatch(r"[0-9a-f]{40}( \(newest when fetched\))?")
    assert commits.all() and set(sources["what"]) >= {"model", "text", "task"}
    corpora = pd.read_csv(tables / "corpora.csv")
    expected = {"mondal2025": "block", "gurgurov2025": "block"}
    expected["rahmanisa2025"] = "none (the tokenizer has none)"
    assert set(corpora["bos"]) == {expected[paper]}
    # Everything is there: without the hub, nothing is to be done.
    hub.repositories, kept = {}, hub.repositories
    again = checkout.run("tables", "-n", "--configfile", "tiny.yaml", hub=True)
    hub.repositories = kept
    assert "Nothing to be done" in again.stdout + again.stderr
