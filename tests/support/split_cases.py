"""A model whose layers lie on two devices gives what it gives on one, to the last bit.

Run by test_split.py in a process of its own, which the devices of `devices` are made known to.
"""

import copy
from dataclasses import replace

import devices
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from accelerate import dispatch_model
from safetensors.torch import load_file
from test_collect import tiny_corpus
from test_finetune import ANSWERS, CLASSES, fit, nli_rows, qa_rows

from langneurons.activations.collect import collect
from langneurons.activations.settings import StatisticsConfig
from langneurons.evaluation import lens
from langneurons.evaluation.classification import Head, add_head, classify
from langneurons.interventions.apply import applied
from langneurons.interventions.factors import Factor
from langneurons.interventions.plan import PerRequest, Plan, Write

# applied_rows
from langneurons.models.language_model import LanguageModel
from langneurons.models.load import load_model
from langneurons.models.placement import spread
from langneurons.models.prepare import prepare_model
from langneurons.models.settings import ModelEntry
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.generation import generate
from langneurons.scoring.likelihood import loglikelihood
from langneurons.scoring.nll import token_nll
from langneurons.training import neuron_weights as rows
from langneurons.training.settings import Training
from langneurons.training.trainer import Folders

devices.register()
torch.set_num_threads(1)
LAYERS = 4
PLACES = ("part:0", "part:1")
FAMILIES = ("llama", "gemma3_text", "bloom")
PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"]


def model_on(places, family="llama"):
    """Return a model whose layers are spread over the places, in order."""
    depth = "n_layer" if family == "bloom" else "num_hidden_layers"
    model = tiny.tiny_model(family, **{depth: LAYERS})
    skipped = model._skip_keys_device_placement
    return dispatch_model(
        model, spread(model, places), places[0], skip_keys=skipped, force_hooks=True
    )


def both(compute, family="llama"):
    """Return what a function finds with the model on one device, and on two."""
    found = []
    for places in (PLACES[:1], PLACES):
        model = model_on(places, family)
        used = {str(parameter.device) for parameter in model.parameters()}
        assert used == set(places)
        found.append(compute(model))
    return found


def plan(name="plan", value=3.0):
    """Return writes at every site, of every operation and scope, in layers of both devices."""
    index = np.array([1, 5, 30])
    some = np.array([value, -1.0, 0.5])
    writes = [
        Write(0, "act", "set", index, some),
        Write(1, "gate", "add", index, some, "prompt"),
        Write(2, "act", "scale", index, some),
        Write(3, "product", "add", index, some, "generated"),
        Write(3, "act", "set", index, some, factor=Factor("layer_p90")),
    ]
    return Plan(name, writes)


