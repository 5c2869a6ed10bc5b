"""Statistics of the residual stream against the hidden states themselves."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from test_collect import (
    Copies,
    Killed,
    assert_same,
    kill_at,
    measure,
    one_thread,  # noqa: F401
    tiny_corpus,
)
from test_config import GOOD
from test_memory import little_memory
from tiny import HIDDEN, tiny_model
from transformers import masking_utils

import langneurons as ln
from langneurons.activations.collect import Collector, _pass, batches_of
from langneurons.activations.merging import merge
from langneurons.activations.settings import StatisticsConfig
from langneurons.activations.statistics import Mismatch, Statistics
from langneurons.base.errors import InputError
from langneurons.base.io import DamagedFile, read_tensors, write_tensors
from langneurons.config import build
from langneurons.jobs.estimates import Sizes
from langneurons.jobs.sizes import known_sizes
from langneurons.jobs.stages.activations import COLLECT
from langneurons.models.sites import MlpSites
from langneurons.sharing.check import described

FIVE = ("llama", "gemma3_text", "xglm", "gpt_neox", "bloom")
FAMILIES = (*FIVE, "gemma2", "gpt2", "olmo2", "opt", "phi")
STREAM = StatisticsConfig(
    sites=("gate", "residual"),
    batch_blocks=2,
    document_means=("residual",),
    max_documents=4,
    residual_outer=(0, 2),
)


def streams_by_hand(model, part) -> list[np.ndarray]:
    """Per block the residual stream of its scored tokens, (tokens, n_layers + 1, d_model)."""
    blocks, seen = MlpSites(model).layers, []

    def keeping(module, first: bool):
        forward = module.forward

        def kept(*given, **named):
            if first:
                seen.append(given[0] if given else named["hidden_states"])
            output = forward(*given, **named)
            seen.append(output[0] if isinstance(output, tuple) else output)
            return output

        module.forward = kept

    for number, module in enumerate(blocks):
        keeping(module, number == 0)
    found = []
    for tokens, length, scored in zip(part.tokens, part.lengths, part.scored, strict=True):
        seen.clear()
        ids = torch.from_numpy(tokens[None, :length].astype(np.int64))
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
        rows = torch.cat(seen)
        assert len(rows) == len(states) == len(blocks) + 1
        for row in range(len(blocks)):  # the last of `states` is behind the final norm
            torch.testing.assert_close(rows[row], states[row][0])
        assert not torch.allclose(rows[-1], states[-1][0])
        found.append(rows.transpose(0, 1)[scored[:length]].double().numpy())
    return found


@pytest.fixture(scope="module")
def whole() -> Statistics:
    return measure(tiny_model("llama"), STREAM)


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_are_those_of_the_hidden_states(family):
    part = tiny_corpus().identification
    found = measure(tiny_model(family), STREAM)
    values = np.concatenate(streams_by_hand(tiny_model(family), part))
    assert found.shape_of("residual") == (3, HIDDEN) and found.header["d_model"] == HIDDEN
    assert found.mean("residual").shape == (3, HIDDEN)
    close = {"rtol": 1e-4, "atol": 1e-4 * abs(values).max()}
    np.testing.assert_allclose(found.mean("residual"), values.mean(0), **close)
    np.testing.assert_allclose(found.abs_mean("residual"), abs(values).mean(0), **close)
    np.testing.assert_allclose(found.std("residual"), values.std(0), **close)
    np.testing.assert_allclose(found.min("residual"), values.min(0), **close)
    np.testing.assert_allclose(found.max("residual"), values.max(0), **close)
    for row in (0, 2):
        own = values[:, row]
        scale = abs(own).max() ** 2
        second = found.second_moment(row)
        assert np.array_equal(second, second.T)
        np.testing.assert_allclose(second, own.T @ own / len(own), atol=1e-4 * scale)
        covariance = np.cov(own.T, ddof=0)
        np.testing.assert_allclose(found.covariance(row), covariance, atol=1e-4 * scale)
        # The diagonal is the sum of squares of the same pass, added up in another way.
        np.testing.assert_allclose(
            np.diag(found.covariance(row)), found.std("residual")[row] ** 2, rtol=1e-9, atol=1e-9
        )


def test_means_per_document_are_those_of_the_hidden_states(whole):
    part = tiny_corpus().identification
    blocks = streams_by_hand(tiny_model("llama"), part)
    owner = np.concatenate(
        [one[:n][s[:n]] for one, n, s in zip(part.document, part.lengths, part.scored, strict=True)]
    )
    values = np.concatenate(blocks)
    means = whole.document_means("residual")
    assert means.shape == (4, 3, HIDDEN)
    for document in range(4):
        by_hand = values[owner == document].mean(0)
        np.testing.assert_allclose(means[document], by_hand, atol=1e-5)
    np.testing.assert_array_equal(whole.document_max("residual"), means.max(0))


def test_other_sites_are_the_same_with_and_without(whole):
    without = measure(tiny_model("llama"), StatisticsConfig(sites=("gate",), batch_blocks=2))
    for key, array in without.arrays.items():
        np.testing.assert_array_equal(array, whole.arrays[key], err_msg=key)
    assert "d_model" not in without.header and "residual_outer" not in without.header


@pytest.mark.parametrize("n_shards", [2, 3, 7])
def test_merged_shards_are_the_single_pass(n_shards, whole, tmp_path):
    model, parts = tiny_model("llama"), []
    for shard in range(n_shards):
        path = tmp_path / f"{shard}.safetensors"
        measure(model, STREAM, shard=shard, n_shards=n_shards).write(path)
        parts.append(Statistics.read(path))
    for order in (parts, parts[::-1]):
        merge(order).write(tmp_path / "merged.safetensors")
        merged = Statistics.read(tmp_path / "merged.safetensors")
        assert_same(merged, whole)
        merged.verify()
        np.testing.assert_array_equal(merged.covariance(2), whole.covariance(2))


def test_the_size_of_batches_does_not_show_beyond_rounding(whole):
    # A pass over other batches multiplies other shapes: hidden states differ in the last bits.
    other = measure(
        tiny_model("llama"), STREAM.model_copy(update={"batch_blocks": 5}), tiny_corpus()
    )
    for row in (0, 2):
        np.testing.assert_allclose(other.second_moment(row), whole.second_moment(row), atol=1e-4)
    # Row 0 is a table's rows: exactly the same, in whatever batches they come.
    np.testing.assert_array_equal(other.second_moment(0), whole.second_moment(0))
    np.testing.assert_array_equal(other.mean("residual")[0], whole.mean("residual")[0])


def test_killed_and_resumed_pass_is_the_undisturbed_one(whole, tmp_path):
    path, done = tmp_path / "checkpoint.safetensors", 0
    for forward in (3, 2):
        model = tiny_model("llama")
        kill_at(model, forward)
        with pytest.raises(Killed):
            measure(model, STREAM, checkpoint=path, checkpoint_seconds=0)
        done += forward - 1
    model = tiny_model("llama")
    calls = kill_at(model, 99)
    resumed = measure(model, STREAM, checkpoint=path, checkpoint_seconds=0)
    batches = len(batches_of(tiny_corpus().identification, STREAM))
    assert calls == [batches - done] and done == 3
    assert_same(resumed, whole)


@pytest.mark.parametrize("site", ["act", "down"])
@pytest.mark.parametrize("most", [12, 20])
def test_halves_after_out_of_memory_are_the_whole(site, most):
    settings = STREAM.model_copy(update={"batch_blocks": 4})
    quiet = measure(tiny_model("llama"), settings)
    model = tiny_model("llama")
    with little_memory(model, most, site) as failures:
        assert_same(measure(model, settings), quiet)
    assert len(failures) > 2


def test_memory_that_ends_within_a_product_adds_no_token_twice(whole, monkeypatch):
    from langneurons.activations import collect as module

    calls, real = [], module.add_outer

    def once(x, counted, limbs):
        calls.append(len(x))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        real(x, counted, limbs)

    monkeypatch.setattr(module, "add_outer", once)
    assert_same(measure(tiny_model("llama"), STREAM), whole)


def test_the_device_is_asked_for_nothing_during_a_pass(monkeypatch):
    """Meta tensors have no values: whatever waited for one, or for a size, would fail."""
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda positions: None)
    copies = []
    for layers in (2, 5):
        sites = MlpSites(tiny_model("llama", num_hidden_layers=layers).to("meta"))
        collector = Collector(sites, STREAM, n_documents=4)
        tokens = torch.zeros(2, 12, dtype=torch.int64, device="meta")
        with torch.inference_mode(), collector, Copies() as seen:
            for _ in range(3):
                mask = torch.ones(2, 12, dtype=torch.bool)
                _pass(collector, tokens, mask, torch.zeros(2, 12, dtype=torch.int64))
        expected = {("residual", row) for row in range(layers + 1)} | {("outer", 0), ("outer", 2)}
        assert collector.added == expected | {("gate", layer) for layer in range(layers)}
        copies.append(seen.number)
    assert copies[0] == copies[1] <= 3 * (3 + 2) + 1  # the places of two blocks' tokens


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_stream_that_is_not_finite_is_found(bad):
    model, corpus = tiny_model("llama"), tiny_corpus()
    corpus.identification.tokens[5, 3] = 99  # occurs nowhere else
    model.model.embed_tokens.weight[99, 7] = bad
    settings = StatisticsConfig(sites=("residual",), histograms=(), batch_blocks=2)
    with pytest.raises(RuntimeError, match="residual of row 0, dimension 7 is not finite"):
        measure(model, settings, corpus)


def test_a_block_that_is_passed_by_is_found():
    model = tiny_model("llama")
    block = model.model.layers[1]
    model.model.layers[1].__class__ = type("Bypassed", (type(block),), {"__call__": _forward_alone})
    with pytest.raises(RuntimeError, match=r"not seen at rows \[2\] of 3"):
        measure(model, STREAM)


def _forward_alone(block, *given, **named):
    return block.forward(*given, **named)


def test_what_a_block_gives_must_be_hidden_states():
    model = tiny_model("llama")
    handle = model.model.layers[0].register_forward_hook(lambda _m, _i, output: [output])
    with pytest.raises(TypeError, match="LlamaDecoderLayer is list of no shape"):
        measure(model, STREAM)
    handle.remove()


def test_settings_and_readers_name_what_is_wrong(whole):
    with pytest.raises(ValueError, match="histograms"):
        StatisticsConfig(sites=("gate", "residual"), histograms=("residual",))
    with pytest.raises(ValueError, match="`residual` is not among sites"):
        StatisticsConfig(residual_outer=(1,))
    with pytest.raises(ValueError, match="-1 is not a row; legal: 0"):
        StatisticsConfig(sites=("residual",), histograms=(), residual_outer=(-1,))
    with pytest.raises(ValueError, match="residual_outer: 1 listed more than once"):
        StatisticsConfig(sites=("residual",), histograms=(), residual_outer=(1, 1))
    with pytest.raises(InputError, match="row 3 is beyond the model of 2 layers; legal: 0"):
        measure(tiny_model("llama"), STREAM.model_copy(update={"residual_outer": (3,)}))
    with pytest.raises(ValueError, match=r"row 1 of the residual stream \(measured: 0, 2\)"):
        whole.covariance(1)
    with pytest.raises(ValueError, match="no histogram is kept of the residual stream"):
        whole.quantile(0.5, "residual")
    plain = measure(tiny_model("llama"), StatisticsConfig(batch_blocks=2))
    for ask in (plain.mean, plain.shape_of):
        with pytest.raises(ValueError, match="'residual' was not measured, only gate, act"):
            ask("residual")
    other = measure(tiny_model("llama"), STREAM.model_copy(update={"residual_outer": (2,)}))
    with pytest.raises(Mismatch, match="disagree on residual_outer"):
        ln.Statistics({"xx": whole, "yy": other})


def _changed(path, change) -> None:
    arrays, header = read_tensors(path)
    change(arrays, header)
    write_tensors(path, arrays, header)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda a, h: h.update(d_model=31), "residual"),
        (lambda a, h: h.pop("residual_outer"), "header lacks residual_outer"),
        (lambda a, h: a.pop("residual.outer.2"), "second moments of"),
        (lambda a, h: a.update({"residual.outer.1": a["residual.outer.2"]}), "second moments of"),
        (lambda a, h: h["packed"].update({"residual.outer.2": [2, 5]}), "residual.outer.2 is miss"),
        (lambda a, h: h.update(residual_outer=[0]), "second moments of"),
    ],
)
def test_a_file_whose_shapes_are_others_is_refused(change, words, whole, tmp_path):
    path = tmp_path / "xx.safetensors"
    whole.write(path)
    _changed(path, change)
    with pytest.raises(DamagedFile, match=words):
        Statistics.read(path)


def test_shared_folders_hold_and_check_it(whole, tmp_path):
    ln.Statistics({"xx": whole}).save(tmp_path / "shared")
    assert "whole" in described(tmp_path / "shared")
    found = ln.Statistics.load(tmp_path / "shared")["xx"]
    np.testing.assert_array_equal(found.covariance(2), whole.covariance(2))
    # A second moment that was changed has another content digest.
    path = tmp_path / "plain.safetensors"
    arrays = whole.arrays | {"residual.outer.2": whole.arrays["residual.outer.2"] + 1}
    changed = Statistics(arrays, whole.header)
    assert changed.digest != whole.digest
    changed.digest = whole.digest
    changed.write(path)
    with pytest.raises(DamagedFile, match="its digest is"):
        described(path)


def test_statistics_of_the_stream_alone_are_shared_too(tmp_path):
    settings = StatisticsConfig(sites=("residual",), histograms=(), batch_blocks=2)
    alone = measure(tiny_model("llama"), settings)
    ln.Statistics({"xx": alone}).save(tmp_path / "shared")
    assert "whole" in described(tmp_path / "shared")
    with pytest.raises(ValueError, match="only the residual stream; add act, gate or product"):
        alone.counted_site  # noqa: B018


def test_the_cost_plan_knows_what_the_stream_takes():
    """What a job asks for grows by what the accumulators hold, and by one product at a time."""
    sites = MlpSites(tiny_model("llama"))
    settings = StatisticsConfig(sites=("residual",), histograms=(), residual_outer=(0, 2))
    collector = Collector(sites, settings)
    kept = collector.accumulators["residual"]
    tensors = [*kept.positive, *kept.limbs, *kept.extremes]
    assert sum(one.nbytes for one in tensors) == 3 * HIDDEN * 64
    assert sum(one.nbytes for one in collector.outer.values()) == 2 * HIDDEN**2 * 16

    def asked(**statistics):
        raw = copy.deepcopy(GOOD)
        hub = {"kind": "hub", "repo": "google/gemma-2-2b-it", "revision": "0" * 40}
        raw["models"]["tiny"]["source"] = hub
        raw["statistics"] = statistics
        sizes = Sizes(build(raw), known_sizes(), Path(), "tiny", 1)
        cell = {"model": "tiny", "lang": "en"}
        return COLLECT.need(sizes), COLLECT.work(sizes, cell)

    three = ["gate", "act", "product"]
    (plain, work), (more, larger) = asked(sites=three), asked(sites=[*three, "residual"])
    grown = (more.gpu - plain.gpu) * 1e9
    assert grown == pytest.approx(27 * 2304 * 64, rel=1e-4)
    assert larger.disk > work.disk and larger.seconds == work.seconds
    outer, _ = asked(sites=[*three, "residual"], residual_outer=[5, 9])
    assert (outer.gpu - more.gpu) * 1e9 == pytest.approx(2304**2 * (2 * 16 + 48), rel=1e-4)
    two, _ = asked(sites=["gate", "act"])
    assert (plain.gpu - two.gpu) * 1e9 == pytest.approx(26 * 9216 * 64, rel=1e-4)
