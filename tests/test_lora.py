"""LoRA on chosen neurons: equal to the masked form, blind to everything off the mask."""

import copy
import os

import numpy as np
import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from langneurons.models.sites import MlpSites
from langneurons.training.lora import (
    Size,
    attach,
    compact_modules,
    dense_state,
    save_adapter,
)

RANK, ALPHA = 4, 8.0
SCALE = ALPHA / RANK
CHOSEN = [np.array([1, 4, 9, 40]), np.array([], np.int64)]
BOTH = [np.array([1, 4, 9, 40]), np.array([0, 47])]
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
TOKENS = torch.randint(4, tiny.VOCAB_SIZE, (3, 11), generator=torch.Generator().manual_seed(1))


def wrapped(neurons, family="llama", dtype=torch.float32, **more):
    model = tiny.tiny_model(family).to(dtype)
    size = Size(RANK, ALPHA, **{key: more.pop(key) for key in ("dropout", "seed") if key in more})
    return attach(model, more.pop("modules", ATTENTION), neurons, size, **more)


def randomised(model, seed=3):
    """Give every trained parameter random values, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise.to(parameter.dtype) * 0.3)
    return model


def loss_of(model):
    return model(input_ids=TOKENS, labels=TOKENS).loss


def train(model, steps=4):
    """Take steps as the paper does: AdamW with weight decay, clipped."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-2, betas=(0.95, 0.999), weight_decay=0.1)
    model.train()
    for _ in range(steps):
        loss_of(model).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


def test_the_layer_is_the_papers_formula():
    model = randomised(wrapped({"gate": CHOSEN}))
    layer = MlpSites(model).gate[0]
    x = torch.randn(2, 5, tiny.HIDDEN)
    weight = layer.base_layer.weight
    a = layer.lora_A["default"].weight
    b = torch.zeros(tiny.D_MLP, RANK)
    b[CHOSEN[0]] = layer.lora_B["default"].weight.detach()
    mask = torch.zeros(tiny.D_MLP, tiny.HIDDEN)
    mask[CHOSEN[0]] = 1
    expected = x @ weight.T + x @ (mask * (b @ a)).T * SCALE
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    off = np.setdiff1d(np.arange(tiny.D_MLP), CHOSEN[0])
    assert torch.equal(layer(x)[..., off], layer.base_layer(x)[..., off])


def test_a_layer_without_chosen_neurons_is_untouched():
    model = wrapped({"gate": CHOSEN})
    assert isinstance(MlpSites(model).gate[1], torch.nn.Linear)
    assert len(compact_modules(model)) == 1


def test_before_training_nothing_has_changed():
    base = tiny.tiny_model("llama")
    assert torch.equal(wrapped({"gate": BOTH})(TOKENS).logits, base(TOKENS).logits)


def test_training_equals_the_dense_mask():
    """Masking the rows of a full B, gradient and all, ends at the same weights."""
    compact = wrapped({"gate": BOTH})
    dense = attach(tiny.tiny_model("llama"), (*ATTENTION, "gate_proj"), size=Size(RANK, ALPHA))
    gates = [layer.lora_B["default"] for layer in MlpSites(dense).gate]
    for gate, chosen in zip(gates, BOTH, strict=True):
        keep = torch.zeros(tiny.D_MLP, 1)
        keep[chosen] = 1
        gate.weight.register_hook(lambda gradient, keep=keep: gradient * keep)
    train(compact), train(dense)
    expected = dense.state_dict()
    for name, value in dense_state(compact).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    for gate, chosen in zip(gates, BOTH, strict=True):
        assert gate.weight[chosen].abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("site", ["gate", "up", "down"])
def test_nothing_off_the_mask_moves_by_a_bit(dtype, site):
    model = train(wrapped({site: BOTH}, modules=(), dtype=dtype))
    before = tiny.tiny_model("llama").to(dtype).state_dict()
    base = wrapped(None, modules=("q_proj",), dtype=dtype)
    full = dense_state(model)
    merged = base.get_base_model()
    assert merged is not None
    for layer in range(2):
        name = f"model.layers.{layer}.mlp.{site}_proj"
        prefix = f"base_model.model.{name}"
        a, b = full[f"{prefix}.lora_A.default.weight"], full[f"{prefix}.lora_B.default.weight"]
        delta = (b.float() @ a.float()) * SCALE
        after = (before[f"{name}.weight"].float() + delta).to(dtype)
        same = after == before[f"{name}.weight"]
        chosen = torch.zeros(tiny.D_MLP, dtype=torch.bool)
        chosen[BOTH[layer]] = True
        lines = same if site != "down" else same.T
        assert lines[~chosen].all()
        assert not lines[chosen].all()
    for name, value in model.get_base_model().state_dict().items():
        if "lora" not in name:
            assert torch.equal(value, before[name.replace("base_layer.", "")])


