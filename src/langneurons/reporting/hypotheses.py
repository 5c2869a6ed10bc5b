"""The verdict on each hypothesis of a configuration: supported, refuted or undecided.

A measure comes with an interval and a p against the hypothesis's threshold; the p of all hypotheses
are corrected together (Holm). A hypothesis is supported where the measure lies on the side that it
claims and the corrected p is below the level, refuted where it lies on the other side and p is
below it, and undecided else.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from langneurons.reporting.agreement import replicated
from langneurons.reporting.tables.neurons import exclusive_shares
from langneurons.reporting.trials import (
    Estimate,
    Trial,
    control_changes,
    mean_of,
    minus,
    over_targets,
    ratio_estimate,
)
from langneurons.reporting.uncertainty import holm, resampling_counts
from langneurons.selection.stability_settings import HALVES

if TYPE_CHECKING:
    from langneurons.selection.table import NeuronTable

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
Place = tuple[str, str]  # model and language set


@dataclass(frozen=True)
class Evidence:
    """What hypotheses are judged by.

    trials: by model, set and method; tables: by model, set and selection; stability: records and
    metadata by these.
    """

    trials: Mapping[tuple[str, str, str], Trial]
    tables: "Mapping[tuple[str, str, str], NeuronTable]"
    results: Mapping[str, Any]
    stability: Mapping[tuple[str, str, str], tuple[pd.DataFrame, Mapping[str, Any]]] = field(
        default_factory=dict
    )

    def places(self, of: Mapping[tuple[str, str, str], Any], name: str) -> list[Place]:
        """Return the models and sets on which a method or selection is there."""
        return [(model, langset) for model, langset, own in of if own == name]


def own_changes(trial: Trial) -> list[Estimate]:
    """Return the change of each target under its chosen setting."""
    return [trial.change(t, t, trial.best(t)["asked"]) for t in trial.targets]


def other_changes(trial: Trial) -> list[Estimate]:
    """Return the mean change of the other languages under each target's setting."""
    return [mean_of(list(trial.others(t, trial.best(t)["asked"]).values())) for t in trial.targets]


def specificities(trial: Trial) -> list[Estimate]:
    """Return own change minus the mean of the others', by target."""
    pairs = zip(own_changes(trial), other_changes(trial), strict=True)
    return [minus(own, others) for own, others in pairs]


def _own(evidence: Evidence, entry: Mapping[str, Any], place: Place) -> Estimate | None:
    return _over(evidence, own_changes(evidence.trials[*place, entry["method"]]))


def _specificity(evidence: Evidence, entry: Mapping[str, Any], place: Place) -> Estimate | None:
    return _over(evidence, specificities(evidence.trials[*place, entry["method"]]))


def _ratio(evidence: Evidence, entry: Mapping[str, Any], place: Place) -> Estimate | None:
    trial = evidence.trials[*place, entry["method"]]
    own, others = (_over(evidence, one(trial)) for one in (own_changes, other_changes))
    return ratio_estimate(own, others)


def _left(evidence: Evidence, entry: Mapping[str, Any], place: Place) -> Estimate | None:
    trial = evidence.trials[*place, entry["method"]]
    found = control_changes(trial, evidence.results["seed"]).values()
    strongest = max((own for own, _ in found), key=lambda one: one.value, default=None)
    return _remainder(strongest, _over(evidence, own_changes(trial)))


def _specificity_left(
    evidence: Evidence, entry: Mapping[str, Any], place: Place
) -> Estimate | None:
    trial = evidence.trials[*place, entry["method"]]
    found = control_changes(trial, evidence.results["seed"]).values()
    strongest = max((rest for _, rest in found), key=lambda one: one.value, default=None)
    return _remainder(strongest, _over(evidence, specificities(trial)))


def _remainder(control: Estimate | None, own: Estimate) -> Estimate | None:
    """Return 1 - control / own."""
    share = None if control is None else ratio_estimate(control, own)
    return None if share is None else share.line(-1.0, 1.0)


def _advantage(evidence: Evidence, entry: Mapping[str, Any], place: Place) -> Estimate | None:
    over = evidence.trials.get((*place, entry["over"]))
    if over is None:
        return None
    pair = (evidence.trials[*place, entry["method"]], over)
    mine, theirs = (specificities(trial) for trial in pair)
    return _over(evidence, [minus(a, b) for a, b in zip(mine, theirs, strict=True)])


def _transfer(evidence: Evidence, entry: Mapping[str, Any], place: Place) -> Estimate | None:
    trial = evidence.trials[*place, entry["method"]]
    pairs = [
        (trial.change(t, t, asked), trial.change(t, f"{t}@{entry['variant']}", asked))
        for t in trial.targets
        if f"{t}@{entry['variant']}" in trial.evaluated()
        for asked in [trial.best(t)["asked"]]
    ]
    if not pairs:
        return None
    own, moved = (_over(evidence, list(one)) for one in zip(*pairs, strict=True))
    return ratio_estimate(moved, own)


def _exclusive(evidence: Evidence, entry: Mapping[str, Any], place: Place) -> Estimate | None:
    table = evidence.tables[*place, entry["selection"]]
    shares = [one for one in exclusive_shares(table).tolist() if not math.isnan(one)]
    return _of_languages(evidence, shares)


