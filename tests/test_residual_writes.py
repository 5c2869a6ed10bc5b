"""Writes into the residual stream, against blocks whose output is edited by hand."""

import copy
from contextlib import contextmanager

import numpy as np
import pandas as pd
import peft
import pytest
import torch
from test_collect import IDENTITY, tiny_corpus
from test_config import GOOD, put
from test_prefixes import many_requests, naive, words
from test_residual import FIVE, streams_by_hand
from test_scoring import naive_generate
from tiny import HIDDEN, encoded_pair, tiny_model, tiny_tokenizer

import langneurons as ln
from langneurons.activations.collect import collect
from langneurons.activations.settings import StatisticsConfig
from langneurons.base.errors import ConfigError, InputError
from langneurons.config import build
from langneurons.evaluation.lens import layer_states
from langneurons.interventions.apply import applied
from langneurons.interventions.hooks import NoEffect, OnePlan, PlanPerRow
from langneurons.interventions.plan import PerRequest, Plan, Write
from langneurons.interventions.resolve import Intervention, resolve
from langneurons.interventions.settings import InterventionEntry, Step
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.reporting.tables.neurons import expected_overlap, selection_overlap
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.generation import generate
from langneurons.scoring.likelihood import loglikelihood
from langneurons.scoring.nll import token_nll
from langneurons.selection.run import run_selection
from langneurons.selection.table import NeuronTable
from langneurons.sharing.check import described
from langneurons.sharing.headers import header_of
from langneurons.sharing.neurons import NAME, read_neurons, write_neurons

LAYERS = 3
DEPTH = {"bloom": "n_layer", "xglm": "num_layers"}
LANGS = ("aa", "bb", "cc")


def model_of(family):
    return tiny_model(family, **{DEPTH.get(family, "num_hidden_layers"): LAYERS})


def dimensions(seed=0, kept=HIDDEN) -> NeuronTable:
    """Return directions of two languages: `kept` dimensions in layers 0 and 2, `bb` in 1 too."""
    drawn, rows = np.random.default_rng(seed), []
    for lang, layers in (("aa", (0, 2)), ("bb", (0, 1, 2))):
        for layer in layers:
            for dimension in np.sort(drawn.choice(HIDDEN, kept, replace=False)):
                rows.append((lang, layer, int(dimension), float(drawn.normal())))
    metadata = {"languages": list(LANGS), "n_layers": LAYERS, "d_mlp": 48}
    metadata |= {"units": "dimensions", "width": HIDDEN, "model": "tiny", "revision": "0"}
    frame = pd.DataFrame(rows, columns=["lang", "layer", "neuron", "score"])
    return NeuronTable(frame.astype({"layer": np.int32, "neuron": np.int32}), metadata)


@pytest.fixture(scope="module")
def measured():
    """Return statistics of three languages, and the rows of their residual streams."""
    settings = StatisticsConfig(sites=("act", "residual"), histograms=(), batch_blocks=2)
    statistics, rows = {}, {}
    for number, lang in enumerate(LANGS):
        corpus = tiny_corpus(5 + number)
        corpus.lang, corpus.header = lang, corpus.header | {"lang": lang, "corpus_hash": lang}
        lm = LanguageModel(model_of("llama"), identity=IDENTITY)
        statistics[lang] = collect(lm, corpus, settings)
        found = streams_by_hand(model_of("llama"), corpus.identification)
        rows[lang] = np.concatenate(found)
    return statistics, rows


def planned(table, *steps, target="aa", statistics=None, **entry) -> Plan:
    steps = [{"site": "residual"} | step for step in steps]
    made = InterventionEntry.model_validate({"steps": steps} | entry).steps
    return resolve(Intervention("name", made), target, table, statistics or {})


# By hand ------------------------------------------------------------------------------------------


@contextmanager
def edited(model, edit, prompt: int | None = None):
    """Replace each block's forward: edit(layer, hidden) where the edit acts.

    prompt: the edit acts on the tokens from there on, or with a negative number before -prompt.
    """
    blocks = MlpSites(model).layers
    plain = [block.forward for block in blocks]

    def other(layer):
        def forward(*given, **named):
            output = plain[layer](*given, **named)
            hidden = output[0] if isinstance(output, tuple) else output
            new = edit(layer, hidden.clone())
            if prompt is not None:
                place = torch.arange(hidden.shape[1])
                acts = place < -prompt if prompt < 0 else place >= prompt
                new = torch.where(acts[:, None], new, hidden)
            return (new, *output[1:]) if isinstance(output, tuple) else new

        return forward

    try:
        for layer, block in enumerate(blocks):
            block.forward = other(layer)
        yield
    finally:
        for block, forward in zip(blocks, plain, strict=True):
            block.forward = forward


def scoped(tokens: str, prompt: int) -> int | None:
    return {"all": None, "prompt": -prompt, "generated": prompt}[tokens]


