"""One plan per row of a batch against one plan at a time."""

import numpy as np
import pytest
from test_interventions import write
from tiny import D_MLP, tiny_model, tiny_tokenizer

from langneurons import scoring
from langneurons.adapters import MlpSites
from langneurons.interventions import NoEffect, Plan, applied
from langneurons.rowwise import affine, applied_by_row, is_affine, under_plans

PROMPTS = ["w1", "w2 w3 w4 w5 w6 w7 w8 w9", "w3 w4", "w5 w6 w7", "w1", "w8 w8"]
INDEX = np.arange(0, D_MLP, 2)
PLANS = [
    Plan("none"),
    Plan("zero", [write("set", 0.0, 0, index=INDEX), write("set", 0.0, 1, index=INDEX)]),
    Plan("arithmetic", [write("set", 0.0, 1, index=INDEX), write("add", 2.5, 1, index=INDEX[2:])]),
    Plan("scale", [write("scale", -2.0, 0, "product", INDEX), write("add", 1.0, 0, "gate", INDEX)]),
    Plan("late", [write("set", 3.0, 1, index=INDEX, tokens="generated")]),
    Plan("early", [write("set", 3.0, 1, index=INDEX, tokens="prompt")]),
]


def run(model, tokenizer, budget, penalty=1.0):
    def generate(prompts):
        def inner(numbers, on_batch, on_forward):
            return scoring.generate(
                model,
                tokenizer,
                [prompts[n] for n in numbers],
                6,
                [],
                budget,
                penalty,
                on_forward=on_forward,
                on_batch=on_batch,
            )

        return inner

    return generate(PROMPTS)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "opt", "bloom"])
def test_rows_equal_one_plan_at_a_time(family, penalty):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    sites = MlpSites(model)
    expected = []
    for prompt, plan in zip(PROMPTS, PLANS, strict=True):
        with applied(sites, plan) as running:
            expected += scoring.generate(
                model, tokenizer, [prompt], 6, [], 1, penalty, on_forward=running.on_forward
            )
    for budget in (1, 30, 10_000):
        found = under_plans(sites, PLANS, run(model, tokenizer, budget, penalty))
        assert found == expected
    plain = scoring.generate(model, tokenizer, PROMPTS, 6, [], 100, penalty)
    assert found[0] == plain[0]
    assert sum(a != b for a, b in zip(found, plain, strict=True)) >= 1
    # No hook is left behind.
    assert scoring.generate(model, tokenizer, PROMPTS, 6, [], 100, penalty) == plain


def test_the_order_of_prompts_does_not_matter():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    sites = MlpSites(model)
    forth = under_plans(sites, PLANS * 2, lambda n, b, f: both(model, tokenizer, n, b, f))
    assert forth[:6] == forth[6:]


def both(model, tokenizer, numbers, on_batch, on_forward):
    prompts = [(PROMPTS * 2)[n] for n in numbers]
    return scoring.generate(
        model, tokenizer, prompts, 6, [], 40, on_forward=on_forward, on_batch=on_batch
    )


def test_steps_compose_in_their_order():
    writes = [
        write("set", 4.0, 0, index=np.array([1, 2])),
        write("scale", 3.0, 0, index=np.array([2, 3])),
        write("add", 1.0, 0, index=np.array([2, 5]), tokens="prompt"),
        write("set", 7.0, 0, index=np.array([5]), tokens="generated"),
    ]
    generator = np.random.default_rng(0)
    for phase in ("prompt", "generated"):
        values = generator.normal(size=D_MLP)
        expected = values.copy()
        for one in writes:
            if one.tokens not in ("all", phase):
                continue
            old = expected[one.index]
            expected[one.index] = {
                "set": one.value,
                "add": old + one.value,
                "scale": old * one.value,
            }[one.operation]
        index, multiplier, shift = affine(writes, D_MLP, phase)
        changed = values.copy()
        changed[index] = values[index] * multiplier + shift
        np.testing.assert_allclose(changed, expected)
        assert set(np.flatnonzero(values != expected)) <= set(index)


def test_a_plan_that_changes_nothing_is_refused_by_name():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    sites = MlpSites(model)
    idle = Plan("idle", [write("scale", 1.0, 0, index=INDEX)])
    with pytest.raises(NoEffect, match="'idle'"):
        under_plans(sites, [*PLANS[:5], idle], run(model, tokenizer, 100))
    assert not sites.act[0]._forward_hooks


def test_a_model_that_does_not_run_is_refused():
    sites = MlpSites(tiny_model("llama"))
    with pytest.raises(NoEffect, match="no hook fired"):
        with applied_by_row(sites, PLANS):
            pass


def test_plans_of_another_kind_run_alone():
    import dataclasses

    from langneurons.interventions import Write

    @dataclasses.dataclass(frozen=True)
    class Later(Write):
        factor: str | None = None

    number = Later(0, "act", "set", INDEX, np.zeros(len(INDEX)))
    assert is_affine(Plan("number", [number]))
    other = Plan("layer", [dataclasses.replace(number, factor="layer_max")])
    assert not is_affine(other)
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    seen = []

    def count(numbers, on_batch, on_forward):
        seen.append(list(numbers))
        return run(model, tokenizer, 100)(numbers, on_batch, on_forward)

    plans = [other, PLANS[1], other, PLANS[2], PLANS[0], PLANS[4]]
    found = under_plans(MlpSites(model), plans, count)
    assert seen == [[1, 3, 4, 5], [0, 2]]
    with applied(MlpSites(model), Plan("zero", [number])):
        alone = scoring.generate(model, tokenizer, PROMPTS, 6, [], 100)
    assert [found[0], found[2]] == [alone[0], alone[2]]
