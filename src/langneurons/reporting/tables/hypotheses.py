"""The table of hypotheses: what was claimed, what was measured, the verdict."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langneurons.base.digests import digest
from langneurons.reporting.hypotheses import OF, Evidence, judged
from langneurons.reporting.labels import Labels
from langneurons.reporting.records import Names, neuron_tables, stability_records
from langneurons.reporting.tables.trials import trials_of
from langneurons.reporting.tables.write import write_table

# Where the labels of what a hypothesis names stand.
SECTIONS = {"method": "methods", "over": "methods", "selection": "selections"}


def tabulate_hypotheses(
    labels: Labels,
    folder: Path,
    neurons: list[str],
    trials: list[str] | None = None,
    stability: list[str] | None = None,
) -> None:
    """Write the table of hypotheses."""
    evidence = Evidence(
        {_place(names, "method"): trial for names, trial in trials_of(trials or [], labels)},
        {_place(names, "selection"): table for names, table in neuron_tables(neurons, labels)},
        labels.results,
        {
            _place(names, "selection"): (frame, metadata)
            for names, frame, metadata in stability_records(stability or [], labels)
        },
    )
    folders = {name: place for place, name in labels.sets.items()}
    own = {name: labels.hypotheses[name] for name in labels.sequence["hypotheses"]}
    frame = judged(own, evidence, folders)
    if len(frame):
        frame["about"] = [_about(labels, own[name]) for name in frame["hypothesis"]]
    alpha = labels.results["alpha"]
    notes = (
        "value: the measure of the method or selection `about`, with its interval; p: against the"
        " threshold; p_holm: corrected over the rows; units: target languages, which are drawn"
        " again with their documents, of jaccard with draws of slices. detectable: the smallest"
        " distance from the threshold that a test finds in four of five samples.",
        f"supported: on the side that is claimed, p_holm below {alpha:g}; refuted: on the other"
        " side; undecided: else.",
        f"Digest of the hypotheses: {hypotheses_digest(labels)}.",
    )
    write_table(labels.shown(frame), folder / "hypotheses", "Hypotheses", notes)


def _about(labels: Labels, entry: Mapping[str, Any]) -> str:
    """Return what a hypothesis is about, by labels."""
    given = [(SECTIONS.get(key), entry[key]) for key in OF if entry[key] is not None]
    return " / ".join(labels.of(section, name) if section else name for section, name in given)


def _place(names: Names, key: str) -> tuple[str, str, str]:
    return names["model"], names["languages"], names[key]


def hypotheses_digest(labels: Labels) -> str:
    """Return a digest of the hypotheses of a configuration, written down before the run."""
    return digest(dict(labels.hypotheses), 16)
