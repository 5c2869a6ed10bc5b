"""Trials: strengths, doses, the choice on development documents, tests, controls, tables."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from inprocess import run
from test_interventions import write
from test_perplexity import corpus
from test_workflow import CONFIG, save_tiny_model
from tiny import HIDDEN, tiny_model

from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import read_parquet
from langneurons.base.store import SideStore
from langneurons.config import build
from langneurons.evaluation.dose import divergence, doses, solve
from langneurons.evaluation.perplexity import HeldOut, document_nll
from langneurons.evaluation.run import Run
from langneurons.evaluation.trials import (
    DEVELOPMENT,
    TEST,
    Draw,
    Protocol,
    Setting,
    Texts,
    run_trial,
)
from langneurons.interventions.operations import OPERATIONS
from langneurons.interventions.plan import Plan, Write
from langneurons.interventions.strength import at_strength
from langneurons.models.language_model import LanguageModel
from langneurons.reporting.hypotheses import Evidence, judged, verdict
from langneurons.reporting.tables.perplexity import perplexity_change
from langneurons.reporting.tables.trials import (
    cell_rows,
    control_rows,
    dose_rows,
    method_row,
    target_rows,
)
from langneurons.reporting.trials import Trial, area, rank_p
from langneurons.reporting.uncertainty import holm
from langneurons.scoring.divergence import token_kl
from langneurons.selection.table import NeuronTable

RESULTS = {"bootstrap": 400, "confidence": 0.95, "seed": 0, "alpha": 0.05}
INDEX = np.array([3, 5, 40])


# ------------------------------------------------------------------------------- strength and dose


def after(plan: Plan, values: torch.Tensor) -> torch.Tensor:
    """Return what a plan's writes make of the values of their neurons, (tokens, neurons)."""
    values = values.clone()
    for one in plan.writes:
        value = torch.from_numpy(np.asarray(one.value, np.float64))
        operation = OPERATIONS[one.operation]
        if operation.along:
            values = operation.function(values, value, one.amount)
        else:
            values = operation.function(values, value).expand_as(values).clone()
    return values


def unit(size: int) -> np.ndarray:
    vector = np.random.default_rng(1).normal(size=size)
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("operation", ["set", "add", "scale", "project_out"])
def test_a_strength_moves_along_the_line_of_the_operation(operation, strength):
    value = unit(3) if operation == "project_out" else np.array([0.5, -2.0, 3.0])
    site = "residual" if operation == "project_out" else "act"
    plan = Plan("x", [Write(0, site, operation, INDEX, value)])
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 3)))
    expected = values + strength * (after(plan, values) - values)
    np.testing.assert_allclose(after(at_strength(plan, strength), values), expected, atol=1e-12)


def test_operations_that_are_no_line_have_one_strength():
    plan = Plan("x", [Write(0, "act", "at_least", INDEX, np.zeros(3))])
    assert at_strength(plan, 1.0) is plan
    with pytest.raises(InputError, match="at_least: has no strength other than 1"):
        at_strength(plan, 0.5)


