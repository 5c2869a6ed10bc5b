"""Rows and fields as people bring them; each failure names file, line, field and value."""

import bz2
import gzip
import json
import logging
import lzma
import re
from datetime import date, datetime

import numpy as np
import pandas as pd
import pytest

from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import read_json, read_jsonl
from langneurons.data import files, sources, typed
from langneurons.data.corpus import fetch_text, split_of
from langneurons.data.facts import read_facts
from langneurons.data.questions import read_questions
from langneurons.data.settings import CorpusConfig
from langneurons.evaluation.definition import load_task
from langneurons.evaluation.examples import build
from langneurons.evaluation.items import fetch_rows, prepare_task

BOM = b"\xef\xbb\xbf"


def text_of(path):
    return [text for _, text in files.lines(path)]


# Lines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw, expected",
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\rb\nc\n", ["a\rb", "c"]),
        (b"a\r\r\nb\n", ["a\r", "b"]),
        (BOM + b"a\nb\n", ["a", "b"]),
        (b"a\n" + BOM + b"b\n", ["a", "b"]),
        (b"a\n\nb\n\n", ["a", "", "b", ""]),
        ("a\u2028b\x0bc\x0cd\x1ce\x85f\n".encode(), ["a\u2028b\x0bc\x0cd\x1ce\x85f"]),
        (b"", []),
        (b"\n", [""]),
    ],
)
def test_lines_end_at_line_feeds_only(tmp_path, raw, expected):
    (tmp_path / "x").write_bytes(raw)
    assert text_of(tmp_path / "x") == expected


@pytest.mark.parametrize(
    "raw, words",
    [
        ("ab".encode("utf-16"), "x is UTF-16 text. Save it as UTF-8."),
        ("ab".encode("utf-32"), "x is UTF-32 text. Save it as UTF-8."),
        (b"ok\n" + "ab\n".encode("utf-16-le"), "x, line 2: a NUL character at byte 1, .*UTF-16"),
        (b"a\rb\rc\r", "x: its lines end with CR only; expected: LF"),
        (b"a\rb\rc", "x: its lines end with CR only; expected: LF"),
        (gzip.compress(b"a\nb\n"), "x is gzip-compressed. Unpack it"),
        (bz2.compress(b"a\nb\n"), "x is bzip2-compressed. Unpack it"),
        (lzma.compress(b"a\nb\n"), "x is xz-compressed. Unpack it"),
        (b"PK\x03\x04rest", "x is a ZIP archive .*Unpack it"),
        (b"PAR1rest", "x is a Parquet file. Write it as JSONL"),
        (b"ARROW1\0\0rest", "x is an Arrow file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "x is a Git LFS pointer in place of the file. Run `git lfs pull`",
        ),
        (b"ok\nfa\xe7ade\n", "x, line 2: not UTF-8 text .* at byte 2"),
    ],
)
def test_text_that_is_not_utf8_is_named_by_its_line(tmp_path, raw, words):
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(InputError, match=words):
        text_of(tmp_path / "x")


def test_a_lone_carriage_return_moves_no_sentence_to_the_other_side_of_the_split(tmp_path):
    """Parallel files: the held-out lines of both must be the same numbers."""
    for name, odd in (("en", "w\r4 four"), ("fr", "w4 quatre")):
        texts = [f"w{i} {name}" for i in range(4)] + [odd] + [f"w{i} {name}" for i in range(5, 400)]
        (tmp_path / name).write_bytes("\n".join(texts).encode())
    made = CorpusConfig(source={"kind": "text", "path": str(tmp_path / "{lang}")})
    made = made.model_copy(update={"heldout_fraction": 0.3})
    sides = {}
    for name in ("en", "fr"):
        fetch_text(made, name, tmp_path / f"{name}.out", tmp_path / f"{name}.json")
        sides[name] = {row["id"]: row["split"] for row in read_jsonl(tmp_path / f"{name}.out")}
    assert sides["en"] == sides["fr"] and len(sides["en"]) == 400
    assert sides["en"]["000000399"] == split_of("000000399", 0.3, 0)