def naive_answer(model, tokenizer, text, steps, edit, tokens):
    prompt = len(tokenizer(text)["input_ids"])
    with edited(model, edit, scoped(tokens, prompt)):
        return naive_generate(model, tokenizer, text, steps)


# Each a step, and what it does to the stream after a layer: (hidden, direction, table) -> hidden.
def _projected(hidden, values, share):
    unit = values / np.linalg.norm(values)
    unit = torch.from_numpy(unit)
    wide = hidden.double()
    return (wide - share * (wide @ unit)[..., None] * unit).to(hidden.dtype)


def _set(hidden, values, number):
    hidden[..., torch.from_numpy(values != 0)] = number
    return hidden


def _scaled(hidden, values, number):
    hidden[..., torch.from_numpy(values != 0)] *= number
    return hidden


def _added(hidden, values, factor):
    return hidden + torch.from_numpy(factor * values).to(hidden.dtype)


STEPS = {
    "project": (
        {"operation": "project_out", "value": "direction"},
        lambda hidden, values: _projected(hidden, values, 1.0),
    ),
    "half": (
        {"operation": "project_out", "value": "unit_direction", "coefficient": -0.5},
        lambda hidden, values: _projected(hidden, values, -0.5),
    ),
    "add": (
        {"operation": "add", "value": "direction", "coefficient": 1.5},
        lambda hidden, values: _added(hidden, values, 1.5),
    ),
    "unit": (
        {"operation": "add", "value": "unit_direction", "coefficient": 4},
        lambda hidden, values: _added(hidden, values / np.linalg.norm(values), 4.0),
    ),
    "set": (
        {"operation": "set", "value": 0.25},
        lambda hidden, values: _set(hidden, values, 0.25),
    ),
    "scale": (
        {"operation": "scale", "value": -0.5},
        lambda hidden, values: _scaled(hidden, values, -0.5),
    ),
}


def edit_of(name, table, lang="aa"):
    """Return the edit of a step by hand, for `edited`."""
    values, change = table.values(lang), STEPS[name][1]

    def edit(layer, hidden):
        return change(hidden, values[layer]) if values[layer].any() else hidden

    return edit


# The primitives -----------------------------------------------------------------------------------


# Each plan, by row, has a continuation whose first token is read: the last is only scored.
REQUESTS = [pair for pair in many_requests(3) if len(pair[1].split()) > 1][:8] + [("w5", " w1")]
PROMPTS = ["w1", "w2 w3 w4 w5 w6 w7 w8", "w2 w3 w4 w9", "w3 w4"]


@pytest.mark.parametrize("tokens", ("all", "prompt", "generated"))
@pytest.mark.parametrize("family", FIVE)
def test_every_primitive_equals_blocks_edited_by_hand(family, tokens):
    """One by one, in any batch, by row, and under a list of plans."""
    table, sparse = dimensions(), dimensions(1, kept=9)
    tables = {name: sparse if name in ("set", "scale", "half") else table for name in STEPS}
    plans = [planned(tables[name], step | {"tokens": tokens}) for name, (step, _) in STEPS.items()]
    edits = [edit_of(name, tables[name]) for name in STEPS]
    model, tokenizer = model_of(family), tiny_tokenizer()
    lm = LanguageModel(model, tokenizer)
    expected = []
    for edit in edits:
        by_hand = []
        for context, continuation in REQUESTS:
            prompt = len(encoded_pair(tokenizer, context, continuation)[0])
            with edited(model, edit, scoped(tokens, prompt)):
                by_hand.append(naive(model, tokenizer, context, continuation)[0])
        expected.append(by_hand)
    untouched = [naive(model, tokenizer, *pair)[0] for pair in REQUESTS]
    for one in expected:
        assert max(np.abs(np.subtract(one, untouched))) > 1e-2
    numbers = [number % len(plans) for number in range(len(REQUESTS))]
    for budget in (1, 60, 9000):
        together = loglikelihood(lm, REQUESTS, budget, under=[None, *plans])
        for plan, found, wanted in zip(
            (None, *plans), together, (untouched, *expected), strict=True
        ):
            np.testing.assert_allclose([v for v, _ in found], wanted, atol=2e-4)
            if budget == 60:
                alone = loglikelihood(lm, REQUESTS, budget, under=plan)
                np.testing.assert_allclose([v for v, _ in alone], wanted, atol=2e-4)
        rows = loglikelihood(lm, REQUESTS, budget, under=PerRequest(plans, numbers))
        wanted = [expected[number][i] for i, number in enumerate(numbers)]
        np.testing.assert_allclose([v for v, _ in rows], wanted, atol=2e-4)
    answers = [
        [naive_answer(model, tokenizer, text, 5, edit, tokens) for text in PROMPTS]
        for edit in edits
    ]
    assert len({tuple(one) for one in answers}) > 2
    for budget in (1, 60, 9000):
        assert generate(lm, PROMPTS, Decoding(5), budget, under=plans) == answers
    assert generate(lm, PROMPTS, Decoding(5), 60, under=plans[0]) == answers[0]
    rows = generate(lm, PROMPTS, Decoding(5), 9000, under=PerRequest(plans[:4], [3, 2, 1, 0]))
    assert rows == [answers[3 - i][i] for i in range(4)]


