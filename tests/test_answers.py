"""Methods compared by answers: prompts, judge, scores, choice, tests, controls, tables."""

import itertools
import json
import math
import string

import numpy as np
import pandas as pd
import pytest
import torch
from chats import chat_tokenizer
from inprocess import run as run_graph
from test_chat import chat_model
from test_workflow import CONFIG, save_tiny_model

from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import read_parquet
from langneurons.base.store import SideStore
from langneurons.config import build
from langneurons.data.questions import plain_prompt
from langneurons.evaluation.answer_scores import (
    harmonic,
    kappa,
    main_script,
    overlap,
    printed_score,
    score_of,
    scored,
)
from langneurons.evaluation.answer_settings import DEVELOPMENT, TEST
from langneurons.evaluation.answers import (
    Setting,
    answer,
    choose,
    development_conditions,
    divided,
    instructed,
)
from langneurons.evaluation.answers import (
    test_conditions as conditions_of_the_test,
)
from langneurons.evaluation.forcing import conversation
from langneurons.evaluation.identification import identify
from langneurons.evaluation.judge import PROMPTS, _rating, rate
from langneurons.evaluation.run import Run
from langneurons.interventions.plan import Plan, Write, untouched
from langneurons.jobs.files import check_files
from langneurons.jobs.parameters import stage
from langneurons.models.chat import Chat
from langneurons.models.language_model import LanguageModel
from langneurons.reporting.tables.answers import (
    Answers,
    agreement,
    part_rows,
    printed_row,
    row_of,
)

RESULTS = {"bootstrap": 400, "confidence": 0.95, "seed": 0, "alpha": 0.05}
SETTINGS = {"identifier": {"kind": "py3langid"}, "degenerate": 0.5}
QUESTIONS = [{"id": f"q{n}", "question": f"What is {n}?"} for n in range(12)]


def working(model: LanguageModel, folder) -> Run:
    return Run(model, SideStore(folder, "answers"), {"model": "toy"}, 2048)


# Prompts ----------------------------------------------------------------------------------------


def test_an_instruction_and_turns_stand_where_they_are_asked_for():
    row, turns = {"id": "a", "question": "Why?"}, {"fr": [("Who?", "Moi.")]}
    prompt = {"instruction": "Answer in {language}.", "place": "after", "turns": turns}
    (own,) = instructed([row], prompt, "fr", "French")
    template = "Q: {question}\nA:"
    assert plain_prompt(own, template) == ("Q: Who?\nA: Moi.\n\nQ: Why?\nAnswer in French.\nA:")
    (before,) = instructed([row], prompt | {"place": "before", "turns": {}}, "fr", "French")
    assert plain_prompt(before, template) == "Q: Answer in French.\nWhy?\nA:"
    (native,) = instructed([row], prompt | {"instruction": {"fr": "En français."}}, "fr", "French")
    assert native["instruction"] == "En français."
    assert instructed([row], None, "fr", "French") == [row]


def test_a_conversation_holds_instruction_and_turns_as_messages():
    chat = Chat(chat_tokenizer("chatml"), system="Be kind.")
    row = {"id": "a", "question": "Why?", "instruction": "In French.", "turns": [["Who?", "Moi."]]}
    found = conversation(chat, row | {"place": "system"}, "{question}")
    assert [(one["role"], one["content"]) for one in found] == [
        ("system", "Be kind.\nIn French."),
        ("user", "Who?"),
        ("assistant", "Moi."),
        ("user", "Why?"),
    ]
    found = conversation(chat, row | {"place": "after"}, "{question}")
    assert found[0]["content"] == "Be kind." and found[-1]["content"] == "Why?\nIn French."


# Scores -----------------------------------------------------------------------------------------


def test_the_score_is_the_harmonic_mean_of_each_answer():
    forced, relevance = np.array([1.0, 1.0, 1.0, 0.0, 0.0]), np.array([1.0, 0.5, 0.0, 1.0, 0.0])
    assert harmonic(forced, relevance).tolist() == pytest.approx([1, 2 / 3, 0, 0, 0])
    # Half in the language and senseless, half relevant in another: the aggregates call it 50 %.
    forced, relevance = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert harmonic(forced, relevance).mean() == 0
    assert harmonic(forced.mean(), relevance.mean()) == pytest.approx(0.5)


