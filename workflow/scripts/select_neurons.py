"""Select the neurons of every language of a set."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.activations.statistics import Statistics
from langneurons.models.weights import read_weights
from langneurons.runtime.job import start
from langneurons.selection.run import run_selection
from langneurons.selection.table import NeuronTable

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    statistics = [
        Statistics.read(path, lang=Path(path).stem) for path in snakemake.input.statistics
    ]
    first = statistics[0].header
    same = {key: first[key] for key in ("model", "revision", "n_layers", "d_mlp")}
    tables = [
        NeuronTable.from_parquet(path, languages=sorted(one.lang for one in statistics), **same)
        for path in snakemake.input.get("selections", [])
    ]
    manifest = snakemake.input.get("weights")
    table = run_selection(
        dict(snakemake.params.cfg["selection"]),
        {one.lang: one for one in statistics},
        tables,
        snakemake.input.get("fetched") or snakemake.resources.mask,
        read_weights(manifest) if manifest else None,
    )
    table.to_parquet(snakemake.output[0])
    job.done(neurons=table.unique, per_language=table.counts().to_dict())


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
