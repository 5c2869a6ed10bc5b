"""Interventions against MLPs written by hand, and their algebra."""

import logging
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from test_adapters import nonlinearity, project
from tiny import VOCAB_SIZE, tiny_model, tiny_tokenizer

from langneurons.activations.collect import collect
from langneurons.activations.histogram import bin_width
from langneurons.activations.settings import StatisticsConfig
from langneurons.base.errors import ConfigError
from langneurons.config import build
from langneurons.data.corpus import Corpus, pack_documents
from langneurons.interventions.apply import applied
from langneurons.interventions.factors import Factor
from langneurons.interventions.hooks import NoEffect, PlanPerRow
from langneurons.interventions.plan import PerRequest, Plan, Write
from langneurons.interventions.resolve import Intervention, resolve
from langneurons.interventions.settings import InterventionEntry, Step
from langneurons.jobs.common import plan as planned_by_job
from langneurons.jobs.parameters import stage
from langneurons.models.families import FAMILIES
from langneurons.models.language_model import LanguageModel
from langneurons.models.nonlinearities import NONLINEARITIES, minimum
from langneurons.models.sites import MlpSites
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.generation import generate
from langneurons.scoring.likelihood import loglikelihood
from langneurons.scoring.nll import token_nll
from langneurons.selection.table import NeuronTable

SITES = ("gate", "act", "product")
INDEX = np.array([3, 5, 40])


def ids(rows=2, size=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, VOCAB_SIZE - 1, (rows, size), generator=generator)


def logits(model, tokens=None):
    return model(input_ids=ids() if tokens is None else tokens, use_cache=False).logits


def by_hand(model, edit):
    """Rewrite each MLP from its weights, with edit(layer, site, values) at every site."""
    family, sites = model.config.model_type, MlpSites(model)
    for i in range(sites.n_layers):
        act, down = sites.act[i], sites.down[i]
        act.forward = lambda x, i=i: edit(
            i, "act", nonlinearity(family, edit(i, "gate", x.clone())).clone()
        )
        down.forward = lambda x, i=i, down=down: project(
            family, down, edit(i, "product", x.clone())
        )
    return model


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def write(operation, value, layer=0, site="act", index=INDEX, tokens="all"):
    value = np.broadcast_to(np.asarray(value, np.float64), index.shape).copy()
    return Write(layer, site, operation, index, value, tokens)


def table(rows, languages=("aa", "bb"), d_mlp=48):
    frame = pd.DataFrame(rows, columns=["lang", "layer", "neuron", "score"])
    return NeuronTable(frame, {"languages": list(languages), "n_layers": 2, "d_mlp": d_mlp})


# Algebra ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_zero_on_a_whole_layer_is_the_layer_without_its_down_projection(family, site):
    model, ablated = tiny_model(family), tiny_model(family)
    lm = LanguageModel(model)
    sites = lm.sites
    MlpSites(ablated).down[1].weight.zero_()
    plan = Plan("zero", [write("set", 0, 1, site, np.arange(sites.d_mlp))])
    untouched = logits(model)
    with applied(lm, plan):
        found = logits(model)
    torch.testing.assert_close(found, logits(ablated), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, untouched, atol=1e-2)


@pytest.mark.parametrize(("operation", "value"), [("scale", 1.0), ("add", 0.0)])
def test_identity_is_reported_as_without_effect(operation, value):
    model = tiny_model("llama")
    lm, plan = LanguageModel(model), Plan("idle", [write(operation, value)])
    with pytest.raises(NoEffect, match="'idle': 3 neurons were written"):
        with applied(lm, plan):
            found = logits(model)
    assert torch.equal(found, logits(model))
    with applied(lm, plan, strict=False) as running:
        assert torch.equal(logits(model), found)
    assert not running.changed
    with pytest.raises(ValueError, match="changes nothing"):
        Step(operation=operation, value=value)


@pytest.mark.parametrize("site", SITES)
def test_adding_and_subtracting_cancel(site):
    model = tiny_model("llama")
    value = np.array([2.0, -1.5, 0.25])
    with applied(LanguageModel(model), Plan("one", [write("add", value, site=site)])):
        moved = logits(model)
    both = Plan("both", [write("add", value, site=site), write("add", -value, site=site)])
    with applied(LanguageModel(model), both):
        cancelled = logits(model)
    torch.testing.assert_close(cancelled, logits(model), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(moved, cancelled, atol=1e-2)


def test_steps_act_in_their_order_on_shared_neurons():
    model = tiny_model("llama")
    zero_then_add = Plan("a", [write("set", 0), write("add", 3.0)])
    add_then_zero = Plan("b", [write("add", 3.0), write("set", 0)])
    found = []
    for plan in (zero_then_add, Plan("c", [write("set", 3.0)]), add_then_zero):
        with applied(LanguageModel(model), plan):
            found.append(logits(model))
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-2)


