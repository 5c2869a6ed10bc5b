"""Contexts of neurons against a search over all activations; batches, parts, kills; text pieces."""

import numpy as np
import pytest
import torch
from test_collect import tiny_corpus
from test_encoding import byte_level
from tiny import tiny_model, tiny_tokenizer
from torch import nn

from langneurons.activations import contexts
from langneurons.activations.contexts import Strongest, Wanted, merge, pieces_of, strongest, texts
from langneurons.data.corpus import Corpus, Part
from langneurons.evaluation import neurons as single
from langneurons.models.language_model import LanguageModel

CHOSEN = [np.array([0, 5, 47]), np.array([3, 4, 5, 30])]
K, REACH = 3, 4


def activations(model: LanguageModel, part: Part, site: str) -> np.ndarray:
    """Return every chosen activation, one block at a time: (block, place, neuron), NaN at pads."""
    found = np.full((*part.tokens.shape, sum(map(len, CHOSEN))), np.nan, np.float32)
    for block, length in enumerate(part.lengths):
        seen, handles = {}, []
        for layer in range(2):
            down, act = model.sites.down[layer], model.sites.act[layer]
            if site == "act":
                handle = act.register_forward_hook(
                    lambda _m, _i, output, at=layer, seen=seen: seen.__setitem__(at, output)
                )
            else:
                handle = down.register_forward_pre_hook(
                    lambda _m, inputs, at=layer, seen=seen: seen.__setitem__(at, inputs[0])
                )
            handles.append(handle)
        with torch.inference_mode():
            tokens = torch.from_numpy(part.tokens[block : block + 1, :length].astype(np.int64))
            model.model(input_ids=tokens)
        for handle in handles:
            handle.remove()
        columns = [seen[layer].reshape(length, -1)[:, CHOSEN[layer]] for layer in range(2)]
        found[block, :length] = torch.cat(columns, 1).numpy()
    return found


def by_hand(model: LanguageModel, part: Part, site: str) -> list[list[tuple]]:
    """Return per neuron the K documents: value, flat position, document; by plain sorting."""
    values = activations(model, part, site)
    size = part.tokens.shape[1]
    found = []
    for neuron in range(values.shape[2]):
        best: dict[int, tuple] = {}
        for block, place in zip(*np.nonzero(part.scored), strict=True):
            document, value = int(part.document[block, place]), values[block, place, neuron]
            at = block * size + place
            if document >= 0 and value > 0:
                best.setdefault(document, (-np.inf, 0))
                if value > best[document][0]:
                    best[document] = (value, at)
        ranked = sorted(((v, at, d) for d, (v, at) in best.items()), key=lambda x: (-x[0], x[1]))
        found.append(ranked[:K])
    return found


def search(model, corpus=None, chosen=CHOSEN, site="act", **more) -> Strongest:
    given = {"batch_tokens": 30, **more}
    return strongest(model, corpus or tiny_corpus(), chosen, Wanted(K, REACH, site), **given)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "opt"])
@pytest.mark.parametrize("site", ["act", "product"])
def test_contexts_are_those_of_a_search_over_everything(family, site):
    model, corpus = LanguageModel(tiny_model(family)), tiny_corpus()
    found, expected = search(model, corpus, site=site), by_hand(model, corpus.identification, site)
    values = activations(model, corpus.identification, site)
    size = corpus.identification.tokens.shape[1]
    for row, ranked in enumerate(expected):
        n = len(ranked)
        assert found.document[row, :n].tolist() == [document for _, _, document in ranked]
        assert found.position[row, :n].tolist() == [at for _, at, _ in ranked]
        np.testing.assert_allclose(found.value[row, :n], [v for v, _, _ in ranked], rtol=1e-5)
        assert (found.position[row, n:] == -1).all() and (found.value[row, n:] == 0).all()
        for rank, (_, at, document) in enumerate(ranked):
            block, place = divmod(at, size)
            for offset in range(-REACH, REACH + 1):
                got, where = found.around[row, rank, offset + REACH], place + offset
                inside = 0 <= where < corpus.identification.lengths[block]
                if inside and corpus.identification.document[block, where] == document:
                    np.testing.assert_allclose(got, values[block, where, row], rtol=1e-4, atol=1e-6)
                else:
                    assert np.isnan(got)
    assert any(len(ranked) == K for ranked in expected)


