"""Configuration key `languages`, and the table of languages that need no entry there."""

import functools
import hashlib
from collections.abc import Iterable

from pydantic import Field

from langneurons.base.settings import Frozen


class Language(Frozen):
    """What is shown of a language; nothing here enters a job's identity."""

    name: str = Field(min_length=1, description="English name.")
    family: str = Field("", description="Family, for grouping in figures.")
    script: str = Field("", description="Writing system.")


def _table() -> dict[str, Language]:
    rows = """
    en English|Germanic|Latin; de German|Germanic|Latin; nl Dutch|Germanic|Latin
    af Afrikaans|Germanic|Latin; sv Swedish|Germanic|Latin; da Danish|Germanic|Latin
    no Norwegian|Germanic|Latin; is Icelandic|Germanic|Latin; fr French|Romance|Latin
    es Spanish|Romance|Latin; it Italian|Romance|Latin; pt Portuguese|Romance|Latin
    ro Romanian|Romance|Latin; ru Russian|Slavic|Cyrillic; uk Ukrainian|Slavic|Cyrillic
    pl Polish|Slavic|Latin; cs Czech|Slavic|Latin; sk Slovak|Slavic|Latin
    sl Slovenian|Slavic|Latin; bg Bulgarian|Slavic|Cyrillic; mk Macedonian|Slavic|Cyrillic
    lt Lithuanian|Baltic|Latin; lv Latvian|Baltic|Latin; el Greek|Hellenic|Greek
    cy Welsh|Celtic|Latin; hi Hindi|Indo-Aryan|Devanagari; ur Urdu|Indo-Aryan|Arabic
    bn Bengali|Indo-Aryan|Bengali; mr Marathi|Indo-Aryan|Devanagari
    pa Punjabi|Indo-Aryan|Gurmukhi; ne Nepali|Indo-Aryan|Devanagari
    fa Persian|Iranian|Arabic; ta Tamil|Dravidian|Tamil; te Telugu|Dravidian|Telugu
    kn Kannada|Dravidian|Kannada; ml Malayalam|Dravidian|Malayalam
    vi Vietnamese|Austroasiatic|Latin
    id Indonesian|Austronesian|Latin; th Thai|Kra-Dai|Thai; zh Chinese|Sino-Tibetan|Han
    bo Tibetan|Sino-Tibetan|Tibetan; ja Japanese|Japonic|Kanji and kana; ko Korean|Koreanic|Hangul
    ar Arabic|Semitic|Arabic; mt Maltese|Semitic|Latin; tr Turkish|Turkic|Latin
    kk Kazakh|Turkic|Cyrillic; et Estonian|Uralic|Latin; fi Finnish|Uralic|Latin
    hu Hungarian|Uralic|Latin; ka Georgian|Kartvelian|Georgian; sw Swahili|Bantu|Latin
    ms Malay|Austronesian|Latin
    ht Haitian Creole|Creole|Latin; qu Quechua|Quechuan|Latin; eu Basque|isolate|Latin
    """
    table = {}
    for row in rows.replace("\n", ";").split(";"):
        if row.strip():
            code, rest = row.strip().split(" ", 1)
            name, family, script = rest.split("|")
            table[code] = Language(name=name, family=family, script=script)
    return table


KNOWN_LANGUAGES: dict[str, Language] = _table()


def parts_of(code: str) -> tuple[str, str]:
    """Return the language and the variant of a code: `hi@romanised`; "" of the language itself."""
    base, _, variant = code.partition("@")
    return base, variant


def set_directory(languages: Iterable[str]) -> str:
    """Name a language set by its content: sorted codes, or their number and a digest if long."""
    return _set_directory(tuple(languages))


@functools.cache
def _set_directory(languages: tuple[str, ...]) -> str:
    codes = sorted(languages)
    name = "-".join(codes)
    if len(name) <= 100:
        return name
    return f"{len(codes)}langs-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
