"""Printed numbers beside ours."""

from pathlib import Path

import pandas as pd
import pytest
from labelled import labels
from sacrebleu.metrics import BLEU
from scored import counts

from langneurons.reporting.published import (
    agreement,
    compare,
    laid_out,
    layouts,
    own_cells,
    printed_cells,
)

SPEC = Path(__file__).parent.parent / "config/published/mondal2025.yaml"
RESULTS = {"confidence": 0.95, "bootstrap": 200, "seed": 0}
NONE = {"finetuning": "xnli", "choice": "none", "selection": None, "langset": None, "target": None}
BOTH = {"choice": "source_target", "selection": "lape", "langset": "a-b", "target": "vi"}
ADAPTERS = {"xnli+none": NONE, "xnli+source_target+lape+a-b+vi": NONE | BOTH}


def records(adapter, selection, intervention, right, n=100, lang="vi"):
    return pd.DataFrame(
        {
            "task": "xnli_head",
            "lang": lang,
            "adapter": adapter,
            "langset": "none" if selection == "none" else "a-b",
            "selection": selection,
            "intervention": intervention,
            "target": "none" if selection == "none" else lang,
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
        "Table 6": 70,
        "Table 7": 90,
        "Table 8": 6,
    }
    scores = printed[printed["item"] != "Table 6"]
    assert scores["printed"].between(0, 1).all()
    assert set(printed["model"]) == {"llama-3.1-8b", "mistral-nemo-12b"}
    assert {"p05", "p10", "p90", "zero", "mean", "none"} <= set(printed["intervention"])
    assert "p5" not in set(printed["intervention"])
    # As printed for Llama, LAPE, Vietnamese, untouched: 80.5 % (Table 4).
    row = cell(printed, "Table 4", "none")
    assert (row["printed"], row["choice"]) == (pytest.approx(0.805), "none")


def test_cells_are_matched_by_all_keys():
    compared = compare(printed_cells(SPEC), own_cells(frames(), RESULTS, ADAPTERS))
    untouched = cell(compared, "Table 4", "none")
    assert (untouched["ours"], untouched["inside"]) == (0.80, "yes")
    assert untouched["difference"] == pytest.approx(0.80 - 0.805)
    zero = cell(compared, "Table 4", "zero")
    assert (zero["ours"], zero["inside"]) == (0.50, "no")
    both = cell(compared, "Table 7", "none", choice="source_target")
    assert both["ours"] == 0.79
    assert cell(compared, "Table 7", "p90", choice="source_target")["ours"] == 0.10
    assert cell(compared, "Table 4", "mean")["inside"] == ""
    other = compared[compared["model"] == "mistral-nemo-12b"]
    assert other["ours"].isna().all()


def test_a_score_of_a_whole_corpus_stands_beside_the_print():
    golds = ["the old boat sank in the bay", "a red bird sang all day long"]
    texts = {"none": golds, "zero": ["the old boat lay in the bay", "a bird sang all day"]}
    frames = []
    for intervention, answers in texts.items():
        selection = "none" if intervention == "none" else "lape"
        frame = records("base", selection, intervention, 2, n=2).drop(columns="accuracy")
        rows = [counts("bleu", *pair) for pair in zip(answers, [[g] for g in golds], strict=True)]
        frames.append(frame.join(pd.DataFrame(rows)))
    found = own_cells([({"model": "m", "metrics": ["bleu"]}, pd.concat(frames))], RESULTS, {})
    ours = found.set_index("intervention").loc["zero"]
    expected = BLEU().corpus_score(texts["zero"], [golds]).score / 100
    assert (ours["metric"], ours["n"]) == ("bleu", 2)
    assert ours["ours"] == pytest.approx(expected) and ours["low"] <= expected <= ours["high"]


def test_agreement_counts_cells():
    table = agreement(compare(printed_cells(SPEC), own_cells(frames(), RESULTS, ADAPTERS)))
    row = table[(table["item"] == "Table 4") & (table["model"] == "llama-3.1-8b")].iloc[0]
    assert (row["printed"], row["run"], row["inside"]) == (54, 2, 1)


SHOW = labels(
    **{
        "results": {"stand_ins": {}},
        "models": {"llama-3.1-8b": "Llama 3.1 8B", "mistral-nemo-12b": "Mistral Nemo 12B"},
        "selections": {"lape": "LAPE"},
        "interventions": {"zero": "0"},
        "language_names": {"vi": "Vietnamese"},
    }
)


def layout(item):
    (found,) = [one for one in layouts(SPEC) if one["item"] == item]
    return found


def test_a_table_stands_as_the_paper_lays_it_out():
    compared = compare(printed_cells(SPEC), own_cells(frames(), RESULTS, ADAPTERS))
    table = laid_out(compared, layout("Table 4"), SHOW)
    assert list(table)[:6] == ["model", "selection", "language", "", "none", "mean"]
    assert len(table) == 3 * 12  # two models, two selections, three languages
    first = table[
        (table["model"] == "Llama 3.1 8B")
        & (table["selection"] == "LAPE")
        & (table["language"] == "Vietnamese")
    ].set_index("")
    assert first.loc["printed", "none"] == "80.5"
    assert first.loc["ours", "none"].startswith("80.0 [7")
    assert first.loc["difference", "none"].startswith("−0.5 [")
    assert first.loc["ours", "mean"] == "not run"
    assert first.loc["difference", "mean"] == ""


def test_the_main_texts_tables_are_parts():
    compared = compare(printed_cells(SPEC), own_cells(frames(), RESULTS, ADAPTERS))
    whole, part = (laid_out(compared, layout(item), SHOW) for item in ("Table 4", "Table 1"))
    assert len(part) == len(whole) / 2
    trained = laid_out(compared, layout("Table 3"), SHOW)
    assert set(trained["trained neurons"]) == {"source", "target", "source + target"}


def test_the_misprinted_line_counts_for_the_language_that_was_meant():
    printed = printed_cells(SPEC)
    random = printed[(printed["item"] == "Table 8") & (printed["model"] == "mistral-nemo-12b")]
    assert dict(zip(random["lang"], random["printed"], strict=True)) == pytest.approx(
        {"vi": 0.804, "hi": 0.756, "ur": 0.655}
    )


def test_scores_on_token_ids_stand_beside_the_print_under_the_papers_protocol():
    metrics = set(printed_cells(SPEC)["metric"])
    assert {"exact_match", "f1"} < metrics
    metrics = set(printed_cells(SPEC, "paper")["metric"])
    assert {"token_id_exact_match", "token_id_f1", "accuracy"} < metrics
    assert "f1" not in metrics


def test_a_stand_in_takes_a_printed_models_place():
    printed = printed_cells(SPEC, stand_ins={"llama-3.1-8b": "tiny"})
    assert set(printed["model"]) == {"tiny", "mistral-nemo-12b"}


def test_two_cells_for_one_printed_cell_are_refused():
    ours = own_cells(frames(), RESULTS, ADAPTERS)
    other_task = ours.assign(task="other")
    assert len(compare(printed_cells(SPEC), pd.concat([ours, other_task, other_task])))
    with pytest.raises(ValueError, match="two of our cells"):
        compare(printed_cells(SPEC), pd.concat([ours, ours]))