# Against MLPs by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["set", "add", "scale", "at_least", "at_most"])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "opt"])
def test_only_the_named_neurons_change(family, site, operation):
    value = torch.tensor([0.7, -2.0, 1.3])
    other = np.array([0, 47])

    def edit(layer, where, values):
        if where == site:
            index, new = (INDEX, value) if layer == 0 else (other, torch.tensor([4.0, 4.0]))
            old = values[..., index]
            results = {"set": new.expand(old.shape), "add": old + new, "scale": old * new}
            results |= {"at_least": torch.maximum(old, new), "at_most": torch.minimum(old, new)}
            values[..., index] = results[operation]
        return values

    model = tiny_model(family)
    plan = Plan(
        "p", [write(operation, value, 0, site), write(operation, 4.0, 1, site, index=other)]
    )
    assert (plan.neurons, plan.begins(9)) == (5, 0)
    seen, lm = {}, LanguageModel(model)
    sites = lm.sites
    handle = sites.down[0].register_forward_pre_hook(lambda _m, x: seen.setdefault("before", x[0]))
    untouched = logits(model)
    handle.remove()
    with applied(lm, plan):
        handle = sites.down[0].register_forward_pre_hook(lambda _m, x: seen.update(after=x[0]))
        found = logits(model)
        handle.remove()
    expected = logits(by_hand(tiny_model(family), edit))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    # What a ReLU sets to 0 anyway is not changed by a bound from above.
    assert operation == "at_most" or not torch.equal(found, untouched)
    others = np.setdiff1d(np.arange(48), INDEX)
    assert torch.equal(seen["before"][..., others], seen["after"][..., others])
    assert torch.equal(logits(model), untouched)


def test_models_that_track_gradients_are_served_alike():
    model = tiny_model("llama")
    plan = Plan("p", [write("set", 1.0)])
    with applied(LanguageModel(model), plan):
        expected = logits(model)
    model.requires_grad_(True)
    with applied(LanguageModel(model), plan):
        found = logits(model)
    torch.testing.assert_close(found.detach(), expected)
    found.sum().backward()
    assert not model.model.layers[0].mlp.gate_proj.weight.grad[INDEX].any()


@pytest.mark.parametrize("scope", ["prompt", "generated"])
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_writes_limited_to_prompt_or_generated_tokens(family, scope):
    prompt = torch.tensor([[True] * 3 + [False] * 4, [True] * 5 + [False] * 2])
    chosen = prompt if scope == "prompt" else ~prompt

    def edit(layer, where, values):
        if (layer, where) == (0, "act"):
            flat = values.reshape(-1, values.shape[-1])
            for row in chosen.reshape(-1).nonzero()[:, 0]:
                flat[row, INDEX] = 2.0
        return values

    model = tiny_model(family)
    with applied(LanguageModel(model), Plan("p", [write("set", 2.0, tokens=scope)])) as running:
        running.announce(prompt)
        found = logits(model)
    expected = logits(by_hand(tiny_model(family), edit))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if scope == "generated":
        torch.testing.assert_close(found[0, :3], logits(model)[0, :3])


def test_a_limited_write_needs_to_know_the_prompt():
    model = tiny_model("llama")
    with pytest.raises(RuntimeError, match="announce"):
        with applied(LanguageModel(model), Plan("p", [write("set", 2.0, tokens="prompt")])):
            logits(model)


