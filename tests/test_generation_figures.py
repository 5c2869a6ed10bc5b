"""Figures of forcing, fallback, lens and of families: cells at their places."""

import xml.etree.ElementTree as ElementTree

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from test_figures import neuron_table

from langneurons.reporting.figures.generation import (
    draw_fallback,
    draw_forcing,
    draw_lens,
    draw_lens_change,
)
from langneurons.reporting.figures.neurons import by_family, draw_overlap


@pytest.fixture
def drawn(monkeypatch):
    """Return the figures that are saved."""
    kept = []
    plain = matplotlib.figure.Figure.savefig

    def keep(self, *arguments, **options):
        if self not in kept:
            kept.append(self)
        return plain(self, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return kept


def both(stem):
    assert ElementTree.parse(f"{stem}.svg").getroot().tag.endswith("svg")
    assert open(f"{stem}.png", "rb").read(8) == b"\x89PNG\r\n\x1a\n"


def labels(axis):
    ticks = (axis.get_yticklabels(), axis.get_xticklabels())
    return tuple([tick.get_text() for tick in side] for side in ticks)


def note(drawn):
    """Return the note of the figure, in one line."""
    return " ".join(drawn[0].get_supxlabel().split())


def test_families_stay_together_in_the_order_of_their_first_language():
    families = {"en": "Germanic", "fr": "Romance", "de": "Germanic", "es": "Romance", "xx": ""}
    langs, borders = by_family(["fr", "en", "xx", "es", "de"], families)
    assert langs == ["fr", "es", "en", "de", "xx"]
    assert borders == [2, 4]
    assert by_family(["en"], families) == (["en"], [])


def test_overlap_by_family(tmp_path, drawn):
    table = neuron_table(n_langs=4)
    families = {"l0": "A", "l1": "B", "l2": "A", "l3": "B"}
    order = ["l0", "l1", "l2", "l3"]
    draw_overlap(table, order, "t", tmp_path / "plain")
    draw_overlap(table, order, "t", tmp_path / "grouped", families)
    both(tmp_path / "grouped")
    before, after = (figure.axes[0] for figure in drawn)
    assert labels(before)[0] == order and labels(after)[0] == ["l0", "l2", "l1", "l3"]
    shared = table.overlap().loc[["l0", "l2", "l1", "l3"], ["l0", "l2", "l1", "l3"]]
    np.testing.assert_array_equal(after.images[0].get_array(), shared)
    assert len(before.lines) == 0 and len(after.lines) == 2


def test_forcing_is_source_by_target(tmp_path, drawn):
    rows = [
        {"source": s, "target": t, "success": v, "intact": v / 2, "baseline": 0.1, "n": 6}
        for (s, t), v in {
            ("fr", "en"): 0.25,
            ("fr", "fr"): 1.0,
            ("en", "en"): 0.75,
            ("en", "fr"): 0.5,
        }.items()
    ]
    draw_forcing([("LAPE", pd.DataFrame(rows))], ["fr", "en"], "t", tmp_path / "f")
    both(tmp_path / "f")
    first, second, third = drawn[0].axes[:3]
    assert labels(first) == (["fr", "en"], ["fr", "en"])
    assert "n = 6 questions per cell" in note(drawn)
    np.testing.assert_allclose(first.images[0].get_array(), [[100, 25], [50, 75]])
    np.testing.assert_allclose(second.images[0].get_array(), [[50, 12.5], [25, 37.5]])
    np.testing.assert_allclose(third.images[0].get_array(), 10.0)


def test_fallback_sums_up_rare_languages(tmp_path, drawn):
    shares = {"en": (0.9, 0.2), "fr": (0.05, 0.5), "xx": (0.05, 0.0), "yy": (0.0, 0.3)}
    rows = [
        {
            "step": k,
            "added": ("none", "en")[k],
            "language": lang,
            "share": s[k],
            "degenerate": 0.5,
            "n": 9,
        }
        for lang, s in shares.items()
        for k in (0, 1)
    ]
    frame = pd.DataFrame(rows)
    names = {"en": "English"}
    draw_fallback([("LAPE", frame)], ["fr", "en"], "t", tmp_path / "f", names, 3)
    both(tmp_path / "f")
    axis = drawn[0].axes[0]
    steps, langs = labels(axis)
    assert "n = 9 answers per row" in note(drawn)
    assert steps == ["untouched", "+ English (en)"]
    assert langs == ["fr", "English (en)", "yy", "rest", "degenerate"]
    expected = [[5, 90, 0, 5, 50], [50, 20, 30, 0, 50]]
    np.testing.assert_allclose(axis.images[0].get_array(), expected, atol=1e-9)


def lens_rows():
    generator = np.random.default_rng(0)
    columns = ["mass_own", "mass_english", "mass_target", "mass_others", "entropy"]
    return pd.DataFrame(
        [
            {"selection": s, "intervention": i, "target": t, "lang": lang, "layer": layer}
            | {"prompts": 4}
            | dict(zip(columns, generator.random(5), strict=True))
            for s, i, t in (("none", "none", "none"), ("LAPE", "x", "fr"), ("LAPE", "x", "hi"))
            for lang in ("en", "fr", "hi")
            for layer in range(3)
        ]
    )


def test_lens_has_a_panel_per_prompt_language(tmp_path, drawn):
    frame = lens_rows()
    draw_lens(frame, ["hi", "en", "fr"], "t", tmp_path / "f", {"hi": "Hindi"})
    both(tmp_path / "f")
    panels = drawn[0].axes[:3]
    assert [axis.get_title() for axis in panels] == ["Hindi (hi)", "en", "fr"]
    assert "Means over n = 4 prompts per language" in note(drawn)
    own = frame[(frame["target"] == "none") & (frame["lang"] == "hi")]["mass_own"]
    np.testing.assert_allclose(panels[0].lines[0].get_ydata(), own)


def test_lens_change_averages_over_the_other_languages(tmp_path, drawn):
    frame = lens_rows()
    draw_lens_change(frame, ["hi", "en", "fr"], "t", tmp_path / "f")
    both(tmp_path / "f")
    panels = drawn[0].axes[:2]
    assert [axis.get_title() for axis in panels] == ["LAPE: fr", "LAPE: hi"]
    assert "other languages, n = 8 prompts" in note(drawn)
    touched = frame[(frame["target"] == "fr") & (frame["lang"] != "fr")]
    plain = frame[(frame["target"] == "none") & (frame["lang"] != "fr")]
    solid, dashed = panels[0].lines[:2]
    np.testing.assert_allclose(solid.get_ydata(), touched.groupby("layer")["mass_own"].mean())
    np.testing.assert_allclose(dashed.get_ydata(), plain.groupby("layer")["mass_own"].mean())
