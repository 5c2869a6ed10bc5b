"""Draw task scores under interventions against the untouched model."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.tasks import draw_tasks
from langneurons.reporting.records import order, scores_of
from langneurons.reporting.tables.tasks import own_language
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    labels, scores = scores_of(snakemake.input[0])
    swept = [
        show["interventions"][one] for parts in show["sweeps"].values() for one in parts.values()
    ]
    scores = own_language(scores[~scores["intervention"].isin(swept)])
    title = f"{labels['model']}: {show['tasks'][snakemake.wildcards.task]} under interventions"
    if len(show["protocols"]) > 1:
        title += f", protocol {labels['protocol']}"
    stem = Path(snakemake.output.svg).with_suffix("")
    names, results = show["language_names"], show["results"]
    draw_tasks(scores, order(show), title, stem, names, results["alpha"], results["confidence"])
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