def text():
    """Return tokens, lengths and scored of three blocks."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(4, tiny.VOCAB_SIZE, (3, 12)).astype(np.int32)
    lengths = np.array([12, 9, 12])
    return tokens, lengths, np.arange(12) < lengths[:, None]


def test_devices_do_not_mix():
    here, there = (torch.ones(3).to(place) for place in PLACES)
    with pytest.raises(RuntimeError, match=r"tensors on .*part:0.*part:1"):
        here + there
    with pytest.raises(RuntimeError, match=r"tensors on .*cpu.*part:0"):
        torch.ones(3) + here
    with pytest.raises(RuntimeError, match="indices on"):
        here[torch.tensor([0, 1]).to(PLACES[1])]
    assert torch.equal((here + there.to(PLACES[0]) * 2).cpu(), torch.full((3,), 3.0))
    model = tiny.tiny_model("llama")
    model.model.layers[1].to(PLACES[1])
    with pytest.raises(RuntimeError, match="tensors on"):
        model(torch.tensor([[1, 2, 3]]))


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics(family):
    settings = StatisticsConfig(document_means=("act",), batch_blocks=2, max_documents=3)
    identity = {"model": "m", "revision": "r", "dtype": "float32", "quantization": "none"}
    corpus = tiny_corpus()

    def compute(model):
        return collect(LanguageModel(model, identity=identity), corpus, settings)

    one, two = both(compute, family)
    assert one.arrays.keys() == two.arrays.keys()
    for name in one.arrays:
        np.testing.assert_array_equal(one.arrays[name], two.arrays[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_perplexity_under_an_intervention(family):
    def compute(model):
        return token_nll(LanguageModel(model), *text(), 24, under=[None, plan()])

    one, two = both(compute, family)
    for found, expected in zip(two, one, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(one[0], one[1], equal_nan=True)


def test_rows_under_plans_of_their_own():
    def compute(model):
        lm = LanguageModel(model, tiny.tiny_tokenizer())
        pairs = [(prompt, " w10 w11") for prompt in PROMPTS] * 3
        under = PerRequest([None, plan("a"), plan("b", -4.0)], [0, 0, 0, 1, 1, 1, 2, 2, 2])
        scores = loglikelihood(lm, pairs, 40, under)
        texts = generate(lm, PROMPTS * 3, Decoding(6, (), 1.3), 60, under)
        return scores, texts

    one, two = both(compute)
    assert one == two
    assert len(set(one[0])) == 9


def test_plans_in_branches_with_common_beginnings():
    def compute(model):
        lm = LanguageModel(model, tiny.tiny_tokenizer())
        deep = [
            replace(plan(name, value), writes=plan(name, value).writes[2:3])
            for name, value in (("a", 3.0), ("b", -4.0))
        ]
        plans = [Plan("none"), *deep, plan("c")]
        pairs = [("w1 w2 w3 w4", word) for word in (" w10 w11", " w12", " w13 w14 w15")]
        scores = loglikelihood(lm, pairs, 80, plans)
        blocks = token_nll(lm, *text(), 96, plans)
        answers = generate(lm, PROMPTS, Decoding(5, (), 1.3), 200, plans)
        texts = generate(lm, [f"w1 w2 {p}" for p in PROMPTS], Decoding(5), 80)
        return scores, blocks.tolist(), texts, answers

    one, two = both(compute, "gemma3_text")
    assert repr(one) == repr(two)
    assert len({repr(scores) for scores in one[0]}) == 4


def test_layers_are_read():
    def compute(model):
        settings = lens.Lens(["x", "y"], np.arange(tiny.VOCAB_SIZE) % 3 - 1, "{question}")
        rows = [{"id": str(k), "question": text} for k, text in enumerate(PROMPTS)]
        return lens.read_prompts(LanguageModel(model, tiny.tiny_tokenizer()), rows, settings, 20)

    one, two = both(compute)
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert one["layer"].nunique() == LAYERS


@pytest.mark.parametrize("task", [CLASSES, ANSWERS], ids=["classes", "answers"])
@pytest.mark.parametrize("parameters", ["lora", "rows"])
def test_training(tmp_path, task, parameters):
    options = {"rank": 4, "alpha": 8.0} if parameters == "lora" else {}
    training = Training(
        parameters=parameters,
        projections=("gate", "down"),
        learning_rate=1e-2,
        batch_size=4,
        max_steps=3,
        log_steps=1,
        checkpoint_steps=3,
        max_length=32,
        recompute=True,
        **options,
    )
    chosen = [np.array([1, 4, 9]), np.array([0, 47]), np.array([2]), np.array([3, 5])]
    data = nli_rows(12) if task is CLASSES else qa_rows(12)
    found = {}

    def compute(model):
        folder = tmp_path / str(len(found))
        neurons = {"gate": chosen, "down": chosen}
        lm = LanguageModel(model, tiny.tiny_tokenizer())
        folders = Folders(folder, tmp_path / f"work{len(found)}")
        curves = fit(lm, task, data, training, neurons, folders)
        found[len(found)] = load_file(folder / "adapter_model.safetensors")
        return curves

    one, two = both(compute)
    # The norm over all gradients, of which none is clipped here, is summed by device.
    np.testing.assert_allclose(one.pop("gradient_norm"), two.pop("gradient_norm"), rtol=1e-5)
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    first, second = found.values()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_classes_are_told():
    def compute(model):
        lm = LanguageModel(model, tiny.tiny_tokenizer())
        add_head(lm, 2)
        return classify(lm, CLASSES, "en", nli_rows(), 60, Head("last_token", 32))

    one, two = both(compute)
    pd.testing.assert_frame_equal(one, two)


def test_trained_rows_are_put_on(tmp_path):
    chosen = {"down": [np.array([1, 4])] * LAYERS, "up": [np.array([2])] * LAYERS}
    tuned = rows.attach(tiny.tiny_model("llama", num_hidden_layers=LAYERS), chosen)
    with torch.no_grad():
        for value in tuned.trained().values():
            value.add_(1.0)
    rows.save(tuned, tmp_path)
    expected = copy.deepcopy(rows.detach(tuned)).state_dict()

    def compute(model):
        return rows.apply(model, tmp_path).state_dict()

    for found in both(compute):
        for name, value in expected.items():
            assert torch.equal(found[name].cpu(), value)


def test_a_prepared_model_is_loaded_onto_both(tmp_path):
    model, tokenizer = tiny.tiny_model("llama", num_hidden_layers=LAYERS), tiny.tiny_tokenizer()
    model.save_pretrained(tmp_path / "weights")
    tokenizer.save_pretrained(tmp_path / "weights")
    source = {"kind": "local", "path": str(tmp_path / "weights")}
    entry = ModelEntry(source=source, dtype="float32")
    prepare_model(entry, tmp_path / "out")
    manifest, tokens = tmp_path / "out" / "manifest.json", torch.tensor([[1, 5, 6, 7]])
    found = [
        load_model(entry, manifest, places)[0](tokens.to("part:0")).logits.cpu()
        for places in (PLACES[:1], PLACES)
    ]
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], model(tokens).logits)


def test_a_plan_is_checked_against_every_layer():
    deep = Plan("deep", [replace(plan().writes[0], layer=LAYERS)])
    with pytest.raises(ValueError, match=f"layer {LAYERS} of a model of {LAYERS}"):
        both(lambda model: applied(LanguageModel(model), deep).__enter__())
