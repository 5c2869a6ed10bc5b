"""Splitting, fetching and packing of documents, against blocks written out by hand."""

import json
import logging

import numpy as np
import pytest
from datasets import Dataset
from labelled import labels
from pydantic import ValidationError
from tiny import WORDS, tiny_tokenizer
from tokenizers import processors

from langneurons.base.errors import InputError
from langneurons.base.io import DamagedFile, read_json, read_jsonl
from langneurons.data import hub_rows
from langneurons.data.corpus import (
    Corpus,
    documents,
    fetch_text,
    of_language,
    pack_corpus,
    pack_documents,
    split_of,
)
from langneurons.data.mini_data import MINI
from langneurons.data.settings import CorpusConfig
from langneurons.models.encoding import Encoder, beginning
from langneurons.reporting.sources import corpus_table

BOS, PAD, SEPARATOR = 1, 0, 9
DOCUMENTS = [("a", [10, 11, 12], 6), ("b", [20, 21], 5), ("c", [30, 31, 32, 33, 34, 35], 12)]
# Per policy: tokens and document of each block of four; every token but BOS and pads is scored.
BY_HAND = {
    "block": (
        [[1, 10, 11, 12], [1, 9, 20, 21], [1, 9, 30, 31], [1, 32, 33, 34], [1, 35, 0, 0]],
        [[-1, 0, 0, 0], [-1, -1, 1, 1], [-1, -1, 2, 2], [-1, 2, 2, 2], [-1, 2, -1, -1]],
        [4, 4, 4, 4, 2],
    ),
    "document": (
        [[1, 10, 11, 12], [1, 20, 21, 1], [30, 31, 32, 33], [34, 35, 0, 0]],
        [[-1, 0, 0, 0], [-1, 1, 1, -1], [2, 2, 2, 2], [2, 2, -1, -1]],
        [4, 4, 4, 2],
    ),
    "none": (
        [[10, 11, 12, 9], [20, 21, 9, 30], [31, 32, 33, 34], [35, 0, 0, 0]],
        [[0, 0, 0, -1], [1, 1, -1, 2], [2, 2, 2, 2], [2, -1, -1, -1]],
        [4, 4, 4, 1],
    ),
}


def pack(bos="none", budget=1000, encoded=DOCUMENTS, block_size=4, begin=(BOS,)):
    return pack_documents(encoded, block_size, budget, bos, begin, [SEPARATOR], PAD)


@pytest.mark.parametrize("bos", BY_HAND)
def test_blocks_are_those_written_by_hand(bos):
    part = pack(bos)
    tokens, document, lengths = BY_HAND[bos]
    assert part.tokens.tolist() == tokens
    assert part.document.tolist() == document
    assert part.lengths.tolist() == lengths
    assert part.scored.tolist() == [[t not in (BOS, PAD) for t in block] for block in tokens]
    assert (part.documents, part.document_bytes) == (["a", "b", "c"], [6, 5, 12])
    assert [part.tokens.dtype, part.lengths.dtype, part.document.dtype] == [np.int32] * 3


def test_blocks_and_documents_begin_with_several_tokens():
    part = pack("block", block_size=5, begin=(2, BOS))
    assert part.tokens.tolist() == [
        [2, 1, 10, 11, 12],
        [2, 1, 9, 20, 21],
        [2, 1, 9, 30, 31],
        [2, 1, 32, 33, 34],
        [2, 1, 35, 0, 0],
    ]
    assert part.scored[:, :2].sum() == 0 and part.scored.sum() == 3 + 1 + 2 + 1 + 6
    assert part.lengths.tolist() == [5, 5, 5, 5, 3] and (part.document[:, :2] == -1).all()
    part = pack("document", block_size=5, begin=(2, BOS))
    assert part.tokens.tolist() == [
        [2, 1, 10, 11, 12],
        [2, 1, 20, 21, 2],
        [1, 30, 31, 32, 33],
        [34, 35, 0, 0, 0],
    ]
    assert part.tokens[part.scored].tolist() == [t for _, ids, _ in DOCUMENTS for t in ids]
    with pytest.raises(ValueError, match="blocks of 2 tokens hold no text.*corpus.block_size"):
        pack("block", block_size=2, begin=(2, BOS))


