"""One perplexity matrix."""

from typing import Any

import pandas as pd

from langneurons.cells.common import STORE, load, plan, read_statistics, read_table
from langneurons.corpora import Corpus
from langneurons.loading import tokenizer_hash
from langneurons.perplexity import measure
from langneurons.provenance import digest
from langneurons.sidestore import SideStore


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
    own = read_statistics(statistics, who)
    texts = [Corpus.read(path, tokenizer_hash(tokenizer)) for path in corpora]
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
    )
    names = {key: wildcards[key] for key in ("model", "langset", "selection", "intervention")}
    more = {"languages": table.languages, "sampled": cfg["sampled"], "identity": who}
    return frame, names | more
