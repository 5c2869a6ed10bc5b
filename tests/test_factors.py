"""Values of the layer itself: against sorted lists and forward passes by hand, in every batch."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_interventions import by_hand, ids, logits
from tiny import encoded_pair, tiny_model, tiny_tokenizer

from langneurons.evaluation.classification import Head, add_head, classify
from langneurons.evaluation.definition import Task
from langneurons.interventions.apply import applied
from langneurons.interventions.factors import LONG_ROW, Factor
from langneurons.interventions.plan import Plan, Write
from langneurons.interventions.resolve import Intervention, resolve
from langneurons.interventions.settings import InterventionEntry
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.generation import generate
from langneurons.scoring.likelihood import loglikelihood
from langneurons.scoring.nll import token_nll
from langneurons.selection.table import COLUMNS, NeuronTable

NAMES = ("layer_max", "layer_mean", "layer_median", "layer_std", "layer_p10", "layer_p90")
INDEX = np.array([3, 5, 40])
# Means and medians of the tiny layers lie near 0; a factor must show in the scores.
LOUD = {"layer_mean": 100.0, "layer_median": 100.0}
REQUESTS = [("w1 w2 w3 w4 w5 w6", " w7 w8"), ("w9", " w10"), ("w1 w2 w3", " w11 w12 w13")]


def by_definition(name, values, ranks="corrected"):
    """Return the factor of all values given, in float64, from their sorted list."""
    ordered = sorted(float(value) for value in np.asarray(values).ravel())
    n = len(ordered)
    if name == "layer_max":
        return ordered[-1]
    if name == "layer_median":
        return ordered[(n - 1) // 2]
    mean = sum(ordered) / n
    if name == "layer_mean":
        return mean
    if name == "layer_std":
        return (sum((value - mean) ** 2 for value in ordered) / n) ** 0.5
    level = int(name[-2:])
    if ranks == "paper":
        return ordered[max(int(level / 100 * n), 1) - 1]
    share = [100 * (i + 1) >= level * n for i in range(n)]
    return ordered[share.index(True)]


def plan_of(name, operation="set", site="act", layers=(0, 1), coefficient=1.0, tokens="all"):
    value = np.full(len(INDEX), coefficient)
    factor = Factor(name)
    return Plan(name, [Write(i, site, operation, INDEX, value, tokens, factor) for i in layers])


def edit_of(name, operation="set", site="act", layers=(0, 1), coefficient=1.0):
    """Return the plan as an edit of the hand-written MLP: one sequence, no padding."""

    def edit(layer, where, values):
        if where == site and layer in layers:
            value = by_definition(name, values.numpy()) * coefficient
            old = values[..., INDEX] if operation == "add" else 0
            values[..., INDEX] = old + value
        return values

    return edit


@pytest.mark.parametrize("ranks", ["corrected", "paper"])
@pytest.mark.parametrize("name", [*NAMES, "layer_p01", "layer_p29", "layer_p99"])
def test_each_row_has_its_own_over_its_tokens_only(name, ranks):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 6, 5, generator=generator)
    valid = torch.tensor([[1] * 6, [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0] * 6]).bool()
    values[~valid] = 1e4
    found = Factor(name, ranks)(values, valid)
    expected = [by_definition(name, values[i][valid[i]], ranks) for i in range(3)] + [0.0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7)
    whole = Factor(name, ranks)(values[:1], valid[:1])
    assert torch.equal(whole, found[:1])


def test_ranks_of_percentiles():
    values = torch.arange(1.0, 31.0).reshape(1, 3, 10)
    valid = torch.ones(1, 3, dtype=torch.bool)
    found = {}
    for ranks in ("corrected", "paper"):
        for level in ("01", "10", "29", "50", "99"):
            found[ranks, level] = float(Factor(f"layer_p{level}", ranks)(values, valid))
    # ceil of 0.3, 3, 8.7, 15, 29.7; int of them, 1 at least
    assert [found["corrected", k] for k in ("01", "10", "29", "50", "99")] == [1, 3, 9, 15, 30]
    assert [found["paper", k] for k in ("01", "10", "29", "50", "99")] == [1, 3, 8, 15, 29]
    assert float(Factor("layer_median")(values, valid)) == 15


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_to_the_bit_in_every_batch_and_padding(name, dtype):
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(n, 64, generator=generator).to(dtype) for n in (9, 4, 1, 7)]
    alone = [Factor(name)(row[None], torch.ones(1, len(row), dtype=torch.bool)) for row in rows]
    for width, left in ((9, False), (16, False), (16, True)):
        values = torch.full((4, width, 64), -77.0, dtype=dtype)
        valid = torch.zeros(4, width, dtype=torch.bool)
        for i, row in enumerate(rows):
            where = slice(width - len(row), None) if left else slice(len(row))
            values[i, where], valid[i, where] = row, True
        assert torch.equal(Factor(name)(values, valid), torch.cat(alone))


@pytest.mark.parametrize("site", ["gate", "act", "product"])
@pytest.mark.parametrize("operation", ["set", "add"])
@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_a_forward_pass_by_hand_in_every_batch(name, operation, site):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    times = LOUD.get(name, 0.5)
    reference = by_hand(tiny_model("llama"), edit_of(name, operation, site, coefficient=times))
    expected = []
    for context, continuation in REQUESTS:
        first, second = encoded_pair(tokenizer, context, continuation)
        # The last token is not read: the model never sees what it has to predict last.
        scores = torch.log_softmax(logits(reference, torch.tensor([first + second[:-1]]))[0], -1)
        places = range(len(first) - 1, len(first) + len(second) - 1)
        expected.append(sum(float(scores[i, one]) for i, one in zip(places, second, strict=True)))
    found = {}
    plan = plan_of(name, operation, site, coefficient=times)
    for budget in (1, 12, 1000):
        scored = loglikelihood(LanguageModel(model, tokenizer), REQUESTS, budget, under=plan)
        found[budget] = [value for value, _ in scored]
        np.testing.assert_allclose(found[budget], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1000], found[1], rtol=1e-6, atol=1e-5)
    untouched = loglikelihood(LanguageModel(model, tokenizer), REQUESTS, 1)
    assert not np.allclose(found[1], [value for value, _ in untouched], atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])
@pytest.mark.parametrize("name", ["layer_max", "layer_std", "layer_p90"])
def test_perplexity_of_blocks_in_every_batch(family, name):
    model, tokens = tiny_model(family), ids(4, 12).numpy().astype(np.int32)
    lengths = np.array([12, 4, 9, 2])
    scored = np.arange(12) < lengths[:, None]
    tokens[~scored] = 97
    expected = np.full(tokens.shape, np.nan)
    reference = by_hand(tiny_model(family), edit_of(name, "add"))
    for row, length in enumerate(lengths):
        whole = torch.from_numpy(tokens[row : row + 1, :length].astype(np.int64))
        scores = torch.log_softmax(logits(reference, whole)[0].double(), -1)
        for i in range(1, length):
            expected[row, i] = -scores[i - 1, whole[0, i]]
    for budget in (1, 20, 1000):
        found = token_nll(
            LanguageModel(model), tokens, lengths, scored, budget, under=plan_of(name, "add")
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["layer_max", "layer_mean", "layer_p10"])
def test_in_decoding_the_factor_is_that_of_the_new_token(name):
    tokenizer = tiny_tokenizer()
    prompts = ["w1 w2", "w3 w4 w5 w6 w7 w8", "w9"]
    times = LOUD.get(name, 2.0)
    reference = by_hand(tiny_model("llama"), edit_of(name, "set", coefficient=times))
    expected, lengths = [], set()
    for prompt in prompts:
        given = tokenizer(prompt)["input_ids"]
        step, cache, made = torch.tensor([given]), None, []
        for _ in range(6):
            output = reference(input_ids=step, past_key_values=cache, use_cache=True)
            lengths.add(step.shape[1])
            cache, token = output.past_key_values, int(output.logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            made.append(token)
            step = torch.tensor([[token]])
        expected.append(tokenizer.decode(made, skip_special_tokens=True))
    assert 1 in lengths and len(lengths) > 2
    model = tiny_model("llama")
    for budget in (1, 1000):
        found = generate(
            LanguageModel(model, tokenizer),
            prompts,
            Decoding(6),
            budget,
            under=plan_of(name, "set", coefficient=times),
        )
        assert found == expected
    assert expected != generate(LanguageModel(model, tokenizer), prompts, Decoding(6), 1000)


def test_a_factor_is_taken_before_the_plan_writes_there():
    model, tokens = tiny_model("llama"), ids(1)
    one = np.ones(3)
    flood = Write(0, "act", "set", INDEX, one * 50)
    plan = Plan("p", [flood, Write(0, "act", "add", INDEX, one, factor=Factor("layer_max"))])
    seen = {}
    mask = torch.ones(1, 7, dtype=torch.bool)
    sites = MlpSites(model)
    handle = sites.act[0].register_forward_hook(lambda _m, _i, x: seen.update(before=x.clone()))
    with applied(LanguageModel(model), plan) as running:
        last = sites.act[0].register_forward_hook(lambda _m, _i, x: seen.update(after=x.clone()))
        running.announce(mask, mask)
        logits(model, tokens)
    handle.remove(), last.remove()
    expected = 50 + float(seen["before"].max())
    assert torch.all(seen["after"][..., INDEX] == torch.tensor(expected))
    assert expected < 60


def test_a_factor_needs_to_know_the_padding():
    model = tiny_model("llama")
    for announce in (False, True):
        with pytest.raises(RuntimeError, match=r"needs announce\(prompt, valid\)"):
            with applied(LanguageModel(model), plan_of("layer_max")) as running:
                if announce:
                    running.announce(torch.ones(2, 7, dtype=torch.bool))
                logits(model)


def test_classification_is_the_same_in_every_batch():
    task = Task(
        name="nli",
        kind="classification",
        fields=("text", "label"),
        context="{text}",
        classes=("a", "b"),
        gold="label",
        words={"en": {}},
        metrics=("accuracy",),
    )
    generator = np.random.default_rng(0)
    rows = [
        {"text": " ".join(f"w{i}" for i in generator.integers(0, 90, n)), "label": 0}
        for n in (2, 9, 5, 1, 7, 3)
    ]
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    lm, seen = LanguageModel(model, tokenizer), {}
    add_head(lm, 2)
    for pooling in ("last_token", "last_position"):
        for budget in (1, 16, 1000):
            scores = []
            handle = model.score.register_forward_hook(lambda _m, _i, x, s=scores: s.append(x))
            plan = plan_of("layer_mean", "add", coefficient=30.0)
            classify(lm, task, "en", rows, budget, Head(pooling, 16), under=plan)
            handle.remove()
            seen[pooling, budget] = torch.cat(scores)
        for budget in (16, 1000):
            torch.testing.assert_close(
                seen[pooling, budget], seen[pooling, 1], rtol=1e-5, atol=1e-5
            )
    assert not torch.allclose(seen["last_token", 1], seen["last_position", 1], atol=1e-3)


@pytest.mark.parametrize("quantiles", ["corrected", "paper"])
def test_factors_of_the_configuration_become_writes(quantiles):
    rows = [("aa", 0, 3, 1.0), ("aa", 1, 5, 1.0)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    table = NeuronTable(frame, {"languages": ["aa", "bb"], "n_layers": 2, "d_mlp": 48})
    for name in NAMES:
        step = {"operation": "add", "value": name, "coefficient": -2, "site": "product"}
        steps = InterventionEntry.model_validate(step).steps
        plan = resolve(Intervention("name", steps, quantiles=quantiles), "aa", table, {})
        ranks = quantiles if name in ("layer_p10", "layer_p90") else "corrected"
        assert [w.factor for w in plan.writes] == [Factor(name, ranks)] * 2
        assert [w.value.tolist() for w in plan.writes] == [[-2.0], [-2.0]]
        assert {w.site for w in plan.writes} == {"product"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_gpu_equals_cpu(name):
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 7, 64), (2, 40, 2 * LONG_ROW // 40)):
        values = torch.randn(*shape, generator=generator)
        valid = torch.ones(shape[:2], dtype=torch.bool)
        for mask in (valid, valid.index_fill(1, torch.tensor([0, 1]), False)):
            found = Factor(name)(values.cuda(), mask.cuda()).cpu()
            torch.testing.assert_close(found, Factor(name)(values, mask), rtol=1e-6, atol=1e-7)