def test_gradients_reach_the_chosen_rows_only():
    model = wrapped({"gate": CHOSEN})
    loss_of(model).backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in with_gradient)
    half = MlpSites(model).gate[0].lora_B["default"]
    assert half.weight.grad.shape == (len(CHOSEN[0]), RANK)
    assert (half.weight.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("site", ["gate", "up", "down"])
def test_stock_peft_loads_and_merges_what_is_saved(tmp_path, site):
    model = randomised(wrapped({site: BOTH})).eval()
    save_adapter(model, tmp_path)
    expected = model(TOKENS).logits
    loaded = PeftModel.from_pretrained(tiny.tiny_model("llama"), tmp_path).eval()
    assert not compact_modules(loaded)
    torch.testing.assert_close(loaded(TOKENS).logits, expected, rtol=1e-5, atol=1e-5)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(TOKENS).logits, expected, rtol=1e-4, atol=1e-4)
    base = tiny.tiny_model("llama").state_dict()
    for layer, chosen in enumerate(BOTH):
        name = f"model.layers.{layer}.mlp.{site}_proj.weight"
        off = np.setdiff1d(np.arange(tiny.D_MLP), chosen)
        now, then = merged.state_dict()[name], base[name]
        same = now[:, off] == then[:, off] if site == "down" else now[off] == then[off]
        assert same.all()


def test_the_saved_rows_off_the_mask_are_zero(tmp_path):
    from safetensors.torch import load_file

    save_adapter(randomised(wrapped({"gate": CHOSEN})), tmp_path)
    state = load_file(tmp_path / "adapter_model.safetensors")
    (name,) = [key for key in state if "gate_proj.lora_B" in key]
    filled = state[name].abs().sum(dim=1) > 0
    assert filled.nonzero().flatten().tolist() == CHOSEN[0].tolist()


def test_all_neurons_equal_plain_lora():
    everything = [np.arange(tiny.D_MLP)] * 2
    ours = train(wrapped({"gate": everything}))
    plain = train(wrapped(None, modules=(*ATTENTION, "gate_proj")))
    expected = plain.state_dict()
    for name, value in dense_state(ours).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_the_seed_decides_the_start():
    first, again, other = (wrapped({"gate": CHOSEN}, seed=seed) for seed in (0, 0, 1))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    name = "base_model.model.model.layers.0.mlp.gate_proj.lora_A.default.weight"
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    assert first.state_dict()[name].std() == pytest.approx(0.01, rel=0.2)


def stock(modules, dropout=0.0, dtype=torch.float32, family="llama"):
    """Return a model with LoRA as PEFT computes it."""
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=dropout, target_modules=modules)
    return get_peft_model(tiny.tiny_model(family).to(dtype), config)


def gradients(model, **more):
    """Return logits and every gradient of one step."""
    model.zero_grad()
    torch.manual_seed(5)
    output = model(input_ids=TOKENS, labels=TOKENS, **more)
    output.loss.backward()
    named = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return named | {"logits": output.logits.detach()}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
def test_plain_lora_is_pefts(family, dropout):
    """Outputs and gradients, also with dropout (the same masks), biases and GPT-2's Conv1D."""
    modules = {"llama": [*ATTENTION, "gate_proj", "down_proj"], "gpt2": ["c_attn", "c_fc"]}
    modules = modules.get(family, ["q_proj", "fc1", "fc2"])
    ours = wrapped(None, family, modules=modules, dropout=dropout).train()
    theirs = stock(modules, dropout, family=family).train()
    theirs.load_state_dict(randomised(ours).state_dict())
    expected = gradients(theirs)
    found = gradients(ours)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("site", ["gate", "up", "down"])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_the_dense_forms(site, recompute):
    """B's chosen rows (A's chosen columns), and everything before the layer, as PEFT's."""
    ours = randomised(wrapped({site: BOTH})).train()
    theirs = stock([*ATTENTION, f"{site}_proj"])
    theirs.load_state_dict(dense_state(ours))
    if recompute:
        ours.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    expected, found = gradients(theirs), gradients(ours)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        half = "lora_A" if site == "down" else "lora_B"
        if f"{site}_proj.{half}" in name:
            lines = BOTH[int(name.split("layers.")[1][0])]
            value = value[:, lines] if site == "down" else value[lines]
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_what_is_kept_for_the_backward_pass():
    """Besides the frozen layer's own: the input as it is, or its chosen columns, and A x."""
    for site, width in (("gate", tiny.HIDDEN), ("down", len(BOTH[0]))):
        layer = getattr(MlpSites(randomised(wrapped({site: BOTH}, modules=())).train()), site)[0]
        x = torch.randn(5, layer.in_features, requires_grad=True)
        mine = {id(p) for p in layer.parameters()} | {id(b) for b in layer.buffers()}
        kept = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: kept.append(t) or t, lambda t: t
        )
        with hooks:
            layer(x)
        shapes = [tuple(t.shape) for t in kept if id(t) not in mine]
        assert sorted(shapes) == sorted([(5, width), (5, RANK)])
        assert site == "down" or any(t.data_ptr() == x.data_ptr() for t in kept)