@pytest.mark.parametrize("family", FIVE)
def test_losses_equal_blocks_edited_by_hand(family):
    table = dimensions()
    plans = [planned(table, step) for step, _ in STEPS.values()]
    model, drawn = model_of(family), np.random.default_rng(0)
    lengths = np.array([9, 4, 12, 1])
    blocks = drawn.integers(4, 99, (4, 12)).astype(np.int32)
    scored = np.arange(12) < lengths[:, None]
    lm = LanguageModel(model, tiny_tokenizer())
    expected = np.zeros((len(plans), 4, 12))
    for number, name in enumerate(STEPS):
        for row, length in enumerate(lengths):
            ids = torch.from_numpy(blocks[row : row + 1, :length].astype(np.int64))
            with edited(model, edit_of(name, table)), torch.inference_mode():
                table_of = torch.log_softmax(model(ids).logits[0].double(), -1)
            for place in range(1, length):
                expected[number, row, place] = -table_of[place - 1, ids[0, place]]
    for budget in (1, 30, 300):
        found = token_nll(lm, blocks, lengths, scored, budget, under=plans)
        np.testing.assert_allclose(np.nan_to_num(found), expected, atol=2e-4)
        one = token_nll(lm, blocks, lengths, scored, budget, under=plans[0])
        np.testing.assert_allclose(np.nan_to_num(one), expected[0], atol=2e-4)


def test_answers_are_written_in_steps_and_prompts_in_common():
    """Writes into answers alone leave prompts to be read once for all plans."""
    table = dimensions()
    steps = [step | {"tokens": "generated"} for step, _ in STEPS.values()]
    plans = [planned(table, step) for step in steps]
    lm, seen = LanguageModel(model_of("llama"), tiny_tokenizer()), []
    handle = lm.sites.layers[0].register_forward_hook(lambda _m, _i, out: seen.append(len(out)))
    generate(lm, PROMPTS, Decoding(3), 9000, under=plans)
    handle.remove()
    assert max(seen[:2]) <= len(PROMPTS) and max(seen) == len(plans) * len(PROMPTS)


def test_a_plan_of_deep_layers_leaves_the_rows_below_in_common():
    table = dimensions()
    plans = [planned(table, STEPS[name][0] | {"layers": [2, 2]}) for name in ("add", "project")]
    lm, seen = LanguageModel(model_of("llama"), tiny_tokenizer()), {0: 0, 2: 0}
    handles = [
        lm.sites.layers[k].register_forward_hook(
            lambda _m, _i, out, k=k: seen.update({k: seen[k] + len(out)})
        )
        for k in seen
    ]
    together = loglikelihood(lm, [("w1 w2", " w3")], 9000, under=plans)
    for handle in handles:
        handle.remove()
    assert seen[2] == 2 * seen[0]
    alone = [loglikelihood(lm, [("w1 w2", " w3")], 9000, under=plan) for plan in plans]
    np.testing.assert_allclose(
        [one[0][0] for one in together], [one[0][0] for one in alone], atol=1e-5
    )


# Values -------------------------------------------------------------------------------------------


def value_of(plan: Plan, layer: int) -> np.ndarray:
    (write,) = [one for one in plan.writes if one.layer == layer]
    whole = np.full(HIDDEN, np.nan)
    whole[write.index] = write.value
    return whole


@pytest.mark.parametrize("name", ("mean", "std", "min", "max", "abs_mean"))
def test_statistics_are_of_the_row_behind_the_layer(measured, name):
    statistics, rows = measured
    plan = planned(dimensions(), {"operation": "set", "value": name}, statistics=statistics)
    by_hand = {
        "mean": rows["aa"].mean(0),
        "std": rows["aa"].std(0),
        "min": rows["aa"].min(0),
        "max": rows["aa"].max(0),
        "abs_mean": abs(rows["aa"]).mean(0),
    }[name]
    for layer in (0, 2):
        np.testing.assert_allclose(value_of(plan, layer), by_hand[layer + 1], atol=1e-4)
        assert abs(by_hand[layer + 1] - by_hand[layer]).max() > 0.05


def test_differences_are_against_the_other_languages(measured):
    statistics, rows = measured
    table = dimensions()
    for name, sign in (("mean_difference", 1), ("mean_of_others", 0)):
        step = {"operation": "add", "value": name, "coefficient": 2}
        plan = planned(table, step, statistics=statistics)
        others = (rows["bb"].mean(0) + rows["cc"].mean(0)) / 2
        wanted = 2 * ((rows["aa"].mean(0) - others) if sign else others)
        for layer in (0, 2):
            np.testing.assert_allclose(value_of(plan, layer), wanted[layer + 1], atol=1e-4)


