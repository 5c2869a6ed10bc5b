"""Statistics that stop themselves: the rule, its error rate, what is read, and what is shown."""

import copy
import json
import os
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import yaml
from inprocess import run
from labelled import labels
from test_collect import (  # noqa: F401
    EVERYTHING,
    IDENTITY,
    Killed,
    kill_at,
    measure,
    one_thread,
    tiny_corpus,
)
from test_config import GOOD
from test_plan import ASSUMED, ROOT
from test_selection import from_counts, lape_by_hand
from test_stability import LAPE, selection, sliced_counts, summed
from test_workflow import save_tiny_model
from tiny import tiny_model

from langneurons.activations.statistics import Statistics
from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import read_parquet, write_parquet
from langneurons.config import build, read_configs
from langneurons.integrations.inprocess import planned
from langneurons.jobs.common import ModelJob
from langneurons.jobs.costs import Planner, text
from langneurons.jobs.parameters import stage
from langneurons.jobs.until import until_cell
from langneurons.models.language_model import LanguageModel
from langneurons.reporting.kinds import KINDS, all_figures
from langneurons.reporting.tables.until import budgets_read, tabulate_until
from langneurons.selection.method import More
from langneurons.selection.methods.lape import bar, entropy
from langneurons.selection.until import agreements, budgets, compared, set_means, stable_at

# The rule -----------------------------------------------------------------------------------------


def test_budgets_double_and_their_halves_are_compared():
    assert budgets(16) == [1, 2, 4, 8, 16] and budgets(4) == [1, 2, 4]
    assert compared(8, True) == (range(4), range(4, 8))
    assert compared(8, False) == (range(4), range(8))  # the budget before, and all of it


def curve(**sets):
    """Return records of budgets 2, 4, ...: per set, the Jaccard indices of two languages."""
    return [
        {"slices": 2 ** (number + 1), "langset": name, "lang": lang, "jaccard": value}
        for name, values in sets.items()
        for number, both in enumerate(values)
        for lang, value in zip(("aa", "bb"), both, strict=True)
    ]


NAN = float("nan")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (curve(one=[(0.9, 0.9)]), None),
        (curve(one=[(0.9, 0.9), (0.9, 0.9)]), 4),
        (curve(one=[(0.9, 0.7), (0.8, 0.8)]), 4),  # the mean counts, and the threshold is enough
        (curve(one=[(0.9, 0.9), (0.7, 0.8), (0.9, 0.9)]), None),  # twice, but not in a row
        (curve(one=[(0.1, 0.1), (0.9, 0.9), (0.9, 0.9)]), 8),
        (curve(one=[(0.9, 0.9)] * 2, two=[(0.1, 0.1), (0.9, 0.9)]), None),  # every set
        (curve(one=[(0.9, 0.9)] * 3, two=[(0.1, 0.1), (0.9, 0.9), (0.9, 0.9)]), 8),
        (curve(one=[(0.9, NAN), (0.9, NAN)]), 4),  # a language without neurons
        (curve(one=[(NAN, NAN), (NAN, NAN)]), None),  # no neurons at all are not stable ones
    ],
)
def test_reading_stops_where_every_set_agrees_twice_in_a_row(rows, expected):
    assert stable_at(rows, 0.8) == expected


@pytest.mark.parametrize("seed", range(5))
def test_agreements_are_those_of_sums_by_hand(seed):
    slices = sliced_counts(seed)
    sets = {"three": ["en", "fr", "de"], "two": ["de", "en"]}
    first, second = (
        {lang: summed([parts[i] for i in chosen]) for lang, parts in slices.items()}
        for chosen in compared(4, True)
    )
    rows = agreements({"": selection("lape", **LAPE)}, sets, first, second, More())
    assert [row["lang"] for row in rows] == ["de", "en", "fr", "de", "en"]
    for name, langs in sets.items():
        by_hand = [
            lape_by_hand({lang: part[lang] for lang in langs}, *LAPE.values())
            for part in (first, second)
        ]
        for row in (one for one in rows if one["langset"] == name):
            one, two = (set(found[row["lang"]]) for found in by_hand)
            assert row["jaccard"] == pytest.approx(len(one & two) / len(one | two))
            assert (row["neurons"], row["other_neurons"]) == (len(one), len(two))


