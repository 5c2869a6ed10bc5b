"""A method on trial: tuned on some documents, tested on others, beside random controls.

For each target language every setting (selection, intervention, dose) is brought to its dose on
identification text (`langneurons.evaluation.dose`). On the development documents one setting is
chosen at each dose, and of these the best; on the test documents the chosen ones are read in every
language, and how far they move next-token distributions (KL divergence) is measured where it is
asked for. The random controls of the best one are brought to the same dose and read in test
documents of the target and of one other language each, these in turn.

Documents are split by the hash of their identifiers, so translations fall on the same side.
Strengths and what was read are kept in the store, so a killed job goes on where it was.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from langneurons.base.errors import InputError, present
from langneurons.base.words import UNTOUCHED
from langneurons.data.corpus import Corpus, Part
from langneurons.evaluation.dose import MEASURES, Solved, solve
from langneurons.evaluation.perplexity import by_document, portions_of
from langneurons.evaluation.run import Run
from langneurons.interventions.plan import Plan, untouched
from langneurons.interventions.strength import at_strength
from langneurons.runtime.progress import Progress
from langneurons.scoring.divergence import token_kl
from langneurons.scoring.nll import token_nll

log = logging.getLogger(__name__)
DEVELOPMENT, TEST, CONTROL = "development", "test", "control"
LEAST = 2  # documents on each side
AS_IT_IS = 0.0  # in place of a dose: the intervention as it is configured


@dataclass(frozen=True)
class Setting:
    """What a method can be set to; dose: `AS_IT_IS` or the one asked for."""

    selection: str
    intervention: str
    dose: float


@dataclass(frozen=True)
class Dosed:
    """A plan at the strength that gives it a dose."""

    plan: Plan
    solved: Solved


@dataclass(frozen=True)
class Draw:
    """A random control: what it shares with the selection, and its number."""

    match: str
    number: int


@dataclass(frozen=True)
class Protocol:
    """How a trial is run; see the configuration key `trials`."""

    dose_tokens: int
    documents: int | None
    development: float
    choose: str
    seed: int
    kl: bool = False
    dose_by: str = "stream"
    dose_language: str | None = None


class Texts:
    """The held-out documents of every language in two parts, and what is read of them."""

    def __init__(self, run: Run, corpora: Mapping[str, Corpus], protocol: Protocol):
        self.run, self.corpora, self.protocol = run, corpora, protocol
        self.parts: dict[tuple[str, str], Part] = {}
        for lang, corpus in corpora.items():
            part = corpus.heldout.first(None, protocol.documents)
            for side in (DEVELOPMENT, TEST):
                chosen = [self._side(name) == side for name in part.documents]
                own = self.parts[lang, side] = part.only(np.array(chosen, bool))
                number = len(np.unique(own.document[own.scored]))
                if number < LEAST:
                    raise InputError(
                        f"trials: {number} held-out documents of {lang} fall to the {side} side;"
                        f" at least {LEAST} are needed. Raise corpus.heldout_tokens or"
                        " trials.documents, or change trials.development."
                    )

    def _side(self, document: object) -> str:
        # Another hash than that of the held-out split, which chose these documents.
        text = f"trial:{self.protocol.seed}:{document}".encode()
        share = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
        return DEVELOPMENT if share < self.protocol.development else TEST

    def nll(self, lang: str, side: str, plans: Sequence[Plan]) -> list[pd.DataFrame]:
        """Return per plan the NLL, tokens and bytes of each document; equal plans are read once."""
        return self._read("nll", token_nll, lang, side, plans)

    def kl(self, lang: str, side: str, plans: Sequence[Plan]) -> list[pd.DataFrame]:
        """Return per plan the summed KL(untouched || under the plan) of each document, likewise."""
        return self._read("kl", token_kl, lang, side, plans)

    def _read(
        self,
        measure: str,
        primitive: Callable[..., np.ndarray],
        lang: str,
        side: str,
        plans: Sequence[Plan],
    ) -> list[pd.DataFrame]:
        corpus, part, run = self.corpora[lang], self.parts[lang, side], self.run
        shared = {"lang": lang, "corpus_hash": corpus.header["corpus_hash"], "side": side}
        shared |= {"documents": self.protocol.documents, "seed": self.protocol.seed}
        shared |= {"development": self.protocol.development, "measure": measure}
        keys = {plan.digest: run.key | shared | {"plan": plan.digest} for plan in plans}
        found = {digest: run.store.get(key) for digest, key in keys.items()}
        waiting = {plan.digest: plan for plan in plans if found[plan.digest] is None}
        longest = int(part.lengths.max(initial=1))
        for portion in portions_of(run, longest, waiting):
            together = [waiting[digest] for digest in portion]
            values = primitive(
                run.model,
                part.tokens,
                part.lengths,
                part.scored & (part.document >= 0),
                run.batch_tokens,
                together,
            )
            for digest, own in zip(portion, values, strict=True):
                frame = by_document(corpus, part, own).rename(columns={"nll": measure})
                if not np.isfinite(frame[measure]).all():
                    name = waiting[digest].name
                    raise RuntimeError(f"{measure.upper()} of {lang} is not finite under {name}")
                run.store.put(keys[digest], frame)
                found[digest] = frame
        return [present(found[plan.digest], "trial: a text was not read") for plan in plans]

    def dosed(self, lang: str, plans: Sequence[Plan], asked: float) -> list[Dosed]:
        """Return plans at the strength of a dose on the identification text of a language.

        That is the target's, or the protocol's `dose_language`.
        """
        run, protocol = self.run, self.protocol
        read = protocol.dose_language or lang
        corpus = self.corpora[read]
        part = corpus.identification.first(protocol.dose_tokens)
        shared = {"lang": read, "corpus_hash": corpus.header["corpus_hash"], "dose": asked}
        shared["tokens"] = protocol.dose_tokens
        if protocol.dose_by != "stream":
            shared["by"] = protocol.dose_by
        dose_of = partial(
            MEASURES[protocol.dose_by], run.model, part=part, batch_tokens=run.batch_tokens
        )
        keys = [run.key | shared | {"of": plan.digest} for plan in plans]
        kept = [run.store.get(key) for key in keys]
        found = [None if one is None else Solved(*one.iloc[0].tolist()) for one in kept]
        waiting = [number for number, one in enumerate(found) if one is None]
        some = [plans[number] for number in waiting]
        if asked == AS_IT_IS:
            measured = dose_of(some) if some else []
            solved = [Solved(1.0, dose, True) for dose in measured]
        else:
            solved = solve(some, asked, dose_of) if some else []
        for number, new in zip(waiting, solved, strict=True):
            columns = {"strength": [new.strength], "dose": [new.dose], "reached": [new.reached]}
            run.store.put(keys[number], pd.DataFrame(columns))
            found[number] = new
        return [
            Dosed(at_strength(plan, one.strength) if one.strength > 0 else Plan(plan.name), one)
            for plan, one in zip(plans, found, strict=True)
            if one is not None
        ]


def run_trial(
    texts: Texts,
    targets: Sequence[str],
    settings: Sequence[Setting],
    plan_of: Callable[[Setting, str], Plan],
    controls: Callable[[Setting, str], Iterable[tuple[Draw, Plan]]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the records of a method, and which setting was chosen for each target and dose.

    plan_of: what a setting writes for a target, at strength 1; controls: the random draws of a
    setting, likewise.
    """
    langs = list(texts.corpora)
    records, choices = [], []
    for side, read in ((DEVELOPMENT, targets), (TEST, langs)):
        for lang in read:
            (frame,) = texts.nll(lang, side, [untouched()])
            records.append(_record(frame, side, UNTOUCHED, lang))
    progress = Progress("trial", len(targets), "targets")
    for target in targets:
        dosed = _all_dosed(texts, target, settings, plan_of)
        scores = _development(texts, target, targets, settings, dosed, records)
        chosen = _choose(texts.protocol, target, settings, dosed, scores)
        choices.append(chosen)
        numbers = chosen["number"].tolist()
        for lang in langs:
            plans = [dosed[number].plan for number in numbers]
            frames = texts.nll(lang, TEST, plans)
            if texts.protocol.kl:
                moved = texts.kl(lang, TEST, plans)
                frames = [a.assign(kl=b["kl"]) for a, b in zip(frames, moved, strict=True)]
            for number, frame in zip(numbers, frames, strict=True):
                records.append(_of(frame, TEST, target, lang, settings[number], dosed[number]))
        best = int(chosen.loc[chosen["best"], "number"].iloc[0])
        others = [lang for lang in targets if lang != target]
        _controls(texts, target, others, settings[best], controls, records)
        progress.update(1)
    progress.finish()
    return pd.concat(records, ignore_index=True), pd.concat(choices, ignore_index=True)


