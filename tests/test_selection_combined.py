"""Selections made of others, and masks of other people as selections."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from test_selection import as_sets, from_counts, run

from langneurons.activations.statistics import Mismatch
from langneurons.base.digests import file_digest
from langneurons.cli import main
from langneurons.selection.methods.published import Published
from langneurons.selection.orders import ORDERS
from langneurons.selection.table import NeuronTable

PUBLISHED = Path(__file__).parent.parent / "config/published"
SHAPE = (3, 10)
CODES = ("de", "en", "fr")


def statistics(shape=SHAPE, codes=CODES) -> dict:
    return {lang: from_counts(lang, np.ones(shape, int), 9) for lang in codes}


def table_of(sets: dict[str, set[int]], score: float = 0.0, shape=SHAPE) -> NeuronTable:
    pairs = [(lang, j // shape[1], j % shape[1], score + j) for lang in sets for j in sets[lang]]
    frame = pd.DataFrame(pairs, columns=["lang", "layer", "neuron", "score"])
    frame = frame.astype({"layer": "int32", "neuron": "int32", "score": "float64"})
    return NeuronTable(frame, {"languages": list(sets), "n_layers": shape[0], "d_mlp": shape[1]})


def drawn(seed: int) -> dict[str, set[int]]:
    rng = np.random.default_rng(seed)
    return {lang: set(rng.choice(30, 12, replace=False).tolist()) for lang in CODES} | {
        "fr": set() if seed == 1 else set(rng.choice(30, 5, replace=False).tolist())
    }


OPERATIONS = {
    "intersection": lambda first, *rest: first.intersection(*rest),
    "union": lambda first, *rest: first.union(*rest),
    "difference": lambda first, *rest: first.difference(*rest),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("seeds", [(0, 1), (1, 0), (0, 2, 3)])
def test_operations_are_those_of_sets_language_by_language(operation, seeds):
    sets = [drawn(seed) for seed in seeds]
    tables = [table_of(one, 100.0 * k) for k, one in enumerate(sets)]
    names = [f"s{seed}" for seed in seeds]
    found = run("combined", statistics(), *tables, operation=operation, selections=names)
    expected = {lang: OPERATIONS[operation](*(one[lang] for one in sets)) for lang in CODES}
    assert as_sets(found) == expected and sum(map(len, expected.values()))
    for row in found.frame.itertuples():
        flat = row.layer * SHAPE[1] + row.neuron
        first = next(k for k, one in enumerate(sets) if flat in one[row.lang])
        assert row.score == 100.0 * first + flat


def test_algebra_of_sets():
    a, b = table_of(drawn(0)), table_of(drawn(2))

    def combine(operation, *tables):
        names = [f"s{k}" for k in range(len(tables))]
        return run("combined", statistics(), *tables, operation=operation, selections=names)

    both, either = combine("intersection", a, b), combine("union", a, b)
    assert as_sets(both) == as_sets(combine("intersection", b, a))
    assert as_sets(either) == as_sets(combine("union", b, a))
    only = combine("difference", a, b)
    assert as_sets(combine("union", only, both)) == as_sets(a)
    assert not len(combine("intersection", only, b).frame)
    assert as_sets(combine("difference", either, b)) == as_sets(only)


def test_a_random_control_mirrors_a_combined_selection():
    both = run(
        "combined",
        statistics(),
        table_of(drawn(0)),
        table_of(drawn(2)),
        selections=["a", "b"],
    )
    control = run("random", statistics(), both, like="both")
    assert control.counts().to_dict() == both.counts().to_dict()
    assert not set().union(*as_sets(control).values()) & set().union(*as_sets(both).values())


def test_tables_of_another_model_or_set_are_refused():
    other = table_of({lang: {1} for lang in CODES}, shape=(2, 10))
    with pytest.raises(Mismatch, match=r"'b' is of 2 x 10 .* are of 3 x 10"):
        run("combined", statistics(), table_of(drawn(0)), other, selections=["a", "b"])
    other = table_of({"de": {1}, "en": {2}})
    with pytest.raises(Mismatch, match="'b' is of .* de, en; .* de, en, fr"):
        run("combined", statistics(), table_of(drawn(0)), other, selections=["a", "b"])
    with pytest.raises(ValueError, match="zip"):
        run("combined", statistics(), table_of(drawn(0)), selections=["a", "b"])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"selections": ["a"]}, "at least 2"),
        ({"selections": ["a", "a"]}, "a listed more than once"),
        ({"selections": ["a", "b"], "operation": "minus"}, "intersection"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        run("combined", statistics(), **wrong)


# ---------------------------------------------------------------------------------------- masks


def mask_of(path, codes=CODES, shape=SHAPE, seed: int = 0) -> dict[str, set[int]]:
    """Write a mask in the published layout; return its sets by language."""
    rng = np.random.default_rng(seed)
    chosen = {lang: np.sort(rng.choice(shape[0] * shape[1], 7, replace=False)) for lang in codes}
    nested = [
        [torch.from_numpy(own[own // shape[1] == layer] % shape[1]) for layer in range(shape[0])]
        for own in chosen.values()
    ]
    torch.save(nested, path)
    return {lang: set(own.tolist()) for lang, own in chosen.items()}


@pytest.mark.parametrize("order", ["fr en de", "de en fr", "en zh fr de"])
def test_a_published_mask_is_read_in_the_order_of_its_file(order, tmp_path):
    path, codes = tmp_path / "mask.pth", order.split()
    sets = mask_of(path, codes)
    options = {"path": str(path), "languages": codes, "neurons_per_layer": 10}
    table = run("published", statistics(), **options)
    assert table.languages == sorted(CODES)
    assert as_sets(table) == {lang: sets[lang] for lang in CODES}
    parameters = json.loads(table.metadata["parameters"])
    assert "path" not in parameters and parameters["languages"] == codes


def test_names_of_models_in_the_files_of_others():
    given = {"method": "published", "path": "masks/{model}-1", "order": "tang2024"}
    own = Published.model_validate(given | {"names": {"llama-3.1-8b": "llama"}})
    assert own.file_of("llama-3.1-8b") == "masks/llama-1" and own.is_mask
    assert own.file_of("aya") == "masks/aya-1"
    assert own.identity() == Published.model_validate(given).identity()
    with pytest.raises(ValueError, match="names: there is no {model}"):
        Published.model_validate(given | {"path": "masks/1", "names": {"a": "b"}})


def test_a_published_mask_in_the_order_of_a_paper(tmp_path):
    sets = mask_of(tmp_path / "mask.pth", ORDERS["rahmanisa2025"])
    codes = ("ms", "qu", "th")
    options = {"path": str(tmp_path / "mask.pth"), "order": "rahmanisa2025"}
    table = run("published", statistics(codes=codes), **options)
    assert as_sets(table) == {lang: sets[lang] for lang in codes}


def test_a_mask_that_lacks_trailing_languages_says_so(tmp_path):
    sets = mask_of(tmp_path / "mask.pth", ORDERS["tang2024_six"])
    options = {"method": "published", "path": str(tmp_path / "mask.pth"), "order": "tang2024"}
    codes = ("en", "ja", "vi")
    with pytest.warns(UserWarning, match="6 languages in the file, 7 names .* neurons: ja"):
        frame = Published(**options).select(statistics(codes=codes))
    assert set(frame["lang"]) == {"en", "vi"}
    assert as_sets(run(statistics=statistics(codes=codes), **options))["vi"] == sets["vi"]
    with pytest.raises(ValueError, match="7 languages in the file, 6 names"):
        mask_of(tmp_path / "mask.pth", ORDERS["tang2024"])
        run("published", statistics(), path=str(tmp_path / "mask.pth"), order="tang2024_six")


def test_masks_of_the_wrong_size_are_refused(tmp_path):
    path = tmp_path / "mask.pth"
    options = {"path": str(path), "languages": CODES}
    mask_of(path)
    with pytest.raises(ValueError, match="mask of 3 layers x 10 neurons; the model has 4 x 10"):
        run("published", statistics((4, 10)), **options)
    with pytest.raises(ValueError, match="mask of 3 layers x 12 neurons; the model has 3 x 10"):
        run("published", statistics(), neurons_per_layer=12, **options)
    with pytest.raises(ValueError, match=r"layer \d: index [89] is outside the 8 of a layer"):
        run("published", statistics((3, 8)), **options)
    with pytest.raises(ValueError, match="no neurons of zh in this mask"):
        run("published", statistics(codes=("en", "zh")), **options)


def test_a_mask_is_known_by_its_content(tmp_path):
    path = tmp_path / "mask.pth"
    mask_of(path)
    options = {"path": str(path), "languages": CODES}
    digest = file_digest(path, 64)
    expected = as_sets(run("published", statistics(), **options))
    assert as_sets(run("published", statistics(), sha256=digest, **options)) == expected
    mask_of(path, seed=1)
    with pytest.raises(ValueError, match=f"its SHA-256 is [0-9a-f]+, not {digest}"):
        run("published", statistics(), sha256=digest, **options)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({}, "either `order` or `languages`"),
        ({"order": "tang2024", "languages": ["en"]}, "either `order` or `languages`"),
        ({"order": "tang"}, "tang2024"),
        ({"languages": ["en", "en"]}, "en listed more than once"),
        ({"order": "tang2024", "sha256": "0"}, "sha256"),
    ],
)
def test_masks_that_are_not_described_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        run("published", statistics(), path="mask.pth", **wrong)


def test_the_orders_are_those_of_the_published_masks():
    published = pd.read_csv(PUBLISHED / "masks_languages.csv")
    known = {codes: name for name, codes in ORDERS.items()}
    orders = published.groupby("mask")["language"].agg(tuple)
    found = {name: known[codes] for name, codes in orders.items()}
    assert len(found) == 19
    assert found["RUCAIBox/LLaMA-2-7B"] == found["RUCAIBox/LLaMA-2-13B"] == "tang2024"
    assert found["RUCAIBox/LLaMA-2-70B"] == found["RUCAIBox/BLOOM-7B"] == "tang2024_six"
    assert {found[name] for name in found if name.startswith("CLaS")} == {"clas_bench"}
    assert {found[name] for name in found if name.startswith("Subnet")} == {"subnetworks2025"}
    sizes = {name: len(codes) for name, codes in ORDERS.items()}
    assert sizes == {
        "tang2024": 7,
        "tang2024_six": 6,
        "gurgurov2025": 21,
        "clas_bench": 32,
        "subnetworks2025": 12,
        "rahmanisa2025": 18,
    }
    assert all(len(set(codes)) == len(codes) for codes in ORDERS.values())


def test_the_command_line_knows_the_orders(tmp_path):
    sets = mask_of(tmp_path / "mask.pth", ORDERS["tang2024"])
    target = tmp_path / "table.parquet"
    main(["convert", str(tmp_path / "mask.pth"), str(target), "--languages", "tang2024"] + SIZES)
    table = NeuronTable.from_parquet(target)
    assert table.languages == list(ORDERS["tang2024"]) and as_sets(table) == sets


SIZES = ["--neurons-per-layer", "10"]
