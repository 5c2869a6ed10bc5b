"""Text in figures: never read as markup, in every script for which a font is installed.

matplotlib draws a character with the first family of a list that has it. The list of a text is its
own family and those of its scripts (`langneurons.base.scripts`), where they are installed; a
character that none of them draws is named in the log.
"""

import logging
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from langneurons.base.scripts import character_script, fonts_for, scripts_in

log = logging.getLogger(__name__)
FAMILY = "DejaVu Sans"
INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")


def one_line(text: object) -> str:
    """Return a label without line breaks and characters that are not shown."""
    kept = "".join(
        character
        for character in str(text)
        if character.isspace() or unicodedata.category(character) not in ("Cc", "Cs")
    )
    return " ".join(kept.split())


def letter(figure: Figure) -> None:
    """Give every text of a figure the families that its characters need."""
    lacking: dict[str, str] = {}
    for text in figure.findobj(Text):
        content = text.get_text()
        if content.isascii():
            continue
        families = families_of(content)
        text.set_fontfamily(list(families))
        for character in _undrawn(content, families):
            lacking.setdefault(character, content)
    for script in dict.fromkeys(map(character_script, lacking)):
        shown = [one for one in lacking if character_script(one) == script]
        wanted = " or ".join(fonts_for(script)[:2]) or "a font that has them"
        log.warning(
            "no installed font draws %d characters (%s) of %r: the figure shows boxes in their"
            " place; install %s and draw it again",
            len(shown),
            " ".join(shown[:10]),
            one_line(lacking[shown[0]]),
            wanted,
        )


def families_of(text: str) -> tuple[str, ...]:
    """Return the families for a text: the usual one, then those of its scripts."""
    found = [FAMILY]
    for script in scripts_in(text):
        found += [family for family in fonts_for(script) if family != FAMILY and _path(family)]
    return tuple(dict.fromkeys(found))


def _undrawn(text: str, families: Iterable[str]) -> list[str]:
    """Return the characters of a text that none of the families has."""
    covered = [_characters(family) for family in families]
    return [
        character
        for character in dict.fromkeys(text)
        if unicodedata.category(character) not in INVISIBLE
        and not any(ord(character) in one for one in covered)
    ]


@cache
def _characters(family: str) -> frozenset[int]:
    path = _path(family)
    return frozenset() if path is None else frozenset(font_manager.get_font(path).get_charmap())


@cache
def _path(family: str) -> str | None:
    """Return the file of an installed family; one installed after matplotlib looked is added."""
    known = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    if family not in known:
        stem = re.sub(r" (SC|TC|HK|JP|KR)$", "", family).replace(" ", "")
        for file in sorted(_files()):
            name = Path(file).stem.replace(" ", "")
            if name in (stem, f"{stem}-Regular", f"{stem}[wdth,wght]", f"{stem}[wght]"):
                font_manager.fontManager.addfont(file)
        known = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    return known.get(family)


@cache
def _files() -> tuple[str, ...]:
    return tuple(font_manager.findSystemFonts())
