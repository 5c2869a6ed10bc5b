"""The front door: examples of its page, errors in words, and the same numbers as the graph."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from owned import TEXTS
from test_encoding import byte_level
from tiny import tiny_model, tiny_tokenizer

import langneurons as ln
from langneurons.api import models
from langneurons.api import statistics as collecting
from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import read_json, write_json
from langneurons.interventions.hooks import NoEffect
from langneurons.interventions.plan import Plan
from langneurons.models.load import MANIFEST
from langneurons.selection.methods import METHODS

ROOT = Path(__file__).parent.parent


def stand_in():
    """Return a model of the shape of the embedded one, with random weights and bytes as tokens."""
    shape = {"num_hidden_layers": 18, "intermediate_size": 2048, "hidden_size": 16, "head_dim": 4}
    tokenizer = byte_level(pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    more = {"vocab_size": len(tokenizer), "max_position_embeddings": 4096}
    return ln.LanguageModel(tiny_model("gemma3_text", **shape, **more), tokenizer)


@pytest.fixture(scope="module")
def model():
    model = tiny_model("llama", num_hidden_layers=2, vocab_size=300)
    tokenizer = byte_level(pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    identity = {"model": "tiny", "revision": "0", "dtype": "float32", "quantization": "none"}
    return ln.LanguageModel(model, tokenizer, identity)


@pytest.fixture(scope="module")
def statistics(model):
    with pytest.warns(UserWarning, match="tokens are few"):
        return ln.collect(model, TEXTS, document_means=("act",), block_size=64)


@pytest.fixture(scope="module")
def neurons(statistics):
    return ln.select(statistics, "lape", rate=0.1, filter_level=0.5, assign_level=0.5)


# The page and the package -------------------------------------------------------------------------


def examples():
    """Return the example of each public name."""
    found = []
    for name in ln.__all__:
        value = getattr(ln, name)
        tests = doctest.DocTestFinder(recurse=False).find(value, name)
        assert len(tests) == 1 and tests[0].examples, f"{name} has no example"
        found += tests
    return found


def remembered(monkeypatch, model):
    """Let the examples share one model and one pass over each text."""
    known = {}

    def collect(given, texts, **options):
        key = (id(given), repr(texts), repr(options))
        if key not in known:
            known[key] = collecting.collect(given, texts, **options)
        return known[key]

    monkeypatch.setattr(ln, "load", lambda name: model)
    monkeypatch.setattr(ln, "collect", collect)


def run(tests):
    """Run examples; return what failed."""
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        runner.run(test, out=said.append)
    return "".join(said)


def test_every_public_name_has_an_example_that_runs(monkeypatch):
    tests = examples()
    remembered(monkeypatch, stand_in())
    assert run(tests) == ""


@pytest.mark.slow
def test_the_examples_hold_for_the_embedded_model(monkeypatch):
    tests, load = examples(), ln.load
    remembered(monkeypatch, load("gemma3-270m"))
    assert run(tests) == ""


def test_the_page_is_in_step_with_the_docstrings():
    command = [sys.executable, ROOT / "tools" / "api_page.py", "--check"]
    assert subprocess.run(command).returncode == 0


def test_there_are_about_a_dozen_names_and_they_load_nothing_before_they_are_used():
    assert len(ln.__all__) == len(set(ln.__all__)) <= 14
    assert set(ln.__all__) == set(ln._PLACES) <= set(dir(ln))
    heavy = "{'torch', 'transformers', 'numba', 'pandas'}"
    code = f"import sys, langneurons; print(sorted({heavy} & {{*sys.modules}}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'lood'"):
        _ = ln.lood
    assert (ROOT / "src" / "langneurons" / "py.typed").is_file()


def test_the_embedded_model_is_that_of_the_demo():
    demo = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    for name, source in models.EMBEDDED.items():
        assert source.model_dump(exclude_none=True) == demo["models"][name]["source"]


# Models -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LANGNEURONS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "my model"
    tiny_model("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def test_a_folder_is_prepared_once_and_anew_when_its_files_change(folder, tmp_path):
    model = ln.load(folder, dtype="float32")
    assert (model.n_layers, model.d_mlp) == (2, 48)
    assert model.identity["model"] == "my model" and model.identity["dtype"] == "float32"
    (manifest,) = (tmp_path / "cache").rglob(MANIFEST)
    before = manifest.stat().st_mtime_ns
    again = ln.load(str(folder), dtype="float32")
    assert again.identity == model.identity and manifest.stat().st_mtime_ns == before
    ids = torch.tensor([[1, 5, 6]])
    assert torch.equal(again.model(ids).logits, model.model(ids).logits)
    tiny_model("llama", num_hidden_layers=3).save_pretrained(folder)
    other = ln.load(folder, dtype="float32")
    assert other.n_layers == 3 and other.identity["revision"] != model.identity["revision"]
    # A folder that the graph prepared has its manifest beside the weights.
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    content = read_json(manifest) | {"path": str(folder)}
    content["files"] = {
        p.name: p.stat().st_size for p in folder.iterdir() if p.name in content["files"]
    }
    write_json(prepared / MANIFEST, content)
    assert ln.load(prepared, dtype="float32").n_layers == 3


def test_damaged_files_of_the_cache_are_prepared_again(folder, tmp_path):
    ln.load(folder, dtype="float32")
    (manifest,) = (tmp_path / "cache").rglob(MANIFEST)
    content = read_json(manifest)
    content["files"]["model.safetensors"] += 1
    write_json(manifest, content)
    assert ln.load(folder, dtype="float32").n_layers == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gemma3-270", "embedded model.*gemma3-270m.*owner/name.*no file or folder"),
        ("no/such/folder", "embedded model"),
        ("a b/c", "repo"),
    ],
)
def test_what_is_no_model_is_told_with_what_is(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"(?s){words}"):
        ln.load(name)


def test_a_mistaken_format_is_told(folder):
    with pytest.raises(ConfigError, match="load: dtype.*float32"):
        ln.load(folder, dtype="float8")


# Statistics ---------------------------------------------------------------------------------------


def test_statistics_are_those_of_a_forward_pass(model, statistics):
    """Positive activations of the tokens that are counted, from the model's own modules."""
    seen = []
    act = model.sites.act[1]
    handle = act.register_forward_hook(lambda _m, _i, output: seen.append(output[0, 1:]))
    text = "x y z w " * 80
    ids = model.tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        for start in range(0, len(ids), 63):
            model.sites.backbone(input_ids=torch.tensor([[1, *ids[start : start + 63]]]))
    handle.remove()
    expected = (torch.cat(seen) > 0).double().mean(0).numpy()
    assert statistics["bb"].tokens == len(ids)
    np.testing.assert_allclose(statistics["bb"].probability("act")[1], expected, atol=1e-12)


