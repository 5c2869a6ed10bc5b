"""The Language Steering Shift in the graph: a full run on a tiny model, what an edit reruns."""

import shutil

import pandas as pd
import pytest
from test_workflow import CONFIG, ROOT, SHOWING, Checkout, save_tiny_model

OWN = {
    **{key: CONFIG[key] for key in ("name", "models", "corpus", "statistics")},
    "language_sets": {"three": ["en", "ja", "zh"]},
    "selections": {
        "prob": {"method": "exceedance", "rate": 0.05, "label": "Prob"},
        "random": {"method": "random", "like": "prob", "match": "layer", "label": "control"},
    },
    "interventions": {
        "zero": {"operation": "set", "value": 0},
        "p95": {"operation": "set", "value": "p95"},
        "double": {"operation": "scale", "value": 2, "tokens": "prompt"},
    },
    "protocols": {"corrected": {}, "published": {"lss": "paper"}},
    "lss": {
        "source": {"kind": "mini"},
        "interventions": ["zero", "p95"],
        "bases": ["en", "fr", "ja", "zh"],
        "targets": ["ja", "zh"],
        "limit": 8,
    },
    "results": {"bootstrap": 100},
}


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("lss"))
    checkout.config = OWN
    checkout.save()
    save_tiny_model(checkout.path / "tiny-model")
    checkout.make()
    return checkout


@pytest.fixture
def changed(shifted):
    yield shifted
    shifted.config = OWN
    shifted.save()
    shutil.copytree(ROOT / "src", shifted.path / "src", dirs_exist_ok=True)


def computing(checkout):
    return {rule: n for rule, n in checkout.planned().items() if not rule.startswith(SHOWING)}


def with_lss(checkout, **changes):
    checkout.config = {**OWN, "lss": OWN["lss"] | changes}
    checkout.save()
    return computing(checkout)


def test_tables_figures_and_page(shifted):
    folder = shifted.path / "results"
    cells = pd.read_csv(folder / "tables/tiny/lss.csv")
    assert len(cells) == 2 * 2 * 2 * 4 * 2
    diagonal = cells[cells["base"] == cells["target"]].groupby("protocol")["lss"]
    assert diagonal.count().to_dict() == {"corrected": 0, "published": 8}
    assert (diagonal.max().dropna() == 0).all()
    off = cells[cells["base"] != cells["target"]]
    assert off["lss"].between(0, 1).all() and (off["facts"] == 8).all()
    ties = off[off["base"].isin(["ja", "zh"])].groupby("protocol")[["ties", "n"]].max()
    assert ties.loc["corrected", "n"] == 8 - ties.loc["corrected", "ties"] < 8
    assert ties.loc["published", "n"] == 8
    summary = pd.read_csv(folder / "tables/tiny/lss_summary.csv")
    own = summary[summary["selection"] == "Prob"]
    assert (own["control"] == "control").all() and own["difference"].notna().all()
    assert set(own["target"]) == {"all", "ja", "zh"}
    found = {p.relative_to(folder / "figures/tiny/tiny") for p in folder.rglob("lss*.svg")}
    expected = {f"{protocol}/three/{name}/lss.svg" for protocol in OWN["protocols"]
                for name in OWN["lss"]["interventions"]}  # fmt: skip
    expected |= {f"{protocol}/three/lss_factors.svg" for protocol in OWN["protocols"]}
    assert set(map(str, found)) == expected
    page = (folder / "reports/tiny.html").read_text()
    assert "Language Steering Shift by intervention" in page and "control_lss" in page
    assert "equal objects count as failures" in page and "equal objects are left out" in page


def test_a_second_run_has_nothing_to_do(shifted):
    assert shifted.planned() == {}


def test_what_an_edit_reruns(changed):
    added = {"measure_lss": 4}
    assert with_lss(changed, interventions=["zero", "p95", "double"]) == added
    # Untouched scores and finished conditions come from the side store.
    parts = set((changed.path / "results/.work/lss").rglob("*.parquet"))
    target = "results/tiny/lss/corrected/en-ja-zh/prob.parquet"
    changed.make("--", target)
    new = set((changed.path / "results/.work/lss").rglob("*.parquet")) - parts
    # Two targets, each with three other bases, both objects.
    assert len(new) == 2 * 3 * 2
    assert with_lss(changed, limit=6) == {"prepare_facts": 4, "measure_lss": 4}
    assert with_lss(changed, targets=["zh"]) == {"measure_lss": 4}
    # The one file that was made anew holds more now.
    assert with_lss(changed) == {"measure_lss": 1}
    changed.make("--", target)
    assert set((changed.path / "results/.work/lss").rglob("*.parquet")) - parts == new
    path = changed.path / "src/langneurons/evaluation/steering_shift.py"
    path.write_text(path.read_text() + "\nADDED = 1\n")
    assert computing(changed) == {"measure_lss": 4}
    shutil.copytree(ROOT / "src", changed.path / "src", dirs_exist_ok=True)
    path = changed.path / "src/langneurons/reporting/tables/steering_shift.py"
    path.write_text(path.read_text() + "\nADDED = 1\n")
    assert computing(changed) == {}
