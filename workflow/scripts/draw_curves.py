"""Draw the training curves of the adapters of one fine-tuning."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.base.io import read_records
from langneurons.reporting.figures.training import draw_curves
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    curves = {}
    for path in snakemake.input:
        numbers = ("step", "loss", "accuracy", "learning_rate")
        frame, metadata = read_records(path, (), numbers, adapter=Path(path).parent.name)
        curves[show["adapters"][metadata["adapter"]]] = frame
    model = show["models"][snakemake.wildcards.model]
    title = f"{model}: fine-tuning {snakemake.wildcards.finetuning}"
    if len(show["protocols"]) > 1:
        title += f", protocol {snakemake.wildcards.protocol}"
    draw_curves(curves, title, Path(snakemake.output.svg).with_suffix(""))
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
