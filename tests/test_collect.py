"""The collecting pass against a forward pass written out by hand; shards, checkpoints, padding."""

import itertools
from functools import partial

import numba
import numpy as np
import pytest
import torch
from tiny import FAMILIES, VOCAB_SIZE, tiny_model
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import masking_utils

from langneurons.activations import histogram as bins
from langneurons.activations.collect import (
    Collector,
    _pass,
    batches_of,
    collect,
    shard_batches,
    slices_of,
)
from langneurons.activations.merging import joined, merge
from langneurons.activations.settings import StatisticsConfig
from langneurons.activations.statistics import Mismatch, Statistics
from langneurons.data.corpus import Corpus, Part
from langneurons.models.language_model import LanguageModel
from langneurons.models.nonlinearities import NONLINEARITIES, nonlinearity_name
from langneurons.models.sites import MlpSites

IDENTITY = {"model": "tiny", "revision": "0", "dtype": "float32", "quantization": None}
SITES = ("gate", "act", "product")
EVERYTHING = StatisticsConfig(
    batch_blocks=2,
    histograms=("gate", "product"),
    batch_quantiles=(0.5, 0.9),
    document_means=("act",),
    max_documents=4,
)
gelu_tanh = partial(functional.gelu, approximate="tanh")
# The MLP of layer i, its first projections (gate, up) and its nonlinearity.
BY_HAND = {
    "llama": ("model.layers.{}.mlp", "gate_proj", "up_proj", functional.silu),
    "gemma3": ("model.language_model.layers.{}.mlp", "gate_proj", "up_proj", gelu_tanh),
    "gpt2": ("transformer.h.{}.mlp", "c_fc", None, gelu_tanh),
    "bloom": ("transformer.h.{}.mlp", "dense_h_to_4h", None, gelu_tanh),
    "opt": ("model.decoder.layers.{}", "fc1", None, functional.relu),
}


def tiny_corpus(n_blocks: int = 9, block_size: int = 12, padding: int = 0) -> Corpus:
    """Blocks of different lengths; BOS and one token inside do not count."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, block_size + 1, n_blocks).astype(np.int32)
    lengths[3] = block_size
    inside = np.arange(block_size) < lengths[:, None]
    tokens = rng.integers(4, VOCAB_SIZE - 1, (n_blocks, block_size)).astype(np.int32)
    fillers = rng.integers(0, VOCAB_SIZE - 1, tokens.shape) if padding < 0 else padding
    tokens = np.where(inside, tokens, fillers).astype(np.int32)
    tokens[:, 0] = 1
    scored = inside.copy()
    scored[:, [0, 2]] = False
    document = np.arange(tokens.size).reshape(tokens.shape) // 20
    names = [f"d{i}" for i in range(document.max() + 1)]
    part = Part(tokens, lengths, document.astype(np.int32), scored, names, [9] * len(names))
    header = {"lang": "xx", "tokenizer_hash": "t", "corpus_hash": "c", "bos": "block"}
    return Corpus("xx", part, part, header)


def measure(model, settings=EVERYTHING, corpus=None, **arguments) -> Statistics:
    lm = LanguageModel(model, identity=IDENTITY)
    return collect(lm, corpus or tiny_corpus(), settings, **arguments)


def forward_by_hand(family: str, model, part: Part) -> list[dict[str, np.ndarray]]:
    """Per block, each site of its scored tokens: (tokens, n_layers, d_mlp). One block at a time."""
    mlp, gate, up, nonlinearity = BY_HAND[family]
    blocks = []
    for tokens, length, scored in zip(part.tokens, part.lengths, part.scored, strict=True):
        layers = []
        for i in range(2):
            seen = {}
            module = model.get_submodule(mlp.format(i))
            for name in filter(None, (gate, up)):
                module.get_submodule(name).register_forward_hook(
                    lambda _m, _i, output, seen=seen, name=name: seen.update({name: output})
                )
            layers.append(seen)
        model(input_ids=torch.from_numpy(tokens[None, :length].astype(np.int64)))
        sites = {site: [] for site in SITES}
        for seen in layers:
            act = nonlinearity(seen[gate])
            product = act * seen[up] if up else act
            for site, values in zip(SITES, (seen[gate], act, product), strict=True):
                sites[site].append(values.reshape(length, -1)[scored[:length]])
        blocks.append({site: torch.stack(v, dim=1).numpy() for site, v in sites.items()})
    return blocks


def stacked(blocks: list[dict], site: str) -> np.ndarray:
    return np.concatenate([block[site] for block in blocks]).astype(np.float64)


def quantile_and_bound(values: np.ndarray, q: float) -> tuple[np.ndarray, np.ndarray]:
    """numpy's quantile along axis 0, and the larger bin width of its two order statistics."""
    ordered, rank = np.sort(values, axis=0), q * (len(values) - 1)
    widths = bins.bin_width(ordered[[int(np.floor(rank)), int(np.ceil(rank))]])
    return np.quantile(values, q, axis=0), widths.max(axis=0) + 1e-5


