"""The three primitives against naive one-by-one references, in every batch, on many families."""

import numpy as np
import pytest
import torch
from tiny import encoded_pair, tiny_model, tiny_tokenizer
from torch import nn

from langneurons.base.batching import batches
from langneurons.interventions import hooks
from langneurons.interventions.apply import applied
from langneurons.interventions.plan import PerRequest, Plan, Write, untouched
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.scoring import head as scoring
from langneurons.scoring import reading
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.divergence import token_kl
from langneurons.scoring.generation import generate
from langneurons.scoring.likelihood import loglikelihood
from langneurons.scoring.nll import token_nll

FAMILIES = ("llama", "gemma2", "gemma3_text", "cohere", "gpt_neox", "gpt2", "bloom", "opt", "phi")


def naive_logprobs(model, ids):
    """Return log p(ids[i] | ids[:i]) for i >= 1 from the model's own logits, float64."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].double()
    table = torch.log_softmax(logits, -1)
    return [float(table[i, ids[i + 1]]) for i in range(len(ids) - 1)]


def random_ids(generator, size):
    return [int(i) for i in generator.integers(4, 100, size)]


@pytest.mark.parametrize("family", FAMILIES)
def test_token_nll_equals_the_models_own_logits(family):
    model = tiny_model(family)
    generator = np.random.default_rng(0)
    lengths = np.array([9, 4, 12, 1])
    tokens = np.zeros((4, 12), np.int32)
    scored = np.zeros((4, 12), bool)
    for row, size in enumerate(lengths):
        tokens[row, :size] = random_ids(generator, size)
        scored[row, :size] = True
    scored[0, 3] = False
    found = token_nll(LanguageModel(model), tokens, lengths, scored, 16)
    for row, size in enumerate(lengths):
        assert np.isnan(found[row, 0]) and np.isnan(found[row, size:]).all()
        expected = naive_logprobs(model, tokens[row, :size].tolist())
        for i in range(1, size):
            if scored[row, i]:
                assert found[row, i] == pytest.approx(-expected[i - 1], abs=1e-4)
            else:
                assert np.isnan(found[row, i])
    for budget in (1, 24, 10_000):
        again = token_nll(LanguageModel(model), tokens, lengths, scored, budget)
        np.testing.assert_allclose(again, found, atol=1e-4)


@pytest.mark.parametrize("family", ("gemma2", "cohere"))
def test_soft_cap_and_scale_of_logits_are_applied(family):
    settings = {"gemma2": {"final_logit_softcapping": 2.0}, "cohere": {"logit_scale": 0.25}}
    model = tiny_model(family, **settings[family])
    ids = random_ids(np.random.default_rng(1), 8)
    found = token_nll(
        LanguageModel(model), np.array([ids]), np.array([8]), np.ones((1, 8), bool), 64
    )
    np.testing.assert_allclose(-found[0, 1:], naive_logprobs(model, ids), atol=1e-4)
    plain = scoring.adjusted
    try:
        scoring.adjusted = lambda logits, config: logits
        other = token_nll(
            LanguageModel(model), np.array([ids]), np.array([8]), np.ones((1, 8), bool), 64
        )
    finally:
        scoring.adjusted = plain
    assert np.nanmax(np.abs(other - found)) > 0.01


@pytest.mark.parametrize("size", (7, 64, 1000))
@pytest.mark.parametrize("bias", (False, True))
def test_blocked_head_equals_log_softmax(monkeypatch, size, bias):
    monkeypatch.setattr(scoring, "CPU_VOCABULARY_BLOCK", size)
    monkeypatch.setattr(scoring, "TOKEN_BLOCK", 5)
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(16, 301, bias=bias)
    nn.init.normal_(head.weight, std=2.0, generator=generator)
    hidden = torch.randn(13, 16, generator=generator)
    targets = torch.randint(0, 301, (13,), generator=generator)
    targets[0] = head(hidden[0]).argmax()
    config = type("Config", (), {})()
    with torch.inference_mode():
        found, greedy = scoring.target_logprobs(head, hidden, targets, config)
        table = torch.log_softmax(head(hidden).double(), -1)
    expected = table[torch.arange(13), targets]
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    assert greedy.tolist() == (table.argmax(1) == targets).tolist()


@pytest.mark.parametrize("size", (7, 64, 1000))
def test_blocked_divergence_equals_that_of_log_softmax(monkeypatch, size):
    monkeypatch.setattr(scoring, "CPU_VOCABULARY_BLOCK", size)
    monkeypatch.setattr(scoring, "TOKEN_BLOCK", 5)
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(16, 301)
    nn.init.normal_(head.weight, std=2.0, generator=generator)
    hidden = torch.randn(4, 13, 16, generator=generator)
    hidden[2] = hidden[0]
    hidden[3] = hidden[0] + 0.01 * hidden[1]
    with torch.inference_mode():
        found = scoring.divergences(head, hidden, type("Config", (), {})())
        tables = torch.log_softmax(head(hidden).double(), -1)
    expected = (tables[0].exp() * (tables[0] - tables[1:])).sum(-1)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-4)
    assert (found[1] < 1e-5).all() and (found >= 0).all() and (found[0] > 0.1).all()


@pytest.mark.parametrize("family", ("llama", "gemma2", "gpt2"))
def test_token_kl_equals_the_models_own_distributions(family):
    model = tiny_model(family, **({"final_logit_softcapping": 2.0} if family == "gemma2" else {}))
    lm, generator = LanguageModel(model), np.random.default_rng(0)
    lengths = np.array([9, 4, 12, 1])
    tokens = np.zeros((4, 12), np.int32)
    for row, size in enumerate(lengths):
        tokens[row, :size] = random_ids(generator, size)
    scored = np.arange(12) < lengths[:, None]
    scored[0, 3] = False
    index, value = np.arange(0, 40, 3), np.full(14, 3.0)
    plans = [
        Plan("set", [Write(1, "act", "set", index, value)]),
        Plan("nothing"),
        Plan("add", [Write(0, "product", "add", index, value)]),
    ]
    found = token_kl(lm, tokens, lengths, scored, 16, plans)
    for row, size in enumerate(lengths):
        ids, tables = torch.from_numpy(tokens[row : row + 1, :size].astype(np.int64)), []
        for plan in (None, *plans):
            with torch.inference_mode(), applied(lm, plan or untouched(), strict=False):
                tables.append(torch.log_softmax(model(ids).logits[0].double(), -1))
        for number, changed in enumerate(tables[1:]):
            expected = (tables[0].exp() * (tables[0] - changed)).sum(-1).numpy()
            own, wanted = found[number, row], scored[row].copy()
            wanted[0] = False
            places = np.flatnonzero(wanted)
            np.testing.assert_allclose(own[places], expected[places - 1], atol=2e-5, rtol=1e-3)
            assert np.isnan(own[~wanted]).all()
    assert np.nanmax(found[1]) < 1e-5 and min(np.nanmean(found[0]), np.nanmean(found[2])) > 1e-3
    for budget in (1, 30, 10_000):
        again = token_kl(lm, tokens, lengths, scored, budget, plans)
        np.testing.assert_allclose(again, found, atol=2e-5)
    alone = [token_kl(lm, tokens, lengths, scored, 100, [plan])[0] for plan in plans]
    np.testing.assert_allclose(alone, found, atol=2e-5)
    assert token_kl(lm, tokens, lengths, scored, 100, []).shape == (0, 4, 12)


PAIRS = [
    ("w1 w2 w3", " w4 w5"),
    ("w1 w2 w3", " w6"),
    ("w1", " w2 w3 w4 w5 w6 w7"),
    ("", "w8 w9"),
    ("w1 w2 w3 ", "w4 w5"),
    ("w1 w2 w3", " w4 w5"),
]


@pytest.mark.parametrize("side", ("left", "right"))
@pytest.mark.parametrize("family", ("llama", "gemma3_text", "opt"))
def test_loglikelihood_equals_naive_scoring_in_any_batch(family, side):
    model, tokenizer = tiny_model(family), tiny_tokenizer(padding_side=side)
    expected = []
    for context, continuation in PAIRS:
        first, second = encoded_pair(tokenizer, context, continuation)
        assert first[0] == tokenizer.bos_token_id and first.count(tokenizer.bos_token_id) == 1
        expected.append(sum(naive_logprobs(model, first + second)[len(first) - 1 :]))
    for budget in (1, 9, 10_000):
        found = loglikelihood(LanguageModel(model, tokenizer), PAIRS, budget)
        np.testing.assert_allclose([value for value, _ in found], expected, atol=1e-4)
    assert found[0] == found[5]


def test_spaces_move_to_the_continuation_and_empty_contexts_get_a_prefix():
    tokenizer = tiny_tokenizer()
    assert encoded_pair(tokenizer, "w1 ", "w2") == encoded_pair(tokenizer, "w1", " w2")
    first, second = encoded_pair(tokenizer, "", "w1 w2")
    assert first == [tokenizer.bos_token_id] and len(second) == 2


def test_empty_continuations_are_refused():
    with pytest.raises(ValueError, match="empty continuation"):
        loglikelihood(LanguageModel(tiny_model("llama"), tiny_tokenizer()), [("w1", "")], 10)


def test_greedy_flag_marks_what_generation_would_give():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    (text,) = generate(LanguageModel(model, tokenizer), ["w1 w2"], Decoding(1), 100)
    pairs = [("w1 w2", " " + text.strip()), ("w1 w2", " w9")]
    flags = [flag for _, flag in loglikelihood(LanguageModel(model, tokenizer), pairs, 100)]
    assert flags == [True, text.strip() == "w9"]


def naive_generate(model, tokenizer, prompt, steps, penalty=1.0):
    ids = tokenizer(prompt)["input_ids"]
    out = []
    for _ in range(steps):
        with torch.inference_mode():
            logits = model(torch.tensor([ids + out])).logits[0, -1].tolist()
        logits = torch.tensor(logits)
        for used in set(ids + out):
            value = logits[used]
            logits[used] = value / penalty if value > 0 else value * penalty
        token = int(logits.argmax())
        if token == tokenizer.eos_token_id:
            break
        out.append(token)
    return tokenizer.decode(out, skip_special_tokens=True)


PROMPTS = ["w1", "w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12", "w3 w4", "w5 w6 w7 w8 w9"]


@pytest.mark.parametrize("side", ("left", "right"))
@pytest.mark.parametrize("family", ("llama", "gemma3_text", "gpt2", "bloom", "opt"))
def test_generation_equals_recomputing_the_whole_prefix(family, side):
    overrides = {"sliding_window": 6} if family == "gemma3_text" else {}
    model, tokenizer = tiny_model(family, **overrides), tiny_tokenizer(padding_side=side)
    expected = [naive_generate(model, tokenizer, prompt, 8) for prompt in PROMPTS]
    for budget in (1, 40, 10_000):
        assert generate(LanguageModel(model, tokenizer), PROMPTS, Decoding(8), budget) == expected


def test_generation_with_repetition_penalty():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    expected = [naive_generate(model, tokenizer, prompt, 8, 1.5) for prompt in PROMPTS]
    found = generate(LanguageModel(model, tokenizer), PROMPTS, Decoding(8, [], 1.5), 100)
    assert found == expected
    assert found != generate(LanguageModel(model, tokenizer), PROMPTS, Decoding(8), 100)


def test_generation_stops_before_the_stop_string():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    (full,) = generate(LanguageModel(model, tokenizer), ["w1 w2"], Decoding(8), 100)
    words = full.split()
    stop = next(word for word in words[1:] if word != words[0])
    (cut,) = generate(LanguageModel(model, tokenizer), ["w1 w2"], Decoding(8, [stop]), 100)
    assert cut == full[: full.find(stop)]


@pytest.fixture
def announced(monkeypatch):
    """Return a list that gets what is announced before each forward pass, nothing shared."""
    monkeypatch.setattr(reading, "shareable", lambda _config: False)
    seen = []
    for kind in (hooks.OnePlan, hooks.PlanPerRow):
        plain = kind.announce

        def keep(self, prompt, valid, numbers=None, cache=None, plain=plain):
            own = None if numbers is None else numbers.tolist()
            seen.append((prompt.tolist(), valid.tolist(), own))
            return plain(self, prompt, valid, numbers, cache)

        monkeypatch.setattr(kind, "announce", keep)
    return seen


def test_forward_passes_announce_which_tokens_are_the_prompt(announced):
    model = LanguageModel(tiny_model("llama"), tiny_tokenizer())
    generate(model, ["w1 w2", "w3"], Decoding(3), 100)
    whole, padded = [[True] * 3] * 2, [[True] * 3, [False, True, True]]
    assert announced[0] == (padded, padded, None)
    assert announced[1:] == [([[False]] * 2, [[True]] * 2, None)] * 2
    announced.clear()
    loglikelihood(model, [("w1 w2", " w3 w4"), ("w1", " w2")], 100)
    short = [True, True, False, False]
    assert announced == [([[True] * 3 + [False], short], [[True] * 4, short], None)]
    announced.clear()
    tokens, lengths = np.full((2, 4), 5, np.int32), np.array([2, 3])
    token_nll(model, tokens, lengths, tokens > 0, 100)
    assert announced == [(whole, [[True] * 3, [True, True, False]], None)]


def test_the_plan_of_a_request_travels_with_it(announced):
    model = LanguageModel(tiny_model("llama"), tiny_tokenizer())
    contexts = ["w1 w2 w3 w4 w5", "w1", "w1 w2 w3", "w1 w2"]
    under = PerRequest([untouched() for _ in range(8)], [7, 1, 5, 3])
    tokens = np.full((4, 9), 5, np.int32)
    lengths = np.array([len(context.split()) for context in contexts])

    def told(size):
        return sorted((size(n), one) for n, one in zip(lengths, under.numbers, strict=True))

    def seen():
        found = [
            (sum(valid), number)
            for _, rows, numbers in announced
            for valid, number in zip(rows, numbers, strict=True)
        ]
        announced.clear()
        return sorted(found)

    for budget in (1, 12, 1000):
        token_nll(model, tokens, lengths, tokens > 0, budget, under)
        assert seen() == told(lambda n: n)
        loglikelihood(model, [(context, " w9 w9") for context in contexts], budget, under)
        assert seen() == told(lambda n: n + 2)  # BOS and the first of two
        generate(model, contexts, Decoding(1), budget, under)
        assert seen() == told(lambda n: n + 1)
    with pytest.raises(ValueError, match="3 numbers for 4 requests"):
        generate(model, contexts, Decoding(1), 100, PerRequest([None], [0, 0, 0]))
    with pytest.raises(ValueError, match="no plan 2; there are 2 plans"):
        PerRequest([None, Plan("p")], [0, 2])


def test_equal_requests_are_computed_once_per_plan(announced):
    model = LanguageModel(tiny_model("llama"), tiny_tokenizer())
    under = PerRequest([None, None], [0, 1, 0])
    loglikelihood(model, [("w1 w2", " w3")] * 3, 100, under)
    assert [numbers for _, _, numbers in announced] == [[0, 1]]


def test_hooks_fire_and_the_head_runs_on_scored_positions_only(monkeypatch):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    fired, rows = [], []
    sites = MlpSites(model)
    handle = sites.act[0].register_forward_hook(lambda *_: fired.append(1))
    plain = scoring._target_logprobs

    def counting(head, hidden, targets, config):
        rows.append(len(targets))
        return plain(head, hidden, targets, config)

    monkeypatch.setattr(scoring, "_target_logprobs", counting)
    loglikelihood(LanguageModel(model, tokenizer), [("w1 w2 w3 w4", " w5")], 100)
    handle.remove()
    assert fired and rows == [1]


def test_batches_respect_the_budget():
    groups = batches([3, 10, 4, 4, 20], 12)
    assert sorted(i for group in groups for i in group) == [0, 1, 2, 3, 4]
    lengths = [3, 10, 4, 4, 20]
    for group in groups:
        assert len(group) == 1 or max(lengths[i] for i in group) * len(group) <= 12
