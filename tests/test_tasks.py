"""Task definitions, prompts, scoring, and the rows they are fed."""

import json
import re
from pathlib import Path

import datasets
import pytest
import yaml
from sacrebleu.metrics import BLEU
from tiny import encoded_pair, tiny_model, tiny_tokenizer

from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import read_json, read_jsonl
from langneurons.config import read_configs
from langneurons.data import files, hub_rows
from langneurons.evaluation.definition import Reading, load_task
from langneurons.evaluation.examples import build
from langneurons.evaluation.items import fetch_rows, prepare_task
from langneurons.evaluation.metrics import METRICS
from langneurons.evaluation.tasks import read_choice, score_task
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.generation import generate
from langneurons.scoring.likelihood import loglikelihood

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
    xnli = load_task(DEFINITIONS / "xnli.yaml")
    row = {"premise": "It rains", "hypothesis": "it is wet", "label": 0}
    (example,) = build([row], xnli, "en")
    assert example.context == ""
    assert example.choices[1] == "It rains, right? Also, it is wet"
    assert build([row], xnli, "zh")[0].choices[2] == "It rains, 正确? 不是的, it is wet"
    xcopa = load_task(DEFINITIONS / "xcopa.yaml")
    row = {"premise": "Anh ngã.", "choice1": "Đường trơn.", "choice2": "Trời mưa.", "idx": 7}
    (example,) = build([row | {"question": "cause", "label": 0}], xcopa, "vi")
    assert (example.item, example.context) == ("7", "Anh ngã bởi vì")
    assert example.choices == ("đường trơn.", "trời mưa.")
    xquad = load_task(DEFINITIONS / "xquad.yaml")
    row = {"id": "a", "context": "C", "question": "Q", "answers": {"text": ["x"]}}
    (example,) = build([row], xquad, "en")
    assert example.context == "Context: C\n\nQuestion: Q\n\nAnswer:" and example.golds == ("x",)


@pytest.mark.parametrize("name", ("xnli", "xcopa", "xquad"))
@pytest.mark.parametrize("lang", ("en", "vi", "hi", "ur", "zh"))
def test_mini_items_fit_their_definition(name, lang):
    task = load_task(DEFINITIONS / f"{name}.yaml")
    rows = list(fetch_rows(task, {"kind": "mini"}, lang))
    examples = build(rows, task, lang)
    assert len(examples) == {"xnli": 60, "xcopa": 40, "xquad": 40}[name]
    assert len({example.item for example in examples}) == len(examples)


