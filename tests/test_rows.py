"""Chosen neurons' own weights: equal to full training with masked gradients, and nothing else."""

import copy
import os
import signal
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_finetune import ANSWERS, CLASSES, fit, nli_rows, qa_rows

from langneurons.base.io import DamagedFile, read_header
from langneurons.evaluation.classification import HEAD, add_head, class_head, class_logits
from langneurons.interventions.apply import applied
from langneurons.interventions.plan import Plan
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.training.load import load_tuned
from langneurons.training.neuron_weights import WEIGHTS, Beside, Within, apply, attach, detach, save
from langneurons.training.settings import Training
from langneurons.training.trainer import Folders

CHOSEN = [np.array([1, 4, 9, 40]), np.array([0, 47])]
PARTLY = [np.array([1, 4, 9, 40]), np.array([], np.int64)]
GATED = ("gate", "up", "down")
WHO = {"model": "tiny", "revision": "r1", "dtype": "float32", "quantization": "none"}
TOKENS = torch.randint(4, tiny.VOCAB_SIZE, (3, 11), generator=torch.Generator().manual_seed(1))
FAMILIES = ["llama", "gemma3_text", "qwen3", "cohere2", "gpt2", "bloom", "phi", "opt", "gpt_neox"]


def fresh(family="llama", dtype=torch.float32, **more):
    return tiny.tiny_model(family, **more).to(dtype)


def attached(sites=GATED, chosen=CHOSEN, **more):
    return attach(fresh(**more), dict.fromkeys(sites, chosen))


def loss_of(model, dtype=torch.float32):
    mixed = torch.autocast("cpu", dtype) if dtype != torch.float32 else nullcontext()
    with mixed:
        return model(input_ids=TOKENS, labels=TOKENS).loss


def optimiser_of(parameters, kind):
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01)
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)


def train(model, parameters, kind="adamw", steps=5, dtype=torch.float32, after=lambda: None):
    """Take clipped steps with weight decay."""
    parameters = list(parameters)
    optimiser = optimiser_of(parameters, kind)
    for _ in range(steps):  # in eval mode, so without dropout
        loss_of(model, dtype).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        after()
    return optimiser


def kept(model, sites, chosen):
    """Return by weight of the MLPs a mask of the chosen neurons' elements, written out by hand."""
    found, masks = MlpSites(model), {}
    names = {id(p): name for name, p in model.named_parameters()}
    for site in sites:
        for module, index in zip(getattr(found, site), chosen, strict=True):
            mask = torch.zeros_like(module.weight, dtype=torch.bool)
            inputs_first = type(module).__name__ == "Conv1D"
            if (site == "down") != inputs_first:
                mask[:, index] = True
            else:
                mask[index] = True
            masks[names[id(module.weight)]] = mask
    return masks


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_trajectory_is_that_of_full_training_with_masked_gradients(family, kind):
    dense = fresh(family)
    masks = kept(dense, GATED, CHOSEN)
    weights = {name: dense.get_parameter(name).requires_grad_(True) for name in masks}
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    for name, weight in weights.items():
        weight.register_hook(lambda gradient, mask=masks[name]: gradient * mask)

    def restore():  # weight decay moves what has no gradient
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(torch.where(masks[name], weight, start[name]))

    train(dense, weights.values(), kind, after=restore)
    ours = attached(family=family)
    train(ours, ours.trained().values(), kind)
    found = detach(ours).state_dict()
    expected = dense.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-4, atol=2e-5)
    moved = [(found[name] - start[name]).abs()[masks[name]].max() for name in weights]
    assert min(moved) > 1e-3


