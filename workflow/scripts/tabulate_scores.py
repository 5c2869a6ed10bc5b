"""Sum up the records of a task: scores, intervals and tests of every language and condition."""

from typing import TYPE_CHECKING

from langneurons.base.io import write_parquet
from langneurons.reporting.records import in_order, task_records, with_labels
from langneurons.reporting.tables.tasks import task_scores
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show, names = snakemake.params.cfg, snakemake.wildcards
    ((labels, frame),) = task_records(snakemake.input, show, names.protocol)
    scores = with_labels(labels, in_order(task_scores(frame, show["results"]), show))
    write_parquet(snakemake.output[0], scores, labels | {"task": names.task})
    job.done(rows=len(scores))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
