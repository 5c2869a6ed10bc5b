"""The plan: counts follow the configuration, hours the assumptions; measurements replace both."""

import json
from pathlib import Path

import pytest

from langneurons.base.errors import ConfigError
from langneurons.base.yaml import parse_yaml
from langneurons.cli import main
from langneurons.config import build, read_configs
from langneurons.jobs.costs import ASSUMPTIONS, Planner, text
from langneurons.jobs.parameters import stage as parameters
from langneurons.jobs.stages import STAGES

ROOT = Path(__file__).parent.parent
ASSUMED = parse_yaml((ROOT / ASSUMPTIONS).read_text())
PAPER = ROOT / "config/papers/mondal2025.yaml"


def plan(raw=None, folder=ROOT / "nowhere", **changes):
    config = read_configs([PAPER]) if raw is None else build(raw)
    return Planner(config, ASSUMED | changes, folder)


def stage(planner, rule, model="llama-3.1-8b"):
    (found,) = [one for one in planner.lines() if (one.rule, one.model) == (rule, model)]
    return found


def test_every_job_of_the_paper_is_counted():
    planner = plan()
    config = planner.config
    counts = {one.rule: one.jobs for one in planner.lines() if one.model == "llama-3.1-8b"}
    assert counts["pack_corpus"] == 16
    assert counts["collect_statistics"] == 16 * config.statistics.shards
    model = "llama-3.1-8b"
    protocols = 2
    assert counts["finetune"] == protocols * len(config.adapters(model))
    assert counts["evaluate_task"] == protocols * len(config.evaluations(model))
    tables = {cell[:2] for cell in config.perplexity_cells(model)}
    assert counts["measure_perplexity"] == protocols * len(tables)


def test_hours_of_statistics_by_hand():
    planner = plan()
    one, shards = stage(planner, "collect_statistics"), planner.config.statistics.shards
    device = ASSUMED["device"]["tflops"] * 1e12 * ASSUMED["utilisation"]["statistics"]
    forward = 16 * 1e8 * 2 * 8.03e9 * ASSUMED["nf4_slowdown"] / device / 3600
    embeddings = 128256 * 4096 * 2
    held = (8.03e9 - embeddings) * 0.56 + embeddings * 2
    loading = 16 * shards * held / 1e9 / ASSUMED["load_gb_per_second"] / 3600
    assert one.gpu_hours == pytest.approx(forward + loading, rel=1e-6)
    assert one.hours_left == one.gpu_hours
    assert one.load_hours == pytest.approx(loading, rel=1e-6)
    assert one.million_tokens == pytest.approx(1600)


def test_a_faster_device_takes_less_and_weights_bound_the_memory():
    fast = ASSUMED["device"] | {"tflops": 624}
    assert stage(plan(device=fast), "finetune").gpu_hours < stage(plan(), "finetune").gpu_hours
    for one in plan().lines():
        if one.rule in ("collect_statistics", "finetune", "evaluate_task"):
            parameters = {"llama-3.1-8b": 8.03, "mistral-nemo-12b": 12.2}[one.model]
            assert 0.5 * parameters < one.gpu_gb < ASSUMED["device"]["memory_gb"]


def test_measured_jobs_replace_the_estimate(tmp_path):
    folder = tmp_path / "benchmarks/results/pack_corpus/llama-3.1-8b"
    folder.mkdir(parents=True)
    output = tmp_path / "results/llama-3.1-8b/corpora/en.safetensors"
    output.parent.mkdir(parents=True)
    output.touch()
    (folder / "en.tsv").write_text("s\tmax_rss\n7200\t12345\n")
    one = stage(plan(folder=tmp_path), "pack_corpus")
    assert one.basis == "measured, 1 jobs"
    assert (one.done, one.jobs) == (1, 16)
    assert one.hours_left == pytest.approx(15 * 2.0)
    assert one.host_gb == pytest.approx(12.345)


def test_an_unknown_model_is_named(capsys):
    with pytest.raises(ConfigError, match=r"models.llama-3.1-8b is unknown.*meta-llama"):
        plan(models={}).lines()
    assert main(["plan", "nowhere.yaml"]) == 1
    assert "nowhere.yaml" in capsys.readouterr().err


