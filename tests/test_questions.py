"""Questions in text and CSV files, parts of a benchmark, and languages asked with themselves."""

import json

import pandas as pd
import pytest
from inprocess import run as run_graph
from test_answers import configured
from test_workflow import save_tiny_model

from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import read_parquet
from langneurons.config import build
from langneurons.data.questions import prepare_questions, read_questions
from langneurons.jobs.files import check_files

PARTS = {"kind": "csv", "path": "{part}/{lang}.csv", "question_field": "prompt"}


def test_a_line_is_a_question_and_its_number_the_identifier(tmp_path):
    (tmp_path / "en.txt").write_bytes(b"\xef\xbb\xbfWhy?\r\n\n  Who? \n")
    (tmp_path / "fr.txt").write_text("Pourquoi ?\nQui ?\n")
    source = {"kind": "text", "path": str(tmp_path / "{lang}.txt")}
    rows, origin = read_questions(source, "en")
    assert rows == [{"id": "1", "question": "Why?"}, {"id": "2", "question": "Who?"}]
    assert list(origin["files"]) == [str(tmp_path / "en.txt")]
    assert [row["id"] for row in read_questions(source, "fr")[0]] == ["1", "2"]
    assert len(read_questions(source, "en", 1)[0]) == 1


def test_questions_that_stand_twice_are_counted(tmp_path, caplog):
    (tmp_path / "en.txt").write_text("Why?\nWho?\nWhy?\n")
    source = {"kind": "text", "path": str(tmp_path / "{lang}.txt")}
    prepare_questions(source, "en", None, tmp_path / "en.jsonl", tmp_path / "en.json")
    assert json.loads((tmp_path / "en.json").read_text())["doubled"] == 1
    assert "en: 1 questions are asked again" in caplog.text


def laid(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return PARTS | {"path": str(folder / "{part}/{lang}.csv"), "parts": ["mono/a", "cross"]}


def test_cells_with_commas_quotes_and_lines_are_read_and_parts_joined(tmp_path):
    text = 'prompt,language\n"Say ""a, b""\nand c.",en\n\nWho?,en\nWhen?,en\n'
    source = laid(tmp_path, {"mono/a/en.csv": text, "cross/fr.csv": "prompt\nQui ?\n"})
    rows, origin = read_questions(source, "en", 2)
    assert rows == [
        {"id": "mono/a/1", "question": 'Say "a, b"\nand c.', "part": "mono/a"},
        {"id": "mono/a/2", "question": "Who?", "part": "mono/a"},
    ]
    assert len(origin["files"]) == 1
    assert read_questions(source, "fr")[0][0]["id"] == "cross/1"
    assert read_questions(source, "de")[0] == []
    named = source | {"id_field": "language", "question_field": "prompt"}
    with pytest.raises(InputError, match="line 5: id 'mono/a/en' is that of .*line 2 as well"):
        read_questions(named, "en")


@pytest.mark.parametrize(
    "text, said",
    [
        ("question\nWhy?\n", "line 2: no field 'prompt'; fields: question"),
        ("prompt,b\nWhy?\n", "line 2: 1 cells; line 1 names 2 columns"),
        ("prompt,prompt\na,b\n", "column 'prompt' stands there twice"),
        ('prompt\n"Why?\n', "not CSV"),
        ("prompt;b\nWhy?;x\n", "line 1: cells are separated by ';'. Expected: commas"),
        ("prompt,b\n  ,x\n", "line 2, field 'prompt'"),
    ],
)
def test_what_is_no_table_of_questions_is_named(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        read_questions(laid(tmp_path, {"mono/a/en.csv": text}), "en")


def asking(folder, **changes) -> dict:
    """Return a configuration that asks two languages with themselves, in parts."""
    words = "prompt,x\n" + "".join(f"What is {number}?,1\n" for number in range(9))
    source = laid(folder, {"mono/a/en.csv": words, "mono/a/vi.csv": words, "cross/vi.csv": words})
    config = configured(questions=source, pairs="same")
    answers = config["answers"]
    del answers["limit"], answers["sources"]
    answers["methods"] = {
        "asked": answers["methods"]["asked"],
        "lape": answers["methods"]["lape"],
    }
    answers |= {"targets": ["en", "vi"], "sources": ["en", "vi"]} | changes
    return config


def test_a_benchmark_in_parts_ends_in_a_table_of_parts(tmp_path):
    save_tiny_model(tmp_path / "tiny-model")
    (tmp_path / "tiny.yaml").write_text(json.dumps(asking(tmp_path)))
    tables = tmp_path / "results/tables/tiny"
    done = run_graph(tmp_path, tmp_path / "tiny.yaml", ("results/reports/tiny.html",))
    assert done.count("answer_test") == 2
    frame, _ = read_parquet(
        tmp_path / "results/tiny/answers/corrected/en-hi-vi/lape/test.scored.parquet"
    )
    own = frame[frame["target"] != "none"]
    assert (own["source"] == own["target"]).all() and set(frame["part"]) == {"mono/a", "cross"}
    parts = pd.read_csv(tables / "answer_parts.csv")
    found = parts[parts["method"] == "LAPE"].set_index(["part", "target"])["answers"]
    counts = own[own["draw"] < 0].groupby(["part", "target"]).size()
    assert found.drop("all", level="target").to_dict() == counts.to_dict()
    assert found["mono/a", "all"] == counts["mono/a"].sum()
    summary = pd.read_csv(tables / "answers_summary.csv")
    assert "itself" not in summary and (summary["answers"] == len(own[own["draw"] < 0])).all()
    drawn = tmp_path / "results/figures/tiny/tiny/corrected/three/answers.svg"
    score = summary.set_index("method").loc["LAPE", "score"]
    assert f"LAPE, {score:.3g}" in drawn.read_text()  # what a reader sees where the pointer is
    page = (tmp_path / "results/reports/tiny.html").read_text()
    assert "Answers by part" in page and "harmonic mean" in page


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"sources": ["en"]}, "answers.pairs: same asks every language with itself, but vi"),
        ({"pairs": "both"}, "answers.pairs"),
        ({"questions": PARTS}, "parts: missing"),
        ({"questions": PARTS | {"path": "{lang}.csv", "parts": ["a"]}}, "lacks {part}"),
        ({"questions": PARTS | {"path": "{part}.csv", "parts": ["a"]}}, "lacks {lang}"),
        ({"questions": PARTS | {"parts": ["a", "a/"]}}, "a listed more than once"),
        ({"second_identifier": {"kind": "py3langid"}}, "the same as `identifier`"),
        ({"questions": {"kind": "text", "path": "{code}.txt"}}, "{code} is not legal"),
    ],
)
def test_questions_that_cannot_be_asked_so_are_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        build(asking(tmp_path, **changes))


