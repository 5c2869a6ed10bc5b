"""The logit lens on one language set, under every condition."""

from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.base.digests import digest
from langneurons.base.io import read_jsonl
from langneurons.base.store import SideStore
from langneurons.data.corpus import Corpus
from langneurons.evaluation.lens import read_layers
from langneurons.jobs.common import STORE, load, plan, read_statistics, read_table
from langneurons.models.load import tokenizer_hash


def lens_cell(
    cfg: dict[str, Any],
    code: list[str],
    wildcards: dict[str, str],
    manifest: str,
    neurons: list[str],
    statistics: list[str],
    corpora: list[str],
    questions: list[str],
    batch_tokens: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of every prompt, layer and language, and their metadata.

    `neurons` and `questions` are files named by selection and language.
    """
    model, tokenizer, who = load(cfg, manifest)
    own = read_statistics(statistics, who, tokenizer)
    made_by = tokenizer_hash(tokenizer)
    texts = [Corpus.read(p, lang=Path(p).stem, tokenizer_hash=made_by) for p in corpora]
    tables = {Path(path).stem: read_table(path, who) for path in neurons}
    asked = {Path(path).stem: read_jsonl(path) for path in questions}
    plans = {
        (selection, name, target): {
            lang: plan(name, cfg["interventions"][name], target, tables[selection], own, lang)
            for lang in cfg["languages"]
        }
        for selection, name, target in map(tuple, cfg["conditions"])
    }
    frame, covered = read_layers(
        model,
        tokenizer,
        {lang: asked[lang] for lang in cfg["languages"]},
        plans,
        {text.lang: text for text in texts},
        SideStore(STORE, "lens"),
        {"model": who, "code": digest(code)},
        cfg["lens"],
        batch_tokens,
    )
    names = {key: wildcards[key] for key in ("model", "langset")}
    return frame, names | {"coverage": covered.to_dict("records"), "identity": who}
