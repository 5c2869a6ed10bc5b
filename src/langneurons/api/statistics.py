"""Statistics of every neuron on texts of several languages."""

import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd

from langneurons.activations import collect as collecting
from langneurons.activations.merging import merge
from langneurons.activations.settings import MlpSite, Site, StatisticsConfig
from langneurons.activations.statistics import IDENTITY, Mismatch, check_compatible
from langneurons.activations.statistics import Statistics as LanguageStatistics
from langneurons.api.shared import Shared
from langneurons.base.digests import digest
from langneurons.base.errors import InputError, unknown
from langneurons.base.io import read_jsonl
from langneurons.base.messages import defined
from langneurons.data.corpus import Corpus, bos_policy, pack_documents
from langneurons.data.mini_data import CORPUS, mini_file, mini_languages
from langneurons.models.encoding import following, plain_text
from langneurons.models.language_model import LanguageModel
from langneurons.sharing.card import CARD, body_of
from langneurons.sharing.headers import Origin, StatisticsHeader
from langneurons.sharing.statistics import (
    read_statistics,
    statistics_header,
    write_statistics,
)
from langneurons.sharing.tensors import check_start

OF_THE_GRAPH = {"shards", "slices", "until"}  # settings that one call has no use for
FEW = 1000  # tokens of a language