# How often it stops too early ---------------------------------------------------------------------

LANGS = ("aa", "bb", "cc", "dd", "ee")
SIMULATED = max(15, int(os.environ.get("LANGNEURONS_DRAWS", "0")))


@dataclass(frozen=True)
class Case:
    """A simulated model and text. per_slice: tokens.

    spread: standard deviation of the logarithm of a slice's own probabilities around those of the
    language, as documents differ.
    """

    neurons: int
    per_slice: int
    spread: float
    slices: int = 32


def probabilities(draw, neurons):
    """Return P(a > 0) by language: common to all, with noise, and raised in one language of few."""
    shape = len(LANGS), neurons
    common = draw.beta(0.5, 4, neurons) * np.exp(draw.normal(0, 0.3, shape))
    own = draw.random(shape) < 0.03
    return np.clip(common + own * draw.beta(2, 3, shape), 1e-4, 0.999)


def chosen(probability):
    """Return LAPE's neurons by language at rate 1 %, levels 0.95: bool (languages, neurons)."""
    claimed = probability > bar(probability, 0.95)
    scores = np.where(claimed.any(axis=0), entropy(probability), np.inf)
    kept = np.zeros(scores.size, bool)
    kept[np.argsort(scores, kind="stable")[: round(0.01 * scores.size)]] = True
    return claimed & kept & np.isfinite(scores)


def jaccards(one, two):
    union = (one | two).sum(axis=1)
    return np.where(union, (one & two).sum(axis=1) / np.maximum(union, 1), np.nan)


def stopped(seed, case, threshold, halves=True):
    """Return slices that were read, whether it was stable, and the Jaccard index with the truth.

    Activations are Bernoulli draws.
    """
    draw = np.random.default_rng(seed)
    truth = probabilities(draw, case.neurons)
    counts, rows, stable = np.zeros((0, *truth.shape)), [], None
    for budget in budgets(case.slices):
        shape = budget - len(counts), *truth.shape
        factor = np.exp(draw.normal(-(case.spread**2) / 2, case.spread, shape))  # of mean 1
        own = np.clip(truth * factor, 0, 1)
        counts = np.concatenate([counts, draw.binomial(case.per_slice, own)])
        if budget == 1:
            continue
        parts = [counts[list(part)].mean(axis=0) for part in compared(budget, halves)]
        values = jaccards(*(chosen(part / case.per_slice) for part in parts))
        one = {"slices": budget, "langset": "all"}
        rows += [
            one | {"lang": lang, "jaccard": value}
            for lang, value in zip(LANGS, values, strict=True)
        ]
        stable = stable_at(rows, threshold)
        if stable is not None:
            break
    read = chosen(counts.mean(axis=0) / case.per_slice)
    return budget, stable is not None, float(np.nanmean(jaccards(read, chosen(truth))))


def test_the_simulation_chooses_lape_s_neurons():
    probability = probabilities(np.random.default_rng(0), 2000)
    counts = np.round(probability * 10**6).astype(np.int64)
    table = selection("lape").select(
        {lang: from_counts(lang, own[None], 10**6) for lang, own in zip(LANGS, counts, strict=True)}
    )
    for lang, own in zip(LANGS, chosen(counts / 10**6), strict=True):
        assert set(np.flatnonzero(own)) == set(table[table["lang"] == lang]["neuron"])


CASES = {
    "little text": Case(2000, 250, 0.0),
    "more text": Case(2000, 1000, 0.0),
    "documents differ": Case(2000, 1000, 0.2),
    "few neurons": Case(500, 1000, 0.0),  # 5 are chosen: the Jaccard index jumps
}


