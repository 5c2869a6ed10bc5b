"""What was found, in sentences made from the tables: hypotheses, effect, control, tasks, weakness.

A sentence holds its number, interval and n, and points at the figure or table that shows it. No
sentence is written where the tables lack what it needs.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from langneurons.reporting.labels import Labels
from langneurons.reporting.uncertainty import mean_interval

MOST = 5  # sentences
CELLS = ["model", "protocol", "languages", "intervention"]


@dataclass(frozen=True)
class Finding:
    """A sentence and the kind of figure or the table (`table-...`) that shows it."""

    text: str
    shown: str


def findings(frames: Mapping[str, pd.DataFrame], labels: Labels) -> list[Finding]:
    """Return every hypothesis with its verdict, then at most `MOST` findings.

    `frames` are the tables by name with numbers as numbers; `labels` are those
    of the tables.
    """
    groups = [
        _claims(frames.get("claims"), labels),
        _trials(frames.get("leaderboard"), labels),
        _answers(frames.get("answers_summary")),
        _effects(frames.get("perplexity"), labels),
        _tasks(frames.get("tasks"), labels),
        _overlap(frames.get("overlap"), labels),
        _steering(frames.get("lss_summary"), labels),
    ]
    # One of each kind first, then the others in turn: no kind crowds out another.
    turns = itertools.zip_longest(*groups)
    found = [one for turn in turns for one in turn if one is not None][:MOST]
    return [*_hypotheses(frames.get("hypotheses"), labels), *found]


def _name(lang: str, labels: Labels) -> str:
    return labels.language_names.get(lang, lang)


def _number(value: float, digits: int = 2) -> str:
    text = f"{value:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.removeprefix("-")


def _mean(values: Sequence[float], labels: Labels) -> str:
    """Return a mean with its interval, of Student's t."""
    mean, low, high = mean_interval(np.asarray(values, float), labels.results["confidence"])
    if np.isnan(low):
        return _number(float(mean))
    return f"{_number(float(mean))} [{_number(float(low))}, {_number(float(high))}]"


def _of(part: pd.DataFrame, keys: Sequence[str], whole: pd.DataFrame) -> str:
    """Return what tells a group from the others, as `(Model, protocol x)`; "" if nothing does."""
    named = [str(part[key].iloc[0]) for key in keys if whole[key].nunique() > 1]
    return f" ({', '.join(named)})" if named else ""


def _controls(labels: Labels) -> dict[str, str | None]:
    """Return the labels of random selections, each with that of the one that it mirrors."""
    names, random = labels.selections, labels.roles["random"]
    return {names[name]: names.get(like) if like else None for name, like in random.items()}


def _ordered(values: Sequence[str], labels: Labels, section: str) -> list[str]:
    order = labels.listed(section)
    return sorted(set(values), key=lambda one: order.index(one) if one in order else len(order))


# What was claimed before the run -----------------------------------------------------------------


# Measures of hypotheses, as a sentence begins.
MEASURES = {
    "own": "The change of the language's own text",
    "specificity": "Specificity",
    "ratio": "Own change over that of the others",
    "left": "The share of the own change that controls leave",
    "specificity_left": "The share of specificity that controls leave",
    "advantage": "The difference of specificity",
    "transfer": "The change of the other text over that of its own",
    "exclusive": "The share of a language's neurons that are of no other",
    "jaccard": "The Jaccard index",
}


def _hypotheses(rows: pd.DataFrame | None, labels: Labels) -> list[Finding]:
    """Say the verdict on each hypothesis, its measure and the threshold."""
    found = []
    for row in [] if rows is None else rows.to_dict("records"):
        said = str(row["says"]).rstrip(".")
        if pd.isna(row["value"]):
            text = f"Undecided: {said}. {MEASURES[row['measure']]} could not be measured"
        else:
            limits = _limits(pd.Series(row), "low", "high")
            text = (
                f"{str(row['verdict']).capitalize()}: {said}. {MEASURES[row['measure']]} is"
                f" {_number(row['value'])}{limits}, claimed {row['direction']}"
                f" {_number(row['threshold'])}; n = {int(row['units'])} languages"
            )
        text += _of(pd.DataFrame([row]), ["model", "languages"], rows)
        found.append(Finding(f"{text}.", "hypotheses"))
    return found


