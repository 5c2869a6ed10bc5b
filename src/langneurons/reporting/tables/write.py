"""Tables as files: CSV in full precision, Markdown and LaTeX rounded for reading."""

import math
import os
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from langneurons.base.io import write_text

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "\N{MINUS SIGN}": r"$-$",
    **{character: "\\" + character for character in "&%$#_{}"},
}
# Punctuation that Markdown (CommonMark, and GitHub's tables and formulas) could read as markup.
_MARKDOWN = re.compile(
    r"[\\`*|~$]"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<=\])\("
    r"|^[>#](?=.)|^[+-](?=\s)|(?<=^\d)[.)](?=\s)|(?<=^\d\d)[.)](?=\s)"
)


def write_table(
    frame: pd.DataFrame,
    stem: str | os.PathLike,
    caption: str = "",
    notes: str | Sequence[str] = (),
) -> None:
    """Write stem.csv, stem.md and stem.tex."""
    stem = os.fspath(stem)
    notes = [notes] if isinstance(notes, str) else list(notes)
    notes = [note for note in notes if note]
    write_text(f"{stem}.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_text(f"{stem}.md", to_markdown(frame, caption, notes))
    write_text(f"{stem}.tex", to_latex(frame, caption, notes))


def format_value(value: object, column: str = "") -> str:
    """Return a value as a reader wants it: integers whole, four digits, p not below 0.001."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if math.isnan(number):
            return ""
        if column == "p" or column.startswith("p_"):
            return "<0.001" if number < 0.001 else f"{number:.3f}"
        if number == 0:
            return "0"
        if number.is_integer() and abs(number) < 1e6:
            return f"{number:.1f}"
        return f"{number:.4g}"
    return "" if value is None or value is pd.NA else str(value)


def _formatted(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[bool]]:
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame]
    columns = {
        str(column): [format_value(value, str(column)) for value in frame[column]]
        for column in frame
    }
    return pd.DataFrame(columns, dtype=object), numeric


def to_markdown(frame: pd.DataFrame, caption: str = "", notes: Sequence[str] = ()) -> str:
    """Return a Markdown table with its caption above and its notes below."""
    text, numeric = _formatted(frame)
    text = text.map(escape_markdown)
    text.columns = [escape_markdown(column) for column in text.columns]
    if len(text):
        table = text.to_markdown(
            index=False,
            disable_numparse=True,
            colalign=["right" if one else "left" for one in numeric],
        )
    else:
        table = "| " + " | ".join(text.columns) + " |\n|" + "---|" * len(text.columns)
    parts = [f"**{escape_markdown(caption)}**"] if caption else []
    return "\n\n".join([*parts, table, *map(escape_markdown, notes)]) + "\n"


def escape_markdown(text: str) -> str:
    """Return text in one line in which Markdown's special characters stand for themselves.

    What cannot be markup where it stands keeps its form: `p_holm`, `<0.001`, `[0.1, 0.2]`.
    """
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


def plain_markdown(text: str) -> str:
    """Return what `escape_markdown` was given, in one line."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


def escape_latex(text: str) -> str:
    """Return text in one line in which LaTeX's special characters stand for themselves."""
    line = " ".join(text.split())
    escaped = "".join(_LATEX.get(character, character) for character in line)
    # A row may not begin with what `\\\\` before it takes for its argument; dashes stay apart.
    escaped = re.sub(r"-(?=-)", "-{}", escaped)
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def to_latex(frame: pd.DataFrame, caption: str = "", notes: Sequence[str] = ()) -> str:
    """Return a booktabs table; past 45 rows a longtable (packages booktabs, longtable)."""
    text, numeric = _formatted(frame)
    align = "".join("r" if one else "l" for one in numeric)
    head = " & ".join(escape_latex(column) for column in text.columns) + r" \\"
    rows = [
        " & ".join(escape_latex(cell) for cell in row) + r" \\"
        for row in text.itertuples(index=False, name=None)
    ]
    lines = [r"\toprule", head, r"\midrule"]
    title = [rf"\caption{{{escape_latex(caption)}}}"] if caption else []
    footnotes = [rf"{{\footnotesize {escape_latex(note)}\par}}" for note in notes]
    if len(rows) > 45:
        title = [line + r" \\" for line in title]
        body = [rf"\begin{{longtable}}{{{align}}}", *title, *lines, r"\endhead", *rows]
        body += [r"\bottomrule", r"\end{longtable}", *footnotes]
    else:
        body = [r"\begin{table}", r"\centering", *title, rf"\begin{{tabular}}{{{align}}}", *lines]
        body += [*rows, r"\bottomrule", r"\end{tabular}", *footnotes, r"\end{table}"]
    return "\n".join(body) + "\n"
