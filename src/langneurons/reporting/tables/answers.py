"""Tables of methods compared by answers: by target language, over all, and who judged.

Scores are of questions asked in another language than the target's; those asked in the target
itself stand beside, since the untouched model answers them. Where every language is asked with
itself alone (`pairs: same`), scores are of these. Units of intervals are questions, each with the
mean over its sources (and targets); where questions have unequal numbers of these, each answer
weighs the same, as in the score.
"""

from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.base.words import UNTOUCHED
from langneurons.evaluation.answer_scores import harmonic, kappa, printed_score, score_of
from langneurons.evaluation.confusion import SHORT
from langneurons.evaluation.identification import UNDETERMINED
from langneurons.evaluation.paired import paired_ratio_change
from langneurons.reporting.labels import Labels
from langneurons.reporting.records import answer_records, with_names
from langneurons.reporting.tables.write import write_table
from langneurons.reporting.uncertainty import (
    CHANGES,
    aggregate_change,
    holm,
    mean_interval,
)

SCORES = (0.0, 1.0)
PLACES = ["target", "source", "id"]  # what tells an answer, of one draw
MEASURED = ("forced", "relevance", "score", "degenerate", "line_pass", "word_pass")
KINDS = ("method", "before", "random")
OF_PARTS = (
    *("questions", "answers", "line_pass", "untouched_line_pass", "word_pass"),
    *("untouched_word_pass", "score", "low", "high", "untouched", "difference", "difference_low"),
    *("difference_high", "control", "undetermined", "cut"),
)


