"""Published masks beside our neuron tables: what the counts must satisfy, and tables by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from labelled import labels
from test_workflow import Checkout

from langneurons.config import read_configs
from langneurons.reporting.masks import Counts, cells, read_counts, spearman
from langneurons.reporting.page import _shares
from langneurons.reporting.printed import read_printed
from langneurons.reporting.published import (
    agreement,
    compare,
    laid_out,
    layouts,
    own_neurons,
    printed_cells,
    published_masks,
)
from langneurons.selection.orders import ORDERS
from langneurons.selection.table import NeuronTable

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "config/published"
FILES = {key: f"masks_{key}.csv" for key in ("layers", "shared", "multiplicity")}
MASKS = pd.read_csv(FOLDER / "masks.csv").set_index("mask")
COUNTS = read_counts(FOLDER, FILES)
CONFIGS = ("tang2024", "published_masks")


# The published files ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", MASKS.index)
def test_the_counts_of_a_published_mask_hold_together(name):
    mask, counts = MASKS.loc[name], COUNTS[name]
    languages = pd.read_csv(FOLDER / "masks_languages.csv", keep_default_na=False)
    languages = languages[languages["mask"] == name].set_index("language")["neurons"]
    k = np.array(list(counts.multiplicity))
    number = np.array(list(counts.multiplicity.values()))
    off = ~np.eye(len(counts.languages), dtype=bool)
    # A share of the model's neurons, however they are divided: by layers or by memberships.
    assert mask["unique"] == round(mask["rate"] * mask["n_layers"] * mask["d_mlp"])
    assert counts.distinct.shape == (mask["n_layers"],)
    assert counts.distinct.sum() == number.sum() == mask["unique"]
    # A neuron of k languages makes k (language, neuron) pairs and k (k - 1) shared entries.
    assert counts.neurons.sum() == (k * number).sum() == mask["pairs"]
    assert counts.shared[off].sum() == (k * (k - 1) * number).sum()
    assert dict(zip(counts.languages, counts.neurons, strict=True)) == languages.to_dict()
    assert (counts.shared == counts.shared.T).all()
    assert (counts.shared <= np.minimum.outer(counts.neurons, counts.neurons)).all()
    # No layer has fewer distinct neurons than its largest language, or more than all together.
    assert (counts.distinct >= counts.layers.max(axis=0)).all()
    assert (counts.distinct <= counts.layers.sum(axis=0)).all()
    assert counts.distinct.max() <= mask["d_mlp"] > mask["highest_index"]


def test_the_languages_are_in_their_papers_order():
    orders = {
        "RUCAIBox/LLaMA-2-7B": "tang2024",
        "RUCAIBox/Phi-2-2.7B": "tang2024_six",
        "CLaS/aya-3": "clas_bench",
        "Subnet/nemo-5": "subnetworks2025",
    }
    assert {name: COUNTS[name].languages for name in orders} == {
        name: ORDERS[order] for name, order in orders.items()
    }


@pytest.mark.parametrize(
    "name, first, last",
    [("LLaMA-2-7B", 0.25, 0.42), ("LLaMA-2-70B", 0.19, 0.47), ("Mistral-7B", 0.025, 0.76)],
)
def test_where_published_neurons_lie(name, first, last):
    counts = COUNTS[f"RUCAIBox/{name}"]
    assert counts.first_two_layers() == pytest.approx(first, abs=0.006)
    assert counts.last_quarter() == pytest.approx(last, abs=0.006)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_mask_has_its_model_selection_and_languages_in_the_configuration(name):
    config = read_configs([ROOT / f"config/papers/{name}.yaml"])
    path = FOLDER / f"{name}.yaml"
    assert config.results.published == f"config/published/{name}.yaml"
    assert read_printed(path).kinds == {"neurons"}
    for mask in published_masks(path):
        sets = [set(config.language_sets[one]) for one, selection in config.cells(mask["model"])
                if selection == mask["selection"]]  # fmt: skip
        assert set(mask["counts"].languages) in sets, mask["mask"]
        assert config.selections[mask["selection"]].rate == MASKS.loc[mask["mask"], "rate"]


def test_both_configurations_together_name_every_mask_once():
    names = [mask["mask"] for name in CONFIGS for mask in published_masks(FOLDER / f"{name}.yaml")]
    assert sorted(names) == sorted(MASKS.index) and len(names) == 19


# A table by hand -------------------------------------------------------------------------------

# Four layers of eight neurons, counted by hand: published and ours.
PUBLISHED = {
    "layers": """mask,language,layer,neurons
hand,vi,0,2
hand,vi,1,0
hand,vi,2,0
hand,vi,3,1
hand,en,0,1
hand,en,1,0
hand,en,2,1
hand,en,3,0
hand,zh,0,0
hand,zh,1,0
hand,zh,2,1
hand,zh,3,3
hand,any,0,2
hand,any,1,0
hand,any,2,1
hand,any,3,4
other,en,0,1
other,any,0,1
""",
    "shared": """mask,language,other,neurons
