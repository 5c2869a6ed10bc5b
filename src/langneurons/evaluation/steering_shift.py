"""Language Steering Shift (Rahmanisa et al. 2025): do a language's neurons shift answers into it?

For a premise x in base language b, with a fact's object in that language o_b and in the target
language o_t, let s(o) be the sum of the log-probabilities of o's tokens after x (nats) and
d = s(o_t) - s(o_b). With the target's neurons overwritten the margin is d_int - d_base, and
LSS(b -> t) is the share of facts whose margin is above 0 (`reporting.tables.steering_shift`).

The scores of one candidate language after the premises of one base under one plan are a part of
the side store, keyed by the requests and by what the plan writes: the untouched scores are
computed once and serve every intervention, selection and language set.
"""

import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from langneurons.base.digests import digest
from langneurons.base.scripts import is_unspaced
from langneurons.data.facts import OBJECT, SUBJECT
from langneurons.evaluation.run import Run
from langneurons.interventions.plan import Plan, untouched
from langneurons.models.encoding import report_cuts
from langneurons.runtime.progress import Progress
from langneurons.scoring.likelihood import encode_requests, loglikelihood

log = logging.getLogger(__name__)
Premises = Literal["paper", "corrected"]
Pair = tuple[str, str]
Facts = Mapping[str, Sequence[Mapping[str, Any]]]
COLUMNS = ["intervention", "base", "target", "fact", "predicate", "tie", "cut"]
SCORES = ["own_before", "target_before", "own_after", "target_after"]


def premise(
    template: str, subject: str, lang: str, premises: Premises = "corrected"
) -> Pair | None:
    """Return the text before the object and what joins the two, or None if there is none to use.

    corrected: what follows [Y] is dropped, as is white space of any kind before it; the join is a
    space where the template has one, except in languages written without. A template that names
    its subject only after the object says nothing before it: None. paper: the literal " [Y]" is
    cut out, wherever it stands, and the join is always a space.
    """
    if premises == "paper":
        return template.replace(SUBJECT, subject).replace(" " + OBJECT, ""), " "
    before, _, _ = template.partition(OBJECT)
    if SUBJECT not in before:
        return None
    spaced = before[-1:].isspace()
    if is_unspaced(lang):
        spaced = False
        before = re.sub(rf"\s*{re.escape(SUBJECT)}\s*", SUBJECT, before)
    return before.replace(SUBJECT, subject).rstrip(), " " if spaced else ""


def same(first: str, second: str) -> bool:
    """Return whether two objects are the same string (Unicode NFC)."""
    return unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second)


def requests(
    facts: Sequence[Mapping[str, Any]], base: str, candidate: str, premises: Premises
) -> dict[str, Pair]:
    """Return (context, continuation) by fact, of those with a premise and both objects."""
    found = {}
    for fact in facts:
        start = premise(fact["template"], fact["subject"], base, premises)
        if start is not None and {base, candidate} <= set(fact["objects"]):
            found[fact["fact"]] = (start[0], start[1] + fact["objects"][candidate])
    return found


class _Scorer:
    """Sums of log-probabilities under a plan, from the store or from the model."""

    def __init__(self, run: Run, facts: Facts, premises: Premises, progress: Progress):
        self.run, self.facts, self.premises, self.progress = run, facts, premises, progress

    def scores(self, plan: Plan, pairs: Iterable[Pair]) -> dict[Pair, pd.DataFrame]:
        """Return score and cut by fact for each (base, candidate); all that lack in one pass."""
        wanted = {pair: requests(self.facts[pair[0]], *pair, self.premises) for pair in pairs}
        keys = {
            pair: self.run.key | {"requests": digest(list(asked.values()), 32), "plan": plan.digest}
            for pair, asked in wanted.items()
        }
        found = {pair: self.run.store.get(keys[pair]) for pair in wanted}
        lacking = [pair for pair in wanted if found[pair] is None and wanted[pair]]
        if lacking:
            asked = {
                f"fact {name}, premise in {base}, object in {candidate}": request
                for base, candidate in lacking
                for name, request in wanted[base, candidate].items()
            }
            values, cuts = self._computed(plan, asked)
            ends = np.cumsum([len(wanted[pair]) for pair in lacking])
            pieces = zip(np.split(values, ends[:-1]), np.split(cuts, ends[:-1]), strict=True)
            for pair, (part, cut) in zip(lacking, pieces, strict=True):
                found[pair] = pd.DataFrame({"score": part, "cut": cut})
                self.run.store.put(keys[pair], found[pair])
        self.progress.update()
        frames = {pair: frame for pair, frame in found.items() if frame is not None}
        return {
            pair: frames[pair].set_index(pd.Index(list(asked))).dropna(subset="score")
            for pair, asked in wanted.items()
            if asked
        }

    def _computed(self, plan: Plan, asked: Mapping[str, Pair]) -> tuple[np.ndarray, np.ndarray]:
        """Return the model's scores, NaN where premise and object share a token; tokens cut.

        asked: requests by what an error calls them.
        """
        model = self.run.model
        values = np.full(len(asked), np.nan)
        try:
            encoded = encode_requests(model, list(asked.values()), controls={}, names=list(asked))
        except ValueError as error:
            raise ValueError(f"lss: {error}") from None
        report_cuts("premises", [one.cut for one in encoded], model.max_positions)
        clean = np.flatnonzero([not one.apart for one in encoded])
        if len(clean) < len(asked):
            lost = len(asked) - len(clean)
            log.warning("%d of %d objects share a token with the premise", lost, len(asked))
        if len(clean):
            kept = [encoded[k] for k in clean]
            scored = loglikelihood(model, kept, self.run.batch_tokens, plan)
            values[clean] = [value for value, _ in scored]
            if not np.isfinite(values[clean]).all():
                raise RuntimeError(f"a log-probability under {plan.name} is not finite")
        return values, np.array([one.cut for one in encoded], np.int64)


