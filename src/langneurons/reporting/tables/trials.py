"""Tables of trials: every target, every cell, the controls, the doses, and the leaderboard."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.reporting.labels import Labels
from langneurons.reporting.records import Names, trial_records
from langneurons.reporting.tables.write import write_table
from langneurons.reporting.trials import (
    Estimate,
    Trial,
    area,
    control_changes,
    draw_means,
    mean_of,
    minus,
    over_targets,
    rank_p,
    ratio,
    ratio_estimate,
)
from langneurons.reporting.uncertainty import holm


def trials_of(files: list[str], labels: Labels) -> Iterator[tuple[Names, Trial]]:
    """Yield each method's trial with its model, set and method."""
    for names, frame, metadata in trial_records(files, labels):
        yield names, Trial(frame, metadata, labels.results)


def target_rows(trial: Trial) -> list[dict[str, Any]]:
    """Return a row per target: its chosen setting, its change, the others', their ratios."""
    confidence, rows = trial.results["confidence"], []
    for target in trial.targets:
        best = trial.best(target)
        own = trial.change(target, target, best["asked"])
        others = trial.others(target, best["asked"])
        mean, largest = mean_of(list(others.values())), max(others, key=lambda k: others[k].value)
        row: dict[str, Any] = {"target": target, "selection": best["selection"]}
        row |= {"intervention": best["intervention"], "settings": int(best["settings"])}
        row |= {"strength": best["strength"], "dose": best["dose"], "reached": best["reached"]}
        row |= {"documents": own.units} | own.columns("own", confidence)
        row |= mean.columns("others", confidence)
        row |= {"largest_other": largest, "largest": others[largest].value}
        row |= minus(own, mean).columns("specificity", confidence, p=True)
        if trial.has_kl:
            row |= trial.kl(target, target, best["asked"]).columns("kl", confidence)
            row |= trial.other_kl(target, best["asked"]).columns("kl_others", confidence)
        for name, below in (("of_mean", mean), ("of_largest", others[largest])):
            value, low, high = ratio(own, below, confidence)
            row |= {f"ratio_{name}": value, f"ratio_{name}_low": low, f"ratio_{name}_high": high}
        rows.append(row)
    return rows


def control_rows(trial: Trial) -> list[dict[str, Any]]:
    """Return a row per target and control: the draws, and the shares of effects that are left."""
    confidence, rows = trial.results["confidence"], []
    for target in trial.targets:
        asked = trial.best(target)["asked"]
        own = trial.change(target, target, asked)
        specific = minus(own, mean_of(list(trial.others(target, asked).values())))
        elsewhere = trial.controls(target, others=True)
        for match, draws in trial.controls(target).items():
            mean, values = mean_of(draws), [one.value for one in draws]
            row = {"target": target, "match": match, "draws": len(draws)}
            row |= {"draws_at_dose": trial.draws_at_dose(target, match), "own": own.value}
            row |= {"control": mean.value, "lowest": min(values), "highest": max(values)}
            row |= _share("left", _left(own, mean), confidence) | {"p": rank_p(own.value, values)}
            rest = minus(mean, mean_of(elsewhere[match]))
            row |= {"specificity": specific.value, "control_specificity": rest.value}
            rows.append(row | _share("specificity_left", _left(specific, rest), confidence))
    return rows


def _share(name: str, share: Estimate | None, confidence: float) -> dict[str, float]:
    """Return a share with its interval as columns, empty where there is none."""
    if share is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), math.nan)
    return share.columns(name, confidence)


def _left(own: Estimate, control: Estimate) -> Estimate | None:
    """Return 1 - control / own, None where the effect is not above 0."""
    share = ratio_estimate(control, own)
    return None if share is None else share.line(-1.0, 1.0)


def dose_rows(trial: Trial) -> list[dict[str, Any]]:
    """Return a row per target and dose: the change of the target and the mean of the others."""
    confidence, rows = trial.results["confidence"], []
    for row in trial.chosen.to_dict("records"):
        own = trial.change(row["target"], row["target"], row["asked"])
        mean = mean_of(list(trial.others(row["target"], row["asked"]).values()))
        kept = ("target", "asked", "dose", "reached", "strength", "selection", "intervention")
        found = {key: row[key] for key in kept} | own.columns("own", confidence)
        rows.append(found | mean.columns("others", confidence) | {"best": row["best"]})
    return rows


def cell_rows(trial: Trial) -> list[dict[str, Any]]:
    """Return a row per target and language that is read, at the chosen setting."""
    confidence, rows = trial.results["confidence"], []
    for target in trial.targets:
        asked = trial.best(target)["asked"]
        for lang in trial.evaluated():
            change = trial.change(target, lang, asked)
            row = {"target": target, "evaluated": lang, "documents": change.units}
            row |= change.columns("change", confidence, p=True)
            if trial.has_kl:
                row |= trial.kl(target, lang, asked).columns("kl", confidence)
            rows.append(row)
    return rows


