"""Fine-tuning: what is learnt, on which tokens, and that a kill changes nothing."""

import copy
import os
import signal

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from peft import PeftModel
from safetensors.torch import load_file

from langneurons.evaluation.classification import (
    HEAD,
    Head,
    add_head,
    class_head,
    class_logits,
    classify,
    collate,
    longest_class_row,
)
from langneurons.evaluation.definition import Task
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.reporting.tables.tasks import task_scores
from langneurons.scoring import losses
from langneurons.scoring.losses import IGNORED, token_loss
from langneurons.training.batches import Bucketed, items_of
from langneurons.training.settings import Training
from langneurons.training.trainer import Folders, head_size, last_checkpoint, train

NEURONS = {"gate": [np.array([1, 4, 9]), np.array([0, 47])]}
CLASSES = Task(
    name="nli",
    kind="classification",
    fields=("premise", "hypothesis", "label"),
    context="{premise} <eos> {hypothesis}",
    classes=("same", "other"),
    gold="label",
    words={"en": {}},
    metrics=("accuracy",),
)
ANSWERS = Task(
    name="qa",
    kind="generation",
    fields=("context", "question", "answers"),
    context="w90 {context} w91 {question} w92",
    gold="answers",
    words={"en": {}},
    metrics=("exact_match",),
)
SETTINGS = {"rank": 4, "alpha": 8.0, "learning_rate": 5e-3, "batch_size": 4, "epochs": 3}
SETTINGS |= {"log_steps": 2, "checkpoint_steps": 4, "max_length": 32}


def reader(tokenizer):
    return LanguageModel(tiny.tiny_model("llama"), tokenizer)


def nli_rows(n=24):
    generator = np.random.default_rng(0)
    rows = []
    for number in range(n):
        label = number % 2
        words = [f"w{i}" for i in generator.integers(0, 80, generator.integers(2, 7))]
        other = "w95" if label else "w94"
        rows.append({"premise": " ".join(words), "hypothesis": other, "label": label})
    return rows


def qa_rows(n=12):
    return [
        {"context": f"w{i} w{i + 1}", "question": "w80", "answers": {"text": [f"w{i}"]}}
        for i in range(n)
    ]


def fit(model, task, rows, training, neurons, folders, **options):
    """Train on the rows of a task in English."""
    items = items_of(model, task, rows, "en", training.max_length)
    return train(model, items, training, neurons, folders, head_size(task), **options)


def run(folder, work, task=CLASSES, rows=None, **changes):
    rows = rows or (nli_rows() if task is CLASSES else qa_rows())
    training = Training(**(SETTINGS | changes))
    model = LanguageModel(tiny.tiny_model("llama"), tiny.tiny_tokenizer())
    return fit(model, task, rows, training, NEURONS, Folders(folder, work))


def test_classification_is_learnt(tmp_path):
    curves = run(tmp_path / "a", tmp_path / "w", epochs=12, learning_rate=2e-2)
    assert list(curves.columns[:4]) == ["step", "epoch", "loss", "accuracy"]
    assert curves["loss"].iloc[-1] < 0.5 * curves["loss"].iloc[0]
    assert curves["accuracy"].iloc[-1] >= 0.9


def test_instructions_are_learnt(tmp_path):
    curves = run(tmp_path / "a", tmp_path / "w", ANSWERS, epochs=12, learning_rate=2e-2)
    assert curves["loss"].iloc[-1] < 0.95 * curves["loss"].iloc[0]
    assert curves["accuracy"].iloc[-1] >= 0.5  # at least that an answer ends


