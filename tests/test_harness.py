"""The EleutherAI harness as oracle of our prompts and scores, and as a bridge for its own tasks."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny import tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from langneurons.activations.statistics import Statistics
from langneurons.base.errors import ConfigError
from langneurons.base.io import read_jsonl
from langneurons.data import mini_data
from langneurons.evaluation.definition import load_task
from langneurons.evaluation.examples import build
from langneurons.evaluation.tasks import score_task
from langneurons.interventions.factors import Factor
from langneurons.interventions.hooks import NoEffect
from langneurons.interventions.plan import Plan, Write
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.generation import generate
from langneurons.scoring.likelihood import loglikelihood
from langneurons.selection.table import NeuronTable

lm_eval = pytest.importorskip(
    "lm_eval", reason="the harness is optional: pip install --no-deps -r requirements-harness.txt"
)

from lm_eval.tasks import TaskManager  # noqa: E402

from langneurons.cli import main  # noqa: E402
from langneurons.integrations.harness import InterventionLM  # noqa: E402

ROOT = Path(__file__).parent.parent
SHIPPED = Path(lm_eval.__file__).parent / "tasks"
XNLI = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
XCOPA = ("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh")
XWINOGRAD = {"en": "en", "fr": "fr", "ja": "jp", "pt": "pt", "ru": "ru", "zh": "zh"}
BLANKS = [
    {
        "sentence": "The lamp did not fit on the shelf because _ was too tall.",
        "option1": "the lamp",
        "option2": "the shelf",
        "answer": "1",
    },
    {
        "sentence": "Le chat a suivi le chien, puis _  s'est endormi.",
        "option1": "le chat",
        "option2": "le chien",
        "answer": "2",
    },
    {
        "sentence": "花瓶放不进箱子，因为_太大了。",
        "option1": "花瓶",
        "option2": "箱子",
        "answer": "1",
    },
]
PASSAGES = [
    {
        "flores_passage": "The ferry leaves at nine. On Sundays it leaves an hour later.",
        "question": " When does the ferry leave on a Sunday? ",
        "mc_answer1": "At eight",
        "mc_answer2": "At nine",
        "mc_answer3": "At ten",
        "mc_answer4": "At noon",
        "correct_answer_num": str(number),
    }
    for number in (3, 1)
]
QUESTIONS = [
    {
        "question": " Which of these floats on water? ",
        "option_a": "iron",
        "option_b": "cork",
        "option_c": "stone",
        "option_d": "glass",
        "answer": answer,
        "domain": "STEM",
    }
    for answer in (1, 2)
]


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level tokenizer with merges, so that tokens cross the borders of words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    texts = [row["text"] for row in _mini("corpus", "en")[:150] + _mini("corpus", "zh")[:80]]
    special = ["<pad>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_model("llama", vocab_size=len(tokenizer), max_position_embeddings=512)


def _mini(name, lang):
    return read_jsonl(mini_data.MINI / name / f"{lang}.jsonl")


def cases():
    """Yield (our task, language, harness file, rows in the fields of the hub)."""
    for lang in XNLI:
        rows = _mini("xnli", lang if lang in ("en", "hi", "ur", "vi", "zh") else "en")
        yield "xnli", lang, f"xnli/xnli_{lang}.yaml", rows[:3]
    for lang in XCOPA:
        rows = _mini("xcopa", lang if lang in ("vi", "zh") else "en")
        yield "xcopa", lang, f"xcopa/default_{lang}.yaml", rows[:3]
    for lang, code in XWINOGRAD.items():
        yield "xwinograd", lang, f"xwinograd/xwinograd_{code}.yaml", BLANKS
    for lang, code in {"de": "deu_Latn", "zh": "zho_Hans"}.items():
        yield "belebele", lang, f"belebele/belebele_{code}.yaml", PASSAGES
    for lang, name in {"nl": "Dutch", "ja": "Japanese"}.items():
        yield "include", lang, f"include/default/{name}/_{name.lower()}_template_yaml", QUESTIONS


def local(folder, name, include, rows, **more):
    """Write a file of the harness's own task on local rows."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "task": name,
        "include": str(SHIPPED / include),
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content | more))


def run_harness(folder, lm, names, **more):
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    settings = {"bootstrap_iters": 0, "log_samples": True} | more
    return lm_eval.simple_evaluate(model=lm, tasks=names, task_manager=manager, **settings)


@pytest.fixture(scope="module")
def oracle(model, tokenizer, tmp_path_factory):
    """What the harness asks and finds, by (task, language)."""
    folder = tmp_path_factory.mktemp("harness")
    names = {}
    for task, lang, include, rows in cases():
        more = {}
        if task == "include":
            more["description"] = "The following is multiple-choice question about STEM."
        names[task, lang] = f"{task}_{lang}_local"
        local(folder, names[task, lang], include, rows, **more)
    lm = InterventionLM(LanguageModel(model, tokenizer), Plan("none"), batch_size=3)
    found = run_harness(folder, lm, list(names.values()))
    return {key: (found["samples"][name], found["results"][name]) for key, name in names.items()}