def test_choices_are_scored_by_loglikelihood(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    task = load_task(definition(tmp_path))
    rows = [{"premise": f"w{i} w{i + 1}.", "label": i % 2} for i in range(6)]
    frame = score_task(LanguageModel(model, tokenizer), task, "en", rows, 40)
    for i, record in enumerate(frame.to_dict("records")):
        context = f"w{i} w{i + 1} w9"
        pairs = [(context, " w1 w2"), (context, " w3")]
        first, second = (
            value for value, _ in loglikelihood(LanguageModel(model, tokenizer), pairs, 40)
        )
        best = int(second > first)
        assert record["prediction"] == str(best) and record["accuracy"] == float(best == i % 2)
    again = score_task(LanguageModel(model, tokenizer), task, "en", rows, 10_000)
    assert again.equals(frame)


def test_answers_are_generated_and_scored():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    task = load_task(DEFINITIONS / "xquad.yaml")
    row = {"id": "a", "context": "w1 w2", "question": "w3", "answers": {"text": ["w1"]}}
    frame = score_task(LanguageModel(model, tokenizer), task, "en", [row, row | {"id": "b"}], 400)
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
        ("metrics: [accuracy]", "metrics: [acuracy]", "Did you mean 'accuracy'?"),
        ("gold: label", "gold: label\nlabels: [a]", "one per choice"),
        ("gold: label", "gold: label\ncodes: {em: xx}", "'em' has no words, so no prompt. Did you"),
        ("gold: label", "gold: label\nparse: [{pattern: '([12])'}]", "generation"),
        ("gold: label", "gold: label\nparse: [{pattern: '(['}]", "pattern '(['"),
        ("gold: label", "gold: label\nparse: [{pattern: a}]", "has no group"),
        ("gold: label", "gold: label\ntokenizers: {en: mecab}", "tokenizers.en"),
        ("name: toy", "name: [toy", "line"),
    ],
)
def test_mistakes_in_definitions_are_named(tmp_path, old, new, words):
    path = definition(tmp_path, CHOICE.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_task(path)
    assert words in str(caught.value) and "toy.yaml" in str(caught.value)


def test_missing_fields_and_languages_are_named(tmp_path):
    task = load_task(definition(tmp_path))
    with pytest.raises(ValueError, match="row 2: no field 'label'"):
        build([{"premise": "w1.", "label": 0}, {"premise": "w1."}], task, "en")
    with pytest.raises(ConfigError, match="'em'.*known: en.*Did you mean 'en'"):
        build([], task, "em")


def test_local_rows_are_prepared_and_limited(tmp_path):
    task = load_task(definition(tmp_path))
    rows = [{"premise": "w1.", "label": 0}, {"premise": "w2.", "label": 1}]
    (tmp_path / "en.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"kind": "jsonl", "path": str(tmp_path / "{lang}.jsonl")}
    prepare_task(task, source, "en", tmp_path / "out.jsonl", limit=1)
    assert (tmp_path / "out.jsonl").read_text() == json.dumps(rows[0]) + "\n"
    with pytest.raises(FileNotFoundError, match="tasks.toy.source.path"):
        prepare_task(task, source | {"path": "no/{lang}.jsonl"}, "en", tmp_path / "x")


def test_only_the_fields_that_the_task_reads_are_kept(tmp_path):
    """Belebele has a column of dates, which JSON cannot hold and no prompt names."""
    from datetime import date

    from datasets import Dataset

    task = shipped("belebele")
    row = {f"mc_answer{i}": f"a{i}" for i in range(1, 5)} | {"flores_passage": "P", "question": "Q"}
    row |= {"correct_answer_num": "2"}
    more = {"link": "l", "ds": date(2023, 5, 3)}
    Dataset.from_list([row | more]).save_to_disk(tmp_path / "deu_Latn")
    source = {"kind": "folder", "path": str(tmp_path / "{code}")}
    prepare_task(task, source, "de", tmp_path / "out.jsonl")
    assert read_jsonl(tmp_path / "out.jsonl") == [row]
    assert build(read_jsonl(tmp_path / "out.jsonl"), task, "de")[0].label == 1


def shipped(name):
    return load_task(DEFINITIONS / f"{name}.yaml")


def test_every_shipped_definition_is_read_and_has_its_own_name():
    names = [path.stem for path in sorted(DEFINITIONS.glob("*.yaml"))]
    assert [shipped(name).name for name in names] == names


def test_options_fill_the_blank_and_the_rest_is_scored():
    row = {"sentence": "w1 w2 _ w3 w4 . ", "option1": "w5", "option2": "w6 w7", "answer": "2"}
    (example,) = build([row], shipped("xwinograd"), "ja")
    assert example.requests(" ") == [("w1 w2 w5", " w3 w4 ."), ("w1 w2 w6 w7", " w3 w4 .")]
    assert example.label == 1
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    rows = [row, row | {"option1": "w9", "answer": "1"}]
    frame = score_task(LanguageModel(model, tokenizer), shipped("xwinograd"), "ja", rows, 40)
    pairs = [("w1 w2 w5", " w3 w4 ."), ("w1 w2 w6 w7", " w3 w4 .")]
    first, second = (
        value for value, _ in loglikelihood(LanguageModel(model, tokenizer), pairs, 40)
    )
    assert frame["prediction"][0] == str(int(second > first))
    assert frame.equals(
        score_task(LanguageModel(model, tokenizer), shipped("xwinograd"), "ja", rows, 9999)
    )
    with pytest.raises(ValueError, match="row 1.*does not hold '_'"):
        build([row | {"sentence": "w1"}], shipped("xwinograd"), "en")


def test_prompts_of_the_papers_by_hand():
    lite = {"question": " Q? ", "answer": 3, "choices": ["aa", "bb", "cc", "dd"]}
    (example,) = build([lite], shipped("include_lite"), "nl")
    assert example.requests("") == [
        ("Q?\nA) aa\nB) bb\nC) cc\nD) dd\nAnswer:", letter) for letter in "ABCD"
    ]
    row = {"sentence_src": "Rain fell.", "sentence_tgt": "Es regnete."}
    prompts = {
        "flores": "English sentence: Rain fell.\nGerman sentence:",
        "flores_targeted": "Translate from English to German.\n\nEnglish: Rain fell.\nGerman:",
        "flores_untargeted": "Translate from English into the target language.\n\n"
        "English: Rain fell.\nTarget language: ",
        "flores_instruct": "Translate this English sentence into German: Rain fell.. Translation:",
    }
    for name, prompt in prompts.items():
        (example,) = build([row], shipped(name), "de")
        assert (example.context, example.golds) == (prompt, ("Es regnete.",))


@pytest.mark.parametrize(
    "labels, gold, expected",
    [
        ((), 1, 1),
        ((), 1.0, 1),
        ((), "w3", 1),
        (("1", "2"), "1", 0),
        (("1", "2"), 2, 1),
        (("A", "B"), "B", 1),
        (("{premise}", "w8"), "w1.", 0),
    ],
)
def test_gold_is_an_index_a_label_or_the_answer(tmp_path, labels, gold, expected):
    text = CHOICE + f"labels: {json.dumps(labels)}\n"
    task = load_task(definition(tmp_path, text))
    (example,) = build([{"premise": "w1.", "label": gold}], task, "en")
    assert example.label == expected


@pytest.mark.parametrize(
    "labels, gold, words",
    [
        ((), 2, "label 2; legal: 0 to 1"),
        ((), -1, "label -1"),
        ((), 0.5, "is 0.5, a number. Expected: a choice's text, or its index"),
        ((), "w4", "row 1, field 'label': 'w4'.*known: w1 w2, w3"),
        (("A", "B"), "b", "'b'.*known: A, B"),
        (("1", "2"), 0, "'?0'?.*known: 1, 2"),
    ],
)
def test_gold_that_is_none_of_the_choices_is_named(tmp_path, labels, gold, words):
    task = load_task(definition(tmp_path, CHOICE + f"labels: {json.dumps(labels)}\n"))
    with pytest.raises(ValueError, match=words):
        build([{"premise": "w1.", "label": gold}], task, "en")


def test_continuations_by_themselves_are_tokens_of_their_own():
    tokenizer = tiny_tokenizer()
    apart = encoded_pair(tokenizer, "w1 w2", "w3", joint=False)
    assert apart[0] == tokenizer("w1 w2")["input_ids"]
    assert apart[1] == tokenizer("w3", add_special_tokens=False)["input_ids"]
    model = tiny_model("llama")
    (found,) = loglikelihood(LanguageModel(model, tokenizer), [("w1 w2", "w3")], 40, joint=False)
    assert found == loglikelihood(LanguageModel(model, tokenizer), [("w1 w2", " w3")], 40)[0]


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("belebele_generate", "B", "B"),
        ("belebele_generate", "The answer is (c).", "C"),
        ("belebele_generate", "I think D) At noon", "D"),
        ("belebele_generate", "Das weiß ich nicht", "D"),
        ("belebele_generate", "keine Ahnung", None),
        ("belebele_generate", "", None),
        ("xnli_generate", "3. Contradiction", "3"),
        ("xnli_generate", "The premise entails it, no contradiction", "1"),
        ("xnli_generate", "It contradicts a neutral reading", "3"),
        ("xnli_generate", "Neutral", "2"),
        ("xnli_generate", "Yes, it does", "1"),
        ("xnli_generate", "Nothing", None),
    ],
)
def test_answers_are_read_as_choices(name, text, expected):
    task = shipped(name)
    assert read_choice(task.parse, task.choices, text) == expected