def measure(
    run: Run, facts: Facts, plans: Mapping[str, Mapping[str, Plan]], premises: Premises
) -> pd.DataFrame:
    """Return a row per (intervention, base, target, fact): both objects' scores, before and after.

    `facts` are prepared facts by base language, `plans` by intervention and target language. Before
    is the untouched model. own_*: the object in
    the base language, target_*: in the target language, in nats; tie: they are the same string.
    cut: tokens that the premise lost because it did not fit.
    Facts are left out that lack a premise or an object, or whose object shares a token with the
    premise.
    """
    pairs = {
        target: [
            (base, target) for base in facts if base != target and _usable(facts, base, target)
        ]
        for target in dict.fromkeys(target for own in plans.values() for target in own)
    }
    _check(facts, pairs)
    late = {
        base: sum(premise(row["template"], row["subject"], base, premises) is None for row in rows)
        for base, rows in facts.items()
    }
    for base, number in late.items():
        if number:
            log.warning("%s: %d facts name the subject after the object, left out", base, number)
    progress = Progress("lss", 1 + sum(map(len, plans.values())), "conditions")
    scorer = _Scorer(run, facts, premises, progress)
    # Both objects of a pair are asked for where both exist; equal parts are asked for once.
    before = scorer.scores(untouched(), _both(pair for of in pairs.values() for pair in of))
    frames = []
    for name, own in plans.items():
        for target, plan in own.items():
            after = scorer.scores(plan, _both(pairs[target]))
            for base, _ in pairs[target]:
                if (base, target) in after:
                    found = _records(facts[base], base, target, before, after)
                    frames.append(found.assign(intervention=name))
    progress.finish()
    if not any(map(len, frames)):
        raise ValueError(_none_scored(facts, pairs, late, premises))
    return pd.concat(frames, ignore_index=True)[COLUMNS + SCORES]


def _none_scored(
    facts: Mapping, pairs: Mapping[str, list[Pair]], late: Mapping[str, int], premises: Premises
) -> str:
    """Return why no fact can be scored, with counts by premise language."""
    both: dict[str, set[str]] = {base: set() for base in facts}
    for base, target in (pair for of in pairs.values() for pair in of):
        both[base].update(requests(facts[base], base, target, premises))
    counts = "; ".join(
        f"{base}: {len(rows)} facts, {late[base]} that name the subject after the object,"
        f" {len(both[base])} with a premise and the objects of a pair"
        for base, rows in facts.items()
    )
    why = (
        " Of each of the latter, an object has a token that is shared with the end of the premise."
        if any(both.values())
        else ""
    )
    return (
        f"lss: no fact can be scored ({counts}).{why} Give other facts (`lss.source`): with both"
        " objects, the subject before the object, and a space or a punctuation mark before the"
        " object. Or leave the base or target language out (`lss.bases`, `lss.targets`)."
    )


def _both(pairs: Iterable[Pair]) -> list[Pair]:
    """Return each pair beside the base's own objects, once."""
    return list(
        dict.fromkeys(one for base, target in pairs for one in ((base, base), (base, target)))
    )


def _usable(facts: Facts, base: str, target: str) -> bool:
    return any({base, target} <= set(fact["objects"]) for fact in facts[base])


def _check(facts: Mapping, pairs: Mapping[str, list[Pair]]) -> None:
    """Refuse a target language in which no base has objects."""
    known = sorted({lang for rows in facts.values() for fact in rows for lang in fact["objects"]})
    for target, found in pairs.items():
        if not found and set(facts) - {target}:
            raise ValueError(
                f"lss.targets: no fact has an object in {target!r}; the facts have objects in:"
                f" {', '.join(known)}."
            )


def _records(
    rows: Sequence[Mapping[str, Any]], base: str, target: str, before: Mapping, after: Mapping
) -> pd.DataFrame:
    """Return the records of one cell, in the order of the facts."""
    about = {fact["fact"]: fact for fact in rows}
    scored = [one[base, lang].index for one in (before, after) for lang in (base, target)]
    names = [name for name in about if all(name in index for index in scored)]
    objects = [about[name]["objects"] for name in names]
    columns = {
        "base": base,
        "target": target,
        "fact": names,
        "predicate": [about[name]["predicate"] for name in names],
        "tie": [same(one[base], one[target]) for one in objects],
        "own_before": before[base, base].loc[names, "score"].to_numpy(),
        "target_before": before[base, target].loc[names, "score"].to_numpy(),
        "own_after": after[base, base].loc[names, "score"].to_numpy(),
        "target_after": after[base, target].loc[names, "score"].to_numpy(),
        "cut": np.maximum(*(before[base, o].loc[names, "cut"].to_numpy() for o in (base, target))),
    }
    return pd.DataFrame(columns)
