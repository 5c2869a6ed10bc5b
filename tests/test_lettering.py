"""Text in figures: markup stands for itself, in every script."""

import logging
import warnings
import xml.etree.ElementTree as ElementTree

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from test_figures import RESULTS, activations, cells, neuron_table, task_scores

from langneurons.reporting import lettering
from langneurons.reporting.figures import canvas
from langneurons.reporting.figures.canvas import Sheet
from langneurons.reporting.figures.neurons import draw_activations, draw_neurons, draw_venn
from langneurons.reporting.figures.perplexity import draw_perplexity
from langneurons.reporting.figures.tasks import draw_tasks
from langneurons.reporting.figures.training import draw_curves

SIGNS = [
    "$$ 10% $^ 20% $_ lr=$LR, wd=$WD",
    r"_under a\b ^c {d} _e_ %f #g &h x < y > z | `code` **bold** '" + '" ]]> <svg>',
    "\r\ntwo\r\nlines",
]


@pytest.fixture
def kept(monkeypatch):
    made = []

    def figure(*args, **kwargs):
        made.append(Sheet(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(canvas, "Sheet", figure)
    return made


def draw_all(label, folder):
    """Draw figures in which a label stands at every place: title, panel, legend, axis, name."""
    names = {"en": label, "fr": "French"}
    draw_perplexity([(label, cells(["en", "fr"]))], ["en", "fr"], label, folder / "p",
                            RESULTS, names=names)  # fmt: skip
    scores = task_scores().replace({"zero": label, "LAPE": label})
    draw_tasks(scores, ["en", "fr"], label, folder / "t", names)
    draw_activations(activations().replace({"m": label}), ["en", "fr"], label,
                             folder / "a", names)  # fmt: skip
    steps = pd.DataFrame({"step": [1, 2], "loss": [1.0, 0.5], "accuracy": [0.1, 0.9]})
    draw_curves({label: steps, "other": steps}, label, folder / "c")
    table = neuron_table()
    draw_venn(table, [table.languages], label, folder / "v", {"l0": label})
    counts = table.counts()
    frame = pd.DataFrame({"lang": counts.index, "selection": label, "neurons": counts.to_numpy()})
    draw_neurons(frame, table.languages, label, folder / "n", {"l0": label})


@pytest.mark.parametrize("label", SIGNS)
def test_signs_of_markup_stand_for_themselves(label, tmp_path, kept):
    draw_all(label, tmp_path)
    shown = " ".join(label.split())
    for figure in kept:
        texts = figure.findobj(Text)
        assert not any(text.get_parse_math() for text in texts)
        drawn = {" ".join(text.get_text().split()) for text in texts}
        assert any(shown in text for text in drawn), drawn
    for figure, other in ((kept[1], "mean"), (kept[3], "other")):
        texts = [" ".join(text.get_text().split()) for text in figure.legends[0].get_texts()]
        assert texts == [shown, other]
    for path in tmp_path.glob("*.svg"):
        ElementTree.parse(path)


SAMPLES = {
    "Noto Sans CJK SC": "中文",
    "Noto Sans CJK JP": "日本語ひらがな",
    "Noto Sans CJK KR": "한국어",
    "Noto Sans Devanagari": "हिन्दी",
    "Noto Sans Tamil": "தமிழ்",
    "Noto Sans Thai": "ภาษาไทย",
    "Noto Sans Arabic": "العربية",
    "Noto Sans Khmer": "ខ្មែរ",
    "Noto Sans Myanmar": "မြန်မာ",
    "Noto Serif Tibetan": "བོད",
    "Noto Sans Lao": "ລາວ",
    "Noto Sans Bengali": "বাংলা",
}


def test_labels_of_every_script_are_drawn_with_a_font_that_has_them(tmp_path, kept, caplog):
    found = [text for family, text in SAMPLES.items() if lettering._path(family)]
    if not found:
        pytest.skip("no Noto font is installed")
    label = " ".join(found)
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # matplotlib warns of each box that it draws
        draw_all(label, tmp_path)
    assert not caplog.records
    title = kept[0]._suptitle
    characters = [lettering._characters(family) for family in title.get_fontfamily()]
    assert all(any(ord(one) in known for known in characters) for one in "".join(found))


@pytest.mark.parametrize("family, text", SAMPLES.items())
def test_a_text_asks_for_the_fonts_of_its_scripts(family, text, monkeypatch):
    monkeypatch.setattr(lettering, "_path", lambda family: f"{family}.ttf")
    assert family in lettering.families_of(text)


def test_a_character_that_no_font_draws_is_named_in_the_log(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(lettering, "fonts_for", lambda script: ("Noto Sans Nowhere",))
    lettering._path.cache_clear()
    figure = Figure()
    figure.text(0, 0, "ok ภาษา")
    with caplog.at_level(logging.WARNING):
        lettering.letter(figure)
    (record,) = caplog.records
    assert record.getMessage() == (
        "no installed font draws 3 characters (ภ า ษ) of 'ok ภาษา': the figure shows boxes in their"
        " place; install Noto Sans Nowhere and draw it again"
    )


def test_latin_greek_and_cyrillic_need_no_other_font():
    assert lettering.families_of("Ünïcödé ελ рус ±−…")[0] == "DejaVu Sans"
    assert lettering._undrawn("Ünïcödé ελ рус ±−…", ["DejaVu Sans"]) == []


@pytest.mark.parametrize(
    "text, line", [("a\r\nb", "a b"), (" a\t b\n", "a b"), ("a\x1bb", "ab"), (3, "3")]
)
def test_a_label_is_one_line(text, line):
    assert lettering.one_line(text) == line


def test_drawing_leaves_the_settings_of_markup_alone(tmp_path):
    before = matplotlib.rcParams["text.parse_math"]
    draw_all("x", tmp_path)
    assert matplotlib.rcParams["text.parse_math"] == before
