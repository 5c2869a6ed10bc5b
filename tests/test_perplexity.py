"""The perplexity matrix against log-softmax loops and MLPs written by hand, and its resumption."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_interventions import by_hand, write
from tiny import tiny_model

from langneurons.base.store import SideStore
from langneurons.data.corpus import Corpus, pack_documents
from langneurons.evaluation.paired import at_each_look, paired_ratio_change
from langneurons.evaluation.perplexity import HeldOut, document_nll, measure, measure_in_looks
from langneurons.evaluation.run import Run
from langneurons.interventions.factors import Factor
from langneurons.interventions.hooks import NoEffect
from langneurons.interventions.plan import Plan
from langneurons.jobs.perplexity import narrow
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.reporting.tables.perplexity import perplexity_change

COLUMNS = ["intervention", "deactivated", "evaluated", "document", "nll", "tokens", "bytes"]
INDEX = np.array([3, 5, 40])
FACTORS = (Factor("layer_p10"), Factor("layer_p10", "paper"), Factor("layer_max"))


def corpus(lang, seed, bos="block", sizes=(5, 9, 1, 14)):
    generator = np.random.default_rng(seed)
    documents = [
        (f"{lang}{k}", [int(t) for t in generator.integers(4, 99, size)], 10 * size)
        for k, size in enumerate(sizes)
    ]
    part = pack_documents(documents, 8, 10**6, bos, [1], [3], 0)
    return Corpus(lang, part, part, {"corpus_hash": f"{lang}-{seed}-{bos}"})


def naive(model, text, n_blocks=None):
    """Return {document: (nll, tokens)} from the model's own logits, one block and token a time."""
    part, found = text.heldout, {}
    for row, length in list(enumerate(part.lengths))[:n_blocks]:
        ids = part.tokens[row, :length].tolist()
        scores = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        for i in range(1, length):
            owner = part.document[row, i]
            if owner >= 0:
                nll, tokens = found.get(part.documents[owner], (0.0, 0))
                found[part.documents[owner]] = (nll - float(scores[i - 1, ids[i]]), tokens + 1)
    return found


def setting(seed=0):
    corpora = {"aa": corpus("aa", seed), "bb": corpus("bb", seed + 1)}
    plans = {
        "aa": Plan("zero", [write("set", 0, 0, index=INDEX), write("set", 2.0, 1, index=INDEX)]),
        "bb": Plan("zero", [write("add", 1.5, 1, "product", INDEX)]),
    }
    return corpora, plans


def edit_of(plan):
    """Return the plan as an edit of the hand-written MLP."""

    def edit(layer, where, values):
        for one in plan.writes:
            if (one.layer, one.site) == (layer, where):
                new = torch.from_numpy(one.value).float()
                old = values[..., one.index] if one.operation == "add" else 0
                values[..., one.index] = old + new
        return values

    return edit


def matrix(store, model=None, corpora=None, plans=None, tokens=None, batch=32, key=None):
    default_corpora, default_plans = setting()
    lm = LanguageModel(model if model is not None else tiny_model("llama"))
    run = Run(lm, store, key or {"model": "tiny", "code": "1"}, batch)
    plans = default_plans if plans is None else plans
    return measure(run, corpora or default_corpora, {"zero": plans}, HeldOut(tokens))


