"""Findings: sentences by rules, against sentences written by hand."""

import numpy as np
import pandas as pd
import pytest
from labelled import labels

from langneurons.reporting.findings import findings
from langneurons.reporting.labels import quoted
from langneurons.reporting.report import folded

SHOW = labels(
    **{
        "language_names": {"en": "English", "fr": "French", "hi": "Hindi"},
        "results": {"confidence": 0.95, "alpha": 0.05, "paper": ""},
        "roles": {"random": {"control": "lape"}},
        "selections": {"lape": "LAPE", "control": "random, same layers", "other": "Other"},
        "sequence": {"selections": ["lape", "control", "other"]},
    }
)
LABELS = {"model": "M", "protocol": "corrected", "languages": "set", "intervention": "zero"}


def matrix(selection, own, others, documents=16, significant=True):
    langs = ["en", "fr", "hi"]
    rows = [
        {"deactivated": a, "evaluated": b, "nll_change": own[k] if a == b else others}
        | {"low": 0.1, "high": 9.0, "p_holm": 0.01 if a == b and significant else 0.9}
        for k, a in enumerate(langs)
        for b in langs
    ]
    least = 9 * 2.0 ** (1 - documents)
    return pd.DataFrame(rows).assign(
        **LABELS, selection=selection, documents=documents, p_least=min(1.0, least)
    )


def effects(**more):
    parts = [matrix("LAPE", (2.0, 2.4, 2.8), 0.6, **more)]
    parts.append(matrix("random, same layers", (0.01, 0.02, 0.03), 0.0, **more))
    return pd.concat(parts, ignore_index=True)


def test_the_effect_stands_beside_others_and_control():
    first, second = findings({"perplexity": effects()}, SHOW)
    # Mean 2.4 of three languages, sd 0.4, t of 2 degrees 4.302653: 2.4 -+ 0.99.
    assert first.text == (
        "Overwriting a language's LAPE neurons (zero) costs that language 2.40 [1.41, 3.39] nats"
        " per token, the other languages 0.60; under its control (random, same layers) it is 0.02"
        " (mean and interval over 3 languages, 16 documents each); 3 of 3 own-language changes are"
        " significant."
    )
    assert first.shown == "cross_entropy"
    assert second.text.startswith(
        "Of LAPE neurons on another language, those of English do most to"
    )
    assert "0.60 nats per token [0.10, 9.00], not significant" in second.text


def test_a_finding_says_where_nothing_could_be_significant():
    (first, _) = findings({"perplexity": effects(documents=4, significant=False)}, SHOW)
    assert first.text.endswith(
        "3 languages, 4 documents each). With 4 documents no cell of 9 can be significant at 0.05."
    )


def test_models_and_protocols_are_named_where_there_are_several():
    cells = pd.concat([effects(), effects().assign(model="N")])
    texts = [one.text for one in findings({"perplexity": cells}, SHOW)]
    assert "3 languages, 16 documents each) (M);" in texts[0]
    assert any("(N)" in text for text in texts) and len(texts) <= 5


def scores(p_holm=0.9, n=20):
    rows = [
        {"lang": lang, "difference": value, "p_holm": p_holm if value == -0.1 else 0.9}
        for lang, value in (("en", -0.1), ("fr", 0.05))
    ]
    frame = pd.DataFrame(rows).assign(
        task="XNLI", metric="accuracy", model="M", protocol="corrected", selection="LAPE",
        intervention="zero", n=n, difference_low=-0.3, difference_high=0.1,
        p_least=4 * 2.0 ** (1 - n),
    )  # fmt: skip
    untouched = frame.assign(difference=np.nan, selection="none", intervention="none")
    return pd.concat([untouched, frame])


def test_tasks_name_the_largest_difference_and_how_many_are_significant():
    (one,) = findings({"tasks": scores()}, SHOW)
    assert one.text == (
        "XNLI: no condition of 2 differs significantly from the untouched model; the largest"
        " difference in accuracy is \N{MINUS SIGN}10.0 points [\N{MINUS SIGN}30.0, 10.0] (English,"
        " LAPE, zero; 20 items)."
    )
    (one,) = findings({"tasks": scores(0.001)}, SHOW)
    assert one.text.startswith("XNLI: 1 of 2 differs significantly")
    (one,) = findings({"tasks": scores(n=4)}, SHOW)
    assert one.text.endswith("4 items). With 4 items none of them could.")


def test_overlap_stands_beside_chance_and_controls_are_left_out():
    rows = [("LAPE", "en", "fr", 46, 0.5, 0.31), ("LAPE", "en", "hi", 9, 0.1, 0.3)]
    rows.append(("random, same layers", "en", "fr", 46, 0.9, 0.3))
    columns = ["selection", "lang", "other", "shared", "jaccard", "chance"]
    frame = pd.DataFrame(rows, columns=columns).assign(model="M", languages="set")
    (one,) = findings({"overlap": frame}, SHOW)
    assert one.text == (
        "English and French share the most LAPE neurons: 46, 50 % of both together; chance is 0.31."
    )


def test_claims_come_first_and_at_most_five_are_said():
    claims = pd.DataFrame({"verdict": ["holds", "holds", "undecided", "not run"]})
    tasks = pd.concat([scores().assign(task=f"T{k}") for k in range(9)])
    found = findings({"claims": claims, "perplexity": effects(), "tasks": tasks}, SHOW)
    assert len(found) == 5
    assert found[0].text == "Of 3 tests of claims of the paper, 2 hold, 1 are undecided."
    assert findings({}, SHOW) == []


# What the page shows of a table ----------------------------------------------------------------


def test_constant_labels_are_folded_and_numbers_come_first():
    cells = effects()[lambda one: one["selection"] == "LAPE"]
    kept, same = folded(cells, ("nll_change", "low", "high", "p_holm", "documents"))
    assert same == ("model M, protocol corrected, languages set, intervention zero, selection LAPE")
    assert list(kept)[:4] == ["deactivated", "evaluated", "nll_change", "low"]
    assert not set(LABELS) & set(kept)


def test_many_labels_stand_together_in_a_first_column():
    frame = scores().reset_index(drop=True)
    frame.loc[0, "task"] = "XCOPA"
    kept, same = folded(frame, ("difference", "p_holm"))
    assert list(kept)[:3] == ["of", "difference", "p_holm"]
    assert kept["of"].tolist()[1] == "fr, XNLI, untouched"
    assert "model M" in same and "metric accuracy" in same


def test_a_single_row_keeps_its_labels():
    frame = scores().iloc[:1]
    kept, same = folded(frame, ("difference",))
    assert same == "" and "model" in kept


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain", "plain"),
        ("lape_", r"lape\_"),
        ("*a* `b` |c|", r"\*a\* \`b\` \|c\|"),
        ("a\r\nb", "a b"),
        ("x::", r"x\:\:"),
        ("<a> [1]_", r"\<a\> \[1\]\_"),
    ],
)
def test_labels_in_captions_are_text(text, shown):
    assert quoted(text) == shown
    from docutils.core import publish_doctree

    tree = publish_doctree(f"Model {shown}, more.", settings_overrides={"report_level": 2})
    assert tree.astext() == f"Model {' '.join(text.split())}, more."


def test_a_table_without_rows_keeps_its_columns():
    frame = pd.DataFrame(columns=["task", "lang", "selection", "intervention", "difference"])
    kept, same = folded(frame, ("difference",))
    assert len(kept) == 0 and "difference" in kept and same == ""