def test_the_printed_score_takes_a_small_percentage_for_a_share():
    assert printed_score(60.0, 40.0) == pytest.approx(48.0)
    assert printed_score(0.9, 90.0) == pytest.approx(90.0)  # 0.9 per cent counts as 90
    assert printed_score(1.1, 90.0) == pytest.approx(2 * 1.1 * 90 / 91.1)
    assert printed_score(0.0, 0.0) == 0.0


def test_overlap_and_script_of_an_answer():
    assert overlap("what is the sea", "What is the sea?") == 1.0
    assert overlap("the sea is deep", "What is the sea?") == pytest.approx(1 / 3)
    assert overlap("", "What?") == 0.0 and overlap("yes", "What?") == 0.0
    assert main_script("नमस्ते world दुनिया") == "Deva" and main_script("12 !") == ""


def answered(texts, **more):
    rows = [{"id": f"q{n}", "question": "What is the sea made of?"} for n in range(len(texts))]
    return pd.DataFrame(rows).assign(text=texts, source="en", target="fr", **more)


def test_without_a_judge_degenerate_and_copied_answers_are_not_relevant():
    texts = [
        "La mer est faite d'eau et de sel, et elle est profonde.",
        "la la la la la la la la la la",
        "What is the sea made of",
        "",
    ]
    found = score_of(scored(answered(texts), SETTINGS, None), "fr")
    assert found["relevance"].tolist() == [1, 0, 0, 0]
    assert found["forced"].tolist()[0] == 1 and found["score"].tolist() == [1, 0, 0, 0]
    rated = score_of(scored(answered(texts), SETTINGS, np.array([1, 2, 0, 0])), "fr")
    assert rated["relevance"].tolist() == [0.5, 1, 0, 0]
    assert rated["score"][0] == pytest.approx(2 / 3)


def confused(text, lang, english):
    """Return (by lines, by words) as the benchmark's code does; None where it does not count."""
    bare = text.split("\nQ:")[0].strip().translate(str.maketrans("", "", string.punctuation))
    lines = [line for line in bare.replace("\u2014", " ").split("\n") if len(line.split()) >= 5]
    if not lines:
        return None, None
    if any(own != lang for own in identify(lines, SETTINGS["identifier"])):
        return False, None
    return True, not any(word in english for line in lines for word in line.split())


def test_lines_and_words_pass_as_in_the_benchmark(tmp_path):
    path = tmp_path / "words"
    path.write_text("salt\nthe\nSea\nwater\nagain\n")
    english = {"salt", "water", "again"}  # four letters and more, no capital
    hindi = "समुद्र का पानी बहुत खारा होता है"
    texts = [
        f"{hindi} क्योंकि उसमें salt घुला है।",
        f"{hindi} क्योंकि the Sea गहरा है।",
        f"{hindi}।\nThe sea is made of salt and of water.",
        f"{hindi}।\nYes, salt.\n{hindi}।",
        "salt water again",
        f"{hindi} water",
        f"{hindi} waterका घुला है।",  # a part of a word
        f"{hindi} क्योंकि 'water' और salt-water है।",
    ]
    settings = SETTINGS | {"english_words": str(path)}
    found = score_of(scored(answered(texts), settings, None), "hi")
    for number, text in enumerate(texts):
        by_line, by_word = confused(text, "hi", english)
        own = found.loc[number]
        assert own["line_pass"] == by_line or by_line is None and math.isnan(own["line_pass"])
        assert own["word_pass"] == by_word or by_word is None and math.isnan(own["word_pass"])
    assert {confused(text, "hi", english) for text in texts} == {
        *((True, True), (True, False), (False, None), (None, None)),
    }


