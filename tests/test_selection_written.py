"""Methods that read what neurons write: their weights, and references written out."""

import numpy as np
import pandas as pd
import pytest
from test_selection import as_sets, limbs, mirrored, run
from tiny import HIDDEN, tiny_model, tiny_tokenizer

from langneurons.activations.statistics import Statistics
from langneurons.base.io import DamagedFile
from langneurons.models.prepare import prepare_model
from langneurons.models.settings import ModelEntry
from langneurons.models.sites import MlpSites
from langneurons.models.weights import DownProjections, read_weights, weights_of
from langneurons.selection.method import More
from langneurons.selection.methods.write_score import carriers
from langneurons.selection.run import run_selection

FAMILIES = ("llama", "gemma3_text", "gpt2", "bloom", "opt")
DOWN = {"gpt2": "mlp.c_proj", "bloom": "mlp.dense_4h_to_h", "opt": "fc2"}


@pytest.fixture(params=FAMILIES)
def prepared(request, tmp_path):
    """Return a family, its model, and the manifest of the model on disk."""
    model = tiny_model(request.param)
    model.save_pretrained(tmp_path / "weights")
    tiny_tokenizer().save_pretrained(tmp_path / "weights")
    source = {"kind": "local", "path": str(tmp_path / "weights")}
    prepare_model(ModelEntry.model_validate({"source": source}), tmp_path / "out")
    return request.param, model, tmp_path / "out/manifest.json"


def test_weights_of_files_and_of_memory_are_the_matrices(prepared):
    family, model, manifest = prepared
    sites = MlpSites(model)
    read, own = read_weights(manifest), weights_of(sites)
    assert read.n_layers == own.n_layers == sites.n_layers
    for number, layer in enumerate(sites.layers):
        weight = layer.get_submodule(DOWN.get(family, "mlp.down_proj")).weight.detach().numpy()
        weight = weight.T if family == "gpt2" else weight
        assert weight.shape == (HIDDEN, sites.d_mlp)
        assert np.array_equal(read.layer(number), weight)
        np.testing.assert_allclose(own.layer(number), weight, rtol=0, atol=1e-6)
        norms = np.linalg.norm(weight.astype(np.float64), axis=0)
        np.testing.assert_allclose(read.norms()[number], norms, rtol=1e-12)


def test_weights_that_are_not_there_are_said(tmp_path):
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "weights")
    tiny_tokenizer().save_pretrained(tmp_path / "weights")
    source = {"kind": "local", "path": str(tmp_path / "weights")}
    prepare_model(ModelEntry.model_validate({"source": source}), tmp_path / "out")
    from langneurons.base.io import read_json, write_json

    manifest = read_json(tmp_path / "out/manifest.json")
    manifest["files"] = {}
    write_json(tmp_path / "out/manifest.json", manifest)
    for path in (tmp_path / "out" / manifest["path"]).glob("*.safetensors"):
        path.rename(path.with_suffix(".kept"))
    with pytest.raises(DamagedFile, match=r"hold no layers\.0\.mlp\.down_proj\.weight"):
        read_weights(tmp_path / "out/manifest.json")


def grid(seed: int) -> tuple[dict[str, Statistics], np.ndarray, np.ndarray, DownProjections]:
    """Random means of products and of the stream, and matrices; some neurons and layers silent."""
    rng = np.random.default_rng(seed)
    langs = ["de", "en", "hi", "zh"][: rng.integers(2, 5)]
    n_layers, d_mlp, d_model = rng.integers(1, 4), rng.integers(8, 30), rng.integers(3, 9)
    product = rng.normal(size=(len(langs), n_layers, d_mlp)) * rng.random((n_layers, 1))
    product[:, :, rng.random(d_mlp) < 0.2] = 0.0
    stream = rng.normal(size=(len(langs), n_layers + 1, d_model))
    down = rng.normal(size=(n_layers, d_model, d_mlp)).astype(np.float32)
    statistics = {}
    for number, lang in enumerate(langs):
        tokens = int(rng.integers(50, 500))
        arrays = {
            "product.sum": limbs(product[number] * tokens),
            "residual.sum": limbs(stream[number] * tokens),
        }
        header = {"model": "tiny", "revision": "0", "nonlinearity": "silu", "tokens": tokens}
        header |= {"sites": ["product", "residual"], "histograms": [], "batch_quantiles": []}
        header |= {"n_layers": int(n_layers), "d_mlp": int(d_mlp), "d_model": int(d_model)}
        statistics[lang] = Statistics(arrays, header | {"lang": lang})
    weights = DownProjections([lambda one=one: one for one in down])
    return statistics, product, stream, weights


