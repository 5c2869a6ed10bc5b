"""Checks of language codes: which are known, and where a variant of a language may stand."""

from collections.abc import Iterable

from langneurons.base.errors import ConfigError, nearest, unknown
from langneurons.base.languages import parts_of
from langneurons.base.scripts import script_of
from langneurons.config.config import Config


def check_language(config: Config, path: str, lang: str) -> None:
    """Refuse a code that is neither a known language nor a variant of one."""
    known = config.known_languages()
    base, name = parts_of(lang)
    if "@" not in lang:
        if lang not in known:
            raise unknown(path, lang, "language", known)
        return
    if base not in known:
        raise unknown(path, base, f"language (in {lang!r})", known)
    variants = config.corpus.variants
    if name not in variants:
        raise ConfigError(
            f"{path}: {lang!r}: {name!r} is not a variant of the configuration; corpus.variants:"
            f" {', '.join(variants) or 'none'}.{nearest(name, variants)}"
        )


def check_spoken(config: Config, path: str, lang: str, legal: Iterable[str] | None = None) -> None:
    """Refuse a code that is not a language with items, questions or answers of its own.

    legal: the languages that may stand there, where these are fewer than all.
    """
    check_language(config, path, lang)
    base, name = parts_of(lang)
    if name:
        raise ConfigError(
            f"{path}: {lang!r} is a variant. A variant has a corpus, and no items, questions, facts"
            f" or answers, so it may not stand here. Name the language: {base!r}."
        )
    if legal is not None and lang not in legal:
        raise unknown(path, lang, "language of a set", sorted(legal))


def check_variants(config: Config) -> None:
    """Refuse variants that no set names, and those that would be the language's own text."""
    members = {lang: name for name, langs in config.language_sets.items() for lang in langs}
    used = {parts_of(lang)[1] for lang in members}
    for name, entry in config.corpus.variants.items():
        if name not in used:
            base = parts_of(next(iter(members)))[0]
            raise ConfigError(
                f"corpus.variants.{name}: no language set names it, so nothing would be made of it."
                f" Write {f'{base}@{name}'!r} in a set, or leave the variant out."
            )
        if entry.kind == "source" and entry.source == config.corpus.source:
            raise ConfigError(
                f"corpus.variants.{name}.source: the same as corpus.source, so the variant would be"
                " the language's own text. Name another file, split or data set."
            )
    for lang, langset in members.items():
        one, base = config.variant(lang), parts_of(lang)[0]
        if one is not None and one.kind == "romanised" and script_of(base) == "Latn":
            raise ConfigError(
                f"language_sets.{langset}: {lang!r}: {config.known_languages()[base].name} is"
                " written in Latin letters, so there is nothing to romanise. Leave it out."
            )
