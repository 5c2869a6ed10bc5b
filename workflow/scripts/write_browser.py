"""Write the pages of a model's neurons on a language set."""

from pathlib import Path
from typing import TYPE_CHECKING

from langneurons.reporting.browser.write import write_browser
from langneurons.reporting.labels import Labels
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    cfg, given = snakemake.params.cfg, snakemake.input
    folder = Path(snakemake.output.page).parent
    size = write_browser(
        folder,
        dict(snakemake.wildcards.items()),
        Labels(**cfg["labels"]),
        cfg["link"],
        {name: given[name] for name in given.keys()},
    )
    job.done(bytes=size)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
