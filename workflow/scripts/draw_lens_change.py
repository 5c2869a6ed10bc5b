"""Draw what each layer would say with neurons written."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.generation import draw_lens_change
from langneurons.reporting.records import lens_records, order
from langneurons.reporting.tables.generation import lens_layers
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show, wildcards = snakemake.params.cfg, snakemake.wildcards
    stem = Path(snakemake.output.svg).with_suffix("")
    ((labels, frame, _),) = lens_records(snakemake.input, show, wildcards.protocol)
    name = show["interventions"][wildcards.intervention]
    layers = lens_layers(frame[frame["intervention"].isin(["none", name])])
    title = f"{labels['model']}: what each layer would say next, intervention {name}"
    langs = order(show, wildcards.label)
    draw_lens_change(layers, langs, title, stem, show["language_names"])
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
