"""The results page of a configuration: from its tables and figures to `langneurons.reporting.page`.

Captions are those of workflow/report, filled in for each figure, so that the page and Snakemake's
report say the same. Tables bring their caption and notes from their Markdown file.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from langneurons.base.io import read_parquet
from langneurons.reporting.claims import CLAIMS
from langneurons.reporting.findings import findings
from langneurons.reporting.page import Picture, Table, Verdict, write_page
from langneurons.reporting.records import names_of
from langneurons.reporting.tables.write import plain_markdown
from langneurons.runtime.record import versions

CAPTIONS = {
    "cross_entropy": "perplexity",
    "scores": "tasks",
    "lss_factors": "lss",
    "lens_change": "lens",
    "lss_layers": "lss",
    "task_layers": "targets",
}
TITLES = {
    "neurons": "Neurons per language",
    "overlap": "Shared neurons",
    "layers": "Neurons by layer",
    "venn": "Three languages at a time",
    "activations": "Activations",
    "perplexity": "Change of perplexity",
    "cross_entropy": "Change of cross-entropy",
    "lss": "Language Steering Shift",
    "lss_factors": "Language Steering Shift by intervention",
    "lss_layers": "Language Steering Shift by layer",
    "scores": "Task scores",
    "targets": "Task scores by target language",
    "task_layers": "Task scores by layer",
    "curves": "Training curves",
    "forcing": "Language forcing",
    "fallback": "Fallback order",
    "lens": "Logit lens",
    "lens_change": "Logit lens with neurons written",
}
PAPER_FIGURES = "Figures in the paper's order"
PAPER_TABLES = "Tables in the paper's order"
PACKAGES = ("langneurons", "torch", "transformers", "peft", "bitsandbytes", "snakemake")
UNTOUCHED = "none"
SUMMARIES = ("claims", "published_summary")
# The order of tables on the page, and what stands first in each.
ORDER = (
    *("perplexity_summary", "perplexity", "tasks", "lss_summary", "lss", "forcing_summary"),
    *("forcing", "fallback", "lens", "neurons", "overlap", "selections", "layers", "activations"),
)
MAIN = {
    "perplexity": ("nll_change", "low", "high", "p_holm", "documents"),
    "tasks": ("difference", "difference_low", "difference_high", "p_holm", "baseline", "mean", "n"),
    "perplexity_summary": ("mean_own", "own_low", "own_high", "mean_others"),
    "lss_summary": ("lss", "difference", "difference_low", "difference_high", "p_holm", "facts"),
    "lss": ("lss", "low", "high", "n", "margin"),
    "forcing_summary": ("success", "baseline", "difference", "low", "high", "p_holm", "n"),
    "forcing": ("success", "low", "high", "n", "intact"),
    "overlap": ("shared", "chance", "jaccard"),
    "selections": ("shared", "chance", "jaccard"),
    "neurons": ("neurons",),
}


def one_line(text: object) -> str:
    """Return a label in one line."""
    return " ".join(str(text).split())


class _Names(dict):
    """Values by key or by attribute, as Snakemake's captions ask for them."""

    __getattr__ = dict.__getitem__


def write_report(
    path: str | os.PathLike,
    tables: Sequence[str],
    figures: Sequence[str],
    neurons: Sequence[str],
    show: Mapping[str, Any],
    captions: str | os.PathLike,
) -> None:
    """Write the page; `tables` are CSV files, `figures` SVG files, `captions` a folder.

    `neurons` holds one neuron table of each model, results/{model}/neurons/...: it says which
    weights the results are of.
    """
    frames = {Path(table).stem: pd.read_csv(table, keep_default_na=False) for table in tables}
    for table in tables:  # numbers as numbers, empty cells as missing
        name = Path(table).stem
        numeric = pd.read_csv(table, dtype_backend="numpy_nullable")
        for column in numeric.select_dtypes("number"):
            frames[name][column] = numeric[column]
    agreement = frames.get("published_summary")
    pictures = _pictures(figures, show, Path(captions))
    shown = [
        _table(table, frames[Path(table).stem], path)
        for table in sorted(tables, key=_place)
        if Path(table).stem not in SUMMARIES
    ]
    write_page(
        path,
        one_line(show["title"] or show["name"]),
        _found(frames, show, pictures, shown),
        _lead(show),
        _facts(show, frames),
        _verdicts(show, frames.get("claims")),
        agreement,
        shown,
        pictures,
        {
            "configuration": show["name"],
            **_weights(neurons, show),
            **_corpus(show),
            **versions(PACKAGES),
        },
    )