def beginning_with(words):
    """Return the tiny tokenizer, which then puts other tokens before every text than BOS."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{words} $A".strip(), pair="$A $B", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


@pytest.mark.parametrize("bos", ("block", "document"))
@pytest.mark.parametrize(
    "words, begin", [("</s>", [2]), ("</s> <s>", [2, 1]), ("<s>", [1]), ("", [1])]
)
def test_a_corpus_begins_as_prompts_do(tmp_path, caplog, bos, words, begin):
    """XGLM's tokenizer puts `</s>` before a text, although its BOS token is `<s>`."""
    tokenizer = beginning_with(words)
    with caplog.at_level(logging.INFO):
        _, corpus = packed(tmp_path, tokenizer=tokenizer, bos=bos, separator="none")
    assert beginning(tokenizer) == begin == corpus.header["bos_tokens"]
    # Named where they are not the tokenizer's BOS token.
    assert corpus.header["bos_words"] == ([] if begin == [1] else words.split())
    assert corpus.header["bos"] == corpus.header["bos_asked"] == bos
    for part in (corpus.identification, corpus.heldout):
        firsts = part.tokens[:, : len(begin)] if bos == "block" else part.tokens[:1, : len(begin)]
        assert firsts.tolist() == [begin] * len(firsts)
        assert not part.scored[np.isin(part.tokens, [1, 2])].any()
    if words:
        first = corpus.identification.tokens[0, : len(begin)].tolist()
        assert Encoder(tokenizer).whole("w1")[: len(begin)] == first
    said = f"xx: texts begin with {words}, as the tokenizer has it; its BOS token is <s>"
    assert caplog.text.count(said) == (begin != [1])


def test_the_table_of_corpora_shows_what_stands_for_bos(tmp_path):
    show = labels(models={"m": "M"})
    for words, bos, shown in (
        ("</s>", "block", "block (</s>)"),
        ("<s>", "block", "block"),
        ("</s> <s>", "document", "document (</s> <s>)"),
        ("</s>", "none", "none"),
    ):
        path = tmp_path / "results" / "m" / "corpora" / "xx.safetensors"
        packed(tmp_path, tokenizer=beginning_with(words), bos=bos)[1].write(path)
        assert corpus_table([str(path)], show)["bos"].tolist() == [shown]


def test_documents_of_the_hub_with_nul_characters_are_dropped_and_counted(tmp_path, monkeypatch):
    """Nobody can correct them there; in a file of one's own they are an error."""
    texts = [f"w{number}" for number in range(20)] + ["w1 \0 w2", "w3\0"]
    monkeypatch.setattr(hub_rows, "_resolve", lambda *_: None)
    stream = Dataset.from_dict({"text": texts}).to_iterable_dataset()
    monkeypatch.setattr(hub_rows, "_files", lambda *_: ([stream], {}))
    source = {"kind": "hub", "dataset": "a/b", "revision": "0" * 40, "split": "train"}
    source |= {"config": "{lang}", "text_field": "text", "id_field": None}
    about = tmp_path / "about.json"
    fetch_text(config(source), "xx", tmp_path / "out.jsonl", about)
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 20
    assert read_json(about)["dropped"] == {"blank": 0, "doubled": 0, "nul": 2}
    path = jsonl(tmp_path / "xx.jsonl", [{"text": text} for text in texts])
    with pytest.raises(InputError, match="xx.jsonl, line 21, field 'text': .* NUL character"):
        fetch_text(config(path), "xx", tmp_path / "out.jsonl")


# The same with a document per block: no separators, BOS as the policy says.
APART = {
    "block": [[1, 10, 11, 12], [1, 20, 21, 0], [1, 30, 31, 32], [1, 33, 34, 35]],
    "document": [[1, 10, 11, 12], [1, 20, 21, 0], [1, 30, 31, 32], [33, 34, 35, 0]],
    "none": [[10, 11, 12, 0], [20, 21, 0, 0], [30, 31, 32, 33], [34, 35, 0, 0]],
}


def test_a_prefix_is_read_and_not_counted():
    part = pack_documents(DOCUMENTS, 6, 1000, "block", [BOS], [], PAD, "document", [7, 8])
    rows = [[1, 7, 8, 10, 11, 12], [1, 7, 8, 20, 21, 0], [1, 7, 8, 30, 31, 32]]
    assert part.tokens.tolist()[:3] == rows and part.tokens.tolist()[3] == [1, 33, 34, 35, 0, 0]
    assert part.tokens[part.scored].tolist() == [t for _, ids, _ in DOCUMENTS for t in ids]
    assert (part.document[~part.scored] == -1).all()


