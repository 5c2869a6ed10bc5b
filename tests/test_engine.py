"""Answers by continuous batching are those of the padded engine, and what cannot be is refused."""

import copy
import gc
import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from inprocess import run as run_graph
from test_workflow import CONFIG, save_tiny_model
from tiny import FAMILIES as TINY
from tiny import tiny_model, tiny_tokenizer
from torch import nn

from langneurons.base.errors import ConfigError, InputError
from langneurons.config import build
from langneurons.interventions.factors import Factor
from langneurons.interventions.hooks import NoEffect
from langneurons.interventions.plan import PerRequest, Plan, Write
from langneurons.jobs.files import check_files
from langneurons.models.families import FAMILIES
from langneurons.models.language_model import LanguageModel
from langneurons.runtime.halving import TooLarge
from langneurons.scoring import continuous, engine_check
from langneurons.scoring.continuous import Session, packable
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.engine import Engine
from langneurons.scoring.engine_check import EngineError, check_engine
from langneurons.scoring.generation import answers, encode_prompts, generate
from langneurons.scoring.ties import difference

SLIDING = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
MODELS = {
    "gemma3": SLIDING,
    "gemma3_text": SLIDING,
    "cohere2": SLIDING,
    "mistral": {"sliding_window": 6},
}
REFUSED = sorted(name for name, family in FAMILIES.items() if family.unpacked)
READ = sorted(set(FAMILIES) - set(REFUSED))
GENERATOR = np.random.default_rng(0)
LENGTHS = (3, 17, 8, 40, 1, 25)
PROMPTS = [" ".join(f"w{n}" for n in GENERATOR.integers(0, 96, size)) for size in LENGTHS]
NAME = "continuous"
BUDGET = 128  # tokens: few requests at a time, and prompts that are read in parts
_made: dict[str, LanguageModel] = {}


