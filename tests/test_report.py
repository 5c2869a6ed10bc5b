"""What the results page says: weights, captions, paths."""

import re
from pathlib import Path

import jinja2
import pandas as pd
import pytest
from docutils.core import publish_doctree

from langneurons.config import build
from langneurons.jobs.parameters import quoted, stage
from langneurons.reporting.report import _local, _Names, _parts, _weights
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
    show = {"models": {"pinned": "P", "moving": "M"}, "newest": ["moving"]}
    rows = _weights(paths, show)
    assert rows["weights of P"] == f"owner/pinned at {COMMIT}"
    assert rows["weights of M"].startswith(f"owner/moving at {COMMIT}, the newest commit")


CAPTIONS = Path(__file__).parent.parent / "workflow/report"
SIGNS = "$$ 10% _x_ `a` |b| *c* <d> # e:: [1]_"


def everything(paper):
    """Return a configuration in which every kind of figure has a caption to fill."""
    mini = {"kind": "mini"}
    step = {"operation": "set", "value": 0, "label": f"zero {SIGNS}"}
    return build(
        {
            "name": "x",
            "title": f"Title {SIGNS}",
            "models": {"m_": {"source": {"kind": "local", "path": "m"}, "label": f"M {SIGNS}"}},
            "language_sets": {"two_": ["en", "vi"]},
            "corpus": {"source": mini},
            "selections": {"s_": {"method": "lape", "label": f"S {SIGNS}"}},
            "interventions": {"z_": step},
            "perplexity": {"interventions": ["z_"]},
            "tasks": {
                "xnli": {"source": mini, "languages": ["en"], "interventions": ["z_"]}
                | {"label": f"X {SIGNS}"}
            },
            "results": {"paper": paper},
        }
    )


@pytest.mark.parametrize("paper", ["", "Mondal et al. 2025", "Gurgurov et al. 2025"])
@pytest.mark.parametrize("kind", sorted(path.stem for path in CAPTIONS.glob("*.rst")))
def test_captions_fit_a_study_of_ones_own_and_show_labels_as_text(kind, paper):
    config = everything(paper)
    cfg = stage(config, "page")
    names = {"model": "m_", "protocol": "corrected", "label": "two_", "selection": "s_"}
    names |= {
        "intervention": "z_",
        "task": "xnli",
        "finetuning": "f",
        "figure": "fig_1",
        "sweep": "",
    }
    cfg["caption"]["finetunings"] = {"f": "F"}
    about = {"kind": "overlap", "item": quoted(f"Figure {SIGNS}"), "model": "M", "languages": "two"}
    about |= {"selection": "", "intervention": ""}
    given = _Names(
        wildcards=_Names(names), params=_Names(cfg=cfg, about=about), config={"title": config.title}
    )
    template = (CAPTIONS / f"{kind}.rst").read_text(encoding="utf-8")
    text = jinja2.Template(template, undefined=jinja2.StrictUndefined).render(snakemake=given)
    tree = publish_doctree(text, settings_overrides={"report_level": 2, "halt_level": 2})
    shown = tree.astext().replace("\n", " ")
    for label in re.findall(r"[A-Z]\w* \$\$", shown):
        assert f"{label}{SIGNS[2:]}" in shown
    if kind not in ("named", "venn", "curves", "workflow", "table", "page"):
        assert "M $$" in shown or kind in ("table", "page")
    if not paper:
        assert "figures 2-7" not in shown and "Mondal" not in shown and "The paper" not in shown


def test_captions_of_a_replication_name_the_paper_s_figures():
    text = (CAPTIONS / "neurons.rst").read_text(encoding="utf-8")
    cfg = stage(everything("Mondal et al. 2025"), "page")
    given = _Names(wildcards=_Names(model="m_"), params=_Names(cfg=cfg))
    assert "figures 2-7 of the paper" in jinja2.Template(text).render(snakemake=given)


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


def test_figures_are_known_by_their_folder_whatever_names_are_called():
    show = {"name": "figures", "figures": {}}
    assert _parts(Path("results/figures/figures/figures/set/neurons.svg"), show) == (
        "figures",
        "set",
    )
    assert _parts(Path("results/figures/figures/fig01.svg"), show) == ()
