"""Language modelling on packed text: which tokens are learnt, and what becomes of perplexity."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_rows import SMALL
from test_rows import packed as four_bit
from test_workflow import save_tiny_model

from langneurons.base.io import DamagedFile, read_json, write_json
from langneurons.data.corpus import Corpus, pack_documents
from langneurons.data.settings import CorpusConfig
from langneurons.evaluation.classification import collate
from langneurons.jobs.common import ModelJob
from langneurons.jobs.evaluation import evaluation_cell
from langneurons.jobs.training import finetuning_cell
from langneurons.models.language_model import LanguageModel
from langneurons.models.load import load_tokenizer, tokenizer_hash
from langneurons.models.prepare import prepare_model
from langneurons.models.settings import ModelEntry
from langneurons.scoring.losses import IGNORED
from langneurons.selection.table import NeuronTable
from langneurons.training.neuron_weights import attach
from langneurons.training.settings import Training
from langneurons.training.text import encode_documents, encode_text, heldout_nll, repacked
from langneurons.training.trainer import Folders, train

BOS, PAD = 1, 0
TABLES = "results/m/neurons/en-vi"
NEURONS = dict.fromkeys(("gate", "up", "down"), [np.array([1, 4, 9]), np.array([0, 47])])


def folders_in(path):
    return Folders(path / "a", path / "w")


def documents(n, seed=0):
    """Return documents of different lengths in which each word is followed by the next."""
    generator = np.random.default_rng(seed)
    result = []
    for number in range(n):
        start, size = generator.integers(0, 90), generator.integers(3, 30)
        ids = [4 + int((start + i) % 96) for i in range(size)]
        result.append((f"d{number}", ids, 3 * len(ids)))
    return result


def packed(block_size, bos="block", n=20, budget=10**6, seed=0, begin=(BOS,)):
    return pack_documents(documents(n, seed), block_size, budget, bos, begin, [3], PAD)


def corpus_of(bos="block", block_size=24):
    header = {"lang": "en", "bos": bos, "corpus_hash": "x", "tokenizer_hash": "y"}
    header["bos_tokens"] = [] if bos == "none" else [BOS]
    return Corpus("en", packed(block_size, bos), packed(16, bos, 6, seed=1), header)


@pytest.mark.parametrize("bos", ["block", "document", "none"])
@pytest.mark.parametrize("block_size", [9, 16, 24, 40, 1000])
@pytest.mark.parametrize("begin", [(BOS,), (BOS, 2), (2, BOS, 2)])
def test_other_blocks_are_those_that_packing_would_have_made(bos, block_size, begin):
    of_block = begin if bos == "block" else ()
    found = repacked(packed(24, bos, begin=begin), of_block, block_size)
    expected = packed(block_size, bos, begin=begin)
    assert len(found) == len(expected.lengths)
    for (tokens, scored), row, mask, length in zip(
        found, expected.tokens, expected.scored, expected.lengths, strict=True
    ):
        assert tokens.tolist() == row[:length].tolist()
        assert scored.tolist() == mask[:length].tolist()


@pytest.mark.parametrize("bos", ["block", "document", "none"])
def test_every_token_of_the_text_is_a_label_once_and_padding_never(bos):
    corpus = corpus_of(bos)
    items = encode_text(corpus, None, 16)
    assert len({len(item["input_ids"]) for item in items}) == 2  # the last block is shorter
    batch = collate(tiny.tiny_tokenizer())(items)
    labels, real = batch["labels"], batch["attention_mask"].bool()
    assert (~real).any() and (labels[~real] == IGNORED).all()
    assert (labels[batch["input_ids"] == BOS] == IGNORED).all()
    learnt = labels[labels != IGNORED].tolist()
    joint = [] if bos == "document" else [3]
    text = [
        token
        for number, (_, ids, _) in enumerate(documents(20))
        for token in (joint if number else []) + ids
    ]
    assert learnt == text


def test_blocks_that_hold_only_their_beginning_are_refused():
    with pytest.raises(ValueError, match="training.max_length: 2 tokens hold no text: .* with 2"):
        repacked(packed(24, begin=(BOS, 2)), (BOS, 2), 2)


def test_fewer_tokens_are_the_first_blocks():
    corpus = corpus_of()
    all_items, some = encode_text(corpus, None, 24), encode_text(corpus, 60, 24)
    assert some == all_items[: len(some)]
    assert len(some) == -(-60 // 23)


def test_documents_may_be_cut_by_characters_and_their_padding_learnt(tmp_path):
    """As the code of Gurgurov et al. 2025: the loss is on the padding too, which nobody reads."""
    corpus, tokenizer, model = corpus_of(), tiny.tiny_tokenizer(), tiny.tiny_model("llama")
    size, cut = 12, 20
    items = encode_documents(corpus, tokenizer, None, cut, size, True)
    assert len(items) == len(documents(20))
    sums = []
    for item, (_, ids, _) in zip(items, documents(20), strict=True):
        text = tokenizer.decode(ids)[:cut]
        real = tokenizer(text)["input_ids"][:size]
        assert item["input_ids"] == real + [PAD] * (size - len(real)) == item["labels"]
        tokens = torch.tensor([item["input_ids"]])
        mask = torch.tensor([[1] * len(real) + [0] * (size - len(real))])
        with torch.no_grad():
            logprob = torch.log_softmax(model(tokens, attention_mask=mask).logits[0].double(), -1)
        sums += [-float(logprob[i - 1, tokens[0, i]]) for i in range(1, size)]
    assert any(item["attended"] < size for item in items)
    unpadded = encode_documents(corpus, tokenizer, None, cut, size, False)
    assert [len(item["labels"]) for item in unpadded] == [item["attended"] for item in items]
    settings = {"max_steps": 1, "batch_size": len(items), "log_steps": 1, "checkpoint_steps": 1}
    training = Training(parameters="rows", **settings)
    curves = train(LanguageModel(model, tokenizer), items, training, NEURONS, folders_in(tmp_path))
    assert curves["loss"].iloc[0] == pytest.approx(np.mean(sums), rel=1e-4)


def test_the_loss_is_the_mean_over_the_texts_tokens(tmp_path):
    corpus = corpus_of()
    items = encode_text(corpus, 40, 16)
    model = tiny.tiny_model("llama")
    sums, counts = 0.0, 0
    for item in items:
        ids = torch.tensor([item["input_ids"]])
        logprob = torch.log_softmax(model(ids).logits[0].double(), -1)
        for place, token in enumerate(item["input_ids"]):
            if place and token != BOS:
                sums, counts = sums - float(logprob[place - 1, token]), counts + 1
    training = Training(
        parameters="rows", max_steps=1, batch_size=len(items), log_steps=1, checkpoint_steps=1
    )
    lm = LanguageModel(model, tiny.tiny_tokenizer())
    curves = train(lm, items, training, NEURONS, folders_in(tmp_path))
    assert curves["loss"].iloc[0] == pytest.approx(sums / counts, rel=1e-4)


def test_heldout_nll_is_by_hand_and_for_any_batch():
    model, corpus = tiny.tiny_model("llama"), corpus_of()
    values = []
    for row, length in zip(corpus.heldout.tokens, corpus.heldout.lengths, strict=True):
        ids = torch.tensor(row[:length].astype(np.int64))[None]
        logprob = torch.log_softmax(model(ids).logits[0].double(), -1)
        values += [-float(logprob[i - 1, ids[0, i]]) for i in range(1, int(length))]
    found = [heldout_nll(LanguageModel(model), corpus, None, size) for size in (1, 40, 10_000)]
    for one in found:
        assert one["tokens"] == len(values)
        assert one["nll"] == pytest.approx(np.mean(values), rel=1e-5)
        assert one["perplexity"] == pytest.approx(np.exp(one["nll"]))
    assert heldout_nll(LanguageModel(model), corpus, 20, 64)["tokens"] == 30  # two blocks of 15


def test_measuring_leaves_four_bit_weights_fit_for_training():
    """On some CPUs bitsandbytes repacks them in the first pass of a model in eval mode."""
    model = four_bit(tiny.tiny_model("llama", **SMALL)).eval()
    found = heldout_nll(LanguageModel(model), corpus_of(), None, 64)
    assert np.isfinite(found["nll"]) and not model.model.layers[0].mlp.gate_proj.training
    attach(model, dict.fromkeys(("gate", "down"), [np.array([3]), np.array([5])]))


@pytest.mark.parametrize("parameters", ["rows", "lora"])
def test_steps_of_several_passes_are_those_of_one(tmp_path, parameters):
    """Two passes of four blocks and one of eight give the same gradient, so the same weights."""
    items = [item for item in encode_text(corpus_of(), None, 9) if len(item["input_ids"]) == 9]
    results = []
    for number, (size, passes) in enumerate(((8, 1), (4, 2))):
        training = Training(
            parameters=parameters,
            batch_size=size,
            accumulate=passes,
            max_steps=2,
            log_steps=1,
            checkpoint_steps=1,
            learning_rate=1e-2,
            clip=0.05,  # so that the size of the gradient matters
        )
        folder = tmp_path / f"a{number}"
        lm = LanguageModel(tiny.tiny_model("llama"), tiny.tiny_tokenizer())
        folders = Folders(folder, tmp_path / f"w{number}")
        curves = train(lm, items, training, {"gate": NEURONS["gate"]}, folders)
        results.append((load_file(folder / "adapter_model.safetensors"), curves))
    (one, first), (two, second) = results
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)
    for key in ("loss", "gradient_norm"):
        np.testing.assert_allclose(second[key], first[key], rtol=1e-4)


def test_a_killed_run_on_text_ends_at_the_same_bytes(tmp_path, monkeypatch):
    items = encode_text(corpus_of(), None, 16)
    training = Training(parameters="rows", epochs=2, batch_size=4, log_steps=2, checkpoint_steps=4)

    def run(name):
        lm = LanguageModel(tiny.tiny_model("llama"), tiny.tiny_tokenizer())
        folders = Folders(tmp_path / name, tmp_path / f"{name}.work")
        return train(lm, items, training, NEURONS, folders)

    undisturbed = run("a")
    from transformers import Trainer

    original, count = Trainer.training_step, [0]

    def killed(self, *arguments, **options):
        count[0] += 1
        if count[0] == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "training_step", killed)
    before = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(143)))
    try:
        with pytest.raises(SystemExit):
            run("b")
    finally:
        signal.signal(signal.SIGTERM, before)
    resumed = run("b")
    first, second = (tmp_path / name / "adapter_model.safetensors" for name in "ab")
    assert second.read_bytes() == first.read_bytes()
    pd.testing.assert_frame_equal(resumed, undisturbed, check_exact=True)


# ---- from files to files, as the rules call it


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a folder with a prepared model, a packed corpus and two neuron tables."""
    from langneurons.data.corpus import fetch_text, pack_corpus

    folder = tmp_path_factory.mktemp("project")
    save_tiny_model(folder / "tiny-model")
    entry = {"source": {"kind": "local", "path": str(folder / "tiny-model")}, "dtype": "float32"}
    model = ModelEntry.model_validate(entry)
    manifest = prepare_model(model, folder / "model")
    config = CorpusConfig(
        tokens=6000, heldout_tokens=500, heldout_fraction=0.05, block_size=64, heldout_block_size=64
    )
    tokenizer = load_tokenizer(folder / "model/manifest.json")
    fetch_text(config, "vi", folder / "vi.jsonl")
    corpus = pack_corpus(config, "vi", folder / "vi.jsonl", tokenizer, tokenizer_hash(tokenizer))
    corpus.write(folder / "vi.safetensors")
    generator = np.random.default_rng(0)
    for name in ("lape", "random"):
        rows = []
        for lang in ("en", "vi"):
            flat = np.sort(generator.choice(128, 12, replace=False))
            rows += [{"lang": lang, "layer": i // 64, "neuron": i % 64, "score": 0.0} for i in flat]
        identity = {"model": "tiny-model", "revision": manifest["revision"]}
        metadata = identity | {"languages": ["en", "vi"], "n_layers": 2, "d_mlp": 64}
        (folder / TABLES).mkdir(parents=True, exist_ok=True)
        NeuronTable(pd.DataFrame(rows), metadata).to_parquet(folder / TABLES / f"{name}.parquet")
    return folder, entry


def settings(entry, choice, languages, **training):
    made = {"parameters": "rows", "projections": ["gate", "up", "down"], "learning_rate": 1e-2}
    made |= {"max_length": 32, "epochs": 1, "log_steps": 5, "checkpoint_steps": 5}
    made = Training.model_validate(made | training).model_dump(mode="json", exclude={"report_to"})
    source = {"kind": "text", "tokens": 3000, "heldout_tokens": 300}
    return {
        "choice": choice,
        "lang": "vi",
        "languages": languages,
        "model": entry,
        "source": source,
        "training": made,
    }


CASES = {
    "source": ("source", ["vi"], "lape", {}),
    "target": ("target", ["en"], "lape", {}),
    "source_target": ("source_target", ["vi", "en"], "lape", {}),
    "random": ("source", ["vi"], "random", {}),
    "all": ("all", [], None, {}),
    "lora": ("source", ["vi"], "lape", {"parameters": "lora"}),
    "attention": ("none", [], None, {"parameters": "lora"}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_choice_of_neurons_is_trained_on_text_and_evaluated(project, monkeypatch, case):
    folder, entry = project
    monkeypatch.chdir(folder)
    choice, languages, selection, training = CASES[case]
    inputs = {"manifest": "model/manifest.json", "corpus": "vi.safetensors"}
    if selection is not None:
        inputs["neurons"] = f"{TABLES}/{selection}.parquet"
    cfg = settings(entry, choice, languages, **training)
    curves, more = finetuning_cell(ModelJob(cfg, ["code=1"], {}, inputs), "none", f"out/{case}")
    before, after = more["heldout"]["before"], more["heldout"]["after"]
    assert before["tokens"] == after["tokens"] >= 300
    assert after["perplexity"] < before["perplexity"]
    assert len(curves)
    state = load_file(f"out/{case}/adapter_model.safetensors")
    if training:
        assert all("lora_" in name for name in state)
    else:
        trained = {
            (int(name.split(".")[1]), int(neuron))
            for name, value in state.items()
            if name.startswith("down") and name.endswith("index")
            for neuron in value
        }
        expected = {(layer, neuron) for layer in (0, 1) for neuron in range(64)}
        if selection is not None:
            table = NeuronTable.from_parquet(f"{TABLES}/{selection}.parquet").frame
            own = table[table["lang"].isin(languages)]
            expected = set(zip(own["layer"].tolist(), own["neuron"].tolist(), strict=True))
        assert trained == expected
        assert read_json(f"out/{case}/adapter_config.json")["kind"] == "rows"
    frame = evaluated(folder, entry, f"out/{case}/adapter_model.safetensors", cfg)
    base = evaluated(folder, entry, None, cfg)
    assert frame["item"].tolist() == base["item"].tolist() and len(frame)


def evaluated(folder, entry, adapter, cfg):
    """Return the records of one task as the rule evaluate_task makes them."""
    from langneurons.data.mini_data import MINI

    rows = (MINI / "xcopa" / "vi.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    wildcards = {"model": "tiny", "task": "xcopa", "lang": "vi", "adapter": str(adapter)}
    definition = os.path.join(os.path.dirname(__file__), "../config/tasks/xcopa.yaml")
    cfg = {"model": entry, "conditions": [], "interventions": {}, "training": cfg["training"]}
    inputs = {"manifest": "model/manifest.json", "definition": definition, "rows": "rows.jsonl"}
    job = ModelJob(cfg, ["code=1"], wildcards, inputs | {"adapter": adapter}, 512)
    frame, _ = evaluation_cell(job)
    return frame


def test_neurons_of_another_revision_are_not_evaluated(project, monkeypatch):
    folder, entry = project
    monkeypatch.chdir(folder)
    cfg = settings(entry, "source", ["vi"], max_steps=5)
    inputs = {"manifest": "model/manifest.json", "corpus": "vi.safetensors"}
    inputs["neurons"] = f"{TABLES}/lape.parquet"
    finetuning_cell(ModelJob(cfg, ["code=1"], {}, inputs), "none", "out/other")
    manifest = read_json("model/manifest.json")
    write_json("model/manifest.json", manifest | {"revision": "another"})
    try:
        with pytest.raises(DamagedFile, match="revision"):
            evaluated(folder, entry, "out/other/adapter_model.safetensors", cfg)
    finally:
        write_json("model/manifest.json", manifest)
    assert json.loads((folder / "out/other/adapter_config.json").read_text())["kind"] == "rows"