def _trials(board: pd.DataFrame | None, labels: Labels) -> list[Finding]:
    """Say which method is the most specific, beside its control."""
    if board is None or board.empty:
        return []
    found = []
    for _, part in board.groupby(["model", "languages"], sort=False):
        best = part.loc[part["specificity"].idxmax()]
        text = (
            f"Of {len(part)} methods, {best['method']} takes out a language most specifically: it"
            f" costs the language {_number(best['own'])}{_limits(best, 'own_low', 'own_high')} nats"
            f" per token and the others {_number(best['others'])}"
            f"{_limits(best, 'others_low', 'others_high')}; random controls at the same dose cost"
            f" {_number(best['control_change'])} (means over {int(best['targets'])} languages, test"
            f" documents)"
        )
        text += _of(part, ["model", "languages"], board)
        found.append(Finding(f"{text}.", "methods"))
    return found


def _answers(rows: pd.DataFrame | None) -> list[Finding]:
    """Say which method makes a model answer best in another language, beside its control."""
    if rows is None or rows.empty or rows["score"].isna().all():
        return []
    found = []
    for _, part in rows.groupby(["model", "protocol", "languages"], sort=False):
        if part["score"].isna().all():
            continue
        best = part.loc[part["score"].idxmax()]
        text = (
            f"Of {len(part)} methods, {best['method']} makes answers in another language score"
            f" best: {_number(best['score'])}{_limits(best, 'low', 'high')} of 1, without it"
            f" {_number(best['untouched'])}"
        )
        if not pd.isna(best["control"]):
            text += f", under random controls {_number(best['control'])}"
        judged = "without a judge" if best["relevance_by"] == "no judge" else "judged"
        text += f" ({int(best['questions'])} test questions, {judged})"
        text += _of(part, ["model", "protocol", "languages"], rows)
        found.append(Finding(f"{text}.", "answers"))
    return found


# Kinds -------------------------------------------------------------------------------------------


def _effects(cells: pd.DataFrame | None, labels: Labels) -> list[Finding]:
    """Say what a language's own neurons do to it, to the others, and random ones beside."""
    if cells is None or cells.empty:
        return []
    controls, alpha, found = _controls(labels), labels.results["alpha"], []
    for _, part in cells.groupby(CELLS, sort=False):
        kinds = _ordered(part["selection"], labels, "selections")
        for selection in (one for one in kinds if one not in controls):
            rows = part[part["selection"] == selection]
            same = rows["deactivated"] == rows["evaluated"]
            own, others = rows[same], rows[~same]
            if own.empty:
                continue
            n, documents = len(own), int(rows["documents"].max())
            costs = "costs" if own["nll_change"].mean() >= 0 else "changes"
            text = (
                f"Overwriting a language's {selection} neurons ({rows['intervention'].iloc[0]})"
                f" {costs} that language {_mean(own['nll_change'], labels)} nats per token"
            )
            if len(others):
                text += f", the other languages {_number(others['nll_change'].mean())}"
            for control in (one for one in kinds if controls.get(one, "") in (None, selection)):
                mirror = part[part["selection"] == control]
                mirror = mirror[mirror["deactivated"] == mirror["evaluated"]]
                if len(mirror):
                    text += f"; under its control ({control}) it is"
                    text += f" {_number(mirror['nll_change'].mean())}"
            text += f" (mean and interval over {n} languages, {documents} documents each)"
            text += _of(part, CELLS[:3], cells)
            significant = int((own["p_holm"] < alpha).sum())
            if (rows["p_least"] >= alpha).all():
                text += (
                    f". With {documents} documents no cell of {len(rows)} can be significant at"
                    f" {alpha:g}"
                )
            else:
                text += f"; {significant} of {n} own-language changes are significant"
            found.append(Finding(text + ".", "cross_entropy"))
            if len(others):
                top = others.loc[others["nll_change"].idxmax()]
                strong = "" if top["p_holm"] < alpha else ", not significant"
                found.append(
                    Finding(
                        f"Of {selection} neurons on another language, those of"
                        f" {_name(top['deactivated'], labels)} do most to"
                        f" {_name(top['evaluated'], labels)}: {_number(top['nll_change'])} nats per"
                        f" token{_limits(top, 'low', 'high')}{strong}"
                        f"{_of(part, CELLS[:3], cells)}.",
                        "cross_entropy",
                    )
                )
    return found