@pytest.fixture(autouse=True, scope="module")
def _few_objects_to_collect():
    """Each session ends with a collection, which takes long beside all that tests have loaded."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def model_of(family: str) -> LanguageModel:
    if family not in _made:
        model = tiny_model(family, **MODELS.get(family, {}))
        if family == "gpt2":  # all answers would be one token
            model.transformer.ln_f.bias.zero_()
        _made[family] = LanguageModel(model, tiny_tokenizer())
    return _made[family]


def write(layer, site, operation, value, tokens="all", neurons=6, **more) -> Write:
    index = np.arange(layer, layer + neurons)
    return Write(layer, site, operation, index, np.full(neurons, value), tokens, **more)


def unit(size: int) -> np.ndarray:
    drawn = np.random.default_rng(1).normal(size=size)
    return drawn / np.linalg.norm(drawn)


PLANS = {
    "none": None,
    "zero": Plan("zero", [write(0, "act", "set", 0.0), write(1, "act", "set", 0.0)]),
    "scale": Plan("scale", [write(0, "product", "scale", -3.0), write(1, "gate", "scale", 2.0)]),
    "add": Plan("add", [write(0, "residual", "add", 0.7), write(1, "product", "add", 0.5)]),
    "prompts": Plan("prompts", [write(0, "act", "set", 2.0, "prompt")]),
    "answers": Plan(
        "answers",
        [
            write(0, "residual", "add", 0.9, "generated"),
            write(1, "act", "scale", -2.0, "generated"),
        ],
    ),
    "direction": Plan(
        "direction",
        [Write(1, "residual", "project_out", np.arange(32), unit(32), amount=4.0)],
    ),
}


def both(model, under, decoding=None, budget=BUDGET, prompts=PROMPTS):
    """Return the answers of both engines, and the counts of the continuous one."""
    decoding = decoding or Decoding(7)
    engine = Engine(NAME)
    padded = answers(model, prompts, decoding, budget, under)
    return padded, answers(model, prompts, decoding, budget, under, engine=engine), engine.answers


def assert_equal(model, padded, found, under=None, penalty=1.0):
    """Equal tokens and texts, or a near-tie at the first token that differs."""
    encoded = encode_prompts(model, PROMPTS)
    for prompt, one, other in zip(encoded, padded, found, strict=True):
        if one != other:
            apart = difference(model, prompt.tokens, one.tokens, other.tokens, under, penalty)
            assert apart is not None and apart.near_tie, apart


# Equal answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", READ)
def test_answers_of_every_family_are_those_of_the_padded_engine(family):
    model = model_of(family)
    check_engine(model)
    padded, found, counts = both(model, PLANS["answers"])
    assert_equal(model, padded, found, PLANS["answers"])
    assert padded != answers(model, PROMPTS, Decoding(7), BUDGET)
    assert counts == {"continuous": len(PROMPTS)}


@pytest.mark.parametrize("family", ["gemma3_text", "mistral", "opt"])
def test_attention_over_all_requests_at_once_gives_the_same(family, monkeypatch):
    """As on a GPU: one product of all queries with all keys, others masked."""
    model = model_of(family)
    padded, found, _ = both(model, PLANS["answers"])
    monkeypatch.setattr(continuous, "_attending", lambda _model: nullcontext())
    check_engine(model)
    packed = answers(model, PROMPTS, Decoding(7), BUDGET, PLANS["answers"], engine=Engine(NAME))
    assert padded == found == packed


@pytest.mark.parametrize("name", PLANS)
def test_answers_under_every_kind_of_plan(name):
    model = model_of("gemma3_text")
    padded, found, _ = both(model, PLANS[name])
    assert_equal(model, padded, found, PLANS[name])


def test_requests_under_their_own_plans_and_lists_of_plans():
    model, plans = model_of("gemma3_text"), list(PLANS.values())
    prompts = PROMPTS * 2
    own = PerRequest(plans, [number % len(plans) for number in range(len(prompts))])
    padded, found, _ = both(model, own, prompts=prompts)
    assert [one.text for one in padded] == [one.text for one in found]
    padded, found, counts = both(model, plans)
    assert [[one.text for one in each] for each in padded] == [
        [one.text for one in each] for each in found
    ]
    assert counts == {"continuous": len(PROMPTS) * len(plans)}
    assert len({tuple(one.text for one in each) for each in found}) == len(plans)


def test_a_value_of_the_layer_itself_is_decoded_padded_and_counted(caplog):
    model = model_of("llama")
    measured = Plan("most", [write(0, "act", "set", 1.0, factor=Factor("layer_max"))])
    numbers = [number % 3 for number in range(len(PROMPTS))]
    under = PerRequest([None, measured, PLANS["zero"]], numbers)
    caplog.set_level("INFO")
    padded, found, counts = both(model, under)
    assert [one.text for one in padded] == [one.text for one in found]
    assert counts == {"continuous": numbers.count(0) + numbers.count(2), "padded": numbers.count(1)}
    assert "2 of 6 answers are decoded padded" in caplog.text


def test_ends_stops_and_the_repetition_penalty():
    model = model_of("smollm3")
    plain = answers(model, PROMPTS, Decoding(16), 512)
    assert len({len(one.tokens) for one in plain}) > 1  # the end of text comes at other steps
    word = plain[3].text.split()[5]
    for decoding in (
        Decoding(16),
        Decoding(16, stop=[f" {word}"]),
        Decoding(16, ends=frozenset({plain[5].tokens[1]})),
        Decoding(12, repetition_penalty=1.7),
        Decoding(1),
    ):
        padded, found, _ = both(model, None, decoding)
        assert_equal(model, padded, found, penalty=decoding.repetition_penalty)
        assert [one.text for one in padded] == [one.text for one in found]
    stopped = answers(model, PROMPTS, Decoding(16, stop=[f" {word}"]), 512)
    assert stopped != plain
    # Prompts that do not fit lose the same tokens at their left.
    long = [" ".join([prompt] * 60) for prompt in PROMPTS[:2]]
    padded, found, _ = both(model, None, prompts=long, budget=512)
    assert padded == found


def test_shared_beginnings_are_shared_only_where_plans_write_alike():
    """Requests of equal beginnings and other plans have other keys and values."""
    model = model_of("llama")
    prompts = [" ".join([PROMPTS[3], PROMPTS[0], f"w{n}"]) for n in range(6)]
    for under in (None, PLANS["add"], PLANS["answers"], [None, PLANS["zero"]]):
        padded, found, _ = both(model, under, prompts=prompts)
        texts = padded if isinstance(under, list) else [padded]
        others = found if isinstance(under, list) else [found]
        for one, other in zip(texts, others, strict=True):
            assert [each.text for each in one] == [each.text for each in other]
    # A prompt that begins as another one was answered.
    first = answers(model, prompts[:1], Decoding(24), 512, PLANS["answers"])[0]
    more = [prompts[0], f"{prompts[0]} {first.text} w3"]
    padded, found, _ = both(model, PLANS["answers"], Decoding(24), 512, more)
    assert padded == found


def test_neither_hooks_nor_seed_nor_attention_are_left_changed():
    model = model_of("gemma3_text")
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    both(model, PLANS["add"])
    assert torch.equal(torch.rand(3), wanted)
    for _, module in model.model.named_modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert model.sites.backbone.config._attn_implementation == "sdpa"
    assert model_of("gemma3").model.config.vision_config._attn_implementation == "sdpa"


# What goes wrong --------------------------------------------------------------------------------


def test_an_error_of_a_hook_comes_out_and_nothing_stays_behind():
    model = model_of("llama")

    def broken(_module: nn.Module, _given: tuple) -> None:
        raise ArithmeticError("a hook of its own")

    handle = model.sites.down[1].register_forward_pre_hook(broken)
    try:
        with pytest.raises(ArithmeticError, match="a hook of its own"):
            generate(model, PROMPTS, Decoding(4), 512, PLANS["zero"], engine=Engine(NAME))
    finally:
        handle.remove()
    nothing = Plan("nothing", [write(0, "product", "scale", 1.0)])
    with pytest.raises(NoEffect, match="every value was already there"):
        generate(model, PROMPTS, Decoding(4), 512, nothing, engine=Engine(NAME))
    padded, found, _ = both(model, None)
    assert padded == found


def test_out_of_memory_halves_the_budget_and_keeps_what_is_complete(monkeypatch):
    model, kept, calls = model_of("llama"), Session._step, []

    def step(self):
        calls.append(self.asked.batch_tokens)
        if self.asked.batch_tokens > 100 and len(calls) > 5:
            raise torch.OutOfMemoryError("no memory")
        return kept(self)

    padded = answers(model, PROMPTS, Decoding(7), 400)
    monkeypatch.setattr(Session, "_step", step)
    found = answers(model, PROMPTS, Decoding(7), 400, engine=Engine(NAME))
    assert found == padded and set(calls) == {400, 200, 100}
    monkeypatch.setattr(Session, "_step", lambda _self: _fail())
    with pytest.raises(TooLarge, match="one prompt at a time"):
        answers(model, PROMPTS, Decoding(7), 400, engine=Engine(NAME))


def _fail():
    raise torch.OutOfMemoryError("no memory")


def test_the_table_names_the_families_that_transformers_cannot_read_packed():
    """By its own attribute, and by the attention with which a family is loaded."""
    for family in FAMILIES:
        model = model_of(family).sites.backbone
        able = model._supports_attention_backend and model.config._attn_implementation == "sdpa"
        assert able == (family in READ), family
    assert set(TINY) == set(FAMILIES) and REFUSED == ["bloom", "gemma2", "stablelm", "xglm"]


OTHERWISE = "are apart from those|cache|without a paged attention"


@pytest.mark.parametrize("family", REFUSED)
def test_families_with_other_attention_are_refused(family, monkeypatch):
    changes = {"attn_logit_softcapping": 1.0} if family == "gemma2" else {}
    model = LanguageModel(tiny_model(family, **changes), tiny_tokenizer())
    for call in (
        lambda: generate(model, PROMPTS, Decoding(2), 512, engine=Engine(NAME)),
        lambda: check_engine(model),
    ):
        with pytest.raises(InputError, match=r"engine 'continuous'.*attention.*engine: padded"):
            call()
    # The check of the logits finds it too, were the table wrong.
    monkeypatch.setattr(engine_check, "packable", lambda _model: None)
    found = (EngineError, KeyError, ValueError)
    with pytest.raises(found, match=OTHERWISE):
        check_engine(model)


def test_other_attention_and_other_layers_are_refused(monkeypatch):
    model = LanguageModel(tiny_model("llama"), tiny_tokenizer())
    model.model.set_attn_implementation("eager")
    with pytest.raises(InputError, match="runs with 'eager' attention, not with 'sdpa'"):
        packable(model)
    model = LanguageModel(tiny_model("qwen3"), tiny_tokenizer())
    monkeypatch.setattr(model.sites.backbone.config, "layer_types", ["chunked_attention"] * 2)
    with pytest.raises(InputError, match="has layers of kind 'chunked_attention'"):
        packable(model)


def test_the_check_finds_hooks_that_act_on_other_tokens(monkeypatch):
    """A packed pass that announces prompts as answers has other logits."""
    model, kept = model_of("llama"), Session._announce

    def wrong(self, batch):
        kept(self, batch)
        forward = self.running._forward
        self.running._forward = replace(forward, prompt=~forward.prompt)

    monkeypatch.setattr(Session, "_announce", wrong)
    with pytest.raises(EngineError, match="are apart from those of padded ones by"):
        check_engine(model)


def test_a_cache_that_does_not_fit_says_what_to_lower(monkeypatch):
    monkeypatch.setattr(continuous, "PAGE", 2**40)
    with pytest.raises(InputError, match=r"does not fit.*Lower runtime\.batch_tokens"):
        generate(model_of("llama"), PROMPTS, Decoding(2), 512, engine=Engine(NAME))


def test_an_older_transformers_is_refused_with_its_version(monkeypatch):
    monkeypatch.setattr(transformers, "ContinuousBatchingConfig", object)
    with pytest.raises(
        InputError, match=rf"5\.17 or later; installed is {transformers.__version__}"
    ):
        generate(model_of("llama"), PROMPTS, Decoding(2), 512, engine=Engine(NAME))


# Near-ties --------------------------------------------------------------------------------------


def test_a_difference_is_measured_at_the_first_token_that_differs():
    model = model_of("llama")
    prompt = encode_prompts(model, PROMPTS[:1], 10)[0].tokens
    found = answers(model, PROMPTS[:1], Decoding(6), 512)[0].tokens
    assert difference(model, prompt, found, found) is None
    other = (*found[:3], prompt[1], 5)
    apart = difference(model, prompt, found, other)
    logits = model.model(torch.tensor([[*prompt, *found[:3]]])).logits[0, -1]
    assert apart.place == 3 and apart.tokens == (found[3], other[3])
    assert apart.gap == pytest.approx(float(logits[found[3]] - logits[other[3]]), rel=1e-4)
    assert not apart.near_tie
    under = difference(model, prompt, found, other, PLANS["answers"])
    assert under.gap != pytest.approx(apart.gap, rel=1e-3)
    assert difference(model, prompt, found, other, penalty=3.0).gap != apart.gap
    with pytest.raises(ValueError, match="begin alike"):
        difference(model, prompt, found, found[:2])


# The configuration and the graph ----------------------------------------------------------------


def configured(engine: str, **changes) -> dict:
    config = {
        key: copy.deepcopy(CONFIG[key]) for key in ("name", "models", "language_sets", "corpus")
    }
    config["language_sets"] = {"three": ["en", "vi", "hi"]}
    config["corpus"] |= {"tokens": 500, "heldout_tokens": 100}
    config |= {"selections": {"lape": CONFIG["selections"]["lape"]}}
    config |= {"interventions": {"arithmetic": CONFIG["interventions"]["arithmetic"]}}
    config |= {"forcing": {"interventions": ["arithmetic"], "limit": 3, "max_new_tokens": 6}}
    return config | {"runtime": {"engine": engine}} | changes


def test_a_graph_gives_the_same_texts_and_says_which_engine_made_them(tmp_path):
    save_tiny_model(tmp_path / "tiny-model")
    file, record = tmp_path / "tiny.yaml", None
    target = "results/tiny/texts/forcing/corrected/en-hi-vi/lape/arithmetic.parquet"
    frames, records = {}, {}
    for engine in ("padded", "continuous"):
        file.write_text(json.dumps(configured(engine)))
        done = run_graph(tmp_path, file, (target,))
        frames[engine] = pd.read_parquet(tmp_path / target)
        record = tmp_path / "logs/force_language/tiny/corrected/en-hi-vi/lape/arithmetic.json"
        records[engine] = json.loads(record.read_text())
        if engine == "padded":
            assert "force_language" in done
            (tmp_path / target).unlink()
            shutil.rmtree(tmp_path / "results/.work")
    assert done == ["force_language"]
    pd.testing.assert_frame_equal(frames["padded"], frames["continuous"])
    count = records["padded"]["answers"]["padded"]  # conditions that write the same count once
    assert 3 < count <= len(frames["padded"])
    assert frames["padded"]["text"].nunique() > 3
    assert list(records["padded"]["answers"]) == ["padded"]
    assert records["continuous"]["engine"] == "continuous"
    assert records["continuous"]["answers"] == {"continuous": count}
    # What an earlier run kept is counted as such.
    (tmp_path / target).unlink()
    run_graph(tmp_path, file, (target,))
    assert json.loads(record.read_text())["answers"] == {"stored": count}


def test_models_that_cannot_are_refused_before_a_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "tiny-model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "bloom", "n_layer": 2}))
    with pytest.raises(ConfigError, match=r"runtime\.engine.*models\.tiny \(bloom\).*of its own"):
        check_files(build(configured("continuous")))
    check_files(build(configured("padded")))
    (model / "config.json").write_text(json.dumps({"model_type": "llama"}))
    check_files(build(configured("continuous")))
    several = {"runtime": {"engine": "continuous", "gpu": 2}}
    with pytest.raises(ConfigError, match="on one GPU, but jobs of models.tiny have 2"):
        check_files(build(configured("continuous", **several)))
    config = configured("continuous", perplexity={"interventions": ["zero"], "tokens": 50})
    config["interventions"] = {"zero": CONFIG["interventions"]["zero"]}
    del config["forcing"]
    with pytest.raises(ConfigError, match="no job decodes answers"):
        check_files(build(config))
