"""Random neurons: the control of every claim about selected ones.

`match` sets what a control shares with the selection it mirrors, language by language:

- none: only the number of neurons; drawn from the whole model;
- layer: the number in each layer;
- frequency: the number in each layer and, neuron by neuron, the activation probability in that
  language: the control is drawn from the `neighbours` unselected neurons of the layer whose
  probability lies nearest;
- write_norm: also the norm of what a neuron writes, its column of the down projection: nearest in
  both, where each is divided by its standard deviation over the layer's neurons (of the
  probability's log odds, of the norm's logarithm).

Neurons of the mirrored selection (in any language) are never drawn. Where it holds whole experts of
a mixture, whole experts are drawn in the same way: the frequency is that of the expert, the norm
that of its matrix.
"""

import hashlib
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from langneurons.base.errors import present
from langneurons.selection.experts import whole_experts
from langneurons.selection.method import More, SelectionBase, rows, stacked

if TYPE_CHECKING:
    import pandas as pd

    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable


NEEDED = "random selection: give either `like` or `rate`"
NEAREST = ("frequency", "write_norm")  # ways to match that draw from a neuron's nearest ones


class Random(SelectionBase):
    """Seeded random neurons, as many as another selection has, or a rate of the model."""

    random: ClassVar[bool] = True
    method: Literal["random"]
    like: str | None = Field(None, description="Selection to mirror.")
    match: Literal["none", "layer", "frequency", "write_norm"] = Field(
        "layer", description="What the mirrored selection and its control share."
    )
    rate: float | None = Field(
        None, gt=0, le=1, description="Share of neurons per language, where nothing is mirrored."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the draw.")
    neighbours: int = Field(
        20, ge=1, description="Candidates per neuron under frequency and write_norm."
    )

    def model_post_init(self, _context: Any) -> None:
        """Require exactly one of like and rate."""
        if (self.like is None) == (self.rate is None):
            raise ValueError(NEEDED)
        if self.like is None and self.match in NEAREST:
            raise ValueError(
                f"match: {self.match} has no effect without `like`; name the selection to mirror,"
                " or leave `match` out"
            )
        if self.match not in NEAREST and self.neighbours != 20:
            raise ValueError(
                f"neighbours: has no effect with match: {self.match}; legal with match:"
                f" {', '.join(NEAREST)}"
            )

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The mirrored selection."""
        return () if self.like is None else (self.like,)

    @property
    def needs_sites(self) -> tuple[str, ...]:
        """The activation, where its probability is matched."""
        return ("act",) if self.match in NEAREST else ()

    @property
    def needs_more(self) -> tuple[str, ...]:
        """The weights, where what a neuron writes is matched."""
        return ("weights",) if self.match == "write_norm" else ()

    def _generator(self, lang: str) -> np.random.Generator:
        text = f"{self.seed}:{lang}".encode()
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))

    def select(
        self, statistics: "dict[str, Statistics]", tables: "dict[str, NeuronTable]"
    ) -> "pd.DataFrame":
        """Return rows with column score (a constant, as nothing ranks)."""
        return self._drawn(statistics, tables, None)

    def select_by(
        self,
        statistics: "dict[str, Statistics]",
        tables: "dict[str, NeuronTable]",
        more: More,
    ) -> "pd.DataFrame":
        """Return rows with column score, of neurons that write as much as the mirrored ones."""
        return self._drawn(statistics, tables, present(more.weights, "no weights").norms())

    def _drawn(
        self,
        statistics: "dict[str, Statistics]",
        tables: "dict[str, NeuronTable]",
        norms: np.ndarray | None,
    ) -> "pd.DataFrame":
        drawn = []
        for lang, one in statistics.items():
            generator = self._generator(lang)
            if self.like is not None:
                like = tables[self.like]
                experts = whole_experts(like, one.n_experts)
                near = self._traits(one, norms, experts is not None)
                if experts is None:
                    chosen = self._mirror(one.shape, near, like, lang, generator)
                else:
                    shape, own = (one.shape[0], one.n_experts), one.shape[1] // one.n_experts
                    drawn_experts = self._mirror(shape, near, experts, lang, generator, "experts")
                    chosen = (drawn_experts[:, None] * own + np.arange(own)).ravel()
            else:
                size, rate = int(np.prod(one.shape)), present(self.rate, NEEDED)
                chosen = generator.choice(size, round(rate * size), replace=False)
            chosen = np.sort(chosen)
            drawn.append(rows(lang, chosen, one.shape[1], score=np.zeros(len(chosen))))
        return stacked(drawn)

    def _traits(
        self, one: "Statistics", norms: np.ndarray | None, experts: bool
    ) -> np.ndarray | None:
        """Return what is matched of each neuron, or expert, (traits, n_layers, neurons)."""
        if self.match not in NEAREST:
            return None
        positive = one.expert_tokens() if experts else one.positive("act")
        if self.match == "frequency":
            return positive[None] / one.tokens
        norms = present(norms, "no weights")
        if experts:
            parts = np.square(norms).reshape(*positive.shape, -1)
            norms = np.sqrt(parts.sum(axis=2))
        odds = np.log(positive + 0.5) - np.log(one.tokens - positive + 0.5)
        traits = np.stack([odds, np.log(np.maximum(norms, np.finfo(np.float64).tiny))])
        spread = traits.std(axis=2, keepdims=True)
        return traits / np.where(spread > 0, spread, 1.0)

    def _mirror(
        self,
        shape: tuple[int, int],
        traits: np.ndarray | None,
        like: "NeuronTable",
        lang: str,
        generator: np.random.Generator,
        units: str = "neurons",
    ) -> np.ndarray:
        n_layers, d_mlp = shape
        taken = np.zeros((n_layers, d_mlp), dtype=bool)
        taken[like.frame["layer"], like.frame["neuron"]] = True
        wanted = like.indices(lang)
        if self.match == "none":
            free, number = np.flatnonzero(~taken.ravel()), sum(map(len, wanted))
            _check_free("the model", number, len(free), units, lang)
            return generator.choice(free, number, replace=False)
        chosen = []
        for layer, neurons in enumerate(wanted):
            free = np.flatnonzero(~taken[layer])
            _check_free(f"layer {layer}", len(neurons), len(free), units, lang)
            if traits is None:
                drawn = generator.choice(free, len(neurons), replace=False)
            else:
                drawn = np.asarray(self._nearest(traits[:, layer], neurons, free, generator))
            chosen.append(layer * d_mlp + drawn.astype(np.int64))
        return np.concatenate(chosen) if chosen else np.zeros(0, np.int64)

    def _nearest(
        self,
        traits: np.ndarray,
        neurons: np.ndarray,
        free: np.ndarray,
        generator: np.random.Generator,
    ) -> list[int]:
        """Draw for each neuron one of the free ones nearest in its traits, (traits, d_mlp)."""
        values, drawn = traits[:, free], []
        for neuron in generator.permutation(neurons):
            distance = np.linalg.norm(values - traits[:, [neuron]], axis=0)
            last = min(self.neighbours, len(free)) - 1
            near = np.flatnonzero(distance <= np.partition(distance, last)[last])
            near = near[np.argsort(distance[near], kind="stable")][: self.neighbours]
            place = int(generator.choice(near))
            drawn.append(free[place])
            free, values = np.delete(free, place), np.delete(values, place, axis=1)
        return drawn


def _check_free(where: str, number: int, free: int, units: str, lang: str) -> None:
    """Refuse a draw of more neurons or experts than are left."""
    if number > free:
        raise ValueError(
            f"{where}: {number} {units} of {lang} to mirror, but only {free} are not selected"
            " themselves; lower the rate of the selection."
        )