def test_lines_and_words_of_an_answer():
    french, english = "La mer est faite d'eau et de sel.", "The sea is made of water and salt."
    hindi, mixed = "समुद्र का पानी खारा होता है।", "समुद्र का पानी खारा होता है क्योंकि salt है।"
    texts = [french, f"{french}\n{english}", f"{french}\nOui.\n\n{french}", hindi, mixed, ""]
    found = scored(answered(texts), SETTINGS, None)
    assert found["lines"].tolist() == ["fr", "fr,en", "fr,fr", "hi", "hi", ""]
    assert score_of(found, "fr")["line_pass"].tolist()[:5] == [1, 0, 1, 0, 0]
    assert math.isnan(score_of(found, "fr")["line_pass"][5])  # no line of words enough
    assert score_of(found, "fr")["word_pass"].isna().all()  # written in Latin letters itself
    own = score_of(found, "hi")
    assert own["line_pass"].tolist()[:5] == [0, 0, 0, 1, 1]
    assert own["word_pass"].dropna().tolist() == [1, 0]
    assert "identified_second" not in found
    both = scored(answered(texts), SETTINGS | {"second_identifier": {"kind": "py3langid"}}, None)
    assert (both["identified_second"] == both["identified"]).all()


# Judge ------------------------------------------------------------------------------------------


def test_kappa_is_that_of_a_count_by_hand():
    one = np.array([0, 0, 1, 1, 2, 2, 2, 0])
    other = np.array([0, 1, 1, 2, 2, 2, 0, 0])
    disagreement = np.mean((one - other) ** 2)
    pairs = [(a - b) ** 2 for a, b in itertools.product(one, other)]
    assert kappa(one, other) == pytest.approx(1 - disagreement / np.mean(pairs))
    assert kappa(one, one) == 1.0
    assert math.isnan(kappa(np.array([1, 1]), np.array([1, 1])))


def test_a_rating_is_the_likeliest_of_three_digits(tmp_path):
    model = chat_model("header", max_position_embeddings=2048)
    chat, pairs = Chat(model.tokenizer), [("Why?", "So."), ("Who?", "Me."), ("Why?", "So.")]
    for version, spoken in itertools.product(PROMPTS, (None, chat)):
        found = rate(working(model, tmp_path), pairs, version, spoken)
        assert found[0] == found[2]
        for (question, text), rating in zip(pairs, found, strict=True):
            asked = PROMPTS[version].format(question=question, answer=text)
            if spoken is None:
                ids = [model.tokenizer.bos_token_id, *_plain(model, asked)]
                replies = [" 0", " 1", " 2"]
            else:
                ids, replies = chat.tokens(chat.messages(asked)), ["0", "1", "2"]
            values = []
            for reply in replies:
                own = _plain(model, reply)
                logits = model.model(torch.tensor([[*ids, *own]])).logits[0].log_softmax(-1)
                places = range(len(ids) - 1, len(ids) + len(own) - 1)
                values.append(sum(float(logits[t, x]) for t, x in zip(places, own, strict=True)))
            assert rating == int(np.argmax(values))


def _plain(model, text):
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_drawn_ratings_follow_temperature_and_top_p():
    logits = np.log(np.array([0.1, 0.3, 0.6]))
    shares = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    assert shares[2] < 0.8  # so two ratings are kept
    drawn = [_rating(logits, (f"q{n}", "a"), 0) for n in range(4000)]
    kept = shares[[1, 2]] / shares[[1, 2]].sum()
    assert set(drawn) == {1, 2}
    assert np.mean(np.array(drawn) == 2) == pytest.approx(kept[1], abs=0.03)
    assert _rating(logits, ("q", "a"), None) == 2
    assert _rating(logits, ("q", "a"), 5) == _rating(logits, ("q", "a"), 5)


# Choice and test --------------------------------------------------------------------------------


def test_translations_of_a_question_fall_on_one_side():
    sources = {"en": QUESTIONS, "fr": [row | {"question": "Quoi ?"} for row in QUESTIONS]}
    found = divided(sources, 1 / 3, 0)
    for phase in (DEVELOPMENT, TEST):
        names = [[row["id"] for row in rows] for rows in found[phase].values()]
        assert names[0] == names[1] and names[0]
    assert sum(len(rows["en"]) for rows in found.values()) == len(QUESTIONS)
    with pytest.raises(InputError, match="falls to the development side"):
        divided({"en": QUESTIONS[:1] if found[TEST]["en"][0] is QUESTIONS[0] else []}, 0.01, 0)