def assert_same(one: Statistics, other: Statistics) -> None:
    assert one.header == other.header
    assert one.arrays.keys() == other.arrays.keys()
    for key, array in one.arrays.items():
        assert array.dtype == other.arrays[key].dtype
        np.testing.assert_array_equal(array, other.arrays[key], err_msg=key)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Idle threads of torch and of numba spin against each other; the work here needs no second."""
    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    numba.set_num_threads(before[1])


@pytest.fixture(scope="module")
def single() -> Statistics:
    return measure(tiny_model("llama"))


@pytest.mark.parametrize("family", BY_HAND)
def test_statistics_equal_a_hand_written_forward(family):
    corpus = tiny_corpus()
    found = measure(tiny_model(family), corpus=corpus)
    blocks = forward_by_hand(family, tiny_model(family), corpus.identification)
    assert found.tokens == corpus.identification.scored.sum() == len(stacked(blocks, "gate"))
    close = {"rtol": 1e-4, "atol": 1e-5}
    for site in SITES:
        values = stacked(blocks, site)
        np.testing.assert_array_equal(found.positive(site), (values > 0).sum(axis=0))
        np.testing.assert_allclose(found.probability(site), (values > 0).mean(axis=0))
        np.testing.assert_allclose(found.mean(site), values.mean(axis=0), **close)
        np.testing.assert_allclose(found.abs_mean(site), abs(values).mean(axis=0), **close)
        np.testing.assert_allclose(found.std(site), values.std(axis=0), **close)
        np.testing.assert_allclose(found.min(site), values.min(axis=0), **close)
        np.testing.assert_allclose(found.max(site), values.max(axis=0), **close)
    for site, name in itertools.product(("gate", "product"), ("p05", "p50", "p90")):
        expected, bound = quantile_and_bound(stacked(blocks, site), int(name[1:]) / 100)
        assert (abs(found.value(name, site) - expected) <= bound).all()
    layers = stacked(blocks, "gate").swapaxes(0, 1).reshape(2, -1)
    for by_layer, values in ((True, layers.T), (False, layers.reshape(-1, 1))):
        expected, bound = quantile_and_bound(values, 0.9)
        pooled = found.pooled_quantile(0.9, "gate", by_layer=by_layer)[:, 0]
        assert (abs(pooled - expected) <= bound).all()


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_activation_quantiles_follow_from_the_gate(family):
    corpus = tiny_corpus()
    found = measure(tiny_model(family), corpus=corpus)
    blocks = forward_by_hand(family, tiny_model(family), corpus.identification)
    gate, act = stacked(blocks, "gate"), stacked(blocks, "act")
    expected = np.quantile(act, 0.95, axis=0)
    # Where the nonlinearity rises: a gate's bin, and the bin that its image falls into.
    rising = np.sort(gate, axis=0)[int(0.95 * (len(gate) - 1))] > 0.1
    source, target = (quantile_and_bound(values, 0.95)[1] for values in (gate, act))
    error = abs(found.quantile(0.95, "act") - expected)
    assert rising.mean() > 0.5 and (error <= 1.2 * source + target)[rising].all()
    share = (act > 0).mean(axis=0)
    if family != "opt":  # ReLU puts a mass on the edge 0 itself.
        np.testing.assert_allclose(found.exceedance(0.0, "act"), share, atol=1e-9)


def test_batch_quantiles_and_document_means_by_hand(single):
    part = tiny_corpus().identification
    blocks = forward_by_hand("llama", tiny_model("llama"), part)
    batches = [stacked(blocks[i : i + 2], "gate") for i in range(0, len(blocks), 2)]
    assert single.header["batches"] == len(batches) == 5
    for q in EVERYTHING.batch_quantiles:
        pairs = [quantile_and_bound(values, q) for values in batches]
        expected, bound = np.mean(pairs, axis=0)
        assert (abs(single.batch_quantile(q) - expected) <= bound).all()
    act, owner = stacked(blocks, "act"), part.document[part.scored]
    assert single.documents == ["d0", "d1", "d2", "d3"] and owner.max() > 3
    for number, means in enumerate(single.document_means("act")):
        expected = act[owner == number].mean(axis=0)
        np.testing.assert_allclose(means, expected, rtol=1e-4, atol=1e-5)
    kept = np.stack([act[owner == number].mean(axis=0) for number in range(4)])
    found = np.stack([single.document_means(layer=layer) for layer in range(2)], axis=1)
    np.testing.assert_array_equal(found, single.document_means("act"))
    lower = np.sort(kept, axis=0)[1]  # of four
    np.testing.assert_allclose(single.document_max(), kept.max(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(single.document_median(), lower, rtol=1e-4, atol=1e-5)


def test_documents_without_a_token_are_no_documents(single):
    few = Statistics(single.arrays, single.header)
    few.arrays["document_tokens"] = single.arrays["document_tokens"] * [1, 0, 1, 1]
    others = np.delete(single.document_means("act"), 1, axis=0)
    np.testing.assert_array_equal(few.value("document_max"), others.max(axis=0))
    np.testing.assert_array_equal(few.value("document_median"), np.median(others, axis=0))


@pytest.mark.parametrize("family", FAMILIES)
def test_named_nonlinearity_is_the_module_of_the_model(family):
    sites = MlpSites(tiny_model(family))
    x = torch.linspace(-9, 9, 400)
    expected = NONLINEARITIES[nonlinearity_name(sites.config)](x.numpy())
    np.testing.assert_allclose(sites.act[0](x).numpy(), expected, atol=1e-5)


def test_size_of_batches_does_not_matter(single):
    for batch_blocks in (1, 4, 100):
        other = measure(tiny_model("llama"), StatisticsConfig(batch_blocks=batch_blocks))
        assert other.tokens == single.tokens
        for site in SITES:
            np.testing.assert_array_equal(other.positive(site), single.positive(site))
            for name in ("mean", "std", "min", "max"):
                np.testing.assert_allclose(
                    other.value(name, site), single.value(name, site), rtol=1e-4, atol=1e-5
                )
        moved = abs(other.histogram("gate") - single.histogram("gate")).sum()
        assert moved <= 1e-3 * single.histogram("gate").sum()


def test_short_blocks_are_read_with_blocks_of_their_length():
    corpus, settings = tiny_corpus(40), StatisticsConfig(batch_blocks=4)
    part = corpus.identification
    groups = batches_of(part, settings)
    assert sorted(np.concatenate(groups).tolist()) == list(range(40))
    widths = [len(group) * int(part.lengths[group].max()) for group in groups]
    assert max(widths) <= 4 * 12  # as many tokens as four full blocks
    assert sum(widths) < 1.15 * part.lengths.sum() < 40 * 12
    read = []
    model = tiny_model("llama")
    model.model.register_forward_pre_hook(
        lambda _m, _a, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    together = measure(model, settings, corpus)
    assert read == widths
    parts = [measure(model, settings, corpus, shard=i, n_shards=3) for i in range(3)]
    assert_same(merge([parts[2], parts[0], parts[1]]), together)
    documents = StatisticsConfig(batch_blocks=4, document_means=("act",), max_documents=9)
    one_by_one = measure(model, documents.model_copy(update={"batch_blocks": 1}), corpus)
    np.testing.assert_allclose(
        measure(model, documents, corpus).document_means("act"),
        one_by_one.document_means("act"),
        atol=1e-5,
    )


@pytest.mark.parametrize("n_slices", [4, 8])
def test_slices_of_documents_follow_the_order_of_the_text(n_slices):
    settings = StatisticsConfig(batch_blocks=2, slices=n_slices)
    corpus = tiny_corpus(40)
    part = corpus.identification
    found = slices_of(part, settings)
    size = 40 // n_slices
    for number, one in enumerate(found):
        own = sorted(np.concatenate(one).tolist())
        assert own == list(range(number * size, (number + 1) * size))
        longest = [int(part.lengths[batch].max()) for batch in one]
        assert longest == sorted(longest, reverse=True)
    model = tiny_model("llama")
    slices = [measure(model, settings, corpus, shard=i, n_shards=n_slices) for i in range(n_slices)]
    for number, one in enumerate(slices):
        assert one.header["blocks"] == [number * size, (number + 1) * size]
        assert one.tokens == part.scored[number * size : (number + 1) * size].sum()
    whole = measure(model, settings, corpus)
    assert_same(merge(slices), whole)
    halves = [measure(model, settings, corpus, shard=i, n_shards=2) for i in range(2)]
    assert_same(joined(slices[: n_slices // 2]), halves[0])
    assert_same(merge(halves), whole)


def test_full_blocks_and_batches_with_quantiles_keep_the_order_of_the_corpus():
    part = tiny_corpus(5).identification
    consecutive = [[0, 1], [2, 3], [4]]
    paper = batches_of(part, StatisticsConfig(batch_blocks=2, batch_quantiles=(0.5,)))
    assert [group.tolist() for group in paper] == consecutive
    part.lengths[:] = 12
    part.lengths[4] = 7  # what is left at the end
    assert [
        one.tolist() for one in batches_of(part, StatisticsConfig(batch_blocks=2))
    ] == consecutive


def test_contents_of_the_padding_do_not_matter(single):
    random, plain = tiny_corpus(padding=-1), tiny_corpus()
    assert (random.identification.tokens != plain.identification.tokens).any()
    assert_same(measure(tiny_model("llama"), corpus=random), single)


def test_head_is_not_called_and_hooks_are_removed():
    model = tiny_model("llama")
    called = []
    model.lm_head.register_forward_hook(lambda *_: called.append(1))
    measure(model)
    assert not called
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in model.model.modules()
    )


class Copies(TorchDispatchMode):
    """Counts the tensors that come from the host."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._to_copy.default:
            self.number += args[0].device.type == "cpu" and result.device.type != "cpu"
        return result