def _jaccard(evidence: Evidence, entry: Mapping[str, Any], place: Place) -> Estimate | None:
    """Return the mean over languages, which are drawn again, each time under one draw of slices."""
    frame, metadata = evidence.stability[*place, entry["selection"]]
    own = frame[(frame["kind"] == entry["comparison"]) & frame["jaccard"].notna()]
    if own.empty:
        return None
    compared = entry["comparison"] in metadata["unmatched"]
    parts = [replicated(one, "jaccard", compared) for _, one in own.groupby("lang")]
    values = np.array([value for value, _ in parts])
    number, seed = evidence.results["bootstrap"], evidence.results["seed"]
    generator = np.random.default_rng([seed, 2])
    places = generator.random(number)
    changes = [one[(places * len(one)).astype(int)] if len(one) else 0 * places for _, one in parts]
    counts = np.concatenate(list(resampling_counts(len(values), number, seed + 1)))
    moved = values + np.nan_to_num(np.stack(changes, axis=1))
    return Estimate(
        float(values.mean()), (counts * moved).sum(axis=1) / len(values), len(values), "languages"
    )


def _of_languages(evidence: Evidence, values: Sequence[float]) -> Estimate | None:
    """Return a mean over languages, which are drawn again."""
    if not values:
        return None
    number, seed = evidence.results["bootstrap"], evidence.results["seed"]
    counts = np.concatenate(list(resampling_counts(len(values), number, seed + 1)))
    own = np.asarray(values, float)
    return Estimate(float(own.mean()), counts @ own / len(own), len(own), "languages")


def _over(evidence: Evidence, estimates: Sequence[Estimate]) -> Estimate:
    return over_targets(estimates, evidence.results["seed"])


MEASURES: Mapping[str, Callable[[Evidence, Mapping[str, Any], Place], Estimate | None]] = {
    "own": _own,
    "specificity": _specificity,
    "ratio": _ratio,
    "left": _left,
    "specificity_left": _specificity_left,
    "advantage": _advantage,
    "transfer": _transfer,
    "exclusive": _exclusive,
    "jaccard": _jaccard,
}


def _places(evidence: Evidence, entry: Mapping[str, Any]) -> list[Place]:
    if entry["method"] is not None:
        return evidence.places(evidence.trials, entry["method"])
    if entry["comparison"] is not None:
        return [
            place
            for place in evidence.places(evidence.stability, entry["selection"])
            if entry["comparison"] in {HALVES, *_metadata(evidence, entry, place)["unmatched"]}
        ]
    return evidence.places(evidence.tables, entry["selection"])


def _metadata(evidence: Evidence, entry: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
    return evidence.stability[*place, entry["selection"]][1]


def judged(
    hypotheses: Mapping[str, Mapping[str, Any]],
    evidence: Evidence,
    folders: Mapping[str, str],
) -> pd.DataFrame:
    """Return a row per hypothesis, model and set: measure, interval, p, verdict.

    folders: the folder of each language set by name.
    """
    rows = list(_rows(hypotheses, evidence, folders))
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame = frame.assign(p_holm=holm(frame["p"].to_numpy()))
    alpha = evidence.results["alpha"]
    frame["verdict"] = [
        verdict(row["direction"], row["value"] - row["threshold"], row["p_holm"], alpha)
        for row in frame.to_dict("records")
    ]
    return frame


def verdict(direction: str, beyond: float, p: float, alpha: float) -> str:
    """Return the verdict on a measure that lies `beyond` the threshold."""
    if math.isnan(beyond) or math.isnan(p) or p >= alpha:
        return UNDECIDED
    return SUPPORTED if (beyond > 0) == (direction == "above") else REFUTED


def _rows(
    hypotheses: Mapping[str, Mapping[str, Any]],
    evidence: Evidence,
    folders: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    confidence, alpha = evidence.results["confidence"], evidence.results["alpha"]
    for name, entry in hypotheses.items():
        wanted = entry["language_set"]
        for place in _places(evidence, entry):
            if wanted is not None and place[1] != folders[wanted]:
                continue
            found = MEASURES[entry["measure"]](evidence, entry, place)
            row: dict[str, Any] = {"model": place[0], "languages": place[1], "hypothesis": name}
            row |= {key: entry[key] for key in ("says", "measure")}
            of = [entry[key] for key in OF if entry[key] is not None]
            row |= {"about": " / ".join(of), "direction": entry["direction"]}
            row |= {"threshold": entry["threshold"], "value": math.nan, "low": math.nan}
            row |= {"high": math.nan, "units": 0, "detectable": math.nan, "p": math.nan}
            if found is not None:
                shifted = found.line(1.0, -entry["threshold"])
                low, high, p = shifted.interval(confidence)
                ends = {"low": low + entry["threshold"], "high": high + entry["threshold"]}
                row |= {"value": found.value, "units": found.units, "p": p} | ends
                row |= {"detectable": found.detectable(alpha)}
            yield row


OF = ("method", "over", "variant", "selection", "comparison")
