"""Draw the Language Steering Shift by the layers whose neurons are overwritten."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.sweeps import draw_layer_curves
from langneurons.reporting.records import lss_matrices
from langneurons.reporting.tables.steering_shift import ALL, lss_summary
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show, names = snakemake.params.cfg, snakemake.wildcards
    matrices = lss_matrices(snakemake.input, show, names.protocol)
    summary = lss_summary(matrices, show["results"], show["controls"])
    sweep = {show["interventions"][one]: at for at, one in show["sweeps"][names.sweep].items()}
    means = summary[summary["target"] == ALL].drop_duplicates(["intervention", "selection"])
    curves = means.assign(layers=means["intervention"].map(sweep), value=means["lss"])
    first = matrices[0][0]
    title = f"{first['model']}: Language Steering Shift, {names.sweep} by layer"
    if len(show["protocols"]) > 1:
        title += f", protocol {first['protocol']}"
    curves = curves.rename(columns={"selection": "curve"})
    value = "LSS, mean over base and target languages"
    level = show["results"]["confidence"]
    note = f"Bands: {level:.0%} intervals over facts, n = {means['facts'].max()} facts."
    path = Path(snakemake.output.svg)
    draw_layer_curves(curves, value, title, path, limits=(-0.02, 1.02), note=note)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