# The share of runs that may be called stable although they agree less with the truth.
@pytest.mark.parametrize(("halves", "least", "most"), [(True, 0.0, 0.03), (False, 0.05, 0.25)])
def test_it_rarely_stops_before_the_neurons_are_the_true_ones(halves, least, most):
    """Count false stops: stable, but against the truth below the threshold."""
    runs = wrong = 0
    for name, case in CASES.items():
        for threshold in (0.8, 0.9):
            found = [stopped(seed, case, threshold, halves) for seed in range(SIMULATED)]
            stable = [one for one in found if one[1]]
            false = sum(agreed < threshold for _, _, agreed in stable)
            print(
                f"{name}, threshold {threshold}, {'halves' if halves else 'half and whole'}:"
                f" stable {len(stable)} of {len(found)}, false {false}, slices"
                f" {np.median([slices for slices, *_ in stable]) if stable else '-'}"
            )
            runs, wrong = runs + len(found), wrong + false
    print(f"false: {wrong} of {runs} runs, {wrong / runs:.2%}")
    assert least <= wrong / runs <= most


# What is read -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job(ModelJob):
    """A job of a model in memory, on texts of its own."""

    module: object = None
    texts: object = None

    def model(self):
        return LanguageModel(self.module, identity=IDENTITY)

    def corpora(self, model):
        return dict(self.texts)


def text_of(lang, n_blocks, packing):
    corpus = tiny_corpus(n_blocks)
    part = copy.deepcopy(corpus.identification)
    draw = np.random.default_rng(len(lang) + ord(lang[0]))
    part.tokens[:, 1:] = draw.permuted(part.tokens[:, 1:], axis=1)
    if packing == "joined":  # every block is full
        part.lengths[:] = part.tokens.shape[1]
        part.scored[:, 3:] = True
    return replace(corpus, lang=lang, identification=part, header=corpus.header | {"lang": lang})


def job_of(packing="joined", module=None, slices=8, n_blocks=32, **rule):
    settings = EVERYTHING.model_copy(update={"batch_blocks": 1, "batch_quantiles": ()})
    parameters = {
        "statistics": settings.model_dump(mode="json", exclude={"until"}),
        "until": {"jaccard": 0.05, "halves": True, "slices": slices} | rule,
        "sets": {"aa-bb": ["aa", "bb"]},
        "selections": [["", selection("lape", rate=0.2, **LEVELS).identity()]],
    }
    texts = {lang: text_of(lang, n_blocks, packing) for lang in ("bb", "aa")}
    module = module or tiny_model("llama")
    return Job(parameters, ["code"], {}, {}, module=module, texts=texts)


LEVELS = {"filter_level": 0.5, "assign_level": 0.5}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(here, kind, *numbers):
    names = [f"{lang}/{n}" for lang in ("aa", "bb") for n in numbers] or ["aa", "bb"]
    return [str(here / f"results/tiny/{kind}/{name}.safetensors") for name in names]


def same_arrays(one, other):
    assert one.arrays.keys() == other.arrays.keys()
    for key in one.arrays:
        np.testing.assert_array_equal(one.arrays[key], other.arrays[key], err_msg=key)


@pytest.mark.parametrize("packing", ["joined", "document"])
def test_what_is_read_is_a_run_on_that_much_text(packing, here):
    job = job_of(packing)
    found = until_cell(job, 300)
    assert found.metadata["stable"] and found.metadata["read"] == 4
    statistics, parts = files_of(here, "activations"), files_of(here, "slices", 0, 1)
    tokens = found.write(statistics, parts)
    assert tokens == sum(found.metadata["tokens"].values())
    settings = EVERYTHING.model_copy(update={"batch_blocks": 1, "batch_quantiles": ()})
    for lang, path in zip(("aa", "bb"), statistics, strict=True):
        corpus = job.texts[lang]
        half = corpus.identification._cut(16)
        # A run of its own on the budget: the same parts, in which documents are sorted by length.
        cut = replace(corpus, identification=half)
        plain = measure(job.module, settings.model_copy(update={"slices": 4}), cut)
        whole = Statistics.read(path, lang=lang)
        same_arrays(whole, plain)
        assert whole.header["slices"] == [4, 8] and whole.header["blocks"] == [0, 16]
        assert whole.header["corpus_blocks"] == 32
        assert whole.tokens == plain.tokens == found.metadata["tokens"][lang]
        assert found.metadata["there"][lang] == corpus.identification.scored.sum()
        own = [Statistics.read(one, lang=lang) for one in parts if f"/{lang}/" in one]
        assert [one.header["blocks"] for one in own] == [[0, 8], [8, 16]]
    found.forget()
    assert not list((here / "results/.work").rglob("*.safetensors"))