def test_marks_of_joined_files_are_counted(tmp_path, caplog):
    (tmp_path / "x").write_bytes(BOM + b"a\n" + BOM + b"b\nc\n" + BOM + b"d\n")
    with caplog.at_level(logging.WARNING):
        assert text_of(tmp_path / "x") == ["a", "b", "c", "d"]
    assert "a byte order mark dropped at the beginning of 2 later lines" in caplog.text
    assert typed.text("\ufeffabc", "row 1", "x") == "abc"


@pytest.mark.parametrize(
    "text, expected",
    [
        *((one, True) for one in ("", " \t\u00a0\u3000\u2028", "\u200b", "\u2060 \u200d\ufeff")),
        *((one, True) for one in ("\x07\x1a", "\u00ad", "\u200e\u202a", "\u3164", "\ufe0f\u034f")),
        *((one, False) for one in ("a", ".", "\u200bа", "\u0600", "\u06dd", "\u0301", "0", "👍")),
    ],
)
def test_blank_is_what_shows_nothing(text, expected):
    assert typed.blank(text) is expected


def test_what_shows_nothing_is_no_text_in_any_reader(tmp_path):
    empty = "\u200b\u2060"
    with pytest.raises(InputError, match="field 'q' is .*an answer that is not blank"):
        typed.answers([empty], "row 1", "q")
    with pytest.raises(InputError, match="an identifier that is not blank"):
        typed.identifier(empty, "row 1", "q")
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"id": 1, "question": empty}) + "\n")
    with pytest.raises(InputError, match="line 1, field 'question' .* a question that is not"):
        read_questions({"kind": "jsonl", "path": str(path)}, "en")
    fact = {"template": "[X] is [Y]", "sub_en": empty, "obj_en": "a", "predicate_id": "P"}
    with pytest.raises(InputError, match="field 'sub_en' .* text that is not blank"):
        read_facts([fact], "en")
    (found,) = read_facts([fact | {"sub_en": "b", "obj_de": empty}], "en")
    assert found["objects"] == {"en": "a"}
    (tmp_path / "t").write_text(f"one\n{empty}\ntwo\nthree\nfour\n", encoding="utf-8")
    made = CorpusConfig(source={"kind": "text", "path": str(tmp_path / "t")})
    made = made.model_copy(update={"heldout_fraction": 0.5})
    fetch_text(made, "en", tmp_path / "out", tmp_path / "about.json")
    assert read_json(tmp_path / "about.json")["dropped"] == {"blank": 1, "doubled": 0, "nul": 0}


def test_a_folder_in_place_of_a_file_is_told(tmp_path):
    for source in (
        {"kind": "text", "path": str(tmp_path)},
        {"kind": "jsonl", "path": str(tmp_path)},
    ):
        with pytest.raises(InputError, match=f"x.path: {tmp_path} is a folder; expected: a file"):
            sources.read(source, "x", "en")


# JSONL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", (b"\n", b"\r\n"))
@pytest.mark.parametrize("mark", (b"", BOM))
def test_objects_of_a_file_with_and_without_a_mark(tmp_path, mark, ending):
    (tmp_path / "x.jsonl").write_bytes(mark + b'{"a": 1}' + ending + ending + b'{"a": "\xc3\xa9"}')
    rows = list(files.objects(tmp_path / "x.jsonl"))
    assert rows == [{"a": 1}, {"a": "é"}]
    assert [row.place for row in rows] == [f"{tmp_path}/x.jsonl, line {n}" for n in (1, 3)]