def plans() -> list[Plan]:
    direction = [Write(0, "residual", "add", np.arange(HIDDEN), 0.3 * unit(HIDDEN))]
    out = [Write(1, "residual", "project_out", np.arange(HIDDEN), unit(HIDDEN))]
    return [
        Plan("zero", [write("set", 0, 0, index=INDEX), write("set", 0.0, 1, index=INDEX)]),
        Plan("nothing"),
        Plan("add", [write("add", 1.5, 1, "product", INDEX)]),
        Plan("direction", direction),
        Plan("out", out),
    ]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_a_dose_is_the_mean_change_of_the_last_stream(family):
    model, part = LanguageModel(tiny_model(family)), corpus("aa", 0).identification
    seen: list[torch.Tensor] = []
    model.sites.layers[-1].register_forward_hook(
        lambda _m, _i, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    found = doses(model, plans(), part, 64)
    from langneurons.interventions.apply import applied

    for plan, dose in zip(plans(), found, strict=True):
        shares = []
        for row, length, scored in zip(part.tokens, part.lengths, part.scored, strict=True):
            ids, states = torch.from_numpy(row[None, :length].astype(np.int64)), []
            for strict in (None, False):
                seen.clear()
                with torch.inference_mode():
                    if strict is None:
                        model.model(input_ids=ids)
                    else:
                        with applied(model, plan, strict):
                            model.model(input_ids=ids)
                states.append(seen[-1].reshape(length, -1).double()[scored[:length]])
            shares += ((states[1] - states[0]).norm(dim=1) / states[0].norm(dim=1)).tolist()
        assert dose == pytest.approx(np.mean(shares), rel=1e-4, abs=1e-9)
    assert found[1] == 0.0 and min(found[0], found[2], found[3], found[4]) > 0
    assert doses(model, plans(), part, 8) == pytest.approx(found, rel=1e-4)


def test_strengths_are_solved_for():
    model, part = LanguageModel(tiny_model("llama")), corpus("aa", 0).identification
    for asked in (0.01, 0.1):
        found = solve(plans(), asked, lambda some: doses(model, some, part, 200))
        for plan, one in zip(plans(), found, strict=True):
            if plan.empty:
                assert not one.reached and one.strength == 0.0
            elif one.reached:
                assert one.dose == pytest.approx(asked, rel=0.02)
                again = doses(model, [at_strength(plan, one.strength)], part, 200)
                assert again == pytest.approx([one.dose], rel=1e-4)
            else:  # taking a direction out has a largest dose
                assert plan.name == "out" or one.strength > 100
        assert sum(one.reached for one in found) >= 3


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_divergence_is_that_of_the_next_token(family):
    from langneurons.interventions.apply import applied

    model, part = LanguageModel(tiny_model(family)), corpus("aa", 0).identification
    found = divergence(model, plans(), part, 64)
    for plan, dose in zip(plans(), found, strict=True):
        values = []
        for row, length, scored in zip(part.tokens, part.lengths, part.scored, strict=True):
            ids = torch.from_numpy(row[None, :length].astype(np.int64))
            with torch.inference_mode():
                before = model.model(input_ids=ids).logits[0].double().log_softmax(-1)
                with applied(model, plan, False):
                    after = model.model(input_ids=ids).logits[0].double().log_softmax(-1)
            own = (before.exp() * (before - after)).sum(-1)  # predicts the token after its place
            values += own[:-1][scored[1:length]].tolist()
        assert dose == pytest.approx(np.mean(values), rel=1e-3, abs=1e-7)
    assert found[1] == 0.0 and min(found[0], found[2], found[3]) > 0
    assert divergence(model, plans(), part, 8) == pytest.approx(found, rel=1e-3)
    asked = found[2] / 3
    solved = solve(plans(), asked, lambda some: divergence(model, some, part, 64))
    assert solved[2].reached and solved[2].dose == pytest.approx(asked, rel=0.02)
    again = divergence(model, [at_strength(plans()[2], solved[2].strength)], part, 64)
    assert again == pytest.approx([solved[2].dose], rel=1e-4)


# -------------------------------------------------------------------------------------- the trial

LANGS = ("aa", "bb", "cc")


def texts(store: Path, model=None, **changes) -> Texts:
    sizes = tuple([6, 9, 5, 14, 7, 8, 11, 6, 9, 5, 7, 12])
    corpora = {lang: corpus(lang, 5, sizes=sizes) for lang in LANGS}
    for one in corpora.values():
        one.heldout.documents[:] = [f"d{k}" for k in range(len(sizes))]
    lm = LanguageModel(model if model is not None else tiny_model("llama"))
    settings = {"dose_tokens": 30, "documents": None, "development": 0.4, "choose": "specificity"}
    protocol = Protocol(**settings | {"seed": 0} | changes)
    return Texts(Run(lm, SideStore(store, "trials"), {"code": "1"}, 300), corpora, protocol)


def test_a_dose_by_divergence_is_of_one_text_for_all_targets(tmp_path):
    own = texts(tmp_path, dose_by="kl", dose_language="bb")
    own.corpora["bb"] = corpus("bb", 9)
    part = own.corpora["bb"].identification.first(30)
    plan = plans()[2]
    asked = divergence(own.run.model, [plan], part, 300)[0] / 2
    for target in ("aa", "bb"):
        (found,) = own.dosed(target, [plan], asked)
        assert found.solved.reached
        again = divergence(own.run.model, [found.plan], part, 300)
        assert again == pytest.approx([found.solved.dose], rel=1e-4)
        assert again == pytest.approx([asked], rel=0.02)
    other = own.corpora["aa"].identification.first(30)
    assert divergence(own.run.model, [found.plan], other, 300) != pytest.approx([asked], rel=0.02)


SETTINGS = [Setting(name, "zero", dose) for name in ("one", "two") for dose in (0.02, 0.05)]


def plan_of(setting: Setting, target: str) -> Plan:
    place = LANGS.index(target) + 10 * (setting.selection == "two")
    index = np.arange(place, place + 12, 3)
    return Plan("zero", [write("set", 0.0, layer, index=index) for layer in (0, 1)])


def controls(setting: Setting, target: str):
    rng = np.random.default_rng(LANGS.index(target))
    for number in range(3):
        index = np.sort(rng.choice(48, 4, replace=False))
        yield Draw("layer", number), Plan("zero", [write("set", 0.0, 0, index=index)])


def trial(store: Path, **changes):
    return run_trial(texts(store, **changes), ["aa", "bb"], SETTINGS, plan_of, controls)


def test_documents_fall_on_one_side_in_every_language(tmp_path):
    one = texts(tmp_path)
    by_side = {}
    for lang in LANGS:
        for side in (DEVELOPMENT, TEST):
            frame = one.nll(lang, side, [Plan("none")])[0]
            by_side.setdefault(side, set()).add(tuple(frame["document"]))
            whole = document_nll(one.run.model, one.corpora[lang], HeldOut(), 300)
            kept = whole[whole["document"].isin(frame["document"])].reset_index(drop=True)
            pd.testing.assert_frame_equal(frame, kept, rtol=1e-5)
    ((development,), (test,)) = by_side[DEVELOPMENT], by_side[TEST]
    assert not set(development) & set(test) and len(development) + len(test) == 12
    assert len(development) > 2 and len(test) > 2


def test_a_side_without_documents_is_said(tmp_path):
    with pytest.raises(InputError, match="[01] held-out documents of aa fall to the"):
        texts(tmp_path, documents=3)


@pytest.mark.parametrize("choose", ["specificity", "own"])
def test_the_setting_with_the_best_development_score_is_tested(tmp_path, choose):
    records, chosen = trial(tmp_path, choose=choose)
    assert chosen["settings"].eq(4).all() and len(chosen) == 4 and chosen["best"].sum() == 2
    development = records[records["phase"] == DEVELOPMENT]

    def rate(frame):
        return frame["nll"].sum() / frame["tokens"].sum()

    base = {
        lang: rate(
            development[(development["target"] == "none") & (development["evaluated"] == lang)]
        )
        for lang in ("aa", "bb")
    }
    assert set(development["evaluated"]) == {"aa", "bb"}  # cc is read, and is not of the set
    for target in ("aa", "bb"):
        scores = {}
        for setting in SETTINGS:
            rows = development[
                (development["target"] == target)
                & (development["selection"] == setting.selection)
                & (development["asked"] == setting.dose)
            ]
            change = {k: rate(rows[rows["evaluated"] == k]) - base[k] for k in ("aa", "bb")}
            others = np.mean([change[k] for k in ("aa", "bb") if k != target])
            score = change[target] - (others if choose == "specificity" else 0.0)
            scores[setting] = score
        own = chosen[chosen["target"] == target]
        for dose in (0.02, 0.05):
            row = own[own["asked"] == dose].iloc[0]
            at = {one: score for one, score in scores.items() if one.dose == dose}
            assert row["selection"] == max(at, key=at.get).selection
            assert row["score"] == pytest.approx(max(at.values()), abs=1e-9)
        best = own[own["best"]].iloc[0]
        assert best["score"] == own["score"].max()
        assert best["dose"] == pytest.approx(best["asked"], rel=0.02) and best["reached"]


def test_tests_and_controls_are_read_as_one_by_one(tmp_path):
    one = texts(tmp_path)
    records, chosen = trial(tmp_path)
    test = records[(records["phase"] == TEST) & (records["target"] == "aa")]
    assert set(test["evaluated"]) == set(LANGS) and test["asked"].nunique() == 2
    for row in chosen[chosen["target"] == "aa"].to_dict("records"):
        setting = SETTINGS[row["number"]]
        plan = at_strength(plan_of(setting, "aa"), row["strength"])
        for lang in LANGS:
            rows = test[(test["asked"] == row["asked"]) & (test["evaluated"] == lang)]
            whole = document_nll(one.run.model, one.corpora[lang], HeldOut(), 300, plan)
            whole = whole.set_index("document").loc[rows["document"]]
            np.testing.assert_allclose(rows["nll"], whole["nll"], rtol=1e-5)
    control = records[records["phase"] == "control"]
    assert set(control["draw"]) == {0, 1, 2}
    for (target, _, lang), rows in control.groupby(["target", "draw", "evaluated"]):
        assert lang in ("aa", "bb")  # the target, and of two languages the only other one
        best = chosen[(chosen["target"] == target) & chosen["best"]].iloc[0]
        assert (rows["asked"] == best["asked"]).all()
        assert rows["dose"].iloc[0] == pytest.approx(best["asked"], rel=0.02)
        assert set(rows["document"]) == set(test["document"])


def test_divergences_are_measured_on_test_documents_under_the_chosen_settings(tmp_path):
    one = texts(tmp_path)
    plain, chosen = trial(tmp_path)
    records, _ = trial(tmp_path, kl=True)
    pd.testing.assert_frame_equal(records.drop(columns="kl"), plain.drop(columns="kl"))
    assert plain["kl"].isna().all()
    measured = (records["phase"] == TEST) & (records["target"] != "none")
    assert (records["kl"].notna() == measured).all() and (records["kl"][measured] > 0).all()
    for row in chosen.to_dict("records"):
        plan = at_strength(plan_of(SETTINGS[row["number"]], row["target"]), row["strength"])
        for lang in LANGS:
            own = records[(records["target"] == row["target"]) & (records["evaluated"] == lang)]
            own = own[(own["asked"] == row["asked"]) & (own["phase"] == TEST)]
            part = one.parts[lang, TEST]
            kl = token_kl(one.run.model, part.tokens, part.lengths, part.scored, 300, [plan])[0]
            by_name = own.set_index("document")["kl"]
            for number, name in enumerate(part.documents):
                if name in by_name:
                    expected = np.nansum(kl[part.document == number])
                    assert by_name[name] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_killed_trial_goes_on_and_reads_nothing_twice(tmp_path):
    expected, chosen = trial(tmp_path / "whole")
    model, calls = tiny_model("llama"), [0]

    def dies(*_):
        calls[0] += 1
        if calls[0] == 30:
            raise KeyboardInterrupt

    handle = model.model.layers[0].register_forward_hook(dies)
    with pytest.raises(KeyboardInterrupt):
        run_trial(texts(tmp_path / "a", model), ["aa", "bb"], SETTINGS, plan_of, controls)
    handle.remove()
    found, again = trial(tmp_path / "a")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
    pd.testing.assert_frame_equal(again, chosen, rtol=1e-5)
    third, model = texts(tmp_path / "a", tiny_model("llama")), []
    third.run.model.sites.layers[0].register_forward_hook(lambda *_: model.append(1))
    run_trial(third, ["aa", "bb"], SETTINGS, plan_of, controls)
    assert not model


# ------------------------------------------------------------------------------------------ tables


def made(own: float, others: float, control: float, elsewhere: float = 0.1) -> Trial:
    """A trial of two targets whose changes per token are known, up to noise of mean 0."""
    rng, frames, documents = np.random.default_rng(0), [], 40
    tokens = rng.integers(5, 30, documents)
    noise = rng.normal(size=documents) * 0.1
    noise -= (noise * tokens).sum() / tokens.sum()
    base = {"document": [f"d{k}" for k in range(documents)], "tokens": tokens, "strength": 1.0}
    base |= {"selection": "s", "intervention": "zero", "reached": True, "match": "", "draw": -1}

    def add(phase, target, evaluated, asked, change, **more):
        nll = tokens * (3.0 + change + (noise if change else 0.0))
        frame = pd.DataFrame(base | more)
        frame = frame.assign(phase=phase, target=target, evaluated=evaluated, asked=asked)
        kl = tokens * np.abs(change) / 10 if phase == "test" and target != "none" else np.nan
        frames.append(frame.assign(nll=nll, dose=asked, kl=kl))

    for lang in LANGS:
        add("test", "none", lang, 0.0, 0.0)
        for target in ("aa", "bb"):
            for asked, factor in ((0.1, 0.5), (0.2, 1.0)):
                add("test", target, lang, asked, factor * (own if lang == target else others))
    for target in ("aa", "bb"):
        for draw in range(19):
            shift = control + 0.001 * (draw - 9)
            more = {"match": "layer", "draw": draw, "reached": draw != 4}
            add("control", target, target, 0.2, shift, **more)
            other = "bb" if target == "aa" else "aa"
            add("control", target, other, 0.2, elsewhere, match="layer", draw=draw)
    rows = [
        {"target": t, "asked": a, "dose": a, "reached": True, "strength": 1.0, "selection": "s"}
        | {"intervention": "zero", "settings": 2, "best": a == 0.2, "number": 0}
        for t in ("aa", "bb")
        for a in (0.1, 0.2)
    ]
    metadata = {"languages": ["aa", "bb"], "evaluated": list(LANGS), "chosen": rows, "settings": 2}
    metadata["protocol"] = {"kl": True}
    return Trial(pd.concat(frames, ignore_index=True), metadata, RESULTS)


def test_tables_say_what_was_put_in():
    trial = made(own=1.0, others=0.25, control=0.4)
    for row in target_rows(trial):
        assert row["own"] == pytest.approx(1.0) and row["others"] == pytest.approx(0.25)
        assert row["specificity"] == pytest.approx(0.75)
        assert row["ratio_of_mean"] == pytest.approx(4.0) and row["p"] < 1e-3
        assert row["own_low"] < 1.0 < row["own_high"] < 1.2
        assert row["kl"] == pytest.approx(0.1) and row["kl_others"] == pytest.approx(0.025)
    kl = {row["evaluated"]: row["kl"] for row in cell_rows(trial) if row["target"] == "aa"}
    assert kl == pytest.approx({"aa": 0.1, "bb": 0.025, "cc": 0.025})
    for row in control_rows(trial):
        assert row["draws"] == 19 and row["draws_at_dose"] == 18
        assert row["control"] == pytest.approx(0.4, abs=1e-6)
        assert row["left"] == pytest.approx(0.6) and row["p"] == pytest.approx(1 / 20)
        assert row["lowest"] == pytest.approx(0.391) and row["highest"] == pytest.approx(0.409)
        assert row["left_low"] < 0.6 < row["left_high"]
        assert row["control_specificity"] == pytest.approx(0.3, abs=1e-6)
        assert row["specificity_left"] == pytest.approx(1 - 0.3 / 0.75, abs=1e-6)
    assert [row["own"] for row in dose_rows(trial)] == pytest.approx([0.5, 1.0, 0.5, 1.0])
    row = method_row(trial)
    assert row["kl"] == pytest.approx(0.1) and row["kl_others"] == pytest.approx(0.025)
    assert row["own"] == pytest.approx(1.0) and row["left"] == pytest.approx(0.6)
    assert row["area"] == pytest.approx((0.25 * 0.1 + 0.75 * 0.1) / 0.2)
    assert row["p_control"] == pytest.approx(1 / 20) and row["detectable"] > 0


def test_an_effect_that_its_control_has_as_well_is_left_with_nothing():
    trial = made(own=0.4, others=0.4, control=0.4)
    row = method_row(trial)
    assert row["specificity"] == pytest.approx(0.0) and row["p"] == pytest.approx(1.0)
    assert row["left"] == pytest.approx(0.0, abs=1e-6) and row["p_control"] == pytest.approx(
        0.5, abs=0.06
    )
    silent = made(own=-0.1, others=0.0, control=0.1)
    assert np.isnan(control_rows(silent)[0]["left"]) and np.isnan(method_row(silent)["ratio"])


def test_small_measures():
    assert rank_p(1.0, [0.1] * 19) == pytest.approx(0.05) and rank_p(0.0, [0.1] * 19) == 1.0
    assert area([1.0, 3.0], [2.0, 2.0]) == pytest.approx((1.0 + 4.0) / 3.0)


# -------------------------------------------------------------------------------------- hypotheses

EMPTY = dict.fromkeys(("method", "over", "variant", "selection", "comparison", "language_set"))


def evidence(**trials: Trial) -> Evidence:
    frame = pd.DataFrame(
        {"lang": ["aa", "aa", "aa", "bb"], "layer": 0, "neuron": [1, 2, 3, 3], "score": 0.0}
    )
    table = NeuronTable(frame, {"languages": ["aa", "bb"], "n_layers": 1, "d_mlp": 5})
    of = {("m", "set", name): trial for name, trial in trials.items()}
    return Evidence(of, {("m", "set", "lape"): table}, RESULTS)


def judge(measure: str, direction: str, threshold: float, trials=None, **of) -> pd.Series:
    trials = trials or {"x": made(1.0, 0.25, 0.4), "y": made(0.5, 0.1, 0.1)}
    entry = {"says": "x", "measure": measure, "direction": direction, "threshold": threshold}
    hypotheses = {"h": EMPTY | entry | of}
    return judged(hypotheses, evidence(**trials), {"set": "set"}).iloc[0]


@pytest.mark.parametrize(
    "measure, of, value",
    [
        ("own", {"method": "x"}, 1.0),
        ("specificity", {"method": "x"}, 0.75),
        ("ratio", {"method": "x"}, 4.0),
        ("left", {"method": "x"}, 0.6),
        ("specificity_left", {"method": "x"}, 1 - 0.3 / 0.75),
        ("advantage", {"method": "x", "over": "y"}, 0.75 - 0.4),
        ("exclusive", {"selection": "lape"}, (2 / 3 + 0.0) / 2),
    ],
)
def test_measures_of_hypotheses(measure, of, value):
    row = judge(measure, "above", value - 0.3, **of)
    assert row["value"] == pytest.approx(value, abs=1e-6) and row["units"] == 2
    assert row["hypothesis"] == "h" and row["about"] == " / ".join(of.values())


def test_the_verdict_follows_side_and_p():
    assert verdict("above", 0.1, 0.01, 0.05) == verdict("below", -0.1, 0.01, 0.05) == "supported"
    assert verdict("above", -0.1, 0.01, 0.05) == verdict("below", 0.1, 0.01, 0.05) == "refuted"
    assert verdict("above", 0.1, 0.05, 0.05) == verdict("above", float("nan"), 0.0, 0.05)
    assert verdict("above", 0.1, 0.05, 0.05) == "undecided"


def test_verdicts_are_corrected_together():
    trials = {"x": made(1.0, 0.25, 0.4)}
    entry = {"says": "x", "direction": "above", "method": "x", "measure": "own"}
    many = {f"h{k}": EMPTY | entry | {"threshold": 0.9 + 0.02 * k} for k in range(8)}
    frame = judged(many, evidence(**trials), {"set": "set"})
    np.testing.assert_allclose(frame["p_holm"], holm(frame["p"].to_numpy()))
    assert (frame["p_holm"] >= frame["p"]).all() and len(frame) == 8


def test_a_hypothesis_of_what_was_not_read_is_undecided():
    row = judge("transfer", "above", 0.5, method="x", variant="romanised")
    assert np.isnan(row["value"]) and row["verdict"] == "undecided" and np.isnan(row["p_holm"])


# ------------------------------------------------------------------------------------- the graph

TRIALS = {
    "methods": {
        "lape": {"selections": ["lape"], "interventions": ["zero"], "label": "LAPE"},
        "diff": {"selections": ["diff"], "interventions": ["out"]},
    },
    "doses": [0.02, 0.1],
    "dose_tokens": 60,
    "documents": 9,
    "kl": True,
    "development": 0.4,
    "controls": {"draws": 2, "matches": ["layer", "write_norm"]},
    "language_sets": ["three"],
    "evaluated": ["zh"],
}


def configured(**changes) -> dict:
    kept = ("name", "models", "language_sets", "corpus")
    config = {key: CONFIG[key] for key in kept}
    config["corpus"] = config["corpus"] | {"heldout_tokens": 4000}
    config["statistics"] = {"sites": ["gate", "act", "product", "residual"], "batch_blocks": 4}
    config["selections"] = {
        "lape": {"method": "lape", "rate": 0.1},
        "diff": {"method": "diffmean", "layers": [1, 1]},
    }
    config["interventions"] = {
        "zero": {"operation": "set", "value": 0},
        "out": {"operation": "project_out", "value": "direction", "site": "residual"},
    }
    claim = {"says": "Neurons are specific.", "measure": "specificity", "method": "lape"}
    until = {"width": 50.0, "looks": 3}
    config["perplexity"] = {"interventions": ["zero"], "selections": ["lape"], "until": until}
    claim |= {"direction": "above", "threshold": 0.5}
    config["hypotheses"] = {"specific": claim, "own": claim | {"measure": "own"}}
    return config | {"trials": TRIALS | changes}


def test_trials_in_the_graph_end_in_the_leaderboard(tmp_path):
    save_tiny_model(tmp_path / "tiny-model")
    (tmp_path / "tiny.yaml").write_text(json.dumps(configured()))
    tables = tmp_path / "results/tables/tiny"
    done = run(tmp_path, tmp_path / "tiny.yaml", ("results/reports/tiny.html",))
    assert done.count("try_method") == 2 and "collect_statistics" in done
    board = pd.read_csv(tables / "leaderboard.csv")
    assert (board["kl_low"] < board["kl"]).all() and (board["kl"] > 0).all()
    assert "kl: Kullback-Leibler" in (tables / "leaderboard.md").read_text()
    assert set(board["method"]) == {"LAPE", "diff"} and (board["targets"] == 3).all()
    assert (board["settings"] == 2).all()
    (drawn,) = (tmp_path / "results/figures").rglob("doses.svg")
    meaning = "mean change of the residual stream after the last block"
    assert meaning in (tables / "trials.md").read_text()
    assert "Dose: mean change" in " ".join(re.findall(r"<!-- (.*?) -->", drawn.read_text()))
    claims = pd.read_csv(tables / "hypotheses.csv")
    assert claims["verdict"].isin(["supported", "refuted", "undecided"]).all()
    assert claims["hypothesis"].tolist() == ["specific", "own"]  # as the configuration lists them
    assert claims["about"].tolist() == ["LAPE", "LAPE"]
    cells = pd.read_csv(tables / "trial_cells.csv")
    assert set(cells["evaluated"]) == {"en", "vi", "hi", "zh"}
    changes, cells = pd.read_csv(tables / "perplexity.csv"), 0
    for path in (tmp_path / "results/tiny/perplexity").rglob("lape.parquet"):
        frame, metadata = read_parquet(path)
        until = metadata["until"]
        assert until["looks"] == 3 and until["width"] == 50 and until["taken"] == 1
        read = frame.groupby("evaluated")["document"].nunique()
        assert read.to_dict() == until["documents"] and (read > 1).all()
        own = changes[changes["nll_change"].isin(perplexity_change(frame, RESULTS)["nll_change"])]
        assert (own["documents"] == own["evaluated"].map(read)).all()
        cells += len(own)
    assert cells == len(changes) > 0
    note = (tables / "perplexity.md").read_text()
    assert "read in 1 of 3 looks" in note and "narrower than 50" in note
    page = (tmp_path / "results/reports/tiny.html").read_text()
    assert "Neurons are specific. Specificity is" in page  # the page opens on the hypotheses
    matches = pd.read_csv(tables / "trial_controls.csv").groupby("method")["match"].unique()
    assert set(matches["LAPE"]) == {"layer", "write_norm"} and set(matches["diff"]) == {"direction"}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"methods": {"x": {"selections": ["nope"], "interventions": ["zero"]}}}, "nope"),
        (
            {"methods": {"x": {"selections": ["lape"], "interventions": ["out"]}}},
            "writes dimensions",
        ),
        ({"evaluated": ["vi"]}, "in the set 'three' already"),
        ({"evaluated": ["fr"]}, "trials.evaluated: 'fr'"),
        ({"doses": [3.0]}, "3 is not a share"),
        ({"doses": [30.0, 1.0], "dose_by": "kl"}, "30 is not nats; legal: 0 to 20"),
        ({"dose_language": "en"}, "dose_language: it belongs to `dose_by: kl`"),
        ({"dose_by": "kl", "dose_language": "fr"}, "trials.dose_language: 'fr'.*zh"),
        ({"language_sets": ["four"]}, "four"),
        (
            {
                "methods": TRIALS["methods"]
                | {"more": {"selections": ["lape", "diff"], "interventions": ["zero"]}}
            },
            "same number of settings",
        ),
    ],
)
def test_trials_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        build(configured(**changes))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"method": "lap"}, "hypotheses.h.method: .*'lap'.*lape"),
        ({"measure": "advantage"}, "over: missing"),
        ({"measure": "advantage", "over": "lape"}, "`method` itself"),
        ({"variant": "romanised"}, "variant: has no effect with measure specificity"),
        ({"measure": "transfer", "variant": "nope"}, "variant.*'nope'"),
        ({"measure": "exclusive", "method": None, "selection": "diff"}, "gives dimensions"),
        ({"language_set": "four"}, "language_set.*four"),
    ],
)
def test_hypotheses_that_cannot_be_judged_are_refused(changes, said):
    config = configured()
    config["hypotheses"]["h"] = config["hypotheses"].pop("specific") | changes
    with pytest.raises(ConfigError, match=said):
        build(config)
