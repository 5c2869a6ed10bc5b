"""A whole run of a mixture of experts: statistics, neurons and experts, perplexity, tables."""

import json

import gguf
import numpy as np
import pandas as pd
import pytest
import torch
from inprocess import run
from test_workflow import CONFIG, save_tiny_model
from tiny import D_MLP, tiny_model
from transformers import AutoTokenizer

from langneurons.activations.statistics import Statistics
from langneurons.base.errors import ConfigError
from langneurons.config import build
from langneurons.jobs.estimates import Sizes
from langneurons.jobs.files import check_files
from langneurons.jobs.parameters import labels_of
from langneurons.jobs.sizes import known_sizes
from langneurons.jobs.stages.activations import COLLECT
from langneurons.reporting.cells import expert_files
from langneurons.reporting.kinds import KINDS, figures
from langneurons.selection.table import NeuronTable

E, OWN = 6, D_MLP // 6


def save_tiny_experts(folder):
    save_tiny_model(folder)
    words = len(AutoTokenizer.from_pretrained(folder))
    model = tiny_model("qwen3_moe", vocab_size=words, max_position_embeddings=2048)
    model.save_pretrained(folder)


def configured(**changes) -> dict:
    config = {key: CONFIG[key] for key in ("name", "models", "corpus")}
    config["corpus"] = config["corpus"] | {"tokens": 500}
    config["language_sets"] = {"three": ["en", "vi", "hi"]}
    config["statistics"] = {"sites": ["act"], "histograms": [], "batch_blocks": 4, "shards": 2}
    config["selections"] = {
        "lape": {"method": "lape", "rate": 0.1},
        "experts": {"method": "experts", "rate": 0.4, "filter_level": 0.5, "assign_level": 0.6},
        "random": {"method": "random", "like": "experts", "match": "frequency"},
    }
    config["interventions"] = {"zero": {"operation": "set", "value": 0}}
    config["perplexity"] = {"interventions": ["zero"], "selections": ["experts"], "tokens": 60}
    return config | changes


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_tiny_experts(folder / "tiny-model")
    (folder / "tiny.yaml").write_text(json.dumps(configured()))
    tables = (f"results/tables/tiny/{name}.csv" for name in ("experts", "perplexity"))
    return folder, run(folder, folder / "tiny.yaml", tuple(tables))


def test_statistics_to_tables(done, tmp_path):
    folder, rules = done
    assert {"merge_statistics", "select_neurons", "measure_perplexity"} <= set(rules)
    where = folder / "results/tiny"
    measured = {
        lang: Statistics.read(where / f"activations/{lang}.safetensors")
        for lang in ("en", "vi", "hi")
    }
    own = NeuronTable.from_parquet(where / "neurons/en-hi-vi/experts.parquet")
    assert (own.frame.groupby(["lang", "layer", "expert"]).size() == OWN).all()
    lape = NeuronTable.from_parquet(where / "neurons/en-hi-vi/lape.parquet").frame
    assert (lape["expert"] == lape["neuron"] // OWN).all() and len(lape)

    rows = pd.read_csv(folder / "results/tables/tiny/experts.csv")
    chosen = own.frame.drop_duplicates(["layer", "expert"])
    assert len(rows) == 3 * len(chosen) == 3 * round(0.4 * 2 * E)
    for row in rows.itertuples():
        one = measured[row.lang]
        assert row.tokens == one.expert_tokens()[row.layer, row.expert]
        assert np.isclose(row.frequency, row.tokens / one.tokens)
        assert np.isclose(row.weight, one.expert_weight()[row.layer, row.expert])
        given = own.frame[(own.frame["layer"] == row.layer) & (own.frame["expert"] == row.expert)]
        assert row.specific_to.split(", ") == sorted(given["lang"].unique())
        assert np.isclose(row.entropy, given["score"].iloc[0])
    counts = pd.read_csv(folder / "results/tables/tiny/neurons.csv")
    mine = counts[counts["selection"] == "experts"]
    assert (mine["neurons"] == OWN * mine["experts"]).all()
    changes = pd.read_csv(folder / "results/tables/tiny/perplexity.csv")
    assert len(changes) == 9 and (changes["nll_change"].abs() > 1e-6).all()
    config = build(configured())
    (drawn,) = (one for one in figures(config, "tiny") if one.kind == "experts")
    files = [str(folder / path) for path in expert_files(config, drawn.cell)]
    KINDS["experts"].draw(files, drawn.cell, labels_of(config), str(tmp_path / "drawn"))
    svg = (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    for row in own.frame.drop_duplicates(["lang", "layer", "expert"]).itertuples():
        assert f"{row.lang}, layer {row.layer}, expert {row.expert}: " in svg


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"models": {"quantization": "nf4", "dtype": "bfloat16"}}, "models.tiny.quantization: "),
        ({"finetunings": {"neurons": ["target"]}}, "finetunings.nli.neurons: models.tiny is a mix"),
        (
            {"finetunings": {"modules": ["up_proj"]}},
            "finetunings.nli.training.modules: 'up_proj': ",
        ),
    ],
)
def test_what_experts_cannot_be_is_refused_before_any_job(done, changes, said, monkeypatch):
    monkeypatch.chdir(done[0])
    config = configured()
    config["models"] = {"tiny": config["models"]["tiny"] | changes.get("models", {})}
    if "finetunings" in changes:
        asked = dict(changes["finetunings"])
        tuning = dict(CONFIG["finetunings"]["nli"]) | {"neurons": asked.pop("neurons", ["none"])}
        tuning["selections"] = ["experts"]
        if tuning["neurons"] == ["none"]:
            del tuning["targets"], tuning["selections"]
        tuning["training"] = tuning["training"] | asked
        config["finetunings"] = {"nli": tuning}
        config["tasks"] = {"xnli_head": CONFIG["tasks"]["xnli_head"] | {"selections": ["experts"]}}
    with pytest.raises(ConfigError, match=said):
        check_files(build(config), done[0])