@pytest.mark.parametrize("site", GATED)
def test_the_gradient_is_the_full_gradients_part(site):
    dense, ours = fresh(), attached((site,), PARTLY)
    masks = kept(dense, (site,), PARTLY)
    name = next(name for name, mask in masks.items() if mask.any())
    dense.get_parameter(name).requires_grad_(True)
    loss_of(dense).backward()
    loss_of(ours).backward()
    full = dense.get_parameter(name).grad
    expected = full[:, PARTLY[0]].T if site == "down" else full[PARTLY[0]]
    with_gradient = {key: p.grad for key, p in ours.named_parameters() if p.grad is not None}
    (gradient,) = with_gradient.values()
    assert gradient.shape == (4, tiny.HIDDEN) and with_gradient.keys() == ours.trained().keys()
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sites", [("gate",), ("up",), ("down",), GATED])
def test_nothing_off_the_selection_moves_by_a_bit(dtype, sites):
    before = fresh(dtype=dtype).state_dict()
    model = attached(sites, dtype=dtype)
    optimiser = train(model, model.trained().values(), dtype=dtype)
    sizes = sum(v.numel() for s in optimiser.state.values() for v in s.values() if v.dim())
    assert sizes == 2 * 6 * tiny.HIDDEN * len(sites)
    after = detach(model)
    masks = kept(after, sites, CHOSEN)
    for name, value in after.state_dict().items():
        assert value.dtype == dtype
        mask = masks.get(name, torch.zeros_like(value, dtype=torch.bool))
        assert torch.equal(value[~mask], before[name][~mask]), name
        assert not mask.any() or (value[mask] != before[name][mask]).float().mean() > 0.9


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attached_merged_and_loaded_models_are_equal_to_the_last_bit(tmp_path, family, dtype):
    base = fresh(family, dtype)
    model = attached(family=family, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, base(TOKENS).logits)
    train(model, model.trained().values(), dtype=dtype)
    save(model, tmp_path, WHO)
    with torch.no_grad():
        expected = model(TOKENS).logits
        merged = detach(model)
        assert torch.equal(merged(TOKENS).logits, expected)
        loaded = load_tuned(LanguageModel(base, None, WHO), str(tmp_path / WEIGHTS)).model
        assert torch.equal(loaded(TOKENS).logits, expected)
    assert not any(isinstance(module, (Within, Beside)) for module in loaded.modules())
    for name, value in merged.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_the_file_is_compact_and_equal_for_equal_values(tmp_path):
    for folder in ("a", "b"):
        model = attached(chosen=PARTLY)
        train(model, model.trained().values())
        save(model, tmp_path / folder, WHO)
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()
    state = load_file(tmp_path / "a" / WEIGHTS)
    assert set(state) == {f"{site}.0.{what}" for site in GATED for what in ("index", "values")}
    assert state["down.0.values"].shape == (4, tiny.HIDDEN)
    assert state["gate.0.index"].tolist() == PARTLY[0].tolist()
    header = read_header(tmp_path / "a" / WEIGHTS)
    assert header == WHO | {"kind": "rows", "n_layers": 2, "d_mlp": tiny.D_MLP}


def test_steps_below_the_resolution_of_bfloat16_add_up():
    model = attached(("gate",), dtype=torch.bfloat16)
    module = MlpSites(model.get_base_model()).gate[0]
    start = module.weight.detach().clone()
    for _ in range(64):
        with torch.no_grad():
            module.values += module.values.abs() * 2**-12
        model(TOKENS)
    grown = module.weight[CHOSEN[0]].float() / start[CHOSEN[0]].float()
    # 1 + 2**-12 rounds to 1 in bfloat16; 64 of these are 1.6 %.
    assert grown.sign().min() > 0 and 1.005 < float((grown - 1).abs().median() + 1) < 1.03


