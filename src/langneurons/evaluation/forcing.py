"""What a model writes under interventions: language forcing, and fallback under deactivation.

Forcing (Gurgurov et al. 2025): questions in a source language, answered while the neurons of a
target language are activated, and those of the source deactivated where the intervention says so;
all ordered pairs, same-language pairs included. Fallback: questions in one language, answered while
the neurons of more and more languages are overwritten, first of none. Both decode greedily. Texts
are kept as they are; `langneurons.evaluation.texts` tells their languages afterwards, so that
another identifier decodes nothing again.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from langneurons.base.digests import digest
from langneurons.base.words import UNTOUCHED
from langneurons.data.questions import instructed, plain_prompt
from langneurons.evaluation.run import Run
from langneurons.interventions.plan import PerRequest, Plan, untouched
from langneurons.models.chat import Chat, chat_of
from langneurons.models.encoding import controls_of, report_cuts
from langneurons.runtime.progress import Progress
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.engine import STORED
from langneurons.scoring.generation import encode_prompts, generate, penalty_of
from langneurons.scoring.head import NotFinite

log = logging.getLogger(__name__)
PORTION = 8  # batches after which finished parts are kept
Part = tuple[str, ...]


def continuations(
    run: Run,
    parts: Mapping[Part, tuple[Sequence[dict], Plan]],
    decoding: Mapping[str, Any],
    label: str,
) -> dict[Part, pd.DataFrame]:
    """Return id, part, question, text, tokens, cut of the answers of each part: (questions, plan).

    tokens: of the answer; cut: how many its prompt lost because it did not fit.

    `decoding` holds template, max_new_tokens, repetition_penalty and stop, and, where the model is
    spoken to by its chat template, chat and message. Finished parts come from the store; the others
    are decoded in common batches, each row under its part's plan.
    """
    found: dict[Part, pd.DataFrame] = {}
    keys = {
        name: run.key | {"questions": digest(rows), "plan": plan.digest, "decoding": decoding}
        for name, (rows, plan) in parts.items()
    }
    progress = Progress(label, len(parts), "conditions")
    pending: list[Part] = []
    first: dict[str, Part] = {}
    for name in parts:
        frame = run.store.get(keys[name])
        if frame is not None:
            found[name] = frame
            if first.setdefault(digest(keys[name]), name) == name:
                run.engine.answers[STORED] += len(frame)
            progress.update()
        elif first.setdefault(digest(keys[name]), name) == name:
            pending.append(name)
    while pending:
        portion: list[Part] = []
        size = 0
        while pending and (not portion or size < PORTION * run.batch_tokens):
            portion.append(pending.pop(0))
            rows = parts[portion[-1]][0]
            size += sum(len(row["question"]) // 4 + decoding["max_new_tokens"] for row in rows)
        try:
            decoded = _decoded(run, [parts[name] for name in portion], decoding)
        except NotFinite as error:
            raise NotFinite(f"{label}, {', '.join(map(str, portion))}: {error}") from error
        for name, frame in zip(portion, decoded, strict=True):
            found[name] = frame
            run.store.put(keys[name], frame)
            progress.update()
    progress.finish()
    return {
        name: found[name] if name in found else found[first[digest(keys[name])]] for name in parts
    }


def _decoded(
    run: Run, parts: Sequence[tuple[Sequence[dict], Plan]], decoding: Mapping[str, Any]
) -> list[pd.DataFrame]:
    """Return the answers of each part; all are decoded together, each row under its part's plan."""
    model, chat = run.model, chat_of(run.model, decoding.get("chat"))
    template = decoding["template" if chat is None else "message"]
    rows = [row for own, _ in parts for row in own]
    numbers = [number for number, (own, _) in enumerate(parts) for _ in own]
    how = Decoding(
        decoding["max_new_tokens"],
        decoding["stop"],
        penalty_of(model, decoding["repetition_penalty"]),
        frozenset() if chat is None else chat.ends,
    )
    if chat is None:
        controls = controls_of(model.tokenizer, [template])
        texts = [plain_prompt(row, template) for row in rows]
        encoded = encode_prompts(model, texts, how.max_new_tokens, controls)
    else:
        asked = [conversation(chat, row, template) for row in rows]
        encoded = [chat.prompt(messages, how.max_new_tokens) for messages in asked]
    cuts = [one.cut for one in encoded]
    report_cuts("questions", cuts, model.max_positions)
    under = PerRequest([plan for _, plan in parts], numbers)
    answers = generate(model, encoded, how, run.batch_tokens, under, engine=run.engine)
    made = model.tokenizer(answers, add_special_tokens=False)["input_ids"]
    frame = pd.DataFrame(
        {
            "id": [row["id"] for row in rows],
            "part": [row.get("part", "") for row in rows],
            "question": [row["question"] for row in rows],
            "text": answers,
            "tokens": np.asarray([len(ids) for ids in made], np.int64),
            "cut": np.asarray(cuts, np.int64),
        }
    )
    ends = np.cumsum([len(own) for own, _ in parts])
    return [
        frame[end - len(own) : end].reset_index(drop=True)
        for end, (own, _) in zip(ends, parts, strict=True)
    ]