@pytest.mark.parametrize("name", ("xnli", "xcopa", "xwinograd", "belebele", "include"))
@pytest.mark.parametrize("batch_tokens", (1, 300, 100_000))
def test_prompts_and_log_likelihoods_are_the_harnesss(name, batch_tokens, oracle, model, tokenizer):
    task = load_task(ROOT / "config" / "tasks" / f"{name}.yaml")
    checked = 0
    for own, lang, _, rows in cases():
        if own != name or (batch_tokens != 300 and checked):
            continue
        samples, results = oracle[name, lang]
        samples = sorted(samples, key=lambda sample: sample["doc_id"])
        requests = [
            pair for row in build(rows, task, lang) for pair in row.requests(task.delimiter)
        ]
        asked = [tuple(pair) for sample in samples for pair in sample["arguments"]]
        assert requests == asked, f"{name} {lang}"
        expected = [float(answer[0][0]) for sample in samples for answer in sample["resps"]]
        found = loglikelihood(LanguageModel(model, tokenizer), requests, batch_tokens)
        np.testing.assert_allclose([value for value, _ in found], expected, atol=1e-4)
        frame = score_task(LanguageModel(model, tokenizer), task, lang, rows, batch_tokens)
        assert frame["accuracy"].mean() == pytest.approx(results["acc,none"])
        checked += 1
    assert checked


def test_words_of_xquad_are_the_harnesss():
    task = load_task(ROOT / "config" / "tasks" / "xquad.yaml")
    row = {"id": "a", "context": "C", "question": "Q", "answers": {"text": ["x"]}}
    files = sorted((SHIPPED / "xquad").glob("xquad_*.yaml"))
    assert len(files) == 12
    for path in files:
        prompt = yaml.safe_load(path.read_text())["doc_to_text"]
        expected = prompt.replace("{{context}}", "C").replace("{{question}}", "Q")
        (example,) = build([row], task, path.stem.removeprefix("xquad_"))
        assert example.context == expected, path.name


def test_domains_and_files_of_include_are_the_harnesss():
    task = load_task(ROOT / "config" / "tasks" / "include.yaml")
    folders = {path.name for path in (SHIPPED / "include" / "default").iterdir()}
    assert {task.code(lang) for lang in task.languages} == folders


def overwrite(value=0.0, operation="set", layer=0, site="act"):
    index = np.arange(0, 48, 2)
    return Plan("half", [Write(layer, site, operation, index, np.full(index.shape, value))])


