"""Tables of what was read, from the files beside what was fetched."""

import pytest
from labelled import labels
from tiny import tiny_tokenizer
from tokenizers import processors

from langneurons.base.io import DamagedFile, read_json, write_json
from langneurons.data.corpus import fetch_text, pack_corpus
from langneurons.data.settings import CorpusConfig
from langneurons.reporting.sources import corpus_table, source_table

SHOW = labels(
    **{
        "models": {"m": "Model M", "local": "Local", "new": "New"},
        "tasks": {"xcopa": "XCOPA"},
        "language_names": {"en": "English", "vi": "Vietnamese"},
    }
)
OLD, NEW = "1" * 40, "2" * 40


def hub(commit, **more):
    about = {"kind": "hub", "dataset": "owner/data", "config": "x", "split": "test"}
    return about | {"commit": commit} | more


def test_two_commits_of_one_data_set_are_two_rows(tmp_path):
    folder = tmp_path / "resources" / "tasks" / "variant" / "xcopa"
    for lang, commit in (("en", OLD), ("vi", OLD), ("zh", NEW)):
        write_json(folder / f"{lang}.json", {"source": hub(commit), "rows": 4, "of": 10})
    files = [str(folder / f"{lang}.json") for lang in ("en", "vi", "zh")]
    table = source_table([], files, SHOW)
    rows = table[["what", "name", "languages", "source", "revision", "part", "rows", "left_out"]]
    part = "by language, test"
    assert rows.to_numpy().tolist() == [
        ["task", "XCOPA", "en, vi", "owner/data", OLD, part, 8, 12],
        ["task", "XCOPA", "zh", "owner/data", NEW, part, 4, 6],
    ]


def test_held_out_text_of_another_source_has_a_row_of_its_own(tmp_path):
    path = tmp_path / "resources" / "text" / "en.json"
    about = {"sources": [hub(OLD), hub(NEW)], "documents": 10, "heldout": 3, "dropped": {"x": 2}}
    write_json(path, about)
    table = source_table([], [str(path)], SHOW)
    rows = table[["what", "revision", "rows", "left_out"]].to_numpy().tolist()
    assert rows == [["text", OLD, 7, 2], ["held-out text", NEW, 3, 0]]


def test_models_text_and_files_say_where_they_come_from(tmp_path):
    manifests = {
        "m": {"revision": OLD, "source": {"kind": "hub", "repo": "owner/m", "revision": OLD}},
        "new": {
            "revision": NEW,
            "source": {"kind": "hub", "repo": "owner/n", "revision": "newest"},
        },
        "local": {"revision": "f" * 64, "source": {"kind": "local", "path": "/home/me/weights"}},
    }
    paths = []
    for name, manifest in manifests.items():
        paths.append(str(tmp_path / "resources" / "models" / name / "manifest.json"))
        write_json(paths[-1], manifest)
    (tmp_path / "xx").write_text(
        "\n".join(["w1", "w2", "w2", "", *(f"w{i}" for i in range(3, 40))])
    )
    source = {"kind": "text", "path": str(tmp_path / "xx")}
    made = CorpusConfig.model_validate({"source": source, "heldout_fraction": 0.3})
    about = tmp_path / "resources" / "text" / "en.json"
    fetch_text(made, "en", tmp_path / "text.jsonl", _ready(about))
    table = source_table(paths, [str(about)], SHOW).set_index("source")
    assert table.loc["owner/m", "revision"] == OLD
    assert table.loc["owner/n", "revision"] == f"{NEW} (newest when fetched)"
    # Of a path, the last name: tables go from hand to hand.
    assert table.loc["weights", "name"] == "Local"
    text = table.loc["xx"]
    assert (text["what"], text["rows"], text["left_out"]) == ("text", 39, 2)
    assert len(text["revision"]) == 64


def _ready(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_the_text_that_a_model_has_read_and_its_bos(tmp_path):
    tokenizer = tiny_tokenizer()
    paths = []
    for model, bos in (("m", "<s>"), ("local", None)):
        tokenizer.bos_token = bos
        if bos is None:
            empty = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
            tokenizer.backend_tokenizer.post_processor = empty
        made = CorpusConfig.model_validate({"source": {"kind": "mini"}, "heldout_fraction": 0.3})
        fetch_text(made, "en", tmp_path / "text.jsonl", tmp_path / "about.json")
        about = read_json(tmp_path / "about.json")
        corpus = pack_corpus(made, "en", tmp_path / "text.jsonl", tokenizer, "h", None, about)
        paths.append(str(tmp_path / "results" / model / "corpora" / "en.safetensors"))
        corpus.write(paths[-1])
        assert corpus.header["text"]["sources"][0]["kind"] == "mini"
    table = corpus_table(paths, SHOW)
    assert table["bos"].tolist() == ["block", "none (the tokenizer has none)"]
    assert table["model"].tolist() == ["Model M", "Local"]
    assert table["tokens"].tolist() == [corpus.header["tokens"]["identification"]] * 2
    wrong = tmp_path / "results" / "m" / "corpora" / "vi.safetensors"
    wrong.write_bytes((tmp_path / "results" / "m" / "corpora" / "en.safetensors").read_bytes())
    with pytest.raises(DamagedFile, match="lang is 'en', expected 'vi'"):
        corpus_table([str(wrong)], SHOW)


def test_fetching_text_does_not_hold_it(tmp_path):
    """Documents go to the file as they come: what is kept of each is a digest, on disk."""
    import tracemalloc

    text = "word " * 800
    with (tmp_path / "xx").open("w") as written:
        for number in range(3000):
            written.write(f"{number} {text}\n")
    made = CorpusConfig.model_validate({"source": {"kind": "text", "path": str(tmp_path / "xx")}})
    for split in ("hash", "order"):
        tracemalloc.start()
        fetch_text(made.model_copy(update={"split": split}), "en", tmp_path / "out.jsonl")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (tmp_path / "out.jsonl").stat().st_size > 11e6 and peak < 1e6
