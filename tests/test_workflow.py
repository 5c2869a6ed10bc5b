"""The graph on a tiny random model: full run, reruns of exactly what an edit touches, dry runs."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import warm
import yaml

ROOT = Path(__file__).parent.parent
# Rules that show results and compute none.
SHOWING = ("draw_", "tabulate_", "name_", "write_")
TRIGGERS = ["--rerun-triggers", "mtime", "params", "input"]
QUESTIONS = {"kind": "jsonl", "path": str(ROOT / "tests/data/questions/{lang}.jsonl")}
CONFIG = {
    "name": "tiny",
    "models": {
        "tiny": {"source": {"kind": "local", "path": "tiny-model"}, "dtype": "float32"},
    },
    "language_sets": {"three": ["en", "vi", "hi"], "two": ["en", "zh"]},
    "corpus": {
        "source": {"kind": "mini"},
        "tokens": 1500,
        "heldout_tokens": 400,
        "heldout_fraction": 0.2,
        "block_size": 64,
        "heldout_block_size": 64,
    },
    "statistics": {"batch_blocks": 4, "shards": 2},
    "selections": {
        "lape": {"method": "lape", "rate": 0.1, "language_sets": ["three"]},
        "prob": {"method": "exceedance", "rate": 0.02},
        "random": {"method": "random", "like": "prob", "match": "layer"},
    },
    "interventions": {
        "zero": {"operation": "set", "value": 0},
        "p90": {"operation": "set", "value": "p90"},
        "arithmetic": {
            "steps": [
                {"neurons": "source", "operation": "set", "value": 0},
                {"operation": "add", "value": "mean"},
            ]
        },
    },
    "protocols": {
        "corrected": {},
        "site": {"intervention_site": "paper"},
        "rows": {"split": "paper", "perplexity_text": "paper"},
    },
    "perplexity": {"interventions": ["zero"], "tokens": 120},
    "tasks": {
        "xcopa": {
            "source": {"kind": "mini"},
            "languages": ["vi"],
            "interventions": ["zero"],
            "selections": ["lape"],
            "limit": 4,
        },
        "xquad": {
            "source": {"kind": "mini"},
            "languages": ["en"],
            "interventions": ["p90"],
            "selections": ["prob"],
            "limit": 2,
        },
        "xnli_head": {
            "source": {"kind": "mini", "name": "xnli"},
            "rows": [0.5, 1],
            "languages": ["vi"],
            "finetunings": ["nli"],
            "interventions": ["zero"],
            "selections": ["prob", "random"],
            "limit": 6,
        },
    },
    "finetunings": {
        "nli": {
            "definition": "config/tasks/xnli_head.yaml",
            "source": {"kind": "mini", "name": "xnli"},
            "rows": [0, 0.5],
            "paper": {"rows": [0, 0.25]},
            "neurons": ["none", "target"],
            "selections": ["prob", "random"],
            "targets": ["vi"],
            "training": {"max_steps": 4, "log_steps": 2, "checkpoint_steps": 2, "max_length": 512},
        }
    },
    "forcing": {
        "questions": QUESTIONS,
        "interventions": ["arithmetic"],
        "selections": ["lape"],
        "sources": ["en", "vi"],
        "targets": ["vi", "hi"],
        "max_new_tokens": 4,
        "limit": 2,
    },
    "fallback": {
        "questions": QUESTIONS,
        "interventions": ["zero"],
        "selections": ["lape"],
        "order": ["hi", "vi"],
        "max_new_tokens": 4,
        "limit": 2,
    },
    "lens": {
        "questions": QUESTIONS,
        "interventions": ["arithmetic"],
        "selections": ["lape"],
        "targets": ["vi"],
        "languages": ["en", "vi"],
        "limit": 2,
    },
    "browser": {
        "selections": ["lape"],
        "contexts": 2,
        "words": 3,
        "zeroed": 1,
    },
    "results": {
        "bootstrap": 100,
        "published": "config/published/mondal2025.yaml",
        "claims": ["interventions_do_not_help", "language_neurons_equal_random"],
        "figures": {
            "fig08_overlap": {
                "kind": "overlap",
                "model": "tiny",
                "languages": "three",
                "selection": "lape",
            }
        },
        "venn": [["en", "vi", "hi"]],
    },
}


# What jobs find in their environment and must not write down.
SECRETS = {
    "HF_TOKEN": "hf_" + "Zq7" * 12,
    "WANDB_API_KEY": "0f1e2d3c4b" * 4,
    "LANGNEURONS_PRIVATE": "a-private-word-of-the-environment",
}


IDLE_SECONDS = 900  # without a word of Snakemake or of a job; each takes seconds


def patiently(
    command: list[str], folder: Path, environment: dict, idle: float = IDLE_SECONDS
) -> subprocess.CompletedProcess:
    """Run a command for as long as it says something now and then, whatever it takes in all.

    Raises:
        AssertionError: it said nothing for `idle` seconds; its processes are ended.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=err, start_new_session=True
        ) as process:
            said, since = 0, time.monotonic()
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(1.0, idle))
                size = os.fstat(out.fileno()).st_size + os.fstat(err.fileno()).st_size
                if size != said:
                    said, since = size, time.monotonic()
                elif time.monotonic() - since > idle:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    break
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if process.returncode == -signal.SIGKILL and time.monotonic() - since > idle:
        last = "\n".join("".join(texts).splitlines()[-20:])
        raise AssertionError(f"{command}: nothing was said for {idle:g} s; its last words:\n{last}")
    return subprocess.CompletedProcess(command, process.returncode, *texts)


