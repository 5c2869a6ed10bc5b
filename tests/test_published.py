"""Printed numbers beside ours."""

from pathlib import Path

import pandas as pd
import pytest

from langneurons.published import agreement, compare, own_cells, printed_cells

SPEC = Path(__file__).parent.parent / "config/published/mondal2025.yaml"
RESULTS = {"confidence": 0.95, "bootstrap": 200, "seed": 0}


def records(adapter, selection, intervention, right, n=100, lang="vi"):
    return pd.DataFrame(
        {
            "task": "xnli_head",
            "lang": lang,
            "adapter": adapter,
            "langset": "none" if selection == "none" else "a-b",
            "selection": selection,
            "intervention": intervention,
            "item": [str(i) for i in range(n)],
            "accuracy": [1.0] * right + [0.0] * (n - right),
        }
    )


def frames():
    meta = {"model": "llama-3.1-8b", "metrics": ["accuracy"]}
    plain = [
        records("xnli+none", "none", "none", 80),
        records("xnli+none", "lape", "zero", 50),
    ]
    adapter = "xnli+source_target+lape+a-b+vi"
    trained = [records(adapter, "none", "none", 79), records(adapter, "lape", "p90", 10)]
    return [(meta, pd.concat(plain)), (meta, pd.concat(trained))]


def cell(compared, item, intervention, **more):
    keys = {"model": "llama-3.1-8b", "selection": "lape", "lang": "vi"} | more
    found = compared[(compared["item"] == item) & (compared["intervention"] == intervention)]
    for key, value in keys.items():
        found = found[found[key] == value]
    (row,) = found.to_dict("records")
    return row


def test_every_printed_cell_is_read_once():
    printed = printed_cells(SPEC)
    assert printed["item"].value_counts().to_dict() == {
        "Table 4": 108,
        "Table 5": 216,
        "Table 7": 90,
        "Table 8": 6,
    }
    assert printed["printed"].between(0, 1).all()
    assert set(printed["model"]) == {"llama-3.1-8b", "mistral-nemo-12b"}
    assert {"p05", "p10", "p90", "zero", "mean", "none"} <= set(printed["intervention"])
    assert "p5" not in set(printed["intervention"])
    # As printed for Llama, LAPE, Vietnamese, untouched: 80.5 % (Table 4).
    row = cell(printed, "Table 4", "none")
    assert (row["printed"], row["choice"]) == (pytest.approx(0.805), "xnli+none")


def test_cells_are_matched_by_all_keys():
    compared = compare(printed_cells(SPEC), own_cells(frames(), RESULTS))
    untouched = cell(compared, "Table 4", "none")
    assert (untouched["ours"], untouched["inside"]) == (0.80, "yes")
    assert untouched["difference"] == pytest.approx(0.80 - 0.805)
    zero = cell(compared, "Table 4", "zero")
    assert (zero["ours"], zero["inside"]) == (0.50, "no")
    both = cell(compared, "Table 7", "none", choice="xnli+source_target")
    assert both["ours"] == 0.79
    assert cell(compared, "Table 7", "p90", choice="xnli+source_target")["ours"] == 0.10
    assert cell(compared, "Table 4", "mean")["inside"] == ""
    other = compared[compared["model"] == "mistral-nemo-12b"]
    assert other["ours"].isna().all()


def test_agreement_counts_cells():
    table = agreement(compare(printed_cells(SPEC), own_cells(frames(), RESULTS)))
    row = table[(table["item"] == "Table 4") & (table["model"] == "llama-3.1-8b")].iloc[0]
    assert (row["printed"], row["run"], row["inside"]) == (54, 2, 1)