def test_the_setting_with_the_best_mean_is_chosen_for_each_target():
    settings = [Setting("a", "x"), Setting("b", "x"), Setting(prompt="p")]
    rows = [
        {
            **{"source": "en", "target": target, "setting": number},
            **{"score": value, "forced": 1 - value},
        }
        for target, values in (("fr", (0.2, 0.5, 0.5)), ("vi", (0.4, 0.1, 0.3)))
        for number, value in enumerate(values)
        for _ in range(2)
    ]
    found = choose(pd.DataFrame(rows), ["fr", "vi"], settings, "score").set_index("target")
    assert found["setting"].to_dict() == {"fr": 1, "vi": 0}  # of equal ones the first
    assert found.loc["fr", "selection"] == "b" and (found["settings"] == 3).all()
    found = choose(pd.DataFrame(rows), ["fr", "vi"], settings, "forced").set_index("target")
    assert found["setting"].to_dict() == {"fr": 0, "vi": 1}
    # Answers to questions in the target itself count only where there are no others.
    itself = [row | {"source": row["target"], "score": 1 - row["score"]} for row in rows]
    found = choose(pd.DataFrame(rows + itself), ["fr", "vi"], settings, "score")
    assert found["setting"].tolist() == [1, 0]
    found = choose(pd.DataFrame(itself), ["fr", "vi"], settings, "score")
    assert found["setting"].tolist() == [0, 1]


def plan_on(neuron: int) -> Plan:
    return Plan(f"n{neuron}", [Write(1, "act", "set", np.array([neuron]), np.array([4.0]))])


def test_answers_are_those_of_each_condition_alone(tmp_path):
    """Conditions share batches; each gets what its prompt and its plan give alone."""
    from langneurons.scoring.decoding import Decoding
    from langneurons.scoring.generation import generate

    model = chat_model("header")
    settings = [Setting("a", "x"), Setting(prompt="p")]
    prompt = {"instruction": "In {language}.", "place": "before", "turns": {}}
    questions = {"en": QUESTIONS[:3]}

    def rows_of(setting, target, rows):
        return instructed(rows, prompt if setting.prompt else None, target, "French")

    def plan_of(setting, target, source):
        return plan_on(3) if setting.selection else untouched()

    how = {"template": "Q: {question}\nA:", "max_new_tokens": 5, "stop": [], "chat": None}
    how |= {"repetition_penalty": 1.0}
    asked = development_conditions(questions, ["fr"], settings, rows_of, plan_of)
    found = answer(working(model, tmp_path), asked, settings, how)
    assert len(found) == 6 and set(found["draw"]) == {-1}
    for number, setting in enumerate(settings):
        rows = rows_of(setting, "fr", QUESTIONS[:3])
        texts = [plain_prompt(row, how["template"]) for row in rows]
        alone = generate(model, texts, Decoding(5), 64, plan_of(setting, "fr", "en"))
        assert found[found["setting"] == number]["text"].tolist() == alone
    draws = [plan_on(n) for n in (5, 7)]
    asked = conditions_of_the_test(
        questions, {"fr": 0}, settings, rows_of, plan_of, lambda *_: draws
    )
    found = answer(working(model, tmp_path), asked, settings, how)
    control = found[found["draw"] >= 0]
    assert sorted(control["id"]) == ["q0", "q1", "q2"]  # together each question once
    assert control.groupby("draw")["id"].apply(list).to_dict() == {0: ["q0", "q2"], 1: ["q1"]}
    alone = generate(model, ["Q: What is 1?\nA:"], Decoding(5), 64, plan_on(7))
    assert control[control["draw"] == 1]["text"].tolist() == alone
    plain = found[found["target"] == "none"]
    assert plain["text"].tolist() == generate(
        model, [f"Q: What is {n}?\nA:" for n in range(3)], Decoding(5), 64
    )


# Tables -----------------------------------------------------------------------------------------


def invented(shift: float = 0.0):
    """Return scored answers in which French is forced with a known rate, and their metadata."""
    generator, rows = np.random.default_rng(0), []
    for source, number in itertools.product(("en", "fr", "vi"), range(40)):
        for target, draw, share in (("none", -1, 0.1), ("fr", -1, 0.7), ("fr", number % 4, 0.2)):
            hit = generator.random() < share
            rows.append(
                {
                    **{"source": source, "target": target, "draw": draw, "id": f"q{number}"},
                    **{"part": "long" if number % 2 else "short"},
                    **{"identified": "fr" if hit else "en", "degenerate": False, "cut": 0},
                    **{"lines": "fr" if hit else "fr,en", "latin": 5},
                    **{"relevance": float(generator.choice([0.5, 1.0])), "setting": 0},
                }
            )
    chosen = [{"target": "fr", "setting": 0, "settings": 2, "selection": "a"}]
    chosen[0] |= {"intervention": "x", "prompt": ""}
    return pd.DataFrame(rows), {"chosen": chosen, "judge": None, "draws": 4}