@pytest.mark.parametrize(
    "settings", [StatisticsConfig(), EVERYTHING], ids=["default", "everything"]
)
def test_the_device_is_asked_for_nothing_during_a_pass(settings, monkeypatch):
    """Meta tensors have no values: whatever waited for one, or for a size, would fail."""
    # transformers itself asks once per pass whether the positions start afresh within a row.
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda positions: None)
    copies = []
    for layers in (2, 5):
        sites = MlpSites(tiny_model("llama", num_hidden_layers=layers).to("meta"))
        collector = Collector(sites, settings, n_documents=4)
        tokens = torch.zeros(2, 12, dtype=torch.int64, device="meta")
        mask = torch.ones(2, 12, dtype=torch.bool)
        with torch.inference_mode(), collector, Copies() as seen:
            for _ in range(3):
                _pass(collector, tokens, mask, torch.zeros(2, 12, dtype=torch.int64))
        assert collector.added == {(site, k) for site in settings.sites for k in range(layers)}
        copies.append(seen.number)
    assert copies[0] == copies[1] <= 3 * 3 + 1


def test_shards_share_out_the_batches():
    for n_batches, n_shards in itertools.product((1, 5, 8), (1, 3, 7)):
        parts = [shard_batches(n_batches, i, n_shards) for i in range(n_shards)]
        assert list(itertools.chain(*parts)) == list(range(n_batches))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ValueError, match="shard 3"):
        shard_batches(8, 3, 3)