def _all_dosed(
    texts: Texts,
    target: str,
    settings: Sequence[Setting],
    plan_of: Callable[[Setting, str], Plan],
) -> list[Dosed]:
    """Return every setting at its dose; those of one dose are solved for together."""
    found: dict[int, Dosed] = {}
    for dose in dict.fromkeys(setting.dose for setting in settings):
        numbers = [n for n, setting in enumerate(settings) if setting.dose == dose]
        plans = [plan_of(settings[n], target) for n in numbers]
        found |= dict(zip(numbers, texts.dosed(target, plans, dose), strict=True))
    return [found[number] for number in range(len(settings))]


def _development(
    texts: Texts,
    target: str,
    targets: Sequence[str],
    settings: Sequence[Setting],
    dosed: Sequence[Dosed],
    records: list[pd.DataFrame],
) -> pd.DataFrame:
    """Read the development documents of the set's languages.

    Returns each setting's change by language, nats per token.
    """
    change = {}
    for lang in targets:
        frames = texts.nll(lang, DEVELOPMENT, [one.plan for one in dosed])
        before = per_token(texts.nll(lang, DEVELOPMENT, [untouched()])[0])
        change[lang] = [per_token(frame) - before for frame in frames]
        for number, frame in enumerate(frames):
            records.append(_of(frame, DEVELOPMENT, target, lang, settings[number], dosed[number]))
    return pd.DataFrame(change)


