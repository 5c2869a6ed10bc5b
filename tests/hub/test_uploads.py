"""Neurons, statistics and directions on the hub: there and back, and what is refused."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hub.server import READER, STRANGER, WRITER, Fault
from inprocess import JobFailed, run
from owned import IDENTITY, owned_directions, owned_model, owned_neurons, owned_statistics
from test_encoding import byte_level
from test_workflow import save_tiny_model
from tiny import tiny_model

import langneurons as ln
from langneurons.base.errors import InputError
from langneurons.base.io import read_json, write_json
from langneurons.cli import main
from langneurons.jobs.masks import prepare_mask
from langneurons.models.load import MANIFEST
from langneurons.selection.shared import shared_table
from langneurons.selection.table import NeuronTable
from langneurons.sharing.card import CARD
from langneurons.sharing.neurons import NAME


@pytest.fixture(scope="module")
def model():
    return owned_model()


@pytest.fixture(scope="module")
def statistics(model):
    return owned_statistics(model)


@pytest.fixture(scope="module")
def neurons(statistics):
    return owned_neurons(statistics)


@pytest.fixture(scope="module")
def directions():
    return owned_directions()


@pytest.fixture
def writer(hub, monkeypatch):
    """Return the hub, without repositories of these tests, and a token that may write."""
    for key in [key for key in hub.repositories if key[1].split("/")[0] in ("owner", "org")]:
        del hub.repositories[key]
    hub.collections.clear()
    monkeypatch.setenv("HF_TOKEN", WRITER)
    return hub


def test_neurons_come_back_equal(writer, neurons, model, tmp_path):
    commit = neurons.push_to_hub("owner/neurons", license="cc-by-4.0")
    repo = writer.repositories["models", "owner/neurons"]
    assert repo.main == commit and not repo.private
    assert set(repo.commits[commit]) == {".gitattributes", CARD, NAME, "layers.svg"}
    card = repo.commits[commit][CARD].decode()
    assert 'from_pretrained("owner/neurons", model=model)' in card and "cc-by-4.0" in card
    assert "base_model: owner/tiny" in card and f'revision="{"7" * 40}"' in card
    for given in ({}, {"model": model}, {"model": "owner/tiny"}, {"revision": commit}):
        back = ln.Neurons.from_pretrained("owner/neurons", **given)
        pd.testing.assert_frame_equal(back.frame, neurons.frame)
        assert back.metadata == neurons.metadata
    # Equal content gives equal files.
    back.save(tmp_path / "again")
    assert (tmp_path / "again" / NAME).read_bytes() == repo.commits[commit][NAME]
    again = neurons.push_to_hub("owner/neurons", license="cc-by-4.0")
    assert repo.commits[again] == repo.commits[commit]


def test_statistics_come_back_equal_and_select_the_same(writer, statistics, neurons, model):
    statistics.push_to_hub("org/statistics", private=True)
    assert writer.repositories["models", "org/statistics"].private
    back = ln.Statistics.from_pretrained("org/statistics", model=model)
    assert list(back) == list(statistics)
    for lang, one in statistics.items():
        assert back[lang].header == one.header and back[lang].digest == one.digest
        for key, array in one.arrays.items():
            np.testing.assert_array_equal(back[lang].arrays[key], array)
    same = ln.select(back, "lape", rate=0.1, filter_level=0.5, assign_level=0.5)
    pd.testing.assert_frame_equal(same.frame, neurons.frame)
    # Fewer languages: the repository then has these alone.
    ln.Statistics({"aa": statistics["aa"]}).push_to_hub("org/statistics")
    assert list(ln.Statistics.from_pretrained("org/statistics")) == ["aa"]


def test_directions_come_back_equal(writer, directions):
    directions.push_to_hub("owner/directions")
    back = ln.Directions.from_pretrained("owner/directions", model="owner/tiny")
    assert (back.site, back.parameters, back.metadata) == (
        "residual_out",
        {"k": 1},
        directions.metadata,
    )
    for lang, array in directions.arrays.items():
        np.testing.assert_array_equal(back.arrays[lang], array)


def test_another_model_is_refused_before_the_neurons_are_fetched(writer, neurons, model):
    neurons.push_to_hub("owner/neurons")
    writer.quiet()
    deeper = tiny_model("llama", num_hidden_layers=3, vocab_size=300)
    wider = tiny_model("llama", num_hidden_layers=2, vocab_size=300, intermediate_size=64)
    other = byte_level(pad_token="<p>", bos_token="<s>", eos_token="</s>")
    for given, words in (
        ("owner/other", "neurons of model 'owner/tiny', not 'owner/other'"),
        (
            ln.LanguageModel(model.model, model.tokenizer, IDENTITY | {"model": "x"}),
            "model 'owner/t",
        ),
        (
            ln.LanguageModel(model.model, model.tokenizer, IDENTITY | {"revision": "8"}),
            "revision '7",
        ),
        (ln.LanguageModel(deeper, model.tokenizer, IDENTITY), "n_layers 2; the loaded model has 3"),
        (ln.LanguageModel(wider, model.tokenizer, IDENTITY), "d_mlp 48; the loaded model has 64"),
        (ln.LanguageModel(model.model, other, IDENTITY), "tokenizer hash"),
    ):
        with pytest.raises(InputError, match=words):
            ln.Neurons.from_pretrained("owner/neurons", model=given)
    assert not writer.asked(NAME)
    with pytest.raises(InputError, match="owner/neurons: README.md.*holds neurons, not statistics"):
        ln.Statistics.from_pretrained("owner/neurons")


def test_what_the_hub_refuses_is_told(writer, neurons, monkeypatch, tmp_path):
    neurons.push_to_hub("owner/private", private=True)
    neurons.push_to_hub("owner/gated")
    writer.repositories["models", "owner/gated"].gated = "manual"
    writer.add("models", "owner/masks", {"en.pth": b"x", "notes.txt": "y"}, "1" * 40)
    writer.add("models", "owner/other", {CARD: "---\nlicense: mit\n---\nhello"}, "2" * 40)

    def refused(words, repo, **given):
        with pytest.raises(InputError, match=words):
            ln.Neurons.from_pretrained(repo, **given)

    refused("has no model owner/nothing, or it is private", "owner/nothing")
    refused("no such commit.*owner/private at abc", "owner/private", revision="abc")
    refused("no README.md; it holds en.pth.*is a pickle.*langneurons convert", "owner/masks")
    refused("owner/other: README.md.*no key `langneurons`", "owner/other")
    refused("'name' is not a repository", "name")
    with pytest.raises(InputError, match="may not write there.*write access to stranger"):
        neurons.push_to_hub("stranger/neurons")
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    refused("has no model owner/private, or it is private and HF_TOKEN", "owner/private")
    refused("owner/gated asks for consent", "owner/gated")
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(InputError, match="may not write there"):
        neurons.push_to_hub("owner/neurons")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="takes no upload without a valid token"):
        neurons.push_to_hub("owner/neurons")
    assert ("models", "owner/neurons") not in writer.repositories


def test_no_network_is_told_and_the_cache_is_read_where_it_is_asked_for(
    writer, neurons, monkeypatch, tmp_path
):
    neurons.push_to_hub("owner/cached")
    ln.Neurons.from_pretrained("owner/cached", revision="main")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    back = ln.Neurons.from_pretrained(
        "owner/cached", revision=writer.repositories["models", "owner/cached"].main
    )
    pd.testing.assert_frame_equal(back.frame, neurons.frame)
    with pytest.raises(InputError, match="owner/new is not in the cache, and the hub is switched"):
        ln.Neurons.from_pretrained("owner/new")
    with pytest.raises(InputError, match="switched off.*nothing can be uploaded"):
        neurons.push_to_hub("owner/cached")
    monkeypatch.undo()
    monkeypatch.setattr("langneurons.models.hub.WAITS", (0.0,))
    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.model_info", unreachable)
    with pytest.raises(InputError, match="cannot be reached or does not answer"):
        ln.Neurons.from_pretrained("owner/cached")


def unreachable(*_, **__):
    raise ConnectionError("no route")


def test_an_upload_that_is_cut_off_is_repeated(writer, neurons):
    writer.faults = [Fault("reset", "/commit/main"), Fault("reset", "/put/")]
    commit = neurons.push_to_hub("owner/again")
    assert len(writer.asked("/commit/main")) == 2
    back = ln.Neurons.from_pretrained("owner/again", revision=commit)
    pd.testing.assert_frame_equal(back.frame, neurons.frame)


def test_a_collection_of_the_model_is_found_by_its_title(writer, neurons, statistics):
    neurons.push_to_hub("org/neurons", collection=True)
    statistics.push_to_hub("org/statistics", collection=True)
    (one,) = writer.collections.values()
    assert one["title"] == "Language neurons: owner/tiny" and one["owner"] == "org"
    assert [item["id"] for item in one["items"]] == ["org/neurons", "org/statistics"]
    # Names of models that are cut to the same letters have collections of their own.
    for end in "ab":
        long = ln.Neurons(neurons.frame, neurons.metadata | {"model": f"owner/{'x' * 80}{end}"})
        long.push_to_hub(f"org/{end}", collection=True)
    titles = [one["title"] for one in writer.collections.values()]
    assert len(set(titles)) == 3 and max(map(len, titles)) == 59


def test_the_commands_push_and_pull(writer, neurons, tmp_path, capsys, monkeypatch):
    neurons.save(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert main(["push", "mine", "owner/mine", "--collection"]) == 0
    assert writer.repositories["models", "owner/mine"].main in capsys.readouterr().out
    assert main(["pull", "owner/mine", "theirs"]) == 0
    shown = capsys.readouterr().out
    assert "theirs: neurons, whole" in shown and "owner/tiny at 777" in shown
    assert {one.name for one in (tmp_path / "theirs").iterdir()} == {CARD, NAME, "layers.svg"}
    for name in (CARD, NAME, "layers.svg"):
        assert (tmp_path / "theirs" / name).read_bytes() == (tmp_path / "mine" / name).read_bytes()
    assert main(["pull", "owner/mine", "theirs"]) == 1
    assert "theirs: it is there already" in capsys.readouterr().err
    (tmp_path / "mine" / NAME).write_bytes(b"other")
    assert main(["push", "mine", "owner/mine"]) == 1
    assert "not a safetensors file" in capsys.readouterr().err


# In the graph -------------------------------------------------------------------------------------


@pytest.fixture
def manifest(model, tmp_path):
    path = tmp_path / MANIFEST
    write_json(
        path,
        {
            "source": {"kind": "hub", "repo": "owner/tiny", "revision": "7" * 40},
            "revision": "7" * 40,
            "n_layers": 2,
            "d_mlp": 48,
            "tokenizer_hash": model.tokenizer_hash,
        },
    )
    return path


def settings(commit, **more):
    return {"method": "published", "repo": "owner/neurons", "revision": commit} | more


def job(selection, needed=("aa",)):
    return {"selection": selection, "needed": list(needed)}


def test_the_job_keeps_shared_neurons_and_masks_as_one_file(writer, neurons, manifest, tmp_path):
    commit = neurons.push_to_hub("owner/neurons")
    target = tmp_path / "mask.safetensors"
    assert prepare_mask(job(settings(commit)), manifest, target) == neurons.unique
    assert (
        target.read_bytes() == writer.repositories["models", "owner/neurons"].commits[commit][NAME]
    )
    neurons.to_pth(tmp_path / "m.pth")
    mask = (tmp_path / "m.pth").read_bytes()
    writer.add("models", "owner/neurons", {"tiny/m.pth": mask}, "5" * 40)
    given = settings("5" * 40, file="tiny/m.pth", languages=["aa", "bb"])
    assert prepare_mask(job(given), manifest, target) == neurons.unique
    back = shared_table(target)
    assert back.frame["score"].isna().all() and back.metadata["method"] == "imported"
    columns = ["lang", "layer", "neuron"]
    pd.testing.assert_frame_equal(back.frame[columns], neurons.frame[columns])


def test_the_job_refuses_another_model_in_words(writer, neurons, manifest, tmp_path):
    commit, target = neurons.push_to_hub("owner/neurons"), tmp_path / "mask.safetensors"
    neurons.to_pth(tmp_path / "m.pth")
    mask = (tmp_path / "m.pth").read_bytes()
    writer.add("models", "owner/masks", {"m.pth": mask}, "5" * 40)
    masked = {"repo": "owner/masks", "revision": "5" * 40, "file": "m.pth", "languages": ["a", "b"]}
    whole = read_json(manifest)
    for change, more, words in (
        ({"n_layers": 3}, {}, r"neurons of 2 layers x 48; the model owner/tiny has 3 x 48"),
        ({}, {}, "no neurons of zh; there are those of aa, bb. Use the selection on other"),
        ({"revision": "8" * 40}, {}, "neurons of revision '7777.*here it is '8888"),
        ({"tokenizer_hash": "x"}, {}, "tokenizer_hash"),
        (
            {"source": whole["source"] | {"repo": "a/b"}},
            {},
            "of model 'owner/tiny'; here it is 'a/b'",
        ),
        ({}, {"sha256": "0" * 64}, "the SHA-256 of neurons.safetensors is"),
        ({"d_mlp": 40}, masked, "outside the 40 of a layer"),
        ({"n_layers": 4}, masked, "2 layers x 48; the model owner/tiny has 4 x 48"),
        ({}, masked | {"file": "n.pth"}, "n.pth"),
    ):
        write_json(manifest, copy.deepcopy(whole) | change)
        with pytest.raises(ValueError, match=words):
            prepare_mask(job(settings(commit) | more, ("aa", "zh")), manifest, target)
    assert not target.exists()
    # The same model under another name: the key `model` names it as the file does.
    write_json(manifest, whole | {"source": whole["source"] | {"repo": "a/b"}, "revision": "9"})
    assert (
        prepare_mask(job(settings(commit, model="owner/tiny")), manifest, target) == neurons.unique
    )
    torch.save([[np.float64]], tmp_path / "bad.pth")
    writer.add("models", "owner/masks", {"m.pth": (tmp_path / "bad.pth").read_bytes()}, "6" * 40)
    with pytest.raises(ValueError, match="objects other than tensors"):
        prepare_mask(job(settings("6" * 40) | masked | {"revision": "6" * 40}), manifest, target)


def test_published_neurons_of_the_hub_are_a_selection_of_the_graph(writer, tmp_path):
    """The graph's own neurons, shared and fetched again, as shared neurons and as a mask."""
    save_tiny_model(tmp_path / "tiny")
    config = {
        "name": "shared",
        "models": {"m": {"source": {"kind": "local", "path": "tiny"}, "dtype": "float32"}},
        "language_sets": {"two": ["fr", "vi"]},
        "corpus": {"source": {"kind": "mini"}, "tokens": 1500, "heldout_fraction": 0.2},
        "selections": {"lape": {"method": "lape", "rate": 0.1}},
    }
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(config))
    own = "results/m/neurons/fr-vi/lape.parquet"
    run(tmp_path, tmp_path / "one.yaml", (own,))
    neurons = ln.Neurons.load(tmp_path / own)
    neurons.to_pth(tmp_path / "mask.pth")
    neurons.metadata |= {"model": "org/original", "revision": "4" * 40}
    commit = neurons.push_to_hub("owner/neurons")
    writer.add(
        "models", "owner/masks", {"tiny.pth": (tmp_path / "mask.pth").read_bytes()}, "5" * 40
    )
    masks = {"repo": "owner/masks", "revision": "5" * 40, "file": "tiny.pth"}
    config["selections"] |= {
        "theirs": settings(commit, model="org/original"),
        "mask": {"method": "published", "languages": ["fr", "vi"]} | masks,
    }
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    tables = {name: own.replace("lape", name) for name in ("theirs", "mask")}
    rules = run(tmp_path, tmp_path / "two.yaml", tuple(tables.values()))
    assert sorted(rules) == ["prepare_mask"] * 2 + ["select_neurons"] * 2
    columns = ["lang", "layer", "neuron"]
    for path in tables.values():
        found = NeuronTable.from_parquet(tmp_path / path)
        pd.testing.assert_frame_equal(found.frame[columns], neurons.frame[columns])
    parameters = json.loads(found.metadata["parameters"])
    assert masks.items() <= parameters.items() and "path" not in parameters
    # Without the name of the model there, they are those of another one.
    config["selections"]["theirs"] = settings(commit)
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    for path in ("resources/masks/m/theirs.safetensors", tables["theirs"]):
        (tmp_path / path).unlink()
    with pytest.raises(JobFailed, match="neurons of model 'org/original'; here it is 'tiny'"):
        run(tmp_path, tmp_path / "two.yaml", (tables["theirs"],))