def test_the_direction_is_of_the_language_that_is_named():
    table = dimensions()
    own = planned(table, {"operation": "add", "value": "direction"})
    np.testing.assert_array_equal(value_of(own, 0), table.values("aa")[0])
    assert [write.layer for write in own.writes] == [0, 2]
    step = {"neurons": ["aa", "bb"], "operation": "add", "value": "unit_direction"}
    other = planned(table, step | {"statistic_language": "bb", "coefficient": -3})
    for layer in range(LAYERS):
        values = table.values("bb")[layer]
        wanted = -3 * values / np.linalg.norm(values)
        np.testing.assert_allclose(value_of(other, layer), wanted)
    # A direction that another has nothing of in layer 1 is not projected out there.
    step = {"neurons": "bb", "operation": "project_out", "value": "direction"}
    plan = planned(table, step | {"statistic_language": "aa"})
    assert [write.layer for write in plan.writes] == [0, 2]
    for write in plan.writes:
        assert np.linalg.norm(write.value) == pytest.approx(1.0, abs=1e-12)


def test_what_is_projected_out_has_length_1_where_dimensions_are_left_out():
    table = dimensions(1, kept=20)
    step = {"operation": "project_out", "value": "direction", "without": "bb"}
    for write in planned(table, step).writes:
        left = set(table.indices("aa")[write.layer]) - set(table.indices("bb")[write.layer])
        assert set(write.index) == left and left
        assert np.linalg.norm(write.value) == pytest.approx(1.0, abs=1e-12)


# Identities ---------------------------------------------------------------------------------------


def states(model, plan=None, ids=None):
    """Return the stream after every block under a plan, float64 (n_layers, pos, d_model)."""
    ids = torch.arange(4, 14)[None] if ids is None else ids
    lm, found = LanguageModel(model), []
    running = applied(lm, plan or Plan("none"))
    with running, torch.inference_mode():
        handles = [
            block.register_forward_hook(
                lambda _m, _i, out: found.append(out[0] if isinstance(out, tuple) else out)
            )
            for block in lm.sites.layers
        ]
        lm.sites.backbone(input_ids=ids)
    for handle in handles:
        handle.remove()
    return torch.cat([one.double() for one in found])


@pytest.mark.parametrize("family", FIVE)
def test_projecting_out_twice_is_once_and_leaves_nothing_along_the_direction(family):
    model, table = model_of(family), dimensions()
    step = {"operation": "project_out", "value": "direction", "layers": [2, 2]}
    once, twice = planned(table, step), planned(table, step, step)
    assert len(twice.writes) == 2
    unit = torch.from_numpy(table.values("aa")[2] / np.linalg.norm(table.values("aa")[2]))
    plain, first, second = states(model), states(model, once), states(model, twice)
    assert (plain[2] @ unit).abs().max() > 0.1
    assert (first[2] @ unit).abs().max() < 1e-5 * plain[2].abs().max()
    torch.testing.assert_close(first, second, atol=1e-6 * float(plain[2].abs().max()), rtol=0)
    along = plain[2] - (plain[2] @ unit)[:, None] * unit
    torch.testing.assert_close(first[2], along, atol=1e-5 * float(plain[2].abs().max()), rtol=0)
    torch.testing.assert_close(first[:2], plain[:2])


@pytest.mark.parametrize("family", FIVE)
def test_adding_and_subtracting_leave_the_model_untouched(family):
    model, table = model_of(family), dimensions()
    steps = [
        {"operation": "add", "value": "direction"},
        {"operation": "add", "value": "direction", "coefficient": -1},
    ]
    plan = planned(table, *steps)
    plain = states(model)
    torch.testing.assert_close(
        states(model, plan), plain, atol=1e-5 * float(plain.abs().max()), rtol=0
    )


def mlp_outputs(model, plan=None):
    """Return what each down projection gives, float64 (n_layers, pos, d_model)."""
    lm, found = LanguageModel(model), []
    with applied(lm, plan or Plan("none")), torch.inference_mode():
        handles = [
            down.register_forward_hook(lambda _m, _i, out: found.append(out.reshape(10, -1)))
            for down in lm.sites.down
        ]
        lm.sites.backbone(input_ids=torch.arange(4, 14)[None])
    for handle in handles:
        handle.remove()
    return torch.stack([one.double() for one in found])


def down_weight(down) -> torch.Tensor:
    """Return W_down as (d_model, d_mlp)."""
    weight = down.weight.double()
    return weight.T if type(down).__name__ == "Conv1D" else weight


def logits_of(model, plan=None):
    lm, ids = LanguageModel(model), torch.arange(4, 24).reshape(2, 10)
    with applied(lm, plan or Plan("none")), torch.inference_mode():
        return model(input_ids=ids).logits.double()


