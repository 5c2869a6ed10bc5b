"""One HTML file with all results: summary, claims, tables, figures, provenance.

The page needs nothing beside itself: figures are data URIs, style and script are in the template,
and its content security policy forbids the network. Tables are sorted by full values and show four
digits; rows past the first `SHOWN` wait as JSON until they are asked for. Equal input gives equal
bytes.
"""

import base64
import gzip
import html
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps

from langneurons.base.io import write_text
from langneurons.reporting.tables.write import format_value

SHOWN = 50  # rows of a table before "show all"
FILTERED = 10  # tables with more rows get a filter box
OPEN = 12  # a claim with more rows is folded
WRAPPED = 32  # characters from which a column breaks its lines
WIDE = 700  # pixels from which a figure takes the full width
VERDICTS = ("holds", "contradicted", "undecided", "not run")
EMPTY = frozenset({"", "-", "\N{EN DASH}", "\N{EM DASH}", "n/a", "nan", "not run"})
COMPACT: dict[str, Any] = {"ensure_ascii": False, "separators": (",", ":")}
KINDS = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}
_NUMBER = re.compile(
    r"(?P<sign>[<>≤≥≈~]?)\s*"
    r"(?P<number>[+\-−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[+\-−]?\d+)?)"
    r"(?:\s*(?:%|\[[^\]]*\]|\([^)]*\)|±\s*[\d.]+|/\s*\d+|of \d+|[*†‡]))*",
    re.IGNORECASE,
)
_SIDES = ("width", "height")
_BOX = re.compile(r"""\sviewBox\s*=\s*["'][^\s"']+[\s,]+[^\s"']+[\s,]+([\d.]+)[\s,]+([\d.]+)""")

# What `figures.canvas` lays over the marks of a figure.
_TIPS = re.compile(r'<g class="tips"[^>]*>(.*?)</g>', re.DOTALL)
_SPOT = re.compile(
    r'<rect x="(?P<x>[-\d.]+)" y="(?P<y>[-\d.]+)" width="(?P<width>[\d.]+)"'
    r' height="(?P<height>[\d.]+)"><title>(?P<text>[^<]*)</title>'
)


@dataclass(frozen=True)
class Verdict:
    """A claim, what decides it, and one row per case with a column `verdict` (`VERDICTS`)."""

    claim: str
    test: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class Table:
    """A table under its own anchor; `files` are saved from the page, which holds them whole."""

    title: str
    caption: str
    frame: pd.DataFrame
    anchor: str
    group: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """An SVG file under its own anchor; `data` is the anchor of the table of its numbers."""

    title: str
    caption: str
    path: str
    anchor: str
    group: str
    data: str = ""


@dataclass(frozen=True)
class Page:
    """What the page shows; what is empty leaves out its section.

    `found` holds findings, each with the anchor of what shows it; the first figure that one points
    at stands beside them, and only there. `agreement` has label columns and the counts printed,
    run and inside (of our interval). Groups stand in the order of their first member. `pages` are
    other pages, by title and address relative to this one.
    """

    title: str
    found: Sequence[tuple[str, str]]
    lead: Sequence[str]
    facts: Mapping[str, str]
    verdicts: Sequence[Verdict]
    agreement: pd.DataFrame | None
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    provenance: Mapping[str, str]
    pages: Sequence[tuple[str, str]] = ()


def write_page(path: str | os.PathLike, page: Page) -> None:
    """Write a page."""
    _check(page.verdicts, [*page.tables, *page.pictures])
    known = {one.anchor: one for one in page.pictures}
    first = next((known[anchor] for _, anchor in page.found if anchor in known), None)
    agreement = page.agreement
    has_agreement = agreement is not None and len(agreement) > 0
    others = [one for one in page.pictures if one is not first]
    text = _template().render(
        title=page.title,
        found=[(text, anchor, anchor in known) for text, anchor in page.found],
        first=None if first is None else _picture(first),
        lead=list(page.lead),
        facts=dict(page.facts),
        claims=[_claim(number, one) for number, one in enumerate(page.verdicts, 1)],
        agreement=_view(agreement, "page-agreement") if has_agreement else None,
        shares=_shares(agreement) if has_agreement else [],
        tables=_groups("tables", page.tables, _table),
        pictures=_groups("figures", others, _picture),
        provenance=dict(page.provenance),
        pages=list(page.pages),
        verdict_classes={name: name.replace(" ", "-") for name in VERDICTS},
        shown=SHOWN,
        filtered=FILTERED,
    )
    write_text(path, text)


