"""Labels: what looks alike is refused before a job runs, with both keys named."""

import pytest

from langneurons.base.errors import ConfigError
from langneurons.config import build
from langneurons.reporting.families import table_families
from langneurons.reporting.kinds import KINDS

ZERO = {"operation": "set", "value": 0}


def configuration(**more):
    base = {
        "name": "x",
        "models": {"m": {"source": {"kind": "local", "path": "m"}}},
        "language_sets": {"two": ["en", "fr"]},
        "corpus": {"source": {"kind": "mini"}},
        "selections": {"lape": {"method": "lape"}, "other": {"method": "lape", "rate": 0.02}},
        "interventions": {"zero": ZERO, "mean": {"operation": "set", "value": "mean"}},
    }
    return build(base | more)


def lape(*labels):
    rates = (0.01, 0.02)
    return {
        name: {"method": "lape", "rate": rate, "label": label}
        for name, rate, label in zip(("lape", "other"), rates, labels, strict=True)
    }


@pytest.mark.parametrize(
    "labels",
    [
        ("LAPE", "LAPE"),
        ("LAPE", "lape"),  # the label of one is the name of the other
        ("other", "LAPE"),
        ("LAPE  5%", "LAPE 5%"),  # white space
        ("\ufb01ne", "fine"),  # a ligature
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),  # composed and not
        ("a\r\nb", "a b"),
    ],
)
def test_selections_that_look_alike_are_refused(labels):
    with pytest.raises(ConfigError, match=r"selections\.lape .*selections\.other .*shown alike"):
        configuration(selections=lape(*labels))


def test_labels_that_differ_are_accepted():
    assert configuration(selections=lape("LAPE", "LAPE 5%")).selections["other"].label == "LAPE 5%"
    assert configuration(selections=lape("lape", "other"))
    assert configuration(selections=lape("LAPE", "Lape"))


def test_every_kind_of_name_is_checked():
    source = {"kind": "local", "path": "m"}
    models = {"a": {"source": source, "label": "M"}, "b": {"source": source, "label": "M"}}
    with pytest.raises(ConfigError, match=r"models\.a \(label 'M'\) and models\.b \(label 'M'\)"):
        configuration(models=models)
    interventions = {
        "zero": ZERO | {"label": "mean"},
        "mean": {"operation": "set", "value": "mean"},
    }
    with pytest.raises(
        ConfigError, match=r"interventions\.zero .*interventions\.mean \(no label\)"
    ):
        configuration(interventions=interventions)
    task = {"source": {"kind": "mini", "name": "xnli"}, "languages": ["en"], "label": "NLI"}
    definition = {"definition": "config/tasks/xnli.yaml"}
    with pytest.raises(ConfigError, match=r"tasks\.xnli .*tasks\.again .*shown alike"):
        configuration(tasks={"xnli": task, "again": task | definition})


@pytest.mark.parametrize("label", ["none", " none ", "\uff4e\uff4f\uff4e\uff45"])
def test_the_word_of_the_untouched_model_is_kept_for_it(label):
    with pytest.raises(ConfigError, match=r"interventions\.zero\.label: .*untouched model"):
        configuration(interventions={"zero": ZERO | {"label": label}})
    with pytest.raises(ConfigError, match=r"language_sets\.none: .*untouched model"):
        configuration(language_sets={"none": ["en", "fr"]})


@pytest.mark.parametrize("label, message", [("a\x00b", "U[+]0000"), ("\u200b\x1b", "U[+]001B")])
def test_characters_that_no_figure_can_hold_are_refused(label, message):
    with pytest.raises(ConfigError, match=rf"selections\.lape\.label: .*{message}"):
        configuration(selections=lape(label, "b"))
    with pytest.raises(ConfigError, match=rf"title: .*{message}"):
        configuration(title=label)


def test_a_label_of_white_space_is_refused():
    with pytest.raises(ConfigError, match=r"selections\.lape\.label: .*shows nothing"):
        configuration(selections=lape(" \n", "b"))


def test_protocols_are_what_they_are_called():
    with pytest.raises(ConfigError, match=r"protocols\.paper: every point is `corrected`"):
        configuration(protocols={"paper": "corrected", "corrected": "paper"})
    with pytest.raises(ConfigError, match=r"protocols\.corrected: quantiles follow the paper"):
        configuration(
            protocols={"corrected": {"quantiles": "paper"}}, statistics={"batch_quantiles": [0.9]}
        )
    assert list(configuration(protocols={"paper": {"pooling": "paper"}}).protocols) == ["paper"]


def test_without_histograms_nothing_shows_quantiles():
    usual, none = configuration(), configuration(statistics={"histograms": []})
    assert "activations" in table_families(usual)
    assert "activations" not in table_families(none)
    cells = KINDS["activations"].cells
    assert (list(cells(usual, "m")), list(cells(none, "m"))) == ([()], [])
