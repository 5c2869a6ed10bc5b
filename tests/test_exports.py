"""What is exported does elsewhere what the plan does here, and the rest is refused in words."""

import ast
import copy
import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path

import gguf
import numpy as np
import pandas as pd
import peft
import pytest
import torch
from hub.server import WRITER
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_format import card_of
from tiny import D_MLP, HIDDEN, VOCAB_SIZE, tiny_model, tiny_tokenizer

import langneurons as ln
from langneurons.api.command import plans_of, read_units
from langneurons.api.export import SUFFIXES
from langneurons.base.digests import file_digest
from langneurons.base.errors import InputError
from langneurons.cli import main
from langneurons.exports import gguf_files
from langneurons.exports.lora import VLLM_RANKS, lora_of, vllm_rank
from langneurons.exports.steering import steering
from langneurons.exports.streams import stream_writes
from langneurons.interventions.apply import applied
from langneurons.interventions.factors import Factor
from langneurons.interventions.plan import Plan, Write
from langneurons.models.families import FAMILIES
from langneurons.sharing.adapters import CONFIG, NAME
from langneurons.sharing.card import CARD
from langneurons.sharing.check import described

ROOT = Path(__file__).parents[1]

IDENTITY = {"model": "owner/tiny", "revision": "7" * 40, "dtype": "float32", "quantization": "none"}
UNIT = np.full(HIDDEN, HIDDEN**-0.5)


def made(family="llama", **overrides):
    return ln.LanguageModel(tiny_model(family, **overrides), tiny_tokenizer(), IDENTITY)


@pytest.fixture(scope="module")
def model():
    return made()


@pytest.fixture(scope="module")
def prompts():
    drawn = torch.Generator().manual_seed(0)
    return torch.randint(3, VOCAB_SIZE, (100, 7), generator=drawn)


def wrote(layer, site, operation, index, value, **more):
    index = np.asarray(index, np.int64)
    value = np.broadcast_to(np.asarray(value, np.float64), index.shape).copy()
    return Write(layer, site, operation, index, value, **more)


def plan_of(*writes, name="a plan"):
    return Plan(name, list(writes))


def under(model, plan, ids):
    with torch.inference_mode(), applied(model, plan):
        return model.model(input_ids=ids).logits


def bare(model, ids):
    with torch.inference_mode():
        return model.model(input_ids=ids).logits


def neurons(model, units="neurons"):
    """Return two neurons, or all dimensions, of each of two languages in each of two layers."""
    rows = []
    for number, lang in enumerate(("aa", "bb")):
        for layer in range(model.n_layers):
            chosen = range(HIDDEN) if units == "dimensions" else (1 + number, 5 + layer)
            rows += [(lang, layer, one, 0.1 * (one + number + 1)) for one in chosen]
    metadata = {"languages": ["aa", "bb", "cc"], "n_layers": model.n_layers, "d_mlp": D_MLP}
    metadata |= {"model": "owner/tiny", "revision": "7" * 40, "method": "lape"}
    metadata |= {"parameters": json.dumps({"rate": 0.1})}
    metadata |= {"tokens": {"aa": 5, "bb": 6, "cc": 7}}
    if units == "dimensions":
        metadata |= {"units": units, "width": HIDDEN, "method": "diffmean"}
    frame = pd.DataFrame(rows, columns=["lang", "layer", "neuron", "score"])
    return ln.Neurons(frame.astype({"layer": np.int32, "neuron": np.int32}), metadata)


# LoRA ---------------------------------------------------------------------------------------------

FIVE = ("llama", "gemma3_text", "gpt2", "opt", "bloom")


def several_factors(d_mlp):
    """Return a plan of zeros at three sites and scales, of two layers with unequal numbers."""
    return plan_of(
        wrote(0, "act", "set", [1, 2, d_mlp - 1], 0.0),
        wrote(0, "gate", "set", [4], 0.0),
        wrote(0, "product", "set", [6], 0.0),
        wrote(1, "product", "scale", [3, 7], [2.0, -0.5]),
        wrote(1, "act", "scale", [7], 3.0),
    )