def test_tables_say_what_was_put_in():
    frame, metadata = invented()
    answers = Answers(frame, metadata)
    parts = answers.parts("fr")
    assert sorted(parts["random"]["draw"].unique()) == [0, 1, 2, 3]
    row = row_of(parts, RESULTS)
    own = frame[(frame["target"] == "fr") & (frame["draw"] < 0)]
    foreign = own[own["source"] != "fr"]
    hits = (foreign["identified"] == "fr").to_numpy(float)
    wanted = 2 * hits * foreign["relevance"] / (hits + foreign["relevance"])
    assert row["score"] == pytest.approx(wanted.mean()) and row["answers"] == 80
    assert row["forced"] == pytest.approx(hits.mean()) and row["questions"] == 40
    assert row["low"] < row["score"] < row["high"]
    assert row["difference"] == pytest.approx(row["score"] - row["untouched"])
    assert row["p"] < 0.001 and row["difference_low"] > 0
    assert row["control"] < row["score"] and row["over_low"] > 0
    assert row["over_control"] == pytest.approx(row["score"] - row["control"])
    whole = own["identified"].eq("fr").mean(), own["relevance"].mean()
    row = printed_row(dict(row), parts, False, RESULTS)
    assert row["score"] == pytest.approx(2 * whole[0] * whole[1] / sum(whole))
    assert row["low"] < row["score"] < row["high"] and row["answers"] == 120


def test_pairs_of_a_language_with_itself_are_the_score_where_there_are_no_others():
    frame, metadata = invented()
    own = frame[(frame["source"] == frame["target"]) | (frame["target"] == "none")]
    answers = Answers(own, metadata)
    row = row_of(answers.parts("fr"), RESULTS)
    itself = own[(own["target"] == "fr") & (own["draw"] < 0)]
    assert row["answers"] == len(itself) == 40
    assert row["forced"] == pytest.approx((itself["identified"] == "fr").mean())
    before = own[(own["target"] == "none") & (own["source"] == "fr")]  # the same questions only
    assert row["untouched_line_pass"] == pytest.approx((before["lines"] == "fr").mean())
    assert math.isnan(row["itself"])
    by_part = part_rows(answers.parts("fr"), RESULTS).set_index(["part", "target"])
    assert set(by_part.index) == set(itertools.product(("long", "short"), ("all", "fr")))
    assert (by_part["answers"] == 20).all()
    long = itself[itself["part"] == "long"]
    assert by_part.loc[("long", "fr"), "line_pass"] == (long["lines"] == "fr").mean()


def test_questions_of_some_languages_only_weigh_as_in_the_score():
    """The second language has a part that the first lacks, as languages of a benchmark do."""
    generator = np.random.default_rng(1)
    rows = []
    for lang, names in (("en", "abcdefgh"), ("fr", "abcdefghijklmnop")):
        for name, (target, share) in itertools.product(names, ((lang, 0.6), ("none", 0.3))):
            told = lang if generator.random() < share else "xx"
            row = {"source": lang, "target": target, "id": name, "part": "", "draw": -1, "cut": 0}
            row |= {"identified": told, "relevance": 1.0, "lines": told, "latin": 0}
            rows.append(row | {"degenerate": False, "setting": 0})
    frame = pd.DataFrame(rows)
    answers = Answers(frame, {"chosen": [{"target": one} for one in ("en", "fr")], "judge": None})
    hits = frame["identified"] == frame["source"]
    after, before = (hits[(frame["target"] == "none") == own] for own in (False, True))
    each = [answers.parts(target) for target in answers.targets]
    parts = {kind: pd.concat([one[kind] for one in each]) for kind in each[0]}
    row = row_of(parts, RESULTS)
    assert row["score"] == pytest.approx(after.mean())
    assert row["untouched"] == pytest.approx(before.mean())
    assert row["difference"] == pytest.approx(row["score"] - row["untouched"])
    # The middle of the interval, which no bound cuts here, is the score.
    assert row["low"] + row["high"] == pytest.approx(2 * row["score"])
    for own, lang in zip(each, answers.targets, strict=True):
        printed = printed_row(row_of(own, RESULTS), own, False, RESULTS)
        share = before[frame["source"] == lang].mean()  # of its own questions only
        assert printed["untouched"] == pytest.approx(2 * share / (share + 1))
        assert printed["questions"] == printed["answers"] == (8 if lang == "en" else 16)


