"""Every intermediate file, damaged or foreign in every way that fits it, is refused by its reader.

The message names the file and the reason, and ends with the command that rebuilds it.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from langneurons.activations.merging import merge
from langneurons.activations.statistics import Mismatch, Statistics
from langneurons.base.io import (
    DamagedFile,
    read_json,
    read_jsonl,
    read_parquet,
    read_tensors,
    write_json,
    write_parquet,
    write_tensors,
)
from langneurons.data.corpus import Corpus
from langneurons.evaluation.classification import add_head
from langneurons.jobs.common import read_statistics, read_table
from langneurons.models.language_model import LanguageModel, load
from langneurons.models.settings import ModelEntry
from langneurons.reporting.records import evaluation_files, matrix_files
from langneurons.training.lora import load_adapter

REFUSED = (DamagedFile, Mismatch)


# Damage that any file can take.
def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def empty(path):
    path.write_bytes(b"")


def another_format(path):
    path.write_text("<html>404: not found</html>\n")


def absent(path):
    path.unlink()


def header(**changes):
    """Return a damage that rewrites keys of the metadata, arrays untouched."""

    def rewrite(path):
        if path.suffix == ".parquet":
            frame, metadata = read_parquet(path)
            write_parquet(path, frame, metadata | changes)
        else:
            arrays, metadata = read_tensors(path)
            write_tensors(path, arrays, metadata | changes)

    return rewrite


def without(key):
    """Return a damage that takes one array or column away."""

    def rewrite(path):
        if path.suffix == ".parquet":
            frame, metadata = read_parquet(path)
            write_parquet(path, frame.drop(columns=key), metadata)
        else:
            arrays, metadata = read_tensors(path)
            del arrays[key]
            write_tensors(path, arrays, metadata)

    return rewrite


def array(key, value):
    """Return a damage that puts a value into the first cell of an array."""

    def rewrite(path):
        arrays, metadata = read_tensors(path)
        arrays[key] = arrays[key].copy()
        arrays[key].flat[0] = value
        write_tensors(path, arrays, metadata)

    return rewrite


def cell(column, value):
    """Return a damage that puts a value into the first row of a column."""

    def rewrite(path):
        frame, metadata = read_parquet(path)
        frame[column] = frame[column].astype(type(value))
        frame.loc[0, column] = value
        write_parquet(path, frame, metadata)

    return rewrite


def no_rows(path):
    frame, metadata = read_parquet(path)
    write_parquet(path, frame[:0], metadata)


def foreign_metadata(path):
    """What another program would write: the same rows, nothing of this project."""
    read_parquet(path)[0].to_parquet(path)


def twice(path):
    frame, metadata = read_parquet(path)
    write_parquet(path, frame.iloc[[0, *range(len(frame))]], metadata)


def not_a_number(path):
    state = load_file(path)
    first = sorted(state)[0]
    state[first] = torch.full_like(state[first], torch.nan)
    save_file(state, path)


def a_tensor_less(path):
    state = load_file(path)
    del state[sorted(state)[0]]
    save_file(state, path)


def another_base(path):
    config = path.parent / "adapter_config.json"
    write_json(config, read_json(config) | {"revision": "0" * 40})


def cut_line(path):
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")


ANY = (truncated, empty, another_format, absent)
OTHER = {"revision": "0" * 40}
STATISTICS = (
    *ANY,
    header(**OTHER),
    header(model="another/model"),
    header(dtype="bfloat16"),
    header(quantization="nf4"),
    header(lang="zh"),
    header(schema=0),
    header(tokens=1),
    header(n_layers=3),
    without("gate.positive"),
    without("act.extremes"),
    without("act.sum"),
    array("act.extremes", np.nan),
    array("gate.extremes", np.inf),
)
CASES = {
    "results/tiny/corpora/en.safetensors": (
        *ANY,
        header(tokenizer_hash="another"),
        header(lang="vi"),
        without("identification.tokens"),
        without("heldout.scored"),
        array("identification.tokens", -5),
        array("identification.lengths", 99999),
        array("heldout.document", 99999),
    ),
    "results/tiny/shards/en/0.safetensors": (*STATISTICS, header(blocks=[3, 9])),
    "results/tiny/activations/en.safetensors": (*STATISTICS, header(tokenizer_hash="another")),
    "results/tiny/neurons/{three}/lape.parquet": (
        *ANY,
        header(**OTHER),
        header(model="another/model"),
        header(languages=["vi", "hi", "en"]),
        header(languages=["en", "zh"]),
        header(n_layers=1),
        without("neuron"),
        cell("score", np.nan),
        cell("layer", 99),
        cell("neuron", -1),
        cell("lang", "sw"),
        foreign_metadata,
        twice,
    ),
    "results/tiny/perplexity/{variant}/{three}/lape.parquet": (
        *ANY,
        header(model="other"),
        header(selection="prob"),
        header(interventions=["zero", "p90"]),
        without("intervention"),
        without("nll"),
        cell("nll", np.nan),
        cell("nll", np.inf),
        foreign_metadata,
        no_rows,
    ),
    "results/tiny/evaluation/{variant}/base/xcopa/vi.parquet": (
        *ANY,
        header(lang="hi"),
        header(task="xquad"),
        header(adapter="other"),
        without("accuracy"),
        without("item"),
        cell("accuracy", np.nan),
        foreign_metadata,
        no_rows,
    ),
    "results/tiny/adapters/{variant}/{adapter}/adapter_model.safetensors": (
        *ANY,
        another_base,
        not_a_number,
        a_tensor_less,
    ),
    "resources/tasks/{variant}/xcopa/vi.jsonl": (another_format, cut_line),
    "resources/models/tiny/manifest.json": ANY,
    "tiny-model/model.safetensors": ANY,
}
NUMBERED = [(path, number) for path, damages in CASES.items() for number in range(len(damages))]


def loaded(checkout, root) -> LanguageModel:
    entry = ModelEntry(**checkout.config["models"]["tiny"])
    return load(entry, root / "resources/models/tiny/manifest.json")


@pytest.fixture(scope="module")
def model(checkout):
    return loaded(checkout, checkout.path)


def found(checkout, pattern: str) -> Path:
    """Return the first file of the run that fits a pattern with {names}."""
    matches = sorted(checkout.path.glob(re.sub(r"{\w+}", "*", pattern)))
    assert matches, pattern
    return matches[0]


def read(path: Path, root: Path, checkout, model: LanguageModel) -> None:
    """Read a file as the jobs that take it do."""
    stage = (*path.relative_to(root).parts, "")[2]
    if stage == "corpora":
        Corpus.read(path, lang=path.stem, tokenizer_hash=model.tokenizer_hash)
    elif stage == "shards":
        others = sorted((checkout.path / path.relative_to(root)).parent.glob("*.safetensors"))
        rest = [one for one in others if one.name != path.name]
        merge(Statistics.read(one, lang=path.parent.name) for one in (path, *rest))
    elif stage == "activations":
        read_statistics([str(path)], model)
    elif stage == "neurons":
        read_table(str(path), model)
    elif stage == "perplexity":
        list(matrix_files([str(path)], "perplexity"))
    elif stage == "evaluation":
        evaluation_files([str(path)])
    elif stage == "adapters":
        own = loaded(checkout, checkout.path)
        add_head(own, 3)
        load_adapter(own.model, path, own.identity)
    elif path.suffix == ".jsonl":
        read_jsonl(path)
    else:
        loaded(checkout, root)


@pytest.mark.parametrize(("pattern", "number"), NUMBERED)
def test_refused_with_the_reason_and_the_way_out(
    checkout, tmp_path, monkeypatch, model, pattern, number
):
    # As in jobs; PEFT would ask the hub about the base model.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = found(checkout, pattern)
    for folder in {source.parent, checkout.path / "resources/models", checkout.path / "tiny-model"}:
        shutil.copytree(folder, tmp_path / folder.relative_to(checkout.path), dirs_exist_ok=True)
    manifest = tmp_path / "resources/models/tiny/manifest.json"
    write_json(manifest, read_json(manifest) | {"path": str(tmp_path / "tiny-model")})
    path = tmp_path / source.relative_to(checkout.path)
    read(path, tmp_path, checkout, model)
    CASES[pattern][number](path)
    with pytest.raises(REFUSED) as refused:
        read(path, tmp_path, checkout, model)
    text = str(refused.value)
    assert "snakemake" in text, text
    assert path.name in text or path.parent.name in text, text


def test_how_many_were_tried():
    assert len(NUMBERED) >= 100
