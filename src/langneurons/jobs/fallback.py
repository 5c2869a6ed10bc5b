"""Answers while the neurons of more and more languages are overwritten."""

from typing import Any

import pandas as pd

from langneurons.base.digests import digest
from langneurons.base.io import read_jsonl
from langneurons.base.store import SideStore
from langneurons.evaluation.forcing import cumulative, fall_back
from langneurons.jobs.common import STORE, load, plan, read_statistics, read_table


def fallback_cell(
    cfg: dict[str, Any],
    code: list[str],
    wildcards: dict[str, str],
    manifest: str,
    neurons: str,
    statistics: list[str],
    questions: str,
    batch_tokens: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the texts of every step, and their metadata."""
    model, tokenizer, who = load(cfg, manifest)
    table = read_table(neurons, who)
    own = read_statistics(statistics, who, tokenizer)
    name = wildcards["intervention"]
    plans = [(lang, plan(name, cfg["intervention"], lang, table, own)) for lang in cfg["order"]]
    frame = fall_back(
        model,
        tokenizer,
        read_jsonl(questions),
        cumulative(plans),
        SideStore(STORE, "generation"),
        {"model": who, "code": digest(code)},
        cfg["decoding"],
        batch_tokens,
    )
    names = {key: wildcards[key] for key in ("model", "langset", "selection", "intervention")}
    return frame, names | {"languages": table.languages, "identity": who}