def mini_texts(
    languages: Sequence[str] | None = None, documents: int | None = None
) -> dict[str, list[str]]:
    """Return the parallel sentences that come with the package, by language.

    Args:
        languages: Codes of languages; left out: all nine.
        documents: The number of sentences of each language, at most 265; left out: all.

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


class Statistics(Shared, Mapping[str, LanguageStatistics]):
    """Activation statistics of one model, by language.

    A mapping from language to `langneurons.activations.statistics.Statistics`, whose methods give
    arrays (n_layers, d_mlp) in float64: `probability(site)`, `mean(site)`, `std(site)`,
    `quantile(q, site)`, ...; site is `gate` (before the nonlinearity), `act` (after it), `product`
    (input of the down projection) or `residual` (the residual stream: arrays (n_layers + 1,
    d_model), row 0 before the first block and row l + 1 after block l; no quantiles). Of a
    mixture of experts `expert_tokens()`, `expert_frequency()` and `expert_weight()` give
    (n_layers, n_experts).

    Example:
        >>> import langneurons as ln
        >>> statistics = ln.collect(ln.load("gemma3-270m"), ln.mini_texts(["fr", "vi"], 30))
        >>> statistics["vi"].probability("act").shape
        (18, 2048)
    """

    KIND = "statistics"

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

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Statistics":
        """Read a folder that `save` or the graph wrote (`results/{model}/activations`).

        Raises:
            ValueError: The folder holds no statistics, damaged ones, or those of different models
                or settings.
        """
        folder = Path(folder)
        if (folder / CARD).is_file():
            return cls._loaded(folder)
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise InputError(f"{folder}: no file {{language}}.safetensors in this folder.")
        for path in paths:
            check_start(path)
        return cls({path.stem: LanguageStatistics.read(path, lang=path.stem) for path in paths})

    def _header(self) -> StatisticsHeader:
        return statistics_header(self)

    def _write(self, folder: Path) -> list[str]:
        return write_statistics(self, folder)

    def _profiles(self) -> tuple[str, pd.DataFrame]:
        """Return a site, and the mean P(a > 0) of each language (rows) and layer there."""
        first = next(iter(self.values()))
        site = first.sites[0] if first.sites == ["residual"] else first.counted_site
        rows = {lang: one.probability(site).mean(axis=1) for lang, one in self.items()}
        return site, pd.DataFrame.from_dict(rows, orient="index")

    def _draw(self, stem: Path, title: str) -> None:
        from langneurons.reporting.figures.shared import draw_profiles

        site, values = self._profiles()
        draw_profiles(values, f"mean P({site} > 0)", title, stem)

    def _body(self, header: Origin, drawn: bool) -> list[str]:
        site, values = self._profiles()
        sizes: dict[str, list[Any]] = {
            "tokens": [one.tokens for one in self.values()],
            f"mean P({site} > 0)": [f"{share:.4f}" for share in values.mean(axis=1)],
        }
        first = next(iter(self.values())).header
        kept = f"Sites: {', '.join(first['sites'])}. Histograms:"
        more = ["", f"{kept} {', '.join(first['histograms']) or 'none'}."]
        return body_of(header, sizes, more, drawn)

    @classmethod
    def _read(cls, paths: list[Path], header: Origin) -> "Statistics":
        return cls(read_statistics(paths, cast(StatisticsHeader, header)))


def _added(one: LanguageStatistics, other: LanguageStatistics) -> LanguageStatistics:
    """Return the statistics of two texts of one language as those of one corpus."""
    if one.header["corpus_hash"] == other.header["corpus_hash"]:
        raise Mismatch(f"merged: both statistics of {one.lang} are of the same text.")
    if "documents" in one.header or "documents" in other.header:
        raise Mismatch(
            f"merged: statistics of {one.lang} hold means per document, which cannot be added up."
            " Collect both texts in one call."
        )
    sizes = [part.blocks for part in (one, other)]
    same = {
        "corpus_hash": digest([part.header["corpus_hash"] for part in (one, other)]),
        "corpus_blocks": sum(sizes),
    }
    spans = ([0, sizes[0]], [sizes[0], sum(sizes)])
    return merge(
        LanguageStatistics(part.arrays, _whole(part.header) | same | {"blocks": span}, part.path)
        for part, span in zip((one, other), spans, strict=True)
    )


def _whole(header: dict[str, Any]) -> dict[str, Any]:
    """Return a header without the share of its text that was read: the sum is of another text."""
    return {key: value for key, value in header.items() if key != "slices"}


def collect(
    model: LanguageModel,
    texts: Mapping[str, str | Sequence[str]],
    *,
    sites: Sequence[Site] = ("gate", "act", "product"),
    histograms: Sequence[MlpSite] = ("gate",),
    document_means: Sequence[Site] = (),
    block_size: int = 512,
    batch_blocks: int = 8,
    **settings: Any,
) -> Statistics:
    """Measure every neuron of a model on texts of several languages, in one pass.

    Documents of a language are joined by newlines and read in blocks, each begun as the model's
    tokenizer begins a text; the tokens with which a block begins are not counted.

    Args:
        model: The model.
        texts: By language (any code), one text or a list of documents. Give the languages about
            equal amounts of text; 10,000 tokens or more of each give stable neurons.
        sites: Where activations are measured; `residual` is the residual stream.
        histograms: Sites whose distribution is kept, for percentiles and `exceedance`.
        document_means: Sites whose mean per document is kept, for methods that rank documents
            (`average_precision`, `document_sign`, `plnd`).
        block_size: Tokens of a block, at most what the model reads.
        batch_blocks: Blocks of a forward pass. Does not change results.
        settings: More of the key `statistics`, as in the configuration (docs/configuration.md),
            such as `residual_outer`: rows of the residual stream with a covariance.

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
    graph = sorted(OF_THE_GRAPH & settings.keys())
    if graph:
        raise InputError(
            f"collect: {', '.join(graph)} divide the work of a run by `snakemake`; leave them out."
        )
    content = {
        "sites": tuple(sites),
        "histograms": tuple(histograms),
        "document_means": tuple(document_means),
        "batch_blocks": batch_blocks,
        "max_documents": max(len(_documents(lang, given)) for lang, given in texts.items()),
    }
    asked = defined(StatisticsConfig, content | settings, "collect")
    found = {}
    for lang, given in texts.items():
        corpus = corpus_of(model, lang, _documents(lang, given), block_size)
        found[lang] = collecting.collect(model, corpus, asked)
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


def corpus_of(
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
