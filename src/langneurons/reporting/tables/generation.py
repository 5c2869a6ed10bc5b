"""Tables of language forcing, fallback order and logit lens, from the records of their jobs.

Success is the share of answers whose identified language is the target. It is given of all answers
and again with degenerate ones (empty, or repeating themselves) counted as failures, because a
language can be forced into a loop of one word.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from langneurons.base.words import UNTOUCHED
from langneurons.evaluation.power import smallest_p, thin_evidence
from langneurons.reporting.labels import Labels
from langneurons.reporting.records import generation_records, lens_records, with_names
from langneurons.reporting.tables.write import write_table
from langneurons.reporting.uncertainty import (
    CHANGES,
    holm,
    paired_difference,
    paired_proportions,
    wilson,
)

UNITS = ["source", "id"]
ENGLISH = "en"


def _share(hits: np.ndarray, results: Mapping, name: str = "") -> dict[str, float]:
    """Return share, low and high (Wilson) of a bool array, with a prefix to low and high."""
    low, high = wilson(float(hits.sum()), len(hits), results["confidence"])
    return {"share": float(hits.mean()), f"{name}low": low, f"{name}high": high}


def _cut(part: pd.DataFrame) -> int:
    """Return how many of the answers are to prompts that lost tokens."""
    return int((part["cut"] > 0).sum())


def _with_baseline(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the answers under the intervention with success, and the untouched model's."""
    untouched = frame[frame["target"] == UNTOUCHED].set_index(UNITS)
    forced = frame[frame["target"] != UNTOUCHED].copy()
    if untouched.index.has_duplicates or forced.duplicated([*UNITS, "target"]).any():
        raise ValueError("a question occurs twice for one pair of languages")
    places = pd.MultiIndex.from_frame(forced[UNITS])
    missing = places.difference(untouched.index)
    if len(missing):
        raise ValueError(f"no untouched answer (target = {UNTOUCHED!r}) to {missing[0]}")
    before = untouched.loc[places]
    forced["success"] = forced["identified"] == forced["target"]
    forced["intact"] = forced["success"] & ~forced["degenerate"].astype(bool)
    forced["before"] = before["identified"].to_numpy() == forced["target"].to_numpy()
    sound = ~before["degenerate"].to_numpy(bool)
    forced["before_intact"] = forced["before"].to_numpy() & sound
    return forced


def forcing_pairs(frame: pd.DataFrame, results: Mapping) -> pd.DataFrame:
    """Return one row per source and target: success with its Wilson interval, and without loops.

    `intact` counts answers in the target language that are not degenerate; `baseline` is the share
    of the untouched model's answers to the same questions that are in the target language.
    """
    rows = []
    for (source, target), part in _with_baseline(frame).groupby(["source", "target"], sort=True):
        success = _share(part["success"].to_numpy(), results)
        intact = _share(part["intact"].to_numpy(), results, "intact_")
        rows.append(
            {
                "source": source,
                "target": target,
                "n": len(part),
                "success": success.pop("share"),
                **success,
                "intact": intact.pop("share"),
                **intact,
                "degenerate": float(part["degenerate"].mean()),
                "baseline": float(part["before"].mean()),
                "tokens": float(part["tokens"].mean()),
                "cut": _cut(part),
            }
        )
    return pd.DataFrame(rows)


def forcing_summary(frame: pd.DataFrame, results: Mapping) -> pd.DataFrame:
    """Return success against the untouched model, over all pairs and by target.

    Rows: all pairs of different languages, pairs of equal languages, and each target with the
    other languages' questions. Per target the test is McNemar's on the same questions, with
    Tango's interval; over all, Student's t over questions, each with the mean over its targets.
    Holm over the rows.
    """
    forced = _with_baseline(frame)
    other = forced[forced["source"] != forced["target"]]
    groups = [("all others", other), ("itself", forced[forced["source"] == forced["target"]])]
    groups += [(str(target), part) for target, part in other.groupby("target", sort=True)]
    rows, questions = [], []
    for name, part in groups:
        if part.empty:
            continue
        units = part.groupby(UNITS, sort=True)[["success", "before"]].mean()
        questions.append(len(units))
        before, after = (units[key].to_numpy(np.float64) for key in ("before", "success"))
        change, low, high, p = paired_difference(before, after, results["confidence"], CHANGES)
        if name not in ("all others", "itself"):
            after, before = part["success"].to_numpy(bool), part["before"].to_numpy(bool)
            lost, won = int((before & ~after).sum()), int((after & ~before).sum())
            found = paired_proportions(lost, won, len(part), results["confidence"])
            low, high, p = (float(one[0]) for one in found)
        rows.append(
            {
                "target": name,
                "n": len(part),
                "success": float(part["success"].mean()),
                "intact": float(part["intact"].mean()),
                "degenerate": float(part["degenerate"].mean()),
                "baseline": float(part["before"].mean()),
                "baseline_intact": float(part["before_intact"].mean()),
                "cut": _cut(part),
                "difference": change,
                "low": low,
                "high": high,
                "p": p,
            }
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy())
    table["p_least"] = [min(1.0, smallest_p(int(n)) * len(table)) for n in questions]
    return table


