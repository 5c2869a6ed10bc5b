"""Draw task scores by the layers whose neurons are overwritten."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.sweeps import draw_layer_curves
from langneurons.reporting.records import scores_of
from langneurons.reporting.tables.tasks import by_layer
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show, names = snakemake.params.cfg, snakemake.wildcards
    labels, scores = scores_of(snakemake.input[0])
    metric = scores["metric"].iloc[0]
    sweep = {show["interventions"][one]: at for at, one in show["sweeps"][names.sweep].items()}
    shown = scores[(scores["langset"] == names.label) & (scores["metric"] == metric)]
    title = f"{labels['model']}: {show['tasks'][names.task]}, {names.sweep} by layer"
    if len(show["protocols"]) > 1:
        title += f", protocol {labels['protocol']}"
    value = f"difference in {metric.replace('_', ' ')} (points)"
    items = shown["n"].max()
    note = f"Means and quartiles over evaluated and target languages, n = {items} items each."
    curves = by_layer(shown, sweep)
    draw_layer_curves(curves, value, title, Path(snakemake.output.svg), zero=0.0, note=note)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
