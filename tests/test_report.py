"""What the results page says: weights, captions, paths."""

import re
from importlib import import_module
from inspect import signature
from pathlib import Path

import jinja2
import pandas as pd
import pytest
from docutils.core import publish_doctree
from labelled import labels

from langneurons.base.errors import InputError
from langneurons.config import build
from langneurons.jobs.parameters import labels_of
from langneurons.reporting.drawing import draw_figures, write_caption
from langneurons.reporting.families import FAMILIES
from langneurons.reporting.figures import neurons
from langneurons.reporting.kinds import KINDS, all_figures, caption, described
from langneurons.reporting.labels import quoted
from langneurons.reporting.report import _local, _pictures, _weights
from langneurons.selection.table import NeuronTable

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_page_names_the_commit_of_every_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"lang": ["en"], "layer": [0], "neuron": [1], "score": [0.5]})
    paths = []
    for model in ("pinned", "moving"):
        metadata = {"languages": ["en"], "n_layers": 1, "d_mlp": 2}
        metadata |= {"model": f"owner/{model}", "revision": COMMIT}
        paths.append(f"results/{model}/neurons/en/lape.parquet")
        NeuronTable(frame, metadata).to_parquet(paths[-1])
    rows = _weights(paths, labels(models={"pinned": "P", "moving": "M"}), ["moving"])
    assert rows["weights of P"] == f"owner/pinned at {COMMIT}"
    assert rows["weights of M"].startswith(f"owner/moving at {COMMIT}, the newest commit")


CAPTIONS = Path(__file__).parent.parent / "workflow/report"
SIGNS = "$$ 10% _x_ `a` |b| *c* <d> # e:: [1]_ {{ f }}"


def everything(paper):
    """Return a configuration in which every kind of figure is drawn."""
    mini = {"kind": "mini"}
    step = {"operation": "set", "value": 0, "label": f"zero {SIGNS}"}
    swept = {"operation": "set", "value": 0, "sweep": [[0, 0]]}
    task = {"source": mini, "languages": ["en"], "targets": "all"}
    task |= {"interventions": ["z_", "s"], "label": f"X {SIGNS}"}
    head = {"definition": "config/tasks/xnli_head.yaml", "source": mini | {"name": "xnli"}}
    head |= {"languages": ["en"], "finetunings": ["f_"]}
    return build(
        {
            "name": "x",
            "title": f"Title {SIGNS}",
            "models": {"m_": {"source": {"kind": "local", "path": "m"}, "label": f"M {SIGNS}"}},
            "language_sets": {"wide_": ["en", "vi", "hi", "fr"], "two_": ["en", "vi", "hi"]},
            "corpus": {"source": mini},
            "statistics": {"slices": 4, "until": {"selection": "s_"}},
            "stability": {
                "selections": ["s_"],
                "budgets": [0.5, 1.0],
                "comparisons": {"c": ["two_", "wide_"]},
            },
            "selections": {
                "s_": {"method": "lape", "label": f"S {SIGNS}"},
                "w_": {"method": "write_score", "label": f"W {SIGNS}"},
                "e_": {"method": "experts", "label": f"E {SIGNS}"},
            },
            "interventions": {"z_": step, "s": swept},
            "protocols": {"corrected": {}, "paper": {"intervention_site": "paper"}},
            "perplexity": {"interventions": ["z_"]},
            "trials": {
                "methods": {"t_": {"selections": ["s_"], "interventions": ["z_"]}},
                "doses": [0.1, 0.2],
            },
            "answers": {
                "limit": 8,
                "sources": ["en"],
                "targets": ["en", "vi"],
                "methods": {"a_": {"selections": ["s_"], "interventions": ["z_"]}},
                "controls": {"draws": 2, "match": "layer"},
            },
            "lss": {"source": mini, "interventions": ["z_", "s"]},
            "tasks": {"xnli": task, "head": head},
            "finetunings": {
                "f_": {
                    "definition": "config/tasks/xnli_head.yaml",
                    "source": mini | {"name": "xnli"},
                }
                | {"neurons": ["none"], "label": f"F {SIGNS}"}
            },
            "forcing": {"interventions": ["z_"]},
            "fallback": {"interventions": ["z_"]},
            "lens": {"interventions": ["z_"], "targets": ["vi"]},
            "results": {"paper": paper, "venn": [["en", "vi", "hi"]]},
        }
    )