def test_the_curve_holds_every_budget_and_the_end_of_the_text_stops(here):
    found = until_cell(job_of(jaccard=0.999), 300)
    assert found.metadata["read"] == 8 and not found.metadata["stable"]
    assert found.metadata["tokens"] == found.metadata["there"]
    assert found.curve["slices"].tolist() == [2, 2, 4, 4, 8, 8]
    assert found.curve["lang"].tolist() == ["aa", "bb"] * 3
    assert (found.curve.groupby("lang")["tokens"].diff().dropna() > 0).all()
    with_whole = until_cell(job_of(jaccard=0.999, halves=False), 300)
    both = [one.curve["jaccard"].mean() for one in (found, with_whole)]
    assert both[1] > both[0]  # the half is a part of the whole


def test_a_killed_job_goes_on_with_the_slices_that_it_has(here):
    plain = until_cell(job_of(), 300)
    plain.write(files_of(here, "activations"), [])
    expected = [dict(Statistics.read(path).arrays) for path in files_of(here, "activations")]
    plain.forget()
    # A slice has 4 batches; two languages are read to 4 slices: 32 passes.
    module = tiny_model("llama")
    kill_at(module, 19)
    with pytest.raises(Killed):
        until_cell(job_of(module=module), 300)
    assert len(list((here / "results/.work").rglob("*.slice.safetensors"))) == 4
    module = tiny_model("llama")
    calls = kill_at(module, 10**6)
    found = until_cell(job_of(module=module), 300)
    assert calls == [16]
    pd.testing.assert_frame_equal(found.curve, plain.curve)
    found.write(files_of(here, "activations"), [])
    for path, arrays in zip(files_of(here, "activations"), expected, strict=True):
        one = Statistics.read(path)
        for key, array in arrays.items():
            np.testing.assert_array_equal(one.arrays[key], array)


def test_a_text_with_fewer_batches_than_slices_is_refused(here):
    with pytest.raises(InputError, match=r"fewer than statistics.until.slices: 64. Lower"):
        until_cell(job_of(slices=64), 300)


# In the graph -------------------------------------------------------------------------------------

OWN = {
    "name": "tiny",
    "models": {"tiny": {"source": {"kind": "local", "path": "tiny-model"}, "dtype": "float32"}},
    "language_sets": {"three": ["en", "vi", "hi"], "two": ["en", "hi"]},
    "corpus": {
        "source": {"kind": "mini"},
        "tokens": 16 * 63,
        "heldout_tokens": 400,
        "heldout_fraction": 0.2,
        "block_size": 64,
    },
    "statistics": {
        "batch_blocks": 1,
        "slices": 4,
        "until": {"selection": "mine", "jaccard": 0.1},
    },
    "stability": {"selections": ["mine"], "draws": 2, "budgets": [0.5, 1.0]},
    "selections": {
        "mine": {"method": "lape", "rate": 0.1, "filter_level": 0.6, "assign_level": 0.6},
        "prob": {"method": "exceedance", "rate": 0.02, "language_sets": ["two"]},
    },
}
SHOWN = ("results/tables/tiny/until.csv", "results/tables/tiny/stability.csv")


def made(folder, targets, **changes):
    config = json.loads(json.dumps(OWN)) | changes
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    return run(folder, folder / "mine.yaml", targets)