def counted(model):
    """Return a list that grows by the tokens of every forward pass."""
    calls = []
    model.base_model.register_forward_hook(
        lambda _m, _a, kwargs, _o: calls.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    return calls


@pytest.mark.parametrize("bos", ["block", "document", "none"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_documents_equal_a_log_softmax_loop(family, bos):
    model, text = tiny_model(family), corpus("aa", 0, bos)
    expected = naive(model, text)
    for batch_tokens in (1, 16, 1000):
        frame = document_nll(LanguageModel(model), text, HeldOut(), batch_tokens)
        assert frame["document"].tolist() == list(expected)
        np.testing.assert_allclose(frame["nll"], [n for n, _ in expected.values()], atol=1e-3)
        assert frame["tokens"].tolist() == [t for _, t in expected.values()]
    # A block's first token is not predicted; its share of the document's bytes is not counted.
    sizes = [10 * row.tokens for row in frame.itertuples()]
    np.testing.assert_allclose(frame["bytes"], sizes, atol=1)


def test_only_the_blocks_that_hold_the_tokens_are_read():
    model, text = tiny_model("llama"), corpus("aa", 0)
    frame = document_nll(LanguageModel(model), text, HeldOut(8), 1000)
    expected = naive(model, text, 2)
    assert frame["document"].tolist() == list(expected) == ["aa0", "aa1"]
    np.testing.assert_allclose(frame["nll"], [n for n, _ in expected.values()], atol=1e-3)
    assert frame["bytes"].tolist() == [10 * t for _, t in expected.values()]


def test_the_matrix_equals_hand_written_forwards(tmp_path, caplog):
    corpora, plans = setting()
    with caplog.at_level(logging.INFO):
        frame = matrix(SideStore(tmp_path, "perplexity"))
    assert "tokens" in caplog.messages[-1] and "ETA" not in caplog.messages[-1]
    assert frame.columns.tolist() == COLUMNS
    cells = frame.groupby(["deactivated", "evaluated"], sort=False)
    assert list(cells.groups) == [(i, j) for i in ("none", "aa", "bb") for j in ("aa", "bb")]
    for (deactivated, evaluated), cell in cells:
        plan = plans.get(deactivated, Plan("none"))
        model = by_hand(tiny_model("llama"), edit_of(plan))
        expected = naive(model, corpora[evaluated])
        assert cell["document"].tolist() == list(expected)
        np.testing.assert_allclose(cell["nll"], [n for n, _ in expected.values()], atol=1e-3)
    same = ["document", "tokens", "bytes"]
    for lang in ("aa", "bb"):
        read = [cell[same].values.tolist() for (_, j), cell in cells if j == lang]
        assert read[0] == read[1] == read[2]
    nll = frame.pivot(index="document", columns="deactivated", values="nll")
    assert (nll["aa"] - nll["none"]).abs().min() > 1e-3


def test_values_of_the_layer_give_the_same_matrix_in_every_batch(tmp_path):
    plans = {
        lang: Plan(factor.name, [replace(write("add", 3.0, layer), factor=factor)])
        for lang, factor, layer in (("aa", FACTORS[0], 0), ("bb", FACTORS[2], 1))
    }
    found = []
    for number, batch in enumerate((1, 20, 1000)):
        store = SideStore(tmp_path / str(number), "perplexity")
        found.append(matrix(store, plans=plans, batch=batch))
    for frame in found[1:]:
        pd.testing.assert_frame_equal(frame, found[0], rtol=1e-5)
    nll = found[0].pivot(index="document", columns="deactivated", values="nll")
    assert (nll["aa"] - nll["none"]).abs().max() > 0.01
    assert (nll["bb"] - nll["none"]).abs().max() > 0.01


def test_a_language_without_neurons_repeats_the_untouched_row(tmp_path):
    model = tiny_model("llama")
    calls = counted(model)
    frame = matrix(SideStore(tmp_path, "perplexity"), model, plans={"aa": Plan("zero")})
    once = len(calls)
    first, second = (frame[frame["deactivated"] == k]["nll"].tolist() for k in ("none", "aa"))
    assert first == second
    calls.clear()
    matrix(SideStore(tmp_path / "other", "perplexity"), model, plans={})
    assert len(calls) == once


def test_deep_plans_read_the_first_layers_once_and_change_nothing(tmp_path, monkeypatch):
    model, store = tiny_model("llama"), SideStore(tmp_path, "perplexity")
    corpora, _ = setting()
    plans = {
        "aa": Plan("deep", [write("add", 1.5, 1, "product", INDEX)]),
        "bb": Plan("deep", [write("set", 2.0, 1, index=INDEX)]),
    }
    calls = counted(model)
    together = matrix(store, model, plans=plans, batch=10_000)
    read = sum(int(one.heldout.tokens.size) for one in corpora.values())
    assert sum(calls) == read  # the untouched model and both plans in one pass
    monkeypatch.setattr(
        "langneurons.evaluation.perplexity.portions",
        lambda first, *_: [[k] for k in range(len(first))],
    )
    alone = matrix(SideStore(tmp_path / "alone", "perplexity"), model, plans=plans, batch=10_000)
    pd.testing.assert_frame_equal(together, alone, rtol=1e-6)
    assert sum(calls) == 4 * read
    sums = together.groupby("deactivated")["nll"].sum()
    assert sums.nunique() == 3


# Resumption ---------------------------------------------------------------------------------------


def test_nothing_finished_is_computed_again(tmp_path, caplog):
    model, store = tiny_model("llama"), SideStore(tmp_path, "perplexity")
    calls = counted(model)
    first = matrix(store, model, batch=1)
    assert calls
    calls.clear()
    again = matrix(store, model, batch=1)
    assert not calls
    assert again.equals(first)

    parts = sorted(tmp_path.rglob("*.parquet"))
    assert len(parts) == 6
    one_cell = int(corpus("aa", 0).heldout.lengths.sum())
    parts[0].unlink()
    pd.testing.assert_frame_equal(matrix(store, model, batch=1), first)
    assert sum(calls) == one_cell
    calls.clear()
    parts[3].write_bytes(parts[3].read_bytes()[:-10])
    with caplog.at_level(logging.WARNING):
        pd.testing.assert_frame_equal(matrix(store, model, batch=1), first)
    assert "part computed again" in caplog.text and sum(calls) == one_cell


def test_what_differs_is_computed(tmp_path):
    model, store = tiny_model("llama"), SideStore(tmp_path, "perplexity")
    corpora, plans = setting()
    matrix(store, model)
    calls = counted(model)

    def parts(**changes):
        calls.clear()
        before = len(list(tmp_path.rglob("*.parquet")))
        matrix(store, model, **changes)
        new = len(list(tmp_path.rglob("*.parquet"))) - before
        assert bool(calls) == bool(new)
        return new

    renamed = {lang: Plan("another name", plan.writes) for lang, plan in plans.items()}
    assert parts(plans=renamed) == 0
    assert parts(batch=8) == 0
    assert parts(plans=plans | {"bb": Plan("zero", [write("set", 1.0)])}) == 2
    assert parts(corpora=corpora | {"bb": corpus("bb", 7)}) == 3
    assert parts(tokens=8) == 6
    assert parts(key={"model": "tiny", "code": "2"}) == 6


def test_every_intervention_is_a_matrix_of_its_own_and_a_new_one_computes_itself_alone(tmp_path):
    model, store = tiny_model("llama"), SideStore(tmp_path, "perplexity")
    corpora, plans = setting()
    moved = {lang: Plan("add", [write("add", 0.7, 0, index=INDEX)]) for lang in plans}
    moved["bb"] = Plan("same as zero", plans["bb"].writes)
    run = Run(LanguageModel(model), store, {"model": "tiny"}, 1)
    calls = counted(model)
    read = sum(int(one.heldout.lengths.sum()) for one in corpora.values())
    alone = measure(run, corpora, {"zero": plans}, HeldOut())
    assert sum(calls) == 3 * read  # the untouched model, and each language's neurons
    calls.clear()
    both = measure(run, corpora, {"add": moved, "zero": plans}, HeldOut())
    assert sum(calls) == read  # of four plans one is new
    places = both.groupby(["intervention", "deactivated"], sort=False).size()
    assert list(places.index) == [("none", "none")] + [
        (name, lang) for name in ("add", "zero") for lang in ("aa", "bb")
    ]
    kept = both[both["intervention"] != "add"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, alone)
    sums = both.groupby(["intervention", "deactivated"])["nll"].sum()
    assert sums["add", "bb"] == sums["zero", "bb"] and sums["add", "aa"] != sums["zero", "aa"]
    calls.clear()
    once = measure(replace(run, store=SideStore(tmp_path / "b", "p")), corpora,
                   {"add": moved, "zero": plans}, HeldOut())  # fmt: skip
    assert sum(calls) == 4 * read
    pd.testing.assert_frame_equal(once, both)


def test_digests_of_plans_tell_writes_apart():
    plans = [
        Plan("a"),
        *(
            Plan("a", [one])
            for one in (
                write("set", 0),
                write("add", 0),
                write("set", 1),
                write("set", 0, 1),
                write("set", 0, site="gate"),
                write("set", 0, index=np.array([3, 5, 41])),
                write("set", 0, tokens="prompt"),
                *(replace(write("set", 0), factor=one) for one in FACTORS),
            )
        ),
        Plan("a", [write("set", 0), write("add", 1)]),
        Plan("a", [write("add", 1), write("set", 0)]),
    ]
    assert len({plan.digest for plan in plans}) == len(plans)
    assert Plan("b", plans[1].writes).digest == plans[1].digest


# Failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "error", "text"),
    [
        (write("add", 0), NoEffect, "every value was already there"),
        (
            write("set", 3e38, 1, "product", np.arange(48)),
            RuntimeError,
            "NLL of aa is not finite with zero on aa",
        ),
    ],
)
def test_a_failed_cell_is_an_error_and_is_not_kept(tmp_path, one, error, text):
    model, store = tiny_model("llama"), SideStore(tmp_path, "perplexity")
    with pytest.raises(error, match=text):
        matrix(store, model, plans={"aa": Plan("zero", [one])})
    assert len(list(tmp_path.rglob("*.parquet"))) == 1  # the untouched model of the same text
    sites = MlpSites(model)
    assert not any(module._forward_hooks for module in sites.act)


def test_every_cell_reads_its_own_sample_if_asked(tmp_path):
    corpora = {lang: corpus(lang, seed, sizes=(12,) * 20) for seed, lang in enumerate(("aa", "bb"))}
    _, plans = setting()
    model = tiny_model("llama")
    store = SideStore(tmp_path, "perplexity")
    run = Run(LanguageModel(model), store, {"model": "tiny", "code": "1"}, 64)
    other = replace(run, store=SideStore(tmp_path / "b", "p"), batch_tokens=9)
    first = measure(run, corpora, {"zero": plans}, HeldOut(40, sampled=True))
    again = measure(other, corpora, {"zero": plans}, HeldOut(40, sampled=True))
    np.testing.assert_allclose(first["nll"], again["nll"], atol=1e-3)
    read = first.groupby(["deactivated", "evaluated"])["document"].agg(frozenset)
    assert len(set(read)) == len(read) == 6
    assert (first.groupby(["deactivated", "evaluated"])["tokens"].sum() >= 40 - 8).all()
    same = measure(run, corpora, {"zero": plans}, HeldOut(40))
    assert same.groupby("evaluated")["document"].nunique().max() < 20
    texts = same.groupby(["deactivated", "evaluated"])["document"].agg(frozenset)
    assert texts.groupby("evaluated").nunique().eq(1).all()


@pytest.mark.parametrize("documents", [1, 2, 3, 5, 99])
def test_the_first_documents_are_read_as_in_the_whole_text(documents):
    model, text = tiny_model("llama"), corpus("aa", 3, sizes=(5, 9, 1, 14, 3, 8))
    everything = document_nll(LanguageModel(model), text, HeldOut(), 64)
    some = document_nll(LanguageModel(model), text, HeldOut(documents=documents), 64)
    assert some["document"].tolist() == [f"aa{k}" for k in range(min(documents, 6))]
    pd.testing.assert_frame_equal(some, everything[:documents], rtol=1e-5)
    part = text.heldout.first(None, documents)
    # Nothing after the last of them is read, not even the rest of its block.
    last = part.document[-1, part.lengths[-1] - 1]
    assert last == min(documents, 6) - 1


def test_a_matrix_of_first_documents_is_kept_apart_from_that_of_all(tmp_path, caplog):
    corpora, plans = setting()
    store, model = SideStore(tmp_path, "perplexity"), tiny_model("llama")
    run = Run(LanguageModel(model), store, {"model": "tiny"}, 32)
    frames = [
        measure(run, corpora, {"zero": plans}, HeldOut(documents=documents))
        for documents in (2, None, 2)
    ]
    assert frames[0].groupby("evaluated")["document"].nunique().eq(2).all()
    assert frames[1].groupby("evaluated")["document"].nunique().eq(4).all()
    pd.testing.assert_frame_equal(frames[0], frames[2])
    # Two languages: four cells need eight documents; it is said before anything is read.
    few = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert "aa: With 2 documents no cell of 4 can reach 0.05" in few[0]
    assert few[0].endswith("use 8 documents or more.")


# Looks --------------------------------------------------------------------------------------------

SIZES = (5, 9, 1, 14, 7, 3, 11, 6, 9, 2, 8, 13)


def in_four_looks(store, looks=4, model=None, heldout=None, batch=32):
    """Return the records after each look at two languages of twelve documents."""
    corpora = {lang: corpus(lang, k, sizes=SIZES) for k, lang in enumerate(("aa", "bb"))}
    lm = LanguageModel(model if model is not None else tiny_model("llama"))
    run = Run(lm, store, {"model": "tiny", "code": "1"}, batch)
    plans = {"zero": setting()[1]}
    return corpora, measure_in_looks(run, corpora, plans, heldout or HeldOut(), looks)


@pytest.mark.parametrize("looks", [2, 4, 12, 20])
def test_a_look_adds_an_equal_share_of_the_documents_and_the_last_is_the_whole(tmp_path, looks):
    model = tiny_model("llama")
    corpora, read = in_four_looks(SideStore(tmp_path / "a", "p"), looks, model)
    frames = list(read)
    whole = next(in_four_looks(SideStore(tmp_path / "b", "p"), 1)[1])
    assert len(frames) == looks and len(frames[-1]) == len(whole)
    known = document_nll(LanguageModel(model), corpora["aa"], HeldOut(), 100)["document"]
    for look, frame in enumerate(frames, 1):
        number = -(-len(known) * look // looks)
        for (_, _, lang), cell in frame.groupby(["intervention", "deactivated", "evaluated"]):
            assert len(cell) == number
            assert lang != "aa" or cell["document"].tolist() == known[:number].tolist()
        kept = whole[whole["document"].isin(frame["document"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(frame, kept, rtol=1e-5)


def test_looks_read_every_block_once_and_none_that_is_finished(tmp_path):
    model, plain = tiny_model("llama"), tiny_model("llama")
    one, tokens = counted(plain), counted(model)
    next(in_four_looks(SideStore(tmp_path / "a", "p"), 1, plain)[1])
    store = SideStore(tmp_path / "b", "p")
    read = in_four_looks(store, 4, model)[1]
    next(read)
    first = sum(tokens)
    next(read)
    assert first < sum(tokens) < sum(one)
    done = sum(tokens)
    again = in_four_looks(store, 4, model)[1]  # as after a kill
    (next(again), next(again))
    assert sum(tokens) == done
    list(again)
    assert sum(tokens) <= 1.1 * sum(one)  # padding of other batches


def test_a_look_at_documents_that_are_cut_off_equals_reading_them_alone(tmp_path):
    frames = list(in_four_looks(SideStore(tmp_path / "a", "p"), 3, heldout=HeldOut(None, 9))[1])
    alone = next(in_four_looks(SideStore(tmp_path / "b", "p"), 1, heldout=HeldOut(None, 3))[1])
    pd.testing.assert_frame_equal(frames[0], alone, rtol=1e-5)
    with pytest.raises(ValueError, match="one look"):
        next(in_four_looks(SideStore(tmp_path / "c", "p"), 2, heldout=HeldOut(9, sampled=True))[1])


def test_the_rule_looks_at_the_intervals_of_the_table(tmp_path):
    frames = list(in_four_looks(SideStore(tmp_path, "p"))[1])
    results = {"confidence": 0.9}
    for frame in frames:
        table = perplexity_change(frame, results, looks=4)
        plain = perplexity_change(frame, {"confidence": 0.975})
        np.testing.assert_array_equal(table[["low", "high"]], plain[["low", "high"]])
        np.testing.assert_allclose(table["p"], np.minimum(1.0, 4 * plain["p"]))
        excluded = (table["low"] > 0) | (table["high"] < 0)
        assert (excluded == (table["p"] < 0.1)).all()
        widest = (table["high"] - table["low"]).max()
        level = at_each_look(0.9, 4)
        assert not narrow(frame, widest, level, ()) and narrow(frame, 1.001 * widest, level, ())
    one = {("zero", "aa"), ("zero", "bb")}
    assert narrow(frames[0], 1e-9, 0.9, one)  # nothing is written
    silent = frames[-1].copy()
    base = silent[silent["deactivated"] == "none"].set_index(["evaluated", "document"])["nll"]
    aa = silent["deactivated"] == "aa"
    places = list(silent.loc[aa, ["evaluated", "document"]].itertuples(index=False, name=None))
    silent.loc[aa, "nll"] = base.loc[places].to_numpy()
    assert not narrow(silent, 1e9, 0.9, ())  # no spread, so no interval


def simulated(seed, number=4000, documents=48, looks=4):
    """Return of each look the intervals of changes that are 0.3 nats per token, by the rule's."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(10, 60, documents).astype(float)
    noise = rng.standard_t(5, (documents, number)) * 0.4
    changed = tokens[:, None] * (0.3 + noise)
    for look in range(1, looks + 1):
        n = documents * look // looks
        yield n, tokens[:n], changed[:n]


@pytest.mark.parametrize("seed", range(3))
def test_intervals_hold_at_all_looks_together_with_the_confidence_asked_for(seed):
    missed = {}
    for name, level in (("kept", at_each_look(0.95, 4)), ("naive", 0.95)):
        outside = np.zeros(4000, bool)
        for n, tokens, changed in simulated(seed):
            _, low, high, _ = paired_ratio_change(np.zeros(n), changed, tokens, level)
            outside |= (low > 0.3) | (high < 0.3)
        missed[name] = outside.mean()
    assert missed["kept"] < 0.055 and missed["naive"] > 0.07


def test_reading_stops_early_on_clean_effects_and_never_misses_more_often_for_it():
    stops, misses = [], 0
    for seed in range(150):
        for look, (n, tokens, changed) in enumerate(simulated(seed, number=3), 1):
            rows = [
                pd.DataFrame(
                    {"document": range(n), "nll": nll, "tokens": tokens, "bytes": 1}
                ).assign(intervention=name, deactivated=lang, evaluated="aa")
                for name, lang, nll in (
                    ("none", "none", np.zeros(n)),
                    *(("zero", f"l{k}", changed[:, k]) for k in range(3)),
                )
            ]
            frame = pd.concat(rows)
            taken = look
            if narrow(frame, 0.7, at_each_look(0.95, 4), ()):
                break
        table = perplexity_change(frame, {"confidence": 0.95}, looks=4)
        misses += int(((table["low"] > 0.3) | (table["high"] < 0.3)).sum())
        stops.append(taken)
    assert misses / (3 * 150) < 0.05
    assert np.mean(np.array(stops) < 4) > 0.5 and len(set(stops)) > 1
