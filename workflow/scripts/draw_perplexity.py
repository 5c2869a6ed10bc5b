"""Draw the changes of perplexity."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.display import order, perplexity_matrices
from langneurons.figures import draw_perplexity
from langneurons.runtime import start
from langneurons.tables import perplexity_change

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    matrices = perplexity_matrices(snakemake.input, show)
    panels = [
        (labels["selection"], perplexity_change(frame, show["results"]))
        for labels, frame in matrices
    ]
    first = matrices[0][0]
    title = f"{first['model']}: NLL change, intervention {first['intervention']}"
    stem = Path(snakemake.output.svg).with_suffix("")
    alpha = show["results"]["alpha"]
    draw_perplexity(panels, order(show, snakemake.wildcards.label), title, stem, alpha)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