def method_row(trial: Trial) -> dict[str, Any]:
    """Return what is said of a method over its targets."""
    results = trial.results
    confidence, seed = results["confidence"], results["seed"]
    best = {target: trial.best(target) for target in trial.targets}
    own = [trial.change(t, t, best[t]["asked"]) for t in trial.targets]
    others = [mean_of(list(trial.others(t, best[t]["asked"]).values())) for t in trial.targets]
    specific = over_targets([minus(a, b) for a, b in zip(own, others, strict=True)], seed)
    together, rest = over_targets(own, seed), over_targets(others, seed)
    value, low, high = ratio(together, rest, confidence)
    settings = int(trial.metadata["settings"])
    row: dict[str, Any] = {"targets": len(trial.targets), "settings": settings}
    row |= {"dose": float(np.mean([one["dose"] for one in best.values()]))}
    row |= together.columns("own", confidence) | rest.columns("others", confidence)
    row |= specific.columns("specificity", confidence, p=True)
    if trial.has_kl:
        kl = [trial.kl(t, t, best[t]["asked"]) for t in trial.targets]
        row |= over_targets(kl, seed).columns("kl", confidence)
        kl = [trial.other_kl(t, best[t]["asked"]) for t in trial.targets]
        row |= over_targets(kl, seed).columns("kl_others", confidence)
    row |= {"ratio": value, "ratio_low": low, "ratio_high": high}
    row |= {"detectable": specific.detectable(results["alpha"])}
    row |= _against_controls(trial, together, specific, seed)
    doses = trial.doses()
    curve = [
        float(np.mean([trial.change(t, t, dose).value for t in trial.targets])) for dose in doses
    ]
    return row | {"area": area(doses, curve)}


def _against_controls(trial: Trial, own: Estimate, specific: Estimate, seed: int) -> dict[str, Any]:
    """Return the strongest control, and what is left of effects beside it.

    The control that changes targets most, and the most specific one. A draw of a method is the
    mean over targets of the draws of one number.
    """
    confidence, found = trial.results["confidence"], control_changes(trial, seed)
    if not found:
        return {}
    strongest = max(found, key=lambda match: found[match][0].value)
    control = found[strongest][0]
    most = max((rest for _, rest in found.values()), key=lambda one: one.value)
    row = {"strongest_control": strongest, "control_change": control.value}
    row |= _share("left", _left(own, control), confidence)
    row |= {"p_control": rank_p(own.value, draw_means(trial)[strongest])}
    row |= {"control_specificity": most.value}
    return row | _share("specificity_left", _left(specific, most), confidence)


SHORT = (
    "Changes of NLL in nats per token on test documents; settings were chosen on others."
    " Intervals: bootstrap over documents"
)
NOTES = {
    "trials": "specificity: own change minus the mean of the others'. ratio_of_mean and"
    " ratio_of_largest: own change over the mean and over the largest of the others'."
    " dose: {dose}.",
    "trial_controls": "own: change of the target under the method; control: mean over draws of"
    " random neurons or directions at the same dose, which draws_at_dose of them reach; left: 1 -"
    " control / own; p: share of the draws, the method among them, that change the target as"
    " much. control_specificity: of the draws, each read in one other language, these in turn;"
    " specificity_left: 1 - that / specificity.",
    "trial_doses": "asked: dose that strengths were solved for; dose: that they have.",
    "trial_cells": "Every language under the setting chosen for each target; p_holm over the rows.",
    "leaderboard": "Means over target languages, which are drawn again with their documents."
    " specificity: own change minus the mean of the others'. strongest_control: the random control"
    " that changes targets most; left: what of the own change is not its doing. detectable: the"
    " smallest specificity that a test finds in four of five samples. area: mean own change over"
    " doses from 0 to the largest. p_holm over both tests of all rows.",
}
KL = (
    "kl: Kullback-Leibler divergence of the next-token distributions, untouched model first, nats"
    " per token; kl_others: mean of the other languages of the set."
)
TITLES = {
    "trials": "Methods on trial, by target language",
    "trial_controls": "Methods beside their random controls",
    "trial_doses": "Changes at each dose",
    "trial_cells": "Every language under each target's setting",
    "leaderboard": "Methods compared",
}


def tabulate_trials(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the tables of the trials."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in NOTES}
    dose = ""
    for names, trial in trials_of(files, labels):
        dose = trial.dose_is
        for name, rows in (
            ("trials", target_rows(trial)),
            ("trial_controls", control_rows(trial)),
            ("trial_doses", dose_rows(trial)),
            ("trial_cells", cell_rows(trial)),
            ("leaderboard", [method_row(trial)]),
        ):
            found[name] += [dict(names) | row for row in rows]
    for name, rows in found.items():
        frame = pd.DataFrame(rows)
        if name == "leaderboard":
            p = holm(frame[["p", "p_control"]].to_numpy().ravel()).reshape(-1, 2)
            frame = frame.assign(p_holm=p[:, 0], p_control_holm=p[:, 1])
            frame = frame.sort_values("specificity", ascending=False, kind="stable")
        elif "p" in frame:
            frame = frame.assign(p_holm=holm(frame["p"].to_numpy()))
        lines = [f"{SHORT}{' and target languages' if name == 'leaderboard' else ''}."]
        lines.append(NOTES[name].replace("{dose}", dose))
        if "kl" in frame:
            lines.append(KL)
        write_table(labels.shown(frame), folder / name, TITLES[name], lines)
