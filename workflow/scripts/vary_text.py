"""Change the documents of a language into those of a variant."""

from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from langneurons.data.settings import Variant
from langneurons.data.varied_text import vary_text
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    cfg = snakemake.params.cfg
    files = {
        "text": snakemake.input.text,
        "about": snakemake.input.about,
        "written": snakemake.output.text,
        "written_about": snakemake.output.about,
    }
    vary_text(TypeAdapter(Variant).validate_python(cfg["variant"]), cfg["lang"], files, cfg["base"])
    job.done()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
