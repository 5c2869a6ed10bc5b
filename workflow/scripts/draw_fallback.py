"""Draw the languages of answers under cumulative deactivation."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.generation import draw_fallback
from langneurons.reporting.records import generation_records, order
from langneurons.reporting.tables.generation import fallback_shares
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
        (labels["selection"], fallback_shares(frame, show["results"])) for labels, frame in records
    ]
    first = records[0][0]
    title = f"{first['model']}: languages of answers, intervention {first['intervention']}"
    langs = order(show, wildcards.label)
    draw_fallback(panels, langs, title, stem, show["language_names"])
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
