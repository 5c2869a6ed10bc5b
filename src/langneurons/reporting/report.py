"""The results page of a configuration: from its tables and figures to `langneurons.reporting.page`.

Captions are those of `reporting.kinds`, so that the page and Snakemake's report say the same.
Tables bring their caption and notes from their Markdown file.
"""

import os
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.base.io import read_parquet
from langneurons.base.words import UNTOUCHED
from langneurons.reporting.claims import CLAIMS
from langneurons.reporting.findings import findings
from langneurons.reporting.kinds import KINDS, caption, described, folders
from langneurons.reporting.labels import Labels
from langneurons.reporting.layouts import names_of
from langneurons.reporting.page import Page, Picture, Table, Verdict, write_page
from langneurons.reporting.tables.write import plain_markdown
from langneurons.runtime.record import versions

PAPER_FIGURES = "Figures in the paper's order"
PAPER_TABLES = "Tables in the paper's order"
PACKAGES = ("langneurons", "torch", "transformers", "peft", "bitsandbytes", "snakemake")
SUMMARIES = ("claims", "published_summary")
# The order of tables on the page, and what stands first in each.
ORDER = (
    *("hypotheses", "leaderboard", "trials", "trial_controls", "trial_doses", "trial_cells"),
    *("answers_summary", "answers", "answer_parts", "answer_judges"),
    *("perplexity_summary", "perplexity", "tasks", "lss_summary", "lss", "forcing_summary"),
    *("forcing", "fallback", "lens", "neurons", "overlap", "selections", "votes", "layers"),
    "experts",
    "activations",
)
MAIN = {
    "hypotheses": ("verdict", "value", "low", "high", "direction", "threshold", "p_holm", "units"),
    "leaderboard": ("own", "others", "specificity", "p_holm", "control_change", "left", "dose"),
    "trials": ("selection", "dose", "own", "others", "specificity", "p_holm", "ratio_of_mean"),
    "trial_controls": ("own", "control", "lowest", "highest", "left", "p_holm"),
    "trial_doses": ("own", "own_low", "own_high", "others", "dose", "reached"),
    "trial_cells": ("change", "change_low", "change_high", "p_holm"),
    "answers_summary": ("score", "low", "high", "untouched", "difference", "p_holm", "control"),
    "answers": ("score", "low", "high", "untouched", "difference", "p_holm", "control"),
    "answer_parts": ("line_pass", "untouched_line_pass", "word_pass", "untouched_word_pass"),
    "answer_judges": ("kappa", "equal", "answers"),
    "perplexity": ("nll_change", "low", "high", "p_holm", "documents"),
    "tasks": ("difference", "difference_low", "difference_high", "p_holm", "baseline", "mean", "n"),
    "perplexity_summary": ("mean_own", "own_low", "own_high", "mean_others"),
    "lss_summary": ("lss", "difference", "difference_low", "difference_high", "p_holm", "facts"),
    "lss": ("lss", "low", "high", "n", "margin"),
    "forcing_summary": ("success", "baseline", "difference", "low", "high", "p_holm", "n"),
    "forcing": ("success", "low", "high", "n", "intact"),
    "overlap": ("shared", "chance", "jaccard"),
    "selections": ("shared", "chance", "jaccard"),
    "votes": ("votes", "neurons", "chance"),
    "neurons": ("neurons", "exclusive"),
    "experts": ("frequency", "entropy", "specific_to"),
}


# The table that holds the numbers of a kind of figure, where it has another name.
NUMBERS = {
    "cross_entropy": "perplexity",
    "venn": "neurons",
    "lss_factors": "lss_summary",
    "lss_layers": "lss_summary",
    "scores": "tasks",
    "targets": "tasks",
    "task_layers": "tasks",
    "lens_change": "lens",
}


def one_line(text: object) -> str:
    """Return a label in one line."""
    return " ".join(str(text).split())


def write_report(
    path: str | os.PathLike,
    tables: Sequence[str],
    neurons: Sequence[str],
    labels: Labels,
    page: Mapping[str, Any],
) -> None:
    """Write the page; `tables` are CSV files.

    `neurons` holds one neuron table of each model: its header says which weights the results are
    of. `page` holds `about` (corpus and tokens), `figures` (kind, cell and stem of each, and the
    name and item of those with a name of their own) and `newest` (models without a pinned
    revision).
    """
    frames = {Path(table).stem: pd.read_csv(table, keep_default_na=False) for table in tables}
    for table in tables:  # numbers as numbers, empty cells as missing
        name = Path(table).stem
        numeric = pd.read_csv(table, dtype_backend="numpy_nullable")
        for column in numeric.select_dtypes("number"):
            frames[name][column] = numeric[column]
    agreement = frames.get("published_summary")
    pictures = _pictures(page["figures"], labels, frames)
    shown = [
        _table(table, frames[Path(table).stem])
        for table in sorted(tables, key=_place)
        if Path(table).stem not in SUMMARIES
    ]
    own = Page(
        title=one_line(labels.title or labels.name),
        found=_found(frames, labels, pictures, shown),
        lead=_lead(labels, page["about"]),
        facts=_facts(labels, frames),
        verdicts=_verdicts(labels, frames.get("claims")),
        agreement=agreement,
        tables=shown,
        pictures=pictures,
        provenance={
            "configuration": labels.name,
            **_weights(neurons, labels, page["newest"]),
            **_corpus(labels, page["about"]),
            **versions(PACKAGES),
        },
        pages=[
            (title, os.path.relpath(file, Path(path).parent)) for title, file in page["browsers"]
        ],
    )
    write_page(path, own)


