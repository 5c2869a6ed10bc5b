"""The pages of neurons: their content against the files behind it, and the page in a browser."""

import base64
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from labelled import labels
from test_collect import IDENTITY, tiny_corpus
from test_page import browser as find_browser
from tiny import tiny_model, tiny_tokenizer

from langneurons.activations.collect import collect
from langneurons.activations.contexts import Wanted, strongest, texts
from langneurons.activations.histogram import EDGES, bin_index
from langneurons.activations.settings import StatisticsConfig
from langneurons.base.io import write_parquet
from langneurons.data.corpus import Corpus, Part
from langneurons.evaluation.neurons import most_own, written_tokens, zeroing
from langneurons.evaluation.perplexity import HeldOut, document_nll
from langneurons.models.language_model import LanguageModel
from langneurons.reporting.browser.records import (
    WHOLE,
    Browser,
    Sources,
    entropy,
    neighbours,
    rebinned,
)
from langneurons.reporting.browser.write import write_browser
from langneurons.selection.table import NeuronTable

LANGS = ("aa", "bb", "ur")
HOSTILE = "</script><script>window.broken = 1</script>"


def corpus_of(lang: str, seed: int) -> Corpus:
    """Return a corpus of other tokens for each language, in documents of their own."""
    one = tiny_corpus(n_blocks=8)
    rng = np.random.default_rng(seed)
    part = one.identification
    tokens = np.where(part.tokens > 1, rng.integers(4, 90, part.tokens.shape), part.tokens)
    inside = np.arange(tokens.shape[1]) < part.lengths[:, None]
    document = np.where(inside, part.document, -1).astype(np.int32)
    names = [f"{lang}{name}" for name in part.documents]
    made = Part(
        tokens.astype(np.int32), part.lengths, document, part.scored, names, part.document_bytes
    )
    return Corpus(lang, made, made, one.header | {"lang": lang, "corpus_hash": lang})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Result files of a tiny model on three languages, as the jobs write them."""
    root = tmp_path_factory.mktemp("results") / "results" / "tiny"
    model = LanguageModel(tiny_model("llama"), tiny_tokenizer(), IDENTITY)
    corpora = {lang: corpus_of(lang, seed) for seed, lang in enumerate(LANGS)}
    settings = StatisticsConfig(histograms=("gate",))
    statistics = {lang: collect(model, one, settings) for lang, one in corpora.items()}
    for lang, one in statistics.items():
        one.write(root / "activations" / f"{lang}.safetensors")
    rows = [("aa", 0, 3, 0.2), ("aa", 1, 7, 0.1), ("bb", 1, 7, 0.1), ("ur", 1, 40, 0.3)]
    frame = pd.DataFrame(rows, columns=["lang", "layer", "neuron", "score"])
    about = {"languages": list(LANGS), "n_layers": 2, "d_mlp": 48, "method": "lape"}
    about |= {"model": "tiny", "revision": "0"}
    NeuronTable(frame, about).to_parquet(root / "neurons" / "set" / "lape.parquet")
    random = frame.assign(neuron=[9, 9, 10, 11], score=0.0)
    NeuronTable(random, about | {"method": "random"}).to_parquet(
        root / "neurons" / "set" / "random.parquet"
    )
    chosen = [np.array([3]), np.array([7, 40])]
    found = [
        texts(
            strongest(model, one, chosen, Wanted(3, 4), 60), one, model.tokenizer, words=2
        ).assign(lang=lang)
        for lang, one in corpora.items()
    ]
    languages = np.full(model.vocabulary, -1)
    languages[10:20] = 0
    written = written_tokens(model, chosen, languages, LANGS, 4)
    written.loc[written.index[0], "token"] = HOSTILE
    masks = {lang: NeuronTable(frame, about).mask(lang) for lang in LANGS}
    own = sorted({place for one in most_own(statistics, masks, 1).values() for place in one})
    costs = []
    for lang, one in corpora.items():
        plans = [None, *(zeroing(*place) for place in own)]
        read = document_nll(model, one, HeldOut(), 60, plans)
        places = [(-1, -1), *own]
        names = ["none", *(f"{layer}.{neuron}" for layer, neuron in own)]
        costs += [
            part.assign(deactivated=name, evaluated=lang, layer=layer, neuron=neuron)
            for name, (layer, neuron), part in zip(names, places, read, strict=True)
        ]
    metadata = {"model": "tiny", "langset": "set", "browser": {}}
    metadata["browser"] = {"selections": ["lape"], "words": 2, "contexts": 3, "tokens": 40}
    folder = root / "browser" / "set"
    for name, one in (
        ("contexts", pd.concat(found)),
        ("written", written),
        ("costs", pd.concat(costs)),
    ):
        write_parquet(folder / f"{name}.parquet", one, metadata)
    return root, statistics


def sources(root) -> Sources:
    return Sources(
        names={"model": "tiny", "langset": "set"},
        labels=labels(
            models={"tiny": "Tiny"},
            sets={"set": "three"},
            language_sets={"three": LANGS},
            language_names={"aa": "Aaish", "bb": "Beeish", "ur": "Urdu"},
            families={"aa": "A", "bb": "B", "ur": "Indo-Aryan"},
            languages=list(LANGS),
            selections={"lape": "LAPE", "random": "random"},
            roles={"random": {"random": "lape"}},
            results={"confidence": 0.95},
            sequence={"selections": ["lape", "random"]},
        ),
        link="",
        neurons=[str(root / "neurons" / "set" / f"{name}.parquet") for name in ("random", "lape")],
        statistics=[str(root / "activations" / f"{lang}.safetensors") for lang in LANGS],
        **{
            name: str(root / "browser" / "set" / f"{name}.parquet")
            for name in ("contexts", "written", "costs")
        },
    )


def unpacked(text: str, kind) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


# Numbers ---------------------------------------------------------------------------------------


def test_entropy_is_0_in_one_language_and_1_in_all_alike():
    probability = np.array([[[0.5, 0.2, 0.0]], [[0.0, 0.2, 0.0]], [[0.0, 0.2, 0.0]]])
    np.testing.assert_allclose(entropy(probability), [[0, 1, 1]], atol=1e-12)


def test_histograms_are_rebinned_as_the_values_lie():
    values = np.random.default_rng(0).normal(0.5, 2, 50_000)
    counts = np.bincount(bin_index(values.astype(np.float32)), minlength=len(EDGES) - 1)
    edges = np.linspace(-6, 7, 14)
    found = rebinned(counts, values.min(), values.max(), edges)
    expected = np.histogram(values, edges)[0] / len(values)
    np.testing.assert_allclose(found, expected, atol=0.01)
    everything = np.linspace(values.min(), values.max(), 30)
    np.testing.assert_allclose(rebinned(counts, values.min(), values.max(), everything).sum(), 1)


def test_equal_values_lie_in_one_bin():
    counts = np.zeros(len(EDGES) - 1)
    counts[bin_index(np.float32(2.5))] = 7
    found = rebinned(counts, 2.5, 2.5, np.linspace(0, 10, 11))
    assert found.argmax() in (2, 3) and found.sum() == 1


def test_neighbours_are_those_of_highest_correlation():
    probability = np.random.default_rng(0).random((5, 40))
    matrix = np.corrcoef(probability.T)
    np.fill_diagonal(matrix, -2)
    for row, near in enumerate(neighbours(probability, 4)):
        assert [j for j, _ in near] == np.argsort(-matrix[row], kind="stable")[:4].tolist()
    assert neighbours(probability[:2], 4) == [[]] * 40


def test_the_index_holds_every_neuron(results):
    root, statistics = results
    index = Browser(sources(root)).index()
    probability = np.stack([one.probability("act").ravel() for one in statistics.values()])
    np.testing.assert_array_equal(unpacked(index["best"], np.uint8), probability.argmax(0))
    got = unpacked(index["top"], "<u2") / WHOLE
    np.testing.assert_allclose(got, probability.max(0), atol=1e-4)
    assert index["shown"] == [3, 48 + 7, 48 + 40]
    lape, random = index["selections"]
    assert lape["neurons"] == [[3, 55], [55], [88]] and lape["scores"] == [[0.2, 0.1], [0.1], [0.3]]
    assert random["random"] and random["scores"] is None
    assert [one["direction"] for one in index["languages"]] == ["ltr", "ltr", "rtl"]
    assert index["languages"][0]["tokens"] == statistics["aa"].tokens


def test_layers_hold_probabilities_contexts_tokens_and_costs(results):
    root, statistics = results
    layers = list(Browser(sources(root)).layers())
    for number, layer in enumerate(layers):
        got = unpacked(layer["probability"], "<u2").reshape(48, 3) / WHOLE
        for k, lang in enumerate(LANGS):
            np.testing.assert_allclose(got[:, k], statistics[lang].probability()[number], atol=1e-4)
    one = layers[1]["neurons"]["55"]
    value, peak, pieces, digits = one["contexts"]["aa"][0]
    assert len(pieces) == len(digits) and digits[peak] == "9"
    assert value == pytest.approx(statistics["aa"].max()[1, 7], rel=0.2)
    assert len(one["written"]["raised"]) == 4 and len(one["written"]["aa"]) == 5
    assert set(one["costs"]) == set(LANGS) and len(one["costs"]["aa"]) == 4
    bars = unpacked(one["histogram"]["bars"][0], np.uint8)
    assert len(bars) == 48 and bars.max() > 0


def test_equal_results_give_equal_bytes(results, tmp_path):
    root, _ = results
    own = sources(root)
    inputs = {
        name: getattr(own, name)
        for name in ("neurons", "statistics", "contexts", "written", "costs")
    }
    for name in ("a", "b"):
        size = write_browser(tmp_path / name, own.names, own.labels, "", inputs)
    first, second = (sorted((tmp_path / name).rglob("*")) for name in ("a", "b"))
    files = [(x, y) for x, y in zip(first, second, strict=True) if x.is_file()]
    assert len(files) == 4 and all(x.read_bytes() == y.read_bytes() for x, y in files)
    assert size == sum(x.stat().st_size for x, _ in files)


# In a browser ----------------------------------------------------------------------------------

DRIVER = """
<script>
addEventListener("load", async () => {
  const report = {}, wait = ms => new Promise(done => setTimeout(done, ms));
  const lines = () => [...document.querySelectorAll(".line .place")].map(one => one.textContent);
  const search = async text => {
    const box = document.getElementById("query");
    box.value = text; box.dispatchEvent(new Event("input")); await wait(120);
    return [lines(), LN.list().milliseconds];
  };
  try {
    report.first = lines();
    report.searches = {};
    for (const text of ["aa", "1.7", "shared", "exclusive", "L0", "zzz", ""])
      report.searches[text] = (await search(text))[0];
    document.querySelector(".line").click(); await wait(400);
    report.title = document.querySelector("#detail h2").textContent;
    report.contexts = document.querySelectorAll(".context").length;
    report.read = [...document.querySelectorAll("#detail .note")].map(one => one.textContent);
    report.hash = location.hash;
    const tabs = [...document.querySelectorAll(".tabs button")];
    const tab = tabs.find(one => one.dataset.code === "ur");
    if (tab) { tab.click(); await wait(50); const text = document.querySelector(".context p");
      report.direction = [text.lang, text.dir, getComputedStyle(text).direction]; }
    document.querySelector('[aria-label="Next neuron in the list"]').click(); await wait(200);
    report.next = document.querySelector("#detail h2").textContent;
    document.querySelectorAll("#map .column")[1].click(); await wait(100);
    report.language = [document.querySelector("#detail h2").textContent, lines()];
    document.getElementById("clear").click(); await wait(50);
    const scope = document.getElementById("scope");
    scope.value = "all"; scope.dispatchEvent(new Event("change")); await wait(100);
    report.all = LN.list().length;
    document.querySelector('#heads button[data-key="top"]').click(); await wait(50);
    report.sorted = LN.list().slice(0, 5).map(one => LN.data().top[one]);
    report.broken = window.broken === undefined ? 0 : 1;
    report.wide = document.documentElement.scrollWidth - innerWidth;
  } catch (error) { report.error = String(error.stack); }
  document.body.dataset.report = JSON.stringify(report);
  console.log("end of driver");
});
</script>
"""


def drive(folder, driver, width=1280, height=900, anchor=""):
    """Return what a driver reports and the lines of the console."""
    page = folder / f"driven-{width}.html"
    text = (folder / "index.html").read_text("utf-8")
    page.write_text(text.replace("</body>", driver + "</body>"), "utf-8")
    command = [
        find_browser(), "--headless=new", "--no-sandbox", "--disable-gpu",
        "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},{height}", "--virtual-time-budget=20000",
        "--enable-logging=stderr", "--v=0", "--dump-dom", page.as_uri() + anchor,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=180)
    match = re.search(r'data-report="([^"]*)"', done.stdout)
    assert match, done.stderr[-2000:]
    page.unlink()
    shutil.rmtree(folder / "profile", ignore_errors=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(match[1])), console


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    root, _ = results
    own, made = sources(root), tmp_path_factory.mktemp("pages")
    inputs = {
        name: getattr(own, name)
        for name in ("neurons", "statistics", "contexts", "written", "costs")
    }
    write_browser(made, own.names, own.labels, "", inputs)
    return made


@pytest.fixture(scope="module")
def opened(folder):
    return drive(folder, DRIVER)


def test_no_error_on_the_console(opened):
    report, console = opened
    assert "error" not in report, report.get("error")
    assert len(console) == 1 and "end of driver" in console[0], console
    assert report["broken"] == 0


def test_search_finds_by_language_place_sharing_and_layer(opened):
    report, _ = opened
    assert report["first"] == ["0.3", "1.7", "1.40"]
    assert report["searches"] == {
        "aa": ["0.3", "1.7"],
        "1.7": ["1.7"],
        "shared": ["1.7"],
        "exclusive": ["0.3", "1.40"],
        "L0": ["0.3"],
        "zzz": [],
        "": ["0.3", "1.7", "1.40"],
    }


def test_a_neuron_opens_and_the_address_keeps_it(opened):
    report, _ = opened
    assert report["title"] == "Layer 0, neuron 3" and report["contexts"] > 0
    assert report["hash"] == "#neuron=0.3"
    assert any(
        text.startswith("The 3 documents") and "first 40 tokens of each language" in text
        for text in report["read"]
    )
    assert report["next"] == "Layer 1, neuron 7"


def test_texts_have_the_direction_of_their_script(opened):
    report, _ = opened
    assert report.get("direction", ["ur", "rtl", "rtl"]) == ["ur", "rtl", "rtl"]


def test_a_language_opens_from_the_map(opened):
    report, _ = opened
    assert report["language"] == ["Beeish", ["1.7"]]


def test_all_neurons_can_be_listed_and_sorted(opened):
    report, _ = opened
    assert report["all"] == 96
    assert report["sorted"] == sorted(report["sorted"], reverse=True)


PHONE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const report = { wide: document.documentElement.scrollWidth - innerWidth,
    title: document.querySelector("#detail h2").textContent };
  document.body.dataset.report = JSON.stringify(report);
}, 600));
</script>
"""


def test_an_address_opens_its_view_on_a_phone(folder):
    report, _ = drive(folder, PHONE, width=500, anchor="#neuron=1.40&languages=ur")
    assert report["title"] == "Layer 1, neuron 40" and report["wide"] <= 0


def test_a_missing_layer_is_said(folder, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    (copied / "data" / "layer-001.js").unlink()
    driver = PHONE.replace("#detail h2", "#detail p")
    report, _ = drive(copied, driver, anchor="#neuron=1.40")
    assert "data/layer-001.js beside this page is missing" in report["title"]