@pytest.mark.parametrize("strength", (0.0, 0.4, -2.0))
@pytest.mark.parametrize("family", (*FIVE, "gemma2", "gpt2", "olmo2"))
def test_scaling_the_product_is_a_low_rank_adapter_of_the_down_projection(family, strength):
    """Identity a: A = rows of the identity at S, B = (s - 1) W[:, S], as PEFT applies them."""
    model, layer = tiny_model("gpt2", n_layer=LAYERS) if family == "gpt2" else model_of(family), 1
    chosen = np.array([1, 5, 30, 31])
    value = np.full(len(chosen), strength)
    plain = logits_of(model)
    scaled = logits_of(model, Plan("scale", [Write(layer, "product", "scale", chosen, value)]))
    assert (scaled - plain).abs().max() > 1e-3
    down = MlpSites(model).down[layer]
    (name,) = (name for name, module in model.named_modules() if module is down)
    columns = down_weight(down)[:, chosen].float()
    rank = len(chosen)
    settings = {"r": rank, "lora_alpha": rank, "target_modules": [name]}
    if family == "gpt2":
        settings["fan_in_fan_out"] = True
    adapted = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    ((a, b),) = (
        (module.lora_A["default"].weight, module.lora_B["default"].weight)
        for module in adapted.modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    )
    with torch.no_grad():
        a.copy_(torch.eye(a.shape[1])[chosen])
        b.copy_((strength - 1.0) * columns)
    found = logits_of(model)
    torch.testing.assert_close(found, scaled, atol=1e-5, rtol=1e-5)


def seen_in_mlp(model, layer, plan=None) -> dict[str, torch.Tensor]:
    """Return what the modules of an MLP give, and the product, float64 (tokens, width)."""
    lm, found = LanguageModel(model), {}
    tokens = torch.from_numpy(np.random.default_rng(0).integers(4, 100, (30, 20)))

    def keep(name):
        def hook(_module, given, output):
            found[name] = output.double().flatten(0, 1)
            if name == "down":
                found["product"] = given[0].double().flatten(0, 1)

        return hook

    with applied(lm, plan or Plan("none")), torch.inference_mode():
        places = (("down", lm.sites.down), ("up", lm.sites.up), ("act", lm.sites.act))
        handles = [modules[layer].register_forward_hook(keep(name)) for name, modules in places]
        lm.sites.backbone(input_ids=tokens)
    for handle in handles:
        handle.remove()
    return found


def left_by_the_best_map(products: torch.Tensor, change: torch.Tensor) -> float:
    """Return the share of a change that no linear map of the products gives, over many tokens."""
    assert len(products) > 10 * products.shape[1]
    best = torch.linalg.lstsq(products, change).solution
    return float((products @ best - change).norm() / change.norm())


@pytest.mark.parametrize("family", ("llama", "gemma2", "gemma3_text", "olmo2"))
def test_setting_the_activation_of_a_gated_mlp_depends_on_its_input(family):
    """Identity d: it adds (v - act_i) (W_up x)_i W_down[:, i], which no map of the product gives.

    A LoRA of the down projection is such a map. At v = 0 the change is -product_i W_down[:, i], so
    there it is one.
    """
    model, layer, chosen = model_of(family), 1, np.array([1, 5, 30])
    plain = seen_in_mlp(model, layer)
    weight = down_weight(MlpSites(model).down[layer])[:, chosen]
    shares = {}
    for value in (0.0, 1.5):
        plan = Plan("set", [Write(layer, "act", "set", chosen, np.full(3, value))])
        change = seen_in_mlp(model, layer, plan)["down"] - plain["down"]
        expected = ((value - plain["act"]) * plain["up"])[:, chosen] @ weight.T
        torch.testing.assert_close(change, expected, atol=1e-5, rtol=1e-4)
        shares[value] = left_by_the_best_map(plain["product"], change)
    assert shares[0.0] < 1e-4 and shares[1.5] > 0.5