def equal(first: Strongest, second: Strongest) -> None:
    for name in ("layer", "neuron", "position", "document"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ("value", "around"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 12, 1000])
def test_batches_change_nothing(batch_tokens):
    model = LanguageModel(tiny_model("llama"))
    equal(search(model), search(model, batch_tokens=batch_tokens))


def test_chunks_of_a_batch_change_nothing(monkeypatch):
    model = LanguageModel(tiny_model("llama"))
    whole = search(model)
    monkeypatch.setattr(contexts, "CELLS", 20)
    equal(whole, search(model))


def part_of(corpus: Corpus, blocks: slice) -> Corpus:
    """Return a corpus of which only some blocks are scored."""
    part = corpus.identification
    scored = np.zeros_like(part.scored)
    scored[blocks] = part.scored[blocks]
    only = Part(
        part.tokens, part.lengths, part.document, scored, part.documents, part.document_bytes
    )
    return Corpus(corpus.lang, only, only, corpus.header)


def test_parts_of_a_corpus_merge_to_the_whole():
    model, corpus = LanguageModel(tiny_model("llama")), tiny_corpus()
    parts = [search(model, part_of(corpus, one)) for one in (slice(4), slice(4, 6), slice(6, None))]
    whole = search(model, corpus)
    equal(whole, merge(parts))
    equal(whole, merge(parts[::-1]))


def test_contexts_of_other_neurons_do_not_merge():
    model = LanguageModel(tiny_model("llama"))
    other = search(model, chosen=[np.array([1]), np.array([2])])
    with pytest.raises(ValueError, match="other neurons"):
        merge([search(model), other])


class Killed(Exception):
    pass


def test_a_killed_pass_goes_on(tmp_path, monkeypatch):
    model, state = LanguageModel(tiny_model("llama")), tmp_path / "state.safetensors"
    whole, update, calls = search(model), contexts._update, []

    def counting(*given):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        update(*given)

    monkeypatch.setattr(contexts, "_update", counting)
    with pytest.raises(Killed):
        search(model, checkpoint=(state, 0.0))
    assert state.exists()
    before = len(calls)
    equal(whole, search(model, checkpoint=(state, 0.0)))
    calls_alone = len(calls) - before
    calls.clear()
    calls.extend([1, 1, 1])  # past the kill
    search(model)
    assert calls_alone == len(calls) - 3 - 2  # two batches came from the state


def test_memory_that_runs_out_halves_the_batch(monkeypatch):
    model = LanguageModel(tiny_model("llama"))
    whole, forward = search(model), type(model.sites.backbone).forward

    def small(self, input_ids=None, **given):
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, input_ids=input_ids, **given)

    monkeypatch.setattr(type(model.sites.backbone), "forward", small)
    equal(whole, search(model))


def test_a_hook_that_does_not_fire_is_an_error(monkeypatch):
    model = LanguageModel(tiny_model("llama"))
    monkeypatch.setattr(type(model.sites.layers[1]), "forward", lambda self, hidden, **_: hidden)
    with pytest.raises(RuntimeError, match="no hook fired in layers"):
        search(model)


def test_numbers_that_are_not_finite_are_an_error():
    model = tiny_model("llama")
    model.model.layers[0].mlp.gate_proj.weight[5] = torch.inf
    with pytest.raises(RuntimeError, match="not finite"):
        search(LanguageModel(model))


def test_no_neuron_needs_no_pass(monkeypatch):
    model = LanguageModel(tiny_model("llama"))
    monkeypatch.setattr(type(model.sites.backbone), "forward", None)
    none = [np.array([], np.int64)] * 2
    assert search(model, chosen=none).value.shape == (0, K)


# Text ------------------------------------------------------------------------------------------


class Bytes:
    """A tokenizer of single bytes: most characters take several tokens."""

    def decode(self, ids, **_):
        return bytes(ids).decode("utf-8", errors="replace")


def test_characters_of_several_tokens_are_one_piece():
    text = "é語a"
    ids = list(text.encode())
    strength = np.arange(len(ids), dtype=np.float32)
    pieces, strengths, peak = pieces_of(ids, strength, 3, Bytes())
    assert pieces == ["é", "語", "a"] and peak == 1
    assert strengths == [1.0, 4.0, 5.0]


