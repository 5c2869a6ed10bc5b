"""What the results page says of the weights."""

import pandas as pd

from langneurons.neurons import NeuronTable
from langneurons.report import _weights

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
