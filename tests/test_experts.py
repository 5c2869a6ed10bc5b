"""Mixtures of experts: neurons of experts, what plans write there, and what is refused."""

import copy
import dataclasses
import json
import math
import types

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny import D_MLP, HIDDEN, tiny_config, tiny_model, tiny_tokenizer

import langneurons as ln
from langneurons.activations.collect import Collector, collect
from langneurons.activations.merging import merge
from langneurons.activations.settings import StatisticsConfig
from langneurons.activations.statistics import IDENTITY, Statistics
from langneurons.api.statistics import corpus_of
from langneurons.base.io import DamagedFile
from langneurons.interventions.apply import applied
from langneurons.interventions.hooks import NoEffect
from langneurons.interventions.plan import PerRequest, Plan, Write
from langneurons.models import geometry
from langneurons.models.encoding import Prompt
from langneurons.models.experts import Down, own_forward
from langneurons.models.families import family_for
from langneurons.models.gguf import check_gguf
from langneurons.models.language_model import LanguageModel
from langneurons.models.load import load_model
from langneurons.models.prepare import prepare_model
from langneurons.models.settings import ModelEntry
from langneurons.models.weights import DownProjections, read_weights, weights_of
from langneurons.reporting.tables.experts import expert_rows
from langneurons.scoring.canary import CanaryError, check_model
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.engine import Engine
from langneurons.scoring.generation import generate
from langneurons.selection.experts import whole_experts
from langneurons.selection.method import More
from langneurons.selection.methods import METHODS
from langneurons.selection.run import selected
from langneurons.training import lora, neuron_weights

E, K, OWN = 6, 2, D_MLP // 6
IDS = torch.arange(24).reshape(3, 8) * 7 % 90 + 5


@pytest.fixture(scope="module")
def model():
    return LanguageModel(tiny_model("qwen3_moe"), tiny_tokenizer())


def by_hand(mlp, x, change=None):
    """Return gate, act, product (tokens, E d) and output of a layer, token by token in float64.

    change(site, values, expert) may replace the values of an expert that a token is routed to.
    """
    change = change or (lambda _site, values, _expert: values)
    weights = [one.double() for one in (mlp.gate.weight, mlp.experts.gate_up_proj)]
    down = mlp.experts.down_proj.double()
    found = {name: torch.zeros(len(x), D_MLP).double() for name in ("gate", "act", "product")}
    output = torch.zeros(len(x), HIDDEN).double()
    routes = []
    for t, token in enumerate(x.double()):
        chance = torch.softmax(weights[0] @ token, 0)
        best = chance.topk(K).indices.tolist()
        routes.append({e: float(chance[e] / chance[best].sum()) for e in best})
        for e, share in routes[-1].items():
            own = slice(e * OWN, (e + 1) * OWN)
            both = weights[1][e] @ token
            gate = change("gate", both[:OWN], e)
            act = change("act", gate * torch.sigmoid(gate), e)
            product = change("product", act * both[OWN:], e)
            for name, values in (("gate", gate), ("act", act), ("product", product)):
                found[name][t, own] = values
            output[t] += share * (down[e] @ product)
    return found, output, routes


