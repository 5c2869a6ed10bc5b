"""The table of a paper's claims, each by a stated test, under every protocol."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from langneurons.reporting.claims import CLAIMS, decide
from langneurons.reporting.labels import Labels
from langneurons.reporting.published import TOKEN_IDS
from langneurons.reporting.records import evaluation_files, matrix_files, protocols, read_as
from langneurons.reporting.tables.perplexity import perplexity_change
from langneurons.reporting.tables.tasks import own_language
from langneurons.reporting.tables.write import write_table


def tabulate_claims(
    labels: Labels, folder: Path, records: list[str], matrices: Sequence[str] = ()
) -> None:
    """Write the verdict of every claim."""
    results, read = labels.results, evaluation_files(records)
    changes = [
        (
            path,
            metadata["model"],
            perplexity_change(frame, results, **read_as(metadata)).assign(
                **{key: metadata[key] for key in ("langset", "selection", "intervention")}
            ),
        )
        for path, frame, metadata in matrix_files(matrices, "perplexity")
    ]
    scores: dict = {}
    perplexity: dict = {}
    for name, points in labels.protocols.items():
        for path, frame, metadata in read:
            if name in protocols(path, "evaluation", labels):
                # Claims are about means over items, not scores of a whole corpus.
                metric = next((one for one in metadata["metrics"] if one in frame), None)
                if metric is None:
                    continue
                if points["answers"] == "paper":
                    metric = TOKEN_IDS.get(metric, metric)
                key = (name, metadata["model"], metadata["task"])
                scores.setdefault(key, (metric, []))[1].append(own_language(frame))
        for path, model, change in changes:
            if name in protocols(path, "perplexity", labels):
                perplexity.setdefault((name, model), []).append(change)
    table = decide(
        results["claims"],
        {key: (metric, pd.concat(frames)) for key, (metric, frames) in scores.items()},
        {key: pd.concat(frames) for key, frames in perplexity.items()},
        labels,
    )
    notes = [f"{CLAIMS[name].title}. {CLAIMS[name].test}" for name in results["claims"]]
    notes.append(f"Margin: {results['margin']:g}. Items are resampled with all their cells.")
    write_table(labels.shown(table), folder / "claims", "Claims of the paper", notes)