class Answers:
    """The test answers of a method, with what each is worth for its target."""

    def __init__(self, frame: pd.DataFrame, metadata: dict[str, Any]):
        self.chosen = pd.DataFrame(metadata["chosen"]).set_index("target")
        self.targets = list(self.chosen.index)
        self.judge = metadata["judge"]
        own = frame[frame["target"] != UNTOUCHED]
        self.same = bool((own["source"] == own["target"]).all())
        self.own = pd.concat([score_of(part, str(t)) for t, part in own.groupby("target")])
        self.untouched = frame[frame["target"] == UNTOUCHED]

    def method(self, target: str) -> pd.DataFrame:
        """Return the answers of the chosen setting."""
        return self._counted(self.own[(self.own["target"] == target) & (self.own["draw"] < 0)])

    def before(self, target: str) -> pd.DataFrame:
        """Return the untouched model's answers, as if for the target."""
        return self._counted(score_of(self.untouched, target).assign(target=target))

    def random(self, target: str) -> pd.DataFrame:
        """Return the answers of the random draws."""
        return self._counted(self.own[(self.own["target"] == target) & (self.own["draw"] >= 0)])

    def parts(self, target: str) -> dict[str, pd.DataFrame]:
        """Return the answers of the method, of the untouched model before, and of random draws."""
        return {kind: getattr(self, kind)(target) for kind in KINDS}

    def _counted(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return answers with the column counted: whether they belong to the score."""
        itself = frame["source"] == frame["target"]
        return frame.assign(counted=itself if self.same else ~itself)


def paired(one: pd.DataFrame, other: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return sums of a measure over answers that both frames hold, and their number, by question.

    Columns: key, key with `_other`, size. A question is (target, source, id) for pairing, and id
    for the unit.
    """
    both = one.set_index(PLACES)[[key]].join(other.set_index(PLACES)[[key]], rsuffix="_other")
    return both.dropna().assign(size=1.0).groupby("id").sum()


def _mean(frame: pd.DataFrame, key: str) -> float:
    return float(frame[key].mean()) if len(frame) else float("nan")


def _interval(frame: pd.DataFrame, key: str, confidence: float) -> dict[str, float]:
    """Return the interval of a mean over answers, which are more to some questions than to others.

    t over questions, linearised as of a ratio (Cochran 1977, 6.4).
    """
    units = frame.groupby("id")[key].agg(["mean", "size"])
    mean, share = frame[key].mean(), units["size"] / units["size"].mean()
    values = (mean + share * (units["mean"] - mean)).to_numpy()
    _, low, high = mean_interval(values, confidence, SCORES)
    return {"low": float(low), "high": float(high)}


def _lead(
    other: pd.DataFrame, own: pd.DataFrame, confidence: float
) -> tuple[float, float, float, float]:
    """Return by how much answers score more than others to the same questions: low, high, p too."""
    if other.empty or own.empty:
        return (nan,) * 4
    units = paired(other, own, "score")
    if units.empty:
        return (nan,) * 4
    changed = units["score_other"].to_numpy()[:, None]
    given = (units["score"].to_numpy(), changed, units["size"].to_numpy())
    change, low, high, p = (
        float(one[0]) for one in paired_ratio_change(*given, confidence, CHANGES)
    )
    return change, low, high, p


def row_of(parts: dict[str, pd.DataFrame], results: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of answers; parts: method, before and random, of one or more targets."""
    own, before, random = (parts[name][parts[name]["counted"]] for name in KINDS)
    confidence = results["confidence"]
    row: dict[str, Any] = {"questions": own["id"].nunique(), "answers": len(own)}
    row |= {key: _mean(own, key) for key in MEASURED} | _interval(own, "score", confidence)
    row["untouched"] = _mean(before, "score")
    row |= {f"untouched_{key}": _mean(before, key) for key in ("line_pass", "word_pass")}
    change = _lead(before, own, confidence)
    row |= dict(zip(("difference", "difference_low", "difference_high", "p"), change, strict=True))
    row["control"], lead = _mean(random, "score"), _lead(random, own, confidence)
    row |= dict(zip(("over_control", "over_low", "over_high", "over_p"), lead, strict=True))
    for name, kind in (("itself", "method"), ("itself_untouched", "before")):
        row[name] = _mean(parts[kind][~parts[kind]["counted"]], "score")
    row["undetermined"] = float((own["identified"] == UNDETERMINED).mean()) if len(own) else nan
    if "identified_second" in own:
        row["agreement"] = float((own["identified"] == own["identified_second"]).mean())
    row["cut"] = int((own["cut"] > 0).sum())
    return row


def printed_row(
    row: dict[str, Any], parts: dict[str, pd.DataFrame], percent: bool, results: dict[str, Any]
) -> dict[str, Any]:
    """Return a row whose score is the harmonic mean of aggregates, over all pairs of languages."""
    own = parts["method"]
    before = parts["before"].merge(own[PLACES])  # answers to the same questions only

    def sums(frame: pd.DataFrame) -> np.ndarray:
        found = frame.assign(one=1.0).groupby("id")[["forced", "relevance", "one"]].sum()
        return found.to_numpy()

    def score(counts: np.ndarray) -> np.ndarray:
        number = np.maximum(counts[..., 2], 1.0)
        forced, relevance = counts[..., 0] / number, counts[..., 1] / number
        if not percent:
            return harmonic(forced, relevance)
        pairs = zip(forced.ravel() * 100, relevance.ravel() * 100, strict=True)
        values = [printed_score(*pair) / 100 for pair in pairs]
        return np.reshape(values, forced.shape)

    given = (results["bootstrap"], results["confidence"], results["seed"])
    found, moved = aggregate_change(sums(before), sums(own), score, *given)
    names = ("difference", "difference_low", "difference_high", "p")
    row |= dict(zip(("score", "low", "high"), found, strict=True))
    row |= dict(zip(names, moved, strict=True))
    row |= {"untouched": row["score"] - row["difference"]}
    row |= {"questions": own["id"].nunique(), "answers": len(own)}
    return row | {key: _mean(own, key) for key in ("forced", "relevance", "degenerate")}


def tabulate_answers(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the tables of methods compared by answers."""
    by_target, over_all, judges, by_part = [], [], [], []
    for names, frame, metadata in answer_records(files, labels):
        answers = Answers(frame, metadata)
        protocol = labels.protocols[names["protocol"]]
        rows: list[dict[str, Any]] = []
        together: dict[str, list[pd.DataFrame]] = {kind: [] for kind in KINDS}
        for target in answers.targets:
            parts = answers.parts(target)
            for kind, part in parts.items():
                together[kind].append(part)
            chosen = answers.chosen.loc[target]
            keys = ("selection", "intervention", "prompt")
            row = {"target": target} | {key: chosen[key] or "" for key in keys}
            row |= shown_row(parts, protocol, labels.results)
            row["settings"] = int(chosen["settings"])
            rows.append(row)
        by_target.append(with_names(dict(names), pd.DataFrame(rows)))
        joined = {kind: pd.concat(parts) for kind, parts in together.items()}
        row = shown_row(joined, protocol, labels.results)
        row |= {"targets": len(answers.targets), "settings": rows[0]["settings"]}
        row |= {"draws": joined["random"]["draw"].nunique()}
        row["relevance_by"] = _judge_of(answers, labels)
        over_all.append(with_names(dict(names), pd.DataFrame([row])))
        judges.append(with_names(dict(names), agreement(frame)))
        by_part.append(with_names(dict(names), part_rows(joined, dict(labels.results))))
    _write(by_target, over_all, judges, by_part, labels, folder)


def part_rows(parts: dict[str, pd.DataFrame], results: dict[str, Any]) -> pd.DataFrame:
    """Return a row per part of the questions and target, and one per part over all targets."""
    rows = []
    for name in sorted(set(parts["method"]["part"]) - {""}):
        own = {kind: frame[frame["part"] == name] for kind, frame in parts.items()}
        for target in ("all", *dict.fromkeys(own["method"]["target"])):
            some = own
            if target != "all":
                some = {kind: frame[frame["target"] == target] for kind, frame in own.items()}
            row = row_of(some, results)
            rows.append({"part": name, "target": target} | {key: row[key] for key in OF_PARTS})
    return pd.DataFrame(rows)


def _asked(table: pd.DataFrame) -> str:
    if "itself" not in table:
        return "each language asked with itself"
    return (
        "of questions in other languages than the target; itself: of questions in the target"
        " (itself_untouched: without method)"
    )


def shown_row(parts: dict, protocol: Any, results: Any) -> dict[str, Any]:
    """Return what is said of answers, aggregated as a protocol says."""
    row = row_of(parts, results)
    if protocol["aggregate"] == "paper":
        row = printed_row(row, parts, protocol["percent"] == "paper", results)
    return row


def _judge_of(answers: Answers, labels: Labels) -> str:
    if answers.judge is None:
        return "no judge"
    name = answers.judge["models"][0]
    return f"{labels.of('models', name)}, prompt {answers.judge['prompts'][0]}"


def agreement(frame: pd.DataFrame) -> pd.DataFrame:
    """Return kappa of every two raters (judge and prompt) of a method's answers."""
    raters = [column for column in frame if str(column).startswith("rating:")]
    rows = []
    for number, one in enumerate(raters):
        for other in raters[number + 1 :]:
            a, b = frame[one].to_numpy(np.int64), frame[other].to_numpy(np.int64)
            (first, version), (second, another) = (name.split(":")[1:] for name in (one, other))
            rows.append(
                {
                    "judge": first,
                    "version": version,
                    "other_judge": second,
                    "other_version": another,
                    "answers": len(frame),
                    "kappa": kappa(a, b),
                    "equal": float((a == b).mean()),
                    "mean": float(a.mean()) / 2,
                    "other_mean": float(b.mean()) / 2,
                }
            )
    return pd.DataFrame(rows)


def _write(
    by_target: list[pd.DataFrame],
    over_all: list[pd.DataFrame],
    judges: list[pd.DataFrame],
    by_part: list[pd.DataFrame],
    labels: Labels,
    folder: Path,
) -> None:
    table, summary = (pd.concat(one, ignore_index=True) for one in (by_target, over_all))
    for frame in (table, summary):
        for name in ("p", "over_p"):
            corrected = frame.groupby(["model", "protocol", "languages"])[name].transform(
                lambda values: holm(values.to_numpy())
            )
            frame.insert(frame.columns.get_loc(name) + 1, f"{name}_holm", corrected)
        if frame["itself"].isna().all():
            frame.drop(columns=["itself", "itself_untouched"], inplace=True)
    notes = [
        "score: harmonic mean, per answer, of forced (identified as the target language) and"
        f" relevance (0 to 1), {_asked(table)}. line_pass: of answers with a line of"
        f" {SHORT} words, the share of which every such line is in the target language; word_pass:"
        " of these, in scripts other than Latin, the share without a foreign word (English ones of"
        " a list, without a list any in Latin letters); undetermined: no language could be told."
        " untouched: the same model without method on the same questions; control:"
        " random draws in place of the selection. t over questions; Holm over the table of a model,"
        " protocol and set. Settings were chosen for each target on development questions.",
        "Where a protocol aggregates as the paper, the score is of two aggregates over all pairs of"
        " languages, with bootstrap intervals over questions.",
    ]
    if (summary["relevance_by"] == "no judge").any():
        notes.append(
            "No judge: relevance is 1 of an answer that is not degenerate (empty, repeating itself)"
            " and does not repeat its question, else 0; it does not know what is right."
        )
    write_table(labels.shown(table), folder / "answers", "Answers by target language", notes)
    title = "Methods by their answers"
    write_table(labels.shown(summary), folder / "answers_summary", title, notes)
    parts = pd.concat(by_part, ignore_index=True)
    if "part" in parts:
        write_table(labels.shown(parts), folder / "answer_parts", "Answers by part", notes[:1])
    rated = pd.concat(judges, ignore_index=True)
    if "kappa" in rated:
        for name in ("judge", "other_judge"):
            rated[name] = [labels.of("models", one) for one in rated[name]]
        more = "kappa: Cohen's, with quadratic weights, of two ratings (0, 1, 2) of each answer."
        write_table(labels.shown(rated), folder / "answer_judges", "Agreement of judges", more)
