"""The table of how stable selections are on other parts of the text."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from langneurons.reporting.labels import Labels
from langneurons.reporting.records import stability_records
from langneurons.reporting.tables.write import write_table

KEYS = ["kind", "share", "lang"]
COLUMNS = ["tokens", "neurons", "draws", "jaccard", "low", "high", "cosine"]


def stability_summary(
    records: Iterable[tuple[Mapping[str, str], pd.DataFrame]], confidence: float
) -> pd.DataFrame:
    """Return a row per cell, kind of draw, share of the text and language: means over draws.

    low, high: the range that holds `confidence` of the draws, of the measure of the selection:
    Jaccard of neurons, cosine of directions; NaN of one draw.
    """
    tail = (1 - confidence) / 2
    parts = []
    for names, frame in records:
        measure = "cosine" if frame["cosine"].notna().any() else "jaccard"
        found = []
        for key, own in frame.groupby(KEYS, sort=False):
            values = own[measure].to_numpy(np.float64)
            known = values[~np.isnan(values)]
            low = high = np.nan
            if len(known) > 1:
                low, high = np.quantile(known, [tail, 1 - tail])
            row = dict(zip(KEYS, key, strict=True))
            row |= {"tokens": round(own["tokens"].mean()), "neurons": own["neurons"].mean()}
            row |= {"draws": len(own), "jaccard": own["jaccard"].mean(), "low": low, "high": high}
            found.append({**names, **row, "cosine": own["cosine"].mean()})
        parts.append(pd.DataFrame(found))
    table = pd.concat(parts, ignore_index=True)
    return table if table["cosine"].notna().any() else table.drop(columns="cosine")


def tabulate_stability(files: list[str], labels: Labels, folder: Path) -> None:
    """Write the table of stability."""
    confidence = labels.results["confidence"]
    table = stability_summary(stability_records(files, labels), confidence)
    write_table(
        labels.shown(table),
        folder / "stability",
        "Selections made again on other parts of the text",
        "halves: two random halves against each other; budget: the beginning of the text against"
        " the whole; bootstrap: slices drawn with replacement against the whole. low, high: the"
        f" middle {confidence:.0%} of the draws.",
    )