PARSED = """
name: parsed
kind: generation
fields: [premise, label]
context: "{premise}"
choices: [A, B]
gold: label
labels: ["1", "2"]
parse: [{pattern: 'w(\\d)', choice: B}, {pattern: '(w)'}]
max_new_tokens: 3
metrics: [accuracy]
words: {en: {}}
"""


def test_generated_answers_are_scored_as_choices(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    task = load_task(definition(tmp_path, PARSED))
    rows = [{"premise": "w1 w2", "label": label} for label in (1, 2)]
    frame = score_task(LanguageModel(model, tokenizer), task, "en", rows, 100)
    (text,) = generate(LanguageModel(model, tokenizer), ["w1 w2"], Decoding(3, ["\n"]), 100)
    assert re.search(r"w\d", text)
    assert frame["prediction"].tolist() == ["B", "B"] and frame["gold"].tolist() == ["A", "B"]
    assert frame["accuracy"].tolist() == [0, 1]


def test_translations_keep_counts_that_give_the_corpus_score(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    task = shipped("flores").model_copy(update={"max_new_tokens": 6})
    rows = []
    for number in range(4):
        source = f"w{number} w{number + 1} w{number + 2}"
        prompt = build([{"sentence_src": source, "sentence_tgt": "x"}], task, "zh")[0].context
        (text,) = generate(LanguageModel(model, tokenizer), [prompt], Decoding(6, ["\n"]), 100)
        gold = " ".join([*text.split()[: 2 + number], "w9", "w8"])
        rows.append({"sentence_src": source, "sentence_tgt": gold})
    frame = score_task(LanguageModel(model, tokenizer), task, "zh", rows, 60)
    assert frame.equals(score_task(LanguageModel(model, tokenizer), task, "zh", rows, 9999))
    golds = [row["sentence_tgt"] for row in rows]
    for metric, tokens in (("bleu", "zh"), ("bleu_13a", "13a")):
        sums = frame[METRICS[metric].columns].to_numpy().sum(axis=0)
        expected = BLEU(tokenize=tokens).corpus_score(list(frame["prediction"]), [golds]).score
        assert METRICS[metric].total(sums) == pytest.approx(expected / 100)
    assert expected > 1
    groups = task.model_copy(update={"metrics": ("bleu_13a", "mean_bleu"), "batch": 3})
    means = score_task(LanguageModel(model, tokenizer), groups, "zh", rows, 60)["mean_bleu"]
    own = BLEU().corpus_score(list(frame["prediction"][:3]), [golds[:3]]).score
    assert means[0] == pytest.approx(own / 100) and means.isna().tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_text_files_are_aligned_by_line(tmp_path):
    (tmp_path / "eng_Latn.devtest").write_text("one\ntwo\u2028still two\n")
    (tmp_path / "zho_Hans.devtest").write_text("一\n二\n")
    task = shipped("flores")
    paths = {"sentence_src": "eng_Latn.devtest", "sentence_tgt": "{code}.devtest"}
    fields = {field: str(tmp_path / path) for field, path in paths.items()}
    rows = list(fetch_rows(task, {"kind": "text", "fields": fields}, "zh"))
    assert rows == [
        {"sentence_src": "one", "sentence_tgt": "一"},
        {"sentence_src": "two\u2028still two", "sentence_tgt": "二"},
    ]
    with pytest.raises(FileNotFoundError, match="source.fields.sentence_tgt.*deu_Latn"):
        fetch_rows(task, {"kind": "text", "fields": fields}, "de")
    (tmp_path / "deu_Latn.devtest").write_text("eins\n")
    with pytest.raises(ValueError, match="eng_Latn.*deu_Latn.*different length.*2.*1"):
        list(fetch_rows(task, {"kind": "text", "fields": fields}, "de"))


def test_the_documented_task_is_added_by_yaml_alone(tmp_path, monkeypatch):
    """What docs/adding.md shows is written into a project, checked, fetched and scored."""
    text = (Path(__file__).parent.parent / "docs" / "adding.md").read_text(encoding="utf-8")
    section = text.split("## A task\n")[1].split("\n## ")[0]
    task_file, entry = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    row = json.loads(re.search(r"`(\{\"start.*?\})`", section).group(1))
    monkeypatch.chdir(tmp_path)
    path = Path(re.search(r"# (\S+)", task_file).group(1))
    path.parent.mkdir(parents=True)
    path.write_text(task_file, encoding="utf-8")
    config = {
        "name": "mine",
        "models": {"tiny": {"source": {"kind": "local", "path": "tiny"}}},
        "language_sets": {"three": ["en", "ja", "zh"]},
        "corpus": {"source": {"kind": "mini"}},
        "selections": {"lape": {"method": "lape"}},
        "interventions": {"zero": {"operation": "set", "value": 0}},
    }
    Path("config.yaml").write_text(yaml.safe_dump(config) + entry, encoding="utf-8")
    found = read_configs(["config.yaml"]).tasks["proverbs"]
    task = load_task(found.definition)
    Path("proverbs").mkdir()
    for lang in found.languages:
        line = json.dumps(row | {"start": f"w1 {lang} "}) + "\n"
        Path(f"proverbs/{task.code(lang)}.jsonl").write_text(line, encoding="utf-8")
        prepare_task(task, found.source.model_dump(), lang, f"{lang}.jsonl")
    rows = read_jsonl("ja.jsonl")
    (example,) = build(rows, task, "ja")
    assert example.requests(task.delimiter) == [
        ("ことわざ: w1 ja", " deep"),
        ("ことわざ: w1 ja", " fast"),
    ]
    frame = score_task(LanguageModel(tiny_model("llama"), tiny_tokenizer()), task, "ja", rows, 100)
    assert frame["gold"].tolist() == ["0"] and frame["accuracy"].isin([0.0, 1.0]).all()
    Path("config.yaml").write_text(
        yaml.safe_dump(config) + entry.replace("[en, ja]", "[en, zh]"), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="tasks.proverbs.languages.*'zh'.*known: en, fr, ja"):
        read_configs(["config.yaml"])


def test_a_choice_that_does_not_fit_is_named_by_its_item(tmp_path):
    text = CHOICE.replace("w3", "w3 {premise}") + "identifier: id\n"
    task = load_task(definition(tmp_path, text))
    rows = [{"id": "q7", "premise": "w1", "label": 0}]
    rows += [{"id": "q8", "premise": " ".join(["w1"] * 600), "label": 0}]
    with pytest.raises(ValueError, match="task toy, en: item q8, choice 1, context .*does not fit"):
        score_task(LanguageModel(tiny_model("llama"), tiny_tokenizer()), task, "en", rows, 400)


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("{en: {link: w9}}", "{en: {premise: w9}}", "words.en: 'premise' is the name of a field"),
        ("{en: {link: w9}}", "{en: {label: w9}}", "words.en: 'label' is the name of a field too"),
        ("gold: label", "gold: label\nidentifier: link", "words.en: 'link' is the name of a field"),
        ("gold: label", "gold: label\nlookup: {x: link}", "words.en: 'link' is the name of a fiel"),
        ("gold: label", "gold: label\nlookup: {link: q}", "words.en: 'link' is the name of a look"),
        ("gold: label", "gold: label\nlookup: {premise: q}", "lookup: 'premise' is the name of a"),
        ("gold: label", "gold: label\nlookup: {q: q}", "lookup: 'q' is the name of a field too"),
        ("{en: {link: w9}}", "{en: {link: w9}, de: {}}", "is used by a template, and words.de lac"),
    ],
)
def test_a_name_of_a_template_stands_for_one_thing(tmp_path, old, new, words):
    path = definition(tmp_path, CHOICE.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_task(path)
    assert words in str(caught.value)


def test_an_element_of_a_text_is_no_element_of_a_list(tmp_path):
    """A list that is spelled out as text would give "[" as the first choice."""
    text = CHOICE.replace('["w1 w2", "w3"]', '["{premise[0]}", "{premise[1]}"]')
    task = load_task(definition(tmp_path, text.replace("{premise:unstopped}", "w1")))
    (example,) = build([{"premise": ["a", "b"], "label": 1}], task, "en")
    assert example.choices == ("a", "b")
    for given in ("['a', 'b']", "ab"):
        with pytest.raises(
            InputError, match=r"field 'premise' is .*text. Expected: .*premise\[0\]"
        ):
            build([{"premise": given, "label": 1}], task, "en")


# Answers as choices -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Answer: B", "B"),
        ("Answer: ? but (C)", "C"),  # the first pattern matches without its group
        ("Answer:", None),
        ("(D)", None),
        ("none", None),
    ],
)
def test_a_pattern_without_its_group_names_nothing(text, expected):
    readings = [Reading(pattern="Answer:(?: ([A-C]))?"), Reading(pattern=r"\((.)\)")]
    assert read_choice(readings, ["A", "B", "C"], text) == expected


