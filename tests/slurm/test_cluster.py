"""The graph on a real SLURM of four nodes on one host, through the shipped profile, with faults.

Run by `make cluster` (root on Debian or Ubuntu; SLURM is installed if it is missing). The same
graph runs undisturbed on this machine first; then on the cluster, where a seeded schedule cancels
jobs, requeues them, kills their processes and takes nodes down. Every file of results must be the
same to the byte.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_workflow import CONFIG, Checkout, save_tiny_model

pytestmark = pytest.mark.slurm
HERE = Path(__file__).parent
FAULTS = int(os.environ.get("LANGNEURONS_FAULTS", "6"))
SEED = int(os.environ.get("LANGNEURONS_SEED", "0"))
COMPARED = (".parquet", ".safetensors", ".csv", ".svg")


def sh(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


@pytest.fixture(scope="module")
def cluster():
    """Bring a SLURM up and down again."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("a SLURM of one host needs root on Debian or Ubuntu")
    done = subprocess.run(
        [HERE / "slurm_up.sh", "--accounting", "none", "--nodes", "4", "--cpus", "2"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        pytest.fail(f"SLURM did not come up:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    yield
    subprocess.run([HERE / "slurm_down.sh"], timeout=120, check=False)


def small() -> dict:
    """Return the graph of the workflow's tests with one set, one protocol and a GPU per job."""
    config = json.loads(json.dumps(CONFIG))
    config["language_sets"] = {"three": ["en", "vi", "hi"]}
    config["protocols"] = ["corrected"]
    config["selections"].pop("random")
    for part in (*config["tasks"].values(), *config["finetunings"].values()):
        part["selections"] = [name for name in part["selections"] if name != "random"]
    config["tasks"].pop("xcopa")
    config["results"] = {"bootstrap": 100}
    config["runtime"] = {"gpu": 1, "threads": 1, "mem_mb": 2000, "checkpoint_seconds": 0.2}
    return config


def prepared(path: Path) -> Checkout:
    path.mkdir()
    checkout = Checkout(path)
    save_tiny_model(checkout.path / "tiny-model")
    checkout.config = small()
    checkout.save()
    return checkout


def digests(checkout: Checkout) -> dict[str, str]:
    results = checkout.path / "results"
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(results.rglob("*"))
        if path.suffix in COMPARED and ".work" not in path.parts and "benchmarks" not in path.parts
    }


class Faults(threading.Thread):
    """Strikes running jobs, each kind in turn, no job's rule and wildcards twice."""

    kinds = ("scancel", "kill", "requeue", "term", "node")

    def __init__(self, number: int, seed: int):
        super().__init__(daemon=True)
        self.left, self.random = number, random.Random(seed)
        self.struck: set[str] = set()
        self.done: list[tuple[str, str]] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(self.random.uniform(3, 8)):
            self.sweep()
            if not self.left:
                continue
            running = []
            for line in sh("squeue", "-h", "-t", "R", "-o", "%i|%k|%N", check=False).splitlines():
                job, comment, node = line.split("|")
                if comment not in self.struck:
                    running.append((job, comment, node))
            if not running:
                continue
            job, comment, node = self.random.choice(running)
            kind = self.kinds[len(self.done) % len(self.kinds)]
            self.struck.add(comment)
            self.strike(kind, job, node)
            self.done.append((kind, comment))
            self.left -= 1

    def strike(self, kind: str, job: str, node: str) -> None:
        if kind == "scancel":
            sh("scancel", job, check=False)
        elif kind == "requeue":
            sh("scontrol", "requeue", job, check=False)
        elif kind in ("kill", "term"):
            signal = "-KILL" if kind == "kill" else "-TERM"
            for process in self.processes(job):
                sh("kill", signal, process, check=False)
        else:
            sh("scontrol", "update", f"nodename={node}", "state=down", "reason=test", check=False)
            time.sleep(2)
            sh("scontrol", "update", f"nodename={node}", "state=resume", check=False)

    def processes(self, job: str) -> list[str]:
        """Return the Python processes of a job's scripts."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = (path / "environ").read_bytes()
                command = (path / "cmdline").read_bytes()
            except OSError:
                continue
            ours = f"SLURM_JOB_ID={job}\0".encode() in environment
            if ours and b".snakemake/scripts" in command:
                found.append(path.name)
        return found

    def sweep(self) -> None:
        """Do what an impatient operator does: start what waits after a requeue, release the held.

        SLURM holds a requeued job back for two minutes, and for good if its launch failed.
        """
        waiting = sh("squeue", "-h", "-t", "PD", "-o", "%i|%r", check=False)
        for line in waiting.splitlines():
            job, reason = line.split("|")
            if "held" in reason.lower():
                sh("scontrol", "release", job, check=False)
            if "BeginTime" in reason or "held" in reason.lower():
                sh("scontrol", "update", f"jobid={job}", "starttime=now", check=False)


def on_cluster(checkout: Checkout, *arguments: str) -> subprocess.CompletedProcess:
    return checkout.run(
        "--profile", "profiles/slurm", "-j", "6", "--configfile", "tiny.yaml",
        "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "20", *arguments,
        check=False,
    )  # fmt: skip


def test_faults_lose_nothing_and_change_nothing(cluster, tmp_path):
    quiet = prepared(tmp_path / "quiet")
    quiet.make()
    struck = prepared(tmp_path / "struck")
    faults = Faults(FAULTS, SEED)
    faults.start()
    try:
        done = on_cluster(struck)
    finally:
        faults.stopped.set()
        faults.join(timeout=30)
    assert done.returncode == 0, f"{faults.done}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert len(faults.done) >= min(FAULTS, 3), f"the run was over before the faults: {faults.done}"
    expected, found = digests(quiet), digests(struck)
    assert expected.keys() == found.keys()
    different = [name for name in expected if expected[name] != found[name]]
    assert not different, f"after {faults.done}: {different}"
    print(f"{len(faults.done)} faults, {len(found)} files equal: {faults.done}")
    again = on_cluster(struck, "-n")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_gpus_are_asked_for_and_given(cluster, tmp_path):
    script = tmp_path / "probe.sh"
    script.write_text("#!/bin/sh\necho gpus=$CUDA_VISIBLE_DEVICES > " + str(tmp_path / "out"))
    sh("sbatch", "--wait", "--gpus=1", "--output=/dev/null", str(script))
    assert (tmp_path / "out").read_text().strip() != "gpus="
    checkout = prepared(tmp_path / "planned")
    done = on_cluster(checkout, "-n", "--verbose")
    assert "gpu=1" in done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-m", "slurm", "-s"]))
