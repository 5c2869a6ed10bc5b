"""Out of memory in the middle of a forward pass: smaller batches, the same results."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_collect import EVERYTHING, SITES, assert_same, measure, one_thread  # noqa: F401
from test_finetune import ANSWERS, CLASSES, SETTINGS, nli_rows, qa_rows
from tiny import tiny_model, tiny_tokenizer

from langneurons.activations.settings import StatisticsConfig
from langneurons.base.io import read_json, write_jsonl
from langneurons.evaluation.classification import Head, add_head, classify
from langneurons.jobs import training as cell
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.runtime.halving import Batches, TooLarge, more_parts, out_of_memory
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.generation import generate
from langneurons.scoring.likelihood import loglikelihood
from langneurons.scoring.nll import token_nll


@contextmanager
def little_memory(model, most_tokens: int, site: str = "down", layer: int = 1):
    """Let a module in the second layer fail as CUDA does on more than so many tokens."""
    failures = []

    def refuse(_module, inputs):
        tokens = inputs[0].numel() // inputs[0].shape[-1]
        if tokens > most_tokens:
            failures.append(tokens)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    handle = getattr(MlpSites(model), site)[layer].register_forward_pre_hook(refuse)
    try:
        yield failures
    finally:
        handle.remove()


def test_groups_are_halved_until_they_fit_and_each_index_comes_once():
    done, sizes = [], [5] * 7
    work = Batches([[0, 1, 2, 3, 4], [5, 6]], sizes)
    for group in work:
        with work.fitting():
            if len(group) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            done.append(list(group))
    assert done == [[0, 1], [2], [3, 4], [5, 6]]


def test_sizes_that_failed_are_not_tried_again():
    tried = []
    work = Batches([[0, 1], [2, 3], [4, 5]], [9, 9, 9, 9, 1, 1])
    for group in work:
        with work.fitting():
            tried.append(list(group))
            if len(group) == 2 and group[0] == 0:
                raise torch.OutOfMemoryError("CUDA out of memory")
    assert tried == [[0, 1], [0], [1], [2], [3], [4, 5]]


def test_other_errors_pass_and_one_row_that_does_not_fit_says_so():
    work = Batches([[0, 1]], [1, 1])
    with pytest.raises(RuntimeError, match="shape"):
        for _ in work:
            with work.fitting():
                raise RuntimeError("shape mismatch")
    work = Batches([[0, 1]], [1, 1], "prompt")
    with pytest.raises(TooLarge, match="one prompt at a time; take a GPU with more memory"):
        for _ in work:
            with work.fitting():
                raise torch.OutOfMemoryError("CUDA out of memory.\nmore")


def test_the_hosts_allocator_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(caught.value)


@pytest.mark.parametrize("site", ["act", "down"])
@pytest.mark.parametrize("most", [12, 20])
def test_statistics_are_the_same(site, most):
    settings = StatisticsConfig(
        batch_blocks=4, histograms=("gate", "product"), document_means=SITES, max_documents=4
    )
    quiet = measure(tiny_model("llama"), settings)
    model = tiny_model("llama")
    with little_memory(model, most, site) as failures:
        assert_same(measure(model, settings), quiet)
    assert len(failures) > 2


def test_quantiles_averaged_over_batches_are_not_cut():
    model = tiny_model("llama")
    with little_memory(model, 12), pytest.raises(TooLarge, match="lower statistics.batch_blocks"):
        measure(model, EVERYTHING)


def test_scores_are_the_same():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 13, 20)
    tokens = generator.integers(4, 100, (20, 12)).astype(np.int32)
    scored = np.arange(12) < lengths[:, None]
    words = [" ".join(f"w{i}" for i in generator.integers(0, 80, n)) for n in lengths]
    requests = [(text, " w1 w2") for text in words]

    def everything():
        return (
            token_nll(LanguageModel(model), tokens, lengths, scored, 100),
            np.array(loglikelihood(LanguageModel(model, tokenizer), requests, 100)),
            generate(LanguageModel(model, tokenizer), words, Decoding(5, ["w7"]), 100),
        )

    quiet = everything()
    with little_memory(model, 30) as failures:
        cut = everything()
    assert len(failures) >= 3
    for one, other in zip(quiet[:2], cut[:2], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert quiet[2] == cut[2]


@pytest.mark.parametrize("pooling", ["last_token", "last_position"])
def test_classes_are_the_same(pooling):
    model = LanguageModel(tiny_model("llama"), tiny_tokenizer())
    add_head(model, 2)
    arguments = (CLASSES, "en", nli_rows(), 200, Head(pooling, 16))
    quiet = classify(model, *arguments)
    with little_memory(model.model, 40) as failures:
        cut = classify(model, *arguments)
    assert failures and cut.equals(quiet)


def test_parts_divide_the_batch():
    assert [more_parts(12, n) for n in (1, 2, 3, 4, 6, 12)] == [2, 4, 6, 12, 12, None]
    assert [more_parts(7, n) for n in (1, 7)] == [7, None]


@pytest.mark.parametrize("task", [CLASSES, ANSWERS], ids=["classes", "answers"])
@pytest.mark.parametrize("after", [0, 2])
def test_training_goes_on_with_less(tmp_path, monkeypatch, task, after):
    """The loss is a sum over the same items: equal to rounding, not to the bit."""
    items = nli_rows() if task is CLASSES else qa_rows()
    write_jsonl(tmp_path / "rows.jsonl", items)
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "task.yaml").write_text(task.model_dump_json())
    steps = [0]

    def load(_job):
        model = tiny_model("llama")
        steps[0] = 0

        def count(_module, inputs):
            steps[0] += 1
            if failing and steps[0] > after and len(inputs[0].reshape(-1, 32)) > 2 * 16:
                failures.append(1)
                raise torch.OutOfMemoryError("CUDA out of memory.")

        MlpSites(model).act[1].register_forward_pre_hook(
            lambda module, inputs: count(module, (inputs[0][..., :32],))
        )
        identity = {"model": "tiny", "revision": "0"}
        return LanguageModel(model, tiny_tokenizer(), identity)

    monkeypatch.setattr(cell.ModelJob, "model", load)
    settings = SETTINGS | {"batch_size": 4, "epochs": 2, "checkpoint_steps": 1, "log_steps": 1}
    cfg = {"training": settings, "choice": "none", "lang": "en", "languages": []}
    found = {}
    for failing in (False, True):
        failures = []
        folder = tmp_path / str(failing)
        monkeypatch.setattr(cell, "STORE", str(tmp_path / f"store{failing}"))
        names = {"manifest": "manifest.json", "definition": "task.yaml", "rows": "rows.jsonl"}
        names["about"] = "rows.json"
        (tmp_path / "rows.json").write_text("{}")
        inputs = {key: str(tmp_path / name) for key, name in names.items()}
        curves, _ = cell.finetuning_cell(cell.ModelJob(cfg, [], {}, inputs), "none", str(folder))
        found[failing] = curves, load_file(folder / "adapter_model.safetensors")
    assert failures
    (parts,) = (tmp_path / "storeTrue").rglob("parts.json")
    assert read_json(parts)["parts"] in (2, 4)
    for key, value in found[False][1].items():
        torch.testing.assert_close(found[True][1][key], value, atol=2e-4, rtol=1e-3)
    for column in ("step", "loss", "accuracy"):
        np.testing.assert_allclose(found[False][0][column], found[True][0][column], atol=1e-4)