@pytest.mark.parametrize(
    "text, words",
    [
        (json.dumps([{"a": 1}, {"a": 2}], indent=1), "one JSON value over the whole file"),
        (json.dumps([{"a": 1}, {"a": 2}]), "one JSON value over the whole file"),
        (json.dumps({"a": 1, "b": 2}, indent=2), "pretty-printed"),
        ('{"a": 1}\n{"a": \n', r"line 2 is not JSON \(.*\): .* Expected: one JSON object per line"),
        ('{"a": 1}\n[1, 2]\n', r"line 2: \[1, 2\] is a list. Expected: one JSON object"),
        ('{"a": 1}\n"text"\n', "line 2: .*is text. Expected: one JSON object"),
        ('{"a": 1}\n7\n', "line 2: 7 is a number"),
        ('{"a": 1}\nnull\n', "line 2: null is null"),
        ('{"a": 1, "a": 2}\n', "line 1: the key 'a' stands twice in one object"),
        ("{'a': 1}\n", "line 1 is not JSON"),
        (
            '{"a": 1}\n' + "[" * 200_000,
            r"line 2: .* is nested too deeply\. Expected: one JSON object",
        ),
        ("[" * 200_000, "line 1: .* is nested too deeply"),
        (
            '{"a": 1}\n{"b": {"\\ud83d": 1}}\n',
            r"line 2: the key '\\ud83d' holds half of a surrogate",
        ),
        ('{"a": 1}\r{"a": 2}\r', "its lines end with CR only"),
    ],
)
def test_what_is_not_one_object_per_line_is_named_and_nobody_is_told_to_delete_it(
    tmp_path, text, words
):
    path = tmp_path / "x.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words) as caught:
        list(files.objects(path))
    assert str(path) in str(caught.value) and "rm " not in str(caught.value)


# Fields -------------------------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    "value",
    [None, 1, 1.5, True, NAN, [], ["a"], {"a": 1}, date(2023, 5, 3), b"a", np.float32(2), pd.NA],
)
def test_only_text_is_text(value):
    with pytest.raises(InputError, match="^f.jsonl, line 3, field 'question' is .*Expected: text"):
        typed.text(value, "f.jsonl, line 3", "question")


def test_half_of_a_surrogate_pair_is_no_text():
    assert typed.text("\U0001f600", "f", "a") == "\U0001f600"
    with pytest.raises(InputError, match=r"f, field 'a': 'x\\ud83d' holds half of a surrogate"):
        typed.text(json.loads('"x\\ud83d"'), "f", "a")


@pytest.mark.parametrize(
    "value, expected",
    [
        (1, "1"),
        (1.0, "1"),
        (np.int64(7), "7"),
        (np.float64(3.0), "3"),
        ("a7", "a7"),
        (np.str_("b"), "b"),
        (0, "0"),
    ],
)
def test_identifiers(value, expected):
    assert typed.identifier(value, "f", "id") == expected


@pytest.mark.parametrize("value", [None, NAN, True, 1.5, "", " ", [1], {"a": 1}, pd.NaT, date.min])
def test_what_is_no_identifier(value):
    with pytest.raises(InputError, match="f, line 2, field 'id' is .*Expected: an identifier"):
        typed.identifier(value, "f, line 2", "id")


@pytest.mark.parametrize(
    "value, expected",
    [("a", "a"), (1, "1"), (1.0, "1"), (0.5, "0.5"), (np.int8(3), "3"), (np.float64(0.5), "0.5")],
)
def test_what_a_prompt_shows(value, expected):
    assert typed.shown(value, "f", "a") == expected


@pytest.mark.parametrize("value", [None, NAN, float("inf"), True, ["a"], {"a": 1}, datetime.min])
def test_what_a_prompt_cannot_show(value):
    with pytest.raises(InputError, match="f, field 'a' is .*Expected: text or a number"):
        typed.shown(value, "f", "a")


@pytest.mark.parametrize(
    "value, expected",
    [
        ("Paris", ("Paris",)),
        (["Paris", "paris"], ("Paris", "paris")),
        (("Paris",), ("Paris",)),
        (np.array(["Paris", "Lyon"]), ("Paris", "Lyon")),
        ({"text": ["Paris"], "answer_start": [3]}, ("Paris",)),
        ({"text": "Paris"}, ("Paris",)),
        ([{"text": "Paris", "answer_start": 3}, {"text": "Lyon"}], ("Paris", "Lyon")),
        ("1912", ("1912",)),
    ],
)
def test_answers_in_every_form_that_data_sets_have(value, expected):
    assert typed.answers(value, "f", "answers") == expected


