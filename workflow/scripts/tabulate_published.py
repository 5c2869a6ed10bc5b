"""Write the printed numbers of a paper beside ours."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.io import read_parquet
from langneurons.published import agreement, compare, own_cells, printed_cells
from langneurons.runtime import start
from langneurons.tables import write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    records = (read_parquet(path) for path in snakemake.input.records)
    frames = [(metadata, frame) for frame, metadata in records]
    ours = own_cells(frames, snakemake.params.cfg["results"])
    compared = compare(printed_cells(snakemake.input.printed), ours)
    folder = Path(snakemake.output[0]).parent
    note = "Ours with the interval over items; inside: the printed number lies in it."
    write_table(compared, folder / "published", "Printed and ours", note)
    write_table(agreement(compared), folder / "published_summary", "Agreement with the print")
    job.done(cells=len(compared))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
