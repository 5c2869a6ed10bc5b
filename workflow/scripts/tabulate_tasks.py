"""Write the table of task scores."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from langneurons.display import in_order, task_records, with_labels
from langneurons.runtime import start
from langneurons.tables import task_scores, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    path = Path(snakemake.output[0])
    frames = [
        with_labels(labels, in_order(task_scores(frame, show["results"]), show))
        for labels, frame in task_records(snakemake.input, show)
    ]
    write_table(
        pd.concat(frames),
        path.with_suffix(""),
        "Task scores",
        "Differences to the untouched model on the same items; Holm within task and metric.",
    )
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