def test_a_split_in_order_holds_out_the_end(tmp_path):
    words = [f"w{i} " * 5 for i in range(1, 11)]
    (tmp_path / "xx").write_text("\n".join(words), encoding="utf-8")
    source = {"kind": "text", "path": str(tmp_path / "{lang}")}
    made = CorpusConfig(source=source, split="order", heldout_fraction=0.3)
    fetch_text(made, "xx", tmp_path / "out.jsonl")
    parts = [row["split"] for row in read_jsonl(tmp_path / "out.jsonl")]
    assert parts == ["identification"] * 7 + ["heldout"] * 3


@pytest.mark.parametrize("bos", APART)
def test_documents_begin_blocks_of_their_own(bos):
    part = pack_documents(DOCUMENTS, 4, 1000, bos, [BOS], [SEPARATOR], PAD, "document")
    assert part.tokens.tolist() == APART[bos]
    assert part.scored.tolist() == [[t not in (BOS, PAD) for t in block] for block in APART[bos]]
    assert part.lengths.tolist() == [sum(t != PAD for t in block) for block in APART[bos]]
    assert all(len(set(row) - {-1}) == 1 for row in part.document.tolist())
    budgeted = pack_documents(DOCUMENTS, 4, 4, bos, [BOS], [SEPARATOR], PAD, "document")
    assert budgeted.tokens[budgeted.scored].tolist() == [10, 11, 12, 20]


@pytest.mark.parametrize("bos", BY_HAND)
@pytest.mark.parametrize("block_size", (3, 8, 64))
def test_packing_keeps_every_token_in_its_order(bos, block_size):
    generator = np.random.default_rng(0)
    encoded = [
        (f"d{i}", [int(t) for t in generator.integers(10, 99, generator.integers(1, 20))], 7)
        for i in range(12)
    ]
    part = pack_documents(encoded, block_size, 10**6, bos, [BOS], [], PAD)
    assert part.tokens[part.scored].tolist() == [t for _, ids, _ in encoded for t in ids]
    owner = [k for k, (_, ids, _) in enumerate(encoded) for _ in ids]
    assert part.document[part.scored].tolist() == owner
    n_bos = {"block": len(part.tokens), "document": 12, "none": 0}[bos]
    assert (part.tokens == BOS).sum() == n_bos
    assert part.lengths.sum() == len(owner) + n_bos
    assert (part.lengths[:-1] == block_size).all()
    assert (part.tokens[np.arange(block_size) >= part.lengths[:, None]] == PAD).all()


# Where the budget ends with a separator, that one is left out.
@pytest.mark.parametrize(
    ("budget", "tokens", "names", "sizes"),
    [
        (2, [10, 11], ["a"], [4]),
        (3, [10, 11, 12], ["a"], [6]),
        (4, [10, 11, 12, 9], ["a"], [6]),
        (5, [10, 11, 12, 9, 20], ["a", "b"], [6, 2]),
        (7, [10, 11, 12, 9, 20, 21, 9], ["a", "b"], [6, 5]),
        (10, [10, 11, 12, 9, 20, 21, 9, 30, 31, 32], ["a", "b", "c"], [6, 5, 6]),
        (99, [10, 11, 12, 9, 20, 21, 9, 30, 31, 32, 33, 34, 35], ["a", "b", "c"], [6, 5, 12]),
    ],
)
def test_the_budget_cuts_a_document_and_its_bytes(budget, tokens, names, sizes):
    for bos in ("none", "block"):
        part = pack(bos, budget)
        assert part.tokens[part.scored].tolist() == tokens
        assert (part.documents, part.document_bytes) == (names, sizes)


def test_a_document_without_tokens_is_passed_over():
    for bos in BY_HAND:
        part = pack(bos, encoded=[DOCUMENTS[0], ("empty", [], 3), *DOCUMENTS[1:]])
        assert part.tokens.tolist() == BY_HAND[bos][0]
        assert part.documents == ["a", "b", "c"]


def test_first_blocks_that_hold_so_many_tokens():
    part = pack("block")
    for tokens, n_blocks in ((1, 1), (3, 1), (4, 2), (6, 2), (7, 3), (13, 5), (99, 5)):
        first = part.first(tokens)
        assert first.tokens.tolist() == part.tokens[:n_blocks].tolist()
        assert len(first.lengths) == len(first.scored) == len(first.document) == n_blocks
    assert part.first(None) is part