def test_statistics_are_saved_read_and_merged(model, statistics, tmp_path):
    statistics.save(tmp_path / "s")
    read = ln.Statistics.load(tmp_path / "s")
    assert list(read) == ["aa", "bb"] and read["aa"].tokens == statistics["aa"].tokens
    with pytest.raises(KeyError, match="no statistics of 'cc'; there are: aa, bb"):
        read["cc"]
    with pytest.raises(InputError, match="no file"):
        ln.Statistics.load(tmp_path)
    parts = [TEXTS["bb"], "w z y x " * 90]
    with pytest.warns(UserWarning, match="few"):
        first, second = (ln.collect(model, {"bb": part}, block_size=64) for part in parts)
        third = ln.collect(model, {"cc": "m n o " * 90}, block_size=64)
    # As a run leaves them that stopped before the end of the text.
    first["bb"].header["slices"], sizes = [4, 8], [part["bb"].blocks for part in (first, second)]
    first["bb"].header["corpus_blocks"] += sizes[0]
    both = first.merged(second).merged(third)
    assert both["bb"].header["blocks"] == [0, sum(sizes)] and "slices" not in both["bb"].header
    assert list(both) == ["bb", "cc"]
    assert both["bb"].tokens == first["bb"].tokens + second["bb"].tokens
    expected = first["bb"].positive() + second["bb"].positive()
    assert np.array_equal(both["bb"].positive(), expected)
    assert np.array_equal(both["bb"].max(), np.maximum(first["bb"].max(), second["bb"].max()))
    with pytest.raises(ValueError, match="of the same text"):
        first.merged(first)
    with pytest.warns(UserWarning, match="few"):
        by_document = ln.collect(model, {"bb": parts[1]}, document_means=["act"], block_size=64)
    with pytest.raises(ValueError, match="means per document, which cannot be added up"):
        first.merged(by_document)
    # Models in memory are told apart by their weights.
    changed = tiny_model("llama", num_hidden_layers=2, vocab_size=300)
    changed.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    with pytest.warns(UserWarning, match="few"):
        unnamed = [
            ln.collect(ln.LanguageModel(one, model.tokenizer), {lang: parts[0]}, block_size=64)
            for one, lang in ((model.model, "bb"), (changed, "cc"), (model.model, "cc"))
        ]
    assert list(unnamed[0].merged(unnamed[2])) == ["bb", "cc"]
    with pytest.raises(ValueError, match="disagree on revision"):
        unnamed[0].merged(unnamed[1])
    other = ln.LanguageModel(model.model, model.tokenizer, model.identity | {"revision": "1"})
    with pytest.warns(UserWarning, match="few"):
        foreign = ln.collect(other, {"dd": TEXTS["bb"]}, block_size=64)
    with pytest.raises(ValueError, match="disagree on revision"):
        first.merged(foreign)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({}, "give {"),
        (["a"], "give {"),
        ({"de": []}, "'de': no text, 0 blank"),
        ({"de": ["", "  "]}, "'de': no text, 2 blank"),
        ({"de": ["a", 3]}, "'de': 3 is not a text"),
    ],
)
def test_texts_that_are_none_are_told(model, texts, words):
    with pytest.raises(InputError, match=words):
        ln.collect(model, texts)


