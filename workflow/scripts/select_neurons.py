"""Select the neurons of every language of a set."""

from typing import TYPE_CHECKING

from langneurons.jobs.selecting import neuron_table
from langneurons.runtime.job import start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    """Run the rule."""
    job = start(snakemake)
    inputs = {
        name: [paths] if isinstance(paths, str) else list(paths)
        for name, paths in snakemake.input.items()
    }
    mask = next(iter(inputs.get("fetched", [])), snakemake.resources.mask)
    table = neuron_table(dict(snakemake.params.cfg["selection"]), inputs, mask)
    table.to_parquet(snakemake.output[0])
    job.done(neurons=table.unique, per_language=table.counts().to_dict())


if __name__ == "__main__":
    main(snakemake)  # noqa: F821
