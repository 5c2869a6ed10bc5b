"""Write the table of task scores."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from langneurons.reporting.records import scores_of
from langneurons.reporting.tables.tasks import task_notes
from langneurons.reporting.tables.write import write_table
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    path = Path(snakemake.output[0])
    frames = [scores_of(one)[1] for one in snakemake.input]
    table = pd.concat(frames, ignore_index=True)
    notes = task_notes(table, snakemake.params.cfg["results"])
    write_table(table, path.with_suffix(""), "Task scores", notes)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
