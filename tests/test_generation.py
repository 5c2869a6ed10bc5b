"""Language forcing and fallback on tiny models: every answer against one made by itself."""

import json

import numpy as np
import pandas as pd
import pytest
from test_interventions import write
from tiny import tiny_model, tiny_tokenizer

from langneurons.base.store import SideStore
from langneurons.data.questions import plain_prompt, prepare_questions, read_questions
from langneurons.evaluation.forcing import cumulative, fall_back, force
from langneurons.evaluation.run import Run
from langneurons.evaluation.texts import judged
from langneurons.interventions.plan import Plan
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.generation import generate

FIRST, SECOND = np.arange(0, 24), np.arange(12, 40)
DECODING = {
    "template": "w9 {question}",
    "max_new_tokens": 6,
    "repetition_penalty": 1.2,
    "stop": ["w77"],
}
QUESTIONS = {
    "aa": [{"id": "q1", "question": "w1 w2"}, {"id": "q2", "question": "w3 w4 w5 w6 w7"}],
    "bb": [{"id": "q1", "question": "w4"}],
}
PLANS = {
    ("aa", "aa"): Plan("x", [write("add", 3.0, 1, index=FIRST)]),
    ("aa", "bb"): Plan("x", [write("set", 0.0, 1, index=FIRST), write("add", 3, 1, index=SECOND)]),
    ("bb", "aa"): Plan("x", [write("set", 0.0, 1, index=SECOND), write("add", 3, 1, index=FIRST)]),
    ("bb", "bb"): Plan("x"),
}


def forced(model, store, budget=100, plans=PLANS, decoding=DECODING):
    run = Run(LanguageModel(model, tiny_tokenizer()), store, {"model": "tiny", "code": "1"}, budget)
    return force(run, QUESTIONS, plans, decoding)


def by_itself(model, question, plan, decoding=DECODING):
    """Return the answer to one question under one plan."""
    text = decoding["template"].format(question=question)
    (answer,) = generate(
        LanguageModel(model, tiny_tokenizer()),
        [text],
        Decoding(decoding["max_new_tokens"], decoding["stop"], decoding["repetition_penalty"]),
        1,
        under=plan,
    )
    return answer


def test_every_pair_equals_its_own_run_in_any_batch(tmp_path):
    model = tiny_model("llama")
    expected = {
        (source, target, row["id"]): by_itself(
            model, row["question"], PLANS.get((source, target), Plan("none"))
        )
        for source, rows in QUESTIONS.items()
        for target in ("none", "aa", "bb")
        for row in rows
    }
    assert len(set(expected.values())) > 4
    for budget in (1, 40, 10_000):
        frame = forced(model, SideStore(tmp_path / str(budget), "generation"), budget)
        assert len(frame) == 9
        found = frame.set_index(["source", "target", "id"])["text"].to_dict()
        assert found == expected
    assert frame["tokens"].tolist() == [len(text.split()) for text in frame["text"]]


def test_finished_pairs_are_not_decoded_again(tmp_path):
    model, calls = tiny_model("llama"), []
    MlpSites(model).backbone.register_forward_hook(lambda *_: calls.append(1))
    store = SideStore(tmp_path, "generation")
    first = forced(model, store, plans={("aa", "aa"): PLANS["aa", "aa"]})
    n = len(calls)
    again = forced(model, store, plans={("aa", "aa"): PLANS["aa", "aa"]})
    assert len(calls) == n
    pd.testing.assert_frame_equal(first, again)
    everything = forced(model, store)
    assert len(calls) > n
    of = everything[everything["target"].isin(["none", "aa"]) & (everything["source"] == "aa")]
    kept = first[first["source"] == "aa"]
    assert of["text"].tolist() == kept["text"].tolist()
    # A plan that writes nothing is the untouched model, and costs nothing.
    n = len(calls)
    same = forced(model, store, plans={("bb", "aa"): Plan("empty")})
    assert len(calls) == n
    texts = same[same["source"] == "bb"].set_index("target")["text"]
    assert texts["aa"] == texts["none"]


def test_longer_answers_are_decoded_anew(tmp_path):
    model, store = tiny_model("llama"), SideStore(tmp_path, "generation")
    short = forced(model, store)
    long = forced(model, store, decoding=DECODING | {"max_new_tokens": 12})
    assert (long["tokens"] >= short["tokens"]).all() and (long["tokens"] > short["tokens"]).any()
    pairs = zip(long["text"], short["text"], strict=True)
    assert all(one.startswith(other.rstrip()) for one, other in pairs)


