"""The tables of how much text was read until a selection was stable."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.reporting.labels import Labels
from langneurons.reporting.records import until_records
from langneurons.reporting.tables.write import write_table
from langneurons.selection.until import set_means

COMPARED = {
    True: "the two halves of what was read",
    False: "the first half of what was read with all of it",
}


def budgets_read(frame: pd.DataFrame, metadata: Mapping[str, Any]) -> pd.DataFrame:
    """Return a row per language set and budget: tokens of a language, Jaccard index, and whether.

    tokens, jaccard: means over the languages of the set.
    """
    keys = ["langset", "slices"]
    means = set_means(frame).stack(future_stack=True).rename("jaccard").reset_index()
    tokens = frame.groupby(keys, sort=False)["tokens"].mean().round().astype(int).reset_index()
    found = tokens.merge(means, on=keys)
    return found.assign(agrees=found["jaccard"] >= metadata["jaccard"])


def tabulate_until(files: list[str], labels: Labels, folder: Path) -> None:
    """Write what was read of each model's text, and the curve that stopped the reading."""
    read, curves, notes = [], [], []
    for names, frame, metadata in until_records(files, labels):
        tokens, there = (sum(metadata[key].values()) for key in ("tokens", "there"))
        one = names | {"selection": labels.until, "threshold": metadata["jaccard"]}
        read.append(
            one
            | {"slices": metadata["read"], "slices_there": metadata["slices"]}
            | {"tokens": tokens, "tokens_left": there - tokens}
            | {"share_left": 1 - tokens / there, "stable": metadata["stable"]}
        )
        whole = budgets_read(frame, metadata).assign(lang="mean of the languages")
        columns = [*whole.columns.drop(["lang", "agrees"]), "lang", "neurons", "chance"]
        both = pd.concat([frame[columns], whole], ignore_index=True)
        both = both.sort_values(["langset", "slices"], kind="stable")
        curves.append(both.rename(columns={"langset": "languages"}).assign(**one))
        notes.append(COMPARED[metadata["halves"]])
    compared = " and ".join(dict.fromkeys(notes))
    rule = (
        f"The selection was made on growing parts of the text and compared on {compared}. Reading"
        " stops as soon as the mean Jaccard index over the languages reaches the threshold at two"
        " budgets in a row on every language set, or with the text."
    )
    write_table(
        labels.shown(pd.DataFrame(read)),
        folder / "until",
        "Text that was read until the selection was stable",
        [rule, "tokens: of all languages; tokens_left, share_left: what was not read."],
    )
    order = ["model", "languages", "selection", "slices", "lang", "tokens", "neurons", "jaccard"]
    table = pd.concat(curves, ignore_index=True)[[*order, "chance", "threshold", "agrees"]]
    note = (
        "slices, tokens: what was read of each language. chance: Jaccard index of random sets of"
        " these sizes in each layer. agrees: whether the mean reaches the threshold."
    )
    write_table(
        labels.shown(table),
        folder / "until_curve",
        "Agreement of a selection while text was read",
        [rule, note],
    )
