"""Write the printed numbers of a paper beside ours, and each table as the paper lays it out."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from langneurons.activations.statistics import Statistics
from langneurons.reporting.published import (
    CORRELATIONS,
    agreement,
    compare,
    laid_out,
    layouts,
    own_cells,
    own_neurons,
    own_statistics,
    printed_cells,
    published_masks,
)
from langneurons.reporting.records import evaluation_files, names_of, protocols
from langneurons.reporting.tables.write import write_table
from langneurons.runtime.job import start
from langneurons.selection.table import NeuronTable

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

NOTE = (
    "Ours with the confidence interval over items; inside: the printed number lies in it. The"
    " printed number counts as exact."
)

NEURONS = (
    "Published: counted from the mask that the authors published; ours: from our table of the"
    " model and selection named beside it, on the same languages. Shares and Jaccard indices in per"
    " cent. Counts have no interval."
)
CORRELATED = (
    "Spearman, ours against the published mask: neurons per language, Jaccard index per pair of"
    " languages, distinct neurons per layer, neurons of one language per layer (mean of languages)."
)


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show, spec = snakemake.params.cfg, snakemake.input.printed
    results, stand_ins = show["results"], show["results"]["stand_ins"]
    records = evaluation_files(snakemake.input.records)
    tables = [
        (names["model"], names["selection"], NeuronTable.from_parquet(path))
        for path in snakemake.input.get("neurons", [])
        for names in [names_of(path, "neurons")]
    ]
    masks = published_masks(spec)
    neurons, related = own_neurons(masks, tables, stand_ins)
    known: dict[str, pd.DataFrame] = {}
    parts = []
    for name, points in show["protocols"].items():
        quantiles = points["quantiles"]
        if quantiles not in known:
            files = (
                (names["model"], Statistics.read(path, lang=names["lang"]))
                for path in snakemake.input.statistics
                for names in [names_of(path, "activations")]
            )
            known[quantiles] = own_statistics(files, quantiles)
        frames = [
            (metadata, frame)
            for path, frame, metadata in records
            if name in protocols(path, "evaluation", show)
        ]
        kinds = [own_cells(frames, results, show["adapter_fields"]), known[quantiles], neurons]
        ours = pd.concat([one for one in kinds if len(one)] or kinds[:1], ignore_index=True)
        printed = printed_cells(spec, points["answers"], stand_ins)
        parts.append(compare(printed, ours).assign(protocol=name))
    compared = pd.concat(parts, ignore_index=True)
    compared.insert(0, "protocol", compared.pop("protocol"))
    folder = Path(snakemake.output[0]).parent
    note = NEURONS if masks else NOTE
    write_table(compared, folder / "published", "Printed and ours", note)
    write_table(agreement(compared), folder / "published_summary", "Agreement with the print")
    for layout in layouts(spec):
        caption = f"{layout['item']}: {layout['title']}"
        write_table(laid_out(compared, layout, show), folder / layout["file"], caption, note)
    if masks:
        title = "Rank correlations of counts, published mask and ours"
        write_table(related, folder / CORRELATIONS, title, CORRELATED)
    job.done(cells=len(compared))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