def test_only_adapter_and_head_are_saved_and_stock_peft_loads_them(tmp_path):
    run(tmp_path / "a", tmp_path / "w")
    state = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert all("lora_" in name or HEAD in name for name in state)
    base = tiny.tiny_model("llama")
    add_head(LanguageModel(base), 2)
    loaded = PeftModel.from_pretrained(base, tmp_path / "a")
    batch = collate(tiny.tiny_tokenizer())(
        items_of(reader(tiny.tiny_tokenizer()), CLASSES, nli_rows(), "en", 32)
    )
    logits = class_logits(
        MlpSites(loaded),
        class_head(loaded),
        batch["input_ids"],
        batch["attention_mask"],
        "last_token",
    )
    assert logits.shape == (24, 2)
    for layer, chosen in enumerate(NEURONS["gate"]):
        name = f"base_model.model.model.layers.{layer}.mlp.gate_proj.lora_B.weight"
        rows = state[name].abs().sum(dim=1).nonzero().flatten().tolist()
        assert rows == chosen.tolist()


@pytest.mark.parametrize("task", [CLASSES, ANSWERS], ids=["classes", "answers"])
@pytest.mark.parametrize("step, bucket", [(3, 0), (7, 0), (7, 2)])
def test_a_killed_run_ends_at_the_same_adapter(tmp_path, monkeypatch, task, step, bucket):
    undisturbed = run(tmp_path / "a", tmp_path / "w1", task, bucket=bucket)
    from transformers import Trainer

    original, count = Trainer.training_step, [0]

    def killed(self, *arguments, **options):
        count[0] += 1
        if count[0] == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "training_step", killed)
    before = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(143)))
    try:
        with pytest.raises(SystemExit):
            run(tmp_path / "b", tmp_path / "w2", task, bucket=bucket)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not (tmp_path / "b" / "adapter_model.safetensors").exists()
    resumed = run(tmp_path / "b", tmp_path / "w2", task, bucket=bucket)
    first = load_file(tmp_path / "a" / "adapter_model.safetensors")
    second = load_file(tmp_path / "b" / "adapter_model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    pd.testing.assert_frame_equal(resumed, undisturbed, check_exact=True)
    assert count[0] > step


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    for step, names in ((2, ["trainer_state.json"]), (10, ["trainer_state.json"]), (12, [])):
        (tmp_path / f"checkpoint-{step}").mkdir()
        for name in names:
            (tmp_path / f"checkpoint-{step}" / name).touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path / "nothing") is None


