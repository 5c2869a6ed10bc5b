"""Draw the success of language forcing."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.generation import draw_forcing
from langneurons.reporting.records import generation_records, order
from langneurons.reporting.tables.generation import forcing_pairs
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show, wildcards = snakemake.params.cfg, snakemake.wildcards
    stem = Path(snakemake.output.svg).with_suffix("")
    records = generation_records(snakemake.input, show, wildcards.protocol)
    panels = [
        (labels["selection"], forcing_pairs(frame, show["results"])) for labels, frame in records
    ]
    first = records[0][0]
    title = f"{first['model']}: language forcing, intervention {first['intervention']}"
    draw_forcing(panels, order(show, wildcards.label), title, stem, show["language_names"])
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