def test_a_character_cut_off_at_the_end_is_shown_as_such():
    ids = list("a語".encode())[:-1]
    pieces, _, peak = pieces_of(ids, np.ones(3, np.float32), 2, Bytes())
    assert "".join(pieces).startswith("a") and len(pieces) == 2 and peak == 1


@pytest.mark.parametrize("text", ["Ünïcode 語文 😀 of\nall  kinds, हिन्दी और اردو.", " a b", "x"])
def test_pieces_add_up_to_the_text(text):
    for tokenizer in (byte_level(), Bytes()):
        ids = list(text.encode()) if isinstance(tokenizer, Bytes) else tokenizer(text)["input_ids"]
        pieces, strengths, _ = pieces_of(ids, np.arange(len(ids), dtype=np.float32), 0, tokenizer)
        assert "".join(pieces) == tokenizer.decode(ids) and all(pieces)
        assert strengths == sorted(strengths) and strengths[-1] == len(ids) - 1


def test_texts_hold_the_words_around_the_peak():
    model, corpus = LanguageModel(tiny_model("llama"), tiny_tokenizer()), tiny_corpus()
    found = search(model, corpus)
    frame = texts(found, corpus, model.tokenizer, words=2)
    assert len(frame) == int((found.position >= 0).sum())
    part = corpus.identification
    for row in frame.itertuples():
        token = int(part.tokens[row.block, row.place])
        assert row.pieces[row.peak].strip() == model.tokenizer.decode([token])
        np.testing.assert_allclose(row.strengths[row.peak], row.value, rtol=1e-6)
        assert len(row.pieces) == len(row.strengths)
        assert row.peak <= 2 and len(row.pieces) - row.peak - 1 <= 2
        assert row.document == part.documents[part.document[row.block, row.place]]


# What a neuron writes --------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "bloom", "opt", "olmo2"])
def test_columns_are_those_of_the_weights(family):
    model = LanguageModel(tiny_model(family))
    for layer in range(2):
        down = model.sites.down[layer]
        weight = down.weight if not isinstance(down, nn.Linear) else down.weight.T
        expected = weight[CHOSEN[layer]].clone()
        post = getattr(model.sites.layers[layer], single.POST_NORM, None)
        if post is not None:
            one = family == "gemma3"  # stored as the gain less one
            expected *= post.weight + one
        got = single.columns(model.sites, layer, CHOSEN[layer])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_written_tokens_are_those_of_the_logits(family):
    model = LanguageModel(tiny_model(family), tiny_tokenizer())
    languages = np.full(model.vocabulary, -1)
    languages[10:20], languages[20:23] = 0, 1
    frame = single.written_tokens(model, CHOSEN, languages, ["aa", "bb"], 4)
    norm = single.final_norm(model.sites)
    known = len(model.tokenizer)
    special = sorted(set(model.tokenizer.all_special_ids))
    for layer in range(2):
        for row, neuron in enumerate(CHOSEN[layer]):
            stream = single.columns(model.sites, layer, CHOSEN[layer])[row]
            if isinstance(norm, nn.LayerNorm):
                scaled = (stream - stream.mean()) * norm.weight
            else:
                scaled = stream * (norm.weight + (family == "gemma3"))
            logits = (model.head.weight @ scaled)[:known]
            z = ((logits - logits.mean()) / logits.std()).numpy()
            own = frame[(frame["layer"] == layer) & (frame["neuron"] == neuron)]
            free = [token for token in range(known) if token not in special]
            for group, ids in (
                ("raised", sorted(free, key=lambda t: -z[t])[:4]),
                ("lowered", sorted(free, key=lambda t: z[t])[:4]),
                ("aa", sorted(range(10, 20), key=lambda t: -z[t])[:5]),
                ("bb", sorted(range(20, 23), key=lambda t: -z[t])),
            ):
                listed = own[own["group"] == group].sort_values("rank")
                assert listed["token"].tolist() == [model.tokenizer.decode([t]) for t in ids]
                np.testing.assert_allclose(listed["z"], z[ids], rtol=1e-3, atol=1e-4)


def test_zeroing_writes_one_neuron():
    plan = single.zeroing(1, 30)
    assert plan.neurons == 1 and plan.writes[0].layer == 1 and plan.writes[0].index.tolist() == [30]