def test_the_split_depends_on_identifier_and_seed_only():
    names = [f"document {i}" for i in range(4000)]
    held_out = {name for name in names if split_of(name, 0.1, 0) == "heldout"}
    assert 0.08 < len(held_out) / len(names) < 0.12
    assert held_out != {name for name in names if split_of(name, 0.1, 1) == "heldout"}
    larger = {name for name in names if split_of(name, 0.3, 0) == "heldout"}
    assert held_out < larger


# Sources ------------------------------------------------------------------------------------------


def config(source, **more):
    return CorpusConfig.model_validate({"source": source, "heldout_fraction": 0.3} | more)


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return {"kind": "jsonl", "path": str(path.parent / path.name.replace("xx", "{lang}"))}


def found(source, lang):
    """Return (identifier, text) of each row of a source, by hand."""
    field = getattr(source, "text_field", "text")
    name = getattr(source, "id_field", None)
    return [
        (row[name] if name else f"{number:09d}", row[field])
        for number, row in enumerate(documents(source, lang))
        if row[field].strip()
    ]


def numbered(n, key="text"):
    return [{"name": f"n{i}", key: f"w{i % 90} w1 w2 w3"} for i in range(n)]


def test_translations_of_the_mini_corpus_are_on_the_same_side(tmp_path):
    split = {}
    for file in sorted((MINI / "corpus").glob("*.jsonl")):
        fetch_text(config({"kind": "mini"}), file.stem, tmp_path / file.name)
        rows = read_jsonl(tmp_path / file.name)
        assert set(rows[0]) == {"id", "split", "text"}
        split[file.stem] = {row["id"]: row["split"] for row in rows}
    assert len(split) == 9 and len(split["en"]) == len(read_jsonl(MINI / "corpus" / "en.jsonl"))
    assert all(one == split["en"] for one in split.values())
    assert 0.15 < list(split["en"].values()).count("heldout") / len(split["en"]) < 0.45


def test_jsonl_by_named_fields_and_by_position(tmp_path):
    source = jsonl(tmp_path / "xx.jsonl", numbered(30, "body"))
    named = config(source | {"text_field": "body", "id_field": "name"})
    assert found(named.source, "xx")[2] == ("n2", "w2 w1 w2 w3")
    by_position = config(source | {"text_field": "body"})
    assert found(by_position.source, "xx")[2] == ("000000002", "w2 w1 w2 w3")
    fetch_text(named, "xx", tmp_path / "out.jsonl")
    for row in read_jsonl(tmp_path / "out.jsonl"):
        assert row["split"] == split_of(row["id"], 0.3, 0)
    with pytest.raises(ValueError, match="line 1: no field 'text'; fields: name, body"):
        fetch_text(config(source), "xx", tmp_path / "out.jsonl")
    with pytest.raises(FileNotFoundError, match=r"corpus\.source\.path: .*yy\.jsonl does not"):
        fetch_text(config(source), "yy", tmp_path / "out.jsonl")


def test_lines_of_text_under_the_data_sets_own_codes(tmp_path):
    (tmp_path / "xxx_Latn.dev").write_text("w1 w2\n\nw3 w1\n" + "w4\n" * 2, encoding="utf-8")
    source = {"kind": "text", "path": f"{tmp_path}/{{code}}.dev", "codes": {"xx": "xxx_Latn"}}
    made = config(source)
    rows = [
        ("000000000", "w1 w2"),
        ("000000002", "w3 w1"),
        ("000000003", "w4"),
        ("000000004", "w4"),
    ]
    assert found(made.source, "xx") == rows
    with pytest.raises(FileNotFoundError, match=r"corpus\.source\.path: .*yy\.dev does not exist"):
        list(documents(made.source, "yy"))


def test_held_out_text_of_another_source(tmp_path):
    for name, words in (("dev", ["w1", "w2", "w3"]), ("devtest", ["w4 w4", "w1", "w3 w3"])):
        (tmp_path / name).write_text("\n".join(words), encoding="utf-8")
    made = CorpusConfig(
        source={"kind": "text", "path": str(tmp_path / "dev")},
        heldout_source={"kind": "text", "path": str(tmp_path / "devtest")},
    )
    fetch_text(made, "xx", tmp_path / "out.jsonl")
    rows = [(row["split"], row["text"]) for row in read_jsonl(tmp_path / "out.jsonl")]
    first = [("identification", word) for word in ("w1", "w2", "w3")]
    assert rows == [*first, ("heldout", "w4 w4"), ("heldout", "w3 w3")]
    ids = [row["id"] for row in read_jsonl(tmp_path / "out.jsonl")]
    assert len(set(ids)) == len(ids)