def test_no_copy_of_a_weight_is_kept_for_the_backward_pass():
    model = attached()
    weights = {p.data_ptr() for p in model.parameters()}
    shapes = {(tiny.D_MLP, tiny.HIDDEN), (tiny.HIDDEN, tiny.D_MLP)}
    found = []

    def note(tensor):
        found.append((tuple(tensor.shape), tensor.data_ptr()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss_of(model)
    full = [pointer for shape, pointer in found if shape in shapes]
    # Gate and up of the first layer need no weight: no gradient flows below them.
    assert len(full) == 4 and set(full) <= weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputing_activations_changes_no_gradient(dtype):
    plain, recomputing = attached(dtype=dtype), attached(dtype=dtype)
    recomputing.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    for model in (plain, recomputing):
        model.train()
        loss_of(model, dtype).backward()
    for one, other in zip(plain.trained().values(), recomputing.trained().values(), strict=True):
        assert one.grad.abs().max() > 0 and torch.equal(one.grad, other.grad)


def test_neurons_of_a_tuned_model_can_be_overwritten(tmp_path):
    """The sites are found through the trained layers; an untouched plan changes nothing."""
    model = attached()
    train(model, model.trained().values())
    inner = model.get_base_model()
    lm = LanguageModel(inner)
    assert lm.d_mlp == tiny.D_MLP
    with torch.no_grad():
        expected = inner(TOKENS).logits
        with applied(lm, Plan("none")):
            assert torch.equal(inner(TOKENS).logits, expected)


# ---- 4-bit weights


def packed(model, bias=False):
    """Pack every MLP projection into 4 bits."""
    bnb = pytest.importorskip("bitsandbytes")
    for layer in model.model.layers:
        for name in ("gate_proj", "up_proj", "down_proj"):
            old = getattr(layer.mlp, name)
            sizes = (old.in_features, old.out_features)
            new = bnb.nn.Linear4bit(
                *sizes, bias=bias, quant_type="nf4", compute_dtype=torch.float32
            )
            new.weight = bnb.nn.Params4bit(
                old.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
            )
            if bias:
                new.bias.data = torch.linspace(-1, 1, sizes[1])
            # In eval mode bitsandbytes would repack the weights for inference on this CPU.
            setattr(layer.mlp, name, new.to("cpu").train())
    return model.requires_grad_(False)


SMALL = {"hidden_size": 64, "intermediate_size": 128}
LAYERS = [np.array([1, 4, 127]), np.array([63])]


@pytest.mark.parametrize("bias", [False, True])
def test_packed_weights_compute_the_chosen_neurons_beside(bias):
    from bitsandbytes.functional import dequantize_4bit

    model = packed(fresh(**SMALL), bias)
    expected = model(TOKENS).logits
    ours = attach(model, dict.fromkeys(GATED, LAYERS))
    torch.testing.assert_close(ours(TOKENS).logits, expected, rtol=1e-4, atol=1e-4)
    wide = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(0))
    for site, x in (("gate", wide[..., :64]), ("down", wide)):
        layer = getattr(MlpSites(model), site)[0]
        with torch.no_grad():
            layer.values += 0.5
        full = dequantize_4bit(layer.base_layer.weight.data, layer.base_layer.weight.quant_state)
        lines = full.T if site == "down" else full
        lines[LAYERS[0]] += 0.5
        by_hand = torch.nn.functional.linear(x, full, layer.base_layer.bias)
        torch.testing.assert_close(layer(x), by_hand, rtol=1e-4, atol=1e-4)


def test_packed_weights_do_not_change_and_the_rows_are_loaded_beside(tmp_path):
    model = attach(packed(fresh(**SMALL)), dict.fromkeys(GATED, LAYERS))
    layers = [m for m in model.modules() if isinstance(m, Beside)]
    before = [copy.deepcopy(layer.base_layer.weight.data) for layer in layers]
    first = loss_of(model).item()
    train(model, model.trained().values())
    assert len(layers) == 6 and loss_of(model).item() < first
    for layer, data in zip(layers, before, strict=True):
        assert torch.equal(layer.base_layer.weight.data, data)
    save(model, tmp_path, WHO)
    loaded = apply(packed(fresh(**SMALL)), tmp_path, WHO).train()
    with torch.no_grad():
        assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)
    assert not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(ValueError, match="cannot take up"):
        detach(model)


def test_weights_repacked_for_inference_are_refused():
    model = packed(fresh(**SMALL)).eval()
    with torch.no_grad():
        model(TOKENS)
    state = MlpSites(model).gate[0].weight.quant_state
    if not getattr(state, "packing_format_for_cpu", False):
        pytest.skip("bitsandbytes repacks on CPUs with AVX512-BF16 only")
    with pytest.raises(ValueError, match="before the first forward pass"):
        attach(model, dict.fromkeys(GATED, LAYERS))


# ---- mistakes


@pytest.mark.parametrize(
    "neurons, words",
    [
        (None, "nothing to train"),
        ({"gate": [np.array([], np.int64)] * 2}, "nothing to train"),
        ({"gates": CHOSEN}, "not gate, up or down"),
        ({"gate": CHOSEN[:1]}, "layers"),
        ({"down": [np.array([48]), np.array([0])]}, "0..47"),
        ({"down": [np.array([3, 3]), np.array([0])]}, "ascend"),
    ],
)
def test_mistakes_are_named(neurons, words):
    with pytest.raises(ValueError, match=words):
        attach(fresh(), neurons)


@pytest.mark.parametrize("key", sorted(WHO))
def test_neurons_of_another_model_are_refused(tmp_path, key):
    save(attached(), tmp_path, WHO)
    with pytest.raises(DamagedFile, match=f"{key} is .*'another'"):
        apply(fresh(), tmp_path, WHO | {key: "another"})


def test_neurons_of_another_shape_are_refused(tmp_path):
    save(attached(), tmp_path, WHO)
    with pytest.raises(DamagedFile, match="n_layers is 2"):
        apply(fresh(num_hidden_layers=3), tmp_path, WHO)
    model = attached()
    with pytest.raises(ValueError, match="other neurons"):
        model.load_state_dict(attached(("gate",)).state_dict())


# ---- in the Trainer's loop

SETTINGS = {"parameters": "rows", "projections": GATED, "learning_rate": 5e-3, "batch_size": 4}
SETTINGS |= {"epochs": 3, "log_steps": 2, "checkpoint_steps": 4, "max_length": 32}


def run(folder, work, task=CLASSES, neurons=CHOSEN, model=None, **changes):
    rows = nli_rows() if task is CLASSES else qa_rows()
    lm = LanguageModel(fresh() if model is None else model, tiny.tiny_tokenizer(), WHO)
    chosen = None if neurons is None else dict.fromkeys(GATED, neurons)
    return fit(lm, task, rows, Training(**(SETTINGS | changes)), chosen, Folders(folder, work))