@pytest.mark.parametrize("scope", ["all", "prompt", "generated"])
def test_generation_with_a_cache_equals_recomputing_with_the_hand_written_mlp(scope):
    tokenizer, prompts = tiny_tokenizer(), ["w1 w2", "w3 w4 w5 w6 w7 w8"]
    size = [0]

    def edit(layer, where, values):
        if (layer, where) == (1, "product"):
            first, last = {"all": (0, None), "prompt": (0, size[0]), "generated": (size[0], None)}[
                scope
            ]
            values[:, first:last] = 1.0
        return values

    reference = by_hand(tiny_model("llama"), edit)
    expected = []
    for prompt in prompts:
        whole = tokenizer(prompt)["input_ids"]
        size[0] = len(whole)
        for _ in range(6):
            token = int(logits(reference, torch.tensor([whole]))[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            whole.append(token)
        expected.append(tokenizer.decode(whole[size[0] :], skip_special_tokens=True))
    model = tiny_model("llama")
    plan = Plan("p", [write("set", 1.0, 1, "product", np.arange(48), scope)])
    for budget in (1, 1000):
        found = generate(LanguageModel(model, tokenizer), prompts, Decoding(6), budget, under=plan)
        assert found == expected
    assert expected != generate(LanguageModel(model, tokenizer), prompts, Decoding(6), 1000)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_rows_of_a_batch_do_not_touch_each_other(family):
    model = tiny_model(family)
    tokens = ids(4, 12).numpy().astype(np.int32)
    lengths = np.array([12, 4, 9, 2])
    scored = np.arange(12) < lengths[:, None]
    with applied(LanguageModel(model), Plan("p", [write("add", 2.0)])):
        alone = token_nll(LanguageModel(model), tokens, lengths, scored, 1)
        batched = token_nll(LanguageModel(model), tokens, lengths, scored, 1000)
    np.testing.assert_allclose(batched, alone, atol=1e-4)
    assert np.isfinite(alone).sum() == (lengths - 1).sum()


# Lifetime of the hooks ----------------------------------------------------------------------------


def test_hooks_are_gone_whatever_happens():
    model = tiny_model("llama")
    lm, plan = LanguageModel(model), Plan("p", [write("set", 0, site=site) for site in SITES])
    before, clean = hooks(model), logits(model)
    with applied(lm, plan):
        assert hooks(model) == before + 3
        logits(model)
    assert hooks(model) == before
    with pytest.raises(KeyboardInterrupt):
        with applied(lm, plan):
            raise KeyboardInterrupt
    with pytest.raises(NoEffect, match=r"no hook fired in layers \[0\]"):
        with applied(lm, plan):
            pass
    with pytest.raises(ValueError, match="layer 2 of a model of 2"):
        with applied(lm, Plan("deep", [write("set", 0), write("set", 0, layer=2)])):
            pass
    assert hooks(model) == before
    assert torch.equal(logits(model), clean)


# From configuration to plan -----------------------------------------------------------------------


def corpus(lang, seed, bos="block"):
    generator = np.random.default_rng(seed)
    documents = [(str(i), [int(t) for t in generator.integers(4, 99, 20)], 60) for i in range(4)]
    part = pack_documents(documents, 21, 10**6, bos, [1], [], 0)
    return Corpus(lang, part, part, {"tokenizer_hash": "t", "corpus_hash": lang, "bos": bos})


@pytest.fixture(scope="module")
def measured():
    """Return statistics of two languages on a tiny model, and the values behind them by hand."""
    model = tiny_model("llama")
    sites = MlpSites(model)
    settings = StatisticsConfig(
        histograms=SITES, batch_blocks=2, batch_quantiles=(0.9,), document_means=("act",)
    )
    who = {"model": "tiny", "revision": "0", "dtype": "float32", "quantization": None}
    statistics, values = {}, {}
    for lang, seed in (("aa", 1), ("bb", 2)):
        text = corpus(lang, seed)
        statistics[lang] = collect(LanguageModel(model, identity=who), text, settings)
        seen = {site: [[], []] for site in SITES}

        def keep(layer, site, x, seen=seen):
            seen[site][layer].append(x.clone())
            return x

        by_hand(copy := tiny_model("llama"), keep)
        logits(copy, torch.from_numpy(text.identification.tokens.astype(np.int64)))
        # (layer, block, position without BOS, neuron)
        values[lang] = {
            site: np.stack([torch.cat(layer).numpy()[:, 1:] for layer in seen[site]])
            for site in SITES
        }
    assert sites.d_mlp == 48
    return statistics, values


ROWS = [("aa", 0, 3, 1.0), ("aa", 1, 5, 1.0), ("aa", 1, 40, 1.0), ("bb", 0, 7, 1.0)]


def planned(measured, target="aa", quantiles="corrected", rows=ROWS, **step):
    steps = InterventionEntry.model_validate({"operation": "set"} | step).steps
    made = Intervention("name", steps, quantiles=quantiles)
    return resolve(made, target, table(rows), measured[0])


@pytest.mark.parametrize("language", ["neurons", "bb"])
@pytest.mark.parametrize("statistic_site", [None, *SITES])
@pytest.mark.parametrize("site", SITES)
def test_means_come_from_the_named_site_and_language(measured, site, statistic_site, language):
    plan = planned(
        measured,
        value="mean",
        site=site,
        statistic_site=statistic_site,
        statistic_language=language,
        coefficient=-2.0,
    )
    source = "aa" if language == "neurons" else language
    means = measured[1][source][statistic_site or site].mean((1, 2)) * -2
    assert [(w.layer, w.site, w.index.tolist()) for w in plan.writes] == [
        (0, site, [3]),
        (1, site, [5, 40]),
    ]
    for one in plan.writes:
        np.testing.assert_allclose(one.value, means[one.layer, one.index], rtol=1e-4, atol=1e-5)


def test_means_of_sites_and_languages_differ(measured):
    means = {(k, s): measured[1][k][s].mean((1, 2)) for k in ("aa", "bb") for s in SITES}
    for first in means:
        for second in means:
            assert first == second or not np.allclose(means[first], means[second], rtol=1e-2)


@pytest.mark.parametrize("site", SITES)
def test_p90_is_that_of_the_whole_corpus(measured, site):
    plan = planned(measured, value="p90", site=site)
    exact = np.quantile(measured[1]["aa"][site].astype(np.float64), 0.9, axis=(1, 2))
    for one in plan.writes:
        expected = exact[one.layer, one.index]
        assert (np.abs(one.value - expected) <= 2 * bin_width(expected)).all()


def test_the_papers_p90_is_the_mean_of_the_batches_own(measured):
    plan = planned(measured, value="p90", site="act", statistic_site="gate", quantiles="paper")
    gate = measured[1]["aa"]["gate"].astype(np.float64)
    batches = [gate[:, i : i + 2] for i in range(0, gate.shape[1], 2)]
    assert len(batches) > 1
    exact = np.mean([np.quantile(batch, 0.9, axis=(1, 2)) for batch in batches], axis=0)
    for one in plan.writes:
        expected = exact[one.layer, one.index]
        assert (np.abs(one.value - expected) <= 2 * bin_width(np.abs(expected) + 1)).all()
        other = measured[0]["aa"].quantile(0.9, "gate")[one.layer, one.index]
        assert not np.allclose(one.value, other, rtol=1e-6)
    with pytest.raises(ValueError, match=r"no batch quantile 0.5; measured: \[0.9\]"):
        planned(measured, value="p50", statistic_site="gate", quantiles="paper")


def test_mean_difference_is_against_the_sets_other_languages(measured):
    plan = planned(measured, operation="add", value="mean_difference")
    means = {lang: measured[1][lang]["act"].mean((1, 2)) for lang in ("aa", "bb")}
    expected = (means["aa"] - means["bb"])[1, [5, 40]]
    np.testing.assert_allclose(plan.writes[1].value, expected, rtol=1e-3, atol=1e-5)


def test_the_mean_of_the_others_is_that_of_their_means(measured):
    plan = planned(measured, operation="set", value="mean_of_others")
    expected = measured[1]["bb"]["act"].mean((1, 2))[1, [5, 40]]
    np.testing.assert_allclose(plan.writes[1].value, expected, rtol=1e-3, atol=1e-5)
    both = planned(measured, operation="add", value="mean_difference").writes[1].value
    own = planned(measured, operation="set", value="mean").writes[1].value
    np.testing.assert_allclose(own - both, plan.writes[1].value, rtol=1e-5, atol=1e-6)


def test_set_to_mean_runs_as_written_by_hand(measured):
    mean = torch.from_numpy(measured[1]["aa"]["act"].mean((1, 2))).float()

    def edit(layer, where, values):
        if where == "act":
            index = [3] if layer == 0 else [5, 40]
            values[..., index] = mean[layer, index]
        return values

    model = tiny_model("llama")
    with applied(LanguageModel(model), planned(measured, value="mean")):
        found = logits(model)
    expected = logits(by_hand(tiny_model("llama"), edit))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_layers_and_neurons_of_a_step(measured):
    for layers, touched in (([1, 1], [1]), ([0, 0], [0]), ([0, 1], [0, 1]), (None, [0, 1])):
        plan = planned(measured, value=0, layers=layers)
        assert [w.layer for w in plan.writes] == touched
    plan = planned(measured, target="bb", value=0, neurons="aa")
    assert [w.index.tolist() for w in plan.writes] == [[3], [5, 40]]
    for layers in ([2, 3], [1, 9]):
        with pytest.raises(ValueError, match=f"layers {layers[0]}-{layers[1]} of a model of 2"):
            planned(measured, value=0, layers=layers)


def test_a_target_without_neurons_is_a_warning_and_the_untouched_model(measured, caplog):
    rows = [row for row in ROWS if row[0] == "aa"]
    with caplog.at_level(logging.WARNING):
        plan = planned(measured, target="bb", rows=rows, value=0)
    assert plan.empty and "NO NEURONS: name of bb" in caplog.text
    model = tiny_model("llama")
    before = logits(model)
    with applied(LanguageModel(model), plan):
        assert torch.equal(logits(model), before)


def test_what_cannot_be_resolved_says_why(measured):
    with pytest.raises(ValueError, match="no neurons of 'cc'.*its languages: aa, bb"):
        planned(measured, target="cc", value=0)
    with pytest.raises(ValueError, match="no activation statistics of 'cc'"):
        planned(measured, value="mean", statistic_language="cc")
    steps = InterventionEntry(steps=[Step(operation="set", value="mean")]).steps
    with pytest.raises(ValueError, match="neuron table of another model"):
        resolve(Intervention("name", steps), "aa", table(ROWS, d_mlp=50), measured[0])
    with pytest.raises(ValueError, match="beyond what is written"):
        planned(measured, value=float("inf"))


# Language arithmetic ------------------------------------------------------------------------------

# Layer 0: 3 is of aa, 7 of bb, 9 of both; layer 1: 5 of aa and cc, 40 of aa and bb.
OF_TWO = [("aa", 0, 3), ("aa", 0, 9), ("aa", 1, 5), ("aa", 1, 40)]
OF_TWO += [("bb", 0, 7), ("bb", 0, 9), ("bb", 1, 40), ("cc", 1, 5)]
OF_TWO = [(*place, 1.0) for place in OF_TWO]
DEACTIVATE = {"neurons": "source", "operation": "set", "value": -0.5}
BOOST = {"operation": "add", "value": "mean"}


def arithmetic(measured, *steps, target="bb", source="aa", languages=("aa", "bb", "cc"), **entry):
    made = InterventionEntry.model_validate({"steps": list(steps)} | entry)
    statistics = measured[0] | {"cc": measured[0]["aa"]}
    intervention = Intervention("math", made.steps, made.shared)
    return resolve(intervention, target, table(OF_TWO, languages), statistics, source)


def outcome(plan, start=10.0):
    """Return {(layer, neuron): value} after the plan's writes on neurons that hold `start`."""
    values = {}
    for one in plan.writes:
        for neuron, value in zip(one.index.tolist(), one.value.tolist(), strict=True):
            old = values.get((one.layer, neuron), start)
            results = {"set": value, "add": old + value, "scale": old * value}
            values[one.layer, neuron] = results[one.operation]
    return values


def test_deactivating_the_source_and_boosting_the_target(measured):
    mean = measured[1]["bb"]["act"].mean((1, 2))
    found = outcome(arithmetic(measured, DEACTIVATE, BOOST))
    expected = {(0, 3): -0.5, (0, 7): 10 + mean[0, 7], (1, 5): -0.5}
    expected |= {place: -0.5 + mean[place] for place in ((0, 9), (1, 40))}  # d + mu
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    replaced = outcome(arithmetic(measured, DEACTIVATE, BOOST | {"operation": "set"}))
    expected |= {place: mean[place] for place in ((0, 7), (0, 9), (1, 40))}
    assert replaced == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_steps_of_arithmetic_act_in_the_order_in_which_they_are_listed(measured):
    found = outcome(arithmetic(measured, BOOST, DEACTIVATE))
    assert {found[place] for place in ((0, 3), (0, 9), (1, 5), (1, 40))} == {-0.5}
    scaled = outcome(arithmetic(measured, DEACTIVATE, BOOST | {"operation": "scale", "value": -3}))
    assert (scaled[0, 9], scaled[0, 7], scaled[0, 3]) == (1.5, -30.0, -0.5)
    both = {"operation": "set", "value": 2.0}, {"operation": "add", "value": 0.25}
    assert set(outcome(arithmetic(measured, *both)).values()) == {2.25}


@pytest.mark.parametrize(
    ("shared", "of_source", "of_target"),
    [
        ("in_order", {3, 9}, {7, 9}),
        ("source", {3, 9}, {7}),
        ("target", {3}, {7, 9}),
        ("neither", {3}, {7}),
    ],
)
def test_shared_neurons_go_where_the_policy_says(measured, shared, of_source, of_target):
    plan = arithmetic(measured, DEACTIVATE, BOOST, shared=shared)
    operations = ("set", of_source), ("add", of_target)
    for operation, expected in operations:
        own = [w.index for w in plan.writes if (w.layer, w.operation) == (0, operation)]
        assert set(np.concatenate(own).tolist()) == expected
    # The same by a difference of sets, step by step.
    leave_out = {"target": [0], "source": [1], "neither": [0, 1], "in_order": []}[shared]
    steps = [dict(DEACTIVATE), dict(BOOST)]
    for number in leave_out:
        steps[number]["without"] = "source" if number else "target"
    assert outcome(arithmetic(measured, *steps)) == outcome(plan)


def test_two_steps_on_the_same_neurons_share_nothing(measured):
    first = {"neurons": ["target"], "operation": "set", "value": 2.0}
    steps = DEACTIVATE, first, BOOST
    plan = outcome(arithmetic(measured, *steps, shared="target"))
    mean = measured[1]["bb"]["act"].mean((1, 2))
    assert plan[0, 9] == pytest.approx(2 + mean[0, 9], rel=1e-4)
    assert plan[0, 3] == -0.5


def test_only_neurons_that_both_steps_reach_are_shared(measured):
    deep = BOOST | {"layers": [1, 1]}
    plan = outcome(arithmetic(measured, DEACTIVATE, deep, shared="neither"))
    assert plan == {(0, 3): -0.5, (0, 9): -0.5, (1, 5): -0.5}


def test_a_pair_of_one_language_is_deactivated_and_boosted_again(measured, caplog):
    mean = measured[1]["bb"]["act"].mean((1, 2))
    found = outcome(arithmetic(measured, DEACTIVATE, BOOST, source="bb"))
    own = ((0, 7), (0, 9), (1, 40))
    assert found == pytest.approx({place: mean[place] - 0.5 for place in own}, rel=1e-4)
    alone = outcome(arithmetic(measured, DEACTIVATE, BOOST, source="bb", shared="target"))
    assert alone == pytest.approx({place: mean[place] + 10 for place in own}, rel=1e-4)
    with caplog.at_level(logging.WARNING):
        assert arithmetic(measured, DEACTIVATE, BOOST, source="bb", shared="neither").empty
    assert "NO NEURONS: math of bb to bb" in caplog.text


def test_a_source_without_neurons_leaves_the_boost(measured):
    languages = ("aa", "bb", "cc", "dd")
    plan = arithmetic(measured, DEACTIVATE, BOOST, source="dd", languages=languages)
    assert [w.operation for w in plan.writes] == ["add", "add"]
    assert outcome(plan) == outcome(arithmetic(measured, BOOST))


@pytest.mark.parametrize(
    ("step", "layer_1"),
    [
        ({"neurons": ["source", "target"]}, [5, 40]),
        ({"neurons": ["bb", "cc"]}, [5, 40]),
        ({"neurons": "cc"}, [5]),
        ({"neurons": "others"}, [5, 40]),
        ({"neurons": "others", "without": "target"}, [5]),
        ({"neurons": "others", "without": ["target", "cc"]}, []),
        ({"neurons": "target", "without": "source"}, []),
        ({"neurons": "source", "without": "cc"}, [40]),
    ],
)
def test_unions_and_differences_of_languages(measured, step, layer_1):
    plan = arithmetic(measured, {"operation": "set", "value": 2.0} | step)
    assert [w.index.tolist() for w in plan.writes if w.layer == 1] == ([layer_1] if layer_1 else [])


def test_the_statistic_of_a_union_is_that_of_the_language_named(measured):
    step = {"neurons": "others", "operation": "set", "value": "mean", "statistic_language": "bb"}
    found = outcome(arithmetic(measured, step))
    mean = measured[1]["bb"]["act"].mean((1, 2))
    for role, lang in (("target", "bb"), ("source", "aa")):
        same = outcome(arithmetic(measured, step | {"statistic_language": role}))
        expected = measured[1][lang]["act"].mean((1, 2))
        assert same == pytest.approx({place: expected[place] for place in found}, rel=1e-4)
    assert found[1, 5] == pytest.approx(mean[1, 5], rel=1e-4)
    for neurons in ("others", ["aa", "bb"]):
        with pytest.raises(ValueError, match="more than one language; name the one"):
            Step(neurons=neurons, operation="set", value="mean")


def test_without_a_source_a_step_on_it_is_refused(measured):
    with pytest.raises(ValueError, match="'math': speaks of `source`, and no source"):
        arithmetic(measured, DEACTIVATE, source=None)


def test_arithmetic_runs_as_written_by_hand(measured):
    mean = torch.from_numpy(measured[1]["bb"]["act"].mean((1, 2))).float()

    def edit(layer, where, values):
        if where == "act":
            source, target = ([3, 9], [7, 9]) if layer == 0 else ([5, 40], [40])
            values[..., source] = -0.5
            values[..., target] += mean[layer, target]
        return values

    model = tiny_model("llama")
    with applied(LanguageModel(model), arithmetic(measured, DEACTIVATE, BOOST)):
        found = logits(model)
    expected = logits(by_hand(tiny_model("llama"), edit))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("site", SITES)
def test_boosts_by_the_activation_probability(measured, site):
    plan = planned(measured, operation="add", value="probability", site=site)
    for one in plan.writes:
        expected = (measured[1]["aa"][site] > 0).mean((1, 2))[one.layer, one.index]
        np.testing.assert_allclose(one.value, expected, rtol=1e-12)


def test_patches_are_maximum_and_lower_median_of_the_means_of_documents(measured):
    # Four documents of 20 tokens; blocks hold 20 tokens after their BOS, so one document each.
    means = measured[1]["aa"]["act"].mean(2)  # (layer, document, neuron)
    assert means.shape[1] == 4
    lower = torch.from_numpy(means).median(dim=1).values.numpy()
    for value, expected in (("document_max", means.max(1)), ("document_median", lower)):
        for one in planned(measured, value=value).writes:
            own = expected[one.layer, one.index]
            np.testing.assert_allclose(one.value, own, rtol=1e-4, atol=1e-6)
    assert not np.allclose(lower, np.median(means, axis=1), rtol=1e-2)
    with pytest.raises(ValueError, match="no means per document of site 'gate'"):
        planned(measured, value="document_max", site="gate")


def test_what_the_nonlinearity_never_gives_is_set_with_a_warning(measured, caplog):
    assert minimum("silu") == pytest.approx(-0.278465, abs=1e-6)
    assert minimum("relu") == 0.0
    grid = np.linspace(-30, 30, 60001)
    for name, function in NONLINEARITIES.items():
        assert minimum(name) == pytest.approx(function(grid).min(), abs=1e-6)
    for step in (
        {"value": -0.27},
        {"value": -9, "site": "gate"},
        {"value": -9, "operation": "add"},
    ):
        planned(measured, **step)
    assert not caplog.records
    plan = planned(measured, value=-1.5)
    assert (
        "name of aa sets activations as low as -1.5; silu gives none below -0.2785" in caplog.text
    )
    assert {value for one in plan.writes for value in one.value} == {-1.5}


# Plans by row -------------------------------------------------------------------------------------


@contextmanager
def by_row(sites, plans, strict=True):
    running = PlanPerRow(sites, plans)
    try:
        yield running
        running.check(strict)
    finally:
        running.remove()


def several_plans():
    """Return plans that differ in neurons, layers, sites, operations, tokens and length."""
    every = np.arange(48)
    return [
        Plan("untouched"),
        Plan("zero", [write("set", 0), write("set", 0, 1)]),
        Plan("arithmetic", [write("set", -0.5), write("add", [0.3, 1.0, -2.0])]),
        Plan("other neurons", [write("add", 1.5, 1, "act", np.array([2, 5, 6, 47]))]),
        Plan("scaled", [write("scale", -2.0, 0, "product", every), write("set", 1.0, 1, "gate")]),
        Plan("prompt", [write("set", 2.0, tokens="prompt"), write("add", 1.0, 1)]),
        Plan("generated", [write("set", 2.0, 1, tokens="generated")]),
        Plan("zero again", [write("set", 0), write("set", 0, 1)]),
        Plan("layer", [Write(0, "act", "set", INDEX, np.ones(3), factor=Factor("layer_max"))]),
        Plan("added", [Write(1, "act", "add", INDEX, np.ones(3), factor=Factor("layer_p90"))]),
        Plan("bounded", [write("at_least", [0.1, 0.2, 0.3]), write("at_most", 0.05, 1)]),
        Plan("raised", [write("add", 0.2, 0, "act", every), write("at_least", 0.4, 1)]),
    ]


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])
def test_rows_under_their_own_plans_equal_each_plan_alone_to_the_bit(family):
    model, plans = tiny_model(family), several_plans()
    sites, numbers = MlpSites(model), [9, 0, 2, 7, 1, 10, 3, 5, 8, 6, 4, 11]
    tokens = ids(len(numbers), 7)
    prompt = torch.arange(7).expand(len(numbers), 7) < 4
    valid = torch.arange(7) < torch.tensor([[5], [6], [7]]).repeat(4, 1)
    announced, lm = (prompt, valid, torch.tensor(numbers)), LanguageModel(model)
    with by_row(sites, plans) as running:
        running.announce(*announced)
        found = logits(model, tokens)
    assert running.changed == set(range(1, len(plans)))
    untouched = logits(model, tokens)
    for number, plan in enumerate(plans):
        with applied(lm, plan) as alone:
            alone.announce(*announced)
            expected = logits(model, tokens)
        rows = [row for row, one in enumerate(numbers) if one == number]
        assert torch.equal(found[rows], expected[rows])
        assert plan.empty or not torch.allclose(found[rows], untouched[rows], atol=1e-3)