def per_token(frame: pd.DataFrame) -> float:
    """Return the NLL per token of some documents."""
    return float(frame["nll"].sum() / max(int(frame["tokens"].sum()), 1))


def _choose(
    protocol: Protocol,
    target: str,
    settings: Sequence[Setting],
    dosed: Sequence[Dosed],
    change: pd.DataFrame,
) -> pd.DataFrame:
    """Return the setting chosen at each dose; ties go to the first. A dose not reached is out.

    Where no setting reaches a dose, all of it stay in.
    """
    own = change[target].to_numpy()
    others = change.drop(columns=target)
    worse = others.mean(axis=1).to_numpy() if protocol.choose == "specificity" else 0.0
    score = own - (worse if others.shape[1] else 0.0)
    rows = []
    for dose in dict.fromkeys(setting.dose for setting in settings):
        numbers = [n for n, setting in enumerate(settings) if setting.dose == dose]
        reached = [n for n in numbers if dosed[n].solved.reached]
        best = max(reached or numbers, key=lambda n: (score[n], -n))
        rows.append(
            {
                "target": target,
                "number": best,
                "selection": settings[best].selection,
                "intervention": settings[best].intervention,
                "asked": dose,
                "strength": dosed[best].solved.strength,
                "dose": dosed[best].solved.dose,
                "reached": dosed[best].solved.reached,
                "settings": len(settings),
                "score": float(score[best]),
            }
        )
    frame = pd.DataFrame(rows)
    return frame.assign(best=np.arange(len(frame)) == int(frame["score"].to_numpy().argmax()))


def _controls(
    texts: Texts,
    target: str,
    others: Sequence[str],
    setting: Setting,
    controls: Callable[[Setting, str], Iterable[tuple[Draw, Plan]]],
    records: list[pd.DataFrame],
) -> None:
    """Read test documents under each random draw at the setting's dose.

    Those of the target, and of one of the others: draw n reads the n-th of them, in turns.
    """
    drawn = list(controls(setting, target))
    dosed = texts.dosed(target, [plan for _, plan in drawn], setting.dose)
    of_draw = [others[draw.number % len(others)] for draw, _ in drawn]
    for lang in (target, *others):
        chosen = [n for n in range(len(drawn)) if lang in (target, of_draw[n])]
        frames = texts.nll(lang, TEST, [dosed[n].plan for n in chosen])
        for n, frame in zip(chosen, frames, strict=True):
            records.append(_of(frame, CONTROL, target, lang, setting, dosed[n], drawn[n][0]))


def _record(frame: pd.DataFrame, phase: str, target: str, lang: str) -> pd.DataFrame:
    empty = {"selection": "", "intervention": UNTOUCHED, "asked": AS_IT_IS, "strength": 0.0}
    empty |= {"dose": 0.0, "reached": True, "match": "", "draw": -1}
    return frame.assign(phase=phase, target=target, evaluated=lang, kl=np.nan, **empty)


def _of(
    frame: pd.DataFrame,
    phase: str,
    target: str,
    lang: str,
    setting: Setting,
    dosed: Dosed,
    draw: Draw | None = None,
) -> pd.DataFrame:
    frame = frame if "kl" in frame else frame.assign(kl=np.nan)
    return frame.assign(
        phase=phase,
        target=target,
        evaluated=lang,
        selection=setting.selection,
        intervention=setting.intervention,
        asked=setting.dose,
        strength=dosed.solved.strength,
        dose=dosed.solved.dose,
        reached=dosed.solved.reached,
        match="" if draw is None else draw.match,
        draw=-1 if draw is None else draw.number,
    )