def test_files_of_parts_are_looked_at_before_a_job(tmp_path):
    save_tiny_model(tmp_path / "tiny-model")
    config = asking(tmp_path)
    config["models"] = {"tiny": {"source": {"kind": "local", "path": str(tmp_path / "tiny-model")}}}
    check_files(build(config), tmp_path)
    (tmp_path / "cross/vi.csv").write_text("prompt\nWhy?\n")
    config["answers"]["development"] = 0.6
    with pytest.raises(ConfigError, match="leaves the part 'cross' without a test question"):
        check_files(build(config), tmp_path)
    config["answers"]["questions"]["parts"] = ["mono/a", "crosss"]
    with pytest.raises(ConfigError, match="crosss/en.csv.*no such file.*no folder.*'cross'"):
        check_files(build(config), tmp_path)
    config["answers"]["questions"]["parts"] = ["cross"]
    with pytest.raises(ConfigError, match=r"cross/en\.csv, language en.*no such file"):
        check_files(build(config), tmp_path)
    (tmp_path / "cross/en.csv").write_text("prompt,x\nWhy?,1\nWho?\n")
    with pytest.raises(ConfigError, match=r"cross/en\.csv, line 3: 1 cells"):  # not the first row
        check_files(build(config), tmp_path)
    (tmp_path / "words").write_text("The\nsea\n")
    for name, said in (("none", "no such file"), ("words", "no word of 4 or more letters")):
        config["answers"]["english_words"] = str(tmp_path / name)
        with pytest.raises(ConfigError, match=f"answers.english_words.*{said}"):
            check_files(build(config), tmp_path)
    config["answers"]["identifier"] = {"kind": "fasttext", "path": str(tmp_path / "words")}
    with pytest.raises(ConfigError, match="identifier.path.* is not a fastText model"):
        check_files(build(config), tmp_path)


def test_questions_told_by_their_number_are_parallel(tmp_path):
    save_tiny_model(tmp_path / "tiny-model")
    config = asking(tmp_path, pairs="all")
    config["models"] = {"tiny": {"source": {"kind": "local", "path": str(tmp_path / "tiny-model")}}}
    config["answers"]["questions"] = {"kind": "text", "path": str(tmp_path / "{lang}.txt")}
    (tmp_path / "en.txt").write_text("Why?\n" * 9)
    (tmp_path / "vi.txt").write_text("Sao?\n" * 8)
    with pytest.raises(ConfigError, match="9 questions in en, 8 in vi. Question n has to be"):
        check_files(build(config), tmp_path)
    config["answers"]["limit"] = 8
    check_files(build(config), tmp_path)


def test_parts_are_parallel_one_by_one(tmp_path):
    save_tiny_model(tmp_path / "tiny-model")
    config = asking(tmp_path, pairs="all")  # English lacks a part
    config["models"] = {"tiny": {"source": {"kind": "local", "path": str(tmp_path / "tiny-model")}}}
    check_files(build(config), tmp_path)
    for place, number in (("mono/a/vi", 5), ("cross/en", 5)):  # as many in all as the other
        words = "".join(f"What is {n}?,1\n" for n in range(number))
        (tmp_path / f"{place}.csv").write_text(f"prompt,x\n{words}")
    with pytest.raises(ConfigError, match="part 'mono/a': 9 questions in en, 5 in vi"):
        check_files(build(config), tmp_path)