def conversation(chat: Chat, row: Mapping[str, Any], template: str) -> list[dict[str, str]]:
    """Return a question as a conversation, after the turns and with the instruction of its row."""
    system = row["instruction"] if row.get("place") == "system" else None
    own = row["question"] if system is not None else instructed(row)
    turns = [(template.format(question=asked), said) for asked, said in row.get("turns", ())]
    return chat.messages(template.format(question=own), turns, system)


def force(
    run: Run,
    questions: Mapping[str, Sequence[dict]],
    plans: Mapping[tuple[str, str], Plan],
    decoding: Mapping[str, Any],
) -> pd.DataFrame:
    """Return source, target, id, question, text, tokens, cut; target `none` is the untouched model.

    `questions` by source language; `plans` by (source, target).
    """
    parts: dict[Part, tuple[Sequence[dict], Plan]] = {
        (source, UNTOUCHED): (rows, untouched()) for source, rows in questions.items()
    }
    parts |= {(source, target): (questions[source], p) for (source, target), p in plans.items()}
    found = continuations(run, parts, decoding, "language forcing")
    frames = [one.assign(source=s, target=t) for (s, t), one in found.items()]
    columns = ["source", "target", "id", "question", "text", "tokens", "cut"]
    return pd.concat(frames, ignore_index=True)[columns]


def cumulative(plans: Sequence[tuple[str, Plan]]) -> list[tuple[list[str], Plan]]:
    """Return (languages, plan) of every step: no language, the first, the first two, ...

    A step's neurons are the union of its languages'. A neuron that several share is written once,
    as by the first of them.
    """
    steps: list[tuple[list[str], Plan]] = [([], untouched())]
    owned: dict[tuple[int, str], np.ndarray] = {}
    for lang, plan in plans:
        langs, before = steps[-1]
        writes = list(before.writes)
        own: dict[tuple[int, str], list[np.ndarray]] = {}
        for write in plan.writes:
            place = (write.layer, write.site)
            kept = ~np.isin(write.index, owned.get(place, np.zeros(0, np.int64)))
            own.setdefault(place, []).append(write.index)
            if kept.any():
                value = write.value[kept] if np.ndim(write.value) else write.value
                writes.append(replace(write, index=write.index[kept], value=value))
        for place, indices in own.items():
            known = owned.get(place, np.zeros(0, np.int64))
            owned[place] = np.unique(np.concatenate([known, *indices]))
        steps.append(([*langs, lang], Plan(plan.name, writes)))
    return steps


def fall_back(
    run: Run,
    questions: Sequence[dict],
    steps: Sequence[tuple[Sequence[str], Plan]],
    decoding: Mapping[str, Any],
) -> pd.DataFrame:
    """Return step, added, deactivated, neurons, id, question, text, tokens, cut.

    added: the language whose neurons joined at the step; deactivated: all of them, by commas.
    """
    parts: dict[Part, tuple[Sequence[dict], Plan]] = {
        (str(number),): (questions, plan) for number, (_, plan) in enumerate(steps)
    }
    found = continuations(run, parts, decoding, "fallback order")
    frames = []
    for number, (langs, plan) in enumerate(steps):
        labels = {
            "step": number,
            "added": langs[-1] if langs else UNTOUCHED,
            "deactivated": ",".join(langs) or UNTOUCHED,
            "neurons": plan.neurons,
        }
        frames.append(found[(str(number),)].assign(**labels))
    columns = ["step", "added", "deactivated", "neurons", "id", "question", "text", "tokens", "cut"]
    return pd.concat(frames, ignore_index=True)[columns]
