"""Documents, fetched and split; corpora, packed for a tokenizer."""

from typing import Any

from langneurons.base.errors import present
from langneurons.base.languages import parts_of
from langneurons.config.config import Config
from langneurons.data.settings import TextSource
from langneurons.jobs.estimates import GB, Sizes
from langneurons.jobs.stage import Cell, Need, Stage, Work

TEXT_BYTES_PER_TOKEN = 5.0
CHARACTERS_PER_TOKEN = 4.0
CHARACTERS_PER_SECOND = {"romanised": 5e4, "shuffled_words": 1e6}
TOKEN_BYTES = 9.0  # identifier, document, flags of a packed token


def _documents(config: Config, lang: str) -> dict[str, Any]:
    """Return the source of the documents and their split."""
    key, block = config.text_block(lang)
    keys = {"heldout_fraction", "seed", "split"} if block.heldout_source is None else set()
    base, name = parts_of(lang)
    sources = {
        part: _text_source(source, base)
        for part in ("source", "heldout_source")
        if (source := getattr(block, part)) is not None
    }
    found = config.corpus.model_dump(mode="json", include=keys) | {"lang": base} | sources
    return found | ({"key": key} if name else {})


def _text_source(source: TextSource, lang: str) -> dict[str, Any]:
    """Return a source, and of its codes the language's own."""
    values = source.model_dump(mode="json")
    if "codes" in values:
        values["codes"] = {key: code for key, code in values["codes"].items() if key == lang}
    return values


def _variant(config: Config, lang: str) -> dict[str, Any]:
    """Return what is changed of a language, without what is only shown."""
    entry = present(config.variant(lang), f"{lang}: not a variant")
    return entry.model_dump(mode="json", exclude={"label"})


def _changed(config: Config, lang: str) -> dict[str, Any]:
    """Return the language and what is changed of its documents."""
    return {"base": parts_of(lang)[0], "lang": lang, "variant": _variant(config, lang)}


def _packing(config: Config, model: str, lang: str) -> dict[str, Any]:
    """Return how documents are packed, and what is changed of their tokens."""
    keys = {"heldout_tokens", "block_size", "heldout_block_size", "bos", "separator"}
    keys |= {"packing", "prefix"}
    found = config.corpus.model_dump(mode="json", include=keys)
    found |= {"lang": lang, "tokens": config.tokens(lang)}
    packed = config.text_of(lang) != lang
    return found | ({"variant": _variant(config, lang)} if packed else {})


def _languages(config: Config) -> set[str]:
    return {lang for model in config.models for lang in config.model_languages(model)}


def _fetched_cells(config: Config) -> list[Cell]:
    return [{"lang": lang} for lang in sorted(config.fetched(_languages(config)))]


def _changed_cells(config: Config) -> list[Cell]:
    langs = sorted(_languages(config))
    made = {lang: getattr(config.variant(lang), "made", None) for lang in langs}
    return [{"lang": lang} for lang in langs if made[lang] == "changed"]


def _corpora(config: Config) -> list[Cell]:
    return [
        {"model": model, "lang": lang}
        for model in config.models
        for lang in config.model_languages(model)
    ]


def _tokens(sizes: Sizes) -> int:
    return sizes.config.corpus.tokens + sizes.config.corpus.heldout_tokens


def _fetched(sizes: Sizes, cell: Cell) -> Work:
    tokens, source = _tokens(sizes), sizes.config.text_block(cell["lang"])[1].source
    size = TEXT_BYTES_PER_TOKEN * tokens
    if source.kind == "hub":
        size = min(size * 1.2, 2.0 * source.characters)
    return Work(tokens, size / 20e6, size)


def _varied(sizes: Sizes, cell: Cell) -> Work:
    tokens = _tokens(sizes)
    speed = CHARACTERS_PER_SECOND[_variant(sizes.config, cell["lang"])["kind"]]
    size = TEXT_BYTES_PER_TOKEN * tokens
    return Work(tokens, tokens * CHARACTERS_PER_TOKEN / speed, size)


def _packed(sizes: Sizes, cell: Cell) -> Work:
    corpus = sizes.config.corpus
    tokens = sizes.config.tokens(cell["lang"]) + corpus.heldout_tokens
    return Work(tokens, tokens / 1e6, TOKEN_BYTES * tokens)


FETCH = Stage(
    rule="fetch_text",
    order=0,
    output="resources/text/{lang}.jsonl",
    cells=_fetched_cells,
    parameters=_documents,
    work=_fetched,
    need=lambda sizes: Need(0.0, 4.0),
)
VARY = Stage(
    rule="vary_text",
    order=5,
    output="resources/text/{lang}.jsonl",
    cells=_changed_cells,
    parameters=_changed,
    work=_varied,
    need=lambda sizes: Need(0.0, 1.0),
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
