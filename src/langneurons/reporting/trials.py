"""What trials say of a method: own change, that of others, controls, with intervals.

Changes are of the negative log-likelihood, nats per token, on test documents. Intervals come from a
bootstrap: documents are drawn again, the same in every language where all languages have the same
documents; for what is said of a method, its target languages are drawn again as well.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import pandas as pd

from langneurons.base.words import UNTOUCHED
from langneurons.reporting.uncertainty import from_draws, resampling_counts

POWER = 0.8  # of the smallest detectable difference


@dataclass(frozen=True)
class Estimate:
    """A number, its replicates, and how many units of what they are drawn from."""

    value: float
    draws: np.ndarray
    units: int
    of: Literal["documents", "languages"] = "documents"

    def line(self, slope: float, start: float) -> "Estimate":
        """Return start + slope x the estimate."""
        value, draws = start + slope * self.value, start + slope * self.draws
        return replace(self, value=value, draws=draws)

    def interval(self, confidence: float) -> tuple[float, float, float]:
        """Return low, high and the two-sided p against 0, of Student's t with units - 1 degrees.

        Of documents, p is not below what a test of signs over as many can give. Languages are few:
        there the t distribution is taken at its word.
        """
        tested = self.of == "documents"
        found = from_draws(np.asarray(self.value), self.draws, self.units, confidence, None, tested)
        low, high, p = (float(one) for one in found)
        return low, high, p

    def detectable(self, alpha: float) -> float:
        """Return the smallest change that a test at this level finds in four of five samples."""
        if self.units < 2:
            return math.nan
        error = float(np.std(self.draws)) * math.sqrt(self.units / (self.units - 1))
        normal = NormalDist()
        return error * (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(POWER))

    def columns(self, name: str, confidence: float, p: bool = False) -> dict[str, float]:
        """Return the number and its interval as columns of a table."""
        low, high, value = self.interval(confidence)
        found = {name: self.value, f"{name}_low": low, f"{name}_high": high}
        return found | ({"p": value} if p else {})


class Trial:
    """The records of one method on one set."""

    def __init__(self, frame: pd.DataFrame, metadata: Mapping[str, Any], results: Mapping):
        self.frame, self.metadata, self.results = frame, metadata, results
        self.targets: list[str] = list(metadata["languages"])
        self.chosen = pd.DataFrame(metadata["chosen"])
        self.has_kl = bool(metadata["protocol"].get("kl"))
        self.dose_text: str | None = metadata["protocol"].get("dose_language")
        test = frame[frame["phase"] == "test"]
        self._test = {key: part for key, part in test.groupby(["target", "asked", "evaluated"])}
        control = frame[frame["phase"] == "control"]
        self._control = {
            key: part
            for key, part in control.groupby(["target", "match", "draw", "evaluated"], sort=True)
        }
        self._base = {
            lang: part.set_index("document")
            for lang, part in test[test["target"] == UNTOUCHED].groupby("evaluated")
        }

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """How often each document of a language is drawn in each replicate, (replicates, n)."""
        documents = {lang: tuple(part.index) for lang, part in self._base.items()}
        number, seed = self.results["bootstrap"], self.results["seed"]
        same = len(set(documents.values())) == 1

        def drawn(n: int, own: int) -> np.ndarray:
            return np.concatenate(list(resampling_counts(n, number, own)))

        first = drawn(len(next(iter(documents.values()))), seed) if same else None
        found = {}
        for place, (lang, names) in enumerate(sorted(documents.items())):
            found[lang] = first if first is not None else drawn(len(names), seed + place)
        return found

    def best(self, target: str) -> pd.Series:
        """Return the setting that was chosen for a target."""
        own = self.chosen[(self.chosen["target"] == target) & self.chosen["best"]]
        return own.iloc[0]

    def change(self, target: str, evaluated: str, asked: float) -> Estimate:
        """Return the change of a language's NLL under a target's chosen setting at a dose."""
        return self._of(self._test[target, asked, evaluated], evaluated)

    def kl(self, target: str, evaluated: str, asked: float) -> Estimate:
        """Return KL(untouched || under a target's chosen setting at a dose), nats per token."""
        return self._of(self._test[target, asked, evaluated], evaluated, "kl")

    def other_kl(self, target: str, asked: float) -> Estimate:
        """Return the mean KL divergence of the set's other languages."""
        return mean_of([self.kl(target, k, asked) for k in self.targets if k != target])

    def _of(self, part: pd.DataFrame, evaluated: str, measure: str = "nll") -> Estimate:
        base = self._base[evaluated]
        after = part.set_index("document").loc[base.index]
        before = base["nll"] if measure == "nll" else 0.0
        difference = (after[measure] - before).to_numpy()
        tokens = base["tokens"].to_numpy(np.float64)
        weights = self.weights[evaluated]
        draws = (weights @ difference) / np.maximum(weights @ tokens, 1.0)
        return Estimate(float(difference.sum() / tokens.sum()), draws, len(base))

    def others(self, target: str, asked: float) -> dict[str, Estimate]:
        """Return the changes of the set's other languages."""
        return {lang: self.change(target, lang, asked) for lang in self.targets if lang != target}

    def evaluated(self) -> list[str]:
        """Return every language that was read."""
        return list(self.metadata["evaluated"])

    def controls(self, target: str, others: bool = False) -> dict[str, list[Estimate]]:
        """Return, by what the controls share with the selection, the target's change per draw.

        others: the change of the other language that each draw was read in.
        """
        found: dict[str, list[Estimate]] = {}
        for (own, match, _, lang), part in self._control.items():
            if own == target and (lang != target) == others:
                found.setdefault(match, []).append(self._of(part, lang))
        return found

    @property
    def dose_is(self) -> str:
        """What a dose is, in words."""
        if self.dose_text is None:
            return (
                "mean change of the residual stream after the last block, as a share of its length"
            )
        return (
            "KL divergence of next-token distributions, untouched model first, nats per token of"
            f" text in {self.dose_text}"
        )

    def draws_at_dose(self, target: str, match: str) -> int:
        """Return how many draws of a control have the dose that was asked for."""
        parts = (
            part
            for (own, kind, _, lang), part in self._control.items()
            if (own, kind, lang) == (target, match, target)
        )
        return sum(bool(part["reached"].iloc[0]) for part in parts)

    def doses(self) -> list[float]:
        """Return the doses, ascending."""
        return sorted(self.chosen["asked"].unique().tolist())


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates whose replicates belong together."""
    return Estimate(
        float(np.mean([one.value for one in estimates])),
        np.mean([one.draws for one in estimates], axis=0),
        min(one.units for one in estimates),
    )


def minus(one: Estimate, other: Estimate) -> Estimate:
    """Return the difference of two estimates whose replicates belong together."""
    units = min(one.units, other.units)
    return Estimate(one.value - other.value, one.draws - other.draws, units, one.of)


def ratio(one: Estimate, other: Estimate, confidence: float) -> tuple[float, float, float]:
    """Return a ratio of changes and its percentile interval.

    NaN where the denominator is not above 0; the interval is NaN where more than a twentieth of
    its replicates are not.
    """
    if other.value <= 0:
        return math.nan, math.nan, math.nan
    value, usable = one.value / other.value, other.draws > 0
    if usable.mean() < 0.95:
        return value, math.nan, math.nan
    tail = 50 * (1 - confidence)
    low, high = np.percentile(one.draws[usable] / other.draws[usable], [tail, 100 - tail])
    return value, float(low), float(high)


def ratio_estimate(one: Estimate, other: Estimate) -> Estimate | None:
    """Return a ratio with its replicates; None where the denominator is not surely above 0."""
    if other.value <= 0 or (other.draws <= 0).mean() > 0.05:
        return None
    draws = one.draws / np.where(other.draws > 0, other.draws, math.nan)
    kept = np.where(np.isnan(draws), np.nanmedian(draws), draws)
    return Estimate(one.value / other.value, kept, min(one.units, other.units), one.of)


def over_targets(estimates: Sequence[Estimate], seed: int) -> Estimate:
    """Return the mean over target languages, which are drawn again with their documents."""
    values = np.array([one.value for one in estimates])
    draws = np.stack([one.draws for one in estimates], axis=1)
    counts = np.concatenate(list(resampling_counts(len(values), len(draws), seed + 1)))
    drawn = (draws * counts).sum(axis=1) / len(values)
    return Estimate(float(values.mean()), drawn, len(values), "languages")


def control_changes(trial: Trial, seed: int) -> dict[str, tuple[Estimate, Estimate]]:
    """Return, by control, the mean change of targets over draws, and its specificity."""
    found: dict[str, list[tuple[Estimate, Estimate]]] = {}
    for target in trial.targets:
        elsewhere = trial.controls(target, others=True)
        for match, draws in trial.controls(target).items():
            pair = mean_of(draws), mean_of(elsewhere[match])
            found.setdefault(match, []).append(pair)
    return {
        match: (
            over_targets([own for own, _ in pairs], seed),
            over_targets([minus(own, rest) for own, rest in pairs], seed),
        )
        for match, pairs in found.items()
    }


def draw_means(trial: Trial) -> dict[str, list[float]]:
    """Return, by control, the mean over targets of the change under each draw."""
    found: dict[str, list[list[float]]] = {}
    for target in trial.targets:
        for match, draws in trial.controls(target).items():
            found.setdefault(match, []).append([one.value for one in draws])
    return {
        match: [float(np.mean(values)) for values in zip(*by_target, strict=True)]
        for match, by_target in found.items()
    }


def rank_p(own: float, draws: Sequence[float]) -> float:
    """Return the share of random draws, the selected neurons among them, that do as much."""
    return (1 + sum(one >= own for one in draws)) / (len(draws) + 1)


def area(doses: Sequence[float], changes: Sequence[float]) -> float:
    """Return the mean change over doses from 0 to the largest: the area below the curve."""
    x, y = [0.0, *doses], [0.0, *changes]
    return float(np.trapezoid(y, x) / x[-1]) if x[-1] > 0 else math.nan
