"""Test the claims of a paper under every protocol."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from langneurons.reporting.claims import CLAIMS, decide
from langneurons.reporting.published import TOKEN_IDS
from langneurons.reporting.records import evaluation_files, perplexity_files, protocols
from langneurons.reporting.tables.perplexity import perplexity_change
from langneurons.reporting.tables.tasks import own_language
from langneurons.reporting.tables.write import write_table
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    read = evaluation_files(snakemake.input.records)
    matrices = perplexity_files(snakemake.input.matrices)
    changes = {
        path: perplexity_change(frame, show["results"], metadata["sampled"]).assign(
            **{key: metadata[key] for key in ("langset", "selection", "intervention")}
        )
        for path, frame, metadata in matrices
    }
    records: dict = {}
    perplexity: dict = {}
    for name, points in show["protocols"].items():
        for path, frame, metadata in read:
            if name in protocols(path, "evaluation", show):
                # Claims are about means over items, not scores of a whole corpus.
                metric = next((one for one in metadata["metrics"] if one in frame), None)
                if metric is None:
                    continue
                if points["answers"] == "paper":
                    metric = TOKEN_IDS.get(metric, metric)
                key = (name, metadata["model"], metadata["task"])
                records.setdefault(key, (metric, []))[1].append(own_language(frame))
        for path, _, metadata in matrices:
            if name in protocols(path, "perplexity", show):
                perplexity.setdefault((name, metadata["model"]), []).append(changes[path])
    table = decide(
        show["results"]["claims"],
        {key: (metric, pd.concat(frames)) for key, (metric, frames) in records.items()},
        {key: pd.concat(frames) for key, frames in perplexity.items()},
        show,
    )
    notes = [f"{CLAIMS[name].title}. {CLAIMS[name].test}" for name in show["results"]["claims"]]
    notes.append(
        f"Margin: {show['results']['margin']:g}. Items are resampled with all their cells."
    )
    stem = Path(snakemake.output[0]).with_suffix("")
    write_table(table, stem, "Claims of the paper", notes)
    job.done(claims=len(table))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
