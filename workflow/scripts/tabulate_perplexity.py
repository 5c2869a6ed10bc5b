"""Write the tables of perplexity changes."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from langneurons.reporting.records import perplexity_matrices, with_labels
from langneurons.reporting.tables.perplexity import (
    perplexity_change,
    perplexity_notes,
    perplexity_summary,
)
from langneurons.reporting.tables.write import write_table
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    folder = Path(snakemake.output[0]).parent
    cells, summaries = [], []
    for labels, frame, sampled in perplexity_matrices(snakemake.input, show):
        change = perplexity_change(frame, show["results"], sampled)
        summary = perplexity_summary(change, show["results"]["confidence"])
        summaries.append(with_labels(labels, summary))
        cells.append(with_labels(labels, change))
    table, results = pd.concat(cells, ignore_index=True), show["results"]
    notes = perplexity_notes(table, results)
    write_table(table, folder / "perplexity", "Change of perplexity", notes)
    notes = (
        "Changes of NLL in nats per token; means, and interval of the own language's, over"
        " n_languages languages."
    )
    table = pd.concat(summaries)
    write_table(table, folder / "perplexity_summary", "Own against other languages", notes)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