def _found(
    frames: Mapping[str, pd.DataFrame],
    show: Mapping[str, Any],
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
    }
    anchors = {one.anchor for one in tables}
    result = []
    for one in findings(frames, show):
        kind, table = places[one.shown]
        found = [picture.anchor for picture in pictures if picture.group == TITLES.get(kind)]
        fallback = f"table-{table}" if f"table-{table}" in anchors else "page-claims"
        result.append((one.text, found[0] if found else fallback))
    return result


def _place(path: str) -> tuple[int, str]:
    """Return where a table stands: those like printed ones, then by what matters."""
    stem = Path(path).stem
    order = ORDER.index(stem) if stem in ORDER else len(ORDER)
    return (-1 if _printed(path) else order, stem)


def _lead(show: Mapping[str, Any]) -> list[str]:
    about = show["about"]
    models = ", ".join(show["models"].values())
    langs = ", ".join(show["language_names"].values())
    text = (
        f"Language-specific neurons of {models} in {len(show['language_names'])} languages"
        f" ({langs}). Activations were measured on up to {about['tokens']:,} tokens per language of"
        f" {_local(about['corpus'])}; selections: {', '.join(show['selections'].values())}."
    )
    lines = [text]
    if len(show["protocols"]) > 1 or "corrected" not in show["protocols"]:
        lines.append(
            f'Protocols: {", ".join(show["protocols"])}. "paper" repeats what the papers\' code'
            ' does, "corrected" mends it point by point (docs/deviations.md): a value is written'
            " where it was measured, quantiles are those of the whole corpus, a head reads the last"
            " real token, answers are compared as words, training and test rows are apart, and"
            " perplexity with and without an intervention is that of the same text."
        )
    for printed, model in show["results"]["stand_ins"].items():
        lines.append(
            f"{show['models'][model]} stands in for {printed}: agreement with the printed numbers"
            " shows that the machinery works and says nothing about the paper."
        )
    return lines


