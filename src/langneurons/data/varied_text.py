"""Text controls that change documents: romanised text, and words in another order.

A changed document keeps its identifier and its part, so that held-out documents correspond.
"""

import hashlib
import logging
import os
import random
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from langneurons.base.errors import InputError
from langneurons.base.io import atomic, iterate_jsonl, read_json, write_json
from langneurons.base.scripts import UNSPACED, character_script, is_unspaced, three_letters
from langneurons.data.corpus import line

if TYPE_CHECKING:
    from langneurons.data.settings import Romanised, ShuffledWords

log = logging.getLogger(__name__)
Counts = dict[str, int]
# A sentence ends after these, closing marks included, and where a line does.
_ENDS = ".!?…।॥۔؟։።"
_WIDE_ENDS = "。！？"
_CLOSING = "\"'”’»)\\]）」』"
SENTENCE = re.compile(
    rf"(?<=[{_ENDS}])(?=\s)|(?<=[{_ENDS}][{_CLOSING}])(?=\s)"
    rf"|(?<=[{_WIDE_ENDS}])(?![{_CLOSING}])|(?<=[{_WIDE_ENDS}][{_CLOSING}])|(?<=\n)"
)
SPACE = re.compile(r"(\s+)")


def vary_text(
    variant: "Romanised | ShuffledWords",
    lang: str,
    files: Mapping[str, str | os.PathLike],
    base: str,
) -> None:
    """Write the changed documents of a language, and beside them what was changed.

    files: `text` and `about` of the language, and `written` and `written_about` of the variant.
    lang: the code of the variant; base: of the language.
    """
    made = romaniser(base) if variant.kind == "romanised" else shuffler(base, variant.seed)
    about = read_json(files["about"])
    counts: Counts = {}
    characters = 0
    with atomic(files["written"]) as temporary, temporary.open("w", encoding="utf-8") as written:
        for row in iterate_jsonl(files["text"]):
            text, found = made(row["id"], row["text"])
            written.write(line(row["id"], row["split"], text))
            characters += len(text)
            for key, number in found.items():
                counts[key] = counts.get(key, 0) + number
        if not counts.get("changed"):
            raise InputError(
                f"{lang}: nothing of the text of {base!r} was changed"
                f" ({counts.get('stayed', 0)} letters or words stayed), so the variant would be the"
                " language's own text. Leave it out of the language sets."
            )
    variant_of: dict[str, Any] = {"kind": variant.kind, "of": base, "counts": counts}
    if variant.kind == "romanised":
        variant_of["uroman"] = version("uroman")
    write_json(files["written_about"], about | {"characters": characters, "variant": variant_of})
    log.info("%s: %s", lang, ", ".join(f"{number} {key}" for key, number in counts.items()))


# Romanised ---------------------------------------------------------------------------------------


def romaniser(base: str) -> Callable[[str, str], tuple[str, Counts]]:
    """Return a function of identifier and text: the text in Latin letters, and counts.

    Counts: letters that were `changed`, and those that `stayed` in another script. Whole lines are
    given to uroman, which also writes digits of other scripts as 0-9.
    """
    tool, code = _uroman(), three_letters(base)

    def romanise(_: str, text: str) -> tuple[str, Counts]:
        lines = [_romanised(tool, one, code) for one in text.split("\n")]
        made = "\n".join(lines).strip()
        before, after = _foreign(text), _foreign(made)
        return made, {"changed": before - after, "stayed": after}

    return romanise


@cache
def _uroman() -> Any:
    import uroman

    tool = uroman.Uroman()
    # A line that holds a number before the word for `of` in a fraction ends uroman 1.3.1.1 with
    # an AttributeError; without these words it is romanised like any other.
    tool.fraction_connectors = ()
    return tool


def _romanised(tool: Any, text: str, code: str | None) -> str:
    """Return a line in Latin letters; where uroman fails, its halves, and single characters."""
    try:
        return tool.romanize_string(text, lcode=code)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        if len(text) < 2:
            return text
        log.warning("uroman fails on %d characters (%r); they are halved", len(text), error)
        middle = len(text) // 2
        return _romanised(tool, text[:middle], code) + _romanised(tool, text[middle:], code)


def _foreign(text: str) -> int:
    """Return how many letters and signs of a text belong to a script other than Latin."""
    return sum(character_script(one) not in ("", "Latn") for one in text)


# Shuffled ----------------------------------------------------------------------------------------


def shuffler(base: str, seed: int) -> Callable[[str, str], tuple[str, Counts]]:
    """Return a function of identifier and text: each sentence's words in another order, and counts.

    Words are what white space separates; in a script without spaces, single characters with their
    marks, and runs of letters and digits of other scripts. White space and what holds no letter or
    digit keep their place. Counts: words in another place (`changed`), and those that `stayed`,
    such as a sentence of one word.
    """
    split = _characters if is_unspaced(base) else SPACE.split

    def shuffle(name: str, text: str) -> tuple[str, Counts]:
        draw = random.Random(int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()))
        counts = {"changed": 0, "stayed": 0}
        sentences = []
        for sentence in SENTENCE.split(text):
            pieces = [piece for piece in split(sentence) if piece]
            places = [i for i, piece in enumerate(pieces) if any(map(str.isalnum, piece))]
            words = [pieces[place] for place in places]
            order = list(words)
            while order == words and len(set(words)) > 1:
                draw.shuffle(order)
            for place, word in zip(places, order, strict=True):
                counts["stayed" if pieces[place] == word else "changed"] += 1
                pieces[place] = word
            sentences.append("".join(pieces))
        return "".join(sentences), counts

    return shuffle


def _characters(text: str) -> list[str]:
    """Return the characters of a script without spaces, each with its marks.

    Letters and digits of other scripts stay together, as does white space.
    """
    pieces: list[str] = []
    last = ""
    for one in text:
        mark = unicodedata.category(one).startswith("M")
        kind = "space" if one.isspace() else "run" if one.isalnum() and not _unspaced(one) else ""
        if pieces and (mark or (kind and kind == last)):
            pieces[-1] += one
        else:
            pieces.append(one)
        last = last if mark else kind
    return pieces


def _unspaced(character: str) -> bool:
    return character_script(character) in UNSPACED
