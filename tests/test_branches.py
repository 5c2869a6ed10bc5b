"""Plans that branch off from a common trunk of layers give what each gives alone."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from test_prefixes import MODELS, SLIDING, many_requests
from tiny import tiny_model, tiny_tokenizer

from langneurons import scoring
from langneurons.adapters import MlpSites
from langneurons.branches import branched, order, portions
from langneurons.evaluation import evaluate
from langneurons.factors import Factor
from langneurons.interventions import NoEffect, Plan, Write, applied
from langneurons.keyvalues import KeyValues
from langneurons.sidestore import SideStore
from langneurons.tasks import load_task

N_LAYERS = 4


def deep_plans(sites, tokens="all", factor=None, seed=0):
    """Return plans that begin at layers 2, 0, 3, nowhere and 2, at every site."""
    generator = np.random.default_rng(seed)
    found = []
    for number, first in enumerate((2, 0, 3, None, 2)):
        plan = Plan(f"plan {number}")
        for layer in range(N_LAYERS if first is None else first, N_LAYERS):
            for site, operation in (("gate", "add"), ("act", "set"), ("product", "scale")):
                index = np.sort(generator.choice(sites.d_mlp, 9, replace=False))
                value = generator.normal(1, 1, 9)
                plan.writes.append(Write(layer, site, operation, index, value, tokens, factor))
        found.append(plan)
    return found


def deep_model(family, overrides):
    layers = {"gpt2": "n_layer", "bloom": "n_layer"}.get(family, "num_hidden_layers")
    kinds = overrides.get("layer_types")
    more = {} if kinds is None else {"layer_types": kinds * (N_LAYERS // 2)}
    return tiny_model(family, **(overrides | {layers: N_LAYERS} | more))


def test_the_trunk_goes_on_as_the_last_plan_to_branch_off():
    plans = [Plan(str(first)) for first in (3, 0, 5, 5)]
    for plan, first in zip(plans, (3, 0, 5, 5), strict=True):
        plan.writes.append(Write(first, "act", "set", np.array([0]), np.array([1.0])))
    assert order(plans, 6) == ([3, 1, 0, 2], [2, 2, 2, 3, 3, 4])
    assert order([*plans[:2], Plan("none")], 6) == ([2, 1, 0], [2, 2, 2, 3, 3, 3])
    assert order(plans[:1], 6) == ([0], [1] * 6)


def test_portions_hold_each_plan_once_and_only_join_what_saves_layers():
    def at(*layers):
        found = [Plan(str(first)) for first in layers]
        for plan, first in zip(found, layers, strict=True):
            plan.writes.append(Write(first, "act", "set", np.array([0]), np.array([1.0])))
        return found

    assert portions(at(0, 0, 0), 10, 8) == [[0], [1], [2]]
    assert portions(at(5, 0, 9, 0), 10, 8) == [[2, 0], [1], [3]]
    assert sorted(map(len, portions(at(*[8] * 7), 10, 3))) == [1, 3, 3]
    assert portions(at(8, 8), 10, 1) == [[0], [1]]
    assert portions([Plan("none"), *at(5)], 10, 4) == [[0, 1]]


@pytest.mark.parametrize(("family", "overrides"), MODELS)
def test_branches_equal_each_plan_alone_with_and_without_a_cache(family, overrides):
    model = deep_model(family, overrides)
    sites = MlpSites(model)
    plans = deep_plans(sites)
    generator = np.random.default_rng(0)
    for rows in (1, 3):
        tokens = torch.from_numpy(generator.integers(4, 99, (rows, 11)))
        mask = torch.ones(rows, 11, dtype=torch.bool)
        for row in range(1, rows):
            mask[row, :row] = False
        more = torch.from_numpy(generator.integers(4, 99, (2 * rows, 3)))
        copied = torch.arange(rows).repeat_interleave(2)

        def passes(
            running, tokens=tokens, mask=mask, more=more, copied=copied
        ) -> list[torch.Tensor]:
            ones = torch.ones_like(more, dtype=torch.bool)
            whole = torch.ones_like(tokens, dtype=torch.bool)
            running.on_forward(whole, whole)
            plain = scoring._hidden(sites, tokens)
            cache = KeyValues(sites.config)
            running.on_forward(mask, mask)
            first = scoring._read(sites, tokens, mask, cache)
            cache.select(copied, len(tokens))
            running.on_forward(ones, ones)
            second = scoring._read(sites, more, torch.cat([mask[copied], ones], 1), cache)
            return [plain, first, second]

        with torch.inference_mode():
            with branched(sites, plans) as running:
                together = passes(running)
            for number, plan in enumerate(plans):
                with applied(sites, plan) as alone:
                    expected = passes(alone)
                for found, wanted, valid in zip(
                    together, expected, (torch.ones_like(mask), mask, None), strict=True
                ):
                    block = found.reshape(len(plans), *wanted.shape)[running.blocks[number]]
                    if valid is not None:
                        block, wanted = block[valid], wanted[valid]
                    torch.testing.assert_close(block, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", ("all", "prompt", "generated"))
@pytest.mark.parametrize("factor", (None, Factor("layer_max")))
@pytest.mark.parametrize("family", ("llama", "gemma3_text", "opt"))
def test_scores_of_branches_equal_those_of_each_plan_alone(family, factor, tokens):
    model, tokenizer = deep_model(family, SLIDING.get(family, {})), tiny_tokenizer()
    sites = MlpSites(model)
    plans = deep_plans(sites, tokens, factor)
    requests = many_requests(2)
    generator = np.random.default_rng(0)
    lengths = np.array([9, 4, 12, 1])
    blocks = generator.integers(4, 99, (4, 12)).astype(np.int32)
    scored = np.arange(12) < lengths[:, None]
    for budget in (1, 300):
        with branched(sites, plans, strict=tokens != "generated") as running:
            assert running.by_token == (factor is None)
            found = scoring.branch_loglikelihoods(model, tokenizer, requests, budget, running)
            nll = scoring.token_nll(
                model,
                blocks,
                lengths,
                scored,
                budget,
                running.on_forward,
                branches=running.blocks,
            )
        for plan, values, losses in zip(plans, found, nll, strict=True):
            with applied(sites, plan) as alone:
                expected = scoring.loglikelihood(model, tokenizer, requests, 1, alone.on_forward)
                wanted = scoring.token_nll(model, blocks, lengths, scored, 1, alone.on_forward)
            np.testing.assert_allclose([v[0] for v in values], [e[0] for e in expected], atol=1e-5)
            np.testing.assert_allclose(losses, wanted, atol=1e-5)
    assert len({round(sum(value for value, _ in values), 3) for values in found}) == len(plans)


def test_the_layers_below_run_once_for_all_plans():
    model, tokenizer = deep_model("llama", {}), tiny_tokenizer()
    sites = MlpSites(model)
    rows = [0] * N_LAYERS

    def counting(layer):
        def hook(_module, _inputs, output):
            rows[layer] += len(output)

        return hook

    handles = [sites.act[k].register_forward_hook(counting(k)) for k in range(N_LAYERS)]
    with branched(sites, deep_plans(sites)) as running:
        scoring.branch_loglikelihoods(model, tokenizer, [("w1", " w2")], 1000, running)
    for handle in handles:
        handle.remove()
    assert rows == [2, 2, 4, 5]


def test_branches_without_effect_are_named():
    sites = MlpSites(deep_model("llama", {}))
    idle = Plan("idle", [Write(2, "act", "add", np.array([1]), np.array([0.0]))])
    tokens = torch.tensor([[1, 5, 6]])
    whole = torch.ones_like(tokens, dtype=torch.bool)
    with pytest.raises(NoEffect, match="'idle'"), branched(sites, [idle, Plan("none")]) as running:
        running.on_forward(whole, whole)
        scoring._hidden(sites, tokens)
    with branched(sites, [idle, Plan("none")]) as running:
        with pytest.raises(RuntimeError, match="without conditions"):
            running.on_forward(whole, whole, torch.tensor([0]))
        running.changed.add(0)
        running.fired[2] = 1


def test_a_cell_is_the_same_together_and_one_by_one(tmp_path, monkeypatch):
    model, tokenizer = deep_model("llama", {}), tiny_tokenizer()
    sites = MlpSites(model)
    definition = {
        "name": "pairs",
        "kind": "multiple_choice",
        "fields": ["text", "label"],
        "context": "{text}",
        "choices": ["w1", "w2 w3", "w4"],
        "gold": "label",
        "metrics": ["accuracy"],
        "words": {"en": {}},
    }
    (tmp_path / "task.yaml").write_text(json.dumps(definition))
    task = load_task(tmp_path / "task.yaml")
    generator = np.random.default_rng(0)
    rows = [
        {"text": " ".join(f"w{i}" for i in generator.integers(0, 90, 8)), "label": int(k % 3)}
        for k in range(12)
    ]
    plans = {("set", "lape", plan.name, "en"): plan for plan in deep_plans(sites) if not plan.empty}
    plans["set", "lape", "again", "en"] = Plan("again", plans["set", "lape", "plan 0", "en"].writes)
    key = {"model": "tiny"}
    runs = []

    def measured(folder, budget):
        store = SideStore(tmp_path / folder, "evaluation")
        return evaluate(model, tokenizer, task, "en", rows, plans, store, key, budget)

    from langneurons import evaluation

    plain = evaluation._Cell.scored
    monkeypatch.setattr(
        evaluation._Cell,
        "scored",
        lambda self, given: runs.append(len(given)) or plain(self, given),
    )
    together = measured("a", 1000)
    assert sorted(runs) == [1, 4] and runs[0] == 4  # the untouched model and three deep plans
    runs.clear()
    pd.testing.assert_frame_equal(measured("b", 9), together)
    assert runs == [1] * 5
    runs.clear()
    pd.testing.assert_frame_equal(measured("a", 1000), together)
    assert runs == []
    same = together[together["intervention"] == "again"]["prediction"].tolist()
    assert same == together[together["intervention"] == "plan 0"]["prediction"].tolist()
