"""Tell the language of each text, and how far it repeats itself."""

from typing import TYPE_CHECKING

from langneurons.base.io import read_parquet, write_parquet
from langneurons.evaluation.identification import check_labels
from langneurons.evaluation.texts import judged
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    settings = snakemake.params.cfg
    frame, metadata = read_parquet(snakemake.input[0])
    targets = set(frame["target"]) - {"none"} if "target" in frame else ()
    check_labels(sorted(targets), settings["identifier"])
    frame = judged(frame, settings["identifier"], settings["degenerate"])
    write_parquet(snakemake.output[0], frame, metadata | {"identifier": settings["identifier"]})
    job.done(texts=len(frame))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
