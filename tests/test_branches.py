"""Plans that branch off from a common trunk of layers give what each gives alone."""

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_finetune import CLASSES, nli_rows
from test_prefixes import MODELS, SLIDING, many_requests, words
from tiny import tiny_model, tiny_tokenizer

from langneurons.base.store import SideStore
from langneurons.evaluation.classification import Head, add_head, classify
from langneurons.evaluation.conditions import Manner, evaluate
from langneurons.evaluation.definition import load_task
from langneurons.evaluation.run import Run
from langneurons.interventions.apply import hooked
from langneurons.interventions.branches import Layout, portions
from langneurons.interventions.factors import Factor
from langneurons.interventions.hooks import NoEffect
from langneurons.interventions.plan import Plan, Write
from langneurons.models.language_model import LanguageModel
from langneurons.scoring import reading
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.engine import Engine
from langneurons.scoring.generation import generate
from langneurons.scoring.keyvalues import KeyValues
from langneurons.scoring.likelihood import loglikelihood
from langneurons.scoring.nll import token_nll

N_LAYERS = 4


def deep_plans(sites, tokens="all", factor=None, seed=0):
    """Return plans that begin at layers 2, 0, 3, nowhere and 2, at every site."""
    generator = np.random.default_rng(seed)
    last = "scale" if factor is None else "add"  # a layer's own value scales nothing
    found = []
    for number, first in enumerate((2, 0, 3, None, 2)):
        plan = Plan(f"plan {number}")
        for layer in range(N_LAYERS if first is None else first, N_LAYERS):
            for site, operation in (("gate", "add"), ("act", "set"), ("product", last)):
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
    four = Layout.branching([3, 0, 5, 5], 6)
    assert four == Layout((3, 1, 0, 2), (2, 2, 2, 3, 3, 4))
    assert [four.block(2, plan) for plan in range(4)] == [0, 1, 0, 0]
    assert four.last() == [2, 1, 3, 0]
    assert Layout.branching([3, 0, 6], 6) == Layout((2, 1, 0), (2, 2, 2, 3, 3, 3))
    assert Layout.branching([3], 6) == Layout((0,), (1,) * 6)
    nowhere = Layout.branching([6, 6, 4], 6)
    assert nowhere == Layout((1, 2, 0), (1, 1, 1, 1, 2, 2)) and nowhere.last() == [0, 0, 1]
    assert Layout.apart(3, 2).last() == [0, 1, 2]


def test_writes_into_answers_touch_no_layer_of_a_prompt():
    at, value = np.array([0]), np.array([1.0])
    plan = Plan("late", [Write(2, "act", "set", at, value, "generated")])
    assert (plan.begins(9), plan.begins(9, of_prompts=True)) == (2, 9)
    plan.writes.append(Write(5, "act", "set", at, value, "prompt"))
    assert (plan.begins(9), plan.begins(9, of_prompts=True)) == (2, 5)
    assert Plan("none").begins(9) == 9


def test_portions_hold_each_plan_once_and_only_join_what_saves_layers():
    assert portions([0, 0, 0], 10, 8) == [[0], [1], [2]]
    assert portions([5, 0, 9, 0], 10, 8) == [[2, 0], [1], [3]]
    assert sorted(map(len, portions([8] * 7, 10, 3))) == [1, 3, 3]
    assert portions([8, 8], 10, 1) == [[0], [1]]
    assert [len(one) for one in portions([9] * 40, 10, 100)] == [16, 16, 8]  # what a kill may cost
    assert portions([10, 5], 10, 4) == [[0, 1]]


