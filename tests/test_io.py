"""Result files: whole or absent, and read back as they were written."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from langneurons.base import io
from langneurons.base.io import DamagedFile

METADATA = {"lang": "hi", "name": "हिन्दी", "nested": {"b": [1, 2.5, None], "a": True}}


# Atomic writing -----------------------------------------------------------------------------------


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with io.atomic(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent and not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error):
        with io.atomic(path) as temporary:
            temporary.write_text("half")
            raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_killed_job_leaves_no_half_file(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from langneurons.base.io import atomic\n"
        "with atomic(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "a.parquet"
    done = subprocess.run([sys.executable, "-c", program, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    # What is left is hidden and of no type that a rule reads.
    assert all(name.startswith(".") and name.endswith(".tmp") for name in os.listdir(tmp_path))


def test_permissions_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        io.write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    frame, arrays = pd.DataFrame({"a": [1]}), {"a": np.arange(3)}
    for name, write, value in (
        ("a.parquet", io.write_parquet, frame),
        ("a.safetensors", io.write_tensors, arrays),
    ):
        write(tmp_path / name, value, {"old": 1})
        before = (tmp_path / name).read_bytes()
        with pytest.raises(TypeError):
            write(tmp_path / name, value, {"new": object()})
        assert (tmp_path / name).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "a.safetensors"]


# Parquet ------------------------------------------------------------------------------------------


def test_frames_come_back_with_types_and_metadata(tmp_path):
    frame = pd.DataFrame(
        {
            "lang": ["en", "हिन्दी", ""],
            "layer": np.array([0, 1, 2], np.int32),
            "tokens": np.array([1, 2**40, -3]),
            "nll": [0.1, np.nan, 1e300],
            "scored": [True, False, True],
        },
        index=[7, 8, 9],
    )
    # A folder name that looks like a partition adds no column.
    path = tmp_path / "model=x" / "a.parquet"
    io.write_parquet(path, frame, METADATA)
    found, metadata = io.read_parquet(path)
    pd.testing.assert_frame_equal(found, frame.reset_index(drop=True), check_exact=True)
    assert metadata == METADATA


def test_empty_frames_keep_their_columns(tmp_path):
    frame = pd.DataFrame({"lang": pd.Series([], dtype=str), "layer": np.zeros(0, np.int32)})
    io.write_parquet(tmp_path / "a", frame, {})
    found, metadata = io.read_parquet(tmp_path / "a")
    assert len(found) == 0 and list(found) == ["lang", "layer"] and metadata == {}
    assert found["layer"].dtype == np.int32


def test_equal_results_are_equal_files(tmp_path):
    frame, arrays = pd.DataFrame({"a": [1, 2]}), {"b": np.arange(3), "a": np.eye(2)}
    backwards = dict(reversed(METADATA.items()))
    io.write_parquet(tmp_path / "1", frame, METADATA)
    io.write_parquet(tmp_path / "2", frame, backwards)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    io.write_tensors(tmp_path / "3", arrays, METADATA)
    io.write_tensors(tmp_path / "4", dict(reversed(arrays.items())), METADATA)
    assert io.read_tensors(tmp_path / "3")[1] == io.read_tensors(tmp_path / "4")[1] == METADATA


# Tensors ------------------------------------------------------------------------------------------


def test_arrays_come_back_with_types_shapes_and_metadata(tmp_path):
    arrays = {
        "int32": np.arange(6, dtype=np.int32).reshape(2, 3),
        "int64": np.array([[2**62]]),
        "float64": np.array([np.pi, np.inf]),
        "float32": np.float32([1.5]),
        "bool": np.array([True, False]),
        "uint8": np.zeros((0, 4), np.uint8),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "scalar": np.array(3.0),
    }
    io.write_tensors(tmp_path / "a", arrays, METADATA)
    found, metadata = io.read_tensors(tmp_path / "a")
    assert set(found) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array, strict=True)
    assert metadata == io.read_header(tmp_path / "a") == METADATA


# Damaged and foreign files ------------------------------------------------------------------------


def whole(path, kind):
    frame, arrays = pd.DataFrame({"a": range(1000)}), {"a": np.arange(1000)}
    {
        "parquet": lambda: io.write_parquet(path, frame, METADATA),
        "tensors": lambda: io.write_tensors(path, arrays, METADATA),
        "json": lambda: io.write_json(path, METADATA),
    }[kind]()


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "missing"])
@pytest.mark.parametrize("kind", ["parquet", "tensors", "json"])
def test_damaged_files_are_named_with_the_way_out(tmp_path, kind, damage):
    path = tmp_path / "results" / "a file"
    whole(path, kind)
    good = path.read_bytes()
    read = getattr(io, f"read_{kind}")
    read(path)
    bad = {"truncated": good[: len(good) // 2], "empty": b"", "garbage": b"\xff" * len(good)}
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(bad[damage])
    with pytest.raises(DamagedFile, match=r"a file: cannot be used .* rm '.*a file' && snakemake"):
        read(path)


def test_files_of_others_are_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a")
    with pytest.raises(DamagedFile, match="no langneurons metadata"):
        io.read_parquet(tmp_path / "a")
    save_file({"a": np.arange(3)}, tmp_path / "b", metadata={"format": "pt"})
    with pytest.raises(DamagedFile, match="b: cannot be used"):
        io.read_tensors(tmp_path / "b")


# JSON ---------------------------------------------------------------------------------------------


def test_json_is_sorted_and_readable(tmp_path):
    io.write_json(tmp_path / "a", METADATA)
    text = (tmp_path / "a").read_text(encoding="utf-8")
    assert "हिन्दी" in text and text.index('"lang"') < text.index('"name"') and text[-1] == "\n"
    assert io.read_json(tmp_path / "a") == METADATA


def test_jsonl_round_trip_and_the_line_of_a_mistake(tmp_path):
    rows = [{"text": "a\nb\u2028c"}, {"text": "हिन्दी"}]
    io.write_jsonl(tmp_path / "a", rows)
    assert io.read_jsonl(tmp_path / "a") == rows
    with (tmp_path / "a").open("a") as file:
        file.write("\n" + json.dumps(rows[0]) + "\n{'text': 1}\n")
    with pytest.raises(DamagedFile, match="a: cannot be used .line 5 is not JSON"):
        io.read_jsonl(tmp_path / "a")


def test_equal_tensors_and_metadata_give_equal_bytes(tmp_path):
    metadata = {key: [key, 1] for key in "qwertzuiop"}
    for name in "ab":
        io.write_tensors(tmp_path / name, {"x": np.arange(3), "y": np.eye(2)}, metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_nobody_is_told_to_delete_a_file_that_no_rule_makes(tmp_path):
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(DamagedFile, match="mine.json: cannot be used") as caught:
        io.read_json(tmp_path / "mine.json")
    assert "rm " not in str(caught.value)
