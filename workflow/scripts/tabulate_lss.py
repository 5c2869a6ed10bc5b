"""Write the tables of the Language Steering Shift."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from langneurons.evaluation.power import thin_evidence
from langneurons.reporting.records import lss_matrices, with_labels
from langneurons.reporting.tables.steering_shift import lss_cells, lss_summary
from langneurons.reporting.tables.write import write_table
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

FAMILY = ("model", "protocol", "languages", "over")


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    folder = Path(snakemake.output[0]).parent
    matrices = lss_matrices(snakemake.input, show)
    cells = [
        with_labels(labels, lss_cells(frame, metadata, show["results"]))
        for labels, frame, metadata in matrices
    ]
    notes = (
        "lss: share of the n facts whose log-odds move from the base's to the target's object;"
        " ties (equal objects) are left out under corrected and fail under paper, where the"
        " diagonal is 0. Margin in nats, t over facts; interval of lss after Wilson."
    )
    write_table(pd.concat(cells), folder / "lss", "Language Steering Shift", notes)
    notes = (
        "Means over off-diagonal cells (target: all, or one column). control: random neurons that"
        " mirror the selection, on the same facts; intervals and p: t over facts with the"
        " bootstrap's standard error, paired; Holm within a model, protocol and set. LSS has no"
        " chance level of its own."
    )
    summary = lss_summary(matrices, show["results"], show["controls"])
    notes = [notes, *thin_evidence(summary, show["results"]["alpha"], "facts", FAMILY)]
    write_table(summary, folder / "lss_summary", "Language Steering Shift by intervention", notes)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
