import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.text import Text

from langneurons.reporting.figures import canvas
from langneurons.reporting.figures.canvas import (
    Sheet,
    change_norm,
    colour_map,
    count_ticks,
    described_scale,
    ink_on,
    luminance,
    short_number,
)
from langneurons.reporting.figures.carriers import draw_carriers
from langneurons.reporting.figures.neurons import (
    draw_activations,
    draw_layers,
    draw_neurons,
    draw_overlap,
    draw_venn,
    venn_counts,
)
from langneurons.reporting.figures.perplexity import draw_perplexity
from langneurons.reporting.figures.steering_shift import draw_lss, draw_lss_factors
from langneurons.reporting.figures.sweeps import draw_layer_curves
from langneurons.reporting.figures.tasks import draw_targets, draw_tasks
from langneurons.reporting.tables.tasks import by_layer
from langneurons.selection.table import NeuronTable

NAMES = {"en": "English", "fr": "French"}
RESULTS = {"alpha": 0.05, "confidence": 0.95}


def neuron_table(n_langs=3, n_layers=4, d_mlp=32, per=20):
    generator = np.random.default_rng(0)
    langs = [f"l{k}" for k in range(n_langs)]
    flat = [generator.choice(n_layers * d_mlp, per, replace=False) for _ in langs]
    frame = pd.concat(
        pd.DataFrame({"lang": lang, "layer": one // d_mlp, "neuron": one % d_mlp, "score": 0.0})
        for lang, one in zip(langs, flat, strict=True)
    )
    return NeuronTable(frame, {"languages": langs, "n_layers": n_layers, "d_mlp": d_mlp})


def empty_table():
    frame = pd.DataFrame({"lang": [], "layer": [], "neuron": [], "score": []})
    return NeuronTable(frame.astype({"layer": int, "neuron": int}), neuron_table().metadata)


def cells(langs, largest=3.0):
    generator = np.random.default_rng(1)
    rows = [
        (one, two, largest if one == two else generator.normal(0, 0.02), generator.random())
        for one in langs
        for two in langs
    ]
    frame = pd.DataFrame(rows, columns=["deactivated", "evaluated", "nll_change", "p_holm"])
    frame = frame.assign(low=frame["nll_change"] - 0.1, high=frame["nll_change"] + 0.2)
    return frame.assign(documents=16, p=frame["p_holm"] / len(frame), p_least=0.001)


def task_scores(metrics=("accuracy",)):
    rows = []
    for metric in metrics:
        for lang in ("en", "fr"):
            shared = {"task": "xnli", "lang": lang, "metric": metric, "baseline": 0.5}
            none = {"langset": "none", "selection": "none", "intervention": "none"}
            rows.append(shared | none | dict.fromkeys(("difference", "p_holm"), np.nan))
            for intervention, p in (("zero", 0.01), ("mean", 0.9)):
                rows.append(
                    shared
                    | {"langset": "s", "selection": "LAPE", "intervention": intervention}
                    | {"difference": -0.1, "difference_low": -0.2, "difference_high": 0.0}
                    | {"p_holm": p, "p": p / 4, "p_least": 0.01, "n": 20}
                )
    return pd.DataFrame(rows)


def factors():
    rows = [
        (intervention, selection, 0.5, 0.4, high)
        for intervention in ("zero", "max")
        for selection, high in (("LAPE", 0.7), ("random", np.nan))
    ]
    return pd.DataFrame(rows, columns=["intervention", "selection", "lss", "low", "high"]).assign(
        facts=48
    )


def activations():
    row = dict(zip(("p05", "p10", "p25", "p75", "p90", "p95"), range(-3, 3), strict=True))
    return pd.DataFrame([{"model": "m", "lang": lang, "site": "act", "mean": 0.1, **row}
                         for lang in ("en", "fr")])  # fmt: skip


@pytest.fixture
def kept(monkeypatch):
    """Return the figures that are drawn."""
    made = []

    def figure(*args, **kwargs):
        made.append(Sheet(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(canvas, "Sheet", figure)
    return made


def every_figure(folder):
    table, counts = neuron_table(), neuron_table().counts()
    frame = pd.DataFrame({"lang": counts.index, "selection": "LAPE", "neurons": counts.to_numpy()})
    order = table.languages
    draw_neurons(frame, order, "Title", folder / "neurons")
    draw_overlap(table, order, "Title", folder / "overlap")
    draw_layers(table, order, "Title", folder / "layers")
    draw_venn(table, [order], "Title", folder / "venn")
    panels = [("one", cells(order)), ("two", cells(order, 0.1))]
    draw_perplexity(panels, order, "Title", folder / "perplexity", RESULTS)
    shares = pd.DataFrame([[np.nan, 0.5], [1.0, np.nan]], ["l0", "l1"], ["l0", "l1"])
    draw_lss([("one", shares), ("two", 1 - shares)], "Title", folder / "lss")
    draw_lss_factors(factors(), "Title", folder / "lss_factors")
    metrics = ("exact_match", "f1")
    draw_tasks(task_scores(metrics), ["en", "fr"], "T", folder / "tasks", NAMES)
    draw_activations(activations(), ["en", "fr"], "Title", folder / "activations", NAMES)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    every_figure(folder)
    return folder


@pytest.mark.parametrize("n_langs", [2, 9, 21, 30])
def test_figures_fit_a_page_and_their_letters_can_be_read(tmp_path, kept, n_langs):
    if n_langs == 2:
        every_figure(tmp_path)
    table = neuron_table(n_langs=n_langs, n_layers=32)
    order = [f"l{k}" for k in range(n_langs)]
    names = dict.fromkeys(order, "Haitian Creole")
    draw_overlap(table, order, "T" * 90, tmp_path / "o", None, names)
    draw_layers(table, order, "T", tmp_path / "l", names)
    panels = [(name, cells(order)) for name in ("one", "two", "three")]
    draw_perplexity(panels, order, "T", tmp_path / "p", RESULTS, names=names)
    draw_venn(table, [order[:2] + order[:1]] * 4, "T", tmp_path / "v", names)
    for figure in kept:
        assert figure.get_figwidth() <= canvas.PAGE
        sizes = {text.get_fontsize() for text in figure.findobj(Text) if text.get_text()}
        assert min(sizes) >= 7
    for figure in kept:  # nothing is drawn beyond the sheet
        figure.draw_without_rendering()
        for axis in figure.axes:
            box = axis.get_tightbbox().transformed(figure.dpi_scale_trans.inverted())
            assert box.x0 >= -0.02 and box.x1 <= figure.get_figwidth() + 0.02


def test_marks_say_their_values_at_their_places(tmp_path, kept):
    order = ["en", "fr"]
    draw_perplexity([("one", cells(order))], order, "T", tmp_path / "p", RESULTS, names=NAMES)
    figure = kept[0]
    axis, spots = figure.axes[0], figure.spots()
    assert len(spots) == 4
    width, height = 72 * figure.get_figwidth(), 72 * figure.get_figheight()
    box = axis.get_position()
    for x, y, wide, high, text in spots:
        assert box.x0 * width - 0.5 <= x and x + wide <= box.x1 * width + 0.5
        assert (1 - box.y1) * height - 0.5 <= y and y + high <= (1 - box.y0) * height + 0.5
        assert wide == pytest.approx(box.width * width / 2)
        assert "documents" in text and "after Holm" in text
    first = cells(order).iloc[0]
    said = next(text for *_, text in spots if text.startswith("English (en) → English (en)"))
    assert f"{first.nll_change:.3f} [{first.low:.3f}, {first.high:.3f}]".replace("-", "−") in said
    svg = (tmp_path / "p.svg").read_text()
    assert svg.count("<title>") == 4 and svg.rstrip().endswith("</svg>")


def test_points_say_their_intervals(tmp_path, kept):
    draw_tasks(task_scores(), ["en", "fr"], "T", tmp_path / "t", NAMES)
    spots = kept[0].spots()
    assert len(spots) == 4
    assert spots[0][4] == "en, zero: −0.100 [−0.200, 0.000], p 0.01 after Holm, 20 items"
    assert all(wide == canvas.TARGET and high == canvas.TARGET for _, _, wide, high, _ in spots)


def test_what_a_mark_says_is_not_markup(tmp_path, kept):
    order = ["en", "fr"]
    names = {"en": "<b>&", "fr": "</title></svg>"}
    draw_perplexity([("one", cells(order))], order, "T", tmp_path / "p", RESULTS, names=names)
    root = ElementTree.fromstring((tmp_path / "p.svg").read_text())
    titles = [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 4 and any(
        text.startswith("<b>& (en) → </title></svg>") for text in titles
    )


def test_every_figure_is_written_as_svg_and_png(drawn):
    stems = {path.stem for path in drawn.iterdir()}
    assert len(stems) == 9
    for stem in stems:
        assert ElementTree.parse(drawn / f"{stem}.svg").getroot().tag.endswith("svg")
        assert (drawn / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(drawn.iterdir())) == 18


def test_equal_input_gives_equal_files(drawn, tmp_path):
    every_figure(tmp_path)
    for path in sorted(drawn.iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw_overlap(neuron_table(), ["l0", "l1"], "", tmp_path / "overlap")
    assert dict(matplotlib.rcParams) == before


def test_empty_selections_are_drawn(tmp_path):
    table = empty_table()
    draw_overlap(table, table.languages, "Empty", tmp_path / "overlap")
    draw_layers(table, table.languages, "Empty", tmp_path / "layers")
    draw_venn(table, [table.languages], "Empty", tmp_path / "venn")


def test_large_matrices_are_drawn_without_numbers(tmp_path):
    table = neuron_table(n_langs=30, n_layers=80)
    draw_layers(table, table.languages, "Large", tmp_path / "layers")
    draw_perplexity([("", cells(table.languages))], table.languages, "", tmp_path / "p", RESULTS)


def test_cells_that_were_not_measured_stay_blank(tmp_path):
    some = cells(["a", "b"]).iloc[:3]
    draw_perplexity([("", some)], ["a", "b"], "", tmp_path / "p", RESULTS)
    assert (tmp_path / "p.png").stat().st_size > 0


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="results.venn"):
        draw_venn(neuron_table(), [], "", tmp_path / "venn")
    only = task_scores().query("intervention == 'none'")
    with pytest.raises(ValueError, match="no intervened"):
        draw_tasks(only, ["en"], "", tmp_path / "tasks")


def test_venn_counts_by_hand():
    first, second, third = (np.array([[1, 1, 1, 0, 0]]), np.array([[1, 1, 0, 1, 0]]),
                            np.array([[1, 0, 0, 0, 0]]))  # fmt: skip
    counts = venn_counts([first == 1, second == 1, third == 1])
    assert counts == {
        (1, 1, 1): 1, (1, 1, 0): 1, (1, 0, 0): 1, (0, 1, 0): 1,
        (0, 0, 1): 0, (1, 0, 1): 0, (0, 1, 1): 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (-0.001, "0.00"), (0.123, "0.12"), (-1.26, "−1.3"), (9.97, "10"),
     (0.999, "1.0"), (345.6, "346"), (np.nan, ""), (np.inf, "∞"), (999.4, "999"), (999.6, "1.0k"),
     (6452, "6.5k"), (-12345, "−12k"), (3e5, "300k"), (2.1e6, "2.1M"), (4e9, "4.0G"),
     (3e14, "300T"),
     (3e17, "3e17")],
)  # fmt: skip
def test_short_numbers(value, text):
    assert short_number(value) == text


def test_change_norm_is_centred_and_logarithmic_only_for_ratios():
    narrow, extend = change_norm(np.array([0.1, -0.3, 0.2]))
    assert type(narrow) is Normalize and (narrow.vmin, narrow.vmax) == (-0.3, 0.3)
    assert extend == "neither"
    values = np.array([0.01] * 20 + [5.0, 4.0, np.nan])
    wide, extend = change_norm(values, ratios=True)
    assert isinstance(wide, SymLogNorm) and wide(0.0) == pytest.approx(0.5) and extend == "neither"
    assert change_norm(np.zeros(3))[0].vmax == 1.0
    assert change_norm(np.array([np.nan]))[0].vmax == 1.0


def test_one_huge_cell_does_not_wash_out_the_diagonal():
    langs = [f"l{k}" for k in range(9)]
    matrix = np.full((9, 9), 0.05)
    np.fill_diagonal(matrix, np.linspace(1.5, 2.5, 9))
    plain, _ = change_norm(matrix.ravel())
    assert plain.vmax == 2.5  # the diagonal is no outlier
    matrix[3, 7] = 2e6
    norm, extend = change_norm(matrix.ravel())
    assert (norm.vmin, norm.vmax, extend) == (-2.5, 2.5, "max")
    colour = colour_map("PuOr_r")(norm(2.0))
    assert luminance(colour) < 0.5 * luminance((1, 1, 1))
    assert described_scale(norm, extend) == "cells beyond ±2.5 have the colour of the end"
    matrix[3, 6] = -1e5
    assert change_norm(matrix.ravel())[1] == "both"
    assert len(langs) == len(matrix)


def test_a_logarithmic_scale_says_that_it_is_one():
    norm, extend = change_norm(np.array([5.0] * 30 + [3e3, -900, 1e3]), ratios=True)
    assert described_scale(norm, extend) == "symmetric-log scale, linear within ±1.0"
    norm, extend = change_norm(np.array([5.0] * 30 + [2e6, 900, 1e3]), ratios=True)
    assert described_scale(norm, extend) == (
        "symmetric-log scale, linear within ±0.10; cells beyond ±1.0k have the colour of the end"
    )


@pytest.mark.parametrize("name", ["cividis", "PuOr", "PuOr_r"])
def test_numbers_on_colours_have_a_contrast_of_at_least_4_5(name):
    cmap, norm = colour_map(name), Normalize(0, 1)
    for value in np.linspace(0, 1, 1001):
        ink = {"black": 0.0, "white": 1.0}[ink_on(cmap, norm, value)]
        ground = luminance(cmap(norm(value)))
        light, dark = max(ink, ground) + 0.05, min(ink, ground) + 0.05
        assert light / dark >= 4.5, (value, ground)
    grey = luminance(cmap.get_bad())
    assert (grey + 0.05) / 0.05 >= 4.5  # black on cells without a value


def test_every_text_of_a_heat_map_is_black_or_white(tmp_path, kept):
    order = ["en", "fr"]
    draw_perplexity([("one", cells(order))], order, "T", tmp_path / "p", RESULTS, names=NAMES)
    axis = kept[0].axes[0]
    assert {text.get_color() for text in axis.texts} <= {"black", "white"}
    faces = {(text.get_fontstyle(), text.get_fontweight()) for text in axis.texts}
    assert faces <= {("italic", "normal"), ("normal", "bold")}
    assert [text.get_text() for text in axis.get_xticklabels()] == ["English (en)", "French (fr)"]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["English (en)", "French (fr)"]
    note = " ".join(kept[0].get_supxlabel().split())
    assert "n = 16 documents per language" in note and "of 4 cells" in note


def test_a_figure_says_that_no_cell_can_be_significant(tmp_path, kept):
    order = [f"l{k}" for k in range(9)]
    thin = cells(order).assign(documents=8, p_least=81 * 2.0**-7)
    draw_perplexity([("LAPE", thin)], order, "T", tmp_path / "p", RESULTS)
    note = " ".join(kept[0].get_supxlabel().split())
    assert "LAPE: with 8 documents no cell of 81 can reach 0.05" in note
    assert "use 12 documents or more" in note
    items = task_scores().assign(n=3, p_least=0.5)
    draw_tasks(items, ["en", "fr"], "T", tmp_path / "t", NAMES)
    note = " ".join(kept[1].get_supxlabel().split())
    assert "n = 3 items per language" in note and "95% intervals over items" in note
    assert "accuracy: with 3 items no cell of 4 can reach 0.05" in note


@pytest.mark.parametrize(
    ("top", "ticks"), [(0, [0]), (1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2, 3]), (46, None)]
)
def test_ticks_of_counts_are_whole_and_each_stands_once(top, ticks):
    found = count_ticks(top)
    assert ticks is None or found == ticks
    assert len(set(found)) == len(found) <= 7 and all(isinstance(one, int) for one in found)


def test_colour_bars_of_few_neurons_have_whole_ticks(tmp_path, kept):
    table = neuron_table(per=2)
    draw_overlap(table, table.languages, "T", tmp_path / "overlap")
    draw_layers(table, table.languages, "T", tmp_path / "layers")
    bars = [axis for figure in kept for axis in figure.axes if axis.get_label() == "<colorbar>"]
    for axis in bars:
        if "Jaccard" in axis.get_ylabel():
            continue
        ticks = [text.get_text() for text in axis.get_yticklabels()]
        assert len(set(ticks)) == len(ticks), ticks
        assert all(tick.replace(",", "").isdigit() for tick in ticks)


def test_overlap_stands_beside_chance(tmp_path, kept):
    # Two languages with the same 4 of 8 neurons in one layer: chance is 4 x 4 / 8 = 2.
    rows = [(lang, 0, neuron) for lang in ("en", "fr") for neuron in range(4)]
    frame = pd.DataFrame(rows, columns=["lang", "layer", "neuron"]).assign(score=0.0)
    metadata = {
        "languages": ["en", "fr"],
        "n_layers": 1,
        "d_mlp": 8,
        "tokens": {"en": 900, "fr": 1000},
    }
    draw_overlap(NeuronTable(frame, metadata), ["en", "fr"], "T", tmp_path / "o", None, NAMES)
    times = kept[0].axes[2]
    assert [text.get_text() for text in times.texts] == ["", "2.0", "2.0", ""]
    note = " ".join(kept[0].get_supxlabel().split())
    assert "text of n = 900 to 1,000 tokens per language" in note
    assert "share 2.0 to 2.0, 2.0 on average" in note


def _image_size(path):
    """Return width and height from a PNG's header."""
    header = path.read_bytes()[16:24]
    return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")


def test_scores_by_target_and_by_layer(tmp_path, kept):
    rows = [
        {"metric": "accuracy", "lang": lang, "target": target, "selection": "LAPE"}
        | {"intervention": f"p.L0{layer}", "difference": value, "p_holm": 0.2}
        | {"n": 20, "p": 0.05, "p_least": 0.001}
        for layer in (0, 1)
        for lang, target, value in (
            ("en", "en", 0.1 * layer),
            ("en", "vi", -0.2),
            ("vi", "en", -0.1),
            ("vi", "vi", 0.1 * layer),
        )
    ]
    scores = pd.DataFrame(rows)
    sweep = {"p.L00": "00", "p.L01": "01"}
    curves = by_layer(scores, sweep).set_index(["curve", "layers"])["value"]  # one panel
    assert curves["the language's own", "01"] == pytest.approx(10)
    assert curves["another's", "00"] == pytest.approx(-15)
    draw_layer_curves(by_layer(scores, sweep), "variant", "t", tmp_path / "a", zero=0.0)
    first = scores[scores["intervention"] == "p.L00"]
    draw_targets(first, ["vi", "en"], "t", tmp_path / "b")
    adapters = pd.concat([first.assign(adapter=name) for name in ("x: none", "x: LAPE en")])
    draw_targets(adapters, ["vi", "en"], "t", tmp_path / "c")
    titles = [axis.get_title() for axis in kept[-1].axes if axis.get_title()]
    assert titles == ["x: none, LAPE", "x: LAPE en, LAPE"]
    for name in ("a", "b", "c"):
        assert _image_size(tmp_path / f"{name}.png")[0] > 300
        assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")


def test_many_adapters_become_a_matrix(tmp_path):
    rows = []
    for number in range(6):
        for lang in ("en", "vi"):
            for intervention in ("zero", "p90"):
                row = {"adapter": f"a{number}", "lang": lang, "intervention": intervention}
                row |= {"langset": "s", "selection": "lape", "metric": "accuracy"}
                row |= {"difference": 0.01 * number, "difference_low": 0.0, "p_holm": 0.5}
                row |= {"n": 20, "p": 0.05, "p_least": 0.001}
                rows.append(row | {"difference_high": 0.1, "baseline": 0.5})
    few = pd.DataFrame(rows[:8])
    draw_tasks(few, ["en", "vi"], "few", tmp_path / "few")
    draw_tasks(pd.DataFrame(rows), ["en", "vi"], "many", tmp_path / "many")
    sizes = {name: _image_size(tmp_path / f"{name}.png") for name in ("few", "many")}
    # Six adapters as rows of two matrices are no taller than two of them as rows of panels.
    assert sizes["many"][1] < 2 * sizes["few"][1]


def test_perplexity_and_cross_entropy_are_two_figures(tmp_path):
    panels = [("LAPE", cells(["en", "vi", "hi"]).assign(ppl_change=lambda one: one.nll_change * 9))]
    for value in ("nll_change", "ppl_change"):
        draw_perplexity(panels, ["en", "vi", "hi"], "title", tmp_path / value, RESULTS, value)
    first, second = ((tmp_path / f"{v}.svg").read_bytes() for v in ("nll_change", "ppl_change"))
    assert first != second


@pytest.mark.parametrize("n_langs, n_layers", [(2, 3), (9, 18), (21, 80)])
def test_carriers_say_median_and_extremes_of_each_layer(tmp_path, n_langs, n_layers):
    generator, langs = np.random.default_rng(0), [f"l{k}" for k in range(n_langs)]
    counts = generator.integers(1, 90, (n_langs, 2, n_layers))
    carriers = {
        lang: {"50": own[0].tolist(), "90": own[1].tolist()}
        for lang, own in zip(langs, counts, strict=True)
    }
    names = {"l0": "First"}
    draw_carriers(carriers, 90, "title", tmp_path / "a", names)
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for panel in range(2):
        own = counts[:, panel, 1]
        said = [names.get(langs[k], langs[k]) for k in (own.argmin(), own.argmax())]
        low, high = f"{own.min():,} ({said[0]})", f"{own.max():,} ({said[1]})"
        assert f"layer 1: median {np.median(own):,g}, from {low} to {high}" in svg
    assert ("Thin lines" in svg) == (n_langs * n_layers <= 400)
