"""Draw task scores under interventions against the untouched model."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.display import in_order, order, task_records
from langneurons.figures import draw_tasks
from langneurons.runtime import start
from langneurons.tables import own_language, task_scores

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    ((labels, frame),) = task_records(snakemake.input, show, snakemake.wildcards.protocol)
    swept = [
        show["interventions"][one] for parts in show["sweeps"].values() for one in parts.values()
    ]
    frame = own_language(frame[~frame["intervention"].isin(swept)])
    scores = in_order(task_scores(frame, show["results"]), show)
    title = f"{labels['model']}: {show['tasks'][snakemake.wildcards.task]} under interventions"
    if len(show["protocols"]) > 1:
        title += f", protocol {labels['protocol']}"
    stem = Path(snakemake.output.svg).with_suffix("")
    names, alpha = show["language_names"], show["results"]["alpha"]
    draw_tasks(scores, order(show), title, stem, names, alpha)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