def _limits(row: pd.Series, low: str, high: str, scale: float = 1.0, digits: int = 2) -> str:
    if pd.isna(row[low]) or pd.isna(row[high]):
        return ""
    ends = (_number(scale * float(row[key]), digits) for key in (low, high))
    return f" [{', '.join(ends)}]"


def _tasks(scores: pd.DataFrame | None, labels: Labels) -> list[Finding]:
    """Say of each task how many conditions differ from the untouched model, and the largest."""
    if scores is None or scores.empty:
        return []
    alpha, found = labels.results["alpha"], []
    for (task, *_), part in scores.groupby(["task", "model", "protocol"], sort=False):
        part = part[part["metric"] == part["metric"].iloc[0]]
        tested = part[part["difference"].notna()]
        if tested.empty:
            continue
        sizes = tested["difference"].abs()
        top = tested.loc[sizes.idxmax()]
        hits = int((tested["p_holm"] < alpha).sum())
        where = _of(part, ("model", "protocol"), scores)
        change = f"{_number(100 * top['difference'], 1)} points"
        change += _limits(top, "difference_low", "difference_high", 100, 1)
        condition = f"{_name(top['lang'], labels)}, {top['selection']}, {top['intervention']}"
        how = "no condition" if not hits else f"{hits}"
        verb = "differs" if hits < 2 else "differ"
        text = (
            f"{task}{where}: {how} of {len(tested)} {verb} significantly from the untouched model;"
            f" the largest difference in {str(top['metric']).replace('_', ' ')} is {change}"
            f" ({condition}; {int(top['n'])} items)"
        )
        if (tested["p_least"] >= alpha).all():
            text += f". With {int(tested['n'].max())} items none of them could"
        found.append(Finding(text + ".", "scores"))
    return found


def _overlap(pairs: pd.DataFrame | None, labels: Labels) -> list[Finding]:
    """Say which two languages share the most neurons, beside chance."""
    if pairs is None or pairs.empty:
        return []
    controls, found = _controls(labels), []
    keys = ["model", "languages", "selection"]
    parts = [(key[-1], part) for key, part in pairs.groupby(keys, sort=False)]
    order = _ordered([name for name, _ in parts], labels, "selections")
    for name, part in sorted(parts, key=lambda one: order.index(one[0])):
        part = part[part["shared"] > 0]
        if name in controls or part.empty:
            continue
        top = part.loc[part["jaccard"].idxmax()]
        text = (
            f"{_name(top['lang'], labels)} and {_name(top['other'], labels)} share the most {name}"
            f" neurons: {int(top['shared'])}, {_number(100 * top['jaccard'], 0)} % of both together"
            f"{_of(part, keys[:2], pairs)}"
        )
        if top["chance"] > 0:
            text += f"; chance is {_number(top['chance'])}"
        found.append(Finding(text + ".", "overlap"))
    return found


def _steering(summary: pd.DataFrame | None, labels: Labels) -> list[Finding]:
    """Say the mean steering shift of each selection beside that of its random neurons."""
    if summary is None or summary.empty:
        return []
    found = []
    rows = summary[(summary["target"] == "all") & summary["control"].notna()]
    for _, row in rows[rows["control"] != ""].iterrows():
        strong = "" if row["p_holm"] < labels.results["alpha"] else ", not significant"
        found.append(
            Finding(
                f"Language Steering Shift under {row['intervention']} of {row['selection']}"
                f" neurons: {_number(row['lss'])}{_limits(row, 'low', 'high')}, {row['control']}"
                f" {_number(row['control_lss'])}; difference {_number(row['difference'])}"
                f"{_limits(row, 'difference_low', 'difference_high')}{strong}"
                f" ({int(row['facts'])} facts).",
                "lss_factors",
            )
        )
    return found


def _claims(claims: pd.DataFrame | None, labels: Labels) -> list[Finding]:
    """Say how many tests of claims hold, are contradicted, are undecided."""
    if claims is None or claims.empty:
        return []
    counts = claims["verdict"].value_counts()
    run = int(counts.sum() - counts.get("not run", 0))
    if not run:
        return []
    said = ", ".join(
        f"{int(counts[word])} {word}"
        for word in ("holds", "contradicted", "undecided")
        if counts.get(word, 0)
    )
    said = said.replace(" holds", " hold").replace(" contradicted", " are contradicted")
    paper = labels.results.get("paper") or "the paper"
    return [
        Finding(
            f"Of {run} tests of claims of {paper}, {said.replace(' undecided', ' are undecided')}.",
            "claims",
        )
    ]
