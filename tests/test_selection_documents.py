"""Selection by means per document, against loops over documents and neurons."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError
from test_precision import by_hand
from test_selection import as_sets, header, run

from langneurons.activations.statistics import IDENTITY, LIMB, SCHEMA, Statistics

SHAPE = (2, 15)
SIZE = SHAPE[0] * SHAPE[1]
NUMBERS = {"de": 4, "en": 7, "fr": 5}


def from_documents(lang: str, means: np.ndarray, tokens=None, **values) -> Statistics:
    """Statistics that hold nothing but means per document, (documents, n_layers, d_mlp)."""
    tokens = np.full(len(means), 16) if tokens is None else np.asarray(tokens)
    sums = np.rint(means * tokens[:, None, None] * LIMB).astype(np.int64)
    arrays = {"document_tokens": tokens}
    arrays |= {f"{site}.document_sum": sums for site in ("act", "product")}
    for site in ("act", "product"):
        arrays[f"{site}.positive"] = np.zeros(means.shape[1:], np.int64)
        arrays[f"{site}.extremes"] = np.zeros((means.shape[1], 2, means.shape[2]), np.float32)
        for moment in ("sum", "square", "absolute"):
            arrays[f"{site}.{moment}"] = np.zeros((2, *means.shape[1:]), np.int64)
    names = {"documents": [f"{lang}{i}" for i in range(len(means))], "sites": ["act", "product"]}
    return Statistics(arrays, header(lang, int(tokens.sum()), means.shape[1:]) | names | values)


def means_of(numbers=None, seed: int = 0) -> dict[str, np.ndarray]:
    """Means in steps of 1/16 (exact in the file) with ties, copies, and neurons at zero."""
    rng = np.random.default_rng(seed)
    result = {}
    for k, (lang, number) in enumerate((numbers or NUMBERS).items()):
        own = rng.normal(size=SHAPE) * (1 + k) / 2
        means = np.round((rng.normal(size=(number, *SHAPE)) + own) * 4) / 16
        means[:, 0, 3] = 0.0
        means[:, 1, 4] = means[:, 0, 5]  # a copy
        result[lang] = means
    return result


def statistics_of(means: dict[str, np.ndarray]) -> dict[str, Statistics]:
    return {lang: from_documents(lang, own) for lang, own in means.items()}


def precision_by_hand(means: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Average precision of every neuron, flat, for each language."""
    values = np.concatenate([own.reshape(len(own), -1) for own in means.values()])
    labels = np.repeat(list(means), [len(own) for own in means.values()])
    return {
        lang: np.array([by_hand(column, labels == lang) for column in values.T]) for lang in means
    }


def top_by_hand(scores: np.ndarray, number: int, sign: int) -> set[int]:
    return set(sorted(range(len(scores)), key=lambda j: (sign * round(scores[j], 12), j))[:number])


@pytest.mark.parametrize("side, ends", [("top", [-1]), ("bottom", [1]), ("both", [-1, 1])])
@pytest.mark.parametrize("size", [{"number": 6}, {"rate": 0.2}, {"number": 30}])
def test_average_precision_equals_the_definition(side, ends, size):
    means = means_of()
    expected = precision_by_hand(means)
    table = run("average_precision", statistics_of(means), side=side, **size)
    number = size.get("number") or 6
    for lang, scores in expected.items():
        wanted = set().union(*(top_by_hand(scores, number, sign) for sign in ends))
        assert as_sets(table)[lang] == wanted
    for row in table.frame.itertuples():
        flat = row.layer * SHAPE[1] + row.neuron
        assert row.score == pytest.approx(expected[row.lang][flat], abs=1e-12)


