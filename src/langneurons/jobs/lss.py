"""One matrix of the Language Steering Shift: base languages x target languages."""

from typing import Any

import pandas as pd

from langneurons.base.digests import digest
from langneurons.base.io import read_jsonl
from langneurons.base.store import SideStore
from langneurons.evaluation.steering_shift import measure
from langneurons.jobs.common import STORE, load, plan, read_statistics, read_table


def lss_cell(
    cfg: dict[str, Any],
    code: list[str],
    wildcards: dict[str, str],
    manifest: str,
    neurons: str,
    statistics: list[str],
    facts: list[str],
    batch_tokens: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of one matrix and their metadata; `facts` in the order of the bases."""
    model, tokenizer, who = load(cfg, manifest)
    table = read_table(neurons, who)
    own = read_statistics(statistics, who, tokenizer)
    rows = {base: read_jsonl(path) for base, path in zip(cfg["bases"], facts, strict=True)}
    plans = {
        lang: plan(wildcards["intervention"], cfg["intervention"], lang, table, own)
        for lang in cfg["targets"]
    }
    frame = measure(
        model,
        tokenizer,
        rows,
        plans,
        cfg["way"],
        SideStore(STORE, "lss"),
        {"model": who, "code": digest(code)},
        batch_tokens,
    )
    names = {key: wildcards[key] for key in ("model", "langset", "selection", "intervention")}
    more = {
        "bases": cfg["bases"],
        "targets": cfg["targets"],
        "facts": {base: len(one) for base, one in rows.items()},
        "neurons": {lang: one.neurons for lang, one in plans.items()},
        "way": cfg["way"],
        "identity": who,
    }
    return frame, names | more
