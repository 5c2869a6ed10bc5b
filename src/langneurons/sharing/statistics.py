"""Shared statistics: a file of each language, as the graph writes it (docs/format.md)."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from langneurons.activations.statistics import (
    IDENTITY,
    OF_SOME,
    Statistics,
    check_compatible,
)
from langneurons.base.errors import InputError
from langneurons.sharing.folder import check_same
from langneurons.sharing.headers import (
    FORMAT,
    LIBRARY,
    VERSION,
    StatisticsHeader,
    header_of,
)

COMMON = ("model", "revision", "tokenizer_hash", "dtype", "quantization", "n_layers", "d_mlp")


def statistics_header(by_language: Mapping[str, Statistics]) -> StatisticsHeader:
    """Return the header of statistics, which agree on model and settings."""
    if not by_language:
        raise InputError("no statistics: there is not one language among them.")
    first = next(iter(by_language.values())).header
    settings = {key: first[key] for key in IDENTITY if key not in (*COMMON, "sites")}
    settings |= {key: first[key] for key in OF_SOME if key in first}
    content = {key: first[key] for key in COMMON} | {
        "format": FORMAT,
        "version": VERSION,
        "kind": "statistics",
        "library": LIBRARY,
        "languages": list(by_language),
        "sites": first["sites"],
        "tokens": {lang: one.tokens for lang, one in by_language.items()},
        "corpora": {lang: one.header.get("corpus_hash") for lang, one in by_language.items()},
        "statistics": {lang: one.digest for lang, one in by_language.items()},
        "settings": settings,
    }
    return cast(StatisticsHeader, header_of(content, "statistics", "statistics"))


def write_statistics(by_language: Mapping[str, Statistics], folder: Path) -> list[str]:
    """Write a file `{language}.safetensors` of each language; return their names."""
    for lang, one in by_language.items():
        one.write(folder / f"{lang}.safetensors")
    return [f"{lang}.safetensors" for lang in by_language]


def read_statistics(
    paths: list[Path], header: StatisticsHeader, verify: bool = False
) -> dict[str, Statistics]:
    """Return the statistics of a shared folder by language.

    verify: read all sums and compare them with their content digest.

    Raises:
        ValueError: Files lack languages of the header, or have others, are damaged, disagree with
            one another or with the header.
    """
    there, wanted = {path.stem for path in paths}, set(header.languages)
    if there != wanted:
        raise InputError(
            f"{paths[0].parent}: the card names the languages {', '.join(sorted(wanted))}; there"
            f" are files of {', '.join(sorted(there))}."
        )
    found = {path.stem: Statistics.read(path, lang=path.stem) for path in paths}
    check_compatible(found.values(), IDENTITY)
    ordered = {lang: found[lang] for lang in header.languages}
    for one in ordered.values() if verify else ():
        one.verify()
    own = statistics_header(ordered).model_copy(update={"library": header.library})
    check_same(header, own, str(paths[0].parent))
    return ordered
