"""MlpSites against MLPs computed by hand from the weights, for every family."""

import pytest
import torch
from tiny import D_MLP, FAMILIES, HIDDEN, VOCAB_SIZE, tiny_config, tiny_model
from torch import nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedConfig

from langneurons.models.checkpoint import check_config, check_modules
from langneurons.models.families import FAMILIES as KNOWN
from langneurons.models.families import family_for
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites

GELU_TANH = ("gemma", "gemma2", "gemma3_text", "gemma3", "bloom", "gpt2", "phi")


def tokens() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(4, VOCAB_SIZE - 1, (2, 7), generator=generator)


def nonlinearity(family: str, x: torch.Tensor) -> torch.Tensor:
    if family in GELU_TANH:
        return functional.gelu(x, approximate="tanh")
    if family in ("gpt_neox", "xglm"):
        return functional.gelu(x)
    return functional.relu(x) if family == "opt" else x * torch.sigmoid(x)


def project(family: str, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    weight = module.weight if family == "gpt2" else module.weight.T
    bias = getattr(module, "bias", None)
    return x @ weight if bias is None else x @ weight + bias


def capture(sites: MlpSites, run) -> tuple[list[dict], list]:
    """Run and return, per layer, what passed: x (into gate), gate, act, product, down."""
    seen: list[dict] = [{} for _ in range(sites.n_layers)]
    handles = []
    for i in range(sites.n_layers):

        def on_gate(_module, inputs, _output, seen=seen[i]):
            seen["x"] = inputs[0]

        def on_act(_module, inputs, output, seen=seen[i]):
            seen["gate"], seen["act"] = inputs[0], output

        def on_down(_module, inputs, output, seen=seen[i]):
            seen["product"], seen["down"] = inputs[0], output

        for module, hook in (
            (sites.gate[i], on_gate),
            (sites.act[i], on_act),
            (sites.down[i], on_down),
        ):
            handles.append(module.register_forward_hook(hook))
    output = run()
    for handle in handles:
        handle.remove()
    return seen, output


def test_every_family_has_a_tiny_model():
    assert set(FAMILIES) == set(KNOWN)


@pytest.mark.parametrize("family", sorted(set(KNOWN) - {"qwen3_moe"}))
def test_sites_equal_a_hand_written_mlp(family):
    model = tiny_model(family)
    sites = MlpSites(model)
    assert sites.n_layers == 2
    assert sites.d_mlp == (4 * HIDDEN if family == "bloom" else D_MLP)
    fired = []
    sites.head.register_forward_hook(lambda *_: fired.append(1))
    seen, output = capture(sites, lambda: sites.backbone(input_ids=tokens(), use_cache=False))
    assert not fired
    assert output.last_hidden_state.shape == (2, 7, HIDDEN)
    for i, layer in enumerate(seen):
        x = layer["x"]
        gate = project(family, sites.gate[i], x)
        act = nonlinearity(family, gate)
        product = act * project(family, sites.up[i], x) if sites.gated else act
        down = project(family, sites.down[i], product)
        assert x.numel() == 2 * 7 * HIDDEN
        assert layer["act"].shape[-1] == sites.d_mlp
        for name, expected in (("gate", gate), ("act", act), ("product", product), ("down", down)):
            torch.testing.assert_close(layer[name], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", sorted(KNOWN))
def test_backbone_and_head_make_up_the_model(family):
    model = tiny_model(family)
    sites = MlpSites(model)
    inside, hidden = capture(sites, lambda: sites.backbone(input_ids=tokens(), use_cache=False))
    whole, output = capture(sites, lambda: model(input_ids=tokens(), use_cache=False))
    for layer, other in zip(inside, whole, strict=True):
        torch.testing.assert_close(layer["act"], other["act"])
    logits = sites.head(hidden.last_hidden_state)
    if family == "gemma2":
        cap = sites.config.final_logit_softcapping
        logits = torch.tanh(logits / cap) * cap
    if family.startswith("cohere"):
        logits = logits * sites.config.logit_scale
    if family == "granite":
        logits = logits / 4.0
    torch.testing.assert_close(output.logits, logits)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_bare_models_and_classifiers(family):
    for auto in (AutoModel, AutoModelForSequenceClassification):
        model = auto.from_config(tiny_config(family)).eval()
        sites = MlpSites(model)
        seen, _ = capture(sites, lambda model=model: model(input_ids=tokens()[:1]))
        assert all("act" in layer for layer in seen)
        assert sites.output_embedding is None
        with pytest.raises(ValueError, match="no output embedding; load a causal"):
            sites.head  # noqa: B018


def test_a_language_model_without_a_tokenizer_says_so():
    model = LanguageModel(tiny_model("llama"))
    with pytest.raises(ValueError, match="no tokenizer; give one"):
        model.encoder()
    assert model.pad == 0
    assert model.vocabulary == VOCAB_SIZE


def test_gated_families_have_two_projections():
    gated, plain = MlpSites(tiny_model("llama")), MlpSites(tiny_model("opt"))
    assert gated.gated and gated.gate[0] is not gated.up[0]
    assert not plain.gated and plain.gate[0] is plain.up[0]


def test_peft_model_is_looked_into():
    peft = pytest.importorskip("peft")
    model = tiny_model("llama")
    lora = peft.LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(model, lora)
    sites = MlpSites(wrapped)
    seen, output = capture(sites, lambda: wrapped(input_ids=tokens(), use_cache=False))
    assert sites.d_mlp == D_MLP
    direct = sites.head(sites.backbone(input_ids=tokens(), use_cache=False).last_hidden_state)
    torch.testing.assert_close(output.logits, direct)
    plain = project("llama", sites.down[0].base_layer, seen[0]["product"])
    assert not torch.allclose(seen[0]["down"], plain)


def test_prompt_tuning_is_refused():
    peft = pytest.importorskip("peft")
    prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ValueError, match="PROMPT_TUNING"):
        MlpSites(peft.get_peft_model(tiny_model("llama"), prompt))


def test_unknown_family_names_the_nearest_and_the_file():
    model = tiny_model("llama")
    model.config.model_type = "qwen22"
    with pytest.raises(ValueError, match=r"'qwen22'.*Nearest: qwen2.*families\.py"):
        MlpSites(model)


@pytest.mark.parametrize(
    "model_type, config, reason",
    [
        ("phi3", None, "fuses gate and up"),
        ("mixtral", None, "mixture of experts"),
        ("qwen9_moe", None, "mixture of experts"),
        ("unheard_of", {"num_local_experts": 8}, "mixture of experts"),
        ("mt5", None, "an encoder and a decoder"),
        ("unheard_of", {"is_encoder_decoder": True}, "an encoder and a decoder"),
        ("bert", None, "is an encoder"),
        ("falcon_mamba", None, "is recurrent"),
    ],
)
def test_families_that_no_line_can_add_are_refused_with_the_reason(model_type, config, reason):
    given = None if config is None else PreTrainedConfig(**config)
    with pytest.raises(ValueError, match=rf"'{model_type}' .*{reason}.*no entry of FAMILIES"):
        family_for(model_type, given)


@pytest.mark.parametrize("family", sorted(KNOWN))
def test_supported_families_pass_the_check_of_their_configuration(family):
    config = tiny_config(family)
    check_config(config)
    assert check_modules(tiny_model(family)).n_layers == 2


def test_unresolved_path_is_named():
    model = tiny_model("llama")
    del model.model.layers[1].mlp.down_proj
    with pytest.raises(ValueError, match=r"'mlp\.down_proj' in LlamaDecoderLayer"):
        MlpSites(model)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_shared_nonlinearity_is_copied(family):
    model = tiny_model(family)
    parent, _, name = KNOWN[family].act.rpartition(".")
    layers = MlpSites(model).backbone.get_submodule(KNOWN[family].layers)
    shared = nn.ReLU()
    for layer in layers:
        setattr(layer.get_submodule(parent), name, shared)
    before = model(input_ids=tokens()).logits
    sites = MlpSites(model)
    assert sites.act[0] is shared and sites.act[1] is not shared
    seen, output = capture(sites, lambda: model(input_ids=tokens()))
    assert all("act" in layer for layer in seen)
    assert not torch.equal(seen[0]["act"], seen[1]["act"])
    torch.testing.assert_close(output.logits, before)


@pytest.mark.parametrize("family", sorted(KNOWN))
def test_the_table_of_linear_layers_is_that_of_the_models(family):
    modules = tiny_model(family).named_modules()
    found = {
        name.rpartition(".")[2]
        for name, module in modules
        if isinstance(module, nn.Linear) or hasattr(module, "nf")
    }
    assert set(KNOWN[family].linear.split()) == found


def test_every_family_has_its_linear_layers():
    assert all(one.linear.split() for one in KNOWN.values())