hand,vi,en,1
hand,vi,zh,0
hand,en,zh,1
other,en,en,1
""",
    "multiplicity": """mask,languages,neurons
hand,1,5
hand,2,2
other,1,1
""",
}
OURS = {"en": [(0, 0), (3, 1)], "vi": [(0, 0), (0, 1), (3, 1), (3, 2)], "zh": [(3, 1), (2, 5)]}
SHOW = labels(
    **{
        "results": {"stand_ins": {}},
        "models": {"m": "M"},
        "selections": {"lape": "LAPE"},
        "interventions": {},
        "language_names": {"en": "English", "vi": "Vietnamese", "zh": "Chinese"},
    }
)


def table(neurons=OURS) -> NeuronTable:
    rows = [(lang, *place, 0.5) for lang, places in neurons.items() for place in places]
    frame = pd.DataFrame(rows, columns=["lang", "layer", "neuron", "score"])
    return NeuronTable(frame, {"languages": list(neurons), "n_layers": 4, "d_mlp": 8})


@pytest.fixture
def spec(tmp_path) -> Path:
    for key, text in PUBLISHED.items():
        (tmp_path / f"{key}.csv").write_text(text)
    content = {
        "source": "by hand",
        "masks": {
            "files": {key: f"{key}.csv" for key in PUBLISHED},
            "of": {"hand": {"model": "m", "selection": "lape"}},
        },
        "layouts": yaml.safe_load((FOLDER / "tang2024.yaml").read_text())["layouts"],
    }
    content["layouts"][2]["pairs"] = 2
    path = tmp_path / "hand.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def compared(spec, tables):
    ours, related = own_neurons(published_masks(spec), tables)
    return compare(printed_cells(spec), ours), related


def value(frame, metric, lang="", column="ours"):
    (found,) = frame[(frame["metric"] == metric) & (frame["lang"] == lang)][column]
    return found


def test_a_table_stands_beside_a_published_mask(spec):
    frame, related = compared(spec, [("m", "lape", table())])
    found = {
        metric: tuple(value(frame, metric, column=c) for c in ("printed", "ours", "difference"))
        for metric in ("unique", "pairs", "one_language", "most_languages")
    }
    assert found == {
        "unique": (7, 5, -2),
        "pairs": (9, 8, -1),
        "one_language": (5, 3, -2),
        "most_languages": (2, 3, 1),
    }
    assert value(frame, "unique", column="n") == 32
    assert value(frame, "unique", column="ratio") == pytest.approx(5 / 7)
    shares = {"first_two_layers": (2 / 7, 2 / 5), "last_quarter": (4 / 7, 2 / 5)}
    for metric, both in shares.items():
        assert value(frame, metric, column="printed") == pytest.approx(both[0])
        assert value(frame, metric) == pytest.approx(both[1])
    neurons = frame[frame["metric"] == "neurons"].set_index("lang")
    assert neurons["printed"].to_dict() == {"vi": 3, "en": 2, "zh": 4}
    assert neurons["ours"].to_dict() == {"vi": 4, "en": 2, "zh": 2}
    assert neurons.loc["zh", "ratio"] == 0.5
    assert (value(frame, "shared", "en + vi", "printed"), value(frame, "shared", "en + vi")) == (
        1,
        2,
    )
    assert value(frame, "jaccard", "en + vi", "printed") == pytest.approx(1 / 4)
    assert value(frame, "jaccard", "en + vi") == pytest.approx(2 / 4)
    assert np.isnan(value(frame, "shared", "vi + zh", "ratio"))  # none was published
    layers = [(value(frame, f"layer_{i}", column="printed"), value(frame, f"layer_{i}"))
              for i in range(4)]  # fmt: skip
    assert layers == [(2, 2), (0, 0), (1, 1), (4, 2)]
    # No interval: neither inside nor outside.
    assert frame["low"].isna().all() and set(frame["inside"]) == {""}
    (row,) = related.to_dict("records")
    assert row["mask"] == "hand" and row["run"]
    # Ranks over vi, en, zh: published 2 1 3, ours 3 1.5 1.5; over layers 3 1 2 4 and 3.5 1 2 3.5.
    assert row["languages"] == pytest.approx(np.corrcoef([2, 1, 3], [3, 1.5, 1.5])[0, 1])
    assert row["layers"] == pytest.approx(np.corrcoef([3, 1, 2, 4], [3.5, 1, 2, 3.5])[0, 1])


def test_our_own_table_as_the_published_one_agrees_in_everything(spec):
    counts = Counts.of(table())
    published = [{"mask": "own", "model": "m", "selection": "lape", "counts": counts}]
    shuffled = table({lang: OURS[lang] for lang in ("zh", "en", "vi")})
    ours, related = own_neurons(published, [("m", "lape", shuffled)])
    same = {(cell["lang"], cell["metric"]): cell["value"] for cell in cells(counts)}
    assert {(row.lang, row.metric): row.ours for row in ours.itertuples()} == same
    assert related["languages"].item() == related["layers"].item() == pytest.approx(1)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "another"},
        {"selection": "another"},
        {"langs": {"en": [(0, 0)], "vi": [(0, 1)]}},
    ],
)
def test_another_model_selection_or_set_is_not_compared(spec, change):
    one = (change.get("model", "m"), change.get("selection", "lape"))
    frame, related = compared(spec, [(*one, table(change.get("langs", OURS)))])
    assert frame["ours"].isna().all() and not related["run"].item()
    summary = agreement(frame)
    assert summary["run"].sum() == 0


def test_a_stand_in_takes_the_published_models_place(spec):
    masks = published_masks(spec)
    ours, related = own_neurons(masks, [("tiny", "lape", table())], {"m": "tiny"})
    frame = compare(printed_cells(spec, stand_ins={"m": "tiny"}), ours)
    assert set(frame["model"]) == {"tiny"} and frame["ours"].notna().all()
    assert related["model"].item() == "tiny"


def test_tables_are_laid_out_with_difference_and_ratio(spec):
    assert read_printed(spec).table_names == [
        *("masks_totals", "masks_languages", "masks_pairs", "masks_correlations"),
    ]
    frame, _ = compared(spec, [("m", "lape", table())])
    totals, languages, pairs = (laid_out(frame, layout, SHOW) for layout in layouts(spec))
    shown = totals.set_index("")
    assert shown["unique"].to_dict() == {
        "published": "7",
        "ours": "5",
        "difference": "−2",
        "ratio": "0.71",
    }
    assert shown["first two layers"].to_list() == ["28.6", "40.0", "11.4", "1.40"]
    assert languages.set_index("")["Chinese"].to_list() == ["4", "2", "−2", "0.50"]
    # The two most similar pairs of the published mask, most similar first: 1/4 and 1/5.
    assert pairs["language"].unique().tolist() == ["English, Vietnamese", "English, Chinese"]
    assert pairs.set_index("")["jaccard"].to_list()[:4] == ["25.0", "50.0", "25.0", "2.00"]
    unrun, _ = compared(spec, [])
    shown = laid_out(unrun, layouts(spec)[0], SHOW).set_index("")
    assert shown["unique"].to_list() == ["7", "not run", "", ""]


def test_the_summary_has_ratios_and_no_interval(spec):
    frame, _ = compared(spec, [("m", "lape", table())])
    summary = agreement(frame.assign(protocol="corrected"))
    assert "inside" not in summary and _shares(summary) == []
    row = summary.set_index("item").loc["Neurons per language"]
    assert (row["printed"], row["run"], row["median_ratio"]) == (3, 3, 1.0)


def test_the_graph_makes_the_tables(spec, tmp_path):
    (tmp_path / "checkout").mkdir()
    checkout = Checkout(tmp_path / "checkout")
    checkout.config = {
        "name": "hand",
        "models": {"m": {"source": {"kind": "local", "path": "m"}, "label": "M"}},
        "language_sets": {"three": ["vi", "en", "zh"]},
        "selections": {"lape": {"method": "lape", "label": "LAPE"}},
        "results": {"published": str(spec)},
    }
    checkout.save()
    (checkout.path / "m").mkdir()
    (checkout.path / "m/config.json").write_text("{}")
    table().to_parquet(checkout.path / "results/m/neurons/en-vi-zh/lape.parquet")
    names = ("published", "published_summary", *read_printed(spec).table_names)
    files = [f"results/tables/hand/{name}.csv" for name in names]
    checkout.make("--allowed-rules", "tabulate_published", "--", *files)
    frame, related = compared(spec, [("m", "lape", table())])
    found = pd.read_csv(checkout.path / files[0], keep_default_na=False)
    assert pd.to_numeric(found["ours"]).to_list() == pytest.approx(frame["ours"].to_list())
    found = pd.read_csv(checkout.path / "results/tables/hand/masks_correlations.csv")
    assert found["languages"].item() == pytest.approx(related["languages"].item())
    text = (checkout.path / "results/tables/hand/masks_pairs.md").read_text()
    assert "English, Vietnamese" in text and "Counts have no interval" in text


def test_rank_correlation_by_hand():
    assert spearman(np.array([1, 2, 3, 4]), np.array([10, 20, 40, 30])) == pytest.approx(0.8)
    assert spearman(np.array([3, 1, 2]), np.array([5, 9, 7])) == pytest.approx(-1)
    assert np.isnan(spearman(np.array([1, 2, 3]), np.array([4, 4, 4])))
