"""Text controls in the graph: a full run on a tiny model, and what an edit of a variant reruns."""

import json

import pandas as pd
import pytest
from test_collect import assert_same
from test_workflow import CONFIG, SHOWING, Checkout, save_tiny_model

from langneurons.activations.merging import merge
from langneurons.activations.statistics import Statistics
from langneurons.base.io import read_header, read_jsonl
from langneurons.selection.table import NeuronTable

OWN = {
    **{key: CONFIG[key] for key in ("name", "models")},
    "language_sets": {
        "all": ["en", "hi", "hi@romanised", "hi@shuffled", "hi@random", "hi@other"],
        "short": ["en", "hi@romanised", "hi@other"],
    },
    "corpus": {
        **CONFIG["corpus"],
        "variants": {
            "romanised": {"kind": "romanised"},
            "shuffled": {"kind": "shuffled_words"},
            "random": {"kind": "random_tokens"},
            "other": {"kind": "source", "source": {"kind": "mini", "texts": "parallel"}},
        },
    },
    "statistics": {"batch_blocks": 4, "slices": 3},
    "stability": {
        "selections": ["prob"],
        "language_sets": ["all"],
        "draws": 2,
        "budgets": [1.0],
        "comparisons": {"set": ["all", "short"]},
    },
    "hypotheses": {
        "again": {
            "says": "Neurons are found again in a smaller set.",
            **{"measure": "jaccard", "selection": "prob", "comparison": "set"},
            **{"direction": "above", "threshold": 0.5},
        }
    },
    "selections": {"prob": {"method": "exceedance", "rate": 0.05}},
    "interventions": {"zero": {"operation": "set", "value": 0}},
    "perplexity": {"interventions": ["zero"], "tokens": 120},
    "browser": {"contexts": 1, "words": 3, "zeroed": 0},
    "results": {"bootstrap": 100},
}
CODES = OWN["language_sets"]["all"]
SET = "en-hi-hi@other-hi@random-hi@romanised-hi@shuffled"
PAGE = f"results/browser/tiny/tiny/{SET}/index.html"
TABLES = [
    f"results/tables/tiny/{name}.csv"
    for name in ("perplexity", "corpora", "stability", "hypotheses")
]
MADE = ["--", *TABLES, PAGE]


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("variants"))
    checkout.config = OWN
    checkout.save()
    save_tiny_model(checkout.path / "tiny-model")
    checkout.make(*MADE)
    return checkout


@pytest.fixture
def changed(varied):
    yield varied
    varied.config = OWN
    varied.save()


def computing(checkout, **variants):
    checkout.config = json.loads(json.dumps(OWN))
    for name, entry in variants.items():
        checkout.config["corpus"]["variants"][name] = entry
    checkout.save()
    return {rule: n for rule, n in checkout.planned(*MADE).items() if not rule.startswith(SHOWING)}


def test_a_variant_goes_from_the_set_to_the_perplexity_table(varied):
    results = varied.path / "results"
    text = {lang: read_jsonl(varied.path / f"resources/text/{lang}.jsonl") for lang in CODES[:4]}
    names = {lang: [(row["id"], row["split"]) for row in rows] for lang, rows in text.items()}
    assert names["hi"] == names["hi@romanised"] == names["hi@shuffled"]
    assert not (varied.path / "resources/text/hi@random.jsonl").exists()
    corpora = {lang: read_header(results / f"tiny/corpora/{lang}.safetensors") for lang in CODES}
    assert len({header["corpus_hash"] for header in corpora.values()}) == len(CODES)
    assert corpora["hi@random"]["tokens"] == corpora["hi"]["tokens"]
    for lang in CODES:
        one = Statistics.read(results / f"tiny/activations/{lang}.safetensors", lang=lang)
        assert one.tokens == corpora[lang]["tokens"]["identification"]
    table = pd.read_csv(results / "tables/tiny/perplexity.csv")
    assert set(table["evaluated"]) == set(table["deactivated"]) == set(CODES)
    corpus = pd.read_csv(results / "tables/tiny/corpora.csv", keep_default_na=False)
    changes = dict(zip(corpus["language"], corpus["variant"], strict=True))
    assert changes["English"] == changes["Hindi, other"] == ""
    assert changes["Hindi, romanised"].endswith("letters romanised, 0 stayed")
    assert "tokens drawn" in changes["Hindi, random"]
    sources = pd.read_csv(results / "tables/tiny/sources.csv", keep_default_na=False)
    rows = sources[sources["what"] == "text"].set_index("name")
    assert rows.loc["", "languages"] == "en, hi" and rows.loc["romanised", "languages"] == "hi"
    assert rows.loc["", "rows"] == "530" and rows.loc["other", "rows"] == "60"
    assert (results / f"tiny/neurons/{SET}/prob.parquet").exists()
    contexts = pd.read_parquet(results / f"tiny/browser/{SET}/contexts.parquet")
    assert set(contexts["lang"]) == set(CODES)
    written = pd.read_parquet(results / f"tiny/browser/{SET}/written.parquet")
    assert set(written["group"]) <= {"raised", "lowered", "en", "hi"}
    page = "".join(
        path.read_text() for path in (varied.path / PAGE).parent.rglob("*") if path.is_file()
    )
    assert '"tag":"hi-Latn"' in page.replace('": "', '":"')
    assert varied.planned(*MADE) == {}