# Class labels -------------------------------------------------------------------------------------


def labelled(names, numbers, **columns):
    features = {"label": datasets.ClassLabel(names=names), "premise": datasets.Value("string")}
    more = {name: datasets.ClassLabel(names=own) for name, (own, _) in columns.items()}
    rows = {"label": numbers, "premise": [f"w{n}." for n in range(len(numbers))]}
    rows |= {name: values for name, (_, values) in columns.items()}
    return datasets.Dataset.from_dict(rows, datasets.Features(features | more))


def sources(kind, data, tmp_path, monkeypatch):
    """Return a source of a kind that gives the rows of a data set."""
    if kind == "folder":
        data.save_to_disk(str(tmp_path / "saved"))
        return {"kind": "folder", "path": str(tmp_path / "saved")}
    monkeypatch.setattr(hub_rows, "_resolve", lambda *_: None)
    stream = data.to_iterable_dataset()
    found = [stream], files.class_names(stream.features)
    monkeypatch.setattr(hub_rows, "_files", lambda *_: found)
    return {"kind": "hub", "dataset": "a/b", "revision": "0" * 40, "split": "test"}


GENERATED = CHOICE.replace("multiple_choice", "generation").replace('choices: ["w1 w2", "w3"]', "")
CLASSED = CHOICE.replace("multiple_choice", "classification").replace("choices:", "classes:")