def test_the_graph_reads_as_much_as_is_needed(tmp_path):
    save_tiny_model(tmp_path / "tiny-model")
    figure = next(one.stem + ".svg" for one in all_figures(build(OWN)) if one.kind == "until")
    done = made(tmp_path, (*SHOWN, figure))
    assert done.count("collect_until@tiny") == 1 and "collect_statistics" not in done
    results = tmp_path / "results"
    table = pd.read_csv(results / "tables/tiny/until.csv").iloc[0]
    read, there = int(table["slices"]), int(table["slices_there"])
    assert (read, there) == (4, 16) and table["stable"] and table["selection"] == "mine"
    assert table["tokens"] == 3 * 4 * 63 and table["share_left"] == 0.75
    frame, metadata = read_parquet(results / "tiny/until.parquet")
    assert set(frame["langset"]) == {"en-hi", "en-hi-vi"} and metadata["read"] == 4
    kept = {lang: statistics_in(results, lang) for lang in ("en", "vi", "hi")}
    assert not list((results / ".work/statistics").glob("*"))
    # A run with that budget of tokens has the same statistics, array by array.
    shutil.rmtree(results)
    plain = {"statistics": {"batch_blocks": 1}, "stability": None}
    corpus = OWN["corpus"] | {"tokens": read * 63}
    targets = tuple(f"results/tiny/activations/{lang}.safetensors" for lang in kept)
    done = made(tmp_path, targets, corpus=corpus, **plain)
    assert done.count("collect_statistics") == 3
    for lang, (header, arrays) in kept.items():
        other, same = statistics_in(results, lang)
        assert header["slices"] == [4, 16] and header["tokens"] == other["tokens"]
        assert arrays.keys() == same.keys()
        for key in arrays:
            np.testing.assert_array_equal(arrays[key], same[key], err_msg=key)


def statistics_in(results, lang):
    one = Statistics.read(results / f"tiny/activations/{lang}.safetensors", lang=lang)
    return one.header, dict(one.arrays)