def test_the_loss_is_on_the_answer_only():
    tokenizer = tiny.tiny_tokenizer()
    (item,) = items_of(reader(tokenizer), ANSWERS, qa_rows(1), "en", 32)
    kept = [i for i in item["labels"] if i != IGNORED]
    assert kept == [*tokenizer("w0", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert item["input_ids"][-len(kept) :] == kept


def test_pairs_are_joined_by_the_tokenizers_eos():
    tokenizer = tiny.tiny_tokenizer()
    (item,) = items_of(reader(tokenizer), CLASSES, nli_rows(1), "en", 32)
    assert tokenizer.eos_token_id in item["input_ids"]


def test_long_rows_are_left_out_with_a_count(caplog):
    caplog.set_level("INFO")
    rows = [*nli_rows(4), {"premise": "w1 " * 40, "hypothesis": "w2", "label": 0}]
    assert len(items_of(reader(tiny.tiny_tokenizer()), CLASSES, rows, "en", 32)) == 4
    assert "nli en: 1 of 5 items exceed 31 tokens and are left out" in caplog.text
    with pytest.raises(ValueError, match=NONE_FITS):
        items_of(reader(tiny.tiny_tokenizer()), CLASSES, rows[-1:] * 2, "en", 32)


# BOS, 40 words, EOS of the template and one word; a row of 43 tokens.
NONE_FITS = (
    "task nli, en: none of 2 items fits 31 tokens; they have 43 to 43, the longest is 00000."
    " Change `training.max_length`"
)


@pytest.mark.parametrize("pooling", ("last_token", "last_position"))
def test_items_that_no_head_reads_are_counted_in_records_and_table(pooling):
    model = LanguageModel(tiny.tiny_model("llama"), tiny.tiny_tokenizer())
    add_head(model, 2)
    long = {"premise": "w1 " * 40, "hypothesis": "w2", "label": 0}
    rows, head = [*nli_rows(4), long, *nli_rows(2), long], Head(pooling, 32)
    frame = classify(model, CLASSES, "en", rows, 400, head)
    assert len(frame) == 6 and frame["left_out"].tolist() == [2] * 6
    under = frame.assign(task="nli", lang="en", intervention="none", target="none")
    results = {"bootstrap": 100, "confidence": 0.95, "alpha": 0.05, "seed": 0}
    table = task_scores(under.assign(langset="none", selection="none"), results)
    assert table[["n", "left_out", "cut", "apart"]].to_numpy().tolist() == [[6, 2, 0, 0]]
    with pytest.raises(ValueError, match=NONE_FITS):
        classify(model, CLASSES, "en", [long, long], 400, head)
    assert longest_class_row(model, CLASSES, "en", [long], head) == 32


def test_pooling_reads_the_last_real_token_or_the_last_position():
    model, tokenizer = tiny.tiny_model("llama"), tiny.tiny_tokenizer()
    lm = LanguageModel(model, tokenizer)
    add_head(lm, 2)
    items, place = items_of(lm, CLASSES, nli_rows(6), "en", 32), (lm.sites, model.score)
    batch = collate(tokenizer)(items)
    found = class_logits(*place, batch["input_ids"], batch["attention_mask"], "last_token")
    for row, item in zip(found, items, strict=True):
        ids = torch.tensor([item["input_ids"]])
        hidden = model.model(ids).last_hidden_state[0, -1]
        torch.testing.assert_close(row, model.score(hidden), rtol=1e-4, atol=1e-5)
    padded = collate(tokenizer, 32)(items)
    assert padded["input_ids"].shape == (6, 32)
    hidden = model.model(padded["input_ids"], attention_mask=padded["attention_mask"])
    expected = model.score(hidden.last_hidden_state[:, -1])
    found = class_logits(*place, padded["input_ids"], padded["attention_mask"], "last_position")
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("pooling", ["last_token", "last_position"])
def test_scores_do_not_depend_on_the_batch(tmp_path, pooling):
    model = LanguageModel(tiny.tiny_model("llama"), tiny.tiny_tokenizer())
    add_head(model, 2)
    rows, head = nli_rows(), Head(pooling, 16)
    frames = [classify(model, CLASSES, "en", rows, size, head) for size in (1, 40, 10_000)]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])
    assert frames[0]["item"].tolist() == [f"{i:05d}" for i in range(24)]
    assert set(frames[0]["prediction"]) <= {"0", "1"}
    right = frames[0]["prediction"] == frames[0]["gold"]
    assert frames[0]["accuracy"].tolist() == right.astype(float).tolist()


def test_the_base_model_does_not_change(tmp_path):
    model = tiny.tiny_model("llama")
    before = copy.deepcopy(model.state_dict())
    lm, folders = (
        LanguageModel(model, tiny.tiny_tokenizer()),
        Folders(tmp_path / "a", tmp_path / "w"),
    )
    fit(lm, CLASSES, nli_rows(), Training(**SETTINGS), NEURONS, folders)
    for name, value in model.state_dict().items():
        plain = name.replace("base_layer.", "")
        if plain in before:
            assert torch.equal(value, before[plain])


@pytest.mark.parametrize("steps, points", [(1, [1]), (2, [2]), (3, [2, 3]), (4, [2, 4])])
def test_the_last_step_is_a_point_of_the_curves(tmp_path, steps, points):
    curves = run(tmp_path / "a", tmp_path / "work", max_steps=steps)
    assert curves["step"].tolist() == points and curves["loss"].notna().all()


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path, monkeypatch):
    def diverged(*_arguments, **_options):
        return torch.tensor(float("nan"), requires_grad=True)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", diverged)
    with pytest.raises(RuntimeError, match=r"loss of step 2 is nan.*learning_rate"):
        run(tmp_path / "a", tmp_path / "work", max_steps=2)