def test_agreement_of_raters_is_by_pair():
    frame = pd.DataFrame(
        {"rating:j:1": [0, 1, 2, 2], "rating:j:2": [0, 1, 2, 1], "rating:k:1": [2, 1, 0, 0]}
    )
    found = agreement(frame)
    assert found[["judge", "version", "other_judge", "other_version"]].values.tolist() == [
        ["j", "1", "j", "2"],
        ["j", "1", "k", "1"],
        ["j", "2", "k", "1"],
    ]
    assert found["equal"].tolist() == [0.75, 0.25, 0.25] and found["kappa"][1] < 0


# The graph --------------------------------------------------------------------------------------

ANSWERS = {
    "limit": 8,
    "sources": ["en"],
    "targets": ["en", "vi"],
    "methods": {
        "lape": {"selections": ["lape"], "interventions": ["zero", "add"], "label": "LAPE"},
        "diff": {"selections": ["diff"], "interventions": ["steer", "more"]},
        "asked": {"prompts": ["english", "native"], "label": "Prompt"},
    },
    "prompts": {
        "english": {"place": "before"},
        "native": {"instruction": {"en": "Answer in English.", "vi": "Trả lời bằng tiếng Việt."}},
    },
    "max_new_tokens": 4,
    "controls": {"draws": 2, "match": "layer"},
    "language_sets": ["three"],
}


def configured(**changes) -> dict:
    config = {key: CONFIG[key] for key in ("name", "models", "language_sets", "corpus")}
    config["statistics"] = {"sites": ["gate", "act", "product", "residual"], "batch_blocks": 4}
    config["selections"] = {
        "lape": {"method": "lape", "rate": 0.1},
        "diff": {"method": "diffmean", "layers": [1, 1]},
    }
    config["interventions"] = {
        "zero": {"operation": "set", "value": 0},
        "add": {"operation": "add", "value": "mean"},
        "steer": {"operation": "add", "value": "direction", "site": "residual"},
        "more": {
            **{"operation": "add", "value": "direction", "site": "residual"},
            "coefficient": 2,
        },
    }
    return config | {"answers": json.loads(json.dumps(ANSWERS)) | changes}


def test_answers_in_the_graph_end_in_their_tables(tmp_path):
    save_tiny_model(tmp_path / "tiny-model")
    config = configured(judge={"models": ["tiny"], "prompts": ["1", "2"]})
    config["protocols"] = ["corrected", "paper"]
    config["answers"]["methods"]["lape"]["paper"] = {
        "selections": ["lape"],
        "interventions": ["add"],
    }
    (tmp_path / "tiny.yaml").write_text(json.dumps(config))
    tables = tmp_path / "results/tables/tiny"
    done = run_graph(tmp_path, tmp_path / "tiny.yaml", ("results/reports/tiny.html",))
    assert done.count("answer_test") == 6 and done.count("rate_answers") == 12
    summary = pd.read_csv(tables / "answers_summary.csv")
    order = ["LAPE", "diff", "Prompt"]  # as the configuration lists them
    assert summary["method"].tolist() == order * 2
    assert summary["score"].between(0, 1).all()
    corrected = summary[summary["protocol"] == "corrected"].set_index("method")
    assert (corrected["settings"] == 2).all()
    printed = summary[summary["protocol"] == "paper"].set_index("method")
    assert printed.loc["LAPE", "settings"] == 1
    assert corrected.loc["Prompt", "draws"] == 0 and corrected.loc["LAPE", "draws"] == 2
    assert corrected["relevance_by"].eq("tiny, prompt 1").all()
    targets = pd.read_csv(tables / "answers.csv")
    assert set(targets["target"]) == {"en", "vi"}
    judges = pd.read_csv(tables / "answer_judges.csv")
    assert set(judges["other_version"]) == {2} and judges["kappa"].between(-1, 1).any()
    folder = tmp_path / "results/tiny/answers/corrected/en-hi-vi/lape"
    frame, metadata = read_parquet(folder / "test.scored.parquet")
    rated = frame["rating:tiny:1"].to_numpy() / 2
    assert (frame["relevance"] == rated).all() and metadata["judge"]["models"] == ["tiny"]
    developed = set(read_parquet(folder / "development.parquet")[0]["id"])
    assert not developed & set(frame["id"])
    whole = tmp_path / "results/tiny/answers/paper/en-hi-vi/lape"
    ids = [set(read_parquet(whole / f"{one}.parquet")[0]["id"]) for one in (DEVELOPMENT, TEST)]
    assert ids[0] == ids[1]  # chosen on the questions that test
    page = (tmp_path / "results/reports/tiny.html").read_text()
    assert "Methods by their answers" in page
    assert "makes answers in another language score best" in page


