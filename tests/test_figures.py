import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import Normalize, SymLogNorm

from langneurons import figures
from langneurons.neurons import NeuronTable
from langneurons.tables import by_layer

NAMES = {"en": "English", "fr": "French"}


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
    return pd.DataFrame(rows, columns=["deactivated", "evaluated", "nll_change", "p_holm"])


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
                    | {"p_holm": p}
                )
    return pd.DataFrame(rows)


def factors():
    rows = [
        (intervention, selection, 0.5, 0.4, high)
        for intervention in ("zero", "max")
        for selection, high in (("LAPE", 0.7), ("random", np.nan))
    ]
    return pd.DataFrame(rows, columns=["intervention", "selection", "lss", "low", "high"])


def activations():
    row = dict(zip(("p05", "p10", "p25", "p75", "p90", "p95"), range(-3, 3), strict=True))
    return pd.DataFrame([{"model": "m", "lang": lang, "site": "act", "mean": 0.1, **row}
                         for lang in ("en", "fr")])  # fmt: skip


def every_figure(folder):
    table, counts = neuron_table(), neuron_table().counts()
    frame = pd.DataFrame({"lang": counts.index, "selection": "LAPE", "neurons": counts.to_numpy()})
    order = table.languages
    figures.draw_neurons(frame, order, "Title", folder / "neurons")
    figures.draw_overlap(table, order, "Title", folder / "overlap")
    figures.draw_layers(table, order, "Title", folder / "layers")
    figures.draw_venn(table, [order], "Title", folder / "venn")
    panels = [("one", cells(order)), ("two", cells(order, 0.1))]
    figures.draw_perplexity(panels, order, "Title", folder / "perplexity")
    shares = pd.DataFrame([[np.nan, 0.5], [1.0, np.nan]], ["l0", "l1"], ["l0", "l1"])
    figures.draw_lss([("one", shares), ("two", 1 - shares)], "Title", folder / "lss")
    figures.draw_lss_factors(factors(), "Title", folder / "lss_factors")
    metrics = ("exact_match", "f1")
    figures.draw_tasks(task_scores(metrics), ["en", "fr"], "T", folder / "tasks", NAMES)
    figures.draw_activations(activations(), ["en", "fr"], "Title", folder / "activations", NAMES)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    every_figure(folder)
    return folder


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
    figures.draw_overlap(neuron_table(), ["l0", "l1"], "", tmp_path / "overlap")
    assert dict(matplotlib.rcParams) == before


def test_empty_selections_are_drawn(tmp_path):
    table = empty_table()
    figures.draw_overlap(table, table.languages, "Empty", tmp_path / "overlap")
    figures.draw_layers(table, table.languages, "Empty", tmp_path / "layers")
    figures.draw_venn(table, [table.languages], "Empty", tmp_path / "venn")


def test_large_matrices_are_drawn_without_numbers(tmp_path):
    table = neuron_table(n_langs=30, n_layers=80)
    figures.draw_layers(table, table.languages, "Large", tmp_path / "layers")
    figures.draw_perplexity([("", cells(table.languages))], table.languages, "", tmp_path / "p")


def test_cells_that_were_not_measured_stay_blank(tmp_path):
    some = cells(["a", "b"]).iloc[:3]
    figures.draw_perplexity([("", some)], ["a", "b"], "", tmp_path / "p")
    assert (tmp_path / "p.png").stat().st_size > 0


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="results.venn"):
        figures.draw_venn(neuron_table(), [], "", tmp_path / "venn")
    only = task_scores().query("intervention == 'none'")
    with pytest.raises(ValueError, match="no intervened"):
        figures.draw_tasks(only, ["en"], "", tmp_path / "tasks")


def test_venn_counts_by_hand():
    first, second, third = (np.array([[1, 1, 1, 0, 0]]), np.array([[1, 1, 0, 1, 0]]),
                            np.array([[1, 0, 0, 0, 0]]))  # fmt: skip
    counts = figures.venn_counts([first == 1, second == 1, third == 1])
    assert counts == {
        (1, 1, 1): 1, (1, 1, 0): 1, (1, 0, 0): 1, (0, 1, 0): 1,
        (0, 0, 1): 0, (1, 0, 1): 0, (0, 1, 1): 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (-0.001, "0.00"), (0.123, "0.12"), (-1.26, "−1.3"), (9.97, "10"),
     (0.999, "1.0"), (345.6, "346"), (3e5, "3e5"), (np.nan, ""), (np.inf, "∞")],
)  # fmt: skip
def test_short_numbers(value, text):
    assert figures._short(value) == text


def test_change_norm_is_centred_and_logarithmic_only_when_wide():
    narrow = figures.change_norm(np.array([0.1, -0.3, 0.2]))
    assert type(narrow) is Normalize and (narrow.vmin, narrow.vmax) == (-0.3, 0.3)
    wide = figures.change_norm(np.array([0.01] * 20 + [5.0, np.nan]))
    assert isinstance(wide, SymLogNorm) and wide(0.0) == pytest.approx(0.5)
    assert figures.change_norm(np.zeros(3)).vmax == 1.0


def test_ink_contrasts_with_the_cell():
    cmap, norm = figures._cmap("cividis"), Normalize(0, 1)
    assert figures._ink(cmap, norm, 0.0) == "white"
    assert figures._ink(cmap, norm, 1.0) == "black"


def _image_size(path):
    """Return width and height from a PNG's header."""
    header = path.read_bytes()[16:24]
    return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")


def test_scores_by_target_and_by_layer(tmp_path):
    rows = [
        {"metric": "accuracy", "lang": lang, "target": target, "selection": "LAPE"}
        | {"intervention": f"p.L0{layer}", "difference": value, "p_holm": 0.2}
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
    figures.draw_layer_curves(by_layer(scores, sweep), "points", "t", tmp_path / "a.svg", zero=0.0)
    first = scores[scores["intervention"] == "p.L00"]
    figures.draw_targets(first, ["vi", "en"], "t", tmp_path / "b")
    for name in ("a", "b"):
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
                rows.append(row | {"difference_high": 0.1, "baseline": 0.5})
    few = pd.DataFrame(rows[:8])
    figures.draw_tasks(few, ["en", "vi"], "few", tmp_path / "few")
    figures.draw_tasks(pd.DataFrame(rows), ["en", "vi"], "many", tmp_path / "many")
    sizes = {name: _image_size(tmp_path / f"{name}.png") for name in ("few", "many")}
    # Six adapters as rows of two matrices are no taller than two of them as rows of panels.
    assert sizes["many"][1] < 2 * sizes["few"][1]


def test_perplexity_and_cross_entropy_are_two_figures(tmp_path):
    panels = [("LAPE", cells(["en", "vi", "hi"]).assign(ppl_change=lambda one: one.nll_change * 9))]
    for value in ("nll_change", "ppl_change"):
        figures.draw_perplexity(panels, ["en", "vi", "hi"], "title", tmp_path / value, value=value)
    first, second = ((tmp_path / f"{v}.svg").read_bytes() for v in ("nll_change", "ppl_change"))
    assert first != second
