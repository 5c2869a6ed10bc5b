"""Task definitions, prompts, scoring, and the rows they are fed."""

import json
from pathlib import Path

import pytest
from tiny import tiny_model, tiny_tokenizer

from langneurons import tasks
from langneurons.errors import ConfigError
from langneurons.scoring import loglikelihood

DEFINITIONS = Path(__file__).parent.parent / "config" / "tasks"
CHOICE = """
name: toy
kind: multiple_choice
fields: [premise, label]
context: "{premise:unstopped} {link}"
choices: ["w1 w2", "w3"]
gold: label
metrics: [accuracy]
words: {en: {link: w9}}
"""


def definition(tmp_path, text=CHOICE):
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    return path


def test_shipped_prompts_by_hand():
    xnli = tasks.load_task(DEFINITIONS / "xnli.yaml")
    row = {"premise": "It rains", "hypothesis": "it is wet", "label": 0}
    (example,) = tasks.build([row], xnli, "en")
    assert example.context == ""
    assert example.choices[1] == "It rains, right? Also, it is wet"
    assert tasks.build([row], xnli, "zh")[0].choices[2] == "It rains, 正确? 不是的, it is wet"
    xcopa = tasks.load_task(DEFINITIONS / "xcopa.yaml")
    row = {"premise": "Anh ngã.", "choice1": "Đường trơn.", "choice2": "Trời mưa.", "idx": 7}
    (example,) = tasks.build([row | {"question": "cause", "label": 0}], xcopa, "vi")
    assert (example.item, example.context) == ("7", "Anh ngã bởi vì")
    assert example.choices == ("đường trơn.", "trời mưa.")
    xquad = tasks.load_task(DEFINITIONS / "xquad.yaml")
    row = {"id": "a", "context": "C", "question": "Q", "answers": {"text": ["x"]}}
    (example,) = tasks.build([row], xquad, "en")
    assert example.context == "Context: C\n\nQuestion: Q\n\nAnswer:" and example.golds == ("x",)


@pytest.mark.parametrize("name", ("xnli", "xcopa", "xquad"))
@pytest.mark.parametrize("lang", ("en", "vi", "hi", "ur", "zh"))
def test_mini_items_fit_their_definition(name, lang):
    task = tasks.load_task(DEFINITIONS / f"{name}.yaml")
    rows = tasks.fetch_rows(task, {"kind": "mini"}, lang)
    examples = tasks.build(rows, task, lang)
    assert len(examples) == {"xnli": 60, "xcopa": 40, "xquad": 40}[name]
    assert len({example.item for example in examples}) == len(examples)


def test_choices_are_scored_by_loglikelihood(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    task = tasks.load_task(definition(tmp_path))
    rows = [{"premise": f"w{i} w{i + 1}.", "label": i % 2} for i in range(6)]
    frame = tasks.score_task(model, tokenizer, task, "en", rows, 40)
    for i, record in enumerate(frame.to_dict("records")):
        context = f"w{i} w{i + 1} w9"
        pairs = [(context, " w1 w2"), (context, " w3")]
        first, second = (value for value, _ in loglikelihood(model, tokenizer, pairs, 40))
        best = int(second > first)
        assert record["prediction"] == str(best) and record["accuracy"] == float(best == i % 2)
    again = tasks.score_task(model, tokenizer, task, "en", rows, 10_000)
    assert again.equals(frame)


def test_answers_are_generated_and_scored():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    task = tasks.load_task(DEFINITIONS / "xquad.yaml")
    row = {"id": "a", "context": "w1 w2", "question": "w3", "answers": {"text": ["w1"]}}
    frame = tasks.score_task(model, tokenizer, task, "en", [row, row | {"id": "b"}], 400)
    assert list(frame["item"]) == ["a", "b"]
    assert (
        frame[["exact_match", "f1"]].isin([0.0, 1.0]).all().all() or frame["f1"].between(0, 1).all()
    )
    assert frame["prediction"].nunique() == 1


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("metrics: [accuracy]", "metrics: [f1]", "f1"),
        ("kind: multiple_choice", "kind: multiple", "kind"),
        ('choices: ["w1 w2", "w3"]', 'choices: ["w1"]', "two or more choices"),
        ("gold: label", "gold: label\ncolour: red", "colour"),
        ("name: toy", "name: [toy", "line"),
    ],
)
def test_mistakes_in_definitions_are_named(tmp_path, old, new, words):
    path = definition(tmp_path, CHOICE.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        tasks.load_task(path)
    assert words in str(caught.value) and "toy.yaml" in str(caught.value)


def test_missing_fields_and_languages_are_named(tmp_path):
    task = tasks.load_task(definition(tmp_path))
    with pytest.raises(ValueError, match="row 2: no field 'label'"):
        tasks.build([{"premise": "w1.", "label": 0}, {"premise": "w1."}], task, "en")
    with pytest.raises(ConfigError, match="'em'.*known: en.*Did you mean 'en'"):
        tasks.build([], task, "em")


def test_local_rows_are_prepared_and_limited(tmp_path):
    task = tasks.load_task(definition(tmp_path))
    rows = [{"premise": "w1.", "label": 0}, {"premise": "w2.", "label": 1}]
    (tmp_path / "en.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"kind": "jsonl", "path": str(tmp_path / "{lang}.jsonl")}
    tasks.prepare_task(task, source, "en", tmp_path / "out.jsonl", limit=1)
    assert (tmp_path / "out.jsonl").read_text() == json.dumps(rows[0]) + "\n"
    with pytest.raises(FileNotFoundError, match="tasks.toy.source.path"):
        tasks.prepare_task(task, source | {"path": "no/{lang}.jsonl"}, "en", tmp_path / "x")