def test_what_a_change_reruns():
    plain, judged = build(configured()), build(configured(judge={"models": ["tiny"]}))
    cell = {"model": "tiny", "variant": "corrected", "langset": "en-hi-vi", "method": "lape"}
    for rule in ("answer_development", "answer_test"):
        assert stage(plain, rule, **cell) == stage(judged, rule, **cell)
    own = stage(plain, "score_answers", **cell, phase="test")
    assert own != stage(judged, "score_answers", **cell, phase="test")
    more = build(configured(controls={"draws": 3, "match": "layer"}))
    assert stage(more, "answer_development", **cell) == stage(plain, "answer_development", **cell)
    assert stage(more, "answer_test", **cell) != stage(plain, "answer_test", **cell)
    # A prompt has no draws, and texts of languages that are not targets are not asked in.
    asked = cell | {"method": "asked"}
    assert stage(more, "answer_test", **asked) == stage(plain, "answer_test", **asked)
    other = configured()
    other["answers"]["prompts"]["native"]["instruction"]["hi"] = "हिन्दी में।"
    for rule in ("answer_development", "answer_test"):
        assert stage(build(other), rule, **asked) == stage(plain, rule, **asked)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"methods": {"x": {"selections": ["nope"], "interventions": ["zero"]}}}, "nope"),
        ({"methods": {"x": {"selections": ["lape"]}}}, "go together"),
        ({"methods": {"x": {"prompts": ["polite"]}}}, "polite.*english, native"),
        (
            {"methods": {"x": {"selections": ["lape"], "interventions": ["steer"]}}},
            "writes dimensions",
        ),
        (
            {"methods": ANSWERS["methods"] | {"x": {"prompts": ["english"]}}},
            "same number of settings",
        ),
        ({"judge": {"models": ["other"]}}, "answers.judge.models.*other"),
        ({"targets": ["zh"]}, "no model has a language set that holds its languages"),
        ({"chat": True}, "no model has the key `chat`"),
        ({"prompts": {"english": {"instruction": "In {lang}."}}}, "legal: {language}"),
        (
            {"prompts": ANSWERS["prompts"] | {"native": {"instruction": {"vi": "x"}}}},
            "none for the target 'en'",
        ),
        ({"prompts": ANSWERS["prompts"] | {"idle": {}}}, "idle: no method names it"),
        ({"prompts": ANSWERS["prompts"] | {"english": {"instruction": " "}}}, "is blank"),
        (
            {"prompts": ANSWERS["prompts"] | {"english": {"instruction": "In Vietnamese."}}},
            "english.instruction.*the same for every target \\(en, vi\\)",
        ),
        (
            {"prompts": ANSWERS["prompts"] | {"english": {"turns": {"vi": [["a", "b"]]}}}},
            "english.turns: none for the target 'en'",
        ),
        (
            {"prompts": ANSWERS["prompts"] | {"english": {"turns": {"vi": [["a", " "]]}}}},
            "english.turns.vi",
        ),
        (
            {
                "prompts": ANSWERS["prompts"]
                | {"native": {"instruction": {"en": "a", "vi": "b", "vn": "c"}}}
            },
            "native.instruction: 'vn' is not a known language",
        ),
        ({"prompts": {"english": {}, "native": {}}}, "'english' and 'native' ask the same"),
        (
            {"prompts": {"english": {"place": "system"}, "native": {"place": "before"}}},
            "'english' and 'native' ask the same",  # without `chat` there is no system prompt
        ),
        ({"sources": ["vi"], "targets": ["vi"]}, "no target differs from a source"),
        ({"message": "Please: {question}"}, "answers.message: has no effect"),
    ],
)
def test_methods_that_cannot_be_compared_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        build(configured(**changes))