@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "qwen3", "cohere2", "phi"])
def test_other_families(family):
    model = wrapped({"gate": BOTH}, family=family, modules=("q_proj",))
    before = loss_of(model.eval()).item()
    assert loss_of(train(model, 8)).item() < before
    assert len(compact_modules(model)) == 2


def test_four_bit_weights_stay_as_they_are():
    """QLoRA on CPU: the packed base does not change, the chosen rows learn."""
    bnb = pytest.importorskip("bitsandbytes")
    model = tiny.tiny_model("llama", hidden_size=64, intermediate_size=64)
    for layer in model.model.layers:
        old = layer.mlp.gate_proj
        new = bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32)
        new.weight = bnb.nn.Params4bit(
            old.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
        )
        layer.mlp.gate_proj = new.to("cpu")
    chosen = [np.array([1, 4]), np.array([63])]
    model(TOKENS)
    wrapped4 = attach(model, (), {"gate": chosen}, Size(RANK, ALPHA))
    packed = [copy.deepcopy(m.base_layer.weight.data) for m in MlpSites(wrapped4).gate]
    train(wrapped4)
    for module, before, rows in zip(MlpSites(wrapped4).gate, packed, chosen, strict=True):
        assert module.base_layer.weight.dtype == torch.uint8
        assert torch.equal(module.base_layer.weight.data, before)
        assert module.lora_B["default"].weight.abs().min() > 0
        assert len(module.lora_B["default"].weight) == len(rows)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"modules": ("q_prj",)}, "q_proj"),
        ({"modules": ()}, "nothing to train"),
        ({"modules": ("gate_proj",), "neurons": {"gate": BOTH}}, "choose one"),
        ({"modules": (), "neurons": {"gates": BOTH}}, "not gate, up or down"),
        ({"modules": (), "neurons": {"gate": BOTH[:1]}}, "layers"),
        ({"modules": (), "neurons": {"gate": [np.array([48]), np.array([0])]}}, "0..47"),
        ({"modules": (), "neurons": {"gate": [np.array([3, 3]), np.array([0])]}}, "ascend"),
    ],
)
def test_mistakes_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        attach(tiny.tiny_model("llama"), **options)


def test_saved_files_follow_the_umask_and_leave_nothing_beside_them(tmp_path):
    wrapped = attach(tiny.tiny_model("llama"), ("q_proj",), None, Size(4, 8.0))
    before = os.umask(0o027)
    try:
        save_adapter(wrapped, tmp_path / "adapter")
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    for path in (tmp_path / "adapter").iterdir():
        assert path.stat().st_mode & 0o777 == 0o640


def test_a_head_with_the_weights_of_the_embeddings_gets_no_lora():
    tied = tiny.tiny_model("llama", tie_word_embeddings=True)
    with pytest.raises(ValueError, match=r"'lm_head' has the weights of 'model.embed_tokens'"):
        attach(tied, ["q_proj", "lm_head"])
    assert attach(tiny.tiny_model("llama", tie_word_embeddings=False), ["lm_head"])


def test_what_is_saved_names_the_base_model_and_is_the_same_in_every_run(tmp_path):
    who = {"model": "owner/name", "revision": "0123"}
    for name in ("first", "second"):
        model = tiny.tiny_model("llama")
        model.name_or_path = model.config._name_or_path = str(tmp_path / name)
        wrapped = attach(model, ["v_proj", "q_proj", "o_proj", "k_proj"], size=Size(2))
        save_adapter(wrapped, tmp_path / name, who)
    for file in ("README.md", "adapter_config.json", "adapter_model.safetensors"):
        first, second = ((tmp_path / name / file).read_bytes() for name in ("first", "second"))
        assert first == second and str(tmp_path).encode() not in first
    card = (tmp_path / "first" / "README.md").read_text()
    assert "owner/name at revision 0123" in card and 'base_model: "owner/name"' in card


def test_a_module_is_not_trained_twice():
    model = tiny.tiny_model("llama")
    model.score = torch.nn.Linear(tiny.HIDDEN, 3)
    with pytest.raises(ValueError, match="'score' is trained as a whole already"):
        attach(model, ["q_proj", "score"], train_fully=["score"])


def test_the_vision_tower_gets_no_lora():
    wrapped = attach(tiny.tiny_model("gemma3"), ["q_proj", "v_proj"])
    trained = [name for name, p in wrapped.named_parameters() if p.requires_grad]
    assert trained and all("language_model" in name for name in trained)
    with pytest.raises(ValueError, match="'out_proj' is not a linear layer of this model"):
        attach(tiny.tiny_model("gemma3"), ["out_proj"])