@pytest.mark.parametrize("side", ["top", "bottom"])
def test_average_precision_over_a_threshold(side):
    means = means_of()
    expected = precision_by_hand(means)
    # A value that a neuron has (to the bit) is reached.
    frame = run("average_precision", statistics_of(means), rate=1.0).frame
    level = float(frame.loc[frame["lang"] == "en", "score"].sort_values().iloc[SIZE // 2])
    table = run("average_precision", statistics_of(means), threshold=level, side=side)
    for lang, scores in expected.items():
        passing = scores >= level - 1e-12 if side == "top" else scores <= level + 1e-12
        assert as_sets(table)[lang] == set(np.flatnonzero(passing))
    every = as_sets(table)
    found = as_sets(
        run("average_precision", statistics_of(means), threshold=level, side=side, exclusive=True)
    )
    assert sum(map(len, found.values())) < sum(map(len, every.values()))
    for lang in means:
        others = set().union(*(every[other] for other in means if other != lang))
        assert found[lang] == every[lang] - others


def test_of_equal_neurons_at_the_top_the_first_are_kept():
    """As by a stable sort in falling order whose first entries are taken."""
    means = means_of(seed=3)
    files, scores = statistics_of(means), precision_by_hand(means)
    tied = 0
    for number in range(1, 8):
        found = as_sets(run("average_precision", files, number=number))
        for lang, own in scores.items():
            rounded = np.round(own, 12)
            order = sorted(range(len(own)), key=lambda k: -rounded[k])  # noqa: B023 - stable
            assert found[lang] == set(order[:number])
            tied += rounded[order[number - 1]] == rounded[order[number]]
    assert tied


def test_average_precision_takes_the_size_of_the_largest_language():
    statistics = statistics_of(means_of())
    like = run("document_sign", statistics, share=0.7)
    counts = like.counts()
    assert counts.nunique() > 1
    table = run("average_precision", statistics, like, like="x")
    assert table.counts().to_dict() == dict.fromkeys(NUMBERS, int(counts.max()))
    # Only the languages at hand count, whatever else the table holds.
    small = counts.drop(counts.idxmax()).idxmax()
    rest = {lang: statistics[lang] for lang in NUMBERS if lang != counts.idxmax()}
    assert run("average_precision", rest, like, like="x").counts()[small] == counts[small]


def test_a_perfect_neuron_has_precision_one_and_an_idle_one_the_share_of_its_language():
    means = {lang: np.zeros((4, 1, 3)) for lang in ("a", "b", "c", "d")}
    means["b"][:, 0, 1] = [1, 2, 3, 4]
    frame = run("average_precision", statistics_of(means), rate=1.0).frame
    scores = frame.set_index(["lang", "neuron"])["score"]
    assert scores["b", 1] == 1.0
    assert scores["a", 0] == scores["b", 2] == 0.25
    assert scores["a", 1] == pytest.approx(4 / 16)  # what b leaves: 12 equal ones below four


def test_documents_without_tokens_are_left_out():
    means = means_of()
    padded = {}
    for lang, own in means.items():
        idle = np.full((2, *SHAPE), 100.0)  # would decide everything if it counted
        tokens = [16] * len(own) + [0, 0]
        padded[lang] = from_documents(lang, np.concatenate([own, idle]), tokens)
        assert len(padded[lang].documents) == len(own)
    for method, options in (
        ("average_precision", {"number": 6}),
        ("document_sign", {"share": 0.7}),
        ("plnd", {"rate": 0.3, "share": 0.6}),
    ):
        expected = run(method, statistics_of(means), **options)
        found = run(method, padded, **options)
        assert as_sets(found) == as_sets(expected) and len(expected.frame)
        np.testing.assert_array_equal(found.frame["score"], expected.frame["score"])


def test_a_language_without_documents_is_refused_by_name():
    statistics = statistics_of(means_of())
    statistics["en"] = from_documents("en", np.ones((2, *SHAPE)), [0, 0])
    with pytest.raises(ValueError, match="no document of en has a mean"):
        run("average_precision", statistics, number=3)


def test_sums_per_document_come_back_from_the_file_layer_by_layer(tmp_path):
    own = means_of()["en"]
    missing = {key: "x" for key in IDENTITY if key != "schema"}
    layout = {"n_layers": SHAPE[0], "d_mlp": SHAPE[1], "schema": SCHEMA, "blocks": [0, 1]}
    tokens = [16, 0, 16, 16, 1, 16, 16]
    first = from_documents("en", own, tokens)
    first.header = missing | first.header | layout
    first.write(tmp_path / "en.safetensors")
    back = Statistics.read(tmp_path / "en.safetensors")
    assert back.header == first.header and set(back.arrays) == set(first.arrays)
    for key, array in first.arrays.items():
        assert back.arrays[key].dtype == array.dtype
        np.testing.assert_array_equal(back.arrays[key], array)
    counted = [i for i, number in enumerate(tokens) if number]
    assert back.documents == [f"en{i}" for i in counted]
    np.testing.assert_array_equal(back.document_means("act"), own[counted])
    for one, layer in itertools.product((first, back), range(SHAPE[0])):
        np.testing.assert_array_equal(one.document_means("act", layer), own[counted][:, layer])
    with pytest.raises(ValueError, match=r"site 'gate'; add it to statistics\.document_means"):
        back.document_means("gate")


def test_a_layer_is_read_without_the_others(tmp_path):
    own = means_of()["en"]
    first = from_documents("en", own)
    first.header |= {key: "x" for key in IDENTITY if key not in first.header}
    first.header |= {"schema": SCHEMA, "blocks": [0, 1]}
    first.write(tmp_path / "en.safetensors")
    back = Statistics.read(tmp_path / "en.safetensors")
    seen = []
    read = back.arrays._read
    back.arrays._read = lambda key: seen.append(key) or read(key)
    np.testing.assert_array_equal(back.document_means("product", 1), own[:, 1])
    assert [key for key in seen if "sum" in key] == ["product.document_sum.1"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({}, "none of them"),
        ({"number": 3, "rate": 0.1}, "number and rate"),
        ({"threshold": 0.9, "side": "both"}, "not a threshold"),
        ({"number": 0}, "number"),
    ],
)
def test_average_precision_needs_one_size(wrong, message):
    with pytest.raises(ValidationError, match=message):
        run("average_precision", {}, **wrong)


# ------------------------------------------------------------------------------------ signs, PLND


@pytest.mark.parametrize("share", [1.0, 0.8, 0.5, 0.1])
def test_document_sign_equals_the_definition(share):
    means = means_of() | {"zz": -np.ones((3, *SHAPE))}
    table = run("document_sign", statistics_of(means), share=share)
    for lang, own in means.items():
        flat = own.reshape(len(own), -1)
        expected = {
            j for j in range(SIZE) if sum(v > 0 for v in flat[:, j]) >= share * len(own) - 1e-9
        }
        assert as_sets(table)[lang] == expected
        assert bool(expected) == (lang != "zz")
    assert table.counts()["zz"] == 0 and "zz" in table.languages
    for row in table.frame.itertuples():
        assert row.score == (means[row.lang][:, row.layer, row.neuron] > 0).mean() >= share


def plnd_by_hand(means, rate, share) -> dict[str, set[int]]:
    number, result = round(rate * SHAPE[1]), {}
    for lang, own in means.items():
        counted = np.zeros(SIZE, int)
        for document, layer in itertools.product(own, range(SHAPE[0])):
            size = abs(document[layer])
            bar = sorted(size, reverse=True)[number - 1]
            for j in range(SHAPE[1]):
                counted[layer * SHAPE[1] + j] += bool(size[j] >= bar and size[j] > 0)
        result[lang] = {j for j in range(SIZE) if counted[j] >= share * len(own) - 1e-9}
    return result


@pytest.mark.parametrize("rate, share", [(0.5, 1.0), (0.4, 0.75), (1.0, 1.0)])
def test_plnd_equals_the_definition(rate, share):
    means = means_of(seed=3)
    statistics = statistics_of(means)
    expected = plnd_by_hand(means, rate, share)
    options = {"rate": rate, "share": share}
    assert as_sets(run("plnd", statistics, exclusive=False, **options)) == expected
    only = {
        lang: own - set().union(*(expected[other] for other in expected if other != lang))
        for lang, own in expected.items()
    }
    assert as_sets(run("plnd", statistics, **options)) == only
    assert sum(map(len, expected.values())) > sum(map(len, only.values())) > 0
    # Neuron 3 of layer 0 is zero throughout and never counts, though at rate 1 all are kept.
    assert not any(3 in own for own in expected.values())