def test_cumulative_steps_are_unions_in_which_the_first_owner_writes():
    plans = [
        ("aa", Plan("x", [write("set", 1.0, 0, index=FIRST), write("add", 5.0, 0, index=FIRST)])),
        ("bb", Plan("x", [write("set", 2.0, 0, index=SECOND), write("set", 2.0, 1, index=SECOND)])),
        ("cc", Plan("x")),
        ("dd", Plan("x", [write("set", 3.0, 0, index=np.arange(48))])),
    ]
    steps = cumulative(plans)
    assert [langs for langs, _ in steps] == [
        [],
        ["aa"],
        ["aa", "bb"],
        ["aa", "bb", "cc"],
        ["aa", "bb", "cc", "dd"],
    ]
    sizes = [plan.neurons for _, plan in steps]
    union = len(set(FIRST) | set(SECOND))
    assert sizes == [0, len(FIRST), union + len(SECOND), union + len(SECOND), 48 + len(SECOND)]

    def value_of(plan, layer):
        values = np.full(48, np.nan)
        for one in plan.writes:
            if one.layer == layer:
                old = values[one.index]
                values[one.index] = one.value if one.operation == "set" else old + one.value
        return values

    # 1 + 5 where aa owns, 2 where bb owns alone, 3 for the rest.
    expected = np.full(48, 3.0)
    expected[SECOND] = 2.0
    expected[FIRST] = 6.0
    np.testing.assert_array_equal(value_of(steps[-1][1], 0), expected)


def test_cumulative_zero_does_not_depend_on_the_order_of_languages():
    model = tiny_model("llama")
    one = ("aa", Plan("zero", [write("set", 0.0, 1, index=FIRST)]))
    two = ("bb", Plan("zero", [write("set", 0.0, 1, index=SECOND)]))
    last = [cumulative(order)[-1][1] for order in ([one, two], [two, one])]
    joint = Plan("zero", [write("set", 0.0, 1, index=np.union1d(FIRST, SECOND))])
    answers = {by_itself(model, "w1 w2 w3", plan) for plan in (*last, joint)}
    assert len(answers) == 1


def test_fallback_begins_with_the_untouched_model(tmp_path):
    model = tiny_model("llama")
    plans = [
        ("aa", Plan("zero", [write("set", 4.0, 1, index=FIRST)])),
        ("bb", Plan("zero", [write("set", 4.0, 1, index=SECOND)])),
    ]
    lm, store = LanguageModel(model, tiny_tokenizer()), SideStore(tmp_path, "generation")
    run = Run(lm, store, {"model": "tiny"}, 50)
    frame = fall_back(run, QUESTIONS["aa"], cumulative(plans), DECODING)
    assert frame["step"].tolist() == [0, 0, 1, 1, 2, 2]
    assert frame["deactivated"].tolist() == ["none"] * 2 + ["aa"] * 2 + ["aa,bb"] * 2
    assert frame["neurons"].tolist() == [0] * 2 + [24] * 2 + [40] * 2
    for row in frame[frame["step"] == 0].itertuples():
        assert row.text == by_itself(model, row.question, Plan("none"))


def test_texts_are_judged():
    frame = pd.DataFrame(
        {
            "text": [
                "Les bateaux rentrent au port avant la nuit.",
                "noch noch noch noch noch noch noch",
                "  \n",
            ]
        }
    )
    found = judged(frame, {"kind": "py3langid"}, 0.5)
    assert found["identified"].tolist()[::2] == ["fr", "und"]
    assert found["degenerate"].tolist() == [False, True, True]
    assert found["empty"].tolist() == [False, False, True]
    assert {"distinct_1", "distinct_2", "repetition", "run", "compression"} <= set(found)


# Questions ----------------------------------------------------------------------------------------


def jsonl(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return {"kind": "jsonl", "path": str(path.parent / "{lang}.jsonl")}


def test_questions_are_written_with_their_language(tmp_path):
    rows = [{"id": 1, "question": " Why? "}, {"id": 2, "question": "{How}?", "more": 0}]
    source = jsonl(tmp_path / "en.jsonl", rows)
    prepare_questions(source, "en", 1, tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {
        "id": "1",
        "question": "Why?",
        "lang": "en",
    }
    # Braces of a question stand for themselves.
    asked = read_questions(source, "en")[0][1]
    assert plain_prompt(asked, "Q: {question}\nA:") == "Q: {How}?\nA:"


@pytest.mark.parametrize(
    "rows, words",
    [
        ([{"id": 1, "text": "?"}], "line 1: no field 'question'; fields: id, text"),
        (
            [{"id": 1, "question": "a"}, {"id": 1, "question": "b"}],
            "line 2: id '1' is that of .*line 1 as well",
        ),
        (
            [{"id": 1, "question": " "}],
            "field 'question' is .*a question that is not blank",
        ),
    ],
)
def test_bad_questions_are_named(tmp_path, rows, words):
    source = jsonl(tmp_path / "en.jsonl", rows)
    with pytest.raises(ValueError, match=words):
        read_questions(source, "en")


def test_missing_questions_are_named(tmp_path):
    source = {"kind": "jsonl", "path": str(tmp_path / "{lang}.jsonl")}
    with pytest.raises(FileNotFoundError, match=r"xx\.jsonl does not exist"):
        read_questions(source, "xx")