def test_folder_of_datasets(tmp_path):
    from datasets import DatasetDict

    rows = numbered(30)
    Dataset.from_list(rows).save_to_disk(tmp_path / "one" / "xx")
    source = {"kind": "folder", "path": str(tmp_path / "one" / "{lang}"), "id_field": "name"}
    read = found(config(source).source, "xx")
    assert read == [(row["name"], row["text"]) for row in rows]
    DatasetDict(train=Dataset.from_list(rows)).save_to_disk(tmp_path / "two" / "xx")
    source["path"] = str(tmp_path / "two" / "{lang}")
    with pytest.raises(ValueError, match="holds the splits train"):
        list(documents(config(source).source, "xx"))
    source["path"] += "/train"
    assert found(config(source).source, "xx") == read


def test_blank_and_doubled_texts_are_dropped(tmp_path):
    rows = numbered(20) + [{"text": "  \n"}, {"text": " w3 w1 w2 w3\n"}]
    fetch_text(config(jsonl(tmp_path / "xx.jsonl", rows)), "xx", tmp_path / "out.jsonl")
    texts = [row["text"] for row in read_jsonl(tmp_path / "out.jsonl")]
    assert texts == [row["text"] for row in rows[:20]]


@pytest.mark.parametrize("n", (0, 1))
def test_too_little_text_is_a_clear_error(tmp_path, n):
    source = jsonl(tmp_path / "xx.jsonl", numbered(n))
    with pytest.raises(ValueError, match=f"xx: {n} documents, .*give more documents"):
        fetch_text(config(source), "xx", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


# Packing of a language ----------------------------------------------------------------------------


def packed(tmp_path, rows=40, tokenizer=None, **more):
    text = tmp_path / "text.jsonl"
    fetch_text(config(jsonl(tmp_path / "xx.jsonl", numbered(rows))), "xx", text)
    settings = {"block_size": 8, "heldout_block_size": 16} | more
    chosen = config({"kind": "mini"}, **settings)
    return read_jsonl(text), pack_corpus(chosen, "xx", text, tokenizer or tiny_tokenizer(), "hash")


@pytest.mark.parametrize("bos", ("block", "document", "none"))
def test_parts_hold_their_own_documents(tmp_path, bos):
    rows, corpus = packed(tmp_path, bos=bos, separator="none")
    for name, block_size in (("identification", 8), ("heldout", 16)):
        part = getattr(corpus, name)
        own = [row for row in rows if row["split"] == name]
        assert part.documents == [row["id"] for row in own]
        assert part.document_bytes == [len(row["text"]) for row in own]
        assert part.tokens.shape[1] == block_size
        words = [WORDS[token] for token in part.tokens[part.scored]]
        assert words == " ".join(row["text"] for row in own).split()
        assert corpus.header["tokens"][name] == len(words) == 4 * len(own)
        # The tokenizer puts BOS before every text unless it is told not to.
        n_bos = {"block": len(part.tokens), "document": len(own), "none": 0}[bos]
        assert (part.tokens == BOS).sum() == n_bos
    assert not set(corpus.identification.documents) & set(corpus.heldout.documents)
    assert corpus.header["bos"] == bos


def test_bytes_are_those_of_utf8(tmp_path):
    rows = [{"text": f"w{i} \u0939\u093f"} for i in range(20)]
    text = tmp_path / "text.jsonl"
    fetch_text(config(jsonl(tmp_path / "xx.jsonl", rows)), "xx", text)
    corpus = pack_corpus(config({"kind": "mini"}), "xx", text, tiny_tokenizer(), "hash")
    sizes = [len(r["text"].encode()) for r in read_jsonl(text) if r["split"] == "heldout"]
    assert corpus.heldout.document_bytes == sizes and min(sizes) == 9


def test_separators(tmp_path):
    _, corpus = packed(tmp_path, bos="none", separator="eos")
    part = corpus.identification
    flat = part.tokens[np.arange(8) < part.lengths[:, None]]
    eos = np.flatnonzero(flat == 2)
    assert eos.tolist() == list(range(4, len(flat), 5))
    assert (part.document[part.tokens == 2] == -1).all()


def test_budgets_and_the_warning_below_them(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        _, corpus = packed(tmp_path, tokens=10, heldout_tokens=1000, separator="none")
    assert corpus.header["tokens"]["identification"] == 10
    (short,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "heldout has" in short.getMessage() and "of 1000 asked for" in short.getMessage()


def test_a_part_without_text_is_an_error(tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text(json.dumps({"id": "a", "split": "heldout", "text": "w1"}) + "\n")
    with pytest.raises(ValueError, match="xx: the identification part holds no tokens"):
        pack_corpus(config({"kind": "mini"}), "xx", text, tiny_tokenizer(), "hash")


def test_tokens_that_the_tokenizer_lacks_are_errors(tmp_path):
    with pytest.raises(ValueError, match="needs the tokens of BOS, got none"):
        pack("block", begin=())
    assert pack("none", begin=()).tokens.tolist() == BY_HAND["none"][0]
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"no EOS token; set corpus\.separator: newline"):
        packed(tmp_path, tokenizer=tokenizer, separator="eos")


@pytest.mark.parametrize("bos", ("block", "document", "none"))
def test_a_model_without_a_bos_token_reads_none_and_others_keep_theirs(tmp_path, caplog, bos):
    tokenizer = beginning_with("")
    tokenizer.bos_token = None
    with caplog.at_level(logging.WARNING):
        _, corpus = packed(tmp_path, tokenizer=tokenizer, bos=bos, separator="none")
    assert (corpus.header["bos"], corpus.header["bos_asked"]) == ("none", bos)
    part = corpus.identification
    assert part.scored[np.arange(8) < part.lengths[:, None]].all() and BOS not in part.tokens
    said = [one.getMessage() for one in caplog.records if "no BOS token" in one.getMessage()]
    assert said == ([] if bos == "none" else [said[0]]) and all(f"bos: {bos})" in s for s in said)
    _, corpus = packed(tmp_path, bos=bos, separator="none")
    assert (corpus.header["bos"], corpus.header["bos_asked"]) == (bos, bos)


def test_corpus_hash_follows_content(tmp_path):
    hashes = {
        packed(tmp_path, **one)[1].header["corpus_hash"]
        for one in ({}, {"tokens": 20}, {"block_size": 16}, {"bos": "document"}, {"rows": 41})
    }
    assert len(hashes) == 5
    assert packed(tmp_path)[1].header["corpus_hash"] in hashes


def test_round_trip_and_refusal_of_another_tokenizer(tmp_path):
    _, corpus = packed(tmp_path)
    path = tmp_path / "xx.safetensors"
    corpus.write(path)
    again = Corpus.read(path, tokenizer_hash="hash")
    assert (again.lang, again.header) == ("xx", corpus.header)
    for name in ("identification", "heldout"):
        one, other = getattr(corpus, name), getattr(again, name)
        for key in ("tokens", "lengths", "document", "scored"):
            np.testing.assert_array_equal(getattr(one, key), getattr(other, key), strict=True)
        assert (one.documents, one.document_bytes) == (other.documents, other.document_bytes)
    with pytest.raises(DamagedFile, match="tokenizer_hash is .hash., expected .other."):
        Corpus.read(path, tokenizer_hash="other")


def test_blocks_longer_than_the_model_reads_are_refused_before_anything_is_packed(tmp_path):
    config = CorpusConfig(source={"kind": "mini"}, block_size=512, heldout_block_size=128)
    with pytest.raises(ValueError, match=r"corpus.block_size: 512 tokens; the model reads 128"):
        pack_corpus(config, "en", tmp_path / "none.jsonl", tiny_tokenizer(), "hash", 128)


def test_a_field_per_language_is_read_by_its_code():
    entry = {"kind": "hub", "dataset": "owner/text", "config": "default", "revision": "0" * 40}
    entry |= {"text_field": "{code}", "id_field": None, "codes": {"vi": "vie_Latn"}}
    source = CorpusConfig.model_validate({"source": entry}).source
    assert of_language(source, "vi").text_field == "vie_Latn"
    assert of_language(source, "hi").text_field == "hi"
    with pytest.raises(ValidationError, match="is not filled in; legal: {lang}, {code}"):
        CorpusConfig.model_validate({"source": entry | {"text_field": "{name}"}})