def _facts(show: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    facts = {
        "models": str(len(show["models"])),
        "languages": str(len(show["language_names"])),
        "language sets": str(len(show["language_sets"])),
        "selections": str(len(show["selections"])),
        "interventions": str(len(show["interventions"])),
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


def _verdicts(show: Mapping[str, Any], claims: pd.DataFrame | None) -> list[Verdict]:
    if claims is None:
        return []
    margin = f" Margin: {show['results']['margin']:g}."
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


def _table(path: str, frame: pd.DataFrame, page: str | os.PathLike) -> Table:
    stem = Path(path).with_suffix("")
    text = stem.with_suffix(".md").read_text(encoding="utf-8")
    parts = [part.strip() for part in text.split("\n\n") if part.strip()]
    notes = [part for part in parts if not part.startswith("|")]
    title = stem.name
    if notes and notes[0].startswith("**"):
        title, notes = plain_markdown(notes[0][2:-2]), notes[1:]
    notes = [plain_markdown(note) for note in notes]
    files = tuple(
        os.path.relpath(stem.with_suffix(f".{kind}"), Path(page).parent)
        for kind in ("csv", "md", "tex")
    )
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


def _pictures(figures: Sequence[str], show: Mapping[str, Any], captions: Path) -> list[Picture]:
    """Return every figure once: those with a name of their own first, under that name."""
    named, others, sources = [], [], set()
    for path in map(Path, figures):
        if not _parts(path, show) and path.stem in show["figures"]:
            one = show["figures"][path.stem]
            source = Path(one["source"])
            sources.add(source)
            found = _described(source, show, captions)
            title = f"{one['item']}. {found[0]}" if one["item"] else found[0]
            named.append(Picture(title, found[1], str(path), path.stem, PAPER_FIGURES))
    for path in map(Path, figures):
        if not _parts(path, show) and path.stem in show["figures"]:
            continue
        if path in sources:
            continue
        title, caption, group = _described(path, show, captions)
        anchor = "-".join(_parts(path, show)) + f"-{path.stem}"
        others.append(Picture(title, caption, str(path), re.sub(r"[^\w.-]", "-", anchor), group))
    order = list(TITLES.values())
    others.sort(key=lambda one: order.index(one.group))
    return [*sorted(named, key=lambda one: one.anchor), *others]


def _parts(path: Path, show: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the folders between figures/{name} and a figure."""
    folder = f"figures/{show['name']}/"
    above, found, below = f"/{path.as_posix()}".partition(f"/{folder}")
    if not found:
        raise ValueError(f"{path} does not lie under {folder}")
    return tuple(below.split("/")[:-1])


def _described(path: Path, show: Mapping[str, Any], captions: Path) -> tuple[str, str, str]:
    """Return title, caption and group of a figure, from where it lies."""
    kind, parts = path.stem, _parts(path, show)
    keys = {
        "activations": ("model",),
        "neurons": ("model", "label"),
        "perplexity": ("model", "protocol", "label", "intervention"),
        "cross_entropy": ("model", "protocol", "label", "intervention"),
        "lss": ("model", "protocol", "label", "intervention"),
        "lss_factors": ("model", "protocol", "label"),
        "lss_layers": ("model", "protocol", "label", "sweep"),
        "targets": ("model", "protocol", "task", "label", "intervention"),
        "task_layers": ("model", "protocol", "task", "label", "sweep"),
        "forcing": ("model", "protocol", "label", "intervention"),
        "fallback": ("model", "protocol", "label", "intervention"),
        "lens": ("model", "protocol", "label"),
        "lens_change": ("model", "protocol", "label", "intervention"),
        "scores": ("model", "protocol", "task"),
        "curves": ("model", "protocol", "finetuning"),
    }.get(kind, ("model", "label", "selection"))
    wildcards = _Names(zip(keys, parts, strict=True))
    shown = [
        show[section].get(value, value)
        for key, section in (
            ("model", "models"),
            ("label", None),
            ("selection", "selections"),
            ("intervention", "interventions"),
            ("sweep", None),
            ("task", "tasks"),
            ("finetuning", None),
            ("protocol", None),
        )
        if (value := wildcards.get(key)) is not None
        for section in [section or "names"]
    ]
    template = (captions / f"{CAPTIONS.get(kind, kind)}.rst").read_text(encoding="utf-8")
    cfg = show | {"caption": _plain(show["caption"])}
    given = _Names(wildcards=wildcards, params=_Names(cfg=cfg), config={"title": show["title"]})
    text = jinja2.Template(template, undefined=jinja2.StrictUndefined).render(snakemake=given)
    caption = " ".join(text.split())
    return f"{TITLES[kind]}: {', '.join(map(one_line, shown))}", caption, TITLES[kind]


def _plain(value: Any) -> Any:
    """Return captions' texts without the marks that keep reStructuredText from reading them."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return re.sub(r"\\(.)", r"\1", value)


def _weights(neurons: Sequence[str], show: Mapping[str, Any]) -> dict[str, str]:
    """Return the repository and commit (or digest) of each model's weights."""
    rows = {}
    for path in neurons:
        model, metadata = names_of(path, "neurons")["model"], read_parquet(path)[1]
        text = f"{_local(metadata['model'])} at {metadata['revision']}"
        if model in show["newest"]:
            text += ", the newest commit when it was prepared: pin it to repeat this run"
        rows[f"weights of {show['models'][model]}"] = text
    return rows


def _local(text: str) -> str:
    """Return a path as the project sees it: relative to it, or the last two parts of another's."""
    path = Path(str(text))
    if not path.is_absolute():
        return str(text)
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return ".../" + "/".join(path.parts[-2:]).lstrip("/")


def _corpus(show: Mapping[str, Any]) -> dict[str, str]:
    about, results = show["about"], show["results"]
    return {
        "corpus": f"{_local(about['corpus'])}, up to {about['tokens']:,} tokens per language",
        "intervals": f"{results['confidence']:.0%}: Student's t over documents or items, score"
        f" intervals of 0/1 scores; {results['bootstrap']} bootstrap replicates, seed"
        f" {results['seed']}, behind standard errors of corpus scores and averages of cells",
        "tests": f"level {results['alpha']:g} after Holm; margin {results['margin']:g}",
    }