@pytest.mark.parametrize(
    "value",
    [
        *(None, [None], 1912, [1912], [], "", [" "], {"answer": ["a"]}, [{"answer": "a"}], NAN),
        *([["a"]], [{"text": None}], {"text": []}, {"text": [7]}, True, [{"text": ["a"]}]),
    ],
)
def test_answers_that_cannot_be_compared_are_named(value):
    with pytest.raises(InputError, match="f.jsonl, line 3, field 'answers'.*Expected:"):
        typed.answers(value, "f.jsonl, line 3", "answers")


LABELS = [
    (0, ("a", "b"), 0),
    (1.0, ("a", "b"), 1),
    (np.int64(1), ("a", "b"), 1),
    ("b", ("a", "b"), 1),
    ("1", ("1", "0"), 0),
    ("0", ("1", "0"), 1),
    ("1800", ("1900", "1800"), 1),
    ("١", ("٢", "١"), 1),
    (1, ("0", "1"), 1),
    ("2", ("2", "10"), 0),
]


@pytest.mark.parametrize("value, choices, expected", LABELS)
def test_a_text_is_a_choices_own_and_a_whole_number_an_index(value, choices, expected):
    assert typed.label(value, choices, "f", "gold") == expected


@pytest.mark.parametrize(
    "value, choices, words",
    [
        ("1", ("a", "b"), "'1' is not a known label; known: a, b.*An index is written as a number"),
        ("١", ("a", "b"), "An index is written as a number"),
        (" 1", ("a", "b"), "is not a known label"),
        ("1800", ("a", "b"), "'1800' is not a known label"),
        (1, ("1", "0"), "1 may be the index of a choice or the text of choice 0"),
        (0, ("1", "0"), "0 may be the index of a choice or the text of choice 1"),
        ("a", ("a", "a"), "is the text of the choices 0, 1"),
        (2, ("a", "b"), "label 2; legal: 0 to 1"),
        (-1, ("a", "b"), "label -1; legal: 0 to 1"),
        (1.5, ("a", "b"), "is 1.5, a number. Expected: a choice's text, or its index"),
        (None, ("a", "b"), "is null. Expected: a choice's text, or its index"),
        (NAN, ("a", "b"), "is NaN, not a number"),
        (True, ("a", "b"), "is true, true or false"),
        (["a"], ("a", "b"), "a list"),
        ("", ("a", "b"), "is not a known label"),
    ],
)
def test_a_label_that_is_none_or_might_be_another_is_refused(value, choices, words):
    with pytest.raises(ValueError, match=f"^f, line 2, field 'gold'.*{words}"):
        typed.label(value, choices, "f, line 2", "gold")


@pytest.mark.parametrize("value", (1, "1", 1.0, "١"))
def test_a_field_that_is_declared_an_index_is_one(value):
    assert typed.label(value, ("1", "2", "3"), "f", "gold", index=True) == 1


# Tasks --------------------------------------------------------------------------------------------

CHOICE = """
name: toy
kind: multiple_choice
fields: [start, right, wrong]
context: "{start}"
choices: ["{right}", "{wrong}"]
gold: right
metrics: [accuracy]
words: {en: {}}
"""
ANSWER = """
name: toy
kind: generation
fields: [question, answers]
context: "{question}"
gold: answers
identifier: id
metrics: [f1]
words: {en: {}}
"""


def task(tmp_path, text):
    path = tmp_path / "toy.yaml"
    path.write_text(text, encoding="utf-8")
    return load_task(path)


def prepared(tmp_path, text, rows):
    path = tmp_path / "en.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {"kind": "jsonl", "path": str(tmp_path / "{lang}.jsonl")}
    out = tmp_path / "out.jsonl"
    prepare_task(task(tmp_path, text), source, "en", out, about=tmp_path / "about.json")
    return read_jsonl(out)


