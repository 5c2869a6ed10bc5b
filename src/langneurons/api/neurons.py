"""Neurons of languages, and what is written into them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from langneurons.activations.statistics import Mismatch
from langneurons.activations.statistics import Statistics as LanguageStatistics
from langneurons.api.shared import Shared
from langneurons.api.statistics import Statistics
from langneurons.base.errors import InputError, unknown
from langneurons.base.messages import defined
from langneurons.interventions.plan import Plan
from langneurons.interventions.resolve import Intervention, resolve
from langneurons.interventions.settings import Step
from langneurons.models.language_model import LanguageModel
from langneurons.models.weights import weights_of
from langneurons.selection.method import More
from langneurons.selection.methods import METHODS
from langneurons.selection.run import run_selection
from langneurons.selection.shared import shared_table
from langneurons.selection.table import NeuronTable
from langneurons.sharing.card import body_of
from langneurons.sharing.card import table as markdown
from langneurons.sharing.folder import check_same
from langneurons.sharing.headers import NeuronsHeader, Origin
from langneurons.sharing.neurons import (
    NAME,
    metadata_of,
    neurons_header,
    read_neurons,
    write_neurons,
)


class Neurons(Shared, NeuronTable):
    """The neurons of each language of a set in one model.

    `frame` has a row per language and neuron: lang, layer, neuron, score, ...; `languages` names
    every language, also one without neurons. `indices(lang)` are ascending int64 arrays, one per
    layer; `mask(lang)` is bool (n_layers, width); `counts()` numbers the neurons of each language.
    Of a method that finds directions, such as `diffmean`, a row is a dimension of the residual
    stream after the layer, and `score` the direction's component.

    Example:
        >>> import langneurons as ln
        >>> statistics = ln.collect(ln.load("gemma3-270m"), ln.mini_texts(["fr", "vi"], 30))
        >>> neurons = ln.select(statistics, "lape", rate=0.01)
        >>> neurons.counts().sum() >= neurons.unique == round(0.01 * 18 * 2048)
        True
        >>> import tempfile
        >>> folder = f"{tempfile.mkdtemp()}/neurons"
        >>> neurons.save(folder)
        >>> ln.Neurons.from_pretrained(folder).unique == neurons.unique
        True
    """

    KIND = "neurons"

    def __init__(
        self, frame: pd.DataFrame, metadata: dict[str, Any], statistics: Statistics | None = None
    ):
        """Keep the statistics that the neurons were selected by."""
        super().__init__(frame, metadata)
        self.statistics = statistics

    def __repr__(self) -> str:
        counts = ", ".join(f"{lang}: {number}" for lang, number in self.counts().items())
        return f"Neurons({self.metadata.get('method')}, {counts})"

    def control(
        self,
        match: Literal["none", "layer", "frequency", "write_norm"] = "layer",
        seed: int = 0,
        statistics: Statistics | None = None,
        weights: LanguageModel | None = None,
    ) -> "Neurons":
        """Return random neurons, as many for each language, none of them selected here.

        Args:
            match: `none`: drawn from the whole model; `layer`: as many in each layer; `frequency`:
                in each layer, drawn for each neuron from those of about its activation probability;
                `write_norm`: that also write about as much.
            seed: Seed of the draw.
            statistics: What the neurons were selected by; needed for neurons that were read from a
                file.
            weights: The model; needed for `write_norm`.

        Raises:
            ValueError: Statistics or weights are needed, they are not those that the neurons were
                selected by, or too few other neurons are there to draw from.
        """
        statistics = self.statistics if statistics is None else statistics
        if statistics is None:
            raise InputError(
                "control: these neurons were read from a file; give the statistics that they were"
                " selected by (statistics=...)."
            )
        of_set = Statistics({lang: statistics[lang] for lang in self.languages})
        _check_statistics(self, of_set)
        return select(of_set, "random", weights, like=self, match=match, seed=seed)

    def overlap(self) -> pd.DataFrame:
        """Return how many neurons each pair of languages shares; the diagonal is their own."""
        return super().overlap()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        languages: Sequence[str] | None = None,
        d_mlp: int | None = None,
    ) -> "Neurons":
        """Read neurons from a folder that `save` wrote, or from a file.

        Args:
            path: The folder; or its `neurons.safetensors`, a table of the graph (`.parquet`), or a
                published mask (`.pth`).
            languages: Of a `.pth` file: its languages in their order, which the file does not hold.
            d_mlp: Of a `.pth` file: neurons of a layer.

        Raises:
            ValueError: What is there is damaged, of another kind or version, or a `.pth` file, and
                languages or d_mlp are not given.
        """
        path = Path(path)
        if path.is_dir():
            return cls._loaded(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no file or folder has this name.")
        if path.suffix == ".parquet":
            return cls.from_parquet(path)
        if path.suffix != ".pth":
            table = shared_table(path)
            return cls(table.frame, table.metadata)
        if languages is None or d_mlp is None:
            raise InputError(
                f"{path}: a .pth file holds neither the names of its languages nor the number of"
                " neurons of a layer; give languages=[...] and d_mlp=..."
            )
        return cls.from_pth(path, languages, d_mlp)

    def _header(self) -> NeuronsHeader:
        return neurons_header(self.frame, self.metadata, "save")

    def _write(self, folder: Path) -> list[str]:
        write_neurons(folder / NAME, self.frame, self._header())
        return [NAME]

    def _draw(self, stem: Path, title: str) -> None:
        from langneurons.reporting.figures.neurons import draw_layers

        draw_layers(self, self.languages, title, stem)

    def _body(self, header: Origin, drawn: bool) -> list[str]:
        own = self.frame.drop_duplicates(["layer", "neuron"], keep=False)
        alone = own.groupby("lang").size().reindex(self.languages, fill_value=0)
        sizes = {self.units: self.counts().tolist(), "of no other language": alone.tolist()}
        if header.tokens is not None:
            sizes["tokens"] = [header.tokens[lang] for lang in header.languages]
        shared = self.overlap()
        rows = [[lang, *shared.loc[lang].tolist()] for lang in self.languages]
        more = ["", f"Distinct {self.units}: {self.unique:,} of {self.n_layers * self.width:,}."]
        more += [
            "",
            "## Overlap",
            "",
            f"{self.units.capitalize()} that two languages share; the diagonal is their own.",
        ]
        more += ["", *markdown(["", *self.languages], rows)]
        return body_of(header, sizes, more, drawn)

    @classmethod
    def _read(cls, paths: list[Path], header: Origin) -> "Neurons":
        if [path.name for path in paths] != [NAME]:
            raise InputError(
                f"{paths[0].parent}: the card lists {', '.join(path.name for path in paths)};"
                f" neurons are in {NAME} alone."
            )
        frame, own = read_neurons(paths[0])
        check_same(header, own, str(paths[0]))
        return cls(frame, metadata_of(own))


def select(
    statistics: Statistics,
    method: str = "lape",
    weights: LanguageModel | None = None,
    **parameters: Any,
) -> Neurons:
    """Return the neurons that a method gives to each language.

    Args:
        statistics: Of two or more languages.
        method: A registered method: `lape` (Tang et al. 2024), `exceedance`, `random`, ...;
            docs/configuration.md lists all with their parameters.
        weights: The model, where a method reads what its neurons write (`write_score`).
        parameters: Of the method, such as `rate`. Where a method takes the name of another
            selection (`like`, `selections`), give the `Neurons` themselves.

    Raises:
        ValueError: The method or a parameter is unknown, or the statistics lack what it needs; the
            error says what to collect.

    Warns:
        UserWarning: A language has no neurons.

    Example:
        >>> import langneurons as ln
        >>> statistics = ln.collect(ln.load("gemma3-270m"), ln.mini_texts(["fr", "vi"], 30))
        >>> neurons = ln.select(statistics, "lape", rate=0.01)
        >>> control = neurons.control(match="frequency")
        >>> bool((control.counts() == neurons.counts()).all())
        True
    """
    if method not in METHODS:
        raise unknown("select: method", method, "method", METHODS)
    kind, given = METHODS[method], {"method": method, **parameters}
    tables: dict[str, NeuronTable] = {}
    key = kind.depends_key
    if isinstance(given.get(key), NeuronTable):
        tables["given"] = given[key]
        given[key] = "given"
    elif isinstance(given.get(key), (list, tuple)):
        for number, one in enumerate(given[key]):
            if not isinstance(one, NeuronTable):
                raise InputError(f"select: {key}[{number}] is {one!r}; give Neurons.")
            tables[f"given{number}"] = one
        given[key] = tuple(tables)
    elif isinstance(given.get(key), str):
        raise InputError(f"select: {key} is {given[key]!r}; give the Neurons themselves.")
    selection = defined(kind, given, f"select, method {method}")
    _check_needs(selection, method, statistics)
    others = [tables[name] for name in selection.depends_on]
    more = _more(selection, method, weights, statistics)
    table = run_selection(selection.model_dump(mode="json"), dict(statistics), others, more=more)
    return Neurons(table.frame, table.metadata, statistics)


def _more(selection: Any, method: str, model: LanguageModel | None, statistics: Statistics) -> More:
    """Return what a method reads beside statistics."""
    if "attributions" in selection.needs_more:
        raise InputError(
            f"select: method {method!r} needs a pass with gradients, which the graph makes; put it"
            " into a configuration (docs/adding.md)."
        )
    if "weights" not in selection.needs_more:
        return More()
    if model is None:
        raise InputError(
            f"select: method {method!r} reads the model's weights; give weights=model, the model"
            " that the statistics are of."
        )
    _check_weights(model, statistics)
    return More(weights_of(model.sites))


def _check_weights(model: LanguageModel, statistics: Statistics) -> None:
    """Refuse the weights of another model than that of the statistics."""
    first, own = next(iter(statistics.values())).header, model.known_as
    for key in ("model", "revision", "dtype", "quantization"):
        if own.get(key) != first.get(key):
            raise Mismatch(
                f"select: weights are of {key} {own.get(key)!r}, the statistics of"
                f" {first.get(key)!r}."
            )


def _check_needs(selection: Any, method: str, statistics: Statistics) -> None:
    """Refuse statistics that lack what a method reads."""
    first = next(iter(statistics.values()))
    header = first.header
    for what, needed, there in (
        ("sites", selection.needs_sites, header["sites"]),
        ("histograms", selection.needs_histograms, header["histograms"]),
        (
            "document_means",
            selection.needs_document_means,
            [site for site in header["sites"] if f"{site}.document_sum" in first.arrays],
        ),
    ):
        lacking = sorted(set(needed) - set(there))
        if lacking:
            raise InputError(
                f"select: method {method!r} needs {what} of {', '.join(lacking)}, which these"
                f" statistics lack; collect(model, texts, {what}={tuple(lacking)!r})."
            )
    if selection.needs_batch_quantiles:
        raise InputError(
            f"select: method {method!r} with pool='batch' needs the quantiles of batches, which are"
            " measured by the graph only; legal here: pool='neuron', 'layer' or 'model'."
        )


def _check_statistics(neurons: NeuronTable, statistics: Statistics) -> None:
    """Refuse statistics other than those that the neurons were selected by, where these are known.

    Compared are the keys that neurons keep of them, and the digest of their content.
    """
    first = next(iter(statistics.values())).header
    for key in ("model", "revision", "tokenizer_hash", "n_layers", "d_mlp"):
        if (known := neurons.metadata.get(key)) not in (None, first.get(key)):
            raise Mismatch(
                f"control: the neurons are of {key} {known!r}, the statistics of"
                f" {first.get(key)!r}."
            )
    digests = neurons.metadata.get("statistics") or {}
    other = [
        lang for lang, one in statistics.items() if digests.get(lang, one.digest) != one.digest
    ]
    if other:
        raise Mismatch(
            f"control: the statistics of {', '.join(other)} are not those that the neurons were"
            " selected by: their digests differ. Give those, or select neurons from these."
        )


def plan(
    neurons: NeuronTable,
    lang: str,
    operation: str = "set",
    value: float | str = 0,
    statistics: Mapping[str, LanguageStatistics] | None = None,
    **step: Any,
) -> Plan:
    """Return what an operation writes into the neurons of a language.

    Args:
        neurons: The neurons, of which those of `lang` are written.
        lang: A language of the neurons.
        operation: A registered operation on an activation a and a value v: `set` (a = v), `add`,
            `scale`, `at_least`, `at_most`; `project_out` takes a direction out of the residual
            stream.
        value: A number; or a statistic of each neuron in `lang`: mean, std, min, max, p01 ... p99,
            probability, ...; or a value of the layer as it runs: layer_mean, layer_p90, ...; of
            dimensions of the residual stream also `direction` and `unit_direction`.
        statistics: What the neurons were selected by; needed where the value is a statistic.
        step: More of a step, as in the configuration (docs/configuration.md, `interventions`):
            site (`act`; of dimensions `residual`), coefficient, layers, tokens (`all`, `prompt` or
            `generated`), without, ...

    Raises:
        ValueError: The language, operation, value or a key is unknown, or statistics are needed.

    Warns:
        In the log, where the language has no neurons: the plan then writes nothing.

    Example:
        >>> import langneurons as ln
        >>> statistics = ln.collect(ln.load("gemma3-270m"), ln.mini_texts(["fr", "vi"], 30))
        >>> neurons = ln.select(statistics, "lape", rate=0.01)
        >>> plan = ln.plan(neurons, "vi", "add", "mean", statistics)
        >>> plan.neurons == int(neurons.counts()["vi"])
        True
    """
    if lang not in neurons.languages:
        raise unknown("plan", lang, "language of these neurons", neurons.languages)
    if neurons.units == "dimensions":
        step = {"site": "residual"} | step
    made = defined(Step, {"operation": operation, "value": value, **step}, "plan")
    known: Mapping[str, LanguageStatistics] = {}
    if made.statistic is not None:
        known = statistics or getattr(neurons, "statistics", None) or {}
        if not known:
            raise InputError(
                f"plan: the value {value!r} is a statistic of each neuron; give the statistics that"
                " the neurons were selected by."
            )
        _check_model(neurons, known)
    intervention = Intervention(f"{operation} {value}", (made,))
    own = {one: known[one] for one in known if one in neurons.languages}
    return resolve(intervention, lang, neurons, own)


def _check_model(neurons: NeuronTable, statistics: Mapping[str, LanguageStatistics]) -> None:
    for one in statistics.values():
        for key in ("model", "revision"):
            expected = neurons.metadata.get(key, one.header.get(key))
            if one.header.get(key) != expected:
                raise Mismatch(
                    f"plan: the neurons are of {key} {expected!r}, the statistics of"
                    f" {one.header.get(key)!r}."
                )
