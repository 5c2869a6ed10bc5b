"""Attributions against plain autograd and differences; parts, kills, memory; the selection."""

import numpy as np
import pytest
import torch
from test_collect import tiny_corpus
from test_selection import from_values, gates
from tiny import tiny_model

from langneurons.activations.attribution import Attribution, merged
from langneurons.activations.settings import AttributionConfig
from langneurons.activations.statistics import LIMB, Mismatch
from langneurons.base.io import DamagedFile
from langneurons.interventions.plan import Plan, Write
from langneurons.models.language_model import LanguageModel
from langneurons.scoring import attribution as passes
from langneurons.scoring.attribution import attribute
from langneurons.scoring.nll import token_nll
from langneurons.selection.method import More
from langneurons.selection.methods.lape import bar, entropy
from langneurons.selection.run import run_selection

FAMILIES = ("llama", "gemma3_text", "gpt2", "opt", "cohere2")


def by_autograd(model: LanguageModel, part, site: str) -> tuple[np.ndarray, int]:
    """Return the sum of a dL/da, (layers, neurons), from whole logits, one block at a time."""
    total, tokens = np.zeros((model.n_layers, model.d_mlp)), 0
    for row, length, scored in zip(part.tokens, part.lengths, part.scored, strict=True):
        seen, handles = {}, []
        for layer in range(model.n_layers):
            if site == "act":
                module, keep = model.sites.act[layer], lambda _m, _i, output: output
                hook = module.register_forward_hook
            else:
                module, keep = model.sites.down[layer], lambda _m, inputs: inputs[0]
                hook = module.register_forward_pre_hook

            def kept(*given, layer=layer, keep=keep, seen=seen):
                seen[layer] = keep(*given)
                seen[layer].retain_grad()

            handles.append(hook(kept))
        for parameter in model.model.parameters():
            parameter.requires_grad_(True)
        ids = torch.from_numpy(row[None, :length].astype(np.int64))
        logits = model.model(input_ids=ids).logits[0, :-1].float()
        wanted = torch.from_numpy(scored[1:length])
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        losses[wanted].sum().backward()
        tokens += int(wanted.sum())
        for layer, values in seen.items():
            product = values.detach() * values.grad
            total[layer] += product.reshape(-1, model.d_mlp).double().sum(0).numpy()
        for handle in handles:
            handle.remove()
        model.model.zero_grad()
        model.model.requires_grad_(False)
    return total, tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", ["act", "product"])
def test_attributions_are_those_of_plain_autograd(family, site):
    model, corpus = LanguageModel(tiny_model(family)), tiny_corpus()
    found = attribute(model, corpus, AttributionConfig(site=site))
    expected, tokens = by_autograd(model, corpus.identification, site)
    assert found.tokens == tokens > 40
    assert found.mean().shape == (model.n_layers, model.d_mlp)
    np.testing.assert_allclose(found.mean() * tokens, expected, rtol=2e-3, atol=2e-5)
    assert not any(p.requires_grad or p.grad is not None for p in model.model.parameters())


def test_an_attribution_is_the_slope_of_the_loss():
    """Scaling neuron i by 1 - e changes the loss by -e times its attribution, to first order."""
    model, corpus = LanguageModel(tiny_model("llama")), tiny_corpus()
    part = corpus.identification
    found = attribute(model, corpus, AttributionConfig())
    scale = 0.02
    for layer, neuron in ((0, 3), (1, 40)):

        def loss(factor, layer=layer, neuron=neuron):
            write = Write(layer, "product", "scale", np.array([neuron]), np.array([factor]))
            plan = Plan("scaled", [write])
            return np.nansum(token_nll(model, part.tokens, part.lengths, part.scored, 4000, plan))

        slope = (loss(1 - scale) - loss(1 + scale)) / (2 * scale)
        expected = -found.mean()[layer, neuron] * found.tokens
        assert slope == pytest.approx(expected, rel=0.05, abs=2e-3)


def test_parts_merge_to_the_whole_bit_for_bit(tmp_path):
    model, corpus = LanguageModel(tiny_model("llama")), tiny_corpus()
    settings, n_blocks = AttributionConfig(batch_blocks=2), len(corpus.identification.lengths)
    whole = attribute(model, corpus, settings)
    assert n_blocks > 4
    parts = [attribute(model, corpus, settings, blocks=ab) for ab in ((2, n_blocks), (0, 2))]
    together = merged(parts)
    assert np.array_equal(together.sums, whole.sums) and together.header == whole.header
    assert (whole.sums[1] >= 0).all() and (whole.sums[1] < LIMB).all()
    whole.write(tmp_path / "a.safetensors")
    again = Attribution.read(tmp_path / "a.safetensors", lang=corpus.lang)
    assert np.array_equal(again.sums, whole.sums) and again.header == whole.header
    with pytest.raises(Mismatch, match="do not follow each other"):
        merged([parts[0], parts[0]])
    other = Attribution(parts[1].sums, parts[1].header | {"site": "act"})
    with pytest.raises(Mismatch, match="site 'act' and of 'product'|site"):
        merged([parts[0], other])