@pytest.mark.parametrize("family", (*FIVE, "gemma2", "gpt2", "olmo2"))
def test_setting_the_product_is_zeroed_columns_and_a_constant(family):
    """Identity b: W (p with p_S = v) = W with W[:, S] = 0, plus W[:, S] v; before any norm."""
    model, layer = model_of(family if family != "gpt2" else "llama"), 1
    if family == "gpt2":
        model = tiny_model("gpt2", n_layer=LAYERS)
    down = MlpSites(model).down[layer]
    chosen, values = np.array([1, 5, 30]), np.array([0.7, -1.2, 2.0])
    plan = Plan("set", [Write(layer, "product", "set", chosen, values)])
    under = mlp_outputs(model, plan)[layer]
    constant = down_weight(down)[:, chosen] @ torch.from_numpy(values)
    matrix = down.weight if type(down).__name__ != "Conv1D" else down.weight.T
    matrix[:, chosen] = 0.0
    zeroed = mlp_outputs(model)[layer]
    torch.testing.assert_close(under, zeroed + constant, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", (*FIVE, "gemma2", "gpt2", "olmo2"))
def test_the_difference_of_mean_outputs_is_that_of_mean_products(family):
    """Identity c: mean MLP outputs of two texts differ by W_down (mean products' difference)."""
    model = tiny_model(family, n_layer=LAYERS) if family == "gpt2" else model_of(family)
    settings = StatisticsConfig(sites=("product",), histograms=(), batch_blocks=2)
    means, products = [], []
    for size in (4, 7):
        corpus = tiny_corpus(size)
        lm, total, number = LanguageModel(model, identity=IDENTITY), 0.0, 0
        products.append(collect(lm, corpus, settings).mean("product"))
        part, kept = corpus.identification, []
        handles = [
            down.register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out))
            for down in lm.sites.down
        ]
        for tokens, length, scored in zip(part.tokens, part.lengths, part.scored, strict=True):
            kept.clear()
            ids = torch.from_numpy(tokens[None, :length].astype(np.int64))
            with torch.inference_mode():
                lm.sites.backbone(input_ids=ids)
            outputs = torch.stack([one.reshape(length, -1).double() for one in kept])
            total = total + outputs[:, scored[:length]].sum(1)
            number += int(scored[:length].sum())
        for handle in handles:
            handle.remove()
        means.append(total / number)
    for layer, down in enumerate(MlpSites(model).down):
        apart = torch.from_numpy(products[1][layer] - products[0][layer])
        wanted = down_weight(down) @ apart
        found = means[1][layer] - means[0][layer]
        assert wanted.abs().max() > 1e-3
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ("gemma2", "gemma3_text", "olmo2"))
def test_where_a_norm_follows_the_mlp_it_does_not_hold_behind_it(family):
    """Identity e: of the block's output, b is false where a norm stands between."""
    model, chosen = model_of(family), np.array([1, 5, 30])
    down = MlpSites(model).down[2]
    plan = Plan("set", [Write(2, "product", "set", chosen, np.array([0.7, -1.2, 2.0]))])
    under = states(model, plan)[2]
    constant = down_weight(down)[:, chosen] @ torch.tensor([0.7, -1.2, 2.0]).double()
    down.weight[:, chosen] = 0.0
    assert (under - states(model)[2] - constant).abs().max() > 0.1


# Guards -------------------------------------------------------------------------------------------


def test_the_residual_stream_must_be_seen_and_changed():
    table, model = dimensions(), model_of("llama")
    lm = LanguageModel(model, tiny_tokenizer())
    none = Plan("none so", [Write(1, "residual", "add", np.array([3]), np.array([0.0]))])
    with pytest.raises(NoEffect, match="every value was already there"):
        loglikelihood(lm, [("w1", " w2")], 100, under=none)
    with pytest.raises(NoEffect, match="every value was already there"):
        loglikelihood(lm, [("w1", " w2")], 100, under=[none, planned(table, STEPS["add"][0])])
    # A write at another site of the same layer does not stand for one that never fired.
    both = Plan("both", [Write(1, "act", "set", np.array([3]), np.array([1.0])), *none.writes])
    block = model.model.layers[1]
    block.__class__ = type("Bypassed", (type(block),), {"__call__": _forward_alone})
    with pytest.raises(NoEffect, match=r"no hook fired in layers \[1\]"):
        loglikelihood(lm, [("w1", " w2")], 100, under=both)


def _forward_alone(block, *given, **named):
    return block.forward(*given, **named)


def test_gradients_pass_through_a_write():
    table, model = dimensions(), model_of("llama").requires_grad_(True)
    lm, ids = LanguageModel(model), torch.arange(4, 10)[None]
    with applied(lm, planned(table, STEPS["project"][0])):
        model(ids).logits.sum().backward()
    grad = model.model.embed_tokens.weight.grad
    assert torch.isfinite(grad).all() and grad.abs().max() > 0


@pytest.mark.parametrize(
    "step, words",
    [
        ({"operation": "project_out", "value": "direction"}, "site: residual"),
        ({"operation": "add", "value": "direction"}, "value: direction is of the residual stream"),
        (
            {"operation": "project_out", "value": 1, "site": "residual"},
            "not a direction to project",
        ),
        (
            {"operation": "project_out", "value": "mean", "site": "residual"},
            "legal with project_out",
        ),
        ({"operation": "add", "value": "layer_max", "site": "residual"}, "of a layer's neurons"),
        ({"operation": "set", "value": "p90", "site": "residual"}, "legal at site residual"),
        (
            {"operation": "set", "value": "probability", "site": "residual"},
            "legal at site residual",
        ),
        (
            {"operation": "set", "value": "mean", "site": "residual", "statistic_site": "act"},
            "of other units",
        ),
        (
            {"operation": "set", "value": "mean", "statistic_site": "residual"},
            "of other units than what is written at site 'act'",
        ),
        (
            {
                "operation": "project_out",
                "value": "direction",
                "coefficient": 0,
                "site": "residual",
            },
            "project_out with coefficient 0 changes nothing",
        ),
        (
            {"operation": "add", "value": "direction", "neurons": "others", "site": "residual"},
            "whose direction is written",
        ),
        (
            {
                "operation": "add",
                "value": "direction",
                "statistic_site": "residual",
                "site": "residual",
            },
            "statistic_site: the value is a direction",
        ),
    ],
)
def test_steps_that_mean_nothing_are_refused(step, words):
    with pytest.raises(ValueError, match=words):
        Step.model_validate(step)