def test_sites_that_are_none_are_told(model):
    with pytest.raises(ConfigError, match="collect: sites.*'gatee'"):
        ln.collect(model, {"de": "a b"}, sites=["gatee"])
    with pytest.raises(InputError, match="collect: shards, until divide the work of a run"):
        ln.collect(model, {"de": "a b"}, shards=2, until={"selection": "lape"})


def test_the_mini_texts():
    assert len(ln.mini_texts()) == 9
    with pytest.raises(ValueError, match="mini_texts: 'dee'"):
        ln.mini_texts(["dee"])


# Neurons ------------------------------------------------------------------------------------------


def test_every_method_runs_or_says_what_it_needs(model, neurons):
    with pytest.warns(UserWarning, match="few"):
        statistics = ln.collect(
            model,
            TEXTS,
            sites=("gate", "act", "product", "residual"),
            document_means=("act", "residual"),
            block_size=64,
            residual_outer=(2,),
        )
    assert statistics["aa"].covariance(2).shape == (32, 32)
    diffmean = ln.select(statistics, "diffmean")
    more = {
        "random": {"rate": 0.1},
        "combined": {"selections": [neurons, neurons], "operation": "union"},
        "average_precision": {"rate": 0.1},
        "exceedance": {"pool": "neuron", "rate": 0.1},
        "lap": {"bar": 0.1},
        "document_sign": {"share": 0.5},
        "plnd": {"site": "act", "rate": 0.1},
        "random_direction": {"like": diffmean},
        "sparse_dimensions": {"number": 5},
        "write_score": {"weights": model},
    }
    with pytest.raises(InputError, match="'attribution' needs a pass with gradients"):
        ln.select(statistics, "attribution")
    with pytest.raises(ValueError, match="is not a mixture of experts"):
        ln.select(statistics, "experts")
    for method in sorted(set(METHODS) - {"published", "attribution", "experts"}):
        found = ln.select(statistics, method, **more.get(method, {}))
        assert found.languages == ["aa", "bb"] and found.statistics is statistics


