"""What sequences begin with in common is read once, and every result stays what it was."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from tiny import FAMILIES, encoded_pair, tiny_model, tiny_tokenizer

from langneurons.interventions.factors import Factor
from langneurons.interventions.hooks import PlanPerRow
from langneurons.interventions.plan import PerRequest, Plan, Write, untouched
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.scoring import prefixes, reading
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.generation import generate
from langneurons.scoring.keyvalues import KeyValues
from langneurons.scoring.likelihood import loglikelihood

SLIDING = {
    "gemma2": {"sliding_window": 6},
    "gemma3_text": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "cohere2": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "mistral": {"sliding_window": 6},
}
MODELS = [(family, {}) for family in FAMILIES] + list(SLIDING.items())


def words(generator, size):
    return " ".join(f"w{i}" for i in generator.integers(0, 90, size))


def many_requests(seed=0):
    """Pairs, with common contexts and without, whole texts as continuations, single tokens."""
    generator = np.random.default_rng(seed)
    found = []
    for size in (14, 9):
        context = words(generator, size)
        found += [(context, " " + words(generator, n)) for n in (1, 1, 4, 9)]
    start = words(generator, 11)
    found += [("", f"{start} {words(generator, 3)}") for _ in range(3)]
    found += [(f"{start} {words(generator, 2)}", " w7 w8 w9") for _ in range(2)]
    found += [(words(generator, 5), " w1"), (words(generator, 17), " w1 w2")]
    return found


def naive(model, tokenizer, context, continuation):
    """Return (log p, greedy) from one full forward pass without any cache, float64."""
    first, second = encoded_pair(tokenizer, context, continuation)
    with torch.inference_mode():
        logits = model(torch.tensor([first + second]), use_cache=False).logits[0].double()
    table = torch.log_softmax(logits, -1)[len(first) - 1 : -1]
    chosen = torch.tensor(second)
    value = table[torch.arange(len(second)), chosen].sum()
    return float(value), bool((table.argmax(1) == chosen).all())


def tokens_read(sites, work):
    """Return how many tokens pass through the model in `work`, padding included, and its result."""
    counted = []
    handle = sites.backbone.register_forward_pre_hook(
        lambda _m, _a, named: counted.append(named["input_ids"].numel()), with_kwargs=True
    )
    try:
        return work(), sum(counted)
    finally:
        handle.remove()


def brute_force(sequences):
    """Return the most items that disjoint groups with common beginnings can save."""
    if not sequences:
        return 0
    first, *others = sequences
    best = brute_force(others)
    for chosen in range(1, 2 ** len(others)):
        inside = [one for k, one in enumerate(others) if chosen >> k & 1]
        depth = min(prefixes.common(first, one) for one in inside)
        if depth:
            rest = [one for k, one in enumerate(others) if not chosen >> k & 1]
            best = max(best, len(inside) * depth + brute_force(rest))
    return best


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_disjoint_and_save_nearly_all_that_can_be_saved(seed):
    generator = np.random.default_rng(seed)
    sequences = [
        tuple(generator.integers(0, 2, generator.integers(1, 7)).tolist()) for _ in range(7)
    ]
    found = prefixes.groups(sequences, worth=0)
    members = [i for group, _ in found for i in group]
    assert len(set(members)) == len(members)
    for group, depth in found:
        assert depth and len({sequences[i][:depth] for i in group}) == 1
    saved = sum((len(group) - 1) * depth for group, depth in found)
    assert brute_force(sequences) - 1 <= saved <= brute_force(sequences)
    depths = [prefixes.common(*pair) for pair in itertools.combinations(sequences, 2)]
    for depth in depths:  # no single group saves more
        shared = Counter(one[:depth] for one in sequences if len(one) >= depth)
        assert saved >= (max(shared.values()) - 1) * depth


def test_groups_that_save_little_are_left_alone():
    sequences = [(1, *range(10, 30)), (1, *range(40, 60)), (5, 6, 7, 8), (5, 6, 7, 9)]
    assert prefixes.groups(sequences) == [([2, 3], 3)]
    assert prefixes.groups([]) == []


@pytest.mark.parametrize(("family", "overrides"), MODELS)
def test_shared_beginnings_leave_loglikelihoods_as_they_are(family, overrides):
    model, tokenizer = tiny_model(family, **overrides), tiny_tokenizer()
    requests = many_requests()
    expected = [naive(model, tokenizer, *request) for request in requests]
    for budget in (1, 60, 10_000):
        found = loglikelihood(LanguageModel(model, tokenizer), requests, budget)
        np.testing.assert_allclose([f[0] for f in found], [e[0] for e in expected], atol=1e-5)
        assert [f[1] for f in found] == [e[1] for e in expected]


def test_shared_beginnings_are_read_once(monkeypatch):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    sites = MlpSites(model)
    context = " ".join(f"w{i}" for i in range(20))
    requests = [(context, f" w{i}") for i in range(4)] + [(context, " w5 w6 w7")]

    lm = LanguageModel(model, tokenizer)

    def read(asked):
        return tokens_read(sites, lambda: loglikelihood(lm, asked, 1000))[1]

    assert read(requests) == 21 + 2  # the context and its BOS; what two tokens follow
    assert read([(f"w{i} {context}", " w5") for i in range(4)]) == 4 * 22  # only BOS in common
    monkeypatch.setattr(reading, "shareable", lambda _config: False)
    assert read(requests) == 5 * 23


def test_a_value_of_the_layer_itself_is_never_read_once_for_several_requests(monkeypatch):
    """Under a factor every row is read whole, whoever calls: results equal those one by one."""
    lm = LanguageModel(tiny_model("llama"), tiny_tokenizer())
    context = " ".join(f"w{i}" for i in range(20))
    requests = [(context, f" w{i} w{i + 1}") for i in range(4)]
    index, value = np.array([3, 5, 40]), np.full(3, 40.0)
    factor = Plan("f", [Write(0, "act", "add", index, value, factor=Factor("layer_mean"))])
    plain = Plan("p", [Write(0, "act", "add", index, value)])

    def alone(plan):
        return [loglikelihood(lm, [one], 1, under=plan)[0][0] for one in requests]

    for under, plans_ in (
        (factor, [factor]),
        ([factor], [factor]),
        ([factor, plain], [factor, plain]),
        ([None, factor], [None, factor]),
        (PerRequest([factor], [0] * 4), [factor]),
    ):
        found, number = tokens_read(lm.sites, lambda u=under: loglikelihood(lm, requests, 999, u))
        found = found if isinstance(under, list) else [found]
        for values, plan in zip(found, plans_, strict=True):
            np.testing.assert_allclose([v for v, _ in values], alone(plan), rtol=1e-5)
        assert number == 4 * 22  # nothing is shared
    assert tokens_read(lm.sites, lambda: loglikelihood(lm, requests, 999, plain))[1] < 4 * 22
    prompts = [f"{context} w{i}" for i in range(4)]
    expected = [generate(lm, [one], Decoding(5), 1, under=factor)[0] for one in prompts]
    assert generate(lm, prompts, Decoding(5), 999, under=factor) == expected
    # Reading the beginning once would give other numbers.
    monkeypatch.setattr(PlanPerRow, "by_token", True)
    wrong = loglikelihood(lm, requests, 999, PerRequest([factor], [0] * 4))
    assert not np.allclose([v for v, _ in wrong], alone(factor), rtol=1e-4)


def plans(sites, tokens):
    generator = np.random.default_rng(0)
    found = []
    for number, operation in enumerate(("set", "add", "scale")):
        plan = Plan(f"plan {number}")
        for layer in range(sites.n_layers):
            index = np.sort(generator.choice(sites.d_mlp, 12, replace=False))
            value = generator.normal(1, 1, 12)
            plan.writes.append(Write(layer, "act", operation, index, value, tokens))
        found.append(plan)
    return found


@pytest.mark.parametrize("tokens", ("all", "prompt", "generated"))
@pytest.mark.parametrize("family", ("llama", "gemma3_text", "opt", "bloom"))
def test_shared_beginnings_are_read_under_the_same_plan(family, tokens):
    model, tokenizer = tiny_model(family, **SLIDING.get(family, {})), tiny_tokenizer()
    sites = MlpSites(model)
    requests = many_requests(1)
    written, lm = plans(sites, tokens), LanguageModel(model, tokenizer)
    expected = [loglikelihood(lm, requests, 1, under=plan) for plan in written]
    for plan, values in zip(written, expected, strict=True):
        found = loglikelihood(lm, requests, 100, under=plan)
        np.testing.assert_allclose([f[0] for f in found], [v[0] for v in values], atol=1e-5)
    each = PerRequest(written, [number for number in range(3) for _ in requests])
    found = loglikelihood(lm, requests * 3, 150, each)
    wanted = [value for values in expected for value, _ in values]
    np.testing.assert_allclose([f[0] for f in found], wanted, atol=1e-5)
    assert len({round(sum(value for value, _ in values), 3) for values in expected}) == 3


def test_equal_tokens_are_shared_only_where_they_are_the_same_part():
    """The same texts, cut into prompt and continuation at two places, under a plan of prompts."""
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    sites = MlpSites(model)
    text = [f"w{i}" for i in range(12)]
    requests = [
        (" ".join(text[:cut]), " ".join(["", *text[cut:], *last]))
        for cut in (3, 9)
        for last in (["w20", "w21"], ["w30", "w31"])
    ]
    plan, lm = plans(sites, "prompt")[0], LanguageModel(model, tokenizer)
    expected = loglikelihood(lm, requests, 1, under=plan)
    found = loglikelihood(lm, requests, 1000, under=plan)
    np.testing.assert_allclose([f[0] for f in found], [e[0] for e in expected], atol=1e-5)


def naive_generate(model, tokenizer, prompt, steps, stop=()):
    """Decode greedily, one token by one, from full forward passes without any cache."""
    ids, out = tokenizer(prompt)["input_ids"], []
    for _ in range(steps):
        with torch.inference_mode():
            logits = model(torch.tensor([ids + out]), use_cache=False).logits[0, -1]
        token = int(logits.argmax())
        if token == tokenizer.eos_token_id:
            break
        out.append(token)
        text = tokenizer.decode(out, skip_special_tokens=True)
        cuts = [text.find(word) for word in stop if word in text]
        if cuts:
            return text[: min(cuts)]
    return tokenizer.decode(out, skip_special_tokens=True)


def many_prompts():
    generator = np.random.default_rng(3)
    paragraph, other = words(generator, 15), words(generator, 8)
    found = [f"{paragraph} {words(generator, n)}" for n in (1, 5, 2)]
    found += [f"{other} {words(generator, n)}" for n in (3, 1)]
    return [*found, paragraph, words(generator, 4), "w1"]


@pytest.mark.parametrize(("family", "overrides"), MODELS)
def test_shared_beginnings_leave_answers_as_they_are(family, overrides):
    model, tokenizer = tiny_model(family, **overrides), tiny_tokenizer()
    prompts = many_prompts()
    expected = [naive_generate(model, tokenizer, prompt, 9) for prompt in prompts]
    for budget in (1, 70, 10_000):
        found = generate(LanguageModel(model, tokenizer), prompts, Decoding(9), budget)
        assert found == expected


@pytest.mark.parametrize("family", ("llama", "gemma3_text"))
def test_rows_that_are_finished_leave_the_batch(family, monkeypatch):
    model, tokenizer = tiny_model(family, **SLIDING.get(family, {})), tiny_tokenizer()
    prompts = many_prompts()
    full = [naive_generate(model, tokenizer, prompt, 12).split() for prompt in prompts]
    stop = [full[0][2], full[3][5], full[4][1] + " " + full[4][2]]
    expected = [naive_generate(model, tokenizer, prompt, 12, stop) for prompt in prompts]
    assert len({len(text.split()) for text in expected}) > 2
    rows, plain = [], PlanPerRow.announce

    def announce(self, prompt, valid, numbers=None, cache=None):
        rows.append(numbers.tolist())
        return plain(self, prompt, valid, numbers, cache)

    monkeypatch.setattr(PlanPerRow, "announce", announce)
    lm = LanguageModel(model, tokenizer)
    each = PerRequest([untouched() for _ in prompts], range(len(prompts)))
    for shared in (True, False):
        rows.clear()
        if not shared:
            monkeypatch.setattr(reading, "shareable", lambda _config: False)
        assert generate(lm, prompts, Decoding(12, stop), 10_000, each) == expected
    longest = max(range(len(prompts)), key=lambda i: len(full[i]))
    assert [len(each) for each in rows] == sorted(map(len, rows), reverse=True)
    assert len(rows[-1]) < len(prompts) and longest is not None


def test_generation_with_repetition_penalty_shares_beginnings():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    prompts = many_prompts()
    stop = [
        generate(LanguageModel(model, tokenizer), prompts[:1], Decoding(9, [], 1.5), 100)[
            0
        ].split()[3]
    ]
    plain = generate(LanguageModel(model, tokenizer), prompts, Decoding(9, stop, 1.5), 1)
    assert generate(LanguageModel(model, tokenizer), prompts, Decoding(9, stop, 1.5), 1000) == plain


@pytest.mark.parametrize(("family", "overrides"), MODELS)
def test_a_cache_whose_rows_were_copied_dropped_and_shifted_equals_a_new_one(family, overrides):
    model = tiny_model(family, **overrides)
    sites = MlpSites(model)
    generator = np.random.default_rng(0)
    ids = [[1, *generator.integers(4, 99, size).tolist()] for size in (12, 9)]
    with torch.inference_mode():
        cache = KeyValues(sites.config, room=2)
        tokens, mask = torch.zeros(2, 13, dtype=torch.int64), torch.zeros(2, 13, dtype=torch.bool)
        for row, one in enumerate(ids):
            tokens[row, 13 - len(one) :] = torch.tensor(one)
            mask[row, 13 - len(one) :] = True
        reading.next_states(sites, tokens, mask, cache)
        chosen = torch.tensor([1, 0, 1])
        cache.select(chosen, 2)
        more = torch.tensor([[5, 6], [7, 0], [8, 0]])
        valid = torch.tensor([[True, True], [True, False], [True, False]])
        mask = torch.cat([mask[chosen], valid], 1)
        reading.next_states(sites, more, mask, cache)
        cache.shift(torch.tensor([0, 1, 1]))
        mask = torch.stack([mask[0], mask[1].roll(1), mask[2].roll(1)])
        whole = [[*ids[1], 5, 6], [*ids[0], 7], [*ids[1], 8]]
        cache.select(torch.tensor([2, 1]), 3)
        mask, whole = mask[[2, 1]], [whole[2], whole[1]]
        for step in range(4):
            new = torch.tensor([[10 + step], [20 + step]])
            mask = torch.cat([mask, torch.ones(2, 1, dtype=torch.bool)], 1)
            whole = [[*ids, int(token)] for ids, token in zip(whole, new[:, 0], strict=True)]
            found = reading.next_states(sites, new, mask, cache)[:, -1]
            for row, sequence in enumerate(whole):
                expected = sites.backbone(input_ids=torch.tensor([sequence]), use_cache=False)
                torch.testing.assert_close(
                    found[row], expected.last_hidden_state[0, -1], atol=1e-5, rtol=1e-5
                )


def test_plans_that_write_into_answers_only_share_the_prompt():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    sites = MlpSites(model)
    written = plans(sites, "generated")
    prompts = many_prompts()[:3]
    conditions = [number for number in range(3) for _ in prompts]
    expected = []
    for plan in written:
        expected += generate(LanguageModel(model, tokenizer), prompts, Decoding(3), 1, under=plan)

    def read(own):
        each = PerRequest(own, conditions)
        alike = PlanPerRow(sites, own)
        alike.remove()
        found, number = tokens_read(
            sites,
            lambda: generate(
                LanguageModel(model, tokenizer), prompts * 3, Decoding(3), 10_000, each
            ),
        )
        return alike.alike([0, 1, 2]), found, number

    alike, found, number = read(written)
    assert (alike, found) == ([0, 0, 0], expected)
    apart, _, more = read(plans(sites, "all"))
    assert apart == [0, 1, 2] and more > number + 2 * 15  # the paragraph of each plan
