"""The canary passes on a sound model of every family, and fails in each of many faults."""

import copy
import types

import numpy as np
import pytest
import torch
from tiny import FAMILIES, tiny_model
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from langneurons.interventions import branches, hooks
from langneurons.interventions.hooks import HookedWrite, OnePlan, PlanPerRow
from langneurons.interventions.plan import Plan, Write
from langneurons.jobs.common import ModelJob
from langneurons.models.language_model import LanguageModel
from langneurons.scoring import canary
from langneurons.scoring.canary import CanaryError, check_model
from langneurons.training import lora, neuron_weights


def sound(family="llama", dtype=torch.float32):
    return LanguageModel(tiny_model(family).to(dtype))


def state(model):
    """Return what the canary must leave as it was: hooks, forward methods, weights."""
    marks = [
        (name, dict(m._forward_hooks), dict(m._forward_pre_hooks), m.__dict__.get("forward"))
        for name, m in model.named_modules()
    ]
    return marks, {name: value.clone() for name, value in model.state_dict().items()}


HALF = ["gemma3_text", "gpt2", "llama", "opt"]
MODELS = [(family, torch.float32) for family in sorted(FAMILIES)]
MODELS += [(family, torch.bfloat16) for family in HALF]


@pytest.mark.parametrize("family, dtype", MODELS, ids=[f"{f}-{d}" for f, d in MODELS])
def test_a_sound_model_passes_and_stays_as_it_was(family, dtype):
    model = sound(family, dtype)
    marks, weights = state(model.model)
    check_model(model)
    after, same = state(model.model)
    assert after == marks
    assert all(torch.equal(value, same[name]) for name, value in weights.items())


CHOSEN = {"up": [np.array([2])] * 2, "down": [np.array([1, 5])] * 2}


@pytest.mark.parametrize("family", ["gemma3_text", "llama", "opt"])
def test_tuned_models_pass(family):
    pytest.importorskip("peft")
    modules = ["q_proj", "fc2"] if family == "opt" else ["q_proj", "down_proj"]
    tuned = [
        neuron_weights.attach(tiny_model(family), CHOSEN),
        lora.attach(tiny_model(family), modules),
        lora.attach(tiny_model(family), ["q_proj"], CHOSEN),
    ]
    for one in tuned:
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.add_(0.1)
        check_model(LanguageModel(one.eval()))


def test_four_bit_weights_pass(tmp_path):
    pytest.importorskip("bitsandbytes")
    tiny_model("llama", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    asked = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=asked, device_map={"": "cpu"}, dtype=torch.bfloat16
    )
    model = LanguageModel(loaded.eval())
    check_model(model)
    layers_swapped(model, None)
    with pytest.raises(CanaryError):
        check_model(model)


def test_each_site_of_each_layer_takes_part():
    found = canary._Canary(sound())
    own = {(one.layer, one.site) for one in found._changes(False) + found._changes(True)}
    sites = ("gate", "act", "product", "residual")
    assert own == {(layer, site) for layer in range(2) for site in sites}
    for change in found._changes(False) + found._changes(True):
        known = found._known([change])
        assert (canary._size(known - found.base) > 1e-3 * canary._size(found.base)).all()


# Faults of the model ------------------------------------------------------------------------------


def renamed(model, _patch):
    mlp = model.sites.layers[1].mlp
    mlp.w2 = mlp.down_proj
    del mlp.down_proj
    mlp.forward = lambda x: mlp.w2(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x))


def fused(model, _patch):
    mlp = model.sites.layers[1].mlp
    mlp.forward = lambda x: nn.functional.linear(
        nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x), mlp.down_proj.weight
    )


def fused_nonlinearity(model, _patch):
    mlp = model.sites.layers[1].mlp
    mlp.forward = lambda x: mlp.down_proj(nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x))


def replaced(model, _patch):
    mlp = model.sites.layers[0].mlp
    mlp.down_proj = copy.deepcopy(mlp.down_proj)


def of_a_copy(model, _patch):
    model.sites = LanguageModel(copy.deepcopy(model.model)).sites


def neurons_of_a_copy(model, _patch):
    other = LanguageModel(copy.deepcopy(model.model)).sites
    model.sites.act, model.sites.down = other.act, other.down


def stale_hook(model, _patch):
    index = torch.arange(3).numpy()
    OnePlan(model.sites, Plan("left", [Write(1, "product", "set", index, 0.0 * index)]))


def stale_foreign_hook(model, _patch):
    def half(_module, given):
        return (given[0] * 0.5,)

    model.sites.down[0].register_forward_pre_hook(half)


def layers_swapped(model, _patch):
    model.sites.down.reverse()


def stream_one_layer_late(model, patch):
    on_stream = type(model.sites).on_stream
    last = model.n_layers
    late = lambda self, row, function: on_stream(self, min(row + 1, last), function)  # noqa: E731
    patch.setattr(type(model.sites), "on_stream", late)


# Faults of hooks ----------------------------------------------------------------------------------


def removed(_model, patch):
    begin = hooks.Hooked.begin

    def off(self):
        begin(self)
        self.remove()

    patch.setattr(hooks.Hooked, "begin", off)


def one_removed(_model, patch):
    begin = hooks.Hooked.begin

    def off(self):
        begin(self)
        for handle in self._handles[:1]:
            handle.remove()

    patch.setattr(hooks.Hooked, "begin", off)


