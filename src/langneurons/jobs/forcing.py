"""Language forcing under one intervention on the neurons of one selection."""

from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.base.digests import digest
from langneurons.base.io import read_jsonl
from langneurons.base.store import SideStore
from langneurons.evaluation.forcing import force
from langneurons.jobs.common import STORE, load, plan, read_statistics, read_table


def forcing_cell(
    cfg: dict[str, Any],
    code: list[str],
    wildcards: dict[str, str],
    manifest: str,
    neurons: str,
    statistics: list[str],
    questions: list[str],
    batch_tokens: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the texts of every pair of source and target, and their metadata.

    `questions` are files named by their language.
    """
    model, tokenizer, who = load(cfg, manifest)
    table = read_table(neurons, who)
    own = read_statistics(statistics, who, tokenizer)
    name = wildcards["intervention"]
    asked = {Path(path).stem: read_jsonl(path) for path in questions}
    plans = {
        (source, target): plan(name, cfg["intervention"], target, table, own, source)
        for source in cfg["sources"]
        for target in cfg["targets"]
    }
    frame = force(
        model,
        tokenizer,
        {source: asked[source] for source in cfg["sources"]},
        plans,
        SideStore(STORE, "generation"),
        {"model": who, "code": digest(code)},
        cfg["decoding"],
        batch_tokens,
    )
    names = {key: wildcards[key] for key in ("model", "langset", "selection", "intervention")}
    return frame, names | {"languages": table.languages, "identity": who}
