"""Neurons trained on text, from the configuration to the evaluated model, by Snakemake."""

import pytest
from test_workflow import Checkout, save_tiny_model

from langneurons.base.io import read_parquet

ADAPTER = "more+source+lape+en-vi"
FOLDER = f"results/tiny/adapters/corrected/{ADAPTER}"
RECORDS = f"results/tiny/evaluation/corrected/{ADAPTER}/xcopa/vi.parquet"
CONFIG = {
    "name": "rows",
    "models": {
        "tiny": {"source": {"kind": "local", "path": "tiny-model"}, "dtype": "float32"},
    },
    "language_sets": {"two": ["en", "vi"]},
    "corpus": {
        "source": {"kind": "mini"},
        "tokens": 1500,
        "heldout_tokens": 400,
        "heldout_fraction": 0.05,
        "block_size": 64,
        "heldout_block_size": 64,
    },
    "statistics": {"batch_blocks": 4},
    "selections": {"lape": {"method": "lape", "rate": 0.1}},
    "interventions": {"zero": {"operation": "set", "value": 0}},
    "tasks": {
        "xcopa": {
            "source": {"kind": "mini"},
            "languages": ["vi"],
            "finetunings": ["more"],
            "interventions": ["zero"],
            "limit": 4,
        }
    },
    "finetunings": {
        "more": {
            "source": {"kind": "text"},
            "language": "vi",
            "neurons": ["source"],
            "training": {
                "parameters": "rows",
                "projections": ["gate", "up", "down"],
                "learning_rate": 1e-2,
                "max_length": 32,
                "epochs": 1,
                "log_steps": 2,
                "checkpoint_steps": 2,
            },
        }
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a checkout in which the neurons have been trained and evaluated."""
    checkout = Checkout(tmp_path_factory.mktemp("rows"))
    save_tiny_model(checkout.path / "tiny-model")
    checkout.config = CONFIG
    checkout.save()
    checkout.make("--", RECORDS)
    return checkout


def test_trained_neurons_go_through_the_rules(made):
    folder = made.path / FOLDER
    names = {path.name for path in folder.iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json", "curves.parquet"}
    assert not (made.path / "resources/training").exists()
    curves, metadata = read_parquet(folder / "curves.parquet")
    heldout = metadata["heldout"]
    assert heldout["after"]["perplexity"] < heldout["before"]["perplexity"]
    assert len(curves) and metadata["adapter"] == ADAPTER
    records, _ = read_parquet(made.path / RECORDS)
    assert set(records["intervention"]) == {"none", "zero"}
    assert records.groupby("intervention")["item"].nunique().tolist() == [4, 4]
    log = (made.path / f"logs/finetune/tiny/corrected/{ADAPTER}.log").read_text()
    assert "held-out tokens: perplexity" in log


def test_what_reruns_after_an_edit(made):
    assert made.planned("--", RECORDS) == {}
    training = dict(CONFIG["finetunings"]["more"]["training"])
    changes = [
        ({"training": training | {"learning_rate": 1e-3}}, {"finetune": 1, "evaluate_task": 1}),
        ({"source": {"kind": "text", "tokens": 900}}, {"finetune": 1, "evaluate_task": 1}),
        ({"training": training | {"report_to": "tensorboard"}}, {}),
        ({"label": "another"}, {}),
    ]
    for change, expected in changes:
        entry = CONFIG["finetunings"]["more"] | change
        made.config = CONFIG | {"finetunings": {"more": entry}}
        made.save()
        assert made.planned("--", RECORDS) == expected
    made.config = CONFIG
    made.save()