def test_models_with_other_languages_have_rules_of_their_own(tmp_path):
    config = json.loads(json.dumps(OWN))
    config["models"]["other"] = config["models"]["tiny"] | {"language_sets": ["two"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    save_tiny_model(tmp_path / "tiny-model")
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        jobs = {job.rule.name: job for job in planned(tmp_path, [tmp_path / "mine.yaml"])}
    finally:
        os.chdir(here)
    one, other = (jobs[f"collect_until@{model}"] for model in ("tiny", "other"))
    assert len(one.output) == 1 + 3 + 12 and len(other.output) == 1 + 2 + 8
    assert one.params.cfg["sets"].keys() == {"en-hi", "en-hi-vi"}
    assert other.params.cfg["sets"] == {"en-hi": ["en", "hi"]}


def test_a_name_of_the_selection_reruns_nothing():
    config = json.loads(json.dumps(OWN))
    renamed = json.loads(json.dumps(OWN).replace('"mine"', '"theirs"'))
    first, second = (stage(build(one), "collect_until", model="tiny") for one in (config, renamed))
    assert first == second and first["selections"][-1][0] == ""
    config["statistics"]["until"]["jaccard"] = 0.3
    assert stage(build(config), "collect_until", model="tiny") != first


def test_without_it_the_parameters_of_a_pass_are_what_they_were():
    config = json.loads(json.dumps(OWN))
    del config["statistics"]["until"]
    parameters = stage(build(config), "collect_statistics", model="tiny", lang="en")
    assert "until" not in parameters["statistics"]


def refused(**changes):
    raw = copy.deepcopy(GOOD)
    raw["selections"] |= {
        "effect": {"method": "attribution"},
        "both": {"method": "combined", "selections": ["lape", "control"]},
        "given": {"method": "published", "path": "masks.pth", "order": "tang2024", **PAIR},
        "way": {"method": "diffmean"},
        "ranked": {"method": "average_precision", "like": "lape"},
        "here": {"method": "lape", **PAIR},
    }
    raw["language_sets"]["pair"] = ["en", "vi"]
    raw["statistics"] = {"sites": ["gate", "act", "product", "residual"], "document_means": ["act"]}
    statistics = changes.pop("statistics", {})
    raw["statistics"] |= {"until": {"selection": "lape"} | changes.pop("until", {})} | statistics
    return raw | changes


PAIR = {"language_sets": ["pair"]}
TINY = {"tiny": GOOD["models"]["tiny"] | {"language_sets": ["three"]}}
REFUSED = {
    "unknown": ({"until": {"selection": "lap"}}, "'lap' is not a known selection"),
    "drawn": ({"until": {"selection": "control"}}, "it is drawn, and follows from no statistics"),
    "read by it": ({"until": {"selection": "both"}}, "'both', which reads 'control': it is drawn"),
    "given": ({"until": {"selection": "given"}}, "its neurons are given"),
    "attributions": ({"until": {"selection": "effect"}}, "reads attributions, of which no slices"),
    "documents": ({"until": {"selection": "ranked"}}, "reads means per document, which sums of"),
    "directions": ({"until": {"selection": "way"}}, "it gives directions, and a Jaccard index is"),
    "legal": ({"until": {"selection": "effect"}}, "Legal: lape, prob, here."),
    "nowhere": (
        {"until": {"selection": "here"}, "models": TINY},
        "'here' is not made on a language set of models.tiny",
    ),
    "shards": ({"statistics": {"shards": 2}}, "one job reads the text of every language"),
    "parts": ({"statistics": {"slices": 8}}, "slices: 8 parts are kept of what was read"),
    "few": ({"until": {"slices": 2}}, "slices"),
    "odd": ({"until": {"slices": 12}}, "12 is not a power of two"),
    "one": ({"until": {"jaccard": 1}}, "jaccard"),
    "little text": (
        {"corpus": {"source": {"kind": "mini"}, "tokens": 1000}},
        "statistics.until.slices: 16 of 1000 tokens in batches of",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_stop_the_reading_is_refused(name):
    changes, said = REFUSED[name]
    with pytest.raises(ConfigError) as error:
        build(refused(**changes))
    assert said in str(error.value)


def test_the_plan_counts_the_whole_text_as_the_most():
    raw = read_configs([ROOT / "config/papers/mondal2025.yaml"]).model_dump(mode="json")
    plans = []
    for more in ({}, {"until": {"selection": next(iter(raw["selections"]))}}):
        raw["statistics"] = raw["statistics"] | {"shards": 1} | more
        plans.append(Planner(build(raw), ASSUMED, ROOT / "nowhere"))
    plain, until = (
        next(one for one in plan.lines() if one.rule == rule and one.model == "llama-3.1-8b")
        for plan, rule in zip(plans, ("collect_statistics", "collect_until"), strict=True)
    )
    assert until.million_tokens == plain.million_tokens and (until.jobs, plain.jobs) == (1, 16)
    assert until.gpu_hours < plain.gpu_hours  # the model is loaded once
    assert until.basis == "assumed, at most" and until.disk_gb == pytest.approx(plain.disk_gb)
    assert "At most: the whole text is counted" in text(plans[1].lines(), plans[1])
    assert "At most" not in text(plans[0].lines(), plans[0])


# What is shown ------------------------------------------------------------------------------------

SETS = {"aa-bb": "pair", "aa-bb-cc": "three"}
SHOWN_BY = labels(
    models={"tiny": "Tiny"},
    sets=SETS,
    language_sets={"pair": ["bb", "aa"], "three": ["aa", "bb", "cc"]},
    language_names={"aa": "Afar"},
    selections={"mine": "LAPE"},
    sequence={"models": ["tiny"], "selections": ["mine"], "interventions": []},
    until="mine",
)


def curve_file(folder, read=4, stable=True):
    values = {2: (0.5, 0.9), 4: (0.8, 1.0), 8: (0.8, 0.9)}
    rows = [
        {"slices": slices, "tokens": slices * (100 + number), "langset": langset, "lang": lang}
        | {"neurons": 9, "other_neurons": 9, "shared": 8, "chance": 0.1}
        | {"jaccard": NAN if lang == "cc" else values[slices][number]}
        for slices in values
        if slices <= read
        for langset in SETS
        for number, lang in enumerate(langset.split("-"))
    ]
    tokens = {lang: read * (100 + number) for number, lang in enumerate(("aa", "bb", "cc"))}
    metadata = {"model": "tiny", "jaccard": 0.8, "halves": True, "slices": 8, "read": read}
    metadata |= {"stable": stable, "tokens": tokens, "revision": "0"}
    metadata |= {"there": {lang: value * 8 // read for lang, value in tokens.items()}}
    path = folder / "results/tiny/until.parquet"
    write_parquet(path, pd.DataFrame(rows), metadata)
    return str(path)


def test_the_tables_say_what_was_read_and_what_was_left(tmp_path):
    tabulate_until([curve_file(tmp_path)], SHOWN_BY, tmp_path)
    (row,) = pd.read_csv(tmp_path / "until.csv").to_dict("records")
    assert row["model"] == "Tiny" and row["selection"] == "LAPE" and row["stable"]
    assert (row["slices"], row["slices_there"]) == (4, 8)
    assert row["tokens"] == row["tokens_left"] == 4 * 303 and row["share_left"] == 0.5
    table = pd.read_csv(tmp_path / "until_curve.csv", keep_default_na=False, na_values=[""])
    means = table[table["lang"] == "mean of the languages"]
    assert means["languages"].tolist() == ["pair", "pair", "three", "three"]
    assert means["jaccard"].tolist() == pytest.approx([0.7, 0.9, 0.7, 0.9])
    assert means["agrees"].astype(str).tolist() == ["False", "True"] * 2
    assert means["tokens"].tolist() == [201, 402, 202, 404]
    assert len(table) == 2 * (2 + 3) + 4 and table["agrees"].isna().sum() == 10
    notes = (tmp_path / "until_curve.md").read_text()
    assert "the two halves of what was read" in notes


@pytest.mark.parametrize(
    ("read", "stable", "said"),
    [
        (4, True, ["stopped here", "not read: 50%", "1,212 (50%) were left"]),
        (8, True, ["end of the text", "stable at the end of the text"]),
        (8, False, ["end of the text", "did not become stable"]),
    ],
)
def test_the_figure_shows_where_reading_stopped(tmp_path, monkeypatch, read, stable, said):
    from langneurons.reporting.figures import until as drawn

    kept, plain = {}, drawn.canvas

    def canvas(stem, *given):
        kept["note"] = given[-1]
        return kept.setdefault("canvas", plain(stem, *given))

    def legend(figure, handles):
        kept["axis"], kept["handles"] = figure.axes[0], handles

    monkeypatch.setattr(drawn, "canvas", canvas)
    monkeypatch.setattr(drawn, "add_legend", legend)
    path = curve_file(tmp_path, read, stable)
    cell = {"model": "tiny", "languages": "pair"}
    KINDS["until"].draw([path], cell, SHOWN_BY, str(tmp_path / "drawn"))
    axis = kept["axis"]
    names = [handle.get_label() for handle in kept["handles"]]
    assert names == ["bb", "Afar (aa)", "mean", "threshold 0.8"]
    frame, metadata = read_parquet(path)
    pair = budgets_read(frame[frame["langset"] == "aa-bb"], metadata)
    by_name = dict(zip(names, kept["handles"], strict=True))
    assert list(by_name["mean"].get_xdata()) == pair["tokens"].tolist()
    assert list(by_name["mean"].get_ydata()) == pytest.approx(pair["jaccard"].tolist())
    assert list(by_name["bb"].get_ydata()) == [0.9, 1.0, 0.9][: len(pair)]
    assert set(by_name["threshold 0.8"].get_ydata()) == {0.8}
    words = " ".join([one.get_text() for one in axis.texts] + [kept["note"]])
    assert all(one in words for one in said)
    assert (tmp_path / "drawn.svg").stat().st_size > 0
    edges = [patch for patch in axis.patches]
    assert len(edges) == (1 if read == 4 else 0)


def test_means_leave_out_languages_without_neurons():
    means = set_means(curve(one=[(0.5, NAN), (NAN, NAN)]))
    assert means["one"].tolist()[0] == 0.5 and np.isnan(means["one"].tolist()[1])