def test_what_a_method_lacks_is_told(model, statistics, neurons):
    with pytest.warns(UserWarning, match="few"):
        plain = ln.collect(model, TEXTS, sites=["act"], histograms=[], block_size=64)
    with pytest.raises(InputError, match=r"document_means of act.*document_means=\('act',\)"):
        ln.select(plain, "average_precision", rate=0.1)
    with pytest.raises(InputError, match="sites of product"):
        ln.select(plain, "magnitude", site="product")
    with pytest.raises(InputError, match="histograms of gate|sites of gate"):
        ln.select(plain, "exceedance", pool="neuron")
    with pytest.raises(InputError, match="quantiles of batches"):
        ln.select(statistics, "exceedance", pool="batch")
    with pytest.raises(ValueError, match="'lapee'.*lape"):
        ln.select(statistics, "lapee")
    with pytest.raises(ConfigError, match="select, method lape: .*rat"):
        ln.select(statistics, "lape", rat=0.1)
    with pytest.raises(InputError, match="give the Neurons themselves"):
        ln.select(statistics, "random", like="lape")
    with pytest.raises(InputError, match=r"selections\[1\]"):
        ln.select(statistics, "combined", operation="union", selections=[neurons, "lape"])


def test_controls_match_and_avoid_the_selected(statistics, neurons, tmp_path):
    for match in ("none", "layer", "frequency"):
        control = neurons.control(match=match)
        assert (control.counts() == neurons.counts()).all()
        for lang in neurons.languages:
            assert not (control.mask(lang) & neurons.mask(lang)).any()
            if match != "none":
                sizes = [[len(layer) for layer in one.indices(lang)] for one in (control, neurons)]
                assert sizes[0] == sizes[1]
    neurons.save(tmp_path / "n")
    read = ln.Neurons.load(tmp_path / "n")
    pd.testing.assert_frame_equal(read.frame, neurons.frame)
    with pytest.raises(InputError, match="read from a file; give the statistics"):
        read.control()
    same = read.control("frequency", statistics=statistics)
    pd.testing.assert_frame_equal(same.frame, neurons.control("frequency").frame)
    neurons.to_pth(tmp_path / "n.pth")
    with pytest.raises(InputError, match="give languages"):
        ln.Neurons.load(tmp_path / "n.pth")
    masks = ln.Neurons.load(tmp_path / "n.pth", languages=["aa", "bb"], d_mlp=48)
    assert np.array_equal(masks.mask("aa"), neurons.mask("aa"))


# Interventions ------------------------------------------------------------------------------------


def test_plans_write_what_is_asked_for(model, statistics, neurons):
    plan = ln.plan(neurons, "aa", "set", "mean", statistics)
    mean = statistics["aa"].mean("act")
    for write in plan.writes:
        np.testing.assert_array_equal(write.value, mean[write.layer, write.index])
    limited = ln.plan(neurons, "aa", "add", 1.5, layers=[1, 1], site="product", tokens="prompt")
    assert {(w.layer, w.site, w.tokens) for w in limited.writes} == {(1, "product", "prompt")}
    for wrong, words in (
        ({"lang": "cc"}, "'cc'.*aa, bb"),
        ({"operation": "sett"}, "set"),
        ({"value": "meen"}, "meen"),
        ({"sites": "act"}, "site"),
        ({"operation": "add", "value": 0}, "changes nothing"),
    ):
        given = {"lang": "aa", "operation": "set", "value": 1} | wrong
        with pytest.raises(ValueError, match=words):
            ln.plan(neurons, **given)
    bare = ln.Neurons(neurons.frame, neurons.metadata)
    with pytest.raises(InputError, match="'mean' is a statistic.*give the statistics"):
        ln.plan(bare, "aa", "set", "mean")
    foreign = ln.Neurons(neurons.frame, neurons.metadata | {"revision": "9"})
    with pytest.raises(ValueError, match="neurons are of revision '9'"):
        ln.plan(foreign, "aa", "set", "mean", statistics)


