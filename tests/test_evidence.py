"""What a configuration can show at best, said before a run."""

import pytest

from langneurons.base.errors import ConfigError
from langneurons.cli import main
from langneurons.config import build
from langneurons.jobs.evidence import thin_evidence

NINE = ["en", "fr", "es", "vi", "id", "ja", "zh", "hi", "ur"]


def configuration(**more):
    base = {
        "name": "x",
        "models": {"m": {"source": {"kind": "local", "path": "m"}}},
        "language_sets": {"nine": NINE},
        "corpus": {"source": {"kind": "mini"}},
        "selections": {"lape": {"method": "lape"}},
        "interventions": {"zero": {"operation": "set", "value": 0}},
    }
    return build(base | more)


@pytest.mark.parametrize("documents, warned", [(8, True), (11, True), (12, False), (30, False)])
def test_a_matrix_of_nine_languages_needs_twelve_documents(documents, warned):
    config = configuration(perplexity={"interventions": ["zero"], "documents": documents})
    found = thin_evidence(config)
    assert len(found) == warned
    if documents == 8:
        assert found == [
            "perplexity.documents: with 8 documents no cell of 81 can reach 0.05: the smallest p is"
            " 0.0078, after Holm 0.63; use 12 documents or more."
        ]


@pytest.mark.parametrize("documents, warned", [(13, True), (14, False)])
def test_documents_that_are_read_in_looks_are_corrected_for_them(documents, warned):
    until = {"width": 0.1, "looks": 4}
    entry = {"interventions": ["zero"], "documents": documents, "until": until}
    found = thin_evidence(configuration(perplexity=entry))
    assert len(found) == warned and all("can reach 0.0125" in one for one in found)


@pytest.mark.parametrize("limit, warned", [(7, True), (8, False), (None, False), (1000, False)])
def test_items_are_counted_where_they_are_known(limit, warned):
    # Four languages under one condition each: 2 / 2^n x 4 < 0.05 from 8 items on.
    task = {"source": {"kind": "mini"}, "languages": ["en", "vi", "hi", "ur"]}
    task |= {"interventions": ["zero"], "limit": limit}
    found = thin_evidence(configuration(tasks={"xnli": task}))
    assert len(found) == warned
    if warned:
        assert found[0].startswith("tasks.xnli: with 7 items no cell of 4 can reach 0.05")
        assert found[0].endswith("use 8 items or more.")


def test_a_share_of_the_items_counts_as_such():
    task = {"source": {"kind": "mini"}, "languages": ["en", "vi"], "interventions": ["zero"]}
    # A tenth of 60 mini items: 6 of them, and 2 cells need 7.
    found = thin_evidence(configuration(tasks={"xnli": task | {"rows": [0.5, 0.6]}}))
    assert found and "with 6 items no cell of 2" in found[0]


def test_a_single_document_is_no_sample():
    with pytest.raises(ConfigError, match="documents"):
        configuration(perplexity={"interventions": ["zero"], "documents": 1})


def test_the_check_of_a_configuration_warns(capsys):
    assert main(["check", "config/config.yaml"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["check", "config/papers/rahmanisa2025_small.yaml"]) == 0
    assert "warning: tasks.xcopa: with 6 items no cell of" in capsys.readouterr().err