def _found(
    frames: Mapping[str, pd.DataFrame],
    labels: Labels,
    pictures: Sequence[Picture],
    tables: Sequence[Table],
) -> list[tuple[str, str]]:
    """Return each finding with the anchor of the figure or table that shows it."""
    places = {
        "cross_entropy": ("cross_entropy", "perplexity"),
        "scores": ("scores", "tasks"),
        "overlap": ("overlap", "overlap"),
        "lss_factors": ("lss_factors", "lss_summary"),
        "claims": ("", "claims"),
        "hypotheses": ("", "hypotheses"),
        "methods": ("methods", "leaderboard"),
        "answers": ("answers", "answers_summary"),
    }
    anchors = {one.anchor for one in tables}
    result = []
    for one in findings(frames, labels):
        kind, table = places[one.shown]
        found = [
            picture.anchor for picture in pictures if kind and picture.group == KINDS[kind].title
        ]
        fallback = f"table-{table}" if f"table-{table}" in anchors else "page-claims"
        text = one.text.replace(" %", "\N{NO-BREAK SPACE}%")
        result.append((text, found[0] if found else fallback))
    return result


def _place(path: str) -> tuple[int, str]:
    """Return where a table stands: those like printed ones, then by what matters."""
    stem = Path(path).stem
    order = ORDER.index(stem) if stem in ORDER else len(ORDER)
    return (-1 if _printed(path) else order, stem)


def _lead(labels: Labels, about: Mapping[str, Any]) -> list[str]:
    models = ", ".join(labels.models.values())
    langs = ", ".join(labels.language_names.values())
    text = (
        f"Language-specific neurons of {models} in {len(labels.language_names)} languages"
        f" ({langs}). Activations were measured on up to {about['tokens']:,} tokens per language of"
        f" {_local(about['corpus'])}; selections: {', '.join(labels.selections.values())}."
    )
    lines = [text]
    if len(labels.protocols) > 1 or "corrected" not in labels.protocols:
        lines.append(
            f'Protocols: {", ".join(labels.protocols)}. "paper" repeats what the papers\' code'
            ' does, "corrected" mends it point by point (docs/deviations.md): a value is written'
            " where it was measured, quantiles are those of the whole corpus, a head reads the last"
            " real token, answers are compared as words, training and test rows are apart, and"
            " perplexity with and without an intervention is that of the same text."
        )
    for printed, model in labels.results["stand_ins"].items():
        lines.append(
            f"{labels.models[model]} stands in for {printed}: agreement with the printed numbers"
            " shows that the machinery works and says nothing about the paper."
        )
    return lines