@pytest.mark.parametrize("family", FIVE)
def test_stock_peft_gives_the_logits_of_the_plan(family, prompts, tmp_path):
    model = made(family)
    plan = several_factors(model.d_mlp)
    expected = under(model, plan, prompts)
    found = ln.export(model, {"aa": plan}, tmp_path)["aa"]
    assert found.rank == 5 and found.path == tmp_path / "aa"
    with torch.inference_mode():
        stock = peft.PeftModel.from_pretrained(tiny_model(family), found.path)
        logits = stock(input_ids=prompts).logits
        merged = stock.merge_and_unload()(input_ids=prompts).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-5)
    assert (bare(model, prompts) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"qwen3_moe"}))
def test_every_family_has_a_lora_of_its_down_projections(family, prompts, tmp_path):
    model = made(family)
    plan = plan_of(wrote(1, "act", "set", [0, 2], 0.0))
    found = ln.export(model, {"aa": plan}, tmp_path)["aa"]
    config = json.loads((found.path / CONFIG).read_text())
    (module,) = config["target_modules"]
    assert model.model.get_submodule(module) is model.sites.down[1]
    assert module.endswith(FAMILIES[family].down)
    assert config["fan_in_fan_out"] == FAMILIES[family].transposed
    stock = peft.PeftModel.from_pretrained(tiny_model(family), found.path)
    with torch.inference_mode():
        logits = stock(input_ids=prompts[:4]).logits
    torch.testing.assert_close(logits, under(model, plan, prompts[:4]), rtol=0, atol=1e-5)


def test_the_files_are_a_by_hand_computed_lora(model, tmp_path):
    ln.export(model, {"aa": several_factors(D_MLP)}, tmp_path)
    arrays = load_file(tmp_path / "aa" / NAME)
    weight = model.sites.down[1].weight
    start = "base_model.model.model.layers.1.mlp.down_proj"
    a, b = arrays[f"{start}.lora_A.weight"], arrays[f"{start}.lora_B.weight"]
    assert a.shape == (5, D_MLP) and b.shape == (HIDDEN, 5)
    expected = torch.zeros(HIDDEN, D_MLP)
    expected[:, 3], expected[:, 7] = weight[:, 3], -2.5 * weight[:, 7]
    torch.testing.assert_close(b @ a, expected, rtol=1e-6, atol=0)
    config = json.loads((tmp_path / "aa" / CONFIG).read_text())
    assert config["r"] == config["lora_alpha"] == 5 and config["bias"] == "none"
    assert config["base_model_name_or_path"] == "owner/tiny" and config["revision"] == "7" * 40


def test_weights_of_bfloat16_stay_in_it_where_that_is_exact(prompts, tmp_path):
    half = tiny_model("llama").to(torch.bfloat16)
    model = ln.LanguageModel(copy.deepcopy(half).float(), tiny_tokenizer(), IDENTITY)
    zeros = plan_of(wrote(0, "act", "set", [1], 0.0))
    thirds = plan_of(wrote(0, "act", "scale", [1], 1 / 3))
    assert lora_of(zeros, model).dtype == torch.bfloat16
    assert lora_of(thirds, model).dtype == torch.float32
    ((_, a, b),) = lora_of(zeros, model).matrices()
    assert torch.equal((b.float() @ a.float())[:, 1], -model.sites.down[0].weight[:, 1])
    found = ln.export(model, {"aa": zeros}, tmp_path)["aa"]
    with torch.inference_mode():
        stock = peft.PeftModel.from_pretrained(copy.deepcopy(half).float(), found.path)
        logits = stock(input_ids=prompts).logits
    torch.testing.assert_close(logits, under(model, zeros, prompts), rtol=0, atol=1e-5)
    # The same file from a model that is loaded in its own format.
    as_it_is = ln.LanguageModel(half, tiny_tokenizer(), IDENTITY)
    ln.export(as_it_is, {"aa": zeros}, tmp_path / "own")
    assert (tmp_path / "own/aa" / NAME).read_bytes() == (found.path / NAME).read_bytes()