def test_tables_and_sites_must_fit():
    neurons = dimensions()
    plain = NeuronTable(
        neurons.frame, {k: v for k, v in neurons.metadata.items() if k not in ("units", "width")}
    )
    with pytest.raises(
        InputError, match="site residual writes dimensions, and the selection holds"
    ):
        planned(plain, {"operation": "set", "value": 0})
    with pytest.raises(InputError, match="legal with it: site residual"):
        planned(neurons, {"operation": "set", "value": 0, "site": "product"})
    with pytest.raises(ValueError, match="at sites act, residual"):
        InterventionEntry.model_validate(
            {
                "steps": [
                    {"operation": "set", "value": 0},
                    {"operation": "set", "value": 0, "site": "residual"},
                ]
            }
        )


def test_plans_of_directions_are_made_by_name(measured):
    table, (statistics, _) = dimensions(), measured
    plan = ln.plan(table, "aa", "project_out", "direction")
    assert [write.site for write in plan.writes] == ["residual", "residual"]
    plan = ln.plan(table, "aa", "set", "mean", statistics, tokens="prompt")
    np.testing.assert_allclose(value_of(plan, 2), statistics["aa"].mean("residual")[3])
    lm = LanguageModel(model_of("llama"), tiny_tokenizer())
    assert len(ln.generate(lm, [words(np.random.default_rng(0), 3)], under=plan)) == 1


# In a configuration -------------------------------------------------------------------------------


def both() -> dict:
    """Return a configuration with neurons and directions, and an intervention on each."""
    raw = copy.deepcopy(GOOD)
    raw["statistics"] = {"sites": ["gate", "act", "residual"]}
    raw["selections"]["diffmean"] = {"method": "diffmean"}
    raw["interventions"]["project"] = {
        "operation": "project_out",
        "value": "direction",
        "site": "residual",
    }
    raw["perplexity"]["interventions"] = ["zero", "project"]
    raw["tasks"]["xnli"]["interventions"] = ["zero", "project"]
    return raw


def test_each_intervention_meets_the_selections_of_its_units():
    config = build(both())
    cells = [cell[1:] for cell in config.perplexity_cells("tiny")]
    assert set(cells) == {
        ("lape", "zero"),
        ("prob", "zero"),
        ("control", "zero"),
        ("diffmean", "project"),
    }
    found = {(one[1], one[2]) for one in config.task_conditions("tiny", "xnli", "vi")}
    assert found == set(cells)