def test_runs_under_plans_equal_those_one_by_one(model, neurons):
    plans = [None, ln.plan(neurons, "aa", "set", 3), ln.plan(neurons, "bb", "add", "layer_max")]
    texts = ["a b c d e f g", "x", "a b c d w w"]
    prompts = ["a b c d", "a b c d e"]
    requests = [("a b c", " d"), ("a b c", " e f")]
    for together, alone in (
        (ln.nll(model, texts, plans), [ln.nll(model, texts, one, 1) for one in plans]),
        (ln.nll(model, texts, plans, 1), [ln.nll(model, texts, one) for one in plans]),
    ):
        for one, other in zip(together, alone, strict=True):
            pd.testing.assert_frame_equal(one, other, rtol=1e-5)
            assert one["bytes"].tolist() == [len(text) for text in texts]
    options = {"max_new_tokens": 6}
    answers = ln.generate(model, prompts, plans, **options)
    assert answers == [ln.generate(model, prompts, one, **options) for one in plans]
    scores = ln.loglikelihood(model, requests, plans)
    for one, plan in zip(scores, plans, strict=True):
        wanted = [ln.loglikelihood(model, [request], plan)[0] for request in requests]
        np.testing.assert_allclose([v for v, _ in one], [v for v, _ in wanted], rtol=1e-5)
    assert len({round(values[0][0], 4) for values in scores}) == 3


def test_nll_is_by_hand_also_of_texts_that_are_longer_than_the_model_reads(model):
    text = "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 3
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    limit = model.max_positions
    assert len(ids) > limit
    expected, size = 0.0, limit - 1
    for start in range(0, len(ids), size):
        block = [1, *ids[start : start + size]]
        with torch.inference_mode():
            table = torch.log_softmax(model.model(torch.tensor([block])).logits[0].double(), -1)
        expected -= sum(float(table[k - 1, block[k]]) for k in range(1, len(block)))
    found = ln.nll(model, ["a", text])
    assert found["nll"][1] == pytest.approx(expected, rel=1e-5)
    assert found["tokens"].tolist() == [1, len(ids)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: ln.generate(m, "one text"), "'one text' is one text; give a list"),
        (lambda m: ln.nll(m, "one text"), "is one text"),
        (lambda m: ln.nll(m, ["a", " "]), r"texts\[1\]: ' ' is blank"),
        (lambda m: ln.loglikelihood(m, "ab"), "is one text"),
        (lambda m: ln.loglikelihood(m, [("a", "")]), "empty continuation"),
        (lambda m: ln.nll(m, ["a"], under=[]), "empty list of plans"),
    ],
)
def test_mistakes_are_told(model, call, words):
    with pytest.raises(ValueError, match=words):
        call(model)


def test_a_plan_without_effect_is_an_error_and_one_without_neurons_is_none(model, statistics):
    empty = ln.Neurons(
        pd.DataFrame(columns=["lang", "layer", "neuron", "score"]).astype({"score": float}),
        {"languages": ["aa"], "n_layers": 2, "d_mlp": 48},
    )
    plan = ln.plan(empty, "aa", "set", 0)
    assert plan.empty and ln.generate(model, ["a b"], plan) == ln.generate(model, ["a b"])
    all_of_it = ln.Neurons(
        pd.DataFrame({"lang": "aa", "layer": 0, "neuron": range(48), "score": 0.0}),
        {"languages": ["aa"], "n_layers": 2, "d_mlp": 48},
    )
    with pytest.raises(NoEffect, match="already there"):
        ln.nll(model, ["a b c"], ln.plan(all_of_it, "aa", "at_least", -1e6))
    with ln.applied(model, ln.plan(all_of_it, "aa", "set", 0)) as running:
        model.model(torch.tensor([[1, 5, 6]]))
    assert running.changed == {0}
    assert isinstance(plan, Plan) and re.fullmatch(r"\w{32}", plan.digest)
