"""Labels of a small configuration, for tests of tables, figures and pages."""

from typing import Any

from langneurons.reporting.labels import Labels

EMPTY: dict[str, Any] = {
    "name": "tiny",
    "title": "",
    "heading": "tiny",
    "models": {},
    "sets": {},
    "language_sets": {},
    "language_names": {},
    "families": {},
    "tags": {},
    "languages": [],
    "selections": {},
    "interventions": {},
    "tasks": {},
    "finetunings": {},
    "methods": {},
    "prompts": {},
    "adapters": {},
    "adapter_fields": {},
    "sweeps": {},
    "protocols": {},
    "roles": {"random": {}},
    "results": {},
    "site": None,
    "sequence": {},
    "hypotheses": {},
    "comparisons": {},
    "until": None,
}


def labels(**given: Any) -> Labels:
    """Return labels with what is given, and nothing else."""
    return Labels(**EMPTY | given)
