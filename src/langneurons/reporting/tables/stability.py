"""The table of how stable selections are on other parts of the text, and on other sets."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from langneurons.reporting.agreement import ends, measure_of, replicated
from langneurons.reporting.labels import Labels
from langneurons.reporting.records import stability_records
from langneurons.reporting.tables.write import write_table

KEYS = ["kind", "share", "lang", "other"]


def stability_summary(
    records: Iterable[tuple[Mapping[str, str], pd.DataFrame, Mapping]], confidence: float
) -> pd.DataFrame:
    """Return a row per cell, kind of draw, share of the text and language: means over draws.

    low, high: the range that holds `confidence` of the draws, of the measure of the selection:
    Jaccard of neurons, cosine of directions; NaN of one draw. Of a comparison the measure is that
    of all slices, and the range is that of the draws around their mean.
    """
    parts = []
    for names, frame, metadata in records:
        measure = measure_of(frame)
        found = []
        for key, own in frame.groupby(KEYS, sort=False):
            row = dict(zip(KEYS, key, strict=True))
            value, changes = replicated(own, measure, row["kind"] in metadata["unmatched"])
            low, high = ends(value, changes, confidence, measure)
            row |= {"tokens": round(own["tokens"].mean()), "neurons": own["neurons"].mean()}
            row |= {"draws": len(changes), "jaccard": own["jaccard"].mean()}
            row |= {"chance": own["chance"].mean(), "cosine": own["cosine"].mean()}
            found.append({**names, **row, measure: value, "low": low, "high": high})
        parts.append(pd.DataFrame(found))
    table = pd.concat(parts, ignore_index=True)
    left = [] if table["cosine"].notna().any() else ["cosine"]
    left += ["other"] if (table["other"] == table["lang"]).all() else []
    return table.drop(columns=left)


def tabulate_stability(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the table of stability."""
    confidence = labels.results["confidence"]
    records = stability_records(files, labels)
    table = stability_summary(records, confidence)
    notes = [
        "halves: two random halves against each other; budget: the beginning of the text against"
        " the whole; bootstrap: slices drawn with replacement against the whole. low, high: the"
        f" middle {confidence:.0%} of the draws. chance: Jaccard of random sets of these sizes in"
        " each layer.",
    ]
    compared: dict[str, str] = {}
    for _, _, metadata in records:
        for name, left in metadata["unmatched"].items():
            pair = " and ".join(labels.comparisons[name])
            without = f" (without a match: {', '.join(left)})" if left else ""
            compared[name] = f"{name}: {pair}{without}"
    if compared:
        notes.append(
            "Comparisons of language sets, on all of the text; low, high: bootstrap draws of slices"
            f" of both, around their mean. {'; '.join(compared.values())}."
        )
    write_table(
        labels.shown(table),
        folder / "stability",
        "Selections made again on other parts of the text",
        notes,
    )