def test_curves_and_checkpoints_must_agree():
    with pytest.raises(ValueError, match="not a multiple of log_steps"):
        Training(log_steps=3, checkpoint_steps=10)


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere", "opt"])
def test_the_loss_and_its_gradient_are_those_of_all_logits(monkeypatch, family):
    """Soft cap and scale of logits included; blocks of a few tokens, a row without labels."""
    monkeypatch.setattr(losses, "LOGITS", {"cpu": 3 * tiny.VOCAB_SIZE})
    model = tiny.tiny_model(family)
    embedding = model.get_input_embeddings().weight.requires_grad_()
    if model.get_output_embeddings().weight is embedding:
        model.lm_head.weight = torch.nn.Parameter(embedding.detach().clone(), requires_grad=False)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, tiny.VOCAB_SIZE, (3, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([9, 6, 4])[:, None]).long()
    labels = tokens.masked_fill(mask == 0, IGNORED)
    labels[0, :4], labels[2] = IGNORED, IGNORED
    logits = model(input_ids=tokens, attention_mask=mask).logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(
        logits.reshape(-1, tiny.VOCAB_SIZE), labels[:, 1:].reshape(-1), reduction="sum"
    )
    expected.backward()
    gradient, embedding.grad = embedding.grad, None
    total, right = token_loss(MlpSites(model), tokens, mask, labels)
    (2 * total).backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(embedding.grad, 2 * gradient, rtol=1e-4, atol=1e-5)
    kept = labels[:, 1:] != IGNORED
    assert int(right) == int((logits.argmax(-1) == labels[:, 1:])[kept].sum())


def test_buckets_hold_every_row_once_and_rows_of_similar_length():
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 200, 1003).tolist()
    step, pool = 8, 25
    sampler = Bucketed(lengths, step, pool, seed=3)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert list(sampler) == epochs[-1]
        assert sorted(epochs[-1]) == list(range(1003))

    def padded(order):
        steps = [order[i : i + step] for i in range(0, len(order), step)]
        return sum(len(one) * max(lengths[row] for row in one) for one in steps) / sum(lengths)

    assert epochs[0] != epochs[1]
    assert padded(generator.permutation(1003).tolist()) > 1.5
    assert max(map(padded, epochs)) < 1.05
    assert list(Bucketed(lengths, step, pool, seed=4)) != epochs[0]
    # The steps themselves come in no order of length.
    tops = [max(lengths[row] for row in epochs[0][i : i + step]) for i in range(0, 960, step)]
    assert abs(np.corrcoef(tops, np.arange(len(tops)))[0, 1]) < 0.3


def test_parts_of_a_bucketed_batch_give_the_same_adapter(tmp_path):
    whole = run(tmp_path / "a", tmp_path / "w1", ANSWERS, bucket=2)
    training = Training(**(SETTINGS | {"bucket": 2}))
    model = LanguageModel(tiny.tiny_model("llama"), tiny.tiny_tokenizer())
    folders = Folders(tmp_path / "b", tmp_path / "w2")
    halves = fit(model, ANSWERS, qa_rows(), training, NEURONS, folders, parts=2)
    np.testing.assert_allclose(halves["loss"], whole["loss"], rtol=1e-4)


def test_every_epoch_has_a_bucketed_order_of_its_own(tmp_path, monkeypatch):
    asked, original = [], Bucketed.set_epoch
    monkeypatch.setattr(
        Bucketed, "set_epoch", lambda self, epoch: (asked.append(epoch), original(self, epoch))[1]
    )
    run(tmp_path / "a", tmp_path / "w", bucket=2)
    assert sorted(set(asked)) == [0, 1, 2]