class Checkout:
    """A copy of the project in which Snakemake runs, with its own configuration."""

    def __init__(self, path: Path):
        self.path = path
        for name in ("Snakefile", "workflow", "src", "config", "profiles", "environment.yml"):
            source = ROOT / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, path / name, ignore=ignore)
            else:
                shutil.copy2(source, path / name)
        self.config = json.loads(json.dumps(CONFIG))
        self.save()

    def save(self) -> None:
        (self.path / "tiny.yaml").write_text(json.dumps(self.config))

    def run(
        self, *arguments: str, check: bool = True, hub: bool = False, cold: bool = False
    ) -> subprocess.CompletedProcess:
        """Run Snakemake; it and its jobs start warm (`warm`), unless they are to start cold."""
        python = sys.executable if cold else warm.python()
        command = [python, "-m", "snakemake", *arguments]
        environment = os.environ | {
            "PYTHONPATH": str(self.path / "src"),
            "NUMBA_CACHE_DIR": str(self.path / ".numba"),
            **({} if hub else SECRETS),
        }
        done = patiently(command, self.path, environment)
        if check and done.returncode:
            raise AssertionError(f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}")
        return done

    def make(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.run("-c2", "--configfile", "tiny.yaml", *TRIGGERS, *arguments)

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run lists."""
        done = self.make("-n", "--quiet", "rules", *arguments)
        text = done.stdout + done.stderr
        if "Nothing to be done" in text:
            return {}
        stats = re.search(r"job +count\n-+ +-+\n(.*?)\ntotal", text, re.S).group(1)
        counts = {rule: int(n) for rule, n in re.findall(r"^(\S+) +(\d+)$", stats, re.M)}
        counts.pop("all", None)
        return counts


def save_tiny_model(folder: Path) -> None:
    """Save a random Llama with a byte-level tokenizer, so that every script is readable."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2}
    vocabulary |= {symbol: index for index, symbol in enumerate(symbols, len(vocabulary))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            initializer_range=0.3,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_a_command_may_take_long_but_not_fall_silent(tmp_path):
    script = "import time\nfor _ in range(6): print('on', flush=True); time.sleep(0.3)"
    done = patiently([sys.executable, "-c", script], tmp_path, dict(os.environ), idle=1.2)
    assert done.returncode == 0 and done.stdout.split() == ["on"] * 6
    script = "import time\nprint('last word', flush=True); time.sleep(60)"
    with pytest.raises(AssertionError, match=r"nothing was said for 1\.2 s(.|\n)*last word"):
        patiently([sys.executable, "-c", script], tmp_path, dict(os.environ), idle=1.2)


def test_the_shared_graph_ends(finished):
    _, failure = finished
    assert failure is None, failure


def test_full_run_makes_every_result(checkout):
    results = checkout.path / "results"
    names = (
        "neurons",
        "overlap",
        "selections",
        "layers",
        "activations",
        "perplexity",
        "tasks",
        "published",
    )
    names += ("forcing", "forcing_summary", "fallback", "lens", "lens_tokens")
    names += ("claims", *(f"table{number}" for number in range(1, 9)))
    for name in names:
        for kind in ("csv", "md", "tex"):
            assert (results / f"tables/tiny/{name}.{kind}").stat().st_size > 0
    figures = {p.relative_to(results / "figures/tiny") for p in results.rglob("*.svg")}
    assert Path("tiny/three/lape/venn.svg") in figures
    assert Path("fig08_overlap.svg") in figures
    for protocol in ("corrected", "site", "rows"):
        for kind in ("perplexity", "cross_entropy"):
            assert Path(f"tiny/{protocol}/three/zero/{kind}.svg") in figures
        for kind in ("arithmetic/forcing", "zero/fallback", "arithmetic/lens_change", "lens"):
            assert Path(f"tiny/{protocol}/three/{kind}.svg") in figures
        assert Path(f"tiny/{protocol}/two/lens.svg") in figures
    assert all((results / "figures/tiny" / f).with_suffix(".png").exists() for f in figures)
    logs = list((checkout.path / "logs").rglob("*.json"))
    record = json.loads(next(p for p in logs if "measure_perplexity" in str(p)).read_text())
    for key in ("settings", "code", "versions", "device", "seconds", "peak_memory_mb"):
        assert key in record


def test_a_failed_job_says_why_where_and_what_to_type(edit):
    edit.config["language_sets"]["two"] = ["en", "zh", "fr"]
    edit.config["corpus"]["source"] = {"kind": "jsonl", "path": "texts/{lang}.jsonl"}
    edit.save()
    (edit.path / "texts").mkdir(exist_ok=True)
    for lang in ("en", "vi", "hi", "zh", "fr"):
        (edit.path / f"texts/{lang}.jsonl").write_text('{"text": "one"}\n{"text": \n')
    log = edit.path / "logs/fetch_text/fr.log"
    command = ("resources/text/fr.jsonl", "-c1", "--configfile", "tiny.yaml", *TRIGGERS)
    done = edit.run(*command, check=False)
    assert done.returncode != 0
    last = done.stderr[done.stderr.index("langneurons: 1 job(s) failed") :]
    assert "fetch_text -> resources/text/fr.jsonl" in last
    assert "texts/fr.jsonl" in last.split("reason: ")[1].splitlines()[0]
    assert f"log: {log.relative_to(edit.path)}" in last
    assert f"  {' '.join(['snakemake', *command])}\n" in last


def test_second_run_has_nothing_to_do(checkout):
    assert checkout.planned() == {}


def test_a_job_that_starts_cold_makes_the_same_file(checkout):
    paths = [
        checkout.path / "results/tiny" / path
        for path in ("perplexity/corrected/en-hi-vi/lape.parquet", "corpora/zh.safetensors")
    ]
    warmly = [(path.read_bytes(), path.stat()) for path in paths]
    work = checkout.path / "results/.work"
    work.rename(checkout.path / "results/.kept")
    names = [str(path.relative_to(checkout.path)) for path in paths]
    options = ("-c2", "--configfile", "tiny.yaml", "--force", "--rerun-triggers", "input")
    checkout.run(*options, "--", *names, cold=True)
    assert work.exists()  # nothing came from the parts of the first run
    shutil.rmtree(work)
    (checkout.path / "results/.kept").rename(work)
    for path, (content, stat) in zip(paths, warmly, strict=True):
        assert path.stat().st_mtime_ns != stat.st_mtime_ns and path.read_bytes() == content
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert checkout.planned() == {}


def test_a_clone_reruns_nothing(checkout):
    for path in (checkout.path / "workflow").rglob("*"):
        os.utime(path)
    assert checkout.planned() == {}


def test_comment_docstring_and_layout_rerun_nothing(edit):
    path = edit.path / "src/langneurons/activations/statistics.py"
    text = path.read_text()
    path.write_text(text.replace('"""Activation', '"""# Other\n\nThe', 1) + "\n# end\n")
    assert edit.planned() == {}


def test_selection_code_reruns_selection_and_what_follows(edit):
    path = edit.path / "src/langneurons/selection/methods/lape.py"
    path.write_text(path.read_text() + "\nADDED = 1\n")
    planned = edit.planned()
    assert planned["select_neurons"] == 1
    assert not {"collect_statistics", "merge_statistics", "pack_corpus"} & set(planned)
    assert {"measure_perplexity", "evaluate_task", "tabulate_statistics"} <= set(planned)


def test_statistics_code_names_the_module(edit):
    path = edit.path / "src/langneurons/activations/collect.py"
    path.write_text(path.read_text() + "\nADDED = 1\n")
    assert edit.planned()["collect_statistics"] == 8
    text = edit.make("-n").stdout
    assert "langneurons.activations.collect=" in text


def test_adding_a_language_touches_its_set_only(edit):
    edit.config["language_sets"]["two"] = ["en", "zh", "fr"]
    edit.save()
    planned = edit.planned()
    assert planned["fetch_text"] == planned["pack_corpus"] == 1
    assert planned["collect_statistics"] == 2
    assert planned["select_neurons"] == 2
    assert planned["measure_perplexity"] == 6
    assert "prepare_model" not in planned


def test_renaming_and_reordering_a_set_compute_nothing(edit):
    sets = edit.config["language_sets"]
    edit.config["language_sets"] = {"renamed": ["hi", "en", "vi"], "two": sets["two"]}
    edit.config["selections"]["lape"]["language_sets"] = ["renamed"]
    edit.config["results"]["figures"]["fig08_overlap"]["languages"] = "renamed"
    edit.save()
    assert all(rule.startswith(SHOWING) for rule in edit.planned())


def test_adding_an_intervention_keeps_finished_parts(edit):
    edit.config["tasks"]["xcopa"]["interventions"] = ["zero", "p90"]
    edit.save()
    planned = edit.planned()
    assert planned["evaluate_task"] == 3
    assert "measure_perplexity" not in planned and "select_neurons" not in planned


def test_adapters_are_trained_once_and_evaluated_under_every_condition(edit):
    import pandas as pd

    adapters = edit.path / "results/tiny/adapters"
    # One folder for the protocols that train alike, one for the one that does not.
    assert sorted(path.name for path in adapters.iterdir()) == ["corrected", "split"]
    adapters = adapters / "corrected"
    folders = sorted(path.name for path in adapters.iterdir())
    random, target = "nli+target+random+en-hi-vi+vi", "nli+target+prob+en-hi-vi+vi"
    assert folders == ["nli+none", target, random]
    for folder in folders:
        files = {path.name for path in (adapters / folder).iterdir()}
        assert {"adapter_model.safetensors", "adapter_config.json", "curves.parquet"} <= files
    table = pd.read_csv(edit.path / "results/tables/tiny/tasks.csv")
    of_head = table[table["task"] == "xnli_head"]
    assert of_head["adapter"].nunique() == 3
    everything = of_head[of_head["adapter"] == "nli: none"]
    assert set(everything["selection"]) == {"none", "prob", "random"}
    assert (edit.path / "results/figures/tiny/tiny/corrected/nli/curves.svg").exists()


def test_an_intervention_retrains_nothing_and_a_learning_rate_retrains_all(edit):
    edit.config["tasks"]["xnli_head"]["interventions"] = ["zero", "p90"]
    edit.save()
    planned = edit.planned()
    assert planned["evaluate_task"] == 9 and "finetune" not in planned
    edit.config["finetunings"]["nli"]["training"]["learning_rate"] = 1e-4
    edit.save()
    assert edit.planned()["finetune"] == 6


def test_a_protocol_computes_only_where_its_points_matter(edit):
    edit.config["protocols"]["quantiles_too"] = {"answers": "paper"}
    edit.save()
    assert all(rule.startswith(SHOWING) for rule in edit.planned())
    edit.config["protocols"]["quantiles_too"] = {"pooling": "paper"}
    edit.save()
    planned = edit.planned()
    assert planned["finetune"] == 3
    assert not {"measure_perplexity", "prepare_task", "collect_statistics"} & set(planned)


def test_resources_and_labels_rerun_no_job_that_computes(edit):
    edit.config["runtime"] = {"mem_mb": 9000, "batch_tokens": 64}
    edit.config["selections"]["lape"]["label"] = "other"
    edit.save()
    assert all(rule.startswith(SHOWING) for rule in edit.planned())


def test_report_is_one_html_file(checkout):
    checkout.make("--report", "report.html")
    text = (checkout.path / "report.html").read_text()
    assert "perplexity" in text and len(text) > 100_000


def test_the_results_page_opens_on_its_summary(checkout):
    from test_page import browser

    page = checkout.path / "results/reports/tiny.html"
    text = page.read_text()
    pictures = list((checkout.path / "results/figures/tiny").rglob("*.svg"))
    # The source of the named figure is shown once, under its name.
    assert text.count("data:image/svg+xml") == len(pictures) - 1
    command = [browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={checkout.path / 'browser'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    assert "CONSOLE" not in done.stderr
    found = [done.stdout.find(part) for part in ("Test-time interventions", "Agreement", "Table 1")]
    assert -1 not in found and found[2] == max(found)
    assert "Figures in the paper" in done.stdout


@pytest.mark.parametrize("change, words", [({"nam": 1}, "unknown key"), ({"models": {}}, "models")])
def test_bad_configuration_stops_before_any_job(edit, change, words):
    edit.config |= change
    edit.save()
    done = edit.run("-n", "--configfile", "tiny.yaml", check=False)
    assert done.returncode
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


SHIPPED = sorted(
    str(path.relative_to(ROOT))
    for folder in ("config", "config/papers")
    for path in (ROOT / folder).glob("*.yaml")
    if path.name != "plan.yaml"
)


def test_local_copies_of_the_tasks_replace_the_mini_ones(checkout):
    files = "config/papers/mondal2025_small.yaml", "config/overlays/local_xnli_xquad.yaml"
    done = checkout.run("-n", "--configfile", *files, check=False)
    assert done.returncode and "data/xnli/vi/test.jsonl" in done.stdout + done.stderr
    nli = {"premise": "a", "hypothesis": "b", "label": 0}
    qa = {"context": "a b", "question": "a?", "answers": {"text": ["a"]}, "id": "1"}
    found = [("xnli/vi/test", nli), ("xnli/en/validation", nli)]
    found += [(f"xquad/{lang}/validation", qa) for lang in ("en", "vi", "zh")]
    for name, row in found:
        path = checkout.path / f"data/{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((json.dumps(row) + "\n") * 10, encoding="utf-8")
    done = checkout.run("-n", "--configfile", *files, "--quiet", "rules")
    shutil.rmtree(checkout.path / "data")
    assert "evaluate_task" in done.stdout + done.stderr


def lay_benchmarks(folder, monkeypatch):
    """Lay what two benchmarks are read from: questions, published neurons, identifiers, words."""
    inner = folder / "CLaS-Bench"
    texts = {f"data/{lang}.txt": "Why?\n" * 9 for lang in languages_of("clas_bench")}
    texts |= {
        f"identification/activation_mask/{model}-{rate}": "neurons"
        for model in ("llama", "aya")
        for rate in (1, 3, 5)
    }
    parts = {"monolingual/aya": ["ar", "en"], "monolingual/dolly": ["es"]}
    parts |= {"monolingual/native": ["ko"], "monolingual/okapi": ["zh"]}
    other = [lang for lang in languages_of("language_confusion") if lang != "en"]
    parts |= {f"crosslingual/{name}": other for name in ("complex_prompts", "okapi", "sharegpt")}
    rows = "prompt,source,language\n" + '"Why, and\nhow?",a,b\n' * 9
    tables = {f"test_sets/{one}/{lang}.csv": rows for one, langs in parts.items() for lang in langs}
    tables |= {"words": "house\n"}
    for above, files in ((inner, texts), (folder / "language-confusion", tables)):
        for name, text in files.items():
            (above / name).parent.mkdir(parents=True, exist_ok=True)
            (above / name).write_text(text)
    for name in ("lid218e.bin", "language-confusion/lid.176.bin"):
        (folder / name).write_bytes(b"\xba\x16\x4f\x2f")  # as a fastText model begins
    monkeypatch.setenv("CLAS_BENCH", str(folder))
    monkeypatch.setenv("LID218E", str(folder / "lid218e.bin"))
    monkeypatch.setenv("LANGUAGE_CONFUSION", str(folder / "language-confusion"))


def languages_of(name):
    """Return the languages of a configuration of one set."""
    text = (ROOT / f"config/papers/{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["language_sets"]["all"]


@pytest.mark.parametrize("config", SHIPPED)
def test_dry_run_of_shipped_configurations(checkout, config, tmp_path, monkeypatch):
    lay_benchmarks(tmp_path, monkeypatch)
    done = checkout.run("-n", "--configfile", config, "--quiet", "rules")
    (total,) = set(re.findall(r"^total +(\d+)$", done.stdout + done.stderr, re.M))
    # Figures, tables and interventions of a model share jobs.
    most = {"config": 60, "mondal2025": 500, "rahmanisa2025": 1400}
    assert 1 < int(total) <= most.get(Path(config).stem, 2500)


def test_default_configuration_needs_no_flag(checkout):
    done = checkout.run("-n", "-c1", "--quiet", "rules")
    assert "total" in done.stdout + done.stderr


def test_slurm_profile_plans(checkout):
    done = checkout.run("--profile", "profiles/slurm", "-j", "32", "-n", "--quiet", "rules")
    assert "total" in done.stdout + done.stderr


def test_account_and_partition_come_from_the_environment(checkout, monkeypatch):
    command = ("--profile", "profiles/slurm", "--configfile", "config/config.yaml", "-n")
    for name, value in (("SBATCH_ACCOUNT", "lab7"), ("SBATCH_PARTITION", "a100")):
        monkeypatch.setenv(name, value)
    said = checkout.run(*command).stdout
    assert "slurm_account=lab7, slurm_partition=a100" in said
    monkeypatch.delenv("SBATCH_ACCOUNT")
    monkeypatch.delenv("SBATCH_PARTITION")
    assert "slurm_account" not in checkout.run(*command).stdout


def test_a_papers_prompts_are_read_from_its_own_definition(tmp_path):
    checkout = Checkout(tmp_path)
    save_tiny_model(tmp_path / "tiny-model")
    entry = {"source": {"kind": "mini"}, "languages": ["vi"], "limit": 2}
    entry["paper"] = {"definition": "config/tasks/xnli_generate.yaml"}
    checkout.config["tasks"] = {"xnli": entry}
    checkout.config["protocols"] = {"ours": {}, "theirs": {"prompts": "paper"}}
    del checkout.config["finetunings"], checkout.config["results"]
    checkout.save()
    text = checkout.make("-n").stdout
    reads = re.findall(
        r"^rule (prepare|evaluate)_task:\n +input: (.*)\n +output: (.*)$", text, re.M
    )
    assert len(reads) == 4
    for _, read, made in reads:
        own = "xnli_generate.yaml" if "/prompts/" in made else "xnli.yaml"
        assert f"config/tasks/{own}" in read, (read, made)
