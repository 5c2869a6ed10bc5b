"""The Language Steering Shift against scores written by hand, its store, tables and settings."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from test_interventions import by_hand, write
from test_perplexity import counted, edit_of
from tiny import tiny_model, tiny_tokenizer

from langneurons.base.errors import ConfigError
from langneurons.base.io import read_jsonl, write_jsonl
from langneurons.base.protocols import Protocol
from langneurons.base.store import SideStore
from langneurons.config import build
from langneurons.data.facts import fetch_facts, prepare_facts, read_facts
from langneurons.evaluation.run import Run
from langneurons.evaluation.steering_shift import measure, premise, requests
from langneurons.interventions.plan import Plan
from langneurons.jobs.parameters import labels_of, stage
from langneurons.models.encoding import Encoder
from langneurons.models.language_model import LanguageModel
from langneurons.reporting.tables.steering_shift import ALL, judged, lss_cells, lss_summary, matrix

INDEX = np.array([3, 5, 40])
RESULTS = {"bootstrap": 400, "confidence": 0.95, "alpha": 0.05, "seed": 0}
CORRECTED, PAPER = "corrected", "paper"


def fact(name, template, subject, **objects):
    return {"fact": name, "predicate": "P1", "template": template, "subject": subject} | {
        "objects": objects
    }


def facts():
    """Return facts in three languages aa, bb, cc of the tiny tokenizer; one tie of aa and bb."""
    templates = {"aa": "w1 w2 [X] w3 [Y] w4", "bb": "[X] w5 w6 w7 [Y]", "cc": "w8 [X] w9 [Y] w4"}
    objects = {
        "f1": {"aa": "w10", "bb": "w20 w21", "cc": "w30"},
        "f2": {"aa": "w11 w12 w13", "bb": "w22", "cc": "w31 w32"},
        "f3": {"aa": "w14", "bb": "w14", "cc": "w33"},
    }
    return {
        lang: [fact(name, template, f"w5{k}", **of) for k, (name, of) in enumerate(objects.items())]
        for lang, template in templates.items()
    }


def plans():
    return {
        "aa": Plan("up", [write("set", 3.0, 0, index=INDEX), write("add", 1.0, 1, index=INDEX)]),
        "bb": Plan("up", [write("set", -4.0, 1, "product", INDEX)]),
    }


def naive(model, tokenizer, context, continuation):
    """Return log p(continuation | context) from the model's own logits, one token at a time."""
    start = tokenizer(context)["input_ids"]
    ids = start + tokenizer(continuation, add_special_tokens=False)["input_ids"]
    scores = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    return sum(float(scores[i - 1, ids[i]]) for i in range(len(start), len(ids)))


def run(store, model=None, given=None, written=None, premises=CORRECTED, batch=64, key=None):
    lm = LanguageModel(model if model is not None else tiny_model("llama"), tiny_tokenizer())
    job = Run(lm, SideStore(store, "lss"), {"model": "tiny"} if key is None else key, batch)
    given, written = facts() if given is None else given, plans() if written is None else written
    return measure(job, given, {"up": written}, premises)


# Premises ----------------------------------------------------------------------------------------

TEMPLATES = [
    # lang, template, corrected premise and join, paper's premise
    ("en", "The capital of [X] is [Y].", ("The capital of S is", " "), "The capital of S is."),
    ("en", "[X] is in [Y] .", ("S is in", " "), "S is in ."),
    ("en", "[X] was born\u00a0in \u00a0[Y].", ("S was born\u00a0in", " "), None),
    ("en", "The motto of [X] is “[Y]”.", ("The motto of S is “", ""), "The motto of S is “[Y]”."),
    ("fr", "Le mot [X] : « [Y] ».", ("Le mot S : «", " "), "Le mot S : « »."),
    ("hi", "[X] की राजधानी [Y] है।", ("S की राजधानी", " "), "S की राजधानी है।"),
    ("ja", "[X]の首都は[Y]です。", ("Sの首都は", ""), "Sの首都は[Y]です。"),
    ("zh", "[X] 的首都是 [Y] 。", ("S的首都是", ""), "S 的首都是 。"),
    ("zh-TW", "[X]的首都是\u3000[Y]", ("S的首都是", ""), "S的首都是\u3000[Y]"),
    ("th", "เมืองหลวงของ [X] คือ [Y]", ("เมืองหลวงของSคือ", ""), "เมืองหลวงของ S คือ"),
    ("en", "[Y] is the capital of [X].", None, "[Y] is the capital of S."),
]


