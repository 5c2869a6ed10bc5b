"""Draw task scores by evaluated language and by the language whose neurons are overwritten."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.tasks import draw_targets
from langneurons.reporting.records import order, scores_of
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show, names = snakemake.params.cfg, snakemake.wildcards
    labels, scores = scores_of(snakemake.input[0])
    intervention = show["interventions"][names.intervention]
    shown = (scores["langset"] == names.label) & (scores["intervention"] == intervention)
    title = f"{labels['model']}: {show['tasks'][names.task]}, intervention {intervention}"
    if len(show["protocols"]) > 1:
        title += f", protocol {labels['protocol']}"
    stem = Path(snakemake.output.svg).with_suffix("")
    alpha, names_of = show["results"]["alpha"], show["language_names"]
    draw_targets(scores[shown], order(show), title, stem, alpha, names_of)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