def _check(verdicts: Sequence[Verdict], anchored: Sequence[Table | Picture]) -> None:
    for one in verdicts:
        if "verdict" not in one.rows:
            raise ValueError(f"claim {one.claim!r}: its rows have no column 'verdict'")
        unknown = sorted(set(map(str, one.rows["verdict"])) - set(VERDICTS))
        if unknown:
            legal = ", ".join(VERDICTS)
            raise ValueError(f"claim {one.claim!r}: no such verdict: {unknown}; one of {legal}")
    for part in anchored:
        if not re.fullmatch(r"(?!page-)[A-Za-z][\w.:/-]*", part.anchor):
            raise ValueError(
                f"anchor {part.anchor!r} of {part.title!r}: give a letter, then letters, digits or"
                " any of _.:/-; 'page-' at the start is the page's own"
            )
    again = [name for name, n in Counter(one.anchor for one in anchored).items() if n > 1]
    if again:
        raise ValueError(
            f"anchors used twice: {sorted(again)}; every table and figure needs its own"
        )


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("langneurons.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


# Parts -----------------------------------------------------------------------------------------


def _claim(number: int, one: Verdict) -> dict[str, Any]:
    """Return a claim with its tally; without rows it was not run."""
    found = Counter(map(str, one.rows["verdict"])) or Counter({"not run": 0})
    return {
        "anchor": f"page-claim-{number}",
        "number": number,
        "claim": one.claim,
        "test": one.test,
        "tally": [(name, found[name]) for name in VERDICTS if name in found],
        "view": _view(one.rows, f"page-claim-{number}") if len(one.rows) else None,
        "open": len(one.rows) <= OPEN,
    }


def _table(one: Table) -> dict[str, Any]:
    kinds = [os.path.splitext(file)[1].lstrip(".").lower() for file in one.files]
    names = [KINDS.get(kind, kind.upper() or "file") for kind in kinds]
    contents = [_compressed(Path(file).read_bytes()) for file in one.files]
    stems = [os.path.basename(file) for file in one.files]
    return {
        "title": one.title,
        "caption": one.caption,
        "anchor": one.anchor,
        "files": list(zip(stems, names, contents, strict=True)),
        "view": _view(one.frame, one.anchor),
    }


def _compressed(content: bytes) -> str:
    """Return a file as base64 of its gzip, without a time stamp."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode("ascii")


def _picture(one: Picture) -> dict[str, Any]:
    content = Path(one.path).read_bytes()
    text = content.decode("utf-8", errors="replace")
    width, height = _size(text)
    box = _BOX.search(text)
    spots = _TIPS.search(text)
    start = one.caption if len(one.caption) <= 160 else one.caption[:160].rsplit(" ", 1)[0] + " …"
    return {
        "title": one.title,
        "caption": one.caption,
        "anchor": one.anchor,
        "alt": f"{one.title}. {start}" if start else one.title,
        "source": "data:image/svg+xml;base64," + base64.b64encode(content).decode("ascii"),
        "file": re.sub(r"[^\w.-]+", "-", one.anchor) + ".svg",
        "width": width,
        "height": height,
        "wide": width >= WIDE,
        "data": one.data,
        "box": f"0 0 {box[1]} {box[2]}" if box else "",
        "spots": [_spot(match) for match in _SPOT.finditer(spots[1])] if spots else [],
    }


def _spot(match: re.Match) -> dict[str, str]:
    return match.groupdict() | {"text": html.unescape(match["text"])}


def _size(svg: str) -> tuple[int, int]:
    """Return width and height in CSS pixels as the root element states them; 0, 0 if it does not.

    The page needs them so that nothing moves while figures load.
    """
    root = svg[svg.find("<svg") :].partition(">")[0] + ">"
    found = [re.search(rf"""\s{side}\s*=\s*["']([\d.]+)(pt|px)?["']""", root) for side in _SIDES]
    sides = [side for side in found if side is not None]
    if len(sides) == len(_SIDES):
        scale = 4 / 3 if sides[0][2] == "pt" else 1.0
        width, height = (float(side[1]) * scale for side in sides)
    elif box := _BOX.search(root):
        width, height = float(box[1]), float(box[2])
    else:
        return 0, 0
    return round(width), round(height)


def _groups(kind: str, members: Iterable[Any], build: Any) -> list[dict[str, Any]]:
    groups: dict[str, list] = {}
    for one in members:
        groups.setdefault(one.group, []).append(build(one))
    return [
        {"anchor": f"page-{kind}-{number}", "title": group, "members": built}
        for number, (group, built) in enumerate(groups.items(), 1)
    ]


def _shares(agreement: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the totals of printed, run and inside, for the bar above the table."""
    if not {"printed", "run", "inside"} <= set(agreement):
        return []
    agreement = agreement[agreement["inside"].notna()]
    if agreement.empty:
        return []
    printed, run, inside = (int(agreement[name].sum()) for name in ("printed", "run", "inside"))
    return [
        {"name": "inside our interval", "class": "inside", "cells": inside},
        {"name": "run, outside", "class": "outside", "cells": run - inside},
        {"name": "not run", "class": "unrun", "cells": printed - run},
    ]


# Cells -----------------------------------------------------------------------------------------


def _view(frame: pd.DataFrame, anchor: str) -> dict[str, Any]:
    """Return what the template needs of a frame: heads, the first rows, the others as JSON.

    A cell is (text, value): the value is what sorts, "" where the text does.
    """
    columns = [_column(str(name), frame.iloc[:, place]) for place, name in enumerate(frame)]
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    rest = [[[text, value] if value else text for text, value in row] for row in rows[SHOWN:]]
    return {
        "anchor": anchor,
        "heads": [head for head, _ in columns],
        "rows": rows[:SHOWN],
        "rest": htmlsafe_json_dumps(rest, **COMPACT) if rest else "",
        "n": len(frame),
    }


def _column(name: str, values: pd.Series) -> tuple[dict[str, str], list[tuple[str, str]]]:
    texts = [_text(value, name) for value in values]
    numbers = [_value(value) for value in values]
    filled = [
        number is not None
        for number, text in zip(numbers, texts, strict=True)
        if text.strip().lower() not in EMPTY
    ]
    kind = "number" if filled and all(filled) else "text"
    if kind == "text":
        numbers = [None for _ in texts]
    head = {"name": name, "label": name.replace("_", " "), "kind": kind}
    if name == "verdict" and set(texts) <= set(VERDICTS):
        head["kind"] = "verdict"
    long = kind == "text" and any(len(text) > WRAPPED for text in texts)
    head["style"] = "n" if kind == "number" else "w" if long else ""
    cells = []
    for text, number in zip(texts, numbers, strict=True):
        value = "" if number is None else _exact(number)
        cells.append((text, "" if value == text else value))
    return head, cells


def _text(value: object, column: str) -> str:
    text = format_value(value, column)
    if isinstance(value, (int, float, np.integer, np.floating)):
        return text.replace("-", "\N{MINUS SIGN}")
    return "" if text in ("NaT", "<NA>") else text


def _value(value: object) -> float | np.integer | np.floating | None:
    """Return the number by which a cell is sorted, None if it holds none.

    A text counts if it starts with a number and goes on only with an interval, a sign of
    significance or a total; "<0.001" sorts below 0.001.
    """
    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, (int, float, np.integer, np.floating)):
        return None if math.isnan(value) else value
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match or not any(character.isdigit() for character in match["number"]):
        return None
    number = float(match["number"].replace(",", "").replace("\N{MINUS SIGN}", "-"))
    toward = {"<": -math.inf, ">": math.inf}.get(match["sign"])
    return number if toward is None else math.nextafter(number, toward)


def _exact(number: float | np.integer | np.floating) -> str:
    """Return a number so that JavaScript reads the same double."""
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return str(int(number)) if isinstance(number, (int, np.integer)) else repr(float(number))