@pytest.mark.parametrize("paper", ["", "Mondal et al. 2025", "Gurgurov et al. 2025"])
def test_captions_fit_a_study_of_ones_own_and_show_labels_as_text(paper, tmp_path):
    config = everything(paper)
    own, drawn = labels_of(config), {one.kind: one for one in all_figures(config)}
    assert set(drawn) == set(KINDS)
    for kind, figure in drawn.items():
        write_caption(str(tmp_path / kind), caption(kind, figure.cell, own, quoted))
        written = (tmp_path / f"{kind}.rst").read_text(encoding="utf-8")
        # Snakemake's report takes the file for a template.
        text = jinja2.Template(written, undefined=jinja2.StrictUndefined).render()
        tree = publish_doctree(text, settings_overrides={"report_level": 2, "halt_level": 2})
        shown = tree.astext().replace("\n", " ")
        found = re.findall(r"[A-Z]\w* \$\$", shown)
        assert "M $$" in found, kind
        for label in found:
            assert f"{label}{SIGNS[2:]}" in shown, kind
        plain = caption(kind, figure.cell, own)
        assert f"M {SIGNS}" in plain and f"M {SIGNS}" in described(kind, figure.cell, own)
        if not paper:
            assert "figures 2-7" not in shown and "Mondal" not in shown and "The paper" not in shown


def test_captions_of_a_replication_name_the_paper_s_figures():
    labels = labels_of(everything("Mondal et al. 2025"))
    text = caption("neurons", {"model": "m_", "languages": "two_"}, labels)
    assert "figures 2-7 of the paper" in text


@pytest.mark.parametrize("kind", ["table", "page", "workflow"])
def test_other_captions_show_the_title_as_text(kind):
    config = everything("")
    cfg = {"heading": labels_of(config).heading, "labels": {"heading": labels_of(config).heading}}
    given = {"params": {"cfg": cfg}, "config": {"title": config.title}}
    template = (CAPTIONS / f"{kind}.rst").read_text(encoding="utf-8")
    text = jinja2.Template(template, undefined=jinja2.StrictUndefined).render(snakemake=given)
    tree = publish_doctree(text, settings_overrides={"report_level": 2, "halt_level": 2})
    assert "Title $$" in tree.astext()


def test_every_kind_is_drawn_by_a_function_with_the_arguments_of_a_figure():
    for kind in KINDS.values():
        function = getattr(import_module(kind.module), kind.drawn_by.partition(":")[2])
        assert list(signature(function).parameters) == ["files", "cell", "labels", "stem"]
    for family in FAMILIES.values():
        function = getattr(import_module(family.module), family.made_by.partition(":")[2])
        assert {"labels", "folder"} < set(signature(function).parameters)


def test_a_figure_that_cannot_be_drawn_is_named_and_keeps_no_other_back(tmp_path, monkeypatch):
    def draw(files, cell, labels, stem):
        Path(f"{stem}.svg").write_text("drawn")

    monkeypatch.setattr(neurons, "neurons_per_language", draw)
    labels = labels_of(everything(""))
    cell = {"model": "m_", "languages": "two_"}
    damaged = tmp_path / "results/m_/neurons/en-hi-vi/s_.parquet"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("not a table")
    lost = {"kind": "layers", "cell": cell | {"selection": "s_"}, "files": [str(damaged)]}
    given = [
        lost | {"stem": str(tmp_path / "layers")},
        {"kind": "neurons", "cell": cell, "files": [], "stem": str(tmp_path / "neurons")},
    ]
    with pytest.raises(
        InputError, match=r"(?s)1 of 2 figures.*layers\.svg: .*s_\.parquet"
    ) as raised:
        draw_figures(given, labels)
    assert "neurons.svg" not in str(raised.value)
    assert {path.name for path in tmp_path.glob("*.*")} == {"neurons.svg", "neurons.rst"}


def test_a_figure_of_ones_own_stands_under_its_name_alone():
    cell = {"model": "m_", "languages": "two_"}
    one = {"kind": "neurons", "cell": cell, "stem": "results/figures/x/m_/two_/neurons"}
    named = one | {"name": "fig1", "item": "Figure 1", "stem": "results/figures/x/fig1"}
    other = {"kind": "activations", "cell": {"model": "m_"}, "stem": "results/figures/x/m_/a"}
    pictures = _pictures([one, other, named], labels_of(everything("")), {"perplexity"})
    assert [(picture.anchor, picture.path) for picture in pictures] == [
        ("fig1", "results/figures/x/fig1.svg"),
        ("m_-activations", "results/figures/x/m_/a.svg"),
    ]
    assert pictures[0].title.startswith("Figure 1. Neurons per language: M $$")


@pytest.mark.parametrize(
    "path, shown",
    [
        ("google/gemma-3-270m", "google/gemma-3-270m"),
        ("/home/someone/models/tiny", ".../models/tiny"),
        ("models/tiny", "models/tiny"),
    ],
)
def test_no_path_of_the_machine_stands_on_the_page(path, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _local(path) == shown
    assert _local(str(tmp_path / "models/tiny")) == "models/tiny"
