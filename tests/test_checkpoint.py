"""What a checkpoint's own files say is asked when it is prepared, and refused in words."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.activations import ACT2FN

from langneurons.base.io import read_json
from langneurons.models import checkpoint
from langneurons.models import load as loading
from langneurons.models.encoding import end_tokens
from langneurons.models.nonlinearities import NONLINEARITIES
from langneurons.models.prepare import prepare_model
from langneurons.models.settings import ModelEntry
from langneurons.selection.table import NeuronTable

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234\n"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "weights"
    tiny_model("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def prepare(folder, **fields):
    entry = ModelEntry(source={"kind": "local", "path": str(folder)}, dtype="float32", **fields)
    return prepare_model(entry, folder.parent / "out")


def change(folder, name="config.json", **values):
    path = folder / name
    given = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(given | values))


@pytest.mark.parametrize("entry", ["none", "nf4"])
@pytest.mark.parametrize(
    "own, words",
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bits, fp4"),
        (
            {
                "quant_method": "bitsandbytes",
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
            },
            "bitsandbytes, 4 bits, nf4",
        ),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bits"),
        ({"quant_method": "gptq", "bits": 4}, "gptq, 4 bits"),
        ({"quant_method": "fp8"}, "fp8"),
    ],
)
def test_weights_that_are_quantised_already_are_refused(folder, own, words, entry):
    change(folder, quantization_config=own)
    with pytest.raises(ValueError, match=rf"quantised already \({words}\).*unquantised weights"):
        prepare(folder, quantization=entry)


@pytest.mark.parametrize("name", ["prelu", "xielu", "no_such_function"])
def test_an_unknown_nonlinearity_is_refused_before_a_token_is_read(folder, name):
    change(folder, hidden_act=name)
    with pytest.raises(ValueError, match=rf"activation function '{name}'.*known: .*silu"):
        prepare(folder)


@pytest.mark.parametrize("name", sorted(NONLINEARITIES))
def test_nonlinearities_are_those_of_transformers(name):
    values = torch.linspace(-6, 6, 49)
    np.testing.assert_allclose(
        NONLINEARITIES[name](values.numpy()), ACT2FN[name](values).numpy(), atol=2e-4
    )


def test_a_model_that_computes_another_nonlinearity_than_it_names_is_refused(monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setitem(NONLINEARITIES, "silu", NONLINEARITIES["relu"])
    with pytest.raises(ValueError, match="names the activation function 'silu', and the model"):
        checkpoint.check_modules(model)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_in_place_of_a_file_is_told(folder, name):
    (folder / name).write_text(POINTER)
    with pytest.raises(ValueError, match=rf"{name}: a Git LFS pointer.*git lfs pull"):
        prepare(folder)


def test_an_empty_file_is_told(folder):
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="model.safetensors: the file is empty"):
        prepare(folder)


@pytest.mark.parametrize("content", ["{", "[1, 2]", "plain words", "{}"])
@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_unreadable_files_of_a_folder_are_named_and_nobody_is_told_to_rebuild_them(
    folder, name, content
):
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=str(folder)) as caught:
        prepare(folder)
    assert "forcerun" not in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_tokenizer_without_bos_and_eos_is_refused_by_name(folder):
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())[:90]
    backend = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(symbols)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"weights.*neither a BOS nor an EOS token"):
        prepare(folder)


def test_tokens_without_an_embedding_are_refused(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<end>"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"such as '<end>' \(100\); the model has 100 embeddings"):
        prepare(folder)


def test_padding_without_an_embedding_becomes_eos(folder, caplog):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<filler>"})
    tokenizer.save_pretrained(folder)
    with caplog.at_level(logging.WARNING):
        prepare(folder)
    assert "'<filler>' has no embedding" in caplog.text
    loaded = loading.load_tokenizer(folder.parent / "out" / "manifest.json")
    assert loaded.pad_token == "</s>"


def test_the_manifest_holds_what_later_jobs_ask(folder, caplog):
    change(
        folder,
        "generation_config.json",
        eos_token_id=[2, 7],
        repetition_penalty=1.05,
        no_repeat_ngram_size=3,
    )
    with caplog.at_level(logging.WARNING):
        manifest = prepare(folder)
    expected = {"n_layers": 2, "d_mlp": 48, "max_positions": 128, "nonlinearity": "silu"}
    assert {key: manifest[key] for key in expected} == expected
    assert manifest["generation"] == {
        "eos_token_id": [2, 7],
        "repetition_penalty": 1.05,
        "not_applied": {"no_repeat_ngram_size": 3},
    }
    assert "no_repeat_ngram_size" in caplog.text
    # What ends an answer is part of what the model computes.
    first = read_json(folder.parent / "out" / "manifest.json")["revision"]
    change(folder, "generation_config.json", eos_token_id=2)
    assert prepare(folder)["revision"] != first


@pytest.mark.parametrize(
    "content, reason",
    [
        (POINTER.encode(), "Git LFS pointer"),
        (b"no mask at all", "not a file of torch.save"),
        (b"", "empty"),
    ],
)
def test_a_mask_that_is_no_mask_is_told(tmp_path, content, reason):
    path = tmp_path / "mask.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"mask\.pth.*{reason}"):
        NeuronTable.from_pth(path, ["en"], 48)


def test_arrays_in_a_mask_are_refused_without_advice_to_unpickle(tmp_path):
    path = tmp_path / "mask.pth"
    torch.save([[np.arange(3)]], path)
    with pytest.raises(ValueError, match="other than tensors, lists and numbers") as caught:
        NeuronTable.from_pth(path, ["en"], 48)
    assert "weights_only" not in str(caught.value)


def test_a_quantised_gguf_file_is_called_so_in_every_result():
    entry = ModelEntry(source={"kind": "gguf", "path": "a.gguf"}, dtype="float32")
    manifest = {"revision": "0", "weights": "Q4_K"}
    assert loading.identity(entry, manifest)["quantization"] == "Q4_K"
    nf4 = entry.model_copy(update={"quantization": "nf4"})
    assert loading.identity(nf4, manifest)["quantization"] == "Q4_K and nf4"
    assert loading.identity(nf4, manifest | {"weights": "full"})["quantization"] == "nf4"


def test_an_index_that_names_absent_files_is_refused(folder):
    model = tiny_model("llama")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    with pytest.raises(ValueError, match=rf"index.json: 1 of the .* such as {shards[1].name}"):
        prepare(folder)


def test_weights_that_broke_off_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors: not a whole safetensors file"):
        prepare(folder)


@pytest.mark.parametrize(
    "values, tensor",
    [
        ({"num_hidden_layers": 1}, "no place in the model, such as model.layers.1"),
        ({"attention_bias": False}, "no place in the model, such as .*k_proj.bias"),
        ({"num_hidden_layers": 3}, "lack 13 tensors of the model, such as model.layers.2"),
        ({"intermediate_size": 64}, "6 tensors have another shape .*mlp"),
        ({"vocab_size": 200}, "2 tensors have another shape .*(embed|lm_head)"),
        ({"num_key_value_heads": 3}, "weights"),
        ({"hidden_size": 33}, "weights"),
        ({"max_position_embeddings": -1}, "weights: its configuration names -1 positions"),
        ({"max_position_embeddings": None}, "weights"),
        ({"num_hidden_layers": 0}, "weights"),
        ({"rope_scaling": {"rope_type": "foo"}}, "weights"),
        ({"model_type": ["llama"]}, "weights"),
        ({"dtype": "float7"}, "weights"),
        ({"hidden_act": ["silu"]}, "weights"),
    ],
)
def test_weights_that_the_configuration_does_not_fit_are_refused_before_a_job(
    folder, values, tensor
):
    tiny_model("llama", attention_bias=True).save_pretrained(folder)
    change(folder, **values)
    with pytest.raises(ValueError, match=tensor):
        prepare(folder)


def test_an_adapter_is_not_taken_for_a_model(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(ValueError, match="an adapter, not a model"):
        prepare(folder)
    tiny_model("llama").save_pretrained(folder)
    with pytest.raises(ValueError, match="an adapter beside a model"):
        prepare(folder)


def test_code_of_a_repository_is_named_and_not_run(folder, caplog):
    change(folder, auto_map={"AutoModelForCausalLM": "modeling_other.OtherForCausalLM"})
    with caplog.at_level(logging.WARNING):
        prepare(folder)
    assert "modeling_other.OtherForCausalLM" in caplog.text


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_packed_weights_without_a_word_in_the_configuration_are_refused(folder, kind):
    path = folder / "model.safetensors"
    tensors = {
        name: (tensor * 100).to(kind) if "proj" in name else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"quantised already \(.*proj.weight is"):
        prepare(folder)


def test_dropout_of_merges_is_refused(folder):
    backend = Tokenizer(models.BPE(vocab={"a": 0, "<s>": 1}, merges=[], dropout=0.5))
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>").save_pretrained(folder)
    with pytest.raises(ValueError, match="dropout 0.5 of its merges"):
        prepare(folder)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"eos_token_id": "2"}, "eos_token_id '2'"),
        ({"eos_token_id": True}, "eos_token_id True"),
        ({"eos_token_id": [[2]]}, r"eos_token_id \[\[2\]\]"),
        ({"eos_token_id": -1}, "eos_token_id -1"),
        ({"repetition_penalty": 0}, "repetition_penalty 0"),
        ({"repetition_penalty": "1.1"}, "repetition_penalty '1.1'"),
    ],
)
def test_what_a_generation_configuration_cannot_say_is_refused(folder, values, words):
    change(folder, "generation_config.json", **values)
    with pytest.raises(ValueError, match=f"generation_config.json: {words}"):
        prepare(folder)


@pytest.mark.parametrize("name", ["generation_config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", ["[]", "{", "null"])
def test_broken_json_beside_the_weights_is_named_and_nobody_deletes_it(folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=name) as caught:
        prepare(folder)
    assert "rm " not in str(caught.value)


def test_an_end_that_is_no_added_token_is_logged_and_ends_nothing(folder, caplog):
    change(folder, "generation_config.json", eos_token_id=17)
    with caplog.at_level(logging.WARNING):
        prepare(folder)
    assert "eos_token_id 17 is not an added token" in caplog.text
    model = tiny_model("llama")
    model.generation_config.eos_token_id = 17
    assert end_tokens(model, tiny_tokenizer()) == {2}


def test_files_that_a_model_can_do_without_may_be_empty(folder):
    for name in ("LICENSE.txt", "requirements.txt", "chat_template.jinja"):
        (folder / name).write_text("")
    prepare(folder)


@pytest.mark.parametrize("content", [b"", b"words", POINTER.encode(), b"GGUF" + bytes(20)])
def test_a_gguf_file_that_is_none_is_named_as_the_user_names_it(tmp_path, content):
    path = tmp_path / "mine.gguf"
    path.write_bytes(content)
    entry = ModelEntry(source={"kind": "gguf", "path": str(path)}, dtype="float32")
    with pytest.raises(ValueError, match=str(path)):
        prepare_model(entry, tmp_path / "out")
