"""Write the table of the fallback order."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from langneurons.reporting.records import generation_records, with_labels
from langneurons.reporting.tables.generation import fallback_shares
from langneurons.reporting.tables.write import write_table
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    stem = Path(snakemake.output[0]).with_suffix("")
    shares = [
        with_labels(labels, fallback_shares(frame, show["results"]))
        for labels, frame in generation_records(snakemake.input, show)
    ]
    notes = (
        "share: answers identified as the language at the step (step 0: untouched), with Wilson"
        " interval; intact: without degenerate ones, of the same n; neurons: distinct ones written."
    )
    write_table(pd.concat(shares), stem, "Languages under cumulative deactivation", notes)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