def test_a_gold_answer_that_is_a_number_is_the_choice_with_that_text(tmp_path):
    rows = [{"start": "1+0= ", "right": "1", "wrong": "0"}]
    rows += [{"start": "Built in ", "right": "1800", "wrong": "1900"}]
    rows += [{"start": "١+٠= ", "right": "١", "wrong": "٠"}]
    kept = prepared(tmp_path, CHOICE, rows)
    assert [one.label for one in build(kept, task(tmp_path, CHOICE), "en")] == [0, 0, 0]


@pytest.mark.parametrize(
    "text, row, words",
    [
        (CHOICE, {"right": "", "wrong": "b"}, r"line 2: '\{right\}' is blank"),
        (CHOICE, {"right": " ", "wrong": "b"}, r"line 2: '\{right\}' is blank"),
        (CHOICE, {"right": None, "wrong": "b"}, "line 2, field 'right' is null. Expected: text or"),
        (CHOICE, {"right": "a", "wrong": ["b"]}, r"line 2, field 'wrong' is \[\"b\"\], a list"),
        (CHOICE, {"right": 1, "wrong": 0}, "line 2, field 'right': 1 may be the index"),
        (CHOICE, {"right": "a"}, "line 2: no field 'wrong'; fields: start, id, right"),
        (ANSWER, {"question": "q", "answers": [None]}, "line 2, field 'answers' is null. Expect"),
        (ANSWER, {"question": "q", "answers": [1912]}, "line 2, field 'answers' is 1912, a number"),
        (ANSWER, {"question": None, "answers": "a"}, "line 2, field 'question' is null"),
        (ANSWER, {"question": "q", "answers": "a", "id": None}, "line 2, field 'id' is null"),
        (ANSWER, {"question": "q", "answers": "a", "id": 1}, "line 2: id '1' is that of .*line 1"),
    ],
)
def test_bad_rows_are_refused_when_the_task_is_prepared(tmp_path, text, row, words):
    first = {"start": "s", "right": "a", "wrong": "b", "question": "q", "answers": "a", "id": 1}
    with pytest.raises(ValueError, match=f"task toy, en, .*en.jsonl, {words}"):
        prepared(tmp_path, text, [first, {"start": "s", "id": 2} | row])
    assert not (tmp_path / "out.jsonl").exists()


def test_official_answers_are_kept_with_the_fields_that_are_read(tmp_path):
    row = {"id": "x", "question": "q", "answers": [{"text": "a", "answer_start": 1}], "more": NAN}
    (kept,) = prepared(tmp_path, ANSWER, [row])
    assert kept == {key: row[key] for key in ("id", "question", "answers")}
    (example,) = build([kept], task(tmp_path, ANSWER), "en")
    assert (example.golds, example.item) == (("a",), "x")
    about = read_json(tmp_path / "about.json")
    assert (about["rows"], about["of"]) == (1, 1)
    ((path, checksum),) = about["source"]["files"].items()
    assert path.endswith("en.jsonl") and len(checksum) == 64


def test_options_in_a_list_and_a_list_that_is_too_short(tmp_path):
    text = CHOICE.replace("[start, right, wrong]", "[start, options, right]")
    text = text.replace('["{right}", "{wrong}"]', '["{options[0]}", "{options[1]}"]')
    made = task(tmp_path, text)
    row = {"start": "s", "options": ["a", "b"], "right": "b"}
    (example,) = build([row], made, "en")
    assert (example.choices, example.label) == (("a", "b"), 1)
    for options in (["a"], "ab"[:1], None, 3):
        with pytest.raises(InputError, match=r"row 1, field 'options'.*options\[[01]\]|text or a"):
            build([row | {"options": options}], made, "en")


