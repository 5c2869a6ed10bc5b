"""Documents, fetched and split; corpora, packed for a tokenizer."""

from typing import Any

from langneurons.config.config import Config
from langneurons.data.settings import TextSource
from langneurons.jobs.estimates import GB, Sizes
from langneurons.jobs.stage import Cell, Need, Stage, Work

TEXT_BYTES_PER_TOKEN = 5.0
TOKEN_BYTES = 9.0  # identifier, document, flags of a packed token


def _documents(config: Config, lang: str) -> dict[str, Any]:
    """Return the source of the documents and their split."""
    corpus = config.corpus
    keys = {"heldout_fraction", "seed", "split"} if corpus.heldout_source is None else set()
    sources = {
        name: _text_source(source, lang)
        for name in ("source", "heldout_source")
        if (source := getattr(corpus, name)) is not None
    }
    return corpus.model_dump(mode="json", include=keys) | {"lang": lang} | sources


def _text_source(source: TextSource, lang: str) -> dict[str, Any]:
    """Return a source, and of its codes the language's own."""
    values = source.model_dump(mode="json")
    if "codes" in values:
        values["codes"] = {key: code for key, code in values["codes"].items() if key == lang}
    return values


def _packing(config: Config, model: str, lang: str) -> dict[str, Any]:
    """Return how documents are packed."""
    keys = {"tokens", "heldout_tokens", "block_size", "heldout_block_size", "bos", "separator"}
    keys |= {"packing", "prefix"}
    return config.corpus.model_dump(mode="json", include=keys) | {"lang": lang}


def _languages(config: Config) -> list[Cell]:
    langs = {lang for model in config.models for lang in config.model_languages(model)}
    return [{"lang": lang} for lang in sorted(langs)]


def _corpora(config: Config) -> list[Cell]:
    return [
        {"model": model, "lang": lang}
        for model in config.models
        for lang in config.model_languages(model)
    ]


def _tokens(sizes: Sizes) -> int:
    return sizes.config.corpus.tokens + sizes.config.corpus.heldout_tokens


def _fetched(sizes: Sizes, cell: Cell) -> Work:
    tokens, source = _tokens(sizes), sizes.config.corpus.source
    size = TEXT_BYTES_PER_TOKEN * tokens
    if source.kind == "hub":
        size = min(size * 1.2, 2.0 * source.characters)
    return Work(tokens, size / 20e6, size)


def _packed(sizes: Sizes, cell: Cell) -> Work:
    tokens = _tokens(sizes)
    return Work(tokens, tokens / 1e6, TOKEN_BYTES * tokens)


FETCH = Stage(
    rule="fetch_text",
    order=0,
    output="resources/text/{lang}.jsonl",
    cells=_languages,
    parameters=_documents,
    work=_fetched,
    need=lambda sizes: Need(0.0, 4.0),
)
PACK = Stage(
    rule="pack_corpus",
    order=20,
    output="results/{model}/corpora/{lang}.safetensors",
    cells=_corpora,
    parameters=_packing,
    work=_packed,
    need=lambda sizes: Need(0.0, 4.0 * _tokens(sizes) * 8 / GB + 1),
)