def seen_by(model, run):
    """Return the input of each layer's MLP, its sites, and its output."""
    seen = [{} for _ in range(model.n_layers)]
    handles = []
    for layer, found in zip(model.sites.layers, seen, strict=True):

        def block(_m, given, output, found=found):
            found |= {"x": given[0].flatten(0, 1), "output": output.flatten(0, 1)}

        def act(_m, given, output, found=found):
            found |= {"gate": given[0], "act": output}

        def down(_m, given, found=found):
            found |= {"product": given[0]}

        handles.append(layer.mlp.register_forward_hook(block))
        handles.append(layer.mlp.experts.act_fn.register_forward_hook(act))
        handles.append(layer.mlp.experts.down.register_forward_pre_hook(down))
    with torch.inference_mode():
        run()
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_the_readable_form_gives_the_logits_of_transformers(implementation):
    plain = tiny_model("qwen3_moe")
    plain.set_experts_implementation(implementation)
    with torch.inference_mode():
        expected = plain(input_ids=IDS).logits
    names = list(plain.state_dict())
    model = LanguageModel(plain)
    with torch.inference_mode():
        found = plain(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert list(plain.state_dict()) == names
    assert (model.d_mlp, model.sites.d_model, model.sites.n_experts) == (D_MLP, HIDDEN, E)


def test_a_layer_that_nothing_watches_gives_the_same_bits(model):
    with torch.inference_mode():
        plain = model.model(input_ids=IDS).logits
    kept = []
    seen_by(model, lambda: kept.append(model.model(input_ids=IDS).logits))
    assert torch.equal(kept[0], plain)
    handle = model.sites.act[0].register_forward_hook(lambda _m, _i, output: output * 0)
    with torch.inference_mode():
        assert not torch.equal(model.model(input_ids=IDS).logits, plain)
    handle.remove()


def test_sites_equal_a_layer_written_by_hand(model):
    seen = seen_by(model, lambda: model.model(input_ids=IDS))
    for layer, found in enumerate(seen):
        values, output, routes = by_hand(model.sites.layers[layer].mlp, found["x"])
        for name in ("gate", "act", "product"):
            torch.testing.assert_close(found[name].double(), values[name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["output"].double(), output, rtol=1e-4, atol=1e-5)
        routed = np.zeros((24, E), bool)
        for t, own in enumerate(routes):
            routed[t, list(own)] = True
        unrouted = np.repeat(~routed, OWN, axis=1)
        for name in ("gate", "act", "product"):
            assert not found[name].numpy()[unrouted].any()
            assert found[name].numpy()[~unrouted].all()


WRITES = [
    ("gate", "set", 0.0),
    ("gate", "set", 0.7),
    ("act", "set", 0.5),
    ("act", "scale", 3.0),
    ("product", "set", -0.4),
    ("product", "add", 0.3),
]


@pytest.mark.parametrize("site, operation, value", WRITES)
def test_what_is_written_reaches_tokens_of_that_expert_only(model, site, operation, value):
    index = np.arange(1, D_MLP, 3)
    plan = Plan("own", [Write(1, site, operation, index, np.full(len(index), value))])

    def changed(place, values, expert):
        if place != site:
            return values
        own = torch.from_numpy(index[index // OWN == expert] % OWN)
        values = values.clone()
        if operation == "set":
            values[own] = value
        else:
            values[own] = values[own] + value if operation == "add" else values[own] * value
        return values

    with applied(model, plan):
        seen = seen_by(model, lambda: model.model(input_ids=IDS))
    found = seen[1]
    _, output, _ = by_hand(model.sites.layers[1].mlp, found["x"], changed)
    torch.testing.assert_close(found["output"].double(), output, rtol=1e-4, atol=1e-5)


def test_neurons_of_experts_without_a_token_change_nothing(model):
    seen = seen_by(model, lambda: model.model(input_ids=IDS[:1, :2]))[0]
    _, _, routes = by_hand(model.sites.layers[0].mlp, seen["x"])
    free = next(e for e in range(E) if not any(e in own for own in routes))
    index = np.arange(free * OWN, (free + 1) * OWN)
    writes = [Write(0, site, "set", index, np.full(OWN, 5.0)) for site in ("act", "product")]
    every = Write(1, "act", "scale", np.arange(D_MLP), np.full(D_MLP, 2.0))
    far, near = Plan("far", writes), Plan("near", [every])
    with torch.inference_mode():
        before = model.model(input_ids=IDS[:1, :2]).logits
        with pytest.raises(NoEffect), applied(model, far):
            assert torch.equal(before, model.model(input_ids=IDS[:1, :2]).logits)
    asked = [Prompt(tuple(IDS[0, :2].tolist()), 0)]
    each = PerRequest([near, far], [0, 1])
    for name, under in (("padded", [near, far]), ("padded", each), ("continuous", each)):
        prompts = asked * (2 if isinstance(under, PerRequest) else 1)
        with pytest.raises(NoEffect, match="'far'.*of an expert that no token is routed to"):
            generate(model, prompts, Decoding(1), 64, under, engine=Engine(name))


def test_rows_follow_their_own_plans(model):
    plans = [
        Plan("a", [Write(0, "act", "scale", np.arange(0, D_MLP, 2), np.full(24, 2.0))]),
        None,
        Plan("b", [Write(1, "product", "set", np.arange(D_MLP), np.zeros(D_MLP))]),
    ]
    prompts = ["w1 w2 w3", "w4 w5 w6 w7", "w8 w9"]
    together = ln.generate(model, prompts, max_new_tokens=4, under=PerRequest(plans, [0, 1, 2]))
    several = ln.generate(model, prompts, max_new_tokens=4, under=plans)
    for number, (prompt, plan) in enumerate(zip(prompts, plans, strict=True)):
        alone = ln.generate(model, [prompt], max_new_tokens=4, under=plan)
        assert alone[0] == together[number] == several[number][number]


# The canary ---------------------------------------------------------------------------------------


def test_the_canary_passes_in_half_precision_and_after_a_copy():
    check_model(LanguageModel(tiny_model("qwen3_moe").to(torch.bfloat16)))
    first = LanguageModel(tiny_model("qwen3_moe"))
    other = LanguageModel(copy.deepcopy(first.model))
    assert other.sites.down[0].weight is not first.sites.down[0].weight
    check_model(other)


def of_transformers(experts):
    experts.forward = types.MethodType(own_forward, experts)


def unweighted(experts):
    experts.down.forward = lambda product, routed: Down.forward(
        experts.down, product, dataclasses.replace(routed, weight=routed.weight**0)
    )


def of_other_weights(experts):
    experts.down = Down(copy.deepcopy(experts))
    experts.down.weight.data.mul_(1.1)


@pytest.mark.parametrize("fault", [of_transformers, unweighted, of_other_weights])
def test_the_canary_fails_where_experts_are_not_read(fault):
    model = LanguageModel(tiny_model("qwen3_moe"))
    fault(model.sites.experts[1])
    with pytest.raises(CanaryError):
        check_model(model)


# Statistics of the routers ------------------------------------------------------------------------

FEW = StatisticsConfig(sites=("act",), histograms=(), batch_blocks=3)


@pytest.fixture(scope="module")
def corpus(model):
    draw = np.random.default_rng(3)
    texts = [" ".join(f"w{n}" for n in draw.integers(0, 90, size)) for size in (40, 25, 60, 33)]
    return corpus_of(model, "aa", texts, 16)


@pytest.fixture(scope="module")
def measured(model, corpus):
    return collect(model, corpus, FEW)


def test_tokens_and_weights_of_experts_are_those_counted_by_hand(model, corpus, measured):
    part = corpus.identification
    counts, weights = np.zeros((2, E), np.int64), np.zeros((2, E))
    for tokens, scored in zip(part.tokens, part.scored, strict=True):
        ids = torch.from_numpy(tokens[None].astype(np.int64))
        seen = seen_by(model, lambda ids=ids: model.model(input_ids=ids))
        for layer, found in enumerate(seen):
            _, _, routes = by_hand(model.sites.layers[layer].mlp, found["x"])
            for place in np.flatnonzero(scored):
                for expert, share in routes[place].items():
                    counts[layer, expert] += 1
                    weights[layer, expert] += share
    assert measured.n_experts == E and 0 < measured.tokens < part.tokens.size
    assert np.array_equal(measured.expert_tokens(), counts)
    assert measured.expert_tokens().sum() == 2 * K * measured.tokens
    assert np.array_equal(measured.expert_frequency(), counts / measured.tokens)
    assert np.allclose(measured.expert_weight(), weights / measured.tokens, rtol=0, atol=1e-6)
    active = measured.positive("act").reshape(2, E, OWN)
    assert (active <= counts[:, :, None]).all() and active.max() > 0


def test_router_counts_do_not_depend_on_shards_batches_or_kills(model, corpus, measured):
    shards = [collect(model, corpus, FEW, number, 2) for number in range(2)]
    # The first pass of a process may run in fewer threads than later ones.
    assert merge(reversed(shards)).digest == collect(model, corpus, FEW).digest
    alone = collect(model, corpus, FEW.model_copy(update={"batch_blocks": 1}))
    assert np.array_equal(alone.expert_tokens(), measured.expert_tokens())
    assert np.allclose(alone.expert_weight(), measured.expert_weight(), rtol=0, atol=1e-7)
    collector = Collector(model.sites, FEW)
    collector.restore({key: measured.arrays[key] for key in measured.arrays})
    assert np.array_equal(collector.arrays()["experts.tokens"], measured.expert_tokens())


def test_files_hold_the_router_statistics_and_damage_is_seen(measured, tmp_path):
    path = tmp_path / "aa.safetensors"
    measured.write(path)
    again = Statistics.read(path)
    assert np.array_equal(again.expert_weight(), measured.expert_weight())
    again.verify()
    arrays = dict(measured.arrays)
    arrays["experts.tokens"] = arrays["experts.tokens"] + np.eye(2, E, dtype=np.int64)
    Statistics(arrays, measured.header).write(path)
    with pytest.raises(DamagedFile, match="does not route each of"):
        Statistics.read(path)
    del arrays["experts.tokens"]
    Statistics(arrays, measured.header).write(path)
    with pytest.raises(DamagedFile, match="of its experts it holds"):
        Statistics.read(path)


def test_dense_models_have_no_experts(corpus):
    dense = collect(LanguageModel(tiny_model("llama"), tiny_tokenizer()), corpus, FEW)
    assert dense.n_experts == 0 and "n_experts" not in dense.header
    with pytest.raises(ValueError, match="not a mixture of experts"):
        dense.expert_frequency()


# Refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{"mlp_only_layers": [1]}, {"decoder_sparse_step": 2}, {"num_experts": 0}]
)
def test_models_with_dense_layers_are_refused(change):
    with pytest.raises(ValueError, match=rf"{next(iter(change))}.*another number of neurons"):
        family_for("qwen3_moe", tiny_config("qwen3_moe", **change))


def test_other_mixtures_name_the_one_that_is_read():
    with pytest.raises(ValueError, match="'mixtral' .*the only such family .* qwen3_moe"):
        family_for("mixtral")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights")
    LanguageModel(whole := tiny_model("qwen3_moe"))
    whole.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared")
    return prepare_model(entry_of(folder), path), path / "manifest.json"


def entry_of(folder, **more):
    source = {"kind": "local", "path": str(folder)}
    return ModelEntry.model_validate({"source": source, "dtype": "float32"} | more)


def test_a_saved_model_is_the_hubs_and_loads_again(folder, prepared, model):
    with safe_open(folder / "model.safetensors", "pt") as opened:
        assert "model.layers.0.mlp.experts.5.down_proj.weight" in opened.keys()
    manifest, path = prepared
    assert (manifest["model_type"], manifest["d_mlp"]) == ("qwen3_moe", D_MLP)
    again = LanguageModel(load_model(entry_of(folder), path, "cpu")[0])
    with torch.inference_mode():
        expected = model.model(input_ids=IDS).logits
        torch.testing.assert_close(again.model(input_ids=IDS).logits, expected, rtol=0, atol=1e-6)
    read, held = read_weights(path), weights_of(again.sites)
    for layer in range(2):
        parts = model.sites.layers[layer].mlp.experts.down_proj
        flat = torch.cat(list(parts), dim=1).numpy()
        assert np.array_equal(read.layer(layer), flat) and np.allclose(held.layer(layer), flat)


def test_four_bit_weights_are_refused(folder, prepared):
    with pytest.raises(ValueError, match="mixture of experts, and bitsandbytes packs linear"):
        load_model(entry_of(folder, quantization="nf4", dtype="bfloat16"), prepared[1], "cpu")


def test_training_of_experts_is_refused_and_of_attention_is_not():
    chosen = {"up": [np.array([1])] * 2}
    for attach in (
        lambda: neuron_weights.attach(tiny_model("qwen3_moe"), chosen),
        lambda: lora.attach(tiny_model("qwen3_moe"), ["q_proj"], chosen),
    ):
        with pytest.raises(ValueError, match="two tensors, not in linear layers.*LoRA on q_proj"):
            attach()
    check_model(LanguageModel(lora.attach(tiny_model("qwen3_moe"), ["q_proj"]).eval()))


@pytest.mark.parametrize("to", ["lora", "gguf-lora", "nnsight"])
def test_exports_that_name_modules_are_refused(model, to, tmp_path):
    zero = Plan("zero", [Write(0, "act", "set", np.arange(OWN), np.zeros(OWN))])
    with pytest.raises(ValueError, match="mixture of experts: .* names modules .* with hooks"):
        ln.export(model, {"aa": zero}, tmp_path, to)
    assert not list(tmp_path.iterdir())


def test_a_gguf_file_of_experts_is_refused(tmp_path):
    path = tmp_path / "moe.gguf"
    writer = gguf.GGUFWriter(path, "qwen3moe")
    writer.add_expert_count(8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ValueError, match="mixture of experts in a GGUF file"):
        check_gguf(path)


def test_the_size_counts_every_expert_and_the_work_those_of_a_token(folder, model):
    size = geometry.from_config(json.loads((folder / "config.json").read_text()))
    norms = sum(p.numel() for name, p in model.model.named_parameters() if "norm" in name)
    whole = sum(p.numel() for p in model.model.parameters())
    assert (size.intermediate, size.experts) == (D_MLP, E)
    assert size.parameters == whole - norms
    assert size.passed == size.parameters - 2 * 3 * HIDDEN * OWN * (E - K)
    dense = geometry.from_config(tiny_config("llama").to_dict())
    assert dense.passed == dense.parameters and not dense.experts


# Language-specific experts ------------------------------------------------------------------------


def counted(lang, tokens, counts):
    """Return statistics of which only the tokens of experts (layers, E) are of interest."""
    zeros = np.zeros((len(counts), D_MLP), np.int64)
    arrays = {"act.positive": zeros, "experts.tokens": counts, "experts.weight": counts}
    header = dict.fromkeys((*IDENTITY, "corpus_hash"), "x") | {"lang": lang, "tokens": tokens}
    header |= {"n_layers": len(counts), "d_mlp": D_MLP, "n_experts": E, "experts_per_token": K}
    return Statistics(arrays, header | {"sites": ["act"], "blocks": [0, 1], "schema": 2})


@pytest.fixture(scope="module")
def of_languages():
    draw = np.random.default_rng(0)
    counts = {lang: draw.integers(1, 400, (4, E)) for lang in ("aa", "bb", "cc")}
    counts["aa"][1, 2], counts["bb"][1, 2], counts["cc"][1, 2] = 900, 1, 1
    counts["aa"][3, 5], counts["bb"][3, 5], counts["cc"][3, 5] = 2, 950, 940
    return {lang: counted(lang, 1000, own) for lang, own in counts.items()}


def test_experts_are_those_of_lape_written_by_hand(of_languages):
    rate, level = 0.3, 0.6
    method = METHODS["experts"](method="experts", rate=rate, filter_level=level, assign_level=level)
    frequency = {lang: one.expert_tokens() / 1000 for lang, one in of_languages.items()}
    every = sorted(float(f[p]) for f in frequency.values() for p in np.ndindex(4, E))
    threshold = every[round(level * len(every)) - 1]
    entropies = {}
    for place in np.ndindex(4, E):
        own = [float(one[place]) for one in frequency.values()]
        if max(own) > threshold:
            shares = [one / sum(own) for one in own]
            entropies[place] = -sum(share * math.log(share) for share in shares)
    kept = sorted(entropies, key=entropies.get)[: round(rate * 4 * E)]
    expected = {
        (lang, layer, expert * OWN + r, expert)
        for lang, one in frequency.items()
        for layer, expert in kept
        if one[layer, expert] > threshold
        for r in range(OWN)
    }
    table = selected(method, of_languages, {})
    frame = table.frame
    assert {(r.lang, r.layer, r.neuron, r.expert) for r in frame.itertuples()} == expected
    assert {("aa", 1, 2), ("bb", 3, 5), ("cc", 3, 5)} <= {
        (r.lang, r.layer, r.expert) for r in frame.itertuples()
    }
    for row in frame.itertuples():
        assert np.isclose(row.score, entropies[row.layer, row.expert])
        assert row.frequency == frequency[row.lang][row.layer, row.expert]
    assert table.metadata["n_experts"] == E


def test_a_selection_without_an_expert_has_a_table_with_columns(of_languages):
    table = selected(METHODS["experts"](method="experts", rate=0.001), of_languages, {})
    assert not len(table.frame)
    rows = expert_rows([({"model": "m"}, table)], {("m", x): of_languages[x] for x in of_languages})
    assert not len(rows) and list(rows)[:3] == ["model", "lang", "layer"]


def test_a_control_that_cannot_be_drawn_counts_experts(of_languages):
    asked = {"method": "experts", "rate": 1.0, "filter_level": 0.01, "assign_level": 0.01}
    like = selected(METHODS["experts"](**asked), of_languages, {})
    for match, where in (("none", "the model"), ("layer", "layer 0")):
        said = rf"{where}: \d+ experts of aa to mirror, but only 0 are not selected themselves"
        control = METHODS["random"](method="random", like="own", match=match)
        with pytest.raises(ValueError, match=said):
            selected(control, of_languages, {"own": like})


@pytest.mark.parametrize("match", ["none", "layer", "frequency", "write_norm"])
def test_the_control_of_experts_is_whole_experts(of_languages, match):
    asked = {"method": "experts", "rate": 0.2, "filter_level": 0.5, "assign_level": 0.6}
    like = selected(METHODS["experts"](**asked), of_languages, {})
    nearest = {"neighbours": 1} if match in ("frequency", "write_norm") else {}
    control = METHODS["random"](method="random", like="own", match=match, **nearest)
    matrices = np.random.default_rng(1).normal(0, 1, (4, 3, D_MLP))
    weights = DownProjections([lambda n=n: matrices[n] for n in range(4)])
    table = selected(control, of_languages, {"own": like}, More(weights=weights))
    experts = whole_experts(table, E)
    taken = {(r.layer, r.neuron) for r in like.frame.itertuples()}
    assert not taken & {(r.layer, r.neuron) for r in table.frame.itertuples()}
    mirrored = whole_experts(like, E)
    assert experts.counts().equals(mirrored.counts()) and experts.counts().sum() > 3
    if match != "none":
        assert experts.layer_counts().equals(mirrored.layer_counts())
    sizes = np.sqrt(np.square(matrices).sum(1).reshape(4, E, OWN).sum(2))
    for lang, one in of_languages.items() if nearest else ():
        frequency = one.expert_frequency()
        traits = np.stack([np.log(frequency * 1000 + 0.5), np.log(sizes)])
        traits[0] -= np.log(1000 * (1 - frequency) + 0.5)
        traits /= traits.std(axis=2, keepdims=True)
        if match == "frequency":
            traits = frequency[None]
        for layer, (own, drawn) in enumerate(
            zip(mirrored.indices(lang), experts.indices(lang), strict=True)
        ):
            if len(own) == 1:
                free = [e for e in range(E) if (layer, e * OWN) not in taken]
                apart = {
                    e: np.linalg.norm(traits[:, layer, e] - traits[:, layer, own[0]]) for e in free
                }
                assert drawn[0] == min(apart, key=apart.get)
    neurons = like.frame.iloc[1:].reset_index(drop=True)
    assert whole_experts(type(like)(neurons, like.metadata), E) is None