@pytest.mark.parametrize("kind", ("folder", "hub"))
@pytest.mark.parametrize(
    "text, names, numbers, expected, how",
    [
        # The right choice of each row, by hand: 0 is w3 and so choice 1.
        (CHOICE, ["w3", "w1 w2"], [0, 1, 1], [1, 0, 0], "name"),
        (CHOICE, [" W3", "W1 w2"], [0, 1, 1], [1, 0, 0], "name"),
        (CHOICE, ["w1 w2", "w3"], [0, 1, 1], [0, 1, 1], "index"),
        (CHOICE, ["no", "yes"], [0, 1, 1], [0, 1, 1], "index"),
        (CHOICE + "index: true\n", ["w3", "w1 w2"], [0, 1, 1], [1, 0, 0], "name"),
        (CHOICE.replace('["w1 w2", "w3"]', '["1", "0"]'), ["0", "1"], [0, 1, 1], [1, 0, 0], "name"),
        (CHOICE + 'labels: ["yes", "no"]\n', ["no", "yes"], [0, 1, 1], [1, 0, 0], "name"),
        (CHOICE + 'labels: ["yes", "no"]\n', ["yes", "no"], [0, 1, 1], [0, 1, 1], "name"),
        (CLASSED, ["w3", "w1 w2"], [0, 1, 1], [1, 0, 0], "name"),
        (CLASSED, ["w1 w2", "w3"], [0, 1, 1], [0, 1, 1], "index"),
    ],
)
def test_class_labels_are_read_by_name_where_the_names_are_the_choices(
    tmp_path, monkeypatch, caplog, kind, text, names, numbers, expected, how
):
    task = load_task(definition(tmp_path, text))
    source = sources(kind, labelled(names, numbers), tmp_path, monkeypatch)
    with caplog.at_level("INFO"):
        prepare_task(task, source, "en", tmp_path / "out.jsonl")
    examples = build(read_jsonl(tmp_path / "out.jsonl"), task, "en")
    assert [example.label for example in examples] == expected
    line = f"task toy, en: the classes of 'label' ({', '.join(names)}) are read by {how}"
    assert caplog.text.count(line) == 1