@pytest.mark.parametrize("direction", ["mlp", "residual"])
@pytest.mark.parametrize("pool", ["layer", "model"])
@pytest.mark.parametrize("seed", range(20))
def test_write_score_equals_the_definition(seed, pool, direction):
    statistics, product, stream, weights = grid(seed)
    selection = {"method": "write_score", "rate": 0.25, "pool": pool, "direction": direction}
    table = run_selection(selection, statistics, more=More(weights))
    n_languages, n_layers, d_mlp = product.shape
    for k, lang in enumerate(statistics):
        others = [i for i in range(n_languages) if i != k]
        parts = np.zeros((n_layers, d_mlp))
        for layer in range(n_layers):
            down = weights.layer(layer).astype(np.float64)
            delta = product[k, layer] - product[others, layer].mean(axis=0)
            d = down @ delta
            if direction == "residual":
                d = stream[k, layer + 1] - stream[others, layer + 1].mean(axis=0)
            for i in range(d_mlp):
                parts[layer, i] = down[:, i] @ d / np.linalg.norm(d) * delta[i]
            if direction == "mlp":
                assert parts[layer].sum() == pytest.approx(np.linalg.norm(d))
                halves = table.metadata["carriers"][lang]["50"][layer]
                ranked = np.sort(parts[layer])[::-1].cumsum()
                assert ranked[halves - 1] >= np.linalg.norm(d) / 2
                assert halves == 1 or ranked[halves - 2] < np.linalg.norm(d) / 2
        own = table.frame[table.frame["lang"] == lang]
        found = np.zeros((n_layers, d_mlp), bool)
        found[own["layer"], own["neuron"]] = True
        groups = [parts[[i]] for i in range(n_layers)] if pool == "layer" else [parts]
        masks = [found[[i]] for i in range(n_layers)] if pool == "layer" else [found]
        for values, mask in zip(groups, masks, strict=True):
            assert mask.sum() == round(0.25 * values.size)
            assert values[mask].min() >= values[~mask].max() - 1e-9
        expected = parts[own["layer"], own["neuron"]]
        np.testing.assert_allclose(own["score"], expected, rtol=1e-6, atol=1e-9)


def test_carriers_of_known_shares():
    share = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.1, 0.1, 0.1], [2.0, -1.0, 0.0, 0.0]])
    assert carriers(share, 0.5) == [1, 5, 1]
    assert carriers(share, 0.9) == [3, 5, 1]


def test_a_method_that_reads_weights_says_when_there_are_none():
    statistics, *_ = grid(0)
    with pytest.raises(ValueError, match="write_score: it reads the model's weights"):
        run_selection({"method": "write_score"}, statistics)


def test_random_neurons_write_about_as_much_and_fire_about_as_often():
    statistics, like = mirrored()
    rng = np.random.default_rng(5)
    size = np.exp(rng.normal(size=(2, 400)))
    weights = DownProjections([lambda one=one: one[None].astype(np.float32) for one in size])
    selection = {"method": "random", "like": "x", "match": "write_norm", "neighbours": 5}
    control = run_selection(selection, statistics, [like], more=More(weights))
    pd.testing.assert_frame_equal(control.layer_counts(), like.layer_counts())
    assert not set().union(*as_sets(like).values()) & set().union(*as_sets(control).values())
    free = run("random", statistics, like, like="x", match="layer")
    gaps = {}
    for name, table in (("matched", control), ("free", free)):
        pairs = []
        for lang in ("de", "en"):
            p = statistics[lang].probability("act")
            odds = np.log(p) - np.log1p(-p)
            for layer in range(2):
                for trait in (np.log(size), odds):
                    of = [np.sort(trait[layer, t.indices(lang)[layer]]) for t in (like, table)]
                    pairs.append(abs(of[0] - of[1]).mean() / trait[layer].std())
        gaps[name] = np.mean(pairs)
    assert gaps["matched"] < 0.25 < gaps["free"]