@pytest.mark.parametrize(("family", "overrides"), MODELS)
def test_branches_equal_each_plan_alone_with_and_without_a_cache(family, overrides):
    model = LanguageModel(deep_model(family, overrides))
    sites = model.sites
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
            running.begin()
            running.announce(whole, whole)
            plain = reading.states(sites, tokens)
            cache = KeyValues(sites.config)
            running.announce(mask, mask)
            first = reading.next_states(sites, tokens, mask, cache)
            cache.select(copied, len(tokens))
            running.announce(ones, ones)
            second = reading.next_states(sites, more, torch.cat([mask[copied], ones], 1), cache)
            return [plain, first, second]

        with torch.inference_mode():
            with hooked(model, plans) as running:
                together = passes(running)
            for number, plan in enumerate(plans):
                with hooked(model, plan) as alone:
                    expected = passes(alone)
                for found, wanted, valid in zip(
                    together, expected, (torch.ones_like(mask), mask, None), strict=True
                ):
                    block = running.by_plan(found)[number]
                    if valid is not None:
                        block, wanted = block[valid], wanted[valid]
                    torch.testing.assert_close(block, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", ("all", "prompt", "generated"))
@pytest.mark.parametrize("factor", (None, Factor("layer_max")))
@pytest.mark.parametrize("family", ("llama", "gemma3_text", "opt"))
def test_scores_of_branches_equal_those_of_each_plan_alone(family, factor, tokens):
    model = LanguageModel(deep_model(family, SLIDING.get(family, {})), tiny_tokenizer())
    sites = model.sites
    plans = deep_plans(sites, tokens, factor)
    requests = many_requests(2)
    generator = np.random.default_rng(0)
    lengths = np.array([9, 4, 12, 1])
    blocks = generator.integers(4, 99, (4, 12)).astype(np.int32)
    scored = np.arange(12) < lengths[:, None]
    for budget in (1, 300):
        found = loglikelihood(model, requests, budget, under=plans)
        for plan, values in zip(plans, found, strict=True):
            expected = loglikelihood(model, requests, 1, under=plan)
            np.testing.assert_allclose([v[0] for v in values], [e[0] for e in expected], atol=1e-5)
        if tokens == "generated":  # blocks of text hold none
            with pytest.raises(NoEffect, match="every value was already there"):
                token_nll(model, blocks, lengths, scored, budget, under=plans)
            continue
        nll = token_nll(model, blocks, lengths, scored, budget, under=plans)
        for plan, losses in zip(plans, nll, strict=True):
            wanted = token_nll(model, blocks, lengths, scored, 1, under=plan)
            np.testing.assert_allclose(losses, wanted, atol=1e-5)
    assert len({round(sum(value for value, _ in values), 3) for values in found}) == len(plans)


@pytest.mark.parametrize("tokens", ("all", "prompt", "generated"))
@pytest.mark.parametrize("factor", (None, Factor("layer_max")))
@pytest.mark.parametrize("family", ("llama", "gemma3_text", "opt", "bloom"))
def test_answers_of_branches_equal_those_of_each_plan_alone(family, factor, tokens):
    model = LanguageModel(deep_model(family, SLIDING.get(family, {})), tiny_tokenizer())
    sites = model.sites
    plans = deep_plans(sites, tokens, factor)
    generator = np.random.default_rng(1)
    start = words(generator, 9)
    prompts = [f"{start} {words(generator, n)}" for n in (1, 4, 4)] + [words(generator, 6), start]
    decoding = Decoding(6, ["w7"], 1.3)
    expected = [generate(model, prompts, decoding, 1, under=plan) for plan in plans]
    assert len({tuple(texts) for texts in expected}) > 2
    for budget in (1, 200, 5000):
        assert generate(model, prompts, decoding, budget, under=plans) == expected
    assert not any(module._forward_pre_hooks for module in (*sites.layers, *sites.down))


@contextmanager
def counted(sites):
    """Count the rows that pass through each layer."""
    rows = [0] * sites.n_layers

    def counting(layer):
        def hook(_module, inputs, output):
            rows[layer] += len(output)

        return hook

    handles = [sites.act[k].register_forward_hook(counting(k)) for k in range(sites.n_layers)]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def test_the_layers_below_run_once_for_all_plans():
    model = LanguageModel(deep_model("llama", {}), tiny_tokenizer())
    sites = model.sites
    with counted(sites) as rows:
        loglikelihood(model, [("w1", " w2")], 1000, under=deep_plans(sites))
    assert rows == [2, 2, 4, 5]
    with counted(sites) as rows:
        generate(model, ["w1"], Decoding(1), 1000, under=deep_plans(sites))
    assert rows == [2, 2, 4, 5]
    with counted(sites) as rows:
        generate(model, ["w1"], Decoding(3), 1000, under=deep_plans(sites))
    assert rows == [12, 12, 14, 15]  # and two more tokens of five answers


def test_what_is_written_into_answers_leaves_prompts_in_common():
    model = LanguageModel(deep_model("llama", {}), tiny_tokenizer())
    sites = model.sites
    plans = deep_plans(sites, "generated")
    pairs = [("w1 w2 w3", " w4 w5 w6"), ("w1 w2 w3", " w8 w9"), ("w7 w2 w1", " w4 w5")]
    with counted(sites) as rows:
        found = loglikelihood(model, pairs, 1000, under=plans)
    # Two contexts once, then three continuations under the plans that have branched off.
    assert rows == [2 + 3 * n for n in (2, 2, 4, 5)]
    for plan, values in zip(plans, found, strict=True):
        expected = loglikelihood(model, pairs, 1, under=plan)
        np.testing.assert_allclose([v[0] for v in values], [e[0] for e in expected], atol=1e-5)
    with counted(sites) as rows:
        generate(model, ["w1 w2", "w3"], Decoding(2), 1000, under=plans)
    assert rows == [1 + 2 + 10] * N_LAYERS  # BOS, the two prompts, answers of five plans


@pytest.mark.parametrize("pooling", ("last_token", "last_position"))
@pytest.mark.parametrize("family", ("llama", "gemma3_text", "opt"))
def test_classes_of_branches_equal_those_of_each_plan_alone(family, pooling):
    model = LanguageModel(deep_model(family, SLIDING.get(family, {})), tiny_tokenizer())
    add_head(model, 3)
    head, given = Head(pooling, 32), (model, CLASSES, "en", nli_rows(12))
    plans = [scaled(plan, 5.0) for plan in deep_plans(model.sites)]
    expected = [classify(*given, 1, head, under=plan) for plan in plans]
    assert len({tuple(frame["prediction"]) for frame in expected}) > 1
    for budget in (1, 300, 9000):
        found = classify(*given, budget, head, under=plans)
        for one, wanted in zip(found, expected, strict=True):
            pd.testing.assert_frame_equal(one, wanted)


def scaled(plan, by):
    return Plan(plan.name, [replace(write, value=by * write.value) for write in plan.writes])


def test_branches_without_effect_are_named():
    model = LanguageModel(deep_model("llama", {}))
    idle = Plan("idle", [Write(2, "act", "add", np.array([1]), np.array([0.0]))])
    tokens = torch.tensor([[1, 5, 6]])
    whole = torch.ones_like(tokens, dtype=torch.bool)
    with pytest.raises(NoEffect, match="'idle'"), hooked(model, [idle, None]) as running:
        running.begin()
        running.announce(whole, whole)
        reading.states(model.sites, tokens)
    with hooked(model, [idle, None]) as running:
        with pytest.raises(RuntimeError, match="without numbers"):
            running.announce(whole, whole, torch.tensor([0]))
    with pytest.raises(ValueError, match="empty list of plans"), hooked(model, []):
        pass
    assert not any(module._forward_pre_hooks for module in model.sites.layers)


PAIRS = {
    "name": "pairs",
    "kind": "multiple_choice",
    "fields": ["text", "label"],
    "context": "{text}",
    "choices": ["w1", "w2 w3", "w4"],
    "gold": "label",
    "metrics": ["accuracy"],
    "words": {"en": {}},
}
ANSWERS = {
    "name": "answers",
    "kind": "generation",
    "fields": ["text", "answer"],
    "context": "{text}",
    "gold": "answer",
    "metrics": ["exact_match", "f1"],
    "max_new_tokens": 5,
    "words": {"en": {}},
}


@pytest.mark.parametrize("kind", ("multiple_choice", "generation", "classification"))
def test_a_cell_is_the_same_together_and_one_by_one(tmp_path, monkeypatch, kind):
    model, head = LanguageModel(deep_model("llama", {}), tiny_tokenizer()), None
    if kind == "classification":
        add_head(model, 3)
        task, head, rows = CLASSES, Head("last_token", 32), nli_rows(12)
    else:
        definition = PAIRS if kind == "multiple_choice" else ANSWERS
        (tmp_path / "task.yaml").write_text(json.dumps(definition))
        task = load_task(tmp_path / "task.yaml")
        generator = np.random.default_rng(0)
        rows = [
            {"text": words(generator, 8), "label": int(k % 3), "answer": words(generator, 2)}
            for k in range(12)
        ]
    plans = {
        ("set", "lape", plan.name, "en"): plan for plan in deep_plans(model.sites) if not plan.empty
    }
    plans["set", "lape", "again", "en"] = Plan("again", plans["set", "lape", "plan 0", "en"].writes)
    runs = []

    def measured(folder, budget):
        run = Run(model, SideStore(tmp_path / folder, "evaluation"), {"model": "tiny"}, budget)
        return evaluate(run, task, "en", rows, plans, Manner(head=head))

    from langneurons.evaluation import conditions as evaluation

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
    if kind != "generation":
        return
    for decoded in ("continuous", "stored"):
        run = Run(model, SideStore(tmp_path / "c", "evaluation"), {}, 200, Engine("continuous"))
        found = evaluate(run, task, "en", rows, plans)
        pd.testing.assert_frame_equal(found, together)
        assert run.engine.record() == {"engine": "continuous", "answers": {decoded: 60}}