def fallback_shares(frame: pd.DataFrame, results: Mapping) -> pd.DataFrame:
    """Return one row per step and identified language: its share of the answers.

    `intact` leaves out degenerate answers (of the same n); `degenerate` is of the whole step.
    """
    rows = []
    langs = sorted(set(frame["identified"]))
    for step, part in frame.groupby("step", sort=True):
        first = part.iloc[0]
        for lang in langs:
            hits = (part["identified"] == lang).to_numpy()
            found = _share(hits, results)
            sound = hits & ~part["degenerate"].to_numpy(bool)
            rows.append(
                {
                    "step": int(step),
                    "added": first["added"],
                    "deactivated": first["deactivated"],
                    "neurons": int(first["neurons"]),
                    "language": lang,
                    "n": len(part),
                    **found,
                    "intact": float(sound.mean()),
                    "degenerate": float(part["degenerate"].mean()),
                    "cut": _cut(part),
                }
            )
    return pd.DataFrame(rows)


def lens_layers(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per condition, prompt language and layer, averaged over the prompts.

    own, english, target: probability on the tokens of the prompt's language, of English, of the
    language whose neurons are written (NaN for the untouched model); others: on tokens of the
    set's further languages; shared: on tokens of no language. Ranks are medians.
    """
    rows = []
    keys = ["selection", "intervention", "target", "lang", "layer"]
    for values, part in frame.groupby(keys, sort=True):
        labels = dict(zip(keys, values, strict=True))
        mass = part.groupby("language")["mass"].mean()
        rank = part.groupby("language")["rank"].median()
        named = {
            "own": labels["lang"],
            "english": ENGLISH,
            "target": labels["target"],
        }
        shown = {name: float(mass.get(lang, math.nan)) for name, lang in named.items()}
        rest = mass.drop([lang for lang in set(named.values()) if lang in mass.index])
        rows.append(
            {
                **labels,
                "mass_own": shown["own"],
                "mass_english": shown["english"],
                "mass_target": shown["target"],
                "mass_others": float(rest.sum()),
                "mass_shared": float(1 - mass.sum()),
                "rank_own": float(rank.get(labels["lang"], math.nan)),
                "rank_english": float(rank.get(ENGLISH, math.nan)),
                "rank_target": float(rank.get(labels["target"], math.nan)),
                "entropy": float(part.drop_duplicates("id")["entropy"].mean()),
                "prompts": int(part["id"].nunique()),
            }
        )
    return pd.DataFrame(rows)


# Written ---------------------------------------------------------------------------------------


def tabulate_forcing(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the tables of language forcing."""
    pairs, summaries, results = [], [], labels.results
    for names, frame in generation_records(files, labels):
        pairs.append(with_names(names, forcing_pairs(frame, results)))
        summaries.append(with_names(names, forcing_summary(frame, results)))
    notes = (
        "success: share of answers identified as the target language; intact: the same, degenerate"
        " answers (empty, or repeating themselves) counted as failures; baseline: the untouched"
        " model's answers to the same questions. Wilson intervals."
    )
    more = (
        "Differences of success to the untouched model on the same questions; per target McNemar"
        " with Tango's interval, over all pairs t over questions; Holm within a condition."
    )
    table = labels.shown(pd.concat(summaries, ignore_index=True))
    lines = [more, *thin_evidence(table, results["alpha"], "questions", [*names])]
    pairs = labels.shown(pd.concat(pairs))
    write_table(pairs, folder / "forcing", "Language forcing by pair", notes)
    write_table(table, folder / "forcing_summary", "Language forcing", lines)


def tabulate_fallback(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the table of languages under cumulative deactivation."""
    shares = [
        with_names(names, fallback_shares(frame, labels.results))
        for names, frame in generation_records(files, labels)
    ]
    notes = (
        "share: answers identified as the language at the step (step 0: untouched), with Wilson"
        " interval; intact: without degenerate ones, of the same n; neurons: distinct ones written."
    )
    table = labels.shown(pd.concat(shares))
    write_table(table, folder / "fallback", "Languages under cumulative deactivation", notes)


def tabulate_lens(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the tables of the logit lens."""
    layers, tokens = [], []
    for names, frame, coverage in lens_records(files, labels):
        layers.append(with_names(names, lens_layers(frame)))
        tokens.append(with_names(names, coverage))
    notes = (
        "Probability, at the prompt's last token, on tokens that only the prompt's language (own),"
        " English, the target or another language of the set uses, or that are shared; rank of the"
        " best of these tokens (median); entropy in nats. Masses are lower bounds, see lens_tokens."
    )
    more = (
        "vocabulary: tokens that belong to the language; own, others, nobody: share of its held-out"
        " text in tokens that belong to it, to another language, to none."
    )
    layers, tokens = labels.shown(pd.concat(layers)), labels.shown(pd.concat(tokens))
    write_table(layers, folder / "lens", "Logit lens by layer", notes)
    write_table(tokens, folder / "lens_tokens", "Tokens of a language", more)
