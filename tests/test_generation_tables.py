"""Tables of forcing, fallback and lens against counts by hand."""

import math

import pandas as pd
import pytest

from langneurons.reporting.tables.generation import (
    fallback_shares,
    forcing_pairs,
    forcing_summary,
    lens_layers,
)
from langneurons.reporting.uncertainty import mcnemar, wilson

RESULTS = {"bootstrap": 200, "confidence": 0.95, "alpha": 0.05, "seed": 0}


def records(answers, loops=()):
    """Return records of {(source, target): identified languages}; loops are (pair, id)."""
    rows = [
        {
            "source": source,
            "target": target,
            "id": f"q{number}",
            "identified": lang,
            "degenerate": ((source, target), number) in loops,
            "tokens": 10 + number,
            "cut": 5 * (number == 1),
        }
        for (source, target), langs in answers.items()
        for number, lang in enumerate(langs)
    ]
    return pd.DataFrame(rows)


ANSWERS = {
    ("aa", "none"): ["aa", "aa", "aa", "bb"],
    ("bb", "none"): ["bb", "bb", "und", "bb"],
    ("aa", "aa"): ["aa", "aa", "aa", "aa"],
    ("aa", "bb"): ["bb", "bb", "aa", "bb"],
    ("bb", "aa"): ["aa", "bb", "cc", "und"],
    ("bb", "bb"): ["bb", "bb", "bb", "bb"],
}
LOOPS = [(("aa", "bb"), 0), (("aa", "bb"), 2), (("aa", "none"), 3)]


def test_success_of_pairs_with_and_without_loops():
    pairs = forcing_pairs(records(ANSWERS, LOOPS), RESULTS).set_index(["source", "target"])
    assert len(pairs) == 4
    one = pairs.loc[("aa", "bb")]
    assert one["n"] == 4 and one["success"] == 0.75 and one["degenerate"] == 0.5
    assert one["cut"] == 1
    assert one["intact"] == 0.5 and one["baseline"] == 0.25 and one["tokens"] == 11.5
    assert (one["low"], one["high"]) == pytest.approx(wilson(3, 4, 0.95))
    assert (one["intact_low"], one["intact_high"]) == pytest.approx(wilson(2, 4, 0.95))
    assert pairs.loc[("bb", "aa"), "success"] == 0.25
    assert pairs.loc[("bb", "aa"), "baseline"] == 0.0
    assert pairs.loc[("bb", "bb"), "baseline"] == 0.75


def test_summary_against_the_untouched_model():
    table = forcing_summary(records(ANSWERS, LOOPS), RESULTS).set_index("target")
    assert list(table.index) == ["all others", "itself", "aa", "bb"]
    everything = table.loc["all others"]
    assert everything["n"] == 8 and everything["success"] == 0.5
    assert everything["intact"] == 3 / 8 and everything["baseline"] == 1 / 8
    assert everything["baseline_intact"] == 0.0
    assert everything["difference"] == pytest.approx(3 / 8)
    assert everything["low"] < 3 / 8 < everything["high"]
    assert table.loc["bb", "p"] == pytest.approx(mcnemar(0, 2))
    assert table.loc["itself", "success"] == 1.0 and table.loc["itself", "baseline"] == 0.75
    assert (table["p_holm"] >= table["p"]).all()
    assert table.loc["bb", "p_least"] == 4 * 2.0**-3  # 4 questions, 4 rows
    assert table.loc["bb", "low"] <= 0.0 < table.loc["bb", "difference"]


def test_what_cannot_be_compared_is_refused():
    without = {pair: langs for pair, langs in ANSWERS.items() if pair != ("aa", "none")}
    with pytest.raises(ValueError, match="no untouched answer.*aa"):
        forcing_pairs(records(without), RESULTS)
    doubled = pd.concat([records(ANSWERS), records({("aa", "bb"): ["aa"]})])
    with pytest.raises(ValueError, match="twice"):
        forcing_pairs(doubled, RESULTS)


def test_fallback_shares_sum_to_one():
    frame = pd.DataFrame(
        {
            "step": [0, 0, 0, 0, 1, 1, 1, 1],
            "added": ["none"] * 4 + ["en"] * 4,
            "deactivated": ["none"] * 4 + ["en"] * 4,
            "neurons": [0] * 4 + [7] * 4,
            "identified": ["en"] * 4 + ["en", "de", "de", "und"],
            "degenerate": [False] * 4 + [False, False, True, True],
            "cut": [0] * 7 + [3],
        }
    )
    table = fallback_shares(frame, RESULTS)
    assert table.groupby("step")["share"].sum().tolist() == [1.0, 1.0]
    german = table[(table["step"] == 1) & (table["language"] == "de")].iloc[0]
    assert german["share"] == 0.5 and german["intact"] == 0.25 and german["degenerate"] == 0.5
    assert german["cut"] == 1
    assert (german["low"], german["high"]) == pytest.approx(wilson(2, 4, 0.95))
    assert german["neurons"] == 7


def test_lens_masses_sum_to_one_and_name_what_they_are():
    masses = {"de": 0.2, "en": 0.1, "fr": 0.3, "it": 0.05}
    rows = [
        {
            "selection": "s",
            "intervention": "i",
            "target": target,
            "lang": "de",
            "layer": 0,
            "id": identifier,
            "language": language,
            "mass": mass * factor,
            "rank": place + shift,
            "entropy": entropy,
        }
        for target in ("none", "fr")
        for identifier, factor, shift, entropy in (("a", 1.0, 1, 2.0), ("b", 0.5, 3, 4.0))
        for place, (language, mass) in enumerate(masses.items())
    ]
    table = lens_layers(pd.DataFrame(rows)).set_index("target")
    one = table.loc["fr"]
    assert one["mass_own"] == pytest.approx(0.15) and one["mass_english"] == pytest.approx(0.075)
    assert one["mass_target"] == pytest.approx(0.225)
    assert one["mass_others"] == pytest.approx(0.0375)
    columns = ["mass_own", "mass_english", "mass_target", "mass_others", "mass_shared"]
    assert one[columns].sum() == pytest.approx(1.0)
    assert one["rank_own"] == 2.0 and one["rank_english"] == 3.0 and one["rank_target"] == 4.0
    assert one["entropy"] == 3.0 and one["prompts"] == 2
    plain = table.loc["none"]
    assert math.isnan(plain["mass_target"])
    assert plain["mass_others"] == pytest.approx(0.2625)


def test_english_prompts_count_their_own_once():
    rows = [
        {
            "selection": "none",
            "intervention": "none",
            "target": "none",
            "lang": "en",
            "layer": 3,
            "id": "a",
            "language": language,
            "mass": mass,
            "rank": 1,
            "entropy": 1.0,
        }
        for language, mass in (("en", 0.5), ("fr", 0.25))
    ]
    (one,) = lens_layers(pd.DataFrame(rows)).to_dict("records")
    assert one["mass_own"] == one["mass_english"] == 0.5
    assert one["mass_others"] == 0.25 and one["mass_shared"] == 0.25
