"""The store of finished parts: found by what they are, refused when damaged, pruned by age."""

import logging
import os

import pandas as pd
import pytest

from langneurons.base.errors import InputError
from langneurons.base.io import write_parquet
from langneurons.base.store import SideStore, prune
from langneurons.cli import main

KEY = {"model": {"model": "m", "dtype": "float32"}, "tokens": None, "levels": (0.5, 0.9)}
FRAME = pd.DataFrame({"document": ["a", "b"], "nll": [0.25, 1 / 3]})


@pytest.fixture
def store(tmp_path):
    return SideStore(tmp_path / ".work", "perplexity")


def test_a_part_is_found_by_its_key_in_any_order(store):
    assert store.get(KEY) is None
    assert not store.root.exists()
    store.put(KEY, FRAME)
    found = SideStore(store.root.parent, "perplexity").get(dict(reversed(KEY.items())))
    pd.testing.assert_frame_equal(found, FRAME, check_exact=True)


@pytest.mark.parametrize(
    "change", [{"tokens": 0}, {"tokens": "None"}, {"model": {}}, {"more": 1}, {"levels": (0.5,)}]
)
def test_another_key_is_another_part(store, change):
    store.put(KEY, FRAME)
    assert store.get(KEY | change) is None
    store.put(KEY | change, FRAME[:1])
    assert len(store.get(KEY)) == 2 and len(store.get(KEY | change)) == 1


def test_stages_do_not_share_parts(store):
    store.put(KEY, FRAME)
    assert SideStore(store.root.parent, "evaluation").get(KEY) is None


def test_a_damaged_part_is_missing_with_a_warning(store, caplog):
    store.put(KEY, FRAME)
    path = store.path(KEY)
    path.write_bytes(path.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING):
        assert store.get(KEY) is None
    assert "part computed again" in caplog.text and path.name in caplog.text
    store.put(KEY, FRAME)
    assert store.get(KEY) is not None


def test_a_part_that_says_it_is_another_is_not_taken(store):
    write_parquet(store.path(KEY), FRAME, KEY | {"tokens": 5})
    assert store.get(KEY) is None


def test_pruning_deletes_the_least_recently_used(store):
    keys = [{"part": i} for i in range(4)]
    for age, key in enumerate(keys):
        store.put(key, FRAME)
        os.utime(store.path(key), (age, age))
    size = store.path(keys[0]).stat().st_size
    store.get(keys[0])
    count, freed = prune(store.root.parent, 2.5 * size / 2**20)
    assert (count, freed) == (2, 2 * size)
    assert [store.get(key) is not None for key in keys] == [True, False, False, True]
    assert prune(store.root.parent, 1000) == (0, 0)
    assert prune(store.root.parent, 0)[0] == 2
    assert store.get(keys[0]) is None


def test_pruning_from_the_command_line(store, capsys, tmp_path):
    store.put({"a": 1}, pd.DataFrame({"x": [1.0]}))
    assert main(["prune", str(store.root.parent), "--max-mb", "0"]) == 0
    assert "1 files" in capsys.readouterr().out
    assert store.get({"a": 1}) is None


def test_a_folder_that_is_no_store_is_left_alone(tmp_path, capsys):
    kept = tmp_path / "results" / "table.parquet"
    kept.parent.mkdir()
    kept.write_bytes(b"mine")
    with pytest.raises(InputError, match="is not a store of finished parts"):
        prune(kept.parent, 0)
    assert main(["prune", str(kept.parent), "--max-mb", "0"]) == 1
    assert "called .work" in capsys.readouterr().err
    assert kept.read_bytes() == b"mine"