def test_equal_plans_give_equal_files_in_place_of_earlier_ones(model, tmp_path):
    plan = several_factors(D_MLP)
    for folder in ("one", "two", "two"):
        ln.export(model, {"aa": plan}, tmp_path / folder, neurons=neurons(model))
    names = {path.name for path in (tmp_path / "one/aa").iterdir()}
    assert names == {CARD, NAME, CONFIG}
    for name in names:
        one, two = (tmp_path / folder / "aa" / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_the_card_names_model_selection_and_plan(model, tmp_path):
    own = neurons(model)
    ln.export(model, {"bb": ln.plan(own, "bb", "set", 0)}, tmp_path, "lora", own, "cc0-1.0")
    card = card_of(tmp_path / "bb")
    header = card["langneurons"]
    assert (card["library_name"], card["base_model"]) == ("peft", "owner/tiny")
    assert (card["license"], card["language"]) == ("cc0-1.0", ["bb"])
    assert (header["kind"], header["method"], header["plan"]) == ("adapters", "lape", "set 0")
    assert header["parameters"] == {"rate": 0.1} and header["tokens"] == {"bb": 6}
    assert (header["neurons"], header["rank"]) == (4, 2)
    text = (tmp_path / "bb" / CARD).read_text()
    assert "4 neurons of the MLPs write by 0." in text and "--max-lora-rank 8" in text
    shown = described(tmp_path / "bb")
    assert "adapters, whole" in shown and "set 0, a LoRA of rank 2 on 2 layers" in shown


def test_ranks_of_vllm():
    assert [vllm_rank(one) for one in (1, 2, 109, 274, 426, 512, 513)] == [
        *(1, 8, 128, 320, 512, 512),
        None,
    ]
    assert list(VLLM_RANKS) == sorted(VLLM_RANKS)


def test_a_rank_above_what_vllm_takes_is_told(tmp_path, caplog):
    model = made(intermediate_size=600)
    plan = plan_of(wrote(0, "act", "set", range(513), 0.0))
    found = ln.export(model, {"aa": plan}, tmp_path)["aa"]
    assert found.rank == 513 and "rank 513 is above 512" in caplog.text
    caplog.clear()
    ln.export(model, {"aa": plan_of(wrote(0, "act", "set", range(512), 0.0))}, tmp_path)
    assert "above" not in caplog.text


FACTOR = Factor("layer_mean")
NO_LORA = {
    "set to a number": (wrote(0, "act", "set", [1], 0.5), "depends on the token.*Nearest: set 0"),
    "set at product": (wrote(0, "product", "set", [1], 0.5), "constant W_down v, which is a bias"),
    "add": (wrote(0, "act", "add", [1], 0.5), "add at site act is not a LoRA"),
    "at least": (wrote(0, "act", "at_least", [1], 0.0), "it is not linear"),
    "scale before": (wrote(0, "gate", "scale", [1], 2.0), "Scale at site act or product"),
    "some tokens": (wrote(0, "act", "set", [1], 0.0, tokens="prompt"), "prompt tokens only"),
    "factor": (wrote(0, "act", "set", [1], 1.0, factor=FACTOR), "layer_mean, which every sequence"),
    "residual": (wrote(0, "residual", "add", [1], 1.0), "export it to steer or control-vector"),
    "neuron": (wrote(0, "act", "set", [D_MLP], 0.0), "neuron 48 of a model with 48"),
    "layer": (wrote(2, "act", "set", [1], 0.0), "layer 2 of a model of 2"),
    "nothing": (wrote(0, "act", "scale", [1], 1.0), "changes nothing"),
}


@pytest.mark.parametrize("name", NO_LORA)
@pytest.mark.parametrize("to", ["lora", "gguf-lora"])
def test_what_is_not_a_lora_is_refused_before_anything_is_written(model, tmp_path, name, to):
    write, words = NO_LORA[name]
    good = plan_of(wrote(0, "act", "set", [1], 0.0))
    with pytest.raises(ValueError, match=f"(?s){words}"):
        ln.export(model, {"aa": good, "bb": plan_of(write)}, tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


def test_a_constant_of_an_ungated_model_is_a_bias():
    with pytest.raises(InputError, match="W_down v, which is a bias"):
        lora_of(plan_of(wrote(0, "act", "add", [1], 0.5)), made("opt"))


def test_models_with_an_adapter_or_packed_weights_are_refused(model):
    plan = plan_of(wrote(0, "act", "set", [1], 0.0))
    config = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    wrapped = model.tuned(peft.get_peft_model(tiny_model("llama"), config))
    with pytest.raises(InputError, match="has an adapter already"):
        lora_of(plan, wrapped)
    packed = made()
    down = packed.sites.down[0]
    down.weight = torch.nn.Parameter(torch.zeros(768, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(InputError, match="quantised.*quantization none"):
        lora_of(plan, packed)


def test_neurons_of_another_model_are_refused(model, tmp_path):
    plan = plan_of(wrote(0, "act", "set", [1], 0.0))
    for key, value in (("model", "owner/other"), ("revision", "8" * 40), ("d_mlp", 49)):
        other = neurons(model)
        other.metadata[key] = value
        with pytest.raises(InputError, match=f"neurons are of {key} .*load the"):
            ln.export(model, {"aa": plan}, tmp_path, neurons=other)
    unnamed = neurons(model)
    del unnamed.metadata["model"], unnamed.metadata["revision"]
    assert ln.export(model, {"aa": plan}, tmp_path, neurons=unnamed)


def test_files_that_are_there_are_left_alone(model, tmp_path):
    plan = plan_of(wrote(0, "act", "set", [1], 0.0))
    (tmp_path / "aa").mkdir()
    (tmp_path / "aa" / "notes.txt").write_text("mine")
    (tmp_path / "aa.gguf").write_text("mine")
    with pytest.raises(InputError, match="holds other files .notes.txt.; name a new one"):
        ln.export(model, {"aa": plan}, tmp_path)
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="file: it is a file; name a folder"):
            ln.export(model, {"aa": plan}, path)
    with pytest.raises(InputError, match="aa.gguf: it is there already; name a new folder"):
        ln.export(model, {"aa": plan}, tmp_path, "gguf-lora")
    assert (tmp_path / "aa.gguf").read_text() == "mine"
    for lang in ("../aa", "..", "", 'a"', "a b", "a\nb"):
        with pytest.raises(InputError, match="cannot be the name of a file"):
            ln.export(model, {lang: plan}, tmp_path)
    with pytest.raises(ValueError, match="'lorra' is not a known format.*Did you mean 'lora'"):
        ln.export(model, {"aa": plan}, tmp_path, "lorra")
    with pytest.raises(InputError, match="plans is empty"):
        ln.export(model, {}, tmp_path)


# As a shared folder -------------------------------------------------------------------------------


@pytest.fixture
def adapter(model, tmp_path):
    ln.export(model, {"aa": several_factors(D_MLP)}, tmp_path / "made", neurons=neurons(model))
    return tmp_path / "made" / "aa"


def rewritten(adapter, name, change):
    """Change an array of the adapter, and the digest in the card."""
    path = adapter / NAME
    old = file_digest(path, 64)
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    arrays = load_file(path)
    key = next(one for one in arrays if name in one)
    arrays[key] = change(arrays[key].clone()).contiguous()
    save_file(arrays, path, metadata=metadata)
    text = (adapter / CARD).read_text()
    (adapter / CARD).write_text(text.replace(old, file_digest(path, 64)))


def first_row(value):
    def change(array):
        array[0] = value
        return array

    return change


DAMAGED = {
    "lora_B": (first_row(float("nan")), "not finite"),
    "0.mlp.down_proj.lora_A": (first_row(1.0), "does not pick one neuron"),
    "1.mlp.down_proj.lora_A": (first_row(0.0), "it scales 6 neurons; the header says 7"),
    "lora_A": (lambda array: array[:, :-1], "has the shape .5, 47.; the header says .5, 48."),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_adapter_is_not_pushed(adapter, hub, name):
    change, words = DAMAGED[name]
    rewritten(adapter, name, change)
    with pytest.raises(InputError, match=words):
        described(adapter)


def test_a_changed_configuration_is_found(adapter):
    text = (adapter / CONFIG).read_text()
    (adapter / CONFIG).write_text(text.replace('"lora_alpha": 5', '"lora_alpha": 10'))
    with pytest.raises(InputError, match="its SHA-256 is"):
        described(adapter)
    (adapter / CONFIG).unlink()
    with pytest.raises(FileNotFoundError, match="adapter_config.json: there is no such file"):
        described(adapter)


def test_an_adapter_is_not_neurons(adapter, capsys):
    with pytest.raises(InputError, match="it holds adapters, not neurons"):
        ln.Neurons.from_pretrained(adapter)
    with pytest.raises(InputError, match="name the folder"):
        described(adapter / NAME)
    assert main(["compare", str(adapter), str(adapter)]) == 1
    assert "hold adapters, which are not compared" in capsys.readouterr().err


# GGUF ---------------------------------------------------------------------------------------------


def read(path):
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {one.name: np.array(one.data) for one in reader.tensors}


def test_a_gguf_lora_is_the_change_of_the_weights(model, tmp_path):
    plan = several_factors(D_MLP)
    found = ln.export(model, {"aa": plan}, tmp_path, "gguf-lora")["aa"]
    fields, tensors = read(found.path)
    assert (fields["general.type"], fields["general.architecture"]) == ("adapter", "llama")
    assert (fields["adapter.type"], fields["adapter.lora.alpha"]) == ("lora", found.rank)
    assert len(tensors) == 4
    scales = {0: {one: 0.0 for one in (1, 2, 4, 6, D_MLP - 1)}, 1: {3: 2.0, 7: -1.5}}
    for layer, factors in scales.items():
        a, b = (tensors[f"blk.{layer}.ffn_down.weight.lora_{half}"] for half in "ab")
        weight = model.sites.down[layer].weight.numpy()
        # llama.cpp multiplies by alpha / rank, where the rank is that of the tensor.
        changed = weight + (fields["adapter.lora.alpha"] / b.shape[1]) * (b @ a)
        for one in range(D_MLP):
            expected = weight[:, one] * factors.get(one, 1.0)
            np.testing.assert_allclose(changed[:, one], expected, rtol=1e-6, atol=1e-7)


def test_gguf_names_are_those_of_the_package():
    for family, kind in gguf_files.ARCHITECTURES.items():
        (arch,) = [one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == kind]
        assert gguf.MODEL_TENSOR.FFN_DOWN in gguf.MODEL_TENSORS[arch]
        model = made(family)
        names = {id(module): name for name, module in model.model.named_modules()}
        name = names[id(model.sites.down[1])].replace("model.language_model.", "model.")
        assert gguf.get_tensor_name_map(arch, 2).get_name(name) == "blk.1.ffn_down", family
    assert set(FAMILIES) - set(gguf_files.ARCHITECTURES) == {"opt", "qwen3_moe", "xglm"}
    with pytest.raises(InputError, match="'opt': no architecture of llama.cpp is known"):
        gguf_files.architecture(made("opt"))


def test_a_control_vector_holds_what_is_added_after_each_layer(model, tmp_path):
    plan = plan_of(wrote(1, "residual", "add", [0, 3], [0.5, -1.0]))
    plan.writes.append(wrote(1, "residual", "add", [3], 4.0))
    found = ln.export(model, {"aa": plan}, tmp_path, "control-vector")["aa"]
    fields, tensors = read(found.path)
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "llama"
    assert fields["controlvector.layer_count"] == 1
    expected = np.zeros(HIDDEN, np.float32)
    expected[[0, 3]] = 0.5, 3.0
    assert list(tensors) == ["direction.1"] and tensors["direction.1"].dtype == np.float32
    np.testing.assert_array_equal(tensors["direction.1"], expected)


NO_VECTOR = {
    "neurons": (wrote(1, "act", "set", [1], 0.0), "site act, and a steering vector"),
    "set": (wrote(1, "residual", "set", [1], 0.0), "set at site residual is not one vector"),
    "share": (wrote(1, "residual", "project_out", [1], 1.0, amount=0.5), "a share of 0.5"),
    "some tokens": (wrote(1, "residual", "add", [1], 1.0, tokens="generated"), "generated tokens"),
    "dimension": (wrote(1, "residual", "add", [HIDDEN], 1.0), "dimension 32 of a model with 32"),
    "nothing": (wrote(1, "residual", "add", [1], 0.0), "changes nothing"),
}


@pytest.mark.parametrize("name", NO_VECTOR)
@pytest.mark.parametrize("to", ["steer", "control-vector"])
def test_what_is_not_a_vector_is_refused(model, tmp_path, name, to):
    write, words = NO_VECTOR[name]
    with pytest.raises(ValueError, match=words):
        ln.export(model, {"aa": plan_of(write)}, tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


def test_llama_cpp_takes_less(model, tmp_path):
    first = plan_of(wrote(0, "residual", "add", [1], 1.0))
    with pytest.raises(InputError, match="adds no control vector there; leave the layer out"):
        ln.export(model, {"aa": first}, tmp_path, "control-vector")
    along = plan_of(wrote(1, "residual", "project_out", range(HIDDEN), UNIT))
    with pytest.raises(InputError, match="project_out depends on the token"):
        ln.export(model, {"aa": along}, tmp_path, "control-vector")
    last = plan_of(wrote(1, "residual", "add", [1], 1.0))
    with pytest.raises(InputError, match="no architecture of llama.cpp"):
        ln.export(made("xglm"), {"aa": last}, tmp_path, "control-vector")
    both = plan_of(*first.writes, wrote(0, "residual", "project_out", range(HIDDEN), UNIT))
    with pytest.raises(InputError, match="several operations in layer 0"):
        stream_writes(both, model.sites)


# The harness --------------------------------------------------------------------------------------


def stream_plan():
    drawn = np.random.default_rng(0).normal(size=HIDDEN)
    return plan_of(
        wrote(0, "residual", "add", range(HIDDEN), drawn),
        wrote(1, "residual", "project_out", range(HIDDEN), drawn / np.linalg.norm(drawn)),
    )


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "opt", "gemma3"])
def test_the_harness_steers_as_the_plan_does(family, prompts, tmp_path):
    steered = pytest.importorskip(
        "lm_eval.models.hf_steered",
        reason="the harness is optional: pip install --no-deps -r requirements-harness.txt",
    )
    model, plan = made(family), stream_plan()
    found = ln.export(model, {"aa": plan}, tmp_path, "steer")["aa"]
    tiny_model(family).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    lm = steered.SteeredModel(
        str(tmp_path / "model"), str(found.path), device="cpu", dtype="float32"
    )
    logits = lm.forward(input_ids=prompts).logits
    torch.testing.assert_close(logits, under(model, plan, prompts), rtol=0, atol=1e-5)
    assert (bare(model, prompts) - logits).abs().max() > 1e-2


def test_the_file_of_the_harness_holds_tensors_by_layer(model, tmp_path):
    plan = stream_plan()
    found = ln.export(model, {"aa": plan}, tmp_path, "steer")["aa"]
    entries = torch.load(found.path, weights_only=True)
    assert list(entries) == ["layers.0", "layers.1"]
    assert [one["action"] for one in entries.values()] == ["add", "clamp"]
    assert [one["steering_coefficient"] for one in entries.values()] == [1.0, 0.0]
    first = entries["layers.0"]["steering_vector"].numpy()
    np.testing.assert_array_equal(first, plan.writes[0].value.astype(np.float32))
    assert steering(stream_writes(plan, model.sites), model).keys() == entries.keys()


# nnsight ------------------------------------------------------------------------------------------


def every_operation():
    """Return a plan of each operation and site, out of the order of the forward pass."""
    drawn = np.random.default_rng(1)
    some = [1, 2, 7]
    values = [drawn.normal(size=3) for _ in range(5)]
    return plan_of(
        wrote(1, "residual", "project_out", range(HIDDEN), UNIT, amount=0.5),
        wrote(0, "gate", "at_least", some, values[0]),
        wrote(0, "act", "set", some, values[1]),
        wrote(0, "product", "scale", some, values[2]),
        wrote(1, "act", "at_most", some, values[3]),
        wrote(0, "residual", "add", range(HIDDEN), drawn.normal(size=HIDDEN)),
        wrote(0, "act", "scale", some, values[4]),
    )


def loaded(path, monkeypatch):
    """Return the script as a module; without nnsight its import is a name that is not used."""
    if importlib.util.find_spec("nnsight") is None:
        stand_in = types.ModuleType("nnsight")
        stand_in.TransformersModel = None
        monkeypatch.setitem(sys.modules, "nnsight", stand_in)
    spec = importlib.util.spec_from_file_location("script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_the_script_does_what_the_plan_does(family, prompts, tmp_path, monkeypatch):
    """Its writes are run by hooks that call its own function with the tensor at hand."""
    model, plan = made(family), every_operation()
    found = ln.export(model, {"aa": plan}, tmp_path, "nnsight")["aa"]
    script = loaded(found.path, monkeypatch)
    other, writes, reached = tiny_model(family), script.WRITES, []

    def run(write, tensor):
        place = types.SimpleNamespace(output=tensor, input=tensor)
        monkeypatch.setattr(script, "module", lambda _model, _path: place)
        monkeypatch.setattr(script, "WRITES", [write])
        script.steer(None)
        reached.append(write)

    for write in writes:
        module = other.get_submodule(write[0])
        if write[1] == "input":
            module.register_forward_pre_hook(lambda _m, given, one=write: run(one, given[0]))
        else:

            def after(_module, _given, output, one=write):
                run(one, output[0] if isinstance(output, tuple) else output)

            module.register_forward_hook(after)
    with torch.inference_mode():
        logits = other(input_ids=prompts).logits
    assert reached == writes  # the order of the forward pass
    torch.testing.assert_close(logits, under(model, plan, prompts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "opt", "gpt_neox"])
def test_nnsight_gives_the_logits_of_the_plan(family, prompts, tmp_path, monkeypatch):
    nnsight = pytest.importorskip("nnsight", reason="nnsight is not among the requirements")
    model, plan = made(family), every_operation()
    found = ln.export(model, {"aa": plan}, tmp_path, "nnsight")["aa"]
    script = loaded(found.path, monkeypatch)
    traced = nnsight.TransformersModel(
        tiny_model(family), tokenizer=tiny_tokenizer(), task="text-generation"
    )
    with torch.no_grad(), traced.trace(prompts):
        script.steer(traced)
        logits = traced.lm_head.output.save()
    torch.testing.assert_close(logits, under(model, plan, prompts), rtol=0, atol=1e-5)


def test_the_script_names_the_model_and_is_python(model, tmp_path):
    found = ln.export(model, {"aa": every_operation()}, tmp_path, "nnsight")["aa"]
    text = found.path.read_text()
    ast.parse(text)
    quoted = plan_of(*every_operation().writes, name='set 0"""\nraise SystemExit({}) # \\')
    strange = ln.export(model, {"aa": quoted}, tmp_path / "strange", "nnsight")["aa"]
    constants = [
        node.value
        for node in ast.walk(ast.parse(strange.path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert any(one.startswith(quoted.name) for one in constants)
    assert 'MODEL, REVISION = "owner/tiny", "' + "7" * 40 in text
    assert "model.lm_head.output.save()" in text
    limited = plan_of(wrote(0, "act", "set", [1], 0.0, tokens="prompt"))
    with pytest.raises(InputError, match="prompt tokens only, and the script acts on every token"):
        ln.export(model, {"aa": limited}, tmp_path / "no", "nnsight")
    with pytest.raises(InputError, match="changes nothing"):
        ln.export(model, {"aa": Plan("x")}, tmp_path / "no", "nnsight")


# The command --------------------------------------------------------------------------------------


def test_a_step_is_read_from_a_line(model):
    own = neurons(model)
    plans = plans_of(own, "all", "scale  0.5 site=product layers=1")
    assert list(plans) == ["aa", "bb"]  # cc has no neurons
    (write,) = plans["bb"].writes
    assert (write.layer, write.site, write.operation) == (1, "product", "scale")
    assert plans["bb"].name == "scale 0.5 site=product layers=1"
    assert plans_of(own, "bb,aa,bb", "set 0").keys() == {"aa", "bb"}
    for languages, text, words in (
        ("aa", "set", "expected an operation and a value"),
        ("aa", "set 0 site", "'site' is not NAME=VALUE"),
        ("aa", "set 0 layers=a-b", "layers are FIRST-LAST"),
        ("aa", "set 0 sight=act", "sight: unknown key"),
        ("aa", "sett 0", "'sett' is no operation"),
        ("dd", "set 0", "'dd' is not a known language"),
        ("cc", "set 0", "cc: it has no neurons"),
        (",", "set 0", "none named"),
    ):
        with pytest.raises(ValueError, match=words):
            plans_of(own, languages, text)


def test_directions_are_dimensions_after_each_layer(tmp_path):
    drawn = np.random.default_rng(0).normal(size=(2, HIDDEN)).astype(np.float32)
    after = ln.Directions({"aa": drawn}, "owner/tiny", "residual_out", "mean")
    after.save(tmp_path / "after")
    np.testing.assert_array_equal(read_units(tmp_path / "after").values("aa"), drawn)
    with pytest.raises(InputError, match="one is before layer 0"):
        ln.Directions({"aa": drawn}, "owner/tiny", "residual_in", "mean").dimensions()
    drawn[0] = 0.0
    before = ln.Directions({"aa": drawn}, "owner/tiny", "residual_in", "mean")
    values = before.dimensions().values("aa")
    np.testing.assert_array_equal(values[0], drawn[1])
    assert not values[1].any()
    (write,) = ln.plan(before.dimensions(), "aa", "add", "direction").writes
    assert write.layer == 0 and write.site == "residual"
    np.testing.assert_array_equal(write.value, drawn[1])
    with pytest.raises(FileNotFoundError, match="langneurons find"):
        read_units(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a folder with a model, neurons and dimensions that were found in it."""
    folder = tmp_path_factory.mktemp("exported")
    tiny_model("llama").save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    cache = pytest.MonkeyPatch()
    cache.setenv("LANGNEURONS_CACHE", str(folder / "cache"))
    model = ln.load(folder / "model", dtype="float32")
    for units in ("neurons", "dimensions"):
        own = neurons(model, units)
        own.metadata |= {key: model.known_as[key] for key in ("model", "revision")}
        own.save(folder / units)
    yield folder
    cache.undo()


@pytest.mark.parametrize("to", list(SUFFIXES))
def test_the_command_writes_each_format(folders, tmp_path, to, capsys):
    streams = to in ("steer", "control-vector")
    arguments = ["export", str(folders / "model")]
    arguments += [str(folders / ("dimensions" if streams else "neurons"))]
    arguments += ["--language", "all", "--to", to, "--output", str(tmp_path / "out")]
    arguments += ["--write", "add unit_direction coefficient=2 layers=1-1"] if streams else []
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{lang}{SUFFIXES[to]}" for lang in ("aa", "bb")
    }
    assert ("rank 2" in shown) == (to in ("lora", "gguf-lora"))
    if streams:
        values = neurons(made(), "dimensions").values("aa")[1]
        expected = 2 * values / np.linalg.norm(values)
        if to == "steer":
            entries = torch.load(tmp_path / "out/aa.pt", weights_only=True)
            vector = entries["layers.1"]["steering_vector"].numpy()
        else:
            vector = read(tmp_path / "out/aa.gguf")[1]["direction.1"]
        np.testing.assert_allclose(vector, expected, rtol=1e-6)


def test_an_adapter_goes_to_the_hub_and_back(folders, tmp_path, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", WRITER)
    arguments = ["export", str(folders / "model"), str(folders / "neurons")]
    assert main([*arguments, "--language", "aa", "--output", str(tmp_path)]) == 0
    assert main(["check", str(tmp_path / "aa")]) == 0
    assert "a LoRA of rank 2 on 2 layers" in capsys.readouterr().out
    assert main(["push", str(tmp_path / "aa"), "owner/adapter"]) == 0
    assert main(["pull", "owner/adapter", str(tmp_path / "back")]) == 0
    names = sorted(path.name for path in (tmp_path / "aa").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "back").iterdir())
    for name in names:
        assert (tmp_path / "aa" / name).read_bytes() == (tmp_path / "back" / name).read_bytes()
    shutil.rmtree(tmp_path / "aa")
    peft.PeftModel.from_pretrained(tiny_model("llama"), tmp_path / "back")


def test_the_ranks_of_published_masks_in_the_docs_are_those_of_the_counts():
    counts = pd.read_csv(ROOT / "config/published/masks_layers.csv").query("language != 'any'")
    ranks = counts.groupby(["mask", "language"])["neurons"].max()
    text = (ROOT / "docs/exports.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[1:] for line in text.splitlines() if line.count(" | ") == 4]
    printed = [row for row in rows if row[0].isdigit()]
    assert len(printed) == 11
    found = []
    for _, own in ranks.groupby("mask"):
        above = (own > 512).sum()
        found.append(
            [
                *(str(len(own)), f"{sorted(own)[len(own) // 2]:,}"),
                *(f"{own.max():,} ({own.idxmax()[1]})", f"{above or 'none'} |"),
            ]
        )
    assert all(row in found for row in printed)
