"""Selections that read other selections, or a file, in the graph.

The statistics are written beforehand, so that the graph begins there and no model runs.
"""

import json
import os

import pandas as pd
import pytest
import torch
from test_selection import from_values, gates
from test_workflow import CONFIG, Checkout

from langneurons.activations.statistics import IDENTITY, SCHEMA
from langneurons.selection.table import NeuronTable

NAMES = ("lape", "ap", "both", "control", "mask")
FILES = [f"results/tiny/neurons/en-vi/{name}.parquet" for name in NAMES]
TABLES = ["--", *FILES]
SELECTIONS = {
    "control": {"method": "random", "like": "both", "match": "none"},
    "both": {"method": "combined", "selections": ["lape", "ap"]},
    "ap": {"method": "average_precision", "like": "lape"},
    "lape": {"method": "lape", "rate": 0.4, "filter_level": 0.5, "assign_level": 0.5},
    "mask": {"method": "published", "path": "masks/{model}.pth", "languages": ["vi", "en", "zh"]},
}


def write_mask(checkout: Checkout, first: int) -> None:
    path = checkout.path / "masks/tiny.pth"
    path.parent.mkdir(exist_ok=True)
    mask = [[torch.tensor([index]) for index in (first + k, k, 11)] for k in range(3)]
    torch.save(mask, path)


def selected(checkout: Checkout) -> dict[str, NeuronTable]:
    return {
        name: NeuronTable.from_parquet(checkout.path / path)
        for name, path in zip(NAMES, FILES, strict=True)
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("selections"))
    (checkout.path / "tiny-model").mkdir()
    (checkout.path / "tiny-model/config.json").write_text("{}")
    for lang, like in (("en", "en"), ("vi", "fr")):
        one = from_values(lang, gates(like, 4, 100))
        one.header |= {key: "same" for key in IDENTITY if key not in one.header}
        one.header |= {"schema": SCHEMA, "blocks": [0, 1]}
        path = checkout.path / f"results/tiny/activations/{lang}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        one.write(path)
    write_mask(checkout, 2)
    keys = ("name", "models", "corpus")
    checkout.config = {key: CONFIG[key] for key in keys} | {
        "language_sets": {"pair": ["vi", "en"]},
        "statistics": {"document_means": ["act"]},
        "selections": SELECTIONS,
    }
    checkout.save()
    checkout.make(*TABLES)
    return checkout


@pytest.fixture
def edit(made):
    kept = json.loads(json.dumps(made.config))
    yield made
    made.config = kept
    made.save()
    write_mask(made, 2)


def places(table: NeuronTable, lang: str) -> set[tuple[int, int]]:
    own = table.frame[table.frame["lang"] == lang]
    return set(zip(own["layer"], own["neuron"], strict=True))


def test_each_selection_reads_those_that_it_names(made):
    tables = selected(made)
    largest = int(tables["lape"].counts().max())
    assert tables["ap"].counts().to_dict() == {"en": largest, "vi": largest}
    for lang in ("en", "vi"):
        both = places(tables["lape"], lang) & places(tables["ap"], lang)
        assert places(tables["both"], lang) == both and both
        assert not both & places(tables["control"], lang)
    assert tables["control"].counts().to_dict() == tables["both"].counts().to_dict()
    assert places(tables["mask"], "vi") == {(0, 2), (1, 0), (2, 11)}
    assert places(tables["mask"], "en") == {(0, 3), (1, 1), (2, 11)}
    pd.testing.assert_index_equal(
        tables["both"].frame.columns, pd.Index(["lang", "layer", "neuron", "score"])
    )


def test_nothing_is_left_to_do(made):
    assert made.planned(*TABLES) == {}


def test_an_edit_reruns_what_follows_from_it_and_nothing_else(edit):
    edit.config["selections"]["both"]["operation"] = "union"
    edit.save()
    assert edit.planned(*TABLES) == {"select_neurons": 2}
    edit.config["selections"]["both"]["operation"] = "intersection"
    edit.config["selections"]["lape"]["rate"] = 0.3
    edit.save()
    assert edit.planned(*TABLES) == {"select_neurons": 4}


def test_a_mask_reruns_by_its_content_alone(edit):
    path = edit.path / "masks/tiny.pth"
    os.utime(path)
    assert edit.planned(*TABLES) == {}
    # The same file elsewhere is the same selection.
    path.rename(edit.path / "moved.pth")
    edit.config["selections"]["mask"]["path"] = "moved.pth"
    edit.save()
    assert edit.planned(*TABLES) == {}
    edit.config["selections"]["mask"]["path"] = "masks/{model}.pth"
    edit.save()
    write_mask(edit, 9)
    assert edit.planned(*TABLES) == {"select_neurons": 1}
    edit.make(*TABLES)
    assert places(selected(edit)["mask"], "vi") == {(0, 9), (1, 0), (2, 11)}
    path.unlink()
    refused = edit.run("-n", "--configfile", "tiny.yaml", check=False)
    assert refused.returncode
    assert "selections.mask.path: 'masks/tiny.pth'" in refused.stdout + refused.stderr