@pytest.mark.parametrize("kind", ("folder", "hub"))
def test_a_class_is_its_name_in_templates_and_as_an_answer(tmp_path, monkeypatch, kind):
    text = GENERATED.replace("[accuracy]", "[exact_match]").replace("{link}", "{topic}")
    task = load_task(definition(tmp_path, text))
    data = labelled(["no", "yes"], [1, 0], topic=(["art", "law"], [1, 0]))
    source = sources(kind, data, tmp_path, monkeypatch)
    prepare_task(task, source, "en", tmp_path / "out.jsonl")
    examples = build(read_jsonl(tmp_path / "out.jsonl"), task, "en")
    assert [(example.context, example.golds) for example in examples] == [
        ("w0 law", ("yes",)),
        ("w1 art", ("no",)),
    ]


# Folders -----------------------------------------------------------------------------------------


def test_columns_that_a_task_does_not_read_are_not_decoded(tmp_path):
    """A sound or picture needs libraries to be decoded, or a file that is not there."""
    rows = {"label": [1], "premise": ["w1."], "sound": [{"path": "no.wav", "bytes": b"x"}]}
    data, folder = datasets.Dataset.from_dict(rows), tmp_path / "saved"
    data.cast_column("sound", datasets.Audio()).save_to_disk(str(folder))
    with pytest.raises((ImportError, OSError, RuntimeError)):
        next(iter(datasets.load_from_disk(str(folder))))
    task, source = load_task(definition(tmp_path)), {"kind": "folder", "path": str(folder)}
    prepare_task(task, source, "en", tmp_path / "out.jsonl")
    assert read_jsonl(tmp_path / "out.jsonl") == [{"label": 1, "premise": "w1."}]
    other = load_task(definition(tmp_path, CHOICE.replace("[premise, label]", "[premises]")))
    with pytest.raises(InputError, match="saved: no field 'premises'; fields: label, premise, so"):
        prepare_task(other, source, "en", tmp_path / "out.jsonl")


