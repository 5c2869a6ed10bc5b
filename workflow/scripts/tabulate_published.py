"""Write the printed numbers of a paper beside ours, and each table as the paper lays it out."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from langneurons.display import evaluation_files, protocols
from langneurons.published import (
    agreement,
    compare,
    laid_out,
    layouts,
    own_cells,
    own_statistics,
    printed_cells,
)
from langneurons.runtime import start
from langneurons.statistics import Statistics
from langneurons.tables import write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

NOTE = (
    "Ours with the confidence interval over items; inside: the printed number lies in it. The"
    " printed number counts as exact."
)


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show, spec = snakemake.params.cfg, snakemake.input.printed
    results, stand_ins = show["results"], show["results"]["stand_ins"]
    records = evaluation_files(snakemake.input.records)
    known: dict[str, pd.DataFrame] = {}
    parts = []
    for name, points in show["protocols"].items():
        quantiles = points["quantiles"]
        if quantiles not in known:
            files = (
                (Path(p).parts[-3], Statistics.read(p, lang=Path(p).stem))
                for p in snakemake.input.statistics
            )
            known[quantiles] = own_statistics(files, quantiles)
        frames = [
            (metadata, frame)
            for path, frame, metadata in records
            if name in protocols(path, "evaluation", -4, show)
        ]
        ours = pd.concat([own_cells(frames, results), known[quantiles]], ignore_index=True)
        printed = printed_cells(spec, points["answers"], stand_ins)
        parts.append(compare(printed, ours).assign(protocol=name))
    compared = pd.concat(parts, ignore_index=True)
    compared.insert(0, "protocol", compared.pop("protocol"))
    folder = Path(snakemake.output[0]).parent
    write_table(compared, folder / "published", "Printed and ours", NOTE)
    write_table(agreement(compared), folder / "published_summary", "Agreement with the print")
    for layout in layouts(spec):
        caption = f"{layout['item']}: {layout['title']}"
        write_table(laid_out(compared, layout, show), folder / layout["file"], caption, NOTE)
    job.done(cells=len(compared))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
