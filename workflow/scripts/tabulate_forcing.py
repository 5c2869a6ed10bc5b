"""Write the tables of language forcing."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from langneurons.evaluation.power import thin_evidence
from langneurons.reporting.records import generation_records, with_labels
from langneurons.reporting.tables.generation import forcing_pairs, forcing_summary
from langneurons.reporting.tables.write import write_table
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    folder = Path(snakemake.output[0]).parent
    pairs, summaries = [], []
    for labels, frame in generation_records(snakemake.input, show):
        pairs.append(with_labels(labels, forcing_pairs(frame, show["results"])))
        summaries.append(with_labels(labels, forcing_summary(frame, show["results"])))
    notes = (
        "success: share of answers identified as the target language; intact: the same, degenerate"
        " answers (empty, or repeating themselves) counted as failures; baseline: the untouched"
        " model's answers to the same questions. Wilson intervals."
    )
    more = (
        "Differences of success to the untouched model on the same questions; per target McNemar"
        " with Tango's interval, over all pairs t over questions; Holm within a condition."
    )
    table, labels = pd.concat(summaries, ignore_index=True), [*labels]
    more = [more, *thin_evidence(table, show["results"]["alpha"], "questions", labels)]
    write_table(pd.concat(pairs), folder / "forcing", "Language forcing by pair", notes)
    write_table(table, folder / "forcing_summary", "Language forcing", more)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
