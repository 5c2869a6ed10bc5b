"""Write the tables of the logit lens."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from langneurons.reporting.records import lens_records, with_labels
from langneurons.reporting.tables.generation import lens_layers
from langneurons.reporting.tables.write import write_table
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    show = snakemake.params.cfg
    folder = Path(snakemake.output[0]).parent
    layers, tokens = [], []
    for labels, frame, coverage in lens_records(snakemake.input, show):
        layers.append(with_labels(labels, lens_layers(frame)))
        tokens.append(with_labels(labels, coverage))
    notes = (
        "Probability, at the prompt's last token, on tokens that only the prompt's language (own),"
        " English, the target or another language of the set uses, or that are shared; rank of the"
        " best of these tokens (median); entropy in nats. Masses are lower bounds, see lens_tokens."
    )
    more = (
        "vocabulary: tokens that belong to the language; own, others, nobody: share of its held-out"
        " text in tokens that belong to it, to another language, to none."
    )
    write_table(pd.concat(layers), folder / "lens", "Logit lens by layer", notes)
    write_table(pd.concat(tokens), folder / "lens_tokens", "Tokens of a language", more)
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