def test_scores_of_plans_in_one_batch_equal_those_of_each_alone():
    model, tokenizer, plans = tiny_model("llama"), tiny_tokenizer(), several_plans()
    requests = [("w1 w2 w3", " w4 w5"), ("w6", " w7"), ("w8 w9 w10 w11", " w12")]
    numbers = [number for number in range(len(plans)) for _ in requests]
    for budget in (1, 20, 1000):
        found = loglikelihood(
            LanguageModel(model, tokenizer),
            requests * len(plans),
            budget,
            under=PerRequest(plans, numbers),
        )
        for number, plan in enumerate(plans):
            expected = loglikelihood(LanguageModel(model, tokenizer), requests, 1, under=plan)
            own = found[number * len(requests) : (number + 1) * len(requests)]
            np.testing.assert_allclose(
                [value for value, _ in own], [value for value, _ in expected], rtol=1e-6, atol=1e-5
            )


def test_pairs_of_languages_generate_in_one_batch_as_alone():
    model, tokenizer, plans = tiny_model("llama"), tiny_tokenizer(), several_plans()
    prompts = ["w1 w2", "w3 w4 w5 w6 w7 w8"]
    numbers = [number for number in range(len(plans)) for _ in prompts]
    expected = []
    for plan in plans:
        expected += generate(LanguageModel(model, tokenizer), prompts, Decoding(6), 1, under=plan)
    for budget in (30, 10_000):
        found = generate(
            LanguageModel(model, tokenizer),
            prompts * len(plans),
            Decoding(6),
            budget,
            under=PerRequest(plans, numbers),
        )
        assert found == expected
    assert len(set(expected)) > 6


