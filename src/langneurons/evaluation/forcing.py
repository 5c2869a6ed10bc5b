"""What a model writes under interventions: language forcing, and fallback under deactivation.

Forcing (Gurgurov et al. 2025): questions in a source language, answered while the neurons of a
target language are activated, and those of the source deactivated where the intervention says so;
all ordered pairs, same-language pairs included. Fallback: questions in one language, answered while
the neurons of more and more languages are overwritten, first of none. Both decode greedily. Texts
are kept as they are; `langneurons.evaluation.judging` tells their languages afterwards, so that
another identifier decodes nothing again.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from langneurons.base.digests import digest
from langneurons.base.store import SideStore
from langneurons.data.questions import prompts
from langneurons.evaluation.perplexity import plan_digest
from langneurons.interventions.hooks import Plan, applied_rows
from langneurons.models.encoding import controls_of, max_positions, report_cuts
from langneurons.models.families import MlpSites
from langneurons.runtime.progress import Progress
from langneurons.scoring.primitives import NotFinite, encode_prompts, generate

log = logging.getLogger(__name__)
BASELINE = "none"
PORTION = 8  # batches after which finished parts are kept
Part = tuple[str, ...]


def continuations(
    model,
    tokenizer,
    parts: Mapping[Part, tuple[Sequence[dict], Plan]],
    store: SideStore,
    key: dict,
    decoding: Mapping[str, Any],
    batch_tokens: int,
    label: str,
) -> dict[Part, pd.DataFrame]:
    """Return id, question, text, tokens and cut of the answers of each part: (questions, plan).

    tokens: of the answer; cut: how many its prompt lost because it did not fit.

    `decoding` holds template, max_new_tokens, repetition_penalty and stop. Finished parts come
    from the store; the others are decoded in common batches, each row under its part's plan.
    """
    sites = MlpSites(model)
    found: dict[Part, pd.DataFrame] = {}
    keys = {
        name: key | {"questions": digest(rows), "plan": plan_digest(plan), "decoding": decoding}
        for name, (rows, plan) in parts.items()
    }
    progress = Progress(label, len(parts), "conditions")
    pending: list[Part] = []
    first: dict[str, Part] = {}
    for name in parts:
        frame = store.get(keys[name])
        if frame is not None:
            found[name] = frame
            progress.update()
        elif first.setdefault(digest(keys[name]), name) == name:
            pending.append(name)
    while pending:
        portion, size = [], 0
        while pending and (not portion or size < PORTION * batch_tokens):
            portion.append(pending.pop(0))
            rows = parts[portion[-1]][0]
            size += sum(len(row["question"]) // 4 + decoding["max_new_tokens"] for row in rows)
        try:
            decoded = _decoded(sites, model, tokenizer, parts, portion, decoding, batch_tokens)
        except NotFinite as error:
            raise NotFinite(f"{label}, {', '.join(map(str, portion))}: {error}") from error
        for name, answers in decoded:
            rows, texts = parts[name][0], [text for text, _ in answers]
            lengths = [len(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]
            found[name] = pd.DataFrame(
                {
                    "id": [row["id"] for row in rows],
                    "question": [row["question"] for row in rows],
                    "text": texts,
                    "tokens": np.asarray(lengths, np.int64),
                    "cut": np.asarray([cut for _, cut in answers], np.int64),
                }
            )
            store.put(keys[name], found[name])
            progress.update()
    progress.finish()
    return {
        name: found[name] if name in found else found[first[digest(keys[name])]] for name in parts
    }


def _decoded(sites, model, tokenizer, parts, names, decoding, batch_tokens):
    """Return (part, [(text, tokens cut off its prompt)]) for the named parts.

    All are decoded together, each row under its part's plan.
    """
    texts, owner, conditions = [], [], []
    for number, name in enumerate(names):
        rows, _ = parts[name]
        texts += prompts(list(rows), decoding["template"])
        owner += [name] * len(rows)
        conditions += [number] * len(rows)
    room, controls = decoding["max_new_tokens"], controls_of(tokenizer, [decoding["template"]])
    encoded = encode_prompts(sites, tokenizer, texts, room, controls)
    cuts = [one.cut for one in encoded]
    report_cuts("questions", cuts, max_positions(sites.config))
    with applied_rows(sites, [parts[name][1] for name in names]) as running:
        answers = generate(
            model,
            tokenizer,
            encoded,
            decoding["max_new_tokens"],
            decoding["stop"],
            batch_tokens,
            decoding["repetition_penalty"],
            on_forward=running.on_forward,
            conditions=conditions,
            shared=running.by_token,
            alike=running.alike(),
        )
    grouped: dict[Part, list[tuple[str, int]]] = {name: [] for name in names}
    for name, answer, cut in zip(owner, answers, cuts, strict=True):
        grouped[name].append((answer, cut))
    return list(grouped.items())


def force(
    model,
    tokenizer,
    questions: Mapping[str, Sequence[dict]],
    plans: Mapping[tuple[str, str], Plan],
    store: SideStore,
    key: dict,
    decoding: Mapping[str, Any],
    batch_tokens: int,
) -> pd.DataFrame:
    """Return source, target, id, question, text, tokens, cut; target `none` is the untouched model.

    `questions` by source language; `plans` by (source, target).
    """
    parts: dict[Part, tuple[Sequence[dict], Plan]] = {
        (source, BASELINE): (rows, Plan(BASELINE)) for source, rows in questions.items()
    }
    parts |= {(source, target): (questions[source], p) for (source, target), p in plans.items()}
    found = continuations(
        model, tokenizer, parts, store, key, decoding, batch_tokens, "language forcing"
    )
    frames = [one.assign(source=s, target=t) for (s, t), one in found.items()]
    columns = ["source", "target", "id", "question", "text", "tokens", "cut"]
    return pd.concat(frames, ignore_index=True)[columns]


def cumulative(plans: Sequence[tuple[str, Plan]]) -> list[tuple[list[str], Plan]]:
    """Return (languages, plan) of every step: no language, the first, the first two, ...

    A step's neurons are the union of its languages'. A neuron that several share is written once,
    as by the first of them.
    """
    steps: list[tuple[list[str], Plan]] = [([], Plan(BASELINE))]
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
    model,
    tokenizer,
    questions: Sequence[dict],
    steps: Sequence[tuple[Sequence[str], Plan]],
    store: SideStore,
    key: dict,
    decoding: Mapping[str, Any],
    batch_tokens: int,
) -> pd.DataFrame:
    """Return step, added, deactivated, neurons, id, question, text, tokens, cut.

    added: the language whose neurons joined at the step; deactivated: all of them, by commas.
    """
    parts: dict[Part, tuple[Sequence[dict], Plan]] = {
        (str(number),): (questions, plan) for number, (_, plan) in enumerate(steps)
    }
    found = continuations(
        model, tokenizer, parts, store, key, decoding, batch_tokens, "fallback order"
    )
    frames = []
    for number, (langs, plan) in enumerate(steps):
        labels = {
            "step": number,
            "added": langs[-1] if langs else BASELINE,
            "deactivated": ",".join(langs) or BASELINE,
            "neurons": plan.neurons,
        }
        frames.append(found[(str(number),)].assign(**labels))
    columns = ["step", "added", "deactivated", "neurons", "id", "question", "text", "tokens", "cut"]
    return pd.concat(frames, ignore_index=True)[columns]