def wrong_rows(_model, patch):
    announce = PlanPerRow.announce

    def shifted(self, prompt, valid=None, numbers=None, cache=None):
        announce(self, prompt, valid, numbers.roll(1), cache)

    patch.setattr(PlanPerRow, "announce", shifted)


def wrong_branch(_model, patch):
    by_plan = branches.Branched.by_plan
    patch.setattr(branches.Branched, "by_plan", lambda self, v: by_plan(self, v).roll(1, 0))


def twice(_model, patch):
    run = OnePlan._run

    def again(self, *given):
        run(self, *given)
        run(self, *given)

    patch.setattr(OnePlan, "_run", again)


def twice_by_row(_model, patch):
    run = PlanPerRow._run

    def again(self, *given):
        run(self, *given)
        run(self, *given)

    patch.setattr(PlanPerRow, "_run", again)


def value_cast(_model, patch):
    begin = HookedWrite.__init__

    def cast(self, write, device):
        begin(self, write, device)
        self._cast = self.value = self.value.to(torch.bfloat16).float()

    patch.setattr(HookedWrite, "__init__", cast)


def index_off_by_one(model, patch):
    begin, width = HookedWrite.__init__, model.d_mlp

    def shifted(self, write, device):
        begin(self, write, device)
        if write.site != "residual":
            self.index = (self.index + 1) % width

    patch.setattr(HookedWrite, "__init__", shifted)


def index_off_by_one_by_row(model, patch):
    row, width = hooks._RowOperation, model.d_mlp

    class Shifted(row):
        def __init__(self, writes, device):
            super().__init__(writes, device)
            if next(one for one in writes if one is not None).site != "residual":
                self.index = (self.index + 1) % width

    patch.setattr(hooks, "_RowOperation", Shifted)


def gate_at_act(_model, patch):
    """Writes of the site `gate` go where those of `act` do; those of `act` are lost."""
    begin = hooks.Hooked.__init__

    def moved(self, sites, plans, operations):
        own = {
            (layer, "act" if site == "gate" else site): ops
            for (layer, site), ops in operations.items()
            if site != "act"
        }
        begin(self, sites, plans, own)

    patch.setattr(hooks.Hooked, "__init__", moved)


FAULTS = [
    (renamed, "0 modules of the model are called '...layers.1.mlp.down_proj'"),
    (fused, "does not call 'model.layers.1.mlp.down_proj'"),
    (fused_nonlinearity, r"one plan for all rows, first at layer 1, site gate.*layers \[1\]"),
    (replaced, r"one plan for all rows.*layer 0, site product"),
    (of_a_copy, "a forward pass calls 0 of the model's 2 layers"),
    (neurons_of_a_copy, "first at layer 0, site gate: .*no hook fired in layers"),
    (stale_hook, "a hook was left on 'model.layers.1.mlp.down_proj'"),
    (stale_foreign_hook, "no plan: .*of their size, and nothing was written"),
    (layers_swapped, "one plan for all rows.*first at layer 0, site product"),
    (stream_one_layer_late, "one plan for all rows.*first at layer 0, site residual"),
    (removed, "first at layer 0, site gate: .*no hook fired in layers"),
    (one_removed, "first at layer 0, site gate: .*no hook fired"),
    (wrong_rows, "a plan per row: logits of row 0"),
    (wrong_branch, "plans in branches: logits of row 0"),
    (twice, "one plan for all rows.*first at layer 0, site act"),
    (twice_by_row, "a plan per row: .*first at layer 0, site act"),
    (value_cast, "one plan for all rows.*site residual"),
    (index_off_by_one, "one plan for all rows.*first at layer 0, site gate"),
    (index_off_by_one_by_row, "a plan per row: .*first at layer 0, site gate"),
    (gate_at_act, "no hook fired|one plan for all rows"),
]


@pytest.mark.parametrize("fault, told", FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_the_canary_fails_in_a_fault(fault, told, monkeypatch):
    model = sound()
    check_model(model)
    fault(model, monkeypatch)
    marks, weights = state(model.model)
    with pytest.raises(CanaryError, match=told) as error:
        check_model(model)
    assert "report this message" in str(error.value)
    after, same = state(model.model)
    assert after == marks
    assert all(torch.equal(value, same[name]) for name, value in weights.items())


GROSS = [wrong_rows, wrong_branch, twice, twice_by_row, index_off_by_one, layers_swapped]


@pytest.mark.parametrize("fault", GROSS, ids=[fault.__name__ for fault in GROSS])
def test_faults_are_found_in_bfloat16(fault, monkeypatch):
    model = sound(dtype=torch.bfloat16)
    fault(model, monkeypatch)
    with pytest.raises(CanaryError):
        check_model(model)


# Where it stands ----------------------------------------------------------------------------------


def test_a_job_asks_before_it_computes():
    model = sound()
    job = ModelJob({}, [], {}, {}, 64)
    model.identity = {"model": "tiny"}
    assert job.run(model, "perplexity").model is model
    fused(model, None)
    with pytest.raises(CanaryError, match="does not call"):
        job.run(model, "perplexity")


def test_logits_that_are_not_finite_are_left_to_the_job(caplog):
    model = sound()
    model.sites.layers[0].mlp.down_proj.weight.fill_(torch.inf)
    check_model(model)
    assert "not finite" in caplog.text


def test_a_head_that_transformers_does_not_have_is_found():
    model = sound()
    model.sites.config = types.SimpleNamespace(logit_scale=2.0)
    with pytest.raises(CanaryError, match="not those of the model's own forward pass"):
        check_model(model)
