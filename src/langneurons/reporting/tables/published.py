"""The tables of printed numbers beside ours."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from langneurons.activations.statistics import Statistics
from langneurons.reporting.labels import Labels
from langneurons.reporting.layouts import names_of
from langneurons.reporting.printed import CORRELATIONS
from langneurons.reporting.published import (
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
from langneurons.reporting.records import evaluation_files, protocols
from langneurons.reporting.tables.write import write_table
from langneurons.selection.table import NeuronTable

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


def tabulate_published(
    labels: Labels,
    folder: Path,
    printed: list[str],
    records: Sequence[str] = (),
    statistics: Sequence[str] = (),
    neurons: Sequence[str] = (),
) -> None:
    """Write the printed numbers of a paper beside ours, and each table as the paper has it."""
    (spec,) = printed
    results, stand_ins = labels.results, labels.results["stand_ins"]
    read = evaluation_files(records)
    tables = [
        (names["model"], names["selection"], NeuronTable.from_parquet(path))
        for path in neurons
        for names in [names_of(path, "neurons")]
    ]
    masks = published_masks(spec)
    counts, related = own_neurons(masks, tables, stand_ins)
    known: dict[str, pd.DataFrame] = {}
    parts = []
    for name, points in labels.protocols.items():
        quantiles = points["quantiles"]
        if quantiles not in known:
            files = (
                (names["model"], Statistics.read(path, lang=names["lang"]))
                for path in statistics
                for names in [names_of(path, "activations")]
            )
            known[quantiles] = own_statistics(files, quantiles)
        frames = [
            (metadata, frame)
            for path, frame, metadata in read
            if name in protocols(path, "evaluation", labels)
        ]
        kinds = [own_cells(frames, results, labels.adapter_fields), known[quantiles], counts]
        ours = pd.concat([one for one in kinds if len(one)] or kinds[:1], ignore_index=True)
        cells = printed_cells(spec, points["answers"], stand_ins)
        parts.append(compare(cells, ours).assign(protocol=name))
    compared = pd.concat(parts, ignore_index=True)
    compared.insert(0, "protocol", compared.pop("protocol"))
    note = NEURONS if masks else NOTE
    write_table(compared, folder / "published", "Printed and ours", note)
    write_table(agreement(compared), folder / "published_summary", "Agreement with the print")
    for layout in layouts(spec):
        caption = f"{layout['item']}: {layout['title']}"
        write_table(laid_out(compared, layout, labels), folder / layout["file"], caption, note)
    if masks:
        title = "Rank correlations of counts, published mask and ours"
        write_table(related, folder / CORRELATIONS, title, CORRELATED)