def test_a_prepared_model_is_read(tmp_path):
    folder = tmp_path / "resources/models/llama-3.1-8b"
    folder.mkdir(parents=True)
    # The architecture of Llama 3.1 8B: 8.03 billion parameters.
    sizes = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336}
    sizes |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
    (folder / "config.json").write_text(json.dumps(sizes))
    found = plan(folder=tmp_path).geometry("llama-3.1-8b")
    assert found.parameters == pytest.approx(8.03e9, rel=0.001)
    assert found.shared == ASSUMED["models"]["meta-llama/Llama-3.1-8B"]["shared"]


def test_evaluation_keeps_the_keys_and_values_of_a_batch():
    """Beside what a perplexity pass holds: 32 layers, 2 x 1024 numbers of two bytes a token."""
    made = plan()
    kept = made.config.runtime.batch_tokens * 32 * 2 * 1024 * 2 / 1e9
    more = stage(made, "evaluate_task").gpu_gb - stage(made, "measure_perplexity").gpu_gb
    assert more == pytest.approx(kept)


def test_ratings_cost_what_the_judge_costs(tmp_path):
    """The judge is loaded, not the model that wrote the answers; measured files lie under that."""
    own = read_configs([ROOT / "config/papers/clas_bench.yaml"])
    made = Planner(own, ASSUMED, tmp_path)
    rated = stage(made, "rate_answers", "qwen3-8b")
    assert rated.jobs == 56 and rated.basis == "assumed"  # 2 models x 2 protocols x 7 methods x 2
    assert not [
        one for one in made.lines() if one.rule == "rate_answers" and one.model != rated.model
    ]
    cells = STAGES["rate_answers"].cells(own)
    for number, one in enumerate(cells[:2]):
        file = tmp_path / STAGES["rate_answers"].file(one)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        names = [one[key] for key in ("model", "variant", "langset", "method", "phase", "judge")]
        bench = tmp_path / "benchmarks/results/rate_answers" / "/".join(names)
        bench = bench.parent / f"{bench.name}.tsv"
        bench.parent.mkdir(parents=True, exist_ok=True)
        bench.write_text(f"s\tmax_rss\n{100 + number}\t2000\n")
    measured = stage(made, "rate_answers", "qwen3-8b")
    assert measured.done == 2 and measured.basis != "assumed"


def test_a_plan_says_what_each_method_costs(tmp_path):
    own = read_configs([ROOT / "config/papers/clas_bench.yaml"])
    made = Planner(own, ASSUMED, tmp_path)
    lines = {(one.method, one.model, one.protocol): one for one in made.methods()}
    assert len(lines) == 7 * 2 * 2
    lape = lines["lape", "llama-3.1-8b-instruct", "corrected"]
    # 70 questions x 32 sources: a third under 4 settings in 32 targets; of the others the untouched
    # model, the chosen setting in 32 targets and as many random draws.
    asked = 70 * 32
    assert lape.answers == pytest.approx(asked * (4 * 32 / 3 + 2 / 3 * (1 + 2 * 32)))
    assert lines["prompt", lape.model, "corrected"].answers < lape.answers  # nothing to draw
    stages = ("answer_development", "answer_test", "rate_answers")
    whole = sum(one.gpu_hours for one in made.lines() if one.rule in stages)
    assert sum(one.gpu_hours for one in lines.values()) == pytest.approx(whole)
    assert "lape       llama-3.1-8b-instruct  corrected  " in text(made.lines(), made)


def test_the_printed_plan_states_what_it_rests_on(capsys):
    assert main(["plan", str(PAPER)]) == 0
    printed = capsys.readouterr().out
    for words in ("finetune", "GPU h", "disk GB", "A100", "Assumed", "total"):
        assert words in printed
    assert main(["plan", str(PAPER), "--json"]) == 0
    assert {one["rule"] for one in json.loads(capsys.readouterr().out)} >= {"fetch_text"}
    assert "WARNING" in text(
        plan(device=ASSUMED["device"] | {"memory_gb": 10}).lines(),
        plan(device=ASSUMED["device"] | {"memory_gb": 10}),
    )


