"""What tables, figures and pages show of the configuration's names.

Records hold names (keys of the configuration); labels replace them when something is written.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def quoted(text: str) -> str:
    """Return text in one line in which the marks of reStructuredText stand for themselves."""
    return re.sub(r"([\\*`|_:<>\[\]])", r"\\\1", " ".join(text.split()))


@dataclass(frozen=True)
class Labels:
    """Labels and orders of one configuration, and how its results are summed up.

    `sets` maps the folder of a language set to the set's name; `tags` languages to BCP 47 tags;
    `sequence` holds the names of each section in the configuration's order; `protocols` holds each
    protocol's points, and its variant of every stage; `roles` says what claims speak of;
    `adapter_fields` the parts of each adapter; `comparisons` the two sets of each comparison;
    `until` the selection that stops the reading of text.
    """

    name: str
    title: str
    heading: str
    models: Mapping[str, str]
    sets: Mapping[str, str]
    language_sets: Mapping[str, Sequence[str]]
    language_names: Mapping[str, str]
    families: Mapping[str, str]
    tags: Mapping[str, str]
    languages: Sequence[str]
    selections: Mapping[str, str]
    interventions: Mapping[str, str]
    tasks: Mapping[str, str]
    finetunings: Mapping[str, str]
    methods: Mapping[str, str]
    prompts: Mapping[str, str]
    adapters: Mapping[str, str]
    adapter_fields: Mapping[str, Mapping[str, str | None]]
    sweeps: Mapping[str, Mapping[str, str]]
    protocols: Mapping[str, Mapping[str, str]]
    roles: Mapping[str, Any]
    results: Mapping[str, Any]
    site: str | None
    sequence: Mapping[str, Sequence[str]]
    hypotheses: Mapping[str, Mapping[str, Any]]
    comparisons: Mapping[str, Sequence[str]]
    until: str | None

    def order(self, languages: str | None = None) -> list[str]:
        """Return languages in the order of a set, or of all sets."""
        return list(self.language_sets[languages] if languages else self.languages)

    def under(self, protocol: str) -> str:
        """Return `, protocol X` where there are several, as titles say it."""
        return f", protocol {protocol}" if len(self.protocols) > 1 else ""

    @property
    def controls(self) -> dict[str, str]:
        """Random selections, each with the selection that it mirrors."""
        return {name: like for name, like in self.roles["random"].items() if like is not None}

    def of(self, section: str, name: str) -> str:
        """Return the label of a name; a name that is not of the section stands for itself."""
        return getattr(self, section).get(name, name)

    def shown(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """Return a frame with labels in place of names; `none` stays the untouched model."""
        columns = {
            column: frame[column].map(lambda name, of=section: self.of(of, name))
            for column, section in COLUMNS.items()
            if column in frame
        }
        return frame.assign(**columns)

    def listed(self, section: str) -> list[str]:
        """Return the labels of a section in the configuration's order."""
        return [self.of(section, name) for name in self.sequence[section]]


# Columns that hold names, and the section that their labels are of.
COLUMNS = {
    "model": "models",
    "languages": "sets",
    "langset": "sets",
    "selection": "selections",
    "control": "selections",
    "intervention": "interventions",
    "task": "tasks",
    "adapter": "adapters",
    "method": "methods",
    "prompt": "prompts",
}