@pytest.mark.parametrize(
    "path, value, words",
    [
        (
            "perplexity.selections",
            ["lape"],
            r"perplexity.interventions: 'project' writes dimensions, and its selections \(lape\)",
        ),
        (
            "perplexity.selections",
            ["diffmean"],
            "'zero' writes neurons, and its selections .* Write at site residual",
        ),
        (
            "perplexity",
            {"interventions": ["zero"], "selections": ["lape", "diffmean"]},
            "perplexity.selections: 'diffmean' holds dimensions, and none of its interventions",
        ),
        ("statistics.sites", ["gate", "act"], "statistics.sites"),
        (
            "browser",
            {"selections": ["lape", "diffmean"]},
            "browser.selections: 'diffmean' holds dimensions of the residual stream",
        ),
        (
            "fallback",
            {"interventions": ["zero", "project"], "language": "en", "order": ["vi"]},
            "fallback.interventions: 'project' writes the direction of a language",
        ),
        (
            "finetunings.nli",
            {
                "definition": "config/tasks/xnli_head.yaml",
                "source": {"kind": "mini", "name": "xnli"},
                "language": "en",
                "neurons": ["target"],
                "targets": ["vi"],
                "selections": ["diffmean"],
            },
            "finetunings.nli.selections: 'diffmean' holds dimensions .* a fine-tuning trains",
        ),
        (
            "interventions.mean",
            {"operation": "set", "value": "p90", "site": "residual"},
            "interventions.mean.*p90 is not known of dimensions",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_job(path, value, words):
    raw = both()
    put(path, value)(raw)
    with pytest.raises(ConfigError, match=words):
        build(raw)


# Tables of dimensions elsewhere -------------------------------------------------------------------


def test_directions_are_shared_as_what_they_are(tmp_path):
    table = dimensions(kept=20)
    given = table.metadata | {"method": "diffmean"}
    mine = ln.Neurons(table.frame, given)
    mine.save(tmp_path / "shared")
    assert "dimensions: aa 40, bb 60, cc 0" in described(tmp_path / "shared")
    assert (
        f"{LAYERS} layers, {HIDDEN} dimensions each" in (tmp_path / "shared/README.md").read_text()
    )
    back = ln.Neurons.from_pretrained(tmp_path / "shared")
    assert (back.units, back.width) == ("dimensions", HIDDEN)
    np.testing.assert_array_equal(back.values("bb"), table.values("bb"))
    plans = [ln.plan(one, "aa", "project_out", "direction") for one in (back, table)]
    assert plans[0].digest == plans[1].digest
    with pytest.raises(ValueError, match="these are dimensions of the residual stream"):
        back.to_pth(tmp_path / "mask.pth")
    frame, header = read_neurons(tmp_path / "shared" / NAME)
    beyond = frame.assign(neuron=frame["neuron"] + HIDDEN - 1)
    write_neurons(tmp_path / "wrong.safetensors", beyond, header)
    with pytest.raises(InputError, match=f"outside the {LAYERS} layers x {HIDDEN} dimensions"):
        read_neurons(tmp_path / "wrong.safetensors")
    with pytest.raises(ValueError, match="d_model: None with units dimensions"):
        header_of(header.plain() | {"d_model": None}, "test")


def test_a_published_selection_takes_neurons_only(measured, tmp_path):
    table, (statistics, _) = dimensions(), measured
    frame = table.frame[table.frame["lang"] == "aa"]
    ln.Neurons(frame, table.metadata | {"model": "tiny", "revision": "0"}).save(tmp_path / "d")
    path = str(tmp_path / "d")
    with pytest.raises(ValueError, match="holds dimensions of the residual stream, not neurons"):
        run_selection({"method": "published", "path": path}, statistics)


def test_selections_of_other_units_are_not_set_side_by_side():
    table, labels = dimensions(), {"model": "m", "languages": "three"}
    drawn = [(i, j) for i in range(LAYERS) for j in range(0, 48, 7)]
    frame = pd.DataFrame(
        [("aa", i, j, 1.0) for i, j in drawn], columns=["lang", "layer", "neuron", "score"]
    )
    plain = {k: v for k, v in table.metadata.items() if k not in ("units", "width")}
    neurons = NeuronTable(frame.astype({"layer": np.int32, "neuron": np.int32}), plain)
    tables = [
        (labels | {"selection": name}, one)
        for name, one in (("lape", neurons), ("diffmean", table), ("again", dimensions(2)))
    ]
    found = selection_overlap(tables)
    assert set(zip(found["selection"], found["other"], strict=True)) == {("diffmean", "again")}
    # All dimensions of a layer in both: what chance gives is what they share.
    expected = expected_overlap(table)
    assert expected.loc["aa", "bb"] == table.overlap().loc["aa", "bb"] == 2 * HIDDEN


@pytest.mark.parametrize("family", ("llama", "gemma3_text", "bloom"))
def test_the_lens_reads_what_was_written(family):
    """The output of a layer, as the lens keeps it, is the one behind the write."""
    table, model = dimensions(), model_of(family)
    lm = LanguageModel(model, tiny_tokenizer())
    encoded = [[1, 5, 9, 30], [1, 7], [1, 8, 8, 50, 60, 70]]
    for name in ("project", "add"):
        found = layer_states(lm, encoded, 9000, planned(table, STEPS[name][0]))
        for place, ids in enumerate(encoded):
            with edited(model, edit_of(name, table)):
                wanted = states(model, ids=torch.tensor([ids]))
            for layer in range(LAYERS):
                torch.testing.assert_close(
                    found[place][layer].double(), wanted[layer, -1], atol=1e-4, rtol=1e-4
                )


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_rows_under_their_own_plans_equal_each_plan_alone_to_the_bit(dtype):
    table, sparse = dimensions(), dimensions(1, kept=9)
    plans = [planned(table if n in ("project", "add") else sparse, STEPS[n][0]) for n in STEPS]
    sites = MlpSites(model_of("llama").to(dtype))
    ids = torch.arange(4, 4 + 8 * len(plans)).reshape(len(plans), 8)
    with torch.inference_mode():
        running = PlanPerRow(sites, plans)
        whole = torch.ones_like(ids, dtype=torch.bool)
        running.announce(whole, whole, torch.arange(len(plans)))
        together = sites.backbone(input_ids=ids).last_hidden_state
        running.check()
        running.remove()
        for row, plan in enumerate(plans):
            alone = OnePlan(sites, plan)
            expected = sites.backbone(input_ids=ids).last_hidden_state[row]
            alone.check()
            alone.remove()
            assert torch.equal(together[row], expected)


def test_little_of_the_direction_is_left_in_bfloat16():
    model, table = model_of("gemma3_text").to(torch.bfloat16), dimensions()
    step = {"operation": "project_out", "value": "direction", "layers": [2, 2]}
    unit = torch.from_numpy(table.values("aa")[2] / np.linalg.norm(table.values("aa")[2]))
    plain, found = states(model), states(model, planned(table, step))
    left = (found[2] @ unit).abs() / plain[2].norm(dim=-1)
    assert left.max() < 2**-8  # what rounding each dimension to 8 bits leaves