def test_a_folder_with_splits_is_refused_by_name(tmp_path):
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([{"question": "q", "answers": "a"}])
    DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "en")
    source = {"kind": "folder", "path": str(tmp_path / "{lang}")}
    made = task(tmp_path, ANSWER)
    with pytest.raises(InputError, match="source.path: .*/en holds the splits train, test; name"):
        prepare_task(made, source, "en", tmp_path / "out.jsonl")
    source["path"] += "/test"
    prepare_task(made, source, "en", tmp_path / "out.jsonl")
    assert read_jsonl(tmp_path / "out.jsonl") == [{"question": "q", "answers": "a"}]
    with pytest.raises(InputError, match="source.path: .*/none is not a folder that"):
        prepare_task(made, source | {"path": str(tmp_path / "none")}, "en", tmp_path / "o")


def test_class_labels_and_columns_of_a_folder(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = {"start": Value("string"), "right": ClassLabel(names=["no", "yes"])}
    features |= {"seen": Value("timestamp[s]")}
    rows = [{"start": "s", "right": 1, "seen": datetime(2023, 5, 3)}]
    Dataset.from_list(rows, features=Features(features)).save_to_disk(tmp_path / "en")
    text = CHOICE.replace("[start, right, wrong]", "[start, right]").replace(
        '["{right}", "{wrong}"]', '["w1", "w2"]'
    )
    source = {"kind": "folder", "path": str(tmp_path / "{lang}")}
    prepare_task(task(tmp_path, text), source, "en", tmp_path / "out.jsonl")
    assert read_jsonl(tmp_path / "out.jsonl") == [{"start": "s", "right": 1}]
    dated = text.replace("[start, right]", "[start, right, seen]")
    with pytest.raises(InputError, match=r"row 1, field 'seen' is .*of type datetime. Expected:"):
        prepare_task(task(tmp_path, dated), source, "en", tmp_path / "o.jsonl")


@pytest.mark.parametrize(
    "path, words",
    [
        ("{language}.jsonl", r"'\{language\}' is not a known brace; known: \{lang\}, \{code\}"),
        ("{}.jsonl", r"'\{\}' is not a known brace"),
        ("{lang:>3}.jsonl", "is not a known brace"),
        ("{lang.jsonl", "a brace without its other half"),
        ("lang}.jsonl", "a brace without its other half"),
    ],
)
def test_a_brace_that_nobody_fills_is_named(tmp_path, path, words):
    made = task(tmp_path, ANSWER)
    with pytest.raises(ConfigError, match=f"tasks.toy.source.path: .*{words}"):
        fetch_rows(made, {"kind": "jsonl", "path": path}, "en")


# Corpora, facts, questions ------------------------------------------------------------------------


def corpus(tmp_path, rows, **source):
    (tmp_path / "xx.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"kind": "jsonl", "path": str(tmp_path / "{lang}.jsonl")} | source
    made = CorpusConfig.model_validate({"source": source, "heldout_fraction": 0.3})
    fetch_text(made, "xx", tmp_path / "out", tmp_path / "about")
    return read_jsonl(tmp_path / "out")


def test_doubled_identifiers_name_both_rows(tmp_path):
    rows = [{"id": f"d{i}", "text": f"w{i}"} for i in range(30)]
    assert len(corpus(tmp_path, rows, id_field="id")) == 30
    rows[7]["id"] = "d3"
    with pytest.raises(InputError, match="xx.jsonl, line 8: id 'd3' is that of .*, line 4 as well"):
        corpus(tmp_path, rows, id_field="id")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"id": None}, "line 3, field 'id' is null. Expected: an identifier"),
        ({"text": 7}, "line 3, field 'text' is 7, a number. Expected: text or null"),
        ({"text": ["a"]}, r"line 3, field 'text' is \[.a.\], a list"),
        ({"text": "\ud83d"}, "line 3, field 'text': .*half of a surrogate pair"),
    ],
)
def test_bad_documents_are_named(tmp_path, change, words):
    rows = [{"id": i, "text": f"w{i}"} for i in range(30)]
    rows[2] |= change
    with pytest.raises(InputError, match=words):
        corpus(tmp_path, rows, id_field="id")
    assert not (tmp_path / "out").exists()


