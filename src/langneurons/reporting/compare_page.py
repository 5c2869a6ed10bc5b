"""What a comparison of two runs says: sentences, tables of text, a page, CSV files."""

import html
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from langneurons.base.io import write_text
from langneurons.reporting.compare import PAIRED, Comparison
from langneurons.reporting.tables.write import format_value

TITLES = {
    "settings": "Settings that differ",
    "only": "Results that one of them has",
    "masks": "Masks: neurons of each language",
    "perplexity": "Perplexity: change of NLL in nats per token",
    "steering": "Language Steering Shift",
    "scores": "Task scores",
    "statistics": "Activation probabilities",
    "directions": "Directions",
}
SHOWN = 20  # rows of a table on the terminal
CELLS = ("perplexity", "steering", "scores")


def sentences(found: Comparison) -> list[str]:
    """Return what differs, a sentence for each kind of result."""
    said = list(found.remarks)
    for name, frame in found.tables.items():
        if name == "settings":
            keys = sorted(set(frame["key"]))
            verb = "key differs" if len(keys) == 1 else "keys differ"
            listed = f"{len(keys)} {verb} ({', '.join(keys)})." if keys else "no key differs."
            said.append(f"Settings: {listed}")
        elif name == "only" and len(frame):
            said.append(f"{len(frame)} results are in one of them only.")
        elif name == "masks":
            said.append(_of_masks(frame))
        elif name in CELLS:
            said.append(_of_cells(name, frame))
    return said


def _of_masks(frame: pd.DataFrame) -> str:
    known = frame[frame["lang"] != "all"].dropna(subset="jaccard")
    if known.empty:
        return "Masks: of models of different sizes, which share no neurons."
    equal, least = int((known["jaccard"] == 1).sum()), known.loc[known["jaccard"].idxmin()]
    where = ", ".join(str(least[key]) for key in ("selection", "lang") if key in known)
    return (
        f"Masks: {equal} of {len(known)} are equal; the least Jaccard index is"
        f" {least['jaccard']:.3f} ({where})."
    )


def _of_cells(name: str, frame: pd.DataFrame) -> str:
    changed, differ = int((frame["difference"] != 0).sum()), int(frame["differs"].sum())
    title = TITLES[name].split(":")[0]
    text = (
        f"{title}: {changed} of {len(frame)} cells are not equal; {differ} have an interval"
        f" without 0, {int((frame['p_holm'] < 0.05).sum())} p below 0.05 after Holm."
    )
    unpaired = int((frame["pairing"] != PAIRED).sum())
    if unpaired:
        text += f" {unpaired} are not of the same texts or items, and are not paired."
    return text


def _shown_rows(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows for the terminal: cells that differ, masks that are not equal."""
    if name in CELLS:
        frame = frame[frame["differs"]].sort_values("difference", key=abs, ascending=False)
    elif name == "masks":
        frame = frame[frame["jaccard"] != 1]
    return frame.drop(columns=["differs", "test"], errors="ignore")


def comparison_text(found: Comparison) -> str:
    """Return sentences, and a table of text for each kind of result that differs."""
    lines = [f"first:  {found.first}", f"second: {found.second}", "", *sentences(found)]
    for name, frame in found.tables.items():
        rows = _shown_rows(name, frame)
        if rows.empty:
            continue
        text = pd.DataFrame(
            {one: [format_value(value, str(one)) for value in rows[one]] for one in rows}
        )
        lines += ["", TITLES[name], text.head(SHOWN).to_string(index=False)]
        if len(text) > SHOWN:
            lines.append(f"... and {len(text) - SHOWN} more rows; --csv or --html has all.")
    return "\n".join(lines)


def write_csv(found: Comparison, folder: Path) -> list[str]:
    """Write every table in full precision; return the names of the files."""
    for name, frame in found.tables.items():
        write_text(folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
    return [f"{name}.csv" for name in found.tables]


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #8884; text-align: right; }
th:first-child, td:first-child, .word { text-align: left; }
.differs { font-weight: 600; }
"""


def write_page(found: Comparison, path: Path) -> None:
    """Write a page with the sentences and every table whole; cells that differ are bold."""
    write_text(path, "\n".join(_page(found)) + "\n")


def _page(found: Comparison) -> Iterator[str]:
    title = html.escape(f"{found.first} and {found.second}")
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{STYLE}</style></head><body>"
    yield f"<h1>Comparison</h1><p>first: {html.escape(found.first)}<br>"
    yield f"second: {html.escape(found.second)}</p><ul>"
    yield from (f"<li>{html.escape(one)}</li>" for one in sentences(found))
    yield "</ul>"
    for name, frame in found.tables.items():
        yield f'<h2 id="{name}">{html.escape(TITLES[name])}</h2>'
        if frame.empty:
            yield "<p>None.</p>"
            continue
        yield "<div><table><thead><tr>"
        kinds = {one: "" if _is_number(frame[one]) else ' class="word"' for one in frame}
        yield "".join(f"<th{kinds[one]}>{html.escape(str(one))}</th>" for one in frame)
        yield "</tr></thead><tbody>"
        for row in frame.to_dict("records"):
            cells = (
                f"<td{kinds[one]}>{html.escape(format_value(value, str(one)))}</td>"
                for one, value in row.items()
            )
            kind = ' class="differs"' if row.get("differs") else ""
            yield f"<tr{kind}>{''.join(cells)}</tr>"
        yield "</tbody></table></div>"
    yield "</body></html>"


def _is_number(column: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column))