@pytest.mark.parametrize("raw", [b"", b"version https://git-lfs.github.com/spec/v1\noid x\n", None])
def test_a_folder_whose_files_are_not_whole_is_told(tmp_path, raw):
    labelled(["no", "yes"], [0, 1]).save_to_disk(str(tmp_path / "saved"))
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    arrow.unlink() if raw is None else arrow.write_bytes(raw)
    task = load_task(definition(tmp_path))
    source = {"kind": "folder", "path": str(tmp_path / "saved")}
    with pytest.raises(InputError, match="source.path: .*saved lacks files .* Copy the folder"):
        prepare_task(task, source, "en", tmp_path / "out.jsonl")


def test_items_with_equal_choices_are_counted(tmp_path, caplog):
    text = CHOICE.replace('"w3"]', '"{premise}"]').replace("{premise:unstopped}", "w1")
    task, path = load_task(definition(tmp_path, text)), tmp_path / "en.jsonl"
    rows = [{"premise": words, "label": 0} for words in ("w3", "w1 w2", "w5", "w1 w2")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = tmp_path / "about.json"
    source = {"kind": "jsonl", "path": str(path)}
    prepare_task(task, source, "en", tmp_path / "out.jsonl", about=about)
    assert "toy, en: 2 items have equal choices, of which the first always wins" in caplog.text
    assert "(00001, 00003)" in caplog.text
    assert read_json(about)["equal_choices"] == 2 and read_json(about)["rows"] == 4
