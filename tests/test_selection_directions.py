"""Directions of the residual stream against references written out."""

import numpy as np
import pytest
from test_selection import limbs
from test_selection_written import grid

from langneurons.activations.statistics import Statistics
from langneurons.base.errors import InputError
from langneurons.reporting.tables.neurons import carrier_counts, direction_cosines
from langneurons.selection.method import More
from langneurons.selection.methods.probe import logistic
from langneurons.selection.methods.random_direction import mirror
from langneurons.selection.run import run_selection
from langneurons.selection.table import NeuronTable

LANGS = ("de", "en", "hi")
N_LAYERS, D_MODEL, D_MLP = 2, 12, 9


def streams(seed: int) -> dict[str, np.ndarray]:
    """Hidden states by language, (documents, tokens, n_layers + 1, d_model)."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(N_LAYERS + 1, D_MODEL, D_MODEL))
    found = {}
    for number, lang in enumerate(LANGS):
        noise = rng.normal(size=(14 + number, 5, N_LAYERS + 1, D_MODEL))
        shift = 2.0 * rng.normal(size=(N_LAYERS + 1, D_MODEL))
        found[lang] = np.einsum("ntld,lde->ntle", noise, mixing) + shift
    return found


def measured(states: dict[str, np.ndarray]) -> dict[str, Statistics]:
    """Return the statistics that a pass over these states leaves."""
    found = {}
    for lang, own in states.items():
        flat = own.reshape(-1, N_LAYERS + 1, D_MODEL)
        arrays = {"residual.sum": limbs(flat.sum(axis=0))}
        arrays["residual.document_sum"] = np.rint(own.sum(axis=1) * 2.0**24).astype(np.int64)
        arrays["document_tokens"] = np.full(len(own), own.shape[1])
        for row in (1, 2):
            second = flat[:, row].T @ flat[:, row]
            arrays[f"residual.outer.{row}"] = limbs(second[np.triu_indices(D_MODEL)])
        header = {"model": "tiny", "revision": "0", "nonlinearity": "silu", "tokens": len(flat)}
        header |= {"sites": ["residual"], "histograms": [], "batch_quantiles": [], "lang": lang}
        header |= {"n_layers": N_LAYERS, "d_mlp": D_MLP, "d_model": D_MODEL}
        header |= {"residual_outer": [1, 2], "documents": [f"d{i}" for i in range(len(own))]}
        found[lang] = Statistics(arrays, header)
    return found


def table(method: str, states: dict[str, np.ndarray], **parameters) -> NeuronTable:
    return run_selection({"method": method, **parameters}, measured(states))


def flat(states: np.ndarray, layer: int) -> np.ndarray:
    return states[:, :, layer + 1].reshape(-1, D_MODEL)


def delta(states: dict[str, np.ndarray], lang: str, layer: int, against=None) -> np.ndarray:
    others = [one for one in states if one != lang] if against is None else [against]
    own = flat(states[lang], layer).mean(axis=0)
    return own - np.mean([flat(states[one], layer).mean(axis=0) for one in others], axis=0)


@pytest.mark.parametrize("seed", range(20))
def test_diffmean_is_the_difference_of_means(seed):
    states = streams(seed)
    for against in (None, "en"):
        found = table("diffmean", states, **({"against": against} if against else {}))
        assert found.units == "dimensions" and found.width == D_MODEL and found.d_mlp == D_MLP
        for lang in LANGS:
            for layer in range(N_LAYERS):
                expected = 0.0 if lang == against else delta(states, lang, layer, against)
                np.testing.assert_allclose(found.values(lang)[layer], expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_diffmean_of_the_mlp_is_what_its_neurons_write(seed):
    statistics, product, _, weights = grid(seed)
    found = run_selection({"method": "diffmean", "of": "mlp"}, statistics, more=More(weights))
    for number, lang in enumerate(statistics):
        others = [i for i in range(len(product)) if i != number]
        for layer in range(product.shape[1]):
            outputs = [weights.layer(layer).astype(np.float64) @ one[layer] for one in product]
            expected = outputs[number] - np.mean([outputs[i] for i in others], axis=0)
            np.testing.assert_allclose(found.values(lang)[layer], expected, atol=1e-8)


@pytest.mark.parametrize("seed", range(20))
def test_sparse_dimensions_are_those_of_the_definition(seed):
    states = streams(seed)
    found = table("sparse_dimensions", states, number=5, against="en", layers=[1, 1])
    assert not (found.frame["lang"] == "en").any() and set(found.frame["layer"]) == {1}
    for lang in ("de", "hi"):
        difference = delta(states, lang, 1, "en")
        kept = sorted(range(D_MODEL), key=lambda i: -abs(difference[i]))[:5]
        assert sorted(found.indices(lang)[1]) == sorted(kept)
        np.testing.assert_allclose(found.values(lang)[1][kept], difference[kept], atol=1e-9)


def line(axis: np.ndarray, difference: np.ndarray) -> np.ndarray:
    return axis * (axis @ difference) / (axis @ axis)


@pytest.mark.parametrize("seed", range(20))
def test_pca_is_the_first_component_of_the_balanced_mixture(seed):
    states = streams(seed)
    found = table("pca", states)
    for lang in LANGS:
        for layer in range(N_LAYERS):
            parts = [flat(states[lang], layer)]
            parts += [flat(states[one], layer) for one in LANGS if one != lang]
            weight = np.concatenate(
                [
                    np.full(len(one), share / len(one))
                    for one, share in zip(parts, (2, 1, 1), strict=True)
                ]
            )
            pooled = np.concatenate(parts)
            covariance = np.cov(pooled.T, aweights=weight, bias=True)
            left, *_ = np.linalg.svd(covariance)
            expected = line(left[:, 0], delta(states, lang, layer))
            np.testing.assert_allclose(found.values(lang)[layer], expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_lda_is_fishers_discriminant(seed):
    states = streams(seed)
    found = table("lda", states, shrinkage=0.2)
    for lang in LANGS:
        for layer in range(N_LAYERS):
            own = np.cov(flat(states[lang], layer).T, bias=True)
            rest = [np.cov(flat(states[k], layer).T, bias=True) for k in LANGS if k != lang]
            pooled = (own + sum(rest) / 2) / 2
            shrunk = 0.8 * pooled + 0.2 * np.eye(D_MODEL) * np.diag(pooled).mean()
            axis = np.linalg.inv(shrunk) @ delta(states, lang, layer)
            expected = line(axis, delta(states, lang, layer))
            np.testing.assert_allclose(found.values(lang)[layer], expected, atol=1e-6)
            # No direction separates better, relative to the shrunk spread.
            best = (axis @ delta(states, lang, layer)) ** 2 / (axis @ shrunk @ axis)
            other = np.random.default_rng(seed).normal(size=(50, D_MODEL))
            ratios = (other @ delta(states, lang, layer)) ** 2
            ratios /= np.einsum("nd,de,ne->n", other, shrunk, other)
            assert (ratios <= best + 1e-9).all()


@pytest.mark.parametrize("seed", range(20))
def test_the_probe_is_at_the_minimum_of_its_loss(seed):
    states = streams(seed)
    found = table("probe", states, penalty=0.05)
    for lang in LANGS[:2]:
        parts = [states[lang][:, :, 1].mean(axis=1)]
        parts += [states[k][:, :, 1].mean(axis=1) for k in LANGS if k != lang]
        inputs = np.concatenate(parts)
        scaled = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
        label = np.arange(len(inputs)) < len(parts[0])
        weight = np.where(label, 0.5 / label.sum(), 0.5 / (~label).sum())
        w, b = np.zeros(D_MODEL), 0.0
        for _ in range(200):  # Newton's method
            p = 1 / (1 + np.exp(-(scaled @ w + b)))
            x = np.column_stack([scaled, np.ones(len(scaled))])
            ridge = 0.05 * np.diag([1.0] * D_MODEL + [0.0])
            gradient = x.T @ (weight * (p - label)) + ridge @ np.append(w, b)
            hessian = x.T @ (x * (weight * p * (1 - p))[:, None]) + ridge
            step = np.linalg.solve(hessian, gradient)
            w, b = w - step[:-1], b - step[-1]
        np.testing.assert_allclose(logistic(scaled, label.astype(float), 0.05), w, atol=2e-3)
        expected = line(w / inputs.std(axis=0), delta(states, lang, 0))
        got = found.values(lang)[0]
        cosine = got @ expected / np.linalg.norm(got) / np.linalg.norm(expected)
        assert cosine > 0.9999 and np.linalg.norm(got - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("seed", range(5))
def test_random_directions_are_as_long_and_as_many(seed):
    states = streams(seed)
    statistics = measured(states)
    for like in (table("diffmean", states), table("sparse_dimensions", states, number=4)):
        parameters = {"method": "random_direction", "like": "x", "seed": seed}
        control = run_selection(parameters, statistics, [like])
        again = run_selection(parameters, statistics, [like])
        assert control.frame.equals(again.frame) and control.units == "dimensions"
        other = run_selection(parameters | {"seed": seed + 1}, statistics, [like])
        assert not control.frame.equals(other.frame)
        for lang in LANGS:
            length = np.linalg.norm(like.values(lang), axis=1)
            np.testing.assert_allclose(np.linalg.norm(control.values(lang), axis=1), length)
            counts = (like.values(lang) != 0).sum(axis=1)
            assert ((control.values(lang) != 0).sum(axis=1) == counts).all()
        if len(like.frame) < len(LANGS) * N_LAYERS * D_MODEL:
            both = (control.values("de") != 0) & (like.values("de") != 0)
            assert not both.any()


def test_random_directions_point_everywhere():
    rng, direction = np.random.default_rng(0), np.full(6, 2.0)
    drawn = np.stack([mirror(direction, rng) for _ in range(4000)])
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), np.linalg.norm(direction))
    np.testing.assert_allclose(drawn.mean(axis=0), 0.0, atol=0.15)
    np.testing.assert_allclose(np.cov(drawn.T), np.eye(6) * 4.0, atol=0.35)


def test_what_cannot_be_is_said():
    states = streams(0)
    with pytest.raises(ValueError, match="diffmean.against: .*'fr'.*others, de, en, hi"):
        table("diffmean", states, against="fr")
    with pytest.raises(InputError, match=r"layers: \[1, 5\]: layer 2 cannot be; legal: 0, 1"):
        table("diffmean", states, layers=[1, 5])
    with pytest.raises(InputError, match="number: 13 of a residual stream of 12"):
        table("sparse_dimensions", states, number=13)
    statistics = measured(states)
    for one in statistics.values():
        one.header["residual_outer"] = [0]
    with pytest.raises(InputError, match="lda: no second moments after a layer"):
        run_selection({"method": "lda"}, statistics)


def test_the_table_of_directions_holds_cosines_and_lengths():
    states = streams(0)
    found = table("diffmean", states, against="en")
    rows = direction_cosines([({"selection": "diff"}, found)])
    assert list(zip(rows["lang"], rows["other"], strict=True)) == [
        ("de", "en"),
        ("de", "hi"),
        ("en", "hi"),
    ]
    assert rows["layers"].tolist() == [0, N_LAYERS, 0] and np.isnan(rows["cosine"][0])
    one, other = found.values("de"), found.values("hi")
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(one, other, strict=True)
    ]
    assert rows["cosine"][1] == pytest.approx(np.mean(cosines))
    assert rows["length"][1] == pytest.approx(np.linalg.norm(one, axis=1).mean())


def test_the_table_of_carriers_holds_median_least_and_most():
    statistics, _, _, weights = grid(1)
    found = run_selection({"method": "write_score"}, statistics, more=More(weights))
    rows = carrier_counts([({"selection": "write"}, found)])
    for row in rows.to_dict("records"):
        counts = found.metadata["carriers"][row["lang"]]["90"]
        assert row["carry_90"] == np.median(counts)
        assert (row["carry_90_least"], row["carry_90_most"]) == (min(counts), max(counts))