@pytest.mark.parametrize(("lang", "template", "corrected", "paper"), TEMPLATES)
def test_premises(lang, template, corrected, paper):
    assert premise(template, "S", lang) == corrected
    if paper is not None:
        assert premise(template, "S", lang, PAPER) == (paper, " ")


def test_requests_join_both_objects_in_the_same_way_and_leave_out_what_lacks():
    rows = [
        fact("f1", "[X]的首都是[Y]。", "法国", zh="巴黎", en="Paris"),
        fact("f2", "[Y]是[X]的首都。", "法国", zh="巴黎", en="Paris"),
        fact("f3", "[X]的首都是[Y]。", "中国", zh="北京"),
    ]
    assert requests(rows, "zh", "en", CORRECTED) == {"f1": ("法国的首都是", "Paris")}
    assert list(requests(rows, "zh", "zh", CORRECTED)) == ["f1", "f3"]
    assert requests(rows, "zh", "en", PAPER)["f1"] == ("法国的首都是[Y]。", " Paris")


def merging():
    """Return a tokenizer in which "ab" is one token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "<unk>": 4}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")], unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def test_a_token_over_the_join_is_seen():
    encoder = Encoder(merging())
    pairs = {("ca", "c"): False, ("cb", "ab"): False, ("ca", "bc"): True, ("ca", "b"): True}
    assert {pair: encoder.pair(*pair).apart for pair in pairs} == pairs


# Measurement -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 24, 1000])
def test_records_equal_hand_written_scores(tmp_path, batch):
    frame = run(tmp_path, batch=batch)
    assert frame.groupby(["base", "target"], sort=False).size().to_dict() == {
        ("bb", "aa"): 3,
        ("cc", "aa"): 3,
        ("aa", "bb"): 3,
        ("cc", "bb"): 3,
    }
    tokenizer, given = tiny_tokenizer(), facts()
    touched = {lang: by_hand(tiny_model("llama"), edit_of(plan)) for lang, plan in plans().items()}
    for row in frame.itertuples():
        one = next(one for one in given[row.base] if one["fact"] == row.fact)
        start = one["template"].replace("[X]", one["subject"]).partition("[Y]")[0].strip()
        for model, when in ((tiny_model("llama"), "before"), (touched[row.target], "after")):
            for whose, lang in (("own", row.base), ("target", row.target)):
                expected = naive(model, tokenizer, start, one["objects"][lang])
                assert getattr(row, f"{whose}_{when}") == pytest.approx(expected, abs=1e-3)
        assert row.tie == (one["objects"][row.base] == one["objects"][row.target])
    margin = judged(frame, about())["margin"]
    assert margin[~frame["tie"]].abs().min() > 1e-3 and (margin[frame["tie"]] == 0).all()


def test_facts_of_which_every_object_shares_a_token_are_refused_with_counts(tmp_path):
    """An object "b" after a premise that ends in "a" is one token "ab" with its end."""
    given = {
        "aa": [
            fact("f1", "c[X]a[Y]", "c", aa="b", bb="bc"),
            fact("f2", "c[X]a[Y]", "b", aa="bb", bb="b"),
            fact("f3", "c[X]a[Y]", "b", aa="bb"),
            fact("f4", "[Y]a[X]", "b", aa="bb", bb="b"),
        ]
    }
    written = {"up": {"bb": plans()["bb"]}}
    lm = LanguageModel(tiny_model("llama"), merging())
    merged = Run(lm, SideStore(tmp_path, "lss"), {}, 64)
    with pytest.raises(ValueError) as caught:
        measure(merged, given, written, CORRECTED)
    said = str(caught.value)
    assert "aa: 4 facts, 1 that name the subject after the object, 2 with a premise and" in said
    assert "token that is shared with the end of the premise" in said and "lss.source" in said
    assert "rm " not in said
    with pytest.raises(ValueError, match=r"aa: 1 facts, 1 that name .*, 0 with .*\. Give other"):
        late = {"aa": given["aa"][3:]}
        measure(merged, late, written, CORRECTED)
    # One fact without a shared token is enough.
    given["aa"].append(fact("f5", "c[X]c[Y]", "b", aa="bb", bb="b"))
    frame = measure(merged, given, written, CORRECTED)
    assert list(frame["fact"]) == ["f5"]


def test_an_object_that_does_not_fit_is_named(tmp_path):
    given = facts()
    given["aa"][1]["objects"]["bb"] = " ".join(["w1"] * 600)
    with pytest.raises(
        ValueError, match="lss: fact f2, premise in aa, object in bb, context .*fit"
    ):
        run(tmp_path, given=given)


def test_the_papers_premise_keeps_what_follows_the_object(tmp_path):
    frame = run(tmp_path, premises=PAPER)
    row = frame[(frame["base"] == "aa") & (frame["fact"] == "f1")].iloc[0]
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    expected = naive(model, tokenizer, "w1 w2 w50 w3 w4", "w10")
    assert row["own_before"] == pytest.approx(expected, abs=1e-3)
    other = run(tmp_path, premises=CORRECTED)
    assert abs(other[other["base"] == "aa"]["own_before"].iloc[0] - expected) > 1e-3


def test_untouched_scores_serve_every_intervention(tmp_path):
    model = tiny_model("llama")
    calls = counted(model)
    first = run(tmp_path, model, written={"aa": plans()["aa"]})
    read = sum(calls)
    calls.clear()
    other = {"aa": Plan("down", [write("set", -1.0, 0, index=INDEX)])}
    second = run(tmp_path, model, written=other)
    assert 0 < sum(calls) < read
    columns = ["base", "target", "fact", "own_before", "target_before"]
    pd.testing.assert_frame_equal(first[columns], second[columns])
    calls.clear()
    assert run(tmp_path, model, written=other).equals(second) and not calls
    # A plan that writes the same under another name, or nothing at all, computes nothing.
    same = {"aa": Plan("other name", other["aa"].writes)}
    assert run(tmp_path, model, written=same).equals(second) and not calls
    empty = run(tmp_path, model, written={"aa": Plan("up")})
    assert not calls and (empty["target_after"] == empty["target_before"]).all()
    run(tmp_path, model, written=other, key={"model": "another"})
    assert calls


def test_every_intervention_is_measured_and_a_new_one_computes_itself_alone(tmp_path):
    model, given = tiny_model("llama"), facts()
    job = Run(LanguageModel(model, tiny_tokenizer()), SideStore(tmp_path, "lss"), {}, 1)
    other = {lang: Plan("down", [write("set", -1.0, 0, index=INDEX)]) for lang in ("aa", "bb")}
    # One target of the new intervention is written as before, under another name.
    other["bb"] = Plan("down", plans()["bb"].writes)
    calls = counted(model)
    alone = measure(job, given, {"up": plans()}, CORRECTED)
    first = sum(calls)
    calls.clear()
    measure(job, given, {"up": {"aa": plans()["aa"]}}, CORRECTED)
    assert not calls
    both = measure(job, given, {"down": other, "up": plans()}, CORRECTED)
    added = sum(calls)
    assert 0 < added < first / 2
    assert both[both["intervention"] == "up"].reset_index(drop=True).equals(alone)
    assert both["intervention"].unique().tolist() == ["down", "up"]
    keys = ["base", "target", "fact"]
    wide = both.pivot(index=keys, columns="intervention")
    pd.testing.assert_series_equal(
        wide["own_before", "down"], wide["own_before", "up"], check_names=False
    )
    same = (wide["target_after", "down"] == wide["target_after", "up"]).groupby("target").all()
    assert same.to_dict() == {"aa": False, "bb": True}
    calls.clear()
    stored = SideStore(tmp_path / "new", "lss")
    once = measure(Run(job.model, stored, {}, 1), given, {"down": other, "up": plans()}, CORRECTED)
    assert sum(calls) == first + added and once.equals(both)


def test_the_order_of_facts_and_targets_changes_nothing(tmp_path):
    columns = ["base", "target", "fact"]
    one = run(tmp_path / "a").sort_values(columns, ignore_index=True)
    given = {lang: rows[::-1] for lang, rows in reversed(facts().items())}
    written = dict(reversed(plans().items()))
    other = run(tmp_path / "b", given=given, written=written, batch=8)
    other = other.sort_values(columns, ignore_index=True)
    pd.testing.assert_frame_equal(one, other, check_exact=False, atol=1e-4)


def test_missing_objects_and_premises_leave_facts_out(tmp_path, caplog):
    given = facts()
    del given["cc"][0]["objects"]["bb"]
    given["cc"][1]["template"] = "[Y] w4 w8 [X]"
    frame = run(tmp_path, given=given)
    found = {key: list(part["fact"]) for key, part in frame.groupby(["base", "target"])}
    assert found["cc", "bb"] == ["f3"] and found["cc", "aa"] == ["f1", "f3"]
    assert "cc: 1 facts name the subject after the object" in caplog.text
    for rows in given.values():
        for one in rows:
            one["objects"].pop("aa", None)
    with pytest.raises(ValueError, match=r"no fact has an object in 'aa'.*bb, cc"):
        run(tmp_path, given=given)


# Facts -------------------------------------------------------------------------------------------


def raw(**changes):
    row = {"template": "[X] is in [Y].", "sub_en": "S", "obj_en": "O", "obj_fr": " Ô "}
    return {**row, "obj_hi": None, "predicate_id": "P30", **changes}


def test_rows_of_mlama_become_facts():
    (one,) = read_facts([raw()], "en")
    assert one == fact("00000", "[X] is in [Y].", "S", en="O", fr="Ô") | {"predicate": "P30"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sub_en": ""}, "row 1, field 'sub_en' is .*text that is not blank"),
        ({"obj_en": None}, "row 1, field 'obj_en' is null. Expected: text"),
        ({"template": "[X] is."}, r"'\[X\] is.' does not hold \[Y\] once"),
        ({"template": "[X] [X] [Y]"}, r"does not hold \[X\] once"),
    ],
)
def test_rows_that_cannot_be_used_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        read_facts([raw(**changes)], "en")


def test_facts_come_from_files_and_from_the_package(tmp_path):
    write_jsonl(tmp_path / "en.jsonl", [raw(), raw(sub_en="T")])
    source = {"kind": "jsonl", "path": str(tmp_path / "{lang}.jsonl")}
    prepare_facts(source, "en", tmp_path / "out.jsonl", 1)
    assert [one["subject"] for one in read_jsonl(tmp_path / "out.jsonl")] == ["S"]
    with pytest.raises(FileNotFoundError, match=r"lss.source.path: .*fr.jsonl does not exist"):
        fetch_facts(source, "fr")
    write_jsonl(tmp_path / "en.jsonl", [raw(id="a"), raw(id="a")])
    with pytest.raises(ValueError, match="en.jsonl, line 2: id 'a' is that of .*line 1"):
        prepare_facts(source, "en", tmp_path / "out.jsonl")
    mini = read_facts(fetch_facts({"kind": "mini"}, "ja"), "ja")
    assert len(mini) == 48 and mini[0]["objects"]["en"] == "Cairo"


def test_mini_facts_all_have_a_premise_and_no_paper_residue_is_hidden():
    """Every mini fact is usable; the literal removal leaves [Y] where no space stands before it."""
    left = {}
    for lang in ("en", "fr", "es", "vi", "id", "ja", "zh", "hi", "ur"):
        rows = read_facts(fetch_facts({"kind": "mini"}, lang), lang)
        for row in rows:
            start = premise(row["template"], row["subject"], lang)
            assert start is not None and row["subject"] in start[0] and "[" not in start[0]
            assert start[1] == ("" if lang in ("ja", "zh") else " ")
        left[lang] = sum("[Y]" in premise(r["template"], "S", lang, PAPER)[0] for r in rows)
    assert {lang for lang, number in left.items() if number} == {"ja", "zh"}


# Tables ------------------------------------------------------------------------------------------


def about(premises=CORRECTED, bases=("aa", "bb"), targets=("aa", "bb"), neurons=5, n_facts=4):
    return {
        "premises": premises,
        "bases": list(bases),
        "targets": list(targets),
        "facts": dict.fromkeys(bases, n_facts),
        "neurons": dict.fromkeys(targets, neurons),
    }


def records(margins, ties=()):
    """Return records whose margins are given by (base, target); ties by (base, target, fact)."""
    rows = []
    for (base, target), values in margins.items():
        for k, value in enumerate(values):
            row = {"base": base, "target": target, "fact": f"f{k}", "predicate": "P1"}
            row |= {"tie": (base, target, f"f{k}") in ties, "own_before": -1.0}
            row |= {"target_before": -3.0, "own_after": -1.0 - value / 2}
            rows.append(row | {"target_after": -3.0 + value / 2, "cut": 0})
    return pd.DataFrame(rows)


MARGINS = {("aa", "bb"): (1.0, -2.0, 3.0, 0.5), ("bb", "aa"): (-1.0, -1.0, 2.0, 1e-9)}
TIES = {("aa", "bb", "f3"), ("bb", "aa", "f3")}


def test_cells_by_hand():
    cells = lss_cells(records(MARGINS, TIES), about(), RESULTS).set_index(["base", "target"])
    one = cells.loc[("aa", "bb")]
    assert (one["facts"], one["unusable"], one["ties"], one["n"]) == (4, 0, 1, 3)
    assert one["lss"] == pytest.approx(2 / 3) and one["margin"] == pytest.approx(2 / 3)
    assert one["low"] < one["lss"] < one["high"] < 1
    # Margins 1, -2, 3: standard deviation 2.5166, t of 2 degrees at 97.5 %: 4.302653.
    half = 4.302653 * 2.516611 / math.sqrt(3)
    assert one["margin_low"] == pytest.approx(2 / 3 - half, abs=1e-5)
    assert one["margin_high"] == pytest.approx(2 / 3 + half, abs=1e-5)
    assert cells.loc[("bb", "aa"), "lss"] == pytest.approx(1 / 3)
    for lang in ("aa", "bb"):
        assert math.isnan(cells.loc[(lang, lang), "lss"]) and cells.loc[(lang, lang), "n"] == 0


def test_cells_as_the_paper_counts():
    """Equal objects are failures though their scores round apart; the diagonal is 0."""
    cells = lss_cells(records(MARGINS, TIES), about(PAPER), RESULTS).set_index(["base", "target"])
    assert cells.loc[("aa", "bb"), ["n", "ties"]].tolist() == [4, 1]
    assert cells["lss"].to_dict() == pytest.approx(
        {("aa", "aa"): 0, ("aa", "bb"): 0.5, ("bb", "aa"): 0.25, ("bb", "bb"): 0}
    )


def test_facts_left_out_and_targets_without_neurons():
    cells = lss_cells(records(MARGINS), about(n_facts=6), RESULTS)
    assert cells[cells["n"] > 0]["unusable"].tolist() == [2, 2]
    metadata = about()
    metadata["neurons"]["bb"] = 0
    cells = lss_cells(records(MARGINS), metadata, RESULTS).set_index(["base", "target"])
    assert math.isnan(cells.loc[("aa", "bb"), "lss"]) and cells.loc[("bb", "aa"), "n"] == 4
    summary = lss_summary([(LABELS, records(MARGINS), metadata)], RESULTS, {})
    assert set(summary["target"]) == {ALL, "aa"} and summary["lss"].tolist() == [0.5, 0.5]


LABELS = {"model": "m", "protocol": "corrected", "languages": "two"}
LABELS |= {"selection": "LAPE", "intervention": "max"}


def summary_of(own, control, **changes):
    results = RESULTS | changes
    matrices = [
        (LABELS, records(own), about(n_facts=40)),
        (LABELS | {"selection": "random"}, records(control), about(n_facts=40)),
    ]
    return lss_summary(matrices, results, {"random": "LAPE"})


def test_summary_stands_beside_its_control():
    generator = np.random.default_rng(0)
    high = {cell: generator.normal(3, 1, 40) for cell in MARGINS}
    low = {cell: generator.normal(0, 1, 40) for cell in MARGINS}
    table = summary_of(high, low)
    assert table["selection"].tolist() == ["LAPE"] * 3 + ["random"] * 3
    row = table[(table["selection"] == "LAPE") & (table["target"] == ALL)].iloc[0]
    shares = [np.mean(values > 0) for values in high.values()]
    others = [np.mean(values > 0) for values in low.values()]
    assert row["lss"] == pytest.approx(np.mean(shares))
    assert row["margin"] == pytest.approx(np.mean([v.mean() for v in high.values()]))
    assert (row["control"], row["cells"], row["n"]) == ("random", 2, 80)
    assert row["control_lss"] == pytest.approx(np.mean(others))
    assert row["difference"] == pytest.approx(np.mean(shares) - np.mean(others))
    assert 0 < row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["p"] < 0.01 and row["p_holm"] < 0.01
    by_target = table[(table["selection"] == "LAPE")].set_index("target")["lss"]
    assert by_target["bb"] == pytest.approx(np.mean(high["aa", "bb"] > 0))
    control = table[table["selection"] == "random"]
    assert control["control"].eq("").all() and control["p"].isna().all()


def test_a_selection_equals_itself():
    generator = np.random.default_rng(1)
    same = {cell: generator.normal(0, 1, 30) for cell in MARGINS}
    row = summary_of(same, same).iloc[0]
    # No fact of 30 differs, so at most 1 - 0.025^(1/30) of all facts do.
    assert row["difference"] == 0 and row["p"] == 1
    assert row["p_least"] == 2.0**-29 and row["facts"] == 30  # one test over all cells
    assert row["difference_high"] == -row["difference_low"] == pytest.approx(1 - 0.025 ** (1 / 30))


def test_intervals_draw_facts_jointly_in_all_cells():
    """Cells that agree fact by fact are one sample; their mean is as uncertain as one of them."""
    values = np.where(np.arange(40) % 2 == 0, 1.0, -1.0)
    agree = summary_of({cell: values for cell in MARGINS}, MARGINS).iloc[0]
    opposed = {("aa", "bb"): values, ("bb", "aa"): -values}
    cancel = summary_of(opposed, MARGINS).iloc[0]
    single = lss_cells(records({("aa", "bb"): values}), about(n_facts=40), RESULTS)
    width = float(single["high"].max() - single["low"].min())
    assert agree["high"] - agree["low"] == pytest.approx(width, abs=0.06)
    # Every fact counts one half: only the exact interval of facts that are all alike is left.
    assert cancel["high"] - cancel["low"] == pytest.approx(1 - 0.025 ** (1 / 40))
    assert agree["lss"] == cancel["lss"] == 0.5


def test_matrix_follows_the_order_and_keeps_bases_outside_the_set():
    cells = lss_cells(
        records({("zz", "bb"): (1.0,), ("aa", "bb"): (-1.0,)}),
        about(bases=("aa", "zz"), targets=("bb",), n_facts=1),
        RESULTS,
    )
    frame = matrix(cells, ["bb", "aa"])
    assert list(frame.index) == ["aa", "zz"] and list(frame.columns) == ["bb"]
    assert frame["bb"].tolist() == [0.0, 1.0]


# Configuration -----------------------------------------------------------------------------------


def config(**lss):
    return {
        "name": "c",
        "models": {"m": {"source": {"kind": "local", "path": "p"}, "dtype": "float32"}},
        "language_sets": {"three": ["en", "vi", "ja"], "two": ["en", "hi"]},
        "selections": {
            "lape": {"method": "lape", "label": "LAPE"},
            "random": {"method": "random", "like": "lape", "match": "layer", "label": "control"},
        },
        "interventions": {
            "mean": {"operation": "set", "value": "mean"},
            "p95": {"operation": "set", "value": "p95"},
        },
        "protocols": {"corrected": {}, "published": {"lss": "paper"}},
        "lss": {"interventions": ["mean"]} | lss,
    }


def test_cells_and_languages():
    built = build(config(language_sets=["three"], bases=["hi", "en"], targets=["ja", "vi"]))
    folder = "en-ja-vi"
    assert built.lss_cells("m") == [(folder, "lape", "mean"), (folder, "random", "mean")]
    assert built.lss_languages(folder) == (("en", "hi"), ("ja", "vi"))
    given = stage(
        built,
        "measure_lss",
        model="m",
        variant="lss",
        langset=folder,
        selection="lape",
    )
    assert list(given["interventions"]) == ["mean"]
    assert given["premises"] == "paper" and given["bases"] == ["en", "hi"]
    assert labels_of(built).controls == {"random": "lape"}


def test_the_protocol_reaches_the_stage_alone():
    protocol = Protocol(lss="paper")
    assert protocol.variant("steering") == "lss" and protocol.variant("perplexity") == "corrected"
    assert protocol.of("steering").lss == "paper"
    assert protocol.of("perplexity") == Protocol()
    assert Protocol(**dict.fromkeys(Protocol.model_fields, "paper")).variant("steering") == "paper"


@pytest.mark.parametrize(
    ("lss", "message"),
    [
        ({"interventions": ["meen"]}, "lss.interventions: 'meen'.*mean"),
        ({"interventions": []}, "lss.interventions: empty"),
        ({"selections": ["lap"]}, "lss.selections: 'lap'.*lape"),
        ({"language_sets": ["thre"]}, "lss.language_sets: 'thre'.*three"),
        ({"targets": ["vj"]}, "lss.targets: 'vj'"),
        ({"targets": ["fr"]}, "lss.targets: 'fr'"),
        ({"bases": ["en"], "targets": ["en"]}, "no target language differs from a base"),
        ({"bases": ["de"]}, "lss: 'de'.*language of the mini facts"),
        ({"source": {"kind": "jsonl", "path": "x.jsonl"}}, "lss.source.path: 'x.jsonl' lacks"),
        ({"source": {"kind": "hubb"}}, "lss.source.kind: 'hubb' is not legal.*hub"),
        ({"source": {"kind": "hub", "revision": "main"}}, "lss.source.hub.revision|lss.source.rev"),
        ({"limits": 3}, "lss.limits: unknown key.*limit"),
    ],
)
def test_mistakes_are_named(lss, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        build(config(**lss))