def _facts(labels: Labels, frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    facts = {
        "models": str(len(labels.models)),
        "languages": str(len(labels.language_names)),
        "language sets": str(len(labels.language_sets)),
        "selections": str(len(labels.selections)),
        "interventions": str(len(labels.interventions)),
    }
    summary = frames.get("published_summary")
    if summary is not None:
        counted = summary[summary["inside"].isna()] if "inside" in summary else summary
        if len(counted):
            run, printed = int(counted["run"].sum()), int(counted["printed"].sum())
            facts["published numbers of neurons that stand beside ours"] = f"{run:,} of {printed:,}"
        for protocol, part in summary.drop(counted.index).groupby("protocol", sort=False):
            run, inside = int(part["run"].sum()), int(part["inside"].sum())
            name = f"printed cells run lie inside our interval, {protocol}"
            facts[name] = f"{inside:,} of {run:,}"
    claims = frames.get("claims")
    if claims is not None and len(claims):
        held = int((claims["verdict"] == "holds").sum())
        run = int((claims["verdict"] != "not run").sum())
        facts["claim tests that hold"] = f"{held} of {run}"
    return facts


def _verdicts(labels: Labels, claims: pd.DataFrame | None) -> list[Verdict]:
    if claims is None:
        return []
    margin = f" Margin: {labels.results['margin']:g}."
    return [
        Verdict(
            claim.title, claim.test + margin, claims[claims["claim"] == name].drop(columns="claim")
        )
        for name, claim in CLAIMS.items()
        if (claims["claim"] == name).any()
    ]


def _printed(path: str) -> bool:
    """Return whether a table is laid out like a printed one, or is of published masks."""
    return re.fullmatch(r"table\d+|masks_\w+", Path(path).stem) is not None


def _table(path: str, frame: pd.DataFrame) -> Table:
    stem = Path(path).with_suffix("")
    text = stem.with_suffix(".md").read_text(encoding="utf-8")
    parts = [part.strip() for part in text.split("\n\n") if part.strip()]
    notes = [part for part in parts if not part.startswith("|")]
    title = stem.name
    if notes and notes[0].startswith("**"):
        title, notes = plain_markdown(notes[0][2:-2]), notes[1:]
    notes = [plain_markdown(note) for note in notes]
    files = tuple(str(stem.with_suffix(f".{kind}")) for kind in ("csv", "tex"))
    if not _printed(path):
        frame, same = folded(frame, MAIN.get(stem.name, ()))
        notes += [f"In all rows: {same}."] if same else []
    group = PAPER_TABLES if _printed(path) else "All results"
    return Table(title, " ".join(notes), frame, f"table-{stem.name}", group, files)


def folded(frame: pd.DataFrame, main: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Return a table as the page shows it, and in words what is the same in all rows.

    Labels that do not vary are left out, what the table is about (`main`) stands right of the first
    label; with more than two labels these stand together in a first column as well.
    """
    labels = [
        str(column)
        for column in frame
        if column not in main and not pd.api.types.is_numeric_dtype(frame[column])
    ]
    constant = []
    if len(frame) > 1:
        constant = [column for column in labels if frame[column].nunique(dropna=False) == 1]
        if len(constant) == len(labels):
            constant = constant[:-1]
    words = {column: str(frame[column].iloc[0]) for column in constant}
    same = ", ".join(
        f"{column.replace('_', ' ')} {one_line(value)}" for column, value in words.items() if value
    )
    varying = [column for column in labels if column not in constant]
    first = [column for column in main if column in frame]
    leading = [column for column in frame if column in varying][:2]
    rest = [column for column in frame if column not in (*constant, *first, *leading)]
    kept = frame[[*leading, *first, *rest]]
    together = [column for column in varying if column != "test"]
    if first and len(together) > 2 and len(frame):
        kept = frame[[*first, *leading, *rest]].copy()
        kept.insert(0, "of", frame[together].astype(str).agg(_condition, axis=1))
    return kept, same


def _condition(labels: Sequence[str]) -> str:
    """Return the labels of a row in one cell; of the untouched model without its empty ones."""
    named = [one_line(label) for label in labels if label not in ("", UNTOUCHED)]
    return ", ".join(named if UNTOUCHED not in set(labels) else [*named, "untouched"])


def _pictures(
    figures: Sequence[Mapping[str, Any]], labels: Labels, tables: Container[str]
) -> list[Picture]:
    """Return every figure once: those with a name of their own first, under that name."""
    named, others = [], []
    copied = {_key(one) for one in figures if "name" in one}
    for one in figures:
        kind, cell = one["kind"], dict(one["cell"])
        title, text = described(kind, cell, labels), caption(kind, cell, labels)
        svg, table = f"{one['stem']}.svg", NUMBERS.get(kind, kind)
        data = f"table-{table}" if table in tables else ""
        if "name" in one:
            title = f"{one['item']}. {title}" if one["item"] else title
            named.append(Picture(title, text, svg, one["name"], PAPER_FIGURES, data))
        elif _key(one) not in copied:
            anchor = re.sub(r"[^\w.-]", "-", "-".join([*folders(kind, cell), kind]))
            others.append(Picture(title, text, svg, anchor, KINDS[kind].title, data))
    order = [kind.title for kind in KINDS.values()]
    others.sort(key=lambda one: (order.index(one.group), one.path))
    return [*sorted(named, key=lambda one: one.anchor), *others]


def _key(figure: Mapping[str, Any]) -> tuple:
    return figure["kind"], tuple(sorted(figure["cell"].items()))


def _weights(neurons: Sequence[str], labels: Labels, newest: Sequence[str]) -> dict[str, str]:
    """Return the repository and commit (or digest) of each model's weights."""
    rows = {}
    for path in neurons:
        model, metadata = names_of(path, "neurons")["model"], read_parquet(path)[1]
        text = f"{_local(metadata['model'])} at {metadata['revision']}"
        if model in newest:
            text += ", the newest commit when it was prepared: pin it to repeat this run"
        rows[f"weights of {labels.models[model]}"] = text
    return rows


def _local(text: str) -> str:
    """Return a path as the project sees it: relative to it, or the last two parts of another's."""
    path = Path(str(text))
    if not path.is_absolute():
        return str(text)
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return ".../" + "/".join(path.parts[-2:]).lstrip("/")


def _corpus(labels: Labels, about: Mapping[str, Any]) -> dict[str, str]:
    results = labels.results
    return {
        "corpus": f"{_local(about['corpus'])}, up to {about['tokens']:,} tokens per language",
        "intervals": f"{results['confidence']:.0%}: Student's t over documents or items, score"
        f" intervals of 0/1 scores; {results['bootstrap']} bootstrap replicates, seed"
        f" {results['seed']}, behind standard errors of corpus scores and averages of cells",
        "tests": f"level {results['alpha']:g} after Holm; margin {results['margin']:g}",
    }