def test_facts_of_the_steering_shift_are_counted():
    raw = {
        "name": "c",
        "models": {
            "m": {
                "source": {
                    "kind": "hub",
                    "repo": "meta-llama/Llama-3.1-8B",
                    "revision": "0" * 40,
                }
            }
        },
        "language_sets": {"three": ["en", "vi", "ja"]},
        "selections": {"lape": {"method": "lape"}},
        "interventions": {"zero": {"operation": "set", "value": 0}},
        "lss": {"interventions": ["zero"], "source": {"kind": "hub"}},
    }
    one = stage(plan(raw), "measure_lss", "m")
    # 2 candidates x 185 facts x 6 pairs, and untouched 3 x 4 candidates, of 16 tokens.
    assert one.jobs == 1
    assert one.million_tokens == pytest.approx(185 * 16 * (2 * 6 + 3 * 4) / 1e6)
    raw["interventions"]["mean"] = {"operation": "set", "value": "mean"}
    raw["lss"]["interventions"] = ["zero", "mean"]
    one = stage(plan(raw), "measure_lss", "m")
    assert one.jobs == 1
    assert one.million_tokens == pytest.approx(185 * 16 * (2 * 2 * 6 + 3 * 4) / 1e6)
    raw["lss"] |= {"interventions": ["zero"], "source": {"kind": "mini"}, "limit": 10}
    assert stage(plan(raw), "measure_lss", "m").million_tokens == pytest.approx(10 * 16 * 24 / 1e6)


def with_text(**training):
    """Return the plan of an 8B model of which neurons are trained on text."""
    raw = {
        "name": "text",
        "models": {
            "llama-3.1-8b": {
                "source": {"kind": "hub", "repo": "meta-llama/Llama-3.1-8B", "revision": "0" * 40}
            }
        },
        "language_sets": {"two": ["en", "vi"]},
        "corpus": {"source": {"kind": "mini"}, "tokens": 10**7, "heldout_tokens": 10**5},
        "selections": {"lape": {"method": "lape", "rate": 0.01}},
        "finetunings": {
            "more": {
                "source": {"kind": "text"},
                "language": "vi",
                "neurons": ["source"],
                "training": {"epochs": 3} | training,
            }
        },
    }
    return stage(plan(raw), "finetune")


def test_training_on_text_by_hand():
    one = with_text(parameters="rows", projections=["gate", "up", "down"], max_length=512)
    assert one.jobs == 1 and one.million_tokens == pytest.approx(30)
    # Two bytes for each of 1 % of 32 x 14336 neurons, three weights of 4096 each.
    assert one.disk_gb == pytest.approx(2 * 0.01 * 32 * 14336 * 3 * 4096 / 1e9)
    device = ASSUMED["device"]["tflops"] * 1e12
    step = 3e7 * 4 * 8.03e9 / (device * ASSUMED["utilisation"]["training"])
    held_out = 2e5 * 2 * 8.03e9 / (device * ASSUMED["utilisation"]["perplexity"])
    loading = 2 * 8.03 / ASSUMED["load_gb_per_second"]
    assert one.gpu_hours == pytest.approx((step + held_out + loading) / 3600, rel=1e-6)


def test_what_is_saved_grows_with_what_is_trained():
    few = with_text(parameters="rows", projections=["gate", "up", "down"])
    assert with_text(parameters="rows").disk_gb == pytest.approx(few.disk_gb / 3)
    assert with_text(parameters="lora", rank=64).disk_gb > with_text(parameters="lora").disk_gb


LARGE = {
    "Qwen/Qwen2.5-32B": {
        "parameters": 32.8e9,
        "layers": 64,
        "hidden": 5120,
        "intermediate": 27648,
        "vocabulary": 152064,
        "shared": 1024,
    },
    "meta-llama/Llama-3.1-70B": {
        "parameters": 70.6e9,
        "layers": 80,
        "hidden": 8192,
        "intermediate": 28672,
        "vocabulary": 128256,
        "shared": 1024,
    },
}