def test_each_plan_must_have_a_row_and_an_effect():
    model = tiny_model("llama")
    sites, good, idle = MlpSites(model), Plan("good", [write("set", 2.0)]), Plan("idle")
    dull = Plan("dull", [write("scale", 1.0)])
    mask = torch.ones(2, 7, dtype=torch.bool)

    def run(plans, numbers, strict=True, valid=mask):
        with by_row(sites, plans, strict) as running:
            running.announce(mask, valid, torch.tensor(numbers))
            logits(model)

    before = hooks(model)
    run([idle, good], [0, 1])
    with pytest.raises(NoEffect, match="'dull': 3 neurons were written"):
        run([good, dull], [0, 1])
    run([good, dull], [0, 1], strict=False)
    with pytest.raises(NoEffect, match="'good': no row of any batch"):
        run([idle, good], [0, 0])
    nothing = torch.tensor([[True] * 7, [False] * 7])
    with pytest.raises(NoEffect, match="'good': 3 neurons"):  # padding is no effect
        run([idle, good], [0, 1], valid=nothing)
    with pytest.raises(NoEffect, match=r"'good': no hook fired in layers \[0\]"):
        with by_row(sites, [good]) as running:
            running.announce(mask, mask, torch.tensor([0, 0]))
    with pytest.raises(ValueError, match=r"plans \[0, 2\]; there are 2"):
        run([idle, good], [0, 2])
    with pytest.raises(RuntimeError, match="announce"):
        with by_row(sites, [good]):
            logits(model)
    with pytest.raises(RuntimeError, match="announce"):
        with by_row(sites, [good]) as running:
            running.announce(mask)
    with pytest.raises(ValueError, match="layer 2 of a model of 2"):
        run([Plan("deep", [write("set", 0, 2)])], [0, 0])
    assert hooks(model) == before


