"""Clusters that take only --gres: what jobs ask for, and the command that the plugin builds."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from inprocess import planned
from snakemake_executor_plugin_slurm.partitions import parse_gpu_requirements
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string
from test_config import GOOD

from langneurons.base.errors import ConfigError
from langneurons.config import build

ROOT = Path(__file__).parent.parent
PARAMS = {
    "run_uuid": "run",
    "slurm_logfile": "a.log",
    "comment_str": "rule",
    "account": "",
    "partition": "",
    "workdir": None,
}
GPU_RULES = {"collect_statistics", "measure_perplexity", "evaluate_task"}


def commands(folder, monkeypatch, runtime, gpus=None):
    """Return (sbatch command, job) by rule."""
    monkeypatch.chdir(folder)
    (folder / "tiny-model").mkdir(exist_ok=True)
    (folder / "tiny-model/config.json").write_text("{}")
    raw = copy.deepcopy(GOOD) | {"runtime": runtime}
    if gpus is not None:
        raw["models"]["tiny"]["gpus"] = gpus
    (folder / "mine.yaml").write_text(json.dumps(raw))
    found = {}
    for job in planned(folder, [folder / "mine.yaml"]):
        command = get_submit_command(job, PARAMS) + set_gres_string(job)
        found[job.rule.name] = command, job
    return found


def test_jobs_ask_by_gres_alone(tmp_path, monkeypatch):
    found = commands(tmp_path, monkeypatch, {"gpu": 1, "gres": "gpu:a100"})
    for rule, (command, job) in found.items():
        on_gpu = rule in GPU_RULES
        assert ("--gres=gpu:a100:1" in command) == on_gpu, command
        assert "--gpus" not in command and "--gpu" not in command.replace("--gres=gpu", "")
        assert ("--ntasks=" in command) != on_gpu
        assert parse_gpu_requirements(job) == ((1, "a100") if on_gpu else (0, None))
        # What the profile's cap counts.
        assert job.resources.get("gres_gpu", 0) == int(on_gpu)
        assert not job.resources.get("gpu", 0)
    assert set(found) >= GPU_RULES


def test_a_models_own_number_of_gpus(tmp_path, monkeypatch):
    found = commands(tmp_path, monkeypatch, {"gres": "gpu"}, gpus=2)
    command, job = found["collect_statistics"]
    assert command.endswith("--gres=gpu:2") and job.resources.gres_gpu == 2


def test_without_the_key_jobs_ask_by_gpus(tmp_path, monkeypatch):
    found = commands(tmp_path, monkeypatch, {"gpu": 1})
    for rule, (command, job) in found.items():
        assert ("--gpus=1" in command) == (rule in GPU_RULES) and "--gres" not in command
        assert not job.resources.get("gres_gpu", 0)


@pytest.mark.parametrize("name", ["slurm", "local"])
def test_a_cap_holds_for_either_way(name):
    profile = yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())
    assert profile["resources"]["gpu"] == profile["resources"]["gres_gpu"] > 0


@pytest.mark.parametrize(
    "runtime, words",
    [
        ({"gpu": 1, "gres": "gpu:2"}, ["runtime.gres", "'gpu:2'", "runtime.gpu"]),
        ({"gpu": 1, "gres": "gpu:a100:2"}, ["runtime.gres", "--gres"]),
        ({"gpu": 1, "gres": "gpu 2"}, ["runtime.gres"]),
        ({"gres": "gpu"}, ["runtime.gres", "no model asks for a GPU", "runtime.gpu"]),
    ],
)
def test_what_is_no_name_is_refused(runtime, words):
    with pytest.raises(ConfigError) as caught:
        build(copy.deepcopy(GOOD) | {"runtime": runtime})
    for word in words:
        assert word in str(caught.value)