# With 7 shards of 5 batches some have nothing to do.
@pytest.mark.parametrize("n_shards", [1, 2, 3, 7])
def test_merged_shards_are_the_single_pass_in_any_order(n_shards, single, tmp_path):
    model = tiny_model("llama")
    parts = []
    for shard in range(n_shards):
        path = tmp_path / f"{shard}.safetensors"
        measure(model, shard=shard, n_shards=n_shards).write(path)
        parts.append(Statistics.read(path))
    orders = list(itertools.permutations(parts))
    for order in orders[:: 1 + len(orders) // 10]:
        merge(order).write(tmp_path / "merged.safetensors")
        assert_same(Statistics.read(tmp_path / "merged.safetensors"), single)


def test_merge_refuses_gaps_doubles_and_strangers():
    model = tiny_model("llama")
    parts = [measure(model, shard=i, n_shards=3) for i in range(3)]
    for wrong in (parts[:2], parts[1:], [parts[0], parts[2]], [*parts, parts[1]]):
        with pytest.raises(Mismatch, match="blocks"):
            merge(wrong)
    parts[1].header["revision"] = "1"
    with pytest.raises(Mismatch, match="revision"):
        merge(parts)


class Killed(Exception):
    pass


def kill_at(model, forward: int) -> list[int]:
    """Raise in the last layer of the given forward pass; return the running count."""
    calls = [0]

    def hook(*_):
        calls[0] += 1
        if calls[0] == forward:
            raise Killed

    model.model.layers[1].mlp.down_proj.register_forward_hook(hook)
    return calls


@pytest.mark.parametrize("shard, n_shards", [(0, 1), (1, 2)])
def test_killed_and_resumed_pass_is_the_undisturbed_one(shard, n_shards, tmp_path):
    where = {"shard": shard, "n_shards": n_shards}
    batches = len(shard_batches(5, shard, n_shards))
    path = tmp_path / "checkpoint.safetensors"
    done = 0
    for forward in (3, 1, 2):
        model = tiny_model("llama")
        calls = kill_at(model, forward)
        if done + forward > batches:
            break
        with pytest.raises(Killed):
            measure(model, checkpoint=path, checkpoint_seconds=0, **where)
        assert calls == [forward]
        done += forward - 1
        assert path.exists() == (done > 0)
    model = tiny_model("llama")
    calls = kill_at(model, 99)
    resumed = measure(model, checkpoint=path, checkpoint_seconds=0, **where)
    assert calls == [batches - done] and done >= 2
    assert_same(resumed, measure(tiny_model("llama"), **where))


def test_no_checkpoint_before_its_time(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    measure(tiny_model("llama"), checkpoint=path, checkpoint_seconds=600)
    assert not path.exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_token_that_is_not_finite_is_found(bad):
    model, corpus, plain = tiny_model("llama"), tiny_corpus(), StatisticsConfig(batch_blocks=2)
    corpus.identification.tokens[5, 3] = 99  # occurs nowhere else
    model.model.embed_tokens.weight[99] = bad
    with pytest.raises(RuntimeError, match="xx: gate of layer 0, neuron 0 is not finite"):
        measure(model, plain, corpus)


def test_an_mlp_that_goes_past_its_nonlinearity_is_found():
    model = tiny_model("llama")
    model.model.layers[1].mlp.forward = lambda x: x
    with pytest.raises(RuntimeError, match="1 of 2 layer hooks fired"):
        measure(model)


def test_settings_name_what_is_wrong():
    with pytest.raises(ValueError, match="gates"):
        StatisticsConfig(sites=("gates",))
    with pytest.raises(ValueError, match=r"histograms: \['product'\]"):
        StatisticsConfig(sites=("gate",), histograms=("product",))


def test_table_6_cells_are_means_over_neurons_with_their_bounds(single):
    from langneurons.reporting.published import own_statistics

    cells = own_statistics([("m", single)]).set_index("metric")
    by_hand = forward_by_hand("llama", tiny_model("llama"), tiny_corpus().identification)
    values = stacked(by_hand, "gate")
    assert cells.loc["mean", "ours"] == pytest.approx(values.mean(), abs=1e-5)
    for name, q in (("p05", 0.05), ("p90", 0.9)):
        row = cells.loc[name]
        exact = np.quantile(values, q, axis=0).mean()
        assert row["low"] <= exact <= row["high"]
        assert row["low"] < row["ours"] < row["high"]
    averaged = own_statistics([("m", single)], "paper").set_index("metric")
    assert averaged.loc["p90", "ours"] == pytest.approx(single.batch_quantile(0.9).mean())
    assert np.isnan(averaged.loc["p90", "low"])