def test_one_operation_per_round_whatever_the_number_of_plans():
    """441 pairs of 21 languages: two rounds per layer, 21 distinct writes in each."""
    generator = np.random.default_rng(0)
    sets = [np.sort(generator.choice(48, 5, replace=False)) for _ in range(21)]
    plans = [
        Plan("pair", [write("set", 0, 0, "act", one), write("add", 1.0, 0, "act", other)])
        for one in sets
        for other in sets
    ]
    model = tiny_model("llama")
    with by_row(MlpSites(model), plans, strict=False) as running:
        (operations,) = running.operations.values()
        assert [one.added.shape[0] for one in operations] == [22, 22]
        numbers = torch.arange(441)
        mask = torch.ones(441, 7, dtype=torch.bool)
        running.announce(mask, mask, numbers)
        found = logits(model, ids(1).expand(441, -1))
    for number in (0, 22, 230, 440):
        with applied(LanguageModel(model), plans[number]):
            torch.testing.assert_close(found[number], logits(model, ids(1))[0])
    with pytest.raises(NoEffect):
        with by_row(MlpSites(model), plans):
            pass


def settings(step, protocol, **more):
    return {
        "name": "x",
        "models": {"m": {"source": {"kind": "local", "path": "m"}, "dtype": "float32"}},
        "language_sets": {"two": ["en", "vi"]},
        "selections": {"lape": {"method": "lape", "rate": 0.1}},
        "interventions": {"i": {"operation": "set", **step}},
        "perplexity": {"interventions": ["i"], "tokens": 1000},
        "protocols": protocol if isinstance(protocol, str) else {"x": protocol},
        "statistics": more,
    }


