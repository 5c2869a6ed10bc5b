"""Neuron tables: counting, round trips, and the counts of published masks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from langneurons.activations.statistics import Statistics
from langneurons.base.io import DamagedFile, write_parquet
from langneurons.cli import main
from langneurons.reporting.masks import read_counts
from langneurons.selection.methods.lape import Lape
from langneurons.selection.table import NeuronTable

FOLDER = Path(__file__).parent.parent / "config/published"
MASKS = pd.read_csv(FOLDER / "masks.csv").set_index("mask").to_dict("index")
COUNTS = read_counts(FOLDER, {k: f"masks_{k}.csv" for k in ("layers", "shared", "multiplicity")})
# language: {layer: neurons}; xx has none.
NEURONS = {"en": {0: [3, 5], 2: [0]}, "xx": {}, "de": {0: [5], 1: [7, 1], 2: [0]}}


def frame_of(neurons: dict[str, dict[int, list[int]]]) -> pd.DataFrame:
    rows = [
        (lang, layer, neuron, layer + neuron / 10)
        for lang, layers in neurons.items()
        for layer, chosen in layers.items()
        for neuron in chosen
    ]
    frame = pd.DataFrame(rows, columns=["lang", "layer", "neuron", "score"])
    return frame.astype({"layer": "int32", "neuron": "int32"})


def example(**metadata) -> NeuronTable:
    own = {"languages": list(NEURONS), "n_layers": 3, "d_mlp": 8, "method": "by hand"}
    return NeuronTable(frame_of(NEURONS).sample(frac=1, random_state=0), own | metadata)


def test_indices_and_masks():
    table = example()
    assert [layer.tolist() for layer in table.indices("de")] == [[5], [1, 7], [0]]
    assert [layer.tolist() for layer in table.indices("xx")] == [[], [], []]
    assert all(layer.dtype == np.int64 for lang in NEURONS for layer in table.indices(lang))
    mask = table.mask("en")
    assert mask.shape == (3, 8) and np.argwhere(mask).tolist() == [[0, 3], [0, 5], [2, 0]]
    with pytest.raises(KeyError, match="'fr' is not in the set en, xx, de"):
        table.indices("fr")


def test_counts():
    table = example()
    assert table.counts().to_dict() == {"en": 3, "xx": 0, "de": 4}
    assert table.unique == 5
    assert table.multiplicity().to_dict() == {1: 3, 2: 2}
    assert table.layer_counts().to_numpy().tolist() == [[2, 0, 1], [0, 0, 0], [1, 2, 1]]


def test_overlap_and_jaccard():
    table = example()
    assert table.overlap().loc["en"].to_dict() == {"en": 3, "xx": 0, "de": 2}
    # Shared: (0, 5) and (2, 0); the union holds five.
    expected = pd.DataFrame([[1, 0, 0.4], [0, 0, 0], [0.4, 0, 1]], list(NEURONS), list(NEURONS))
    pd.testing.assert_frame_equal(table.jaccard(), expected.astype(float))


def test_rows_follow_the_order_of_the_set():
    assert example().frame["lang"].tolist() == ["en"] * 3 + ["de"] * 4
    other = example(languages=["de", "xx", "en"])
    assert other.frame["lang"].tolist() == ["de"] * 4 + ["en"] * 3
    assert other.frame["neuron"].tolist() == [5, 1, 7, 0, 3, 5, 0]


@pytest.mark.parametrize(
    "neurons, message",
    [
        ({"fr": {0: [1]}}, r"does not hold: \['fr'\]"),
        ({"en": {3: [1]}}, "outside the 3 x 8"),
        ({"en": {0: [8]}}, "outside the 3 x 8"),
        ({"en": {0: [-1]}}, "outside the 3 x 8"),
        ({"en": {0: [1, 1]}}, "listed twice"),
    ],
)
def test_wrong_tables_are_refused(neurons, message):
    with pytest.raises(ValueError, match=message):
        NeuronTable(frame_of(neurons), example().metadata)
    with pytest.raises(ValueError, match="lacks the columns score"):
        NeuronTable(frame_of(neurons).drop(columns="score"), example().metadata)


def test_parquet_round_trip(tmp_path):
    table, path = example(tokens={"en": 9}), tmp_path / "a" / "neurons.parquet"
    path.parent.mkdir()
    table.to_parquet(path)
    back = NeuronTable.from_parquet(path)
    pd.testing.assert_frame_equal(back.frame, table.frame)
    assert back.metadata == table.metadata
    assert back.frame.dtypes.astype(str).to_dict() | {"lang": ""} == {
        "lang": "",
        "layer": "int32",
        "neuron": "int32",
        "score": "float64",
    }


def test_parquet_of_no_neurons_keeps_its_languages(tmp_path):
    table = NeuronTable(frame_of({}), example().metadata)
    table.to_parquet(tmp_path / "empty.parquet")
    back = NeuronTable.from_parquet(tmp_path / "empty.parquet")
    assert back.counts().to_dict() == {"en": 0, "xx": 0, "de": 0} and back.unique == 0
    assert back.overlap().to_numpy().tolist() == np.zeros((3, 3)).tolist()


def test_damaged_parquet_is_named(tmp_path):
    path = tmp_path / "neurons.parquet"
    write_parquet(path, frame_of(NEURONS), {"languages": list(NEURONS)})
    with pytest.raises(DamagedFile, match=r"neurons\.parquet.*lacks n_layers, d_mlp"):
        NeuronTable.from_parquet(path)
    write_parquet(path, frame_of({"en": {0: [99]}}), example().metadata)
    with pytest.raises(DamagedFile, match=r"neurons\.parquet.*outside the 3 x 8"):
        NeuronTable.from_parquet(path)


def test_pth_has_the_published_layout(tmp_path):
    path = tmp_path / "mask.pth"
    example().to_pth(path)
    nested = torch.load(path, weights_only=True)
    assert [[layer.tolist() for layer in one] for one in nested] == [
        [[3, 5], [], [0]],
        [[], [], []],
        [[5], [1, 7], [0]],
    ]
    assert {layer.dtype for one in nested for layer in one} == {torch.int64}
    back = NeuronTable.from_pth(path, list(NEURONS), 8)
    assert (back.languages, back.n_layers, back.d_mlp) == (list(NEURONS), 3, 8)
    keys = ["lang", "layer", "neuron"]
    pd.testing.assert_frame_equal(back.frame[keys], example().frame[keys])


def test_pth_of_another_hand(tmp_path):
    """Layers may be lists or int32, and trailing languages without neurons may be missing."""
    path = tmp_path / "mask.pth"
    torch.save([[torch.tensor([4, 2], dtype=torch.int32), []], [[], torch.tensor(3)]], path)
    table = NeuronTable.from_pth(path, ["a", "b", "c"], 5)
    assert [layer.tolist() for layer in table.indices("a")] == [[2, 4], []]
    assert [layer.tolist() for layer in table.indices("b")] == [[], [3]]
    assert table.counts().to_dict() == {"a": 2, "b": 1, "c": 0}


@pytest.mark.parametrize(
    "content, message",
    [
        ({"en": []}, "not a list over languages"),
        ([torch.tensor([1])], "not a list over languages"),
        ([[[1]], [[1]], [[1]]], "3 languages in the file, 2 names given"),
        ([[[1], [2]], [[1]]], "b has 1 layers, not 2"),
        ([[[5]]], "a, layer 0: index 5 is outside the 5 of a layer"),
        ([[[0], [-1]]], "a, layer 1: index -1 is outside"),
        ([[[1.0]]], "indices of type torch.float32"),
        ([[torch.tensor([True, False])]], "indices of type torch.bool"),
        ([], "not a list over languages"),
    ],
)
def test_pth_of_another_layout_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "mask.pth")
    with pytest.raises(ValueError, match=message):
        NeuronTable.from_pth(tmp_path / "mask.pth", ["a", "b"], 5)


def test_pth_runs_no_code(tmp_path):
    torch.save([[np.float64]], tmp_path / "mask.pth")
    with pytest.raises(Exception, match="not unpickled"):
        NeuronTable.from_pth(tmp_path / "mask.pth", ["a"], 5)


# ------------------------------------------------------------------------------- published masks


@pytest.mark.parametrize(
    "rate, n_layers, d_mlp",
    sorted({(m["rate"], m["n_layers"], m["d_mlp"]) for m in MASKS.values()}),
)
def test_lape_keeps_as_many_neurons_as_the_published_masks(rate, n_layers, d_mlp):
    size = n_layers * d_mlp
    counts = np.random.default_rng(0).permutation(size).reshape(n_layers, d_mlp)
    odd = counts % 2
    statistics = {
        lang: Statistics(
            {"act.positive": counts * own}, {"sites": ["act"], "tokens": size, "lang": lang}
        )
        for lang, own in (("a", odd), ("b", 1 - odd))
    }
    metadata = {"languages": ["a", "b"], "n_layers": n_layers, "d_mlp": d_mlp}
    table = NeuronTable(Lape(method="lape", rate=rate).select(statistics), metadata)
    same = [m for m in MASKS.values() if (m["rate"], m["n_layers"]) == (rate, n_layers)]
    published = {m["unique"] for m in same if m["d_mlp"] == d_mlp}
    assert {table.unique} == published == {round(rate * n_layers * d_mlp)}


@pytest.mark.parametrize("name", [name for name in MASKS if name.startswith("RUCAIBox")])
def test_table_with_the_published_multiplicities_counts_as_published(name):
    published, counts = MASKS[name], COUNTS[name]
    languages, d_mlp = list(counts.languages), published["d_mlp"]
    left = counts.neurons.copy()
    owners = []
    # Any membership with these margins will do: a neuron of m languages goes to the m that have
    # the most still to place.
    for multiplicity in sorted(counts.multiplicity, reverse=True):
        for _ in range(counts.multiplicity[multiplicity]):
            chosen = np.argsort(-left, kind="stable")[:multiplicity]
            left[chosen] -= 1
            owners.append(chosen)
    assert not left.any()
    place = np.random.default_rng(0).choice(published["n_layers"] * d_mlp, len(owners), False)
    place = np.repeat(place, [len(chosen) for chosen in owners])
    lang = np.array(languages)[np.concatenate(owners)]
    data = {"lang": lang, "layer": place // d_mlp, "neuron": place % d_mlp, "score": 0.0}
    metadata = {"languages": languages, "n_layers": published["n_layers"], "d_mlp": d_mlp}
    table = NeuronTable(pd.DataFrame(data), metadata)
    assert table.unique == published["unique"]
    assert table.counts().to_list() == counts.neurons.tolist()
    assert table.counts().sum() == published["pairs"]
    assert table.multiplicity().to_dict() == counts.multiplicity


def test_masks_are_converted_on_the_command_line(tmp_path, capsys):
    original = example()
    original.to_parquet(tmp_path / "a.parquet")
    main(["convert", str(tmp_path / "a.parquet"), str(tmp_path / "b.pth")])
    codes = ",".join(original.languages)
    back = ["convert", str(tmp_path / "b.pth"), str(tmp_path / "c.parquet"), "--languages", codes]
    main([*back, "--neurons-per-layer", str(original.d_mlp)])
    found = NeuronTable.from_parquet(tmp_path / "c.parquet")
    columns = ["lang", "layer", "neuron"]
    pd.testing.assert_frame_equal(found.frame[columns], original.frame[columns])
    assert main(back) == 1
    assert "number of neurons per layer" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "b.pth"), str(tmp_path / "d.pth")]) == 1
    assert "two different forms" in capsys.readouterr().err