def test_an_edit_of_a_variant_reruns_its_own_jobs(changed):
    after = {"select_neurons": 1, "measure_perplexity": 1, "describe_neurons": 1}
    after |= {"measure_stability": 1}
    own = {"pack_corpus": 1, "collect_statistics": 1} | after
    seed = {"kind": "shuffled_words", "seed": 1}
    assert computing(changed, shuffled=seed) == {"vary_text": 1} | own
    assert computing(changed, random={"kind": "random_tokens", "seed": 1}) == own
    parallel = {**OWN["corpus"]["variants"]["other"], "label": "parallel sentences"}
    assert computing(changed, other=parallel) == {}


def test_slices_of_every_language_make_its_statistics_and_the_stability(varied):
    results = varied.path / "results"
    for lang in CODES:
        paths = [results / f"tiny/slices/{lang}/{number}.safetensors" for number in range(3)]
        slices = [Statistics.read(path, lang=lang) for path in paths]
        whole = Statistics.read(results / f"tiny/activations/{lang}.safetensors", lang=lang)
        assert_same(merge(slices), merge([whole]))
        sizes = [one.blocks for one in slices]
        assert max(sizes) - min(sizes) <= 4 and sum(sizes) == whole.blocks
    frame = pd.read_parquet(results / f"tiny/stability/{SET}/prob.parquet")
    table = NeuronTable.from_parquet(results / f"tiny/neurons/{SET}/prob.parquet")
    last = frame[frame["kind"] == "budget"].set_index("lang")
    assert last["neurons"].to_dict() == table.counts().to_dict()
    assert (last["jaccard"] == 1).all()
    written = pd.read_csv(results / "tables/tiny/stability.csv")
    assert set(written["kind"]) == {"halves", "budget", "bootstrap", "set"}
    short = results / "tiny/neurons/en-hi@other-hi@romanised/prob.parquet"
    again = frame[(frame["kind"] == "set") & (frame["draw"] == 0)].set_index("lang")
    for lang in ("en", "hi@romanised", "hi@other"):
        one, two = table.mask(lang), NeuronTable.from_parquet(short).mask(lang)
        assert again.loc[lang, "jaccard"] == (one & two).sum() / (one | two).sum()
    (claim,) = pd.read_csv(results / "tables/tiny/hypotheses.csv").to_dict("records")
    assert claim["value"] == pytest.approx(again["jaccard"].mean()) and claim["units"] == 3
    assert not list((varied.path / "results/.work/statistics").glob("*"))


def test_a_language_with_fewer_tokens_than_asked_for_is_refused(changed):
    changed.config = json.loads(json.dumps(OWN))
    changed.config["corpus"]["variants"]["equal"] = {"kind": "tokens", "tokens": 10**6}
    changed.config["language_sets"]["all"].append("hi@equal")
    changed.save()
    target = "results/tiny/corpora/hi@equal.safetensors"
    done = changed.run(target, "-c1", "--configfile", "tiny.yaml", check=False)
    said = (changed.path / "logs/pack_corpus/tiny/hi@equal.log").read_text()
    assert done.returncode != 0 and "hi@equal: 'hi' has " in said
    assert "fewer than 1000000 (corpus.variants.equal.tokens)" in said
