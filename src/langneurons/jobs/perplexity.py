"""One perplexity matrix."""

from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.base.digests import digest
from langneurons.base.store import SideStore
from langneurons.data.corpus import Corpus
from langneurons.evaluation.perplexity import measure
from langneurons.jobs.common import STORE, load, plan, read_statistics, read_table
from langneurons.models.load import tokenizer_hash


def perplexity_cell(
    cfg: dict[str, Any],
    code: list[str],
    wildcards: dict[str, str],
    manifest: str,
    neurons: str,
    statistics: list[str],
    corpora: list[str],
    batch_tokens: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of one perplexity matrix and their metadata."""
    model, tokenizer, who = load(cfg, manifest)
    table = read_table(neurons, who)
    made_by = tokenizer_hash(tokenizer)
    own = read_statistics(statistics, who, tokenizer)
    texts = [Corpus.read(p, lang=Path(p).stem, tokenizer_hash=made_by) for p in corpora]
    plans = {
        lang: plan(wildcards["intervention"], cfg["intervention"], lang, table, own)
        for lang in table.languages
    }
    frame = measure(
        model,
        {text.lang: text for text in texts},
        plans,
        SideStore(STORE, "perplexity"),
        {"model": who, "code": digest(code)},
        cfg["tokens"],
        batch_tokens,
        cfg["sampled"],
        cfg.get("documents"),
    )
    names = {key: wildcards[key] for key in ("model", "langset", "selection", "intervention")}
    more = {"languages": table.languages, "sampled": cfg["sampled"], "identity": who}
    more["texts"] = {text.lang: text.header.get("text", {}) for text in texts}
    return frame, names | more