def test_masks_of_another_width_and_gguf_files_are_refused_before_any_job(done, monkeypatch):
    monkeypatch.chdir(done[0])
    layers = [[torch.zeros(1, dtype=torch.int64)] * 2] * 3
    torch.save(layers, "mask.pth")
    mask = {"method": "published", "path": "mask.pth", "languages": ["en", "vi", "hi"]}
    config = configured()
    config["selections"]["mask"] = mask | {"neurons_per_layer": 64}
    with pytest.raises(ConfigError, match=f"mask.neurons_per_layer: 64, .* has {D_MLP} neurons"):
        check_files(build(config), done[0])
    writer = gguf.GGUFWriter("moe.gguf", "qwen3moe")
    writer.add_expert_count(8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    source = {"kind": "gguf", "path": "moe.gguf"}
    config = configured(models={"other": {"source": source, "dtype": "float32"}})
    with pytest.raises(ConfigError, match="models.other.source.path: .* experts in a GGUF file"):
        check_files(build(config), done[0])


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"mlp_only_layers": [1]}, "with mlp_only_layers: .1.: some of its layers"),
        ({"model_type": "mixtral"}, "'mixtral' .*is a mixture of experts"),
        ({"model_type": "lama"}, "'lama' has no family here; known: .*Nearest: llama"),
    ],
)
def test_models_that_cannot_be_read_are_refused_before_any_job(done, changes, said, tmp_path):
    given = json.loads((done[0] / "tiny-model/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(given | changes))
    source = {"kind": "local", "path": str(tmp_path)}
    with pytest.raises(ConfigError, match=f"models.tiny.source.path: .*{said}"):
        check_files(build(configured(models={"tiny": {"source": source}})), done[0])


def test_experts_of_a_dense_model_are_refused_before_any_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_tiny_model(tmp_path / "tiny-model")
    with pytest.raises(ConfigError, match="selections.experts: .* models.tiny has none"):
        check_files(build(configured()), tmp_path)


def test_the_plan_counts_active_experts_and_all_of_their_memory(tmp_path):
    source = {"kind": "hub", "repo": "Qwen/Qwen3-30B-A3B", "revision": "a" * 40}
    config = build(configured(models={"tiny": {"source": source, "dtype": "bfloat16"}}))
    sizes = Sizes(config, known_sizes(), tmp_path, "tiny", 1)
    assert (sizes.geometry.intermediate, sizes.geometry.experts) == (128 * 768, 128)
    dense = sizes.geometry.parameters / sizes.geometry.passed
    assert 9 < dense < 9.2
    device = sizes.assumed["device"]["tflops"] * 1e12 * sizes.assumed["utilisation"]["statistics"]
    assert sizes.seconds(1e6, 2, "statistics") == pytest.approx(1e6 * 2 * 3.35e9 / device)
    wide = 4 * 64 * 98_304 * 2  # a batch of 4 blocks, in bfloat16
    need = COLLECT.need(sizes)
    counts = sizes.neurons * 64 / 1e9
    assert need.gpu > 61 + counts + 5 * wide / 1e9