def large(repo, **model):
    """Return the plan of the first paper with one model, in bfloat16, on so many GPUs."""
    config = read_configs([PAPER])
    entry = config.models["llama-3.1-8b"].model_dump(mode="json")
    entry |= {"source": entry["source"] | {"repo": repo}, "quantization": "none"} | model
    raw = parse_yaml(PAPER.read_text())
    raw = {key: value for key, value in raw.items() if key not in ("results",)}
    config = build(raw | {"models": {"large": entry}})
    return Planner(config, ASSUMED | {"models": LARGE}, ROOT / "nowhere")


@pytest.mark.parametrize("repo, gpus", [("Qwen/Qwen2.5-32B", 2), ("meta-llama/Llama-3.1-70B", 4)])
def test_large_models_fit_the_gpus_they_ask_for(repo, gpus):
    """32B in bfloat16 on two GPUs of 80 GB, 70B on four; what is too few is said."""
    planner = large(repo, gpus=gpus)
    stages = [one for one in planner.lines() if one.gpus]
    weights = 2 * LARGE[repo]["parameters"] / 1e9
    assert {one.gpus for one in stages} == {gpus}
    for one in stages:
        assert weights / gpus < one.gpu_gb < ASSUMED["device"]["memory_gb"]
    assert "WARNING" not in text(planner.lines(), planner)
    alone = large(repo, gpus=1)
    shown = text(alone.lines(), alone)
    needed = alone.gpus_needed("large")
    assert 1 < needed <= gpus
    assert f"models.large.gpus: {needed}" in shown
    # A layer at a time computes: more GPUs take no less time, and are all paid for.
    first, second = (stage(one, "measure_perplexity", "large") for one in (alone, planner))
    assert second.gpu_hours == pytest.approx(gpus * first.gpu_hours)


def test_measured_loads_replace_the_assumed(tmp_path):
    folder = tmp_path / "logs/evaluate_task/llama-3.1-8b/corrected"
    folder.mkdir(parents=True)
    (folder / "a.log").write_text("10:00:00 loaded x: 8030 million parameters, on cuda:0, 4.5 s\n")
    one = stage(plan(folder=tmp_path), "evaluate_task")
    assert one.load_hours == pytest.approx(one.jobs * 4.5 / 3600)
    planner = plan(folder=tmp_path)
    assert "load models" in text(planner.lines(), planner)


def test_gpus_belong_to_no_job_and_weights_to_their_format():
    """Another number of GPUs reruns nothing; a model with 4-bit weights reads them."""
    raw = parse_yaml(PAPER.read_text())
    model = "llama-3.1-8b"
    more = raw | {"models": raw["models"] | {model: raw["models"][model] | {"gpus": 3}}}
    one, other = build(raw), build(more)
    assert (one.gpus(model), other.gpus(model)) == (one.runtime.gpu, 3)
    wildcards = {"model": model, "lang": "en", "shard": "0"}
    for name, keys in (("collect_statistics", wildcards), ("quantize_model", {"model": model})):
        assert parameters(one, name, **keys) == parameters(other, name, **keys)
    assert one.manifest(model) == f"resources/models/{model}/nf4/manifest.json"
    whole = raw["models"][model] | {"quantization": "none"}
    plain = build(raw | {"models": raw["models"] | {model: whole}})
    assert plain.manifest(model) == f"resources/models/{model}/manifest.json"


def test_the_default_of_the_project_is_planned_before_anything_runs(tmp_path, capsys):
    assert main(["plan", str(ROOT / "config/config.yaml"), "--directory", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "collect_statistics" in said and "gemma3-270m" in said


def test_every_shipped_model_has_a_size():
    names = ("papers", "studies")
    others = [path for name in names for path in sorted((ROOT / "config" / name).glob("*.yaml"))]
    for path in [ROOT / "config/config.yaml", *others]:
        planner = Planner(read_configs([path]), ASSUMED, Path("nowhere"))
        for model in planner.config.models:
            assert planner.geometry(model).layers > 0