def job(config):
    variant = config.variants("perplexity")[0]
    names = {
        "model": "m",
        "variant": variant,
        "langset": "en-vi",
        "selection": "lape",
    }
    return stage(config, "measure_perplexity", **names)["interventions"]["i"]


def test_a_mismatch_of_sites_is_refused_unless_the_protocol_asks_for_it():
    mismatch = {"value": "mean", "site": "act", "statistic_site": "gate"}
    with pytest.raises(
        ConfigError, match=r"'gate' written at site 'act'.*intervention_site: paper"
    ):
        build(settings(mismatch, "corrected"))
    for step in (mismatch, {"value": "mean", "site": "act"}):
        found = job(build(settings(step, {"intervention_site": "paper"})))
        assert found["steps"][0]["statistic_site"] == "gate"
    found = job(build(settings({"value": "mean", "site": "act"}, "corrected")))
    assert found["steps"][0]["statistic_site"] == "act"


def test_the_papers_quantiles_need_their_batch_quantile():
    with pytest.raises(ConfigError, match="batch quantile 0.9"):
        build(settings({"value": "p90"}, "paper"))
    found = job(build(settings({"value": "p90"}, "paper", batch_quantiles=[0.9])))
    assert found["quantiles"] == "paper"
    assert "quantiles" not in job(build(settings({"value": "mean"}, "paper")))