@pytest.fixture
def two_tasks(tmp_path):
    local(tmp_path, "copa_local", "xcopa/default_vi.yaml", _mini("xcopa", "vi")[:4])
    rows = _mini("xquad", "vi")[:2]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "task": "answers_local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "answers.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "x",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }
    (tmp_path / "answers_local.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


@pytest.mark.parametrize("batch_size", (1, 3))
def test_the_bridge_scores_under_the_intervention(batch_size, two_tasks, model, tokenizer):
    plan = overwrite()
    lm = InterventionLM(
        LanguageModel(model, tokenizer, {"model": "tiny"}), plan, batch_size=batch_size
    )
    found = run_harness(two_tasks, lm, ["copa_local", "answers_local"])
    asked, answers = {}, {}
    for name, samples in found["samples"].items():
        samples = sorted(samples, key=lambda sample: sample["doc_id"])
        asked[name] = [tuple(pair) for sample in samples for pair in sample["arguments"]]
        answers[name] = [answer[0] for sample in samples for answer in sample["resps"]]
    own = loglikelihood(LanguageModel(model, tokenizer), asked["copa_local"], 200, under=plan)
    prompts = [prompt for prompt, _ in asked["answers_local"]]
    texts = generate(LanguageModel(model, tokenizer), prompts, Decoding(6, ["\n"]), 400, under=plan)
    found_values = [float(value) for value, _ in answers["copa_local"]]
    np.testing.assert_allclose(found_values, [value for value, _ in own], atol=1e-4)
    assert answers["answers_local"] == texts
    untouched = loglikelihood(LanguageModel(model, tokenizer), asked["copa_local"], 200)
    assert np.abs(np.subtract(found_values, [value for value, _ in untouched])).max() > 0.01
    assert not any(module._forward_hooks for module in model.modules())
    stored = found["config"]
    assert stored["intervention_fingerprint"] == lm.fingerprint and stored["model"] == "tiny"


def test_the_bridge_refuses_what_has_no_effect(two_tasks, model, tokenizer):
    with pytest.raises(NoEffect, match="already there"):
        lm = InterventionLM(LanguageModel(model, tokenizer), overwrite(1.0, "scale"))
        run_harness(two_tasks, lm, ["copa_local"])
    deep = Plan("deep", [Write(7, "act", "set", np.array([0]), np.zeros(1))])
    with pytest.raises(ValueError, match="layer 7 of a model of 2"):
        run_harness(
            two_tasks, InterventionLM(LanguageModel(model, tokenizer), deep), ["copa_local"]
        )
    some = Plan("some", [Write(0, "act", "set", np.array([0]), np.zeros(1), "prompt")])
    with pytest.raises(ConfigError, match="prompt tokens only"):
        InterventionLM(LanguageModel(model, tokenizer), some)
    write = Write(0, "act", "set", np.array([0]), np.ones(1), factor=Factor("layer_max"))
    with pytest.raises(ConfigError, match="its value is layer_max"):
        InterventionLM(LanguageModel(model, tokenizer), Plan("layer", [write]))


def test_caches_of_another_intervention_are_refused(two_tasks, model, tokenizer):
    pytest.importorskip("sqlitedict", reason="caches of the harness need sqlitedict")
    first = InterventionLM(LanguageModel(model, tokenizer), overwrite(0.0))
    second = InterventionLM(LanguageModel(model, tokenizer), overwrite(0.5))
    renamed = InterventionLM(LanguageModel(model, tokenizer), Plan("other", overwrite(0.0).writes))
    assert first.fingerprint == renamed.fingerprint != second.fingerprint
    assert (
        InterventionLM(LanguageModel(model, tokenizer), Plan("none")).fingerprint
        != first.fingerprint
    )
    assert (
        InterventionLM(
            LanguageModel(model, tokenizer, {"dtype": "bfloat16"}), overwrite(0.0)
        ).fingerprint
        != first.fingerprint
    )
    path = first.cache_path(two_tasks / "answers")
    once = run_harness(two_tasks, first, ["copa_local"], use_cache=path)
    again = run_harness(two_tasks, first, ["copa_local"], use_cache=path)
    for one, other in zip(
        once["samples"]["copa_local"], again["samples"]["copa_local"], strict=True
    ):
        assert one["resps"] == other["resps"]
    with pytest.raises(
        ConfigError, match=f"{first.fingerprint}.*does not hold.*{second.fingerprint}"
    ):
        run_harness(two_tasks, second, ["copa_local"], use_cache=path)
    with pytest.raises(ConfigError, match="use_cache"):
        run_harness(two_tasks, first, ["copa_local"], use_cache=str(two_tasks / "shared"))


def test_the_bridge_is_built_from_a_configuration_and_its_results(
    checkout, two_tasks, monkeypatch, capsys
):
    monkeypatch.chdir(checkout.path)
    names = {
        "model": "tiny",
        "language_set": "three",
        "selection": "prob",
        "intervention": "p90",
        "language": "vi",
    }
    plain = lm_eval.simple_evaluate(
        model="langneurons",
        model_args={"config": "tiny.yaml", "model": "tiny"},
        tasks=["copa_local"],
        task_manager=TaskManager(include_path=str(two_tasks), include_defaults=False),
        bootstrap_iters=0,
    )
    arguments = [
        "evaluate",
        "tiny.yaml",
        *(f"--{key.replace('_', '-')}={value}" for key, value in names.items()),
    ]
    arguments += [f"--include-path={two_tasks}", "--only-included", "--task", "copa_local"]
    output = two_tasks / "scores.json"
    assert main([*arguments, "--output", str(output), "--cache", str(two_tasks / "kept")]) == 0
    written = json.loads(output.read_text())
    assert written["results"]["copa_local"]["sample_len"] == 4
    fingerprint = written["model"]["intervention_fingerprint"]
    assert fingerprint != plain["config"]["intervention_fingerprint"]
    assert [fingerprint in path.name for path in (two_tasks / "kept").iterdir()] == [True]

    lm = InterventionLM.from_config("tiny.yaml", **names)
    assert lm.fingerprint == fingerprint
    table = NeuronTable.from_parquet("results/tiny/neurons/en-hi-vi/prob.parquet")
    assert lm.plan.neurons == table.counts()["vi"] > 0
    statistics = Statistics.read("results/tiny/activations/vi.safetensors").value("p90", "act")
    for write in lm.plan.writes:
        np.testing.assert_array_equal(write.value, statistics[write.layer, write.index])

    capsys.readouterr()
    wrong = [word.replace("--selection=prob", "--selection=prop") for word in arguments]
    assert main(wrong) == 1
    assert "selection: 'prop'" in (error := capsys.readouterr().err) and "'prob'?" in error
    monkeypatch.chdir(two_tasks)
    with pytest.raises(FileNotFoundError, match="manifest.json: not made yet"):
        InterventionLM.from_config(str(checkout.path / "tiny.yaml"), **names)