def logits_of(model, mask):
    """Return the class logits of TOKENS under the model's own head."""
    return class_logits(MlpSites(model), class_head(model), TOKENS, mask, "last_token")


def test_classification_is_learnt_and_the_head_comes_with_the_neurons(tmp_path):
    model = fresh()
    curves = run(tmp_path / "a", tmp_path / "w", model=model, epochs=12, learning_rate=1e-2)
    assert curves["loss"].iloc[-1] < 0.5 * curves["loss"].iloc[0]
    assert curves["accuracy"].iloc[-1] >= 0.9
    loaded = fresh()
    add_head(LanguageModel(loaded), 2, seed=5)
    apply(loaded, tmp_path / "a", WHO)
    mask = torch.ones_like(TOKENS)
    with torch.no_grad():
        found = logits_of(loaded, mask)
        assert torch.equal(found, logits_of(model, mask))


@pytest.mark.parametrize("neurons", [None, [np.arange(tiny.D_MLP)] * 2], ids=["none", "all"])
def test_the_head_alone_and_every_neuron(tmp_path, neurons):
    before = fresh().state_dict()
    model = fresh()
    run(tmp_path / "a", tmp_path / "w", neurons=neurons, model=model)
    state = load_file(tmp_path / "a" / WEIGHTS)
    assert f"whole.{HEAD}.weight" in state
    after = apply_to_fresh(tmp_path / "a").state_dict()
    for name, value in before.items():
        trained = neurons is not None and ".mlp." in name
        assert torch.equal(after[name], value) != trained


def apply_to_fresh(folder):
    model = fresh()
    add_head(LanguageModel(model), 2)
    return apply(model, folder, WHO)


def test_bfloat16_models_are_trained_under_autocast(tmp_path):
    model = fresh(dtype=torch.bfloat16)
    run(tmp_path / "a", tmp_path / "w", model=model, epochs=1)
    state = load_file(tmp_path / "a" / WEIGHTS)
    assert {v.dtype for k, v in state.items() if "index" not in k} == {torch.bfloat16}
    loaded = fresh(dtype=torch.bfloat16)
    add_head(LanguageModel(loaded), 2)
    apply(loaded, tmp_path / "a", WHO)
    assert logits_of(loaded, torch.ones_like(TOKENS)).isfinite().all()


def test_four_bit_models_are_trained_in_the_loop(tmp_path):
    model = packed(fresh(**SMALL))
    training = Training(**(SETTINGS | {"epochs": 12, "learning_rate": 2e-2}))
    chosen, folders = dict.fromkeys(GATED, LAYERS), Folders(tmp_path / "a", tmp_path / "w")
    lm = LanguageModel(model, tiny.tiny_tokenizer(), WHO)
    curves = fit(lm, ANSWERS, qa_rows(), training, chosen, folders)
    assert curves["loss"].iloc[-1] < curves["loss"].iloc[0]
    state = load_file(tmp_path / "a" / WEIGHTS)
    assert state["gate.0.values"].shape == (3, 64) and state["down.1.values"].shape == (1, 64)


def test_checkpoints_hold_what_is_trained_and_no_more(tmp_path):
    run(tmp_path / "a", tmp_path / "w", ANSWERS)
    (checkpoint,) = (tmp_path / "w").glob("checkpoint-*/model.safetensors")
    state = load_file(checkpoint)
    assert sum(value.numel() for value in state.values()) == 3 * 6 * tiny.HIDDEN


@pytest.mark.parametrize("task", [CLASSES, ANSWERS], ids=["classes", "answers"])
@pytest.mark.parametrize("step", [3, 7])
def test_a_killed_run_ends_at_the_same_bytes(tmp_path, monkeypatch, task, step):
    undisturbed = run(tmp_path / "a", tmp_path / "w1", task)
    from transformers import Trainer

    original, count = Trainer.training_step, [0]

    def killed(self, *arguments, **options):
        count[0] += 1
        if count[0] == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "training_step", killed)
    before = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(143)))
    try:
        with pytest.raises(SystemExit):
            run(tmp_path / "b", tmp_path / "w2", task)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not (tmp_path / "b" / WEIGHTS).exists()
    resumed = run(tmp_path / "b", tmp_path / "w2", task)
    assert (tmp_path / "b" / WEIGHTS).read_bytes() == (tmp_path / "a" / WEIGHTS).read_bytes()
    pd.testing.assert_frame_equal(resumed, undisturbed, check_exact=True)
    assert count[0] > step


def test_recomputing_in_the_loop_gives_the_same_bytes(tmp_path):
    run(tmp_path / "a", tmp_path / "w1", ANSWERS, epochs=1)
    run(tmp_path / "b", tmp_path / "w2", ANSWERS, epochs=1, recompute=True)
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()