def changed(config: dict, place: str, value) -> dict:
    """Return a configuration with a value at a place (keys by dots)."""
    *path, last = place.split(".")
    entry = config
    for key in path:
        entry = entry.setdefault(key, {})
    entry[last] = value
    return config


@pytest.mark.parametrize(
    "place, value, said",
    [
        ("models.tiny.chat", {}, "models.tiny.chat: has no effect"),
        ("models.tiny.chat", {"options": {"tokenize": True}}, "'tokenize' is not a variable"),
        ("models.tiny.language_sets", [], "answers.judge.models does not name the model"),
        ("interventions.zero.models", ["judge"], "'zero' is for judge only"),
        (
            "interventions.zero",
            {"steps": [{"neurons": "zh", "operation": "set", "value": 0}]},
            "interventions.zero: neurons 'zh' is not in language set 'three'.*answers.methods.lape",
        ),
        ("answers.judge", {"models": ["scored"]}, "rename the model"),
    ],
)
def test_what_answers_cannot_use_is_refused(place, value, said):
    config = configured()
    for name in ("judge", "scored"):
        config["models"] = config["models"] | {name: dict(config["models"]["tiny"])}
    config["models"]["tiny"] = dict(config["models"]["tiny"])
    with pytest.raises(ConfigError, match=said):
        build(changed(config, place, value))


def test_a_model_that_only_judges_does_not_stop_the_reading():
    config = configured(judge={"models": ["judge"]})
    config["models"] = config["models"] | {
        "judge": CONFIG["models"]["tiny"] | {"language_sets": []}
    }
    config["statistics"]["until"] = {"selection": "lape", "slices": 4}
    assert not build(config).until_sets("judge")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"development": 0.001}, "0.001 of 6 questions.*leaves the development side without any"),
        ({"limit": 1}, "of 1 questions.*leaves the test side without any"),
    ],
)
def test_a_side_without_questions_is_refused_before_a_job(tmp_path, changes, said):
    save_tiny_model(tmp_path / "tiny-model")
    config = configured(**changes)
    config["models"] = {"tiny": {"source": {"kind": "local", "path": str(tmp_path / "tiny-model")}}}
    with pytest.raises(ConfigError, match=said):
        check_files(build(config), tmp_path)


@pytest.mark.parametrize(
    "template, options, said",
    [
        (b"{% for one in messages %}{{ one", {}, "chat.template: .* is not a Jinja template"),
        (b"\xe9 {{ messages }}", {}, "chat.template: .* is not text in UTF-8"),
        (
            b"{% generation %}{{ messages }}{% endgeneration %}{{ enable_thinking }}",
            {"enable_thinkin": True},
            "chat.options: 'enable_thinkin' is not a variable.*Did you mean 'enable_thinking'",
        ),
        (None, {}, "models.tiny.chat: the tokenizer of the model has no chat template"),
    ],
)
def test_chat_templates_are_looked_at_before_a_job(tmp_path, template, options, said):
    save_tiny_model(tmp_path / "tiny-model")
    chat = {"options": options}
    if template is not None:
        (tmp_path / "own.jinja").write_bytes(template)
        chat["template"] = str(tmp_path / "own.jinja")
    config = configured(chat=True)
    source = {"kind": "local", "path": str(tmp_path / "tiny-model")}
    config["models"] = {"tiny": {"source": source, "chat": chat}}
    with pytest.raises(ConfigError, match=said):
        check_files(build(config), tmp_path)


def test_examples_alone_are_a_prompt():
    prompt = {"instruction": "", "place": "after", "turns": {"fr": [("Who?", "Moi.")]}}
    (own,) = instructed([{"id": "a", "question": "Why?"}], prompt, "fr", "French")
    assert plain_prompt(own, "Q: {question}\nA:") == "Q: Who?\nA: Moi.\n\nQ: Why?\nA:"
    chat = Chat(chat_tokenizer("chatml"))
    assert [one["content"] for one in conversation(chat, own, "{question}")] == [
        "Who?",
        "Moi.",
        "Why?",
    ]
