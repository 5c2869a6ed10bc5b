"""Interventions against MLPs written by hand, and their algebra."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from test_adapters import nonlinearity, project
from tiny import VOCAB_SIZE, tiny_model, tiny_tokenizer

from langneurons import scoring
from langneurons.adapters import ADAPTERS, MlpSites
from langneurons.collect import Settings, collect
from langneurons.config import ConfigError, build
from langneurons.config.interventions import InterventionEntry, Step
from langneurons.corpora import Corpus, pack_documents
from langneurons.histogram import bin_width
from langneurons.interventions import NoEffect, Plan, Write, applied, resolve
from langneurons.neurons import NeuronTable
from langneurons.stages import stage

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
@pytest.mark.parametrize("family", sorted(ADAPTERS))
def test_zero_on_a_whole_layer_is_the_layer_without_its_down_projection(family, site):
    model, ablated = tiny_model(family), tiny_model(family)
    sites = MlpSites(model)
    MlpSites(ablated).down[1].weight.zero_()
    plan = Plan("zero", [write("set", 0, 1, site, np.arange(sites.d_mlp))])
    untouched = logits(model)
    with applied(sites, plan):
        found = logits(model)
    torch.testing.assert_close(found, logits(ablated), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, untouched, atol=1e-2)


@pytest.mark.parametrize(("operation", "value"), [("scale", 1.0), ("add", 0.0)])
def test_identity_is_reported_as_without_effect(operation, value):
    model = tiny_model("llama")
    sites, plan = MlpSites(model), Plan("idle", [write(operation, value)])
    with pytest.raises(NoEffect, match="'idle': 3 neurons were written"):
        with applied(sites, plan):
            found = logits(model)
    assert torch.equal(found, logits(model))
    with applied(sites, plan, strict=False) as running:
        assert torch.equal(logits(model), found)
    assert not running.changed
    with pytest.raises(ValueError, match="changes nothing"):
        Step(operation=operation, value=value)


@pytest.mark.parametrize("site", SITES)
def test_adding_and_subtracting_cancel(site):
    model = tiny_model("llama")
    value = np.array([2.0, -1.5, 0.25])
    with applied(MlpSites(model), Plan("one", [write("add", value, site=site)])):
        moved = logits(model)
    both = Plan("both", [write("add", value, site=site), write("add", -value, site=site)])
    with applied(MlpSites(model), both):
        cancelled = logits(model)
    torch.testing.assert_close(cancelled, logits(model), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(moved, cancelled, atol=1e-2)


def test_steps_act_in_their_order_on_shared_neurons():
    model = tiny_model("llama")
    zero_then_add = Plan("a", [write("set", 0), write("add", 3.0)])
    add_then_zero = Plan("b", [write("add", 3.0), write("set", 0)])
    found = []
    for plan in (zero_then_add, Plan("c", [write("set", 3.0)]), add_then_zero):
        with applied(MlpSites(model), plan):
            found.append(logits(model))
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-2)


# Against MLPs by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["set", "add", "scale"])
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
            values[..., index] = results[operation]
        return values

    model = tiny_model(family)
    plan = Plan(
        "p", [write(operation, value, 0, site), write(operation, 4.0, 1, site, index=other)]
    )
    assert (plan.neurons, plan.first_layer) == (5, 0)
    seen = {}
    sites = MlpSites(model)
    handle = sites.down[0].register_forward_pre_hook(lambda _m, x: seen.setdefault("before", x[0]))
    untouched = logits(model)
    handle.remove()
    with applied(sites, plan):
        handle = sites.down[0].register_forward_pre_hook(lambda _m, x: seen.update(after=x[0]))
        found = logits(model)
        handle.remove()
    expected = logits(by_hand(tiny_model(family), edit))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, untouched, atol=1e-2)
    others = np.setdiff1d(np.arange(48), INDEX)
    assert torch.equal(seen["before"][..., others], seen["after"][..., others])
    assert torch.equal(logits(model), untouched)


def test_models_that_track_gradients_are_served_alike():
    model = tiny_model("llama")
    plan = Plan("p", [write("set", 1.0)])
    with applied(MlpSites(model), plan):
        expected = logits(model)
    model.requires_grad_(True)
    with applied(MlpSites(model), plan):
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
    with applied(MlpSites(model), Plan("p", [write("set", 2.0, tokens=scope)])) as running:
        running.on_forward(prompt)
        found = logits(model)
    expected = logits(by_hand(tiny_model(family), edit))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if scope == "generated":
        torch.testing.assert_close(found[0, :3], logits(model)[0, :3])


def test_a_limited_write_needs_to_know_the_prompt():
    model = tiny_model("llama")
    with pytest.raises(RuntimeError, match="on_forward"):
        with applied(MlpSites(model), Plan("p", [write("set", 2.0, tokens="prompt")])):
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
        with applied(MlpSites(model), plan) as running:
            found = scoring.generate(
                model, tokenizer, prompts, 6, [], budget, on_forward=running.on_forward
            )
        assert found == expected
    assert expected != scoring.generate(model, tokenizer, prompts, 6, [], 1000)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_rows_of_a_batch_do_not_touch_each_other(family):
    model = tiny_model(family)
    tokens = ids(4, 12).numpy().astype(np.int32)
    lengths = np.array([12, 4, 9, 2])
    scored = np.arange(12) < lengths[:, None]
    with applied(MlpSites(model), Plan("p", [write("add", 2.0)])):
        alone = scoring.token_nll(model, tokens, lengths, scored, 1)
        batched = scoring.token_nll(model, tokens, lengths, scored, 1000)
    np.testing.assert_allclose(batched, alone, atol=1e-4)
    assert np.isfinite(alone).sum() == (lengths - 1).sum()


# Lifetime of the hooks ----------------------------------------------------------------------------


def test_hooks_are_gone_whatever_happens():
    model = tiny_model("llama")
    sites, plan = MlpSites(model), Plan("p", [write("set", 0, site=site) for site in SITES])
    before, clean = hooks(model), logits(model)
    with applied(sites, plan):
        assert hooks(model) == before + 3
        logits(model)
    assert hooks(model) == before
    with pytest.raises(KeyboardInterrupt):
        with applied(sites, plan):
            raise KeyboardInterrupt
    with pytest.raises(NoEffect, match=r"no hook fired in layers \[0\]"):
        with applied(sites, plan):
            pass
    with pytest.raises(ValueError, match="layer 2 of a model of 2"):
        with applied(sites, Plan("deep", [write("set", 0), write("set", 0, layer=2)])):
            pass
    assert hooks(model) == before
    assert torch.equal(logits(model), clean)


# From configuration to plan -----------------------------------------------------------------------


def corpus(lang, seed, bos="block"):
    generator = np.random.default_rng(seed)
    documents = [(str(i), [int(t) for t in generator.integers(4, 99, 20)], 60) for i in range(4)]
    part = pack_documents(documents, 21, 10**6, bos, 1, [], 0)
    return Corpus(lang, part, part, {"tokenizer_hash": "t", "corpus_hash": lang, "bos": bos})


@pytest.fixture(scope="module")
def measured():
    """Return statistics of two languages on a tiny model, and the values behind them by hand."""
    model = tiny_model("llama")
    sites = MlpSites(model)
    settings = Settings(histograms=SITES, batch_blocks=2, batch_quantiles=(0.9,))
    who = {"model": "tiny", "revision": "0", "dtype": "float32", "quantization": None}
    statistics, values = {}, {}
    for lang, seed in (("aa", 1), ("bb", 2)):
        text = corpus(lang, seed)
        statistics[lang] = collect(model, text, settings, who)
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
    return resolve("name", steps, target, table(rows), measured[0], quantiles)


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


def test_set_to_mean_runs_as_written_by_hand(measured):
    mean = torch.from_numpy(measured[1]["aa"]["act"].mean((1, 2))).float()

    def edit(layer, where, values):
        if where == "act":
            index = [3] if layer == 0 else [5, 40]
            values[..., index] = mean[layer, index]
        return values

    model = tiny_model("llama")
    with applied(MlpSites(model), planned(measured, value="mean")):
        found = logits(model)
    expected = logits(by_hand(tiny_model("llama"), edit))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_layers_and_neurons_of_a_step(measured):
    for layers, touched in (([1, 9], [1]), ([0, 0], [0]), ([0, 1], [0, 1]), (None, [0, 1])):
        plan = planned(measured, value=0, layers=layers)
        assert [w.layer for w in plan.writes] == touched
    plan = planned(measured, target="bb", value=0, neurons="aa")
    assert [w.index.tolist() for w in plan.writes] == [[3], [5, 40]]
    with pytest.raises(ValueError, match="layers 2-3 of a model of 2"):
        planned(measured, value=0, layers=[2, 3])


def test_a_target_without_neurons_is_a_warning_and_the_untouched_model(measured, caplog):
    rows = [row for row in ROWS if row[0] == "aa"]
    with caplog.at_level(logging.WARNING):
        plan = planned(measured, target="bb", rows=rows, value=0)
    assert plan.empty and "NO NEURONS: name of bb" in caplog.text
    model = tiny_model("llama")
    before = logits(model)
    with applied(MlpSites(model), plan):
        assert torch.equal(logits(model), before)


def test_what_cannot_be_resolved_says_why(measured):
    with pytest.raises(ValueError, match="no neurons of 'cc'.*its languages: aa, bb"):
        planned(measured, target="cc", value=0)
    with pytest.raises(ValueError, match="no activation statistics of 'cc'"):
        planned(measured, value="mean", statistic_language="cc")
    steps = InterventionEntry(steps=[Step(operation="set", value="mean")]).steps
    with pytest.raises(ValueError, match="neuron table of another model"):
        resolve("name", steps, "aa", table(ROWS, d_mlp=50), measured[0])
    with pytest.raises(ValueError, match="not finite"):
        planned(measured, value=float("inf"))


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
    points = config.points("perplexity")[0]
    names = {
        "model": "m",
        "points": points,
        "langset": "en-vi",
        "selection": "lape",
        "intervention": "i",
    }
    return stage(config, "measure_perplexity", **names)["intervention"]


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