def test_a_job_makes_the_plan_that_the_configuration_says(measured):
    steps = [
        {"neurons": "aa", "operation": "set", "value": -0.1},
        BOOST | {"value": "layer_p10", "coefficient": 2.0},
    ]
    raw = settings({}, "paper") | {"language_sets": {"two": ["aa", "bb"]}}
    raw["languages"] = {lang: {"name": lang.upper()} for lang in ("aa", "bb")}
    raw["corpus"] = {"source": {"kind": "jsonl", "path": "{lang}.jsonl"}, "heldout_tokens": 5000}
    for shared, of_aa in (("in_order", [3, 9]), ("target", [3])):
        raw["interventions"] = {"i": {"steps": steps, "shared": shared}}
        config = build(raw)
        names = {"model": "m", "variant": "paper", "langset": "aa-bb", "selection": "lape"}
        found = stage(config, "measure_perplexity", **names)["interventions"]["i"]
        rows = [row for row in OF_TWO if row[0] != "cc" and row[1] == 0]
        plan = planned_by_job("i", found, "bb", table(rows), measured[0])
        assert [w.index.tolist() for w in plan.writes] == [of_aa, [7, 9]]
        assert plan.writes[1].factor == Factor("layer_p10", "paper")
        assert plan.writes[1].value.tolist() == [2.0, 2.0]
    pair = {"steps": [DEACTIVATE | {"without": "target"}]}
    plan = planned_by_job("i", pair, "bb", table(rows), measured[0], source="aa")
    assert [w.index.tolist() for w in plan.writes] == [[3]]
