"""What a configuration names on disk is looked at before the first job."""

import copy
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_config import GOOD, put

import langneurons
from langneurons.base.errors import ConfigError
from langneurons.cli import main
from langneurons.config import build
from langneurons.jobs.files import check_files
from langneurons.jobs.parameters import stage
from langneurons.jobs.sizes import depths, needed_layers, tight_memory
from langneurons.models.geometry import from_gguf, gguf_header
from langneurons.models.needs import check_prepared

ROOT = Path(__file__).parent.parent
SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 100}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return an empty working directory with a model's folder, `tiny-model`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-model").mkdir()
    (tmp_path / "tiny-model/config.json").write_text(json.dumps(SMALL))
    return tmp_path


def refused(*changes, work=Path()):
    raw = copy.deepcopy(GOOD)
    for change in changes:
        change(raw)
    with pytest.raises(ConfigError) as caught:
        check_files(build(raw), work)
    return str(caught.value)


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_good_configuration_passes(here):
    check_files(build(GOOD))


def test_a_model_that_is_not_there(here):
    said = refused(put("models.tiny.source.path", "tiny-modle"))
    assert "models.tiny.source.path: 'tiny-modle'" in said and "no such folder" in said
    assert "Did you mean 'tiny-model'?" in said and str(here) in said
    (here / "config.json").write_text("{}")
    said = refused(put("models.tiny.source.path", "config.json"))
    assert "is a file; expected: a folder" in said


def test_a_folder_of_models_names_the_one_below(here):
    (here / "models").mkdir()
    shutil.move(here / "tiny-model", here / "models" / "tiny-model")
    said = refused(put("models.tiny.source.path", "models"))
    assert "holds no config.json" in said and "Did you mean 'models/tiny-model'?" in said


def test_a_gguf_file_that_is_not_there(here):
    gguf = {"kind": "gguf", "path": "~/m.gguf"}
    assert "models.tiny.source.path: '~/m.gguf'" in refused(put("models.tiny.source", gguf))