def test_a_damaged_file_is_said(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(DamagedFile):
        Attribution.read(tmp_path / "a.safetensors")


def test_a_killed_pass_goes_on_to_the_same_sums(tmp_path, monkeypatch):
    model, corpus = LanguageModel(tiny_model("llama")), tiny_corpus()
    settings, path = AttributionConfig(batch_blocks=1), tmp_path / "state.safetensors"
    whole, real, calls = attribute(model, corpus, settings), passes._of_blocks, []

    def dies(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(passes, "_of_blocks", dies)
    with pytest.raises(KeyboardInterrupt):
        attribute(model, corpus, settings, path, checkpoint_seconds=0)
    assert path.exists()
    resumed = attribute(model, corpus, settings, path, checkpoint_seconds=0)
    assert np.array_equal(resumed.sums, whole.sums) and resumed.header == whole.header
    assert len(calls) == 1 + len(corpus.identification.lengths)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    model, corpus = LanguageModel(tiny_model("llama")), tiny_corpus()
    settings, real = AttributionConfig(batch_blocks=4), passes._of_blocks
    expected, sizes = attribute(model, corpus, settings), []

    def small(sites, products, part, rows):
        if len(rows) > 1:
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(len(rows))
        return real(sites, products, part, rows)

    monkeypatch.setattr(passes, "_of_blocks", small)
    found = attribute(model, corpus, settings)
    assert sizes == [1] * len(corpus.identification.lengths)
    np.testing.assert_allclose(found.mean(), expected.mean(), rtol=1e-3, atol=1e-7)


def test_only_the_first_tokens_are_read_if_so_asked():
    model, corpus = LanguageModel(tiny_model("llama")), tiny_corpus()
    some = attribute(model, corpus, AttributionConfig(tokens=40))
    whole = attribute(model, corpus, AttributionConfig())
    assert 0 < some.tokens < whole.tokens and some.header["blocks"][1] < whole.header["blocks"][1]


# ------------------------------------------------------------------------------------- selection


def attributed(lang: str, mean: np.ndarray, statistics) -> Attribution:
    tokens = 1000
    whole = np.floor(mean * tokens)
    sums = np.stack([whole, np.rint((mean * tokens - whole) * LIMB)]).astype(np.int64)
    header = dict(statistics.header) | {"tokens": tokens, "lang": lang}
    return Attribution(sums, header)


@pytest.mark.parametrize("seed", range(20))
def test_the_selection_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    langs = ["de", "en", "fr"]
    statistics = {lang: from_values(lang, gates(lang, 2, 50)) for lang in langs}
    shape = statistics["de"].shape
    means = rng.normal(size=(3, *shape)) * np.exp(rng.normal(size=shape))
    given = {
        lang: attributed(lang, mean, statistics[lang])
        for lang, mean in zip(langs, means, strict=True)
    }
    settings = {"method": "attribution", "rate": 0.2, "filter_level": 0.7, "assign_level": 0.7}
    table = run_selection(settings, statistics, more=More(attributions=given))
    quantity = np.abs(np.stack([given[lang].mean() for lang in langs]))
    cut, ranked = bar(quantity, 0.7), []
    for layer, neuron in np.ndindex(shape):
        own = quantity[:, layer, neuron]
        if (own > cut).any():
            ranked.append((float(entropy(own[:, None])[0]), layer, neuron))
    kept = sorted(ranked)[: round(0.2 * quantity[0].size)]
    expected = {
        (lang, layer, neuron)
        for _, layer, neuron in kept
        for lang, own in zip(langs, quantity, strict=True)
        if own[layer, neuron] > cut
    }
    rows = table.frame[["lang", "layer", "neuron"]].itertuples(index=False)
    assert {tuple(row) for row in rows} == expected and expected


def test_attributions_of_another_model_or_none_are_refused():
    statistics = {lang: from_values(lang, gates(lang, 2, 50)) for lang in ("de", "fr")}
    with pytest.raises(ValueError, match="attribution: it reads the model's attributions"):
        run_selection({"method": "attribution"}, statistics)
    given = {lang: attributed(lang, np.ones(one.shape), one) for lang, one in statistics.items()}
    given["fr"].header["model"] = "another"
    with pytest.raises(Mismatch, match="attributions of fr: model 'another'"):
        run_selection({"method": "attribution"}, statistics, more=More(attributions=given))
