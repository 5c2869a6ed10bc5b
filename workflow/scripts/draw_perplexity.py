"""Draw the changes of perplexity and of the cross-entropy."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.figures.perplexity import draw_perplexity
from langneurons.reporting.records import order, perplexity_matrices
from langneurons.reporting.tables.perplexity import perplexity_change
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    matrices = perplexity_matrices(snakemake.input, show, snakemake.wildcards.protocol)
    panels = [
        (labels["selection"], perplexity_change(frame, show["results"], sampled))
        for labels, frame, sampled in matrices
    ]
    first = matrices[0][0]
    langs, names = order(show, snakemake.wildcards.label), show["language_names"]
    drawn = (("perplexity", "ppl_change", snakemake.output.svg),)
    drawn += (("NLL (cross-entropy)", "nll_change", snakemake.output.nll_svg),)
    for what, value, path in drawn:
        title = f"{first['model']}: change of {what}, intervention {first['intervention']}"
        if len(show["protocols"]) > 1:
            title += f", protocol {first['protocol']}"
        draw_perplexity(
            panels, langs, title, Path(path).with_suffix(""), show["results"], value, names
        )
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