def test_what_is_dropped_is_counted(tmp_path, caplog):
    rows = [{"text": f"w{i}"} for i in range(30)]
    rows += [{"text": " "}, {"text": None}, {"text": " w3\n"}]
    with caplog.at_level(logging.INFO):
        assert len(corpus(tmp_path, rows)) == 30
    assert read_json(tmp_path / "about")["dropped"] == {"blank": 2, "doubled": 1, "nul": 0}
    assert "dropped: 2 blank, 1 doubled" in caplog.text


def test_a_mark_at_the_beginning_is_no_part_of_the_first_document(tmp_path):
    (tmp_path / "xx").write_bytes(BOM + "\n".join(f"w{i}" for i in range(30)).encode())
    made = CorpusConfig(source={"kind": "text", "path": str(tmp_path / "{lang}")})
    fetch_text(made.model_copy(update={"heldout_fraction": 0.3}), "xx", tmp_path / "out")
    assert read_jsonl(tmp_path / "out")[0]["text"] == "w0"


def test_facts_and_questions_with_odd_fields_are_named(tmp_path):
    fact = {"template": "[X] [Y]", "sub_en": "S", "obj_en": "O", "predicate_id": 7}
    (one,) = read_facts([fact], "en")
    assert one["predicate"] == "7"
    for change, words in (
        ({"sub_en": 7}, "row 1, field 'sub_en' is 7, a number"),
        ({"obj_fr": ["a"]}, "row 1, field 'obj_fr' is .*a list"),
        ({"predicate_id": None}, "row 1, field 'predicate_id' is null"),
        ({"id": NAN}, "row 1, field 'id' is NaN"),
    ):
        with pytest.raises(InputError, match=f"facts in en, {words}"):
            read_facts([fact | change], "en")
    path = tmp_path / "en.jsonl"
    for row, words in (
        ({"id": 1, "question": 7}, "line 1, field 'question' is 7, a number"),
        ({"id": 1, "question": None}, "line 1, field 'question' is null"),
        ({"id": None, "question": "q"}, "line 1, field 'id' is null"),
    ):
        path.write_bytes(BOM + json.dumps(row).encode())
        with pytest.raises(InputError, match=re.escape(str(path)) + f", {words}"):
            read_questions({"kind": "jsonl", "path": str(tmp_path / "{lang}.jsonl")}, "en")


@pytest.mark.parametrize(
    "value",
    [
        '["a", "b"]',
        "['a', 'b']",
        "['a' 'b']",
        '{"text": ["a"], "answer_start": [5]}',
        "{'text': ['a'], 'answer_start': [5]}",
        "{'text': array(['a'], dtype=object), 'answer_start': array([5], dtype=int32)}",
        "[{'text': 'a'}]",
        " [null] ",
        "[]",
    ],
)
def test_an_answer_that_spells_a_list_is_refused(value):
    for given in (value, {"text": value}):
        with pytest.raises(InputError) as caught:
            typed.answers(given, "file, line 3", "answers")
        assert "file, line 3, field 'answers'" in str(caught.value)
        assert "is text that spells a list or an object. Give the list itself." in str(caught.value)
    assert typed.answers([value], "file, line 3", "answers") == (value,)


@pytest.mark.parametrize(
    "value", ["[1]", "[0, 1.5]", "[sic]", "{x}", "{1, 2}", "(1, 2)", "[a] b [c]"]
)
def test_an_answer_in_brackets_is_an_answer(value):
    assert typed.answers(value, "row 1", "answers") == (value,)


def test_a_nul_and_nested_values_are_named_by_row_and_field():
    with pytest.raises(InputError, match="row 4, field 'x': .* holds a NUL character"):
        typed.text("a\0b", "row 4", "x")
    with pytest.raises(InputError, match="row 4, field 'x': .* holds half of a surrogate"):
        typed.as_json({"a": {"\ud83d": 1}}, "row 4", "x")
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError, match="row 4, field 'x': the value is nested too deeply"):
        typed.as_json(deep, "row 4", "x")
    with pytest.raises(InputError, match="no field 'id'.* begins with a byte order mark"):
        typed.need({"\ufeffid": 1}, "id", "row 1")