def test_home_and_variables_are_replaced(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("MODELS", str(here))
    monkeypatch.delenv("NOT_SET", raising=False)
    for path in ("~/tiny-model", "$HOME/tiny-model", "${MODELS}/tiny-model"):
        raw = copy.deepcopy(GOOD)
        raw["models"]["tiny"]["source"]["path"] = path
        check_files(build(raw))
    said = refused(put("models.tiny.source.path", "$NOT_SET/tiny-model"))
    assert "environment variable NOT_SET is not set" in said


CORPUS = {"kind": "jsonl", "path": "text/{code}.jsonl", "codes": {"vi": "vie"}}


def test_a_corpus_is_looked_up_in_every_language(here):
    for lang in ("en", "vie", "hy"):
        lines(here / f"text/{lang}.jsonl", {"text": "one"})
    said = refused(put("corpus.source", CORPUS))
    assert "corpus.source.path: 'text/{code}.jsonl' (text/hi.jsonl, language hi)" in said
    assert "Did you mean 'hy.jsonl'?" in said and said.count("\n") == 0
    said = refused(put("corpus.source", CORPUS | {"path": "texts/{code}.jsonl"}))
    assert "There is no folder 'texts'. Did you mean 'text'?" in said
    assert said.count("\n") == 2


def test_the_first_row_of_a_corpus_has_its_fields(here):
    for lang in ("en", "vie", "hi"):
        lines(here / f"text/{lang}.jsonl", {"texts": "one", "id": 1})
    said = refused(put("corpus.source", CORPUS))
    assert (
        "text/en.jsonl, line 1: no field 'text'; fields: texts, id. Did you mean 'texts'?" in said
    )
    (here / "text/en.jsonl").write_text("[\n  {}\n]\n")
    assert "text/en.jsonl is one JSON value over the whole file" in refused(
        put("corpus.source", CORPUS)
    )
    (here / "text/en.jsonl").write_text("")
    assert "the file is empty" in refused(put("corpus.source", CORPUS))


# A file that is no JSONL of objects, and what the error names.
NO_ROWS = {
    "plain": (b"just text\n", "line 1 is not JSON"),
    "list": (b"[1]\n", "one JSON value over the whole file"),
    "number": (b"5\n", "line 1: 5 is a number. Expected: one JSON object per line"),
    "pretty": (b'{\n "premise": "a"\n}\n', "one JSON value over the whole file"),
    "gzip": (gzip.compress(b'{"premise": "a"}\n'), "is gzip-compressed. Unpack it"),
    "utf16": ('{"premise": "a"}\n'.encode("utf-16"), "is UTF-16 text. Save it as UTF-8"),
    "blank": (b" \n\n", "holds no row"),
    "deep": (b"[" * 200_000, "is nested too deeply"),
    "cr": (b'{"a": 1}\r{"a": 2}\r', "its lines end with CR only"),
    "latin1": (b'{"premise": "\xe7"}\n', "line 1: not UTF-8 text"),
}


@pytest.mark.parametrize("raw, words", NO_ROWS.values(), ids=NO_ROWS)
def test_a_file_that_is_no_jsonl_is_told_before_the_first_job(here, raw, words):
    """The file of a task, a fine-tuning, a corpus, of facts and questions: one reader."""
    training = {"definition": "config/tasks/xnli_head.yaml", "targets": ["vi"]}
    training["source"] = {"kind": "jsonl", "path": "{lang}.jsonl"}
    head = {"source": {"kind": "mini", "name": "xnli"}, "languages": ["vi"]}
    head["finetunings"] = ["nli"]
    forcing = {"interventions": ["zero"], "sources": ["en"]}
    source = {"kind": "jsonl", "path": "{lang}.jsonl"}
    for lang in ("en", "vi", "hi"):
        (here / f"{lang}.jsonl").write_bytes(raw)
    for key, changes in {
        "tasks.xnli.source": [put("tasks.xnli.source", source)],
        "finetunings.nli.source": [
            put("finetunings.nli", training),
            put("tasks.xnli_head", head),
        ],
        "corpus.source": [put("corpus.source", source | {"text_field": "a", "id_field": "b"})],
        "lss.source.path": [put("lss", {"interventions": ["zero"], "source": source})],
        "forcing.questions.path": [put("forcing", forcing | {"questions": source})],
    }.items():
        said = refused(*changes)
        lang = "vi" if key.startswith("tasks") else "en"
        assert f"{key}: {lang}.jsonl" in said and words in said, key


@pytest.mark.parametrize(
    "raw, words",
    [
        *(NO_ROWS[name] for name in ("gzip", "utf16", "latin1", "cr")),
        (b"\n \n", "holds no row"),
        (b"a\0\n", "line 1: a NUL character"),
    ],
    ids=["gzip", "utf16", "latin1", "cr", "blank", "nul"],
)
def test_the_first_line_of_text_files_is_read(here, raw, words):
    for lang in ("en", "vi", "hi"):
        (here / f"{lang}.txt").write_bytes(raw)
    said = refused(put("corpus.source", {"kind": "text", "path": "{lang}.txt"}))
    assert "corpus.source: en.txt" in said and words in said
    fields = {"sentence_src": "en.txt", "sentence_tgt": "vi.txt"}
    if words != "holds no row":
        entry = {"source": {"kind": "text", "fields": fields}, "languages": ["vi"]}
        said = refused(put("tasks.flores", entry))
        assert "tasks.flores.source: en.txt" in said and words in said


@pytest.mark.parametrize(
    "row, words",
    [
        ({"text": 5, "id": 1}, "line 1, field 'text' is 5, a number. Expected: text or null"),
        ({"text": ["a"], "id": 1}, "field 'text' is [\"a\"], a list"),
        ({"text": "a", "id": None}, "field 'id' is null. Expected: an identifier"),
        ({"text": "a", "id": " "}, "Expected: an identifier that is not blank"),
    ],
)
def test_the_first_document_has_fields_of_the_types_that_are_read(here, row, words):
    for lang in ("en", "vie", "hi"):
        lines(here / f"text/{lang}.jsonl", row)
    assert words in refused(put("corpus.source", CORPUS | {"id_field": "id"}))


def test_the_text_of_a_saved_folder_is_text(here):
    for lang in ("en", "vi", "hi"):
        (here / "saved" / lang).mkdir(parents=True)
        info = {"features": {"text": {"dtype": "int64", "_type": "Value"}}}
        (here / "saved" / lang / "dataset_info.json").write_text(json.dumps(info))
    folder = {"kind": "folder", "path": "saved/{lang}"}
    assert "field 'text' is of type int64. Expected: text." in refused(put("corpus.source", folder))
    for text in ("[]", "{", "[" * 200_000):
        (here / "saved/en/dataset_info.json").write_text(text)
        said = refused(put("corpus.source", folder))
        assert "saved/en: its dataset_info.json lists no features" in said


def test_the_columns_of_a_saved_folder_are_read(here):
    folder = {"kind": "folder", "path": "saved/{lang}"}
    for lang in ("en", "vi", "hi"):
        (here / "saved" / lang).mkdir(parents=True)
        info = {"features": {"content": {}, "id": {}}}
        (here / "saved" / lang / "dataset_info.json").write_text(json.dumps(info))
    assert "no field 'text'; fields: content, id" in refused(put("corpus.source", folder))
    for lang in ("en", "vi", "hi"):
        (here / "saved" / lang / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert "holds the splits train, test" in refused(put("corpus.source", folder))


def test_heldout_documents_of_the_mini_corpus(here):
    said = refused(put("corpus.heldout_fraction", 1e-9))
    assert "corpus.heldout_fraction: 1e-09" in said and "holds out no document" in said
    said = refused(put("corpus.heldout_fraction", 0.999999999))
    assert "holds out every document" in said


ROWS = {"kind": "jsonl", "path": "rows/{lang}.jsonl"}


def test_rows_of_another_task(here):
    xcopa = {"definition": "config/tasks/xcopa.yaml", "source": {"kind": "mini", "name": "xnli"}}
    said = refused(put("tasks.xnli", GOOD["tasks"]["xnli"] | xcopa))
    assert "tasks.xnli.source: the mini data of xnli has no field 'choice1'" in said
    assert "config/tasks/xcopa.yaml" in said and "premise, hypothesis, label" in said
    lines(here / "rows/vi.jsonl", {"premise": "a", "hypothesis": "b", "label": 7})
    said = refused(put("tasks.xnli.source", ROWS))
    assert "tasks.xnli.source: the first row of rows/vi.jsonl" in said and "7" in said


def test_task_files_and_those_of_the_paper(here):
    said = refused(put("tasks.xnli.source", ROWS))
    assert "tasks.xnli.source.path: 'rows/{lang}.jsonl' (rows/vi.jsonl, language vi)" in said
    said = refused(
        put("tasks.xnli.paper", {"source": ROWS}), put("protocols", {"theirs": {"split": "paper"}})
    )
    assert "tasks.xnli.paper.source.path: 'rows/{lang}.jsonl'" in said


def test_text_files_of_a_task(here):
    fields = {"sentence_src": "en.txt", "sentence_tgt": "{code}.txt"}
    entry = {"source": {"kind": "text", "fields": fields}, "languages": ["vi"]}
    (here / "en.txt").write_text("one\n")
    said = refused(put("tasks.flores", entry))
    assert "tasks.flores.source.fields.sentence_tgt: '{code}.txt'" in said


def test_training_rows(here):
    source = {"kind": "jsonl", "path": "train.{lang}.jsonl"}
    entry = {"definition": "config/tasks/xnli_head.yaml", "source": source, "targets": ["vi"]}
    task = {"source": {"kind": "mini", "name": "xnli"}, "languages": ["vi"]}
    both = put("finetunings.nli", entry), put("tasks.xnli_head", task | {"finetunings": ["nli"]})
    said = refused(*both)
    assert "finetunings.nli.source.path: 'train.{lang}.jsonl' (train.en.jsonl, language en)" in said
    lines(here / "train.en.jsonl", {"premise": "a", "label": 0})
    assert "finetunings.nli.source: train.en.jsonl has no field 'hypothesis'" in refused(*both)
    rows = {"premise": "a", "hypothesis": "b", "label": 0}
    lines(here / "train.en.jsonl", rows, rows, rows)
    said = refused(*both, put("finetunings.nli.rows", [0, 0.1]))
    assert "finetunings.nli.rows: [0.0, 0.1] of 3 rows (en) is none" in said


def test_shares_of_the_mini_data_and_of_known_data_sets(here):
    said = refused(put("tasks.xnli.rows", [0.5, 0.5001]))
    assert "tasks.xnli.rows: [0.5, 0.5001] of" in said and "is none" in said
    said = refused(put("tasks.xnli.source", {"kind": "hub"}), put("tasks.xnli.rows", [0, 1e-5]))
    assert "tasks.xnli.rows: [0.0, 1e-05] of 5010 rows (vi) is none" in said


FACTS = {"interventions": ["zero"], "source": {"kind": "jsonl", "path": "facts.{lang}.jsonl"}}


def test_facts_and_questions(here):
    said = refused(put("lss", FACTS))
    assert said.count("lss.source.path: 'facts.{lang}.jsonl'") == 3
    for lang in ("en", "vi", "hi"):
        lines(here / f"facts.{lang}.jsonl", {"template": "[X] is in [Y].", "predicate_id": "P1"})
    said = refused(put("lss", FACTS))
    assert "lss.source.path: facts in en, facts.en.jsonl, line 1: no field 'sub_en'" in said
    questions = {"kind": "jsonl", "path": "ask.{lang}.jsonl"}
    forcing = {"interventions": ["zero"], "questions": questions, "sources": ["en"]}
    assert "forcing.questions.path: 'ask.{lang}.jsonl'" in refused(put("forcing", forcing))
    lines(here / "ask.en.jsonl", {"id": "1", "questions": "?"})
    said = refused(put("forcing", forcing))
    assert "no field 'question'; fields: id, questions. Did you mean 'questions'?" in said


def test_the_identifier_is_looked_up_before_answers_are_decoded(here):
    (here / "lid.176.bin").write_text("x")
    identifier = {"kind": "fasttext", "path": "lid176.bin"}
    said = refused(put("forcing", {"interventions": ["zero"], "identifier": identifier}))
    assert "forcing.identifier.path: 'lid176.bin'" in said and "'lid.176.bin'" in said


# Layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [[500, 900], [0, 900], [0, 2]])
def test_layers_beyond_the_model(here, layers):
    said = refused(put("interventions.zero.layers", layers))
    assert f"interventions.zero.layers: layer {layers[1]} is beyond models.tiny" in said
    assert "2 layers; legal: 0 to 1" in said


def test_a_row_of_the_residual_stream_beyond_the_model(here):
    raw = copy.deepcopy(GOOD)
    raw["statistics"] = {"sites": ["gate", "act", "residual"], "residual_outer": [0, 2]}
    check_files(build(raw))
    raw["statistics"]["residual_outer"] = [3]
    with pytest.raises(ConfigError, match="residual_outer: row 3 is beyond models.tiny, which has"):
        check_files(build(raw))


def test_a_sweep_beyond_the_model(here):
    said = refused(put("interventions.zero.sweep", 500))
    assert "interventions.zero.sweep: layer 499" in said and "Write `sweep: 2`" in said
    assert said.count("\n") == 0
    raw = copy.deepcopy(GOOD)
    raw["interventions"]["zero"]["sweep"] = 2
    check_files(build(raw))


def test_an_intervention_counts_where_it_is_used_only(here):
    raw = copy.deepcopy(GOOD)
    raw["interventions"]["unused"] = {"operation": "set", "value": 0, "layers": [0, 99]}
    raw["models"]["deep"] = {"source": {"kind": "hub", "repo": "a/b", "revision": "0" * 40}}
    raw["interventions"]["deep"] = {"operation": "set", "value": 0, "layers": [0, 99]}
    raw["interventions"]["deep"]["models"] = ["deep"]
    raw["perplexity"]["interventions"] = ["zero", "deep"]
    config = build(raw)
    check_files(config)
    assert depths(config) == {"tiny": 2}
    assert (needed_layers(config, "tiny"), needed_layers(config, "deep")) == (0, 100)
    check_prepared("deep", here / "tiny-model", 2)
    with pytest.raises(ConfigError, match="has 2 layers, and interventions name layer 99"):
        check_prepared("deep", here / "tiny-model", 100)


def test_layers_of_known_and_prepared_models(here):
    raw = copy.deepcopy(GOOD)
    hub = {"kind": "hub", "repo": "google/gemma-2-2b-it", "revision": "0" * 40}
    raw["models"]["tiny"]["source"] = hub
    assert depths(build(raw)) == {"tiny": 26}
    prepared = here / "resources/models/tiny"
    prepared.mkdir(parents=True)
    (prepared / "manifest.json").write_text(json.dumps({"path": str(here / "tiny-model")}))
    assert depths(build(raw)) == {"tiny": 2}


@pytest.mark.parametrize(
    "family, modules, words",
    [
        ("gpt2", None, ["'q_proj'", "gpt2", "c_attn"]),
        ("opt", ["q_proj", "o_proj"], ["'o_proj'", "opt", "'out_proj'"]),
        ("llama", ["q_prj"], ["'q_prj'", "llama", "Did you mean 'q_proj'?"]),
    ],
)
def test_modules_that_the_model_does_not_have(here, family, modules, words):
    (here / "tiny-model/config.json").write_text(json.dumps(SMALL | {"model_type": family}))
    source = {"kind": "mini", "name": "xnli"}
    entry = {"definition": "config/tasks/xnli_head.yaml", "source": source, "neurons": ["none"]}
    entry["training"] = {} if modules is None else {"modules": modules}
    task = {"source": source, "languages": ["vi"], "finetunings": ["nli"]}
    said = refused(put("finetunings.nli", entry), put("tasks.xnli_head", task))
    for word in ["finetunings.nli.training.modules", "models.tiny", *words]:
        assert word in said
    with pytest.raises(ConfigError, match="training.modules: 'nothing' is not a linear layer"):
        check_prepared("tiny", here / "tiny-model", 0, "nothing")


def test_a_mask_of_another_size(here):
    (here / "tiny-model/config.json").write_text(json.dumps(SMALL | {"intermediate_size": 64}))
    (here / "masks.pth").write_text("x")
    mask = {"method": "published", "path": "masks.pth", "languages": ["en", "vi", "hi"]}
    said = refused(put("selections.mask", mask | {"neurons_per_layer": 48}))
    assert "selections.mask.neurons_per_layer: 48, but models.tiny has 64" in said
    raw = copy.deepcopy(GOOD)
    raw["selections"]["mask"] = mask | {"neurons_per_layer": 64}
    check_files(build(raw))


def test_shared_neurons_of_another_model_size_or_set(here):
    pytest.importorskip("torch", reason="Neurons of the interface needs torch")
    (here / "tiny-model/config.json").write_text(json.dumps(SMALL | {"intermediate_size": 48}))
    size = {"n_layers": 2, "d_mlp": 48}
    langs = ["en", "hi", "vi", "zh"]
    frame = pd.DataFrame({"lang": langs, "layer": 0, "neuron": 1, "score": 0.5})
    raw = copy.deepcopy(GOOD)
    raw["selections"]["mask"] = {"method": "published", "path": "shared"}

    def saved(**changes):
        metadata = {"model": "owner/name", "languages": langs} | (size | changes)
        own = frame[frame["lang"].isin(metadata["languages"])]
        langneurons.Neurons(own, metadata).save(here / "shared")
        return build(raw)

    check_files(saved())
    with pytest.raises(
        ConfigError, match="selections.mask.path: .*no neurons of .*vi.*; it has en"
    ):
        check_files(saved(languages=["en"]))
    with pytest.raises(ConfigError, match="2 layers x 999, and models.tiny has 2 x "):
        check_files(saved(d_mlp=999))
    raw["models"]["tiny"]["source"] = {"kind": "hub", "repo": "a/b", "revision": "0" * 40}
    with pytest.raises(ConfigError, match="model 'owner/name', and models.tiny is 'a/b'"):
        check_files(saved())
    raw["selections"]["mask"]["model"] = "owner/name"
    check_files(saved())
    (here / "shared/neurons.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ConfigError, match="a Git LFS pointer"):
        check_files(build(raw))


def gguf(path, **values):
    """Write the header of a GGUF file: whole numbers, texts, and a vocabulary of three."""
    text = b"".join
    parts = [b"GGUF", (3).to_bytes(4, "little"), bytes(8), (len(values) + 1).to_bytes(8, "little")]

    def string(word):
        return len(word.encode()).to_bytes(8, "little") + word.encode()

    for key, value in values.items():
        kind = 8 if isinstance(value, str) else 4
        shown = string(value) if kind == 8 else value.to_bytes(4, "little")
        parts.append(string(key.replace("__", ".")) + kind.to_bytes(4, "little") + shown)
    words = text(string(word) for word in ("a", "b", "c"))
    head = string("tokenizer.ggml.tokens") + (9).to_bytes(4, "little") + (8).to_bytes(4, "little")
    parts.append(head + (3).to_bytes(8, "little") + words)
    path.write_bytes(text(parts))


def test_the_size_of_a_gguf_file_is_in_its_header(here):
    values = {"general__architecture": "llama", "llama__block_count": 4}
    values |= {"llama__embedding_length": 32, "llama__feed_forward_length": 48}
    values |= {"llama__attention__head_count": 4, "llama__attention__head_count_kv": 2}
    gguf(here / "m.gguf", **values)
    assert gguf_header(here / "m.gguf")["tokenizer.ggml.tokens"] == 3
    found = from_gguf(here / "m.gguf")
    assert (found.layers, found.hidden, found.intermediate, found.vocabulary) == (4, 32, 48, 3)
    # Four matrices of attention (query and output whole, keys and values halved), three of the MLP.
    assert found.parameters == 4 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) + 3 * 32
    said = refused(
        put("models.tiny.source", {"kind": "gguf", "path": "m.gguf"}),
        put("interventions.zero.sweep", 5),
    )
    assert "layer 4 is beyond models.tiny, which has 4 layers" in said
    (here / "m.gguf").write_bytes(b"GGUF\x03")
    assert from_gguf(here / "m.gguf") is None


def test_a_model_that_needs_more_memory_than_is_asked_for(here, capsys):
    raw = copy.deepcopy(GOOD)
    llama = {"kind": "hub", "repo": "meta-llama/Llama-3.1-8B", "revision": "0" * 40}
    raw["models"]["large"] = {"source": llama}
    # 8.03e9 parameters of two bytes, and 30 % for loading.
    (said,) = tight_memory(build(raw))
    assert "models.large: a job needs about 20.9 GB" in said and "runtime.mem_mb: 21000" in said
    (here / "mine.yaml").write_text(json.dumps(raw))
    assert main(["check", "mine.yaml"]) == 0 and "20.9 GB" in capsys.readouterr().err
    assert tight_memory(build(raw | {"runtime": {"mem_mb": 21000}})) == []


# Definitions and printed numbers ------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, words",
    [
        ("config/config.yaml", ["is a configuration, not the definition of a task", "metrics"]),
        (
            "config/published/mondal2025.yaml",
            ["is not the definition of a task", "tables, layouts"],
        ),
        ("config/plan.yaml", ["is not the definition of a task", "nf4_slowdown"]),
        ("broken.yaml", ["broken.yaml: metrcs: unknown key", "'metrics'", "metrics: missing"]),
        ("config/tasks/xcopy.yaml", ["'config/tasks/xcopy.yaml' is not a known", "xcopa.yaml"]),
    ],
)
def test_a_definition_that_is_none(given, words, here):
    text = (ROOT / "config/tasks/xnli.yaml").read_text(encoding="utf-8")
    (here / "broken.yaml").write_text(text.replace("\nmetrics:", "\nmetrcs:"), encoding="utf-8")
    raw = copy.deepcopy(GOOD)
    raw["tasks"]["xnli"]["definition"] = given
    with pytest.raises(ConfigError) as caught:
        build(raw)
    for word in ["tasks.xnli.definition", *words]:
        assert word in str(caught.value)
    assert "Field required" not in str(caught.value)


@pytest.mark.parametrize(
    "given, words",
    [
        ("config/config.yaml", ["is not a file of printed numbers", "layouts"]),
        ("config/tasks/xnli.yaml", ["is not a file of printed numbers"]),
        ("config/published/mondal.yaml", ["is not a known", "mondal2025.yaml"]),
    ],
)
def test_printed_numbers_that_are_none(given, words):
    raw = copy.deepcopy(GOOD)
    raw["results"] = {"published": given}
    with pytest.raises(ConfigError) as caught:
        build(raw)
    for word in ["results.published", *words]:
        assert word in str(caught.value)


def test_a_printed_table_without_its_csv_or_a_column(here):
    table = {"item": "Table 1", "file": "one.csv", "task": "activations", "values": {"m": "mean"}}
    layout = {"item": "Table 1", "title": "t", "rows": ["model"], "columns": ["metric"]}
    spec = {"tables": [table], "layouts": [layout]}
    (here / "mine.yaml").write_text(json.dumps(spec))
    published = put("results", {"published": "mine.yaml"})
    assert "there is no one.csv" in refused(published)
    (here / "one.csv").write_text("model,mean\n")
    assert "one.csv has no column 'm'; it needs: model, m" in refused(published)
    (here / "mine.yaml").write_text(json.dumps(spec | {"layouts": [layout | {"item": "T"}]}))
    with pytest.raises(ConfigError, match="results.published: mine.yaml: layouts: 'T' is not"):
        build(GOOD | {"results": {"published": "mine.yaml"}})


# When it is looked at -----------------------------------------------------------------------------


def test_what_a_finished_job_has_read_may_be_gone(here):
    for lang in ("en", "vie", "hi"):
        lines(here / f"text/{lang}.jsonl", {"text": "one"})
    raw = copy.deepcopy(GOOD)
    raw["corpus"]["source"] = CORPUS
    config = build(raw)
    check_files(config)
    for lang in ("en", "vi", "hi"):
        lines(here / f"resources/text/{lang}.jsonl", {"text": "one"})
        record = {"settings": stage(config, "fetch_text", lang=lang)}
        lines(here / f"logs/fetch_text/{lang}.json", record)
    shutil.rmtree(here / "text")
    check_files(config)
    # Another path is another setting.
    assert "corpus.source.path" in refused(put("corpus.source", CORPUS | {"path": "x/{code}.j"}))


def test_the_command_line_names_every_missing_file(here, capsys):
    raw = copy.deepcopy(GOOD)
    raw["models"]["tiny"]["source"]["path"] = "nowhere"
    raw["corpus"]["source"] = {"kind": "text", "path": "{lang}.txt"}
    (here / "mine.yaml").write_text(json.dumps(raw))
    assert main(["check", "mine.yaml"]) == 1
    said = capsys.readouterr().err
    assert said.count("corpus.source.path") == 3 and said.count("models.tiny.source.path") == 1


@pytest.mark.parametrize(
    "change, words",
    [
        (put("corpus.block_size", 512), r"corpus.block_size: 512 tokens, and models.tiny reads 64"),
        (put("corpus.heldout_block_size", 65), "corpus.heldout_block_size: 65 tokens"),
    ],
)
def test_lengths_beyond_what_a_model_reads(here, change, words):
    sizes = SMALL | {"n_positions": 64}
    (here / "tiny-model/config.json").write_text(json.dumps(sizes))
    small = [put("corpus.block_size", 64), put("corpus.heldout_block_size", 64)]
    said = refused(*small, change)
    assert re.search(words, said) and "legal: up to 64" in said


@pytest.mark.parametrize("mode, refused", [("default", True), ("subprocess", False)])
def test_only_the_process_that_plans_looks_at_files(here, mode, refused):
    raw = copy.deepcopy(GOOD)
    raw["models"]["tiny"]["source"]["path"] = "nowhere"
    (here / "mine.yaml").write_text(json.dumps(raw))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "-n", "--mode", mode]
        + ["--configfile", "mine.yaml", "--quiet", "rules"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert ("models.tiny.source.path" in done.stdout + done.stderr) == refused
    assert (done.returncode != 0) == refused, done.stderr
