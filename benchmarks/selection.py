"""Selection at the size of an 8B model: 32 layers x 14336 neurons x 16 languages.

The statistics are synthetic (activation probabilities and histograms drawn at random).
"""

import resource

from common import interleaved, parser, publish, set_threads, table


def main() -> None:
    """Time each method."""
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=32)
    options.add_argument("--neurons", type=int, default=14336)
    options.add_argument("--languages", type=int, default=16)
    given = options.parse_args()
    set_threads(given.threads)
    import numpy as np
    import pandas as pd

    from langneurons.neurons import NeuronTable
    from langneurons.selection.exceedance import Exceedance
    from langneurons.selection.lape import Lape
    from langneurons.selection.random import Random

    generator = np.random.default_rng(0)
    shape = (given.layers, given.neurons)

    class Synthetic:
        """Statistics with random probabilities."""

        tokens = 1_000_000

        def __init__(self):
            self.shape = shape
            self._probability = generator.beta(0.6, 3, shape)

        def probability(self, _site):
            return self._probability

    statistics = {f"l{k:02d}": Synthetic() for k in range(given.languages)}
    lape, random = Lape(method="lape"), Random(method="random", like="lape", match="frequency")
    zero = Exceedance(method="exceedance", threshold="zero")
    names = {"languages": list(statistics), "n_layers": shape[0], "d_mlp": shape[1]}
    table_of_lape: pd.DataFrame = lape.select(statistics)
    like = NeuronTable(table_of_lape, names)
    variants = {
        "LAPE, 1 %": lambda: lape.select(statistics),
        "P(a > 0), 0.125 % per language": lambda: zero.select(statistics),
        "random, matched in frequency": lambda: random.select(statistics, like),
    }
    medians, _ = interleaved(variants, given.repeats)
    body = [[name, f"{value:.2f}"] for name, value in medians.items()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    note = f"{given.layers} x {given.neurons} x {given.languages}; peak memory {peak:.1f} GiB."
    publish("selection", table("Selection", ["method", "seconds"], body, note))


if __name__ == "__main__":
    main()
