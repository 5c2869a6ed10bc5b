"""A real SLURM of four nodes on this host, a small graph for it, faults that strike its jobs."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from test_workflow import CONFIG, SECRETS, Checkout, save_tiny_model

HERE = Path(__file__).parent
STATE = Path(os.environ.get("SLURM_SANDBOX_DIR", "/var/tmp/slurm-sandbox"))
COMPARED = (".parquet", ".safetensors", ".csv", ".svg")
# What a run is given beside the shipped profile: shorter waits than a shared cluster wants.
COMMAND = (
    "--profile", "profiles/slurm", "-j", "6", "--configfile", "tiny.yaml",
    "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "20",
)  # fmt: skip
DISK_MB = 64


def sh(*command: str, check: bool = True) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def possible() -> bool:
    """Return whether a SLURM can be brought up here."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


@contextmanager
def running() -> Iterator[None]:
    """Bring a SLURM up for the length of the block."""
    up = [HERE / "slurm_up.sh", "--accounting", "none", "--nodes", "4", "--cpus", "2"]
    done = subprocess.run(up, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"SLURM: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    # Jobs run where they can be preempted, unless they are told otherwise.
    os.environ["SBATCH_PARTITION"] = "scavenge"
    try:
        yield
    finally:
        del os.environ["SBATCH_PARTITION"]
        subprocess.run([HERE / "slurm_down.sh"], capture_output=True, timeout=120, check=False)


def small(memory: int = 2000) -> dict:
    """Return the graph of the workflow's tests with one set, one protocol and a GPU per job."""
    config = json.loads(json.dumps(CONFIG))
    config["language_sets"] = {"three": ["en", "vi", "hi"]}
    config["protocols"] = ["corrected"]
    config["selections"].pop("random")
    for part in (*config["tasks"].values(), *config["finetunings"].values()):
        part["selections"] = [name for name in part["selections"] if name != "random"]
    config["tasks"].pop("xcopa")
    config.pop("forcing")
    config.pop("fallback")
    config.pop("lens")
    config["results"] = {"bootstrap": 100}
    config["runtime"] = {"gpu": 1, "threads": 1, "mem_mb": memory, "checkpoint_seconds": 0.2}
    return config


def prepared(path: Path, memory: int = 2000) -> Checkout:
    """Return a copy of the project that holds a tiny model and the small graph."""
    path.mkdir()
    checkout = Checkout(path)
    save_tiny_model(checkout.path / "tiny-model")
    checkout.config = small(memory)
    checkout.save()
    return checkout


@contextmanager
def small_disk(path: Path) -> Iterator[bool]:
    """Put `path` on a file system of its own that can be filled; False where that is forbidden."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=False)


def digests(checkout: Checkout) -> dict[str, str]:
    """Return the digest of every result file, figure and table."""
    results = checkout.path / "results"
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(results.rglob("*"))
        if path.suffix in COMPARED and ".work" not in path.parts
    }


def memory_kills(checkout: Checkout) -> int:
    """Return how many jobs SLURM killed for their memory."""
    logs = (checkout.path / ".snakemake" / "slurm_logs").rglob("*.log")
    return sum("exceeded memory limit" in path.read_text(errors="replace") for path in logs)


def told(checkout: Checkout) -> list[Path]:
    """Return the logs and records of a run that hold a secret of its environment."""
    words = [value.encode() for value in SECRETS.values()]
    files = [path for path in checkout.path.rglob("*") if path.is_file()]
    return [path for path in files if any(word in path.read_bytes() for word in words)]


def leftovers(checkout: Checkout) -> None:
    """End processes whose guardian was killed: SLURM knows nothing of them any more."""
    subprocess.run(["pkill", "-KILL", "-f", f"{checkout.path}/"], check=False)


def controller(checkout: Checkout, *arguments: str) -> subprocess.Popen:
    """Start Snakemake on the cluster as its own process group; what it says: controller.log."""
    environment = os.environ | {
        **SECRETS,
        "PYTHONPATH": str(checkout.path / "src"),
        "NUMBA_CACHE_DIR": str(checkout.path / ".numba"),
    }
    command = [sys.executable, "-m", "snakemake", *COMMAND, *arguments]
    with (checkout.path / "controller.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=checkout.path,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def cancel_all() -> None:
    """Cancel what a dead controller left behind, by the run's name, and wait until it is gone."""
    for name in set(sh("squeue", "-h", "-o", "%j", check=False).split()):
        sh("scancel", "--name", name, check=False)
    for _ in range(100):
        if not sh("squeue", "-h", check=False).strip():
            return
        time.sleep(0.2)


class Faults(threading.Thread):
    """Strikes running jobs, each kind in turn, in an order drawn from the seed.

    scancel, requeue: by SLURM's commands; kill, term: signals to the Python process; step: SLURM's
    own guardian of the job is killed; daemon: the node's daemon is; node: the node is set down;
    timeout: the time limit is moved to now; preempt: a job of a higher partition takes the node;
    disk: the file system of the results is full for some seconds (where `disk` is given).
    No rule and wildcards are struck more often than `often` times.
    """

    kinds = ("scancel", "kill", "requeue", "term", "node", "timeout", "preempt", "step", "daemon")

    def __init__(
        self,
        number: int,
        seed: int,
        disk: Path | None = None,
        often: int = 1,
        pause: tuple[float, float] = (3, 8),
    ):
        super().__init__(daemon=True)
        self.left, self.random, self.disk = number, random.Random(seed), disk
        self.often, self.pause = often, pause
        self.order = [*self.kinds, "disk"] if disk is not None else list(self.kinds)
        self.random.shuffle(self.order)
        self.struck: Counter[str] = Counter()
        self.done: list[tuple[str, str]] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        """Strike until all faults are spent or the run is over; release what SLURM holds."""
        while not self.stopped.wait(self.random.uniform(*self.pause)):
            self.sweep()
            if not self.left:
                continue
            running = []
            for line in sh("squeue", "-h", "-t", "R", "-o", "%i|%k|%N", check=False).splitlines():
                job, comment, node = line.split("|")
                if comment != "(null)" and self.struck[comment] < self.often:
                    running.append((job, comment, node))
            if not running:
                continue
            job, comment, node = self.random.choice(running)
            kind = self.order[len(self.done) % len(self.order)]
            if self.strike(kind, job, node):
                self.struck[comment] += 1
                self.done.append((kind, comment))
                self.left -= 1

    def end(self) -> None:
        """Wait for the last strike."""
        self.stopped.set()
        self.join(timeout=60)

    def strike(self, kind: str, job: str, node: str) -> bool:
        """Strike a job on a node; tell whether there was something to strike."""
        if kind == "scancel":
            sh("scancel", job, check=False)
        elif kind == "requeue":
            sh("scontrol", "requeue", job, check=False)
        elif kind in ("kill", "term"):
            found = processes(job, ".snakemake/scripts")
            for process in found:
                sh("kill", "-KILL" if kind == "kill" else "-TERM", process, check=False)
            return bool(found)
        elif kind == "step":
            found = processes(job, "", "slurmstepd")
            for process in found:
                sh("kill", "-KILL", process, check=False)
            return bool(found)
        elif kind == "daemon":
            self.restart(node)
        elif kind == "timeout":
            sh("scontrol", "update", f"jobid={job}", "endtime=now", check=False)
        elif kind == "preempt":
            return self.preempt(job, node)
        elif kind == "disk":
            self.fill()
        else:
            sh("scontrol", "update", f"nodename={node}", "state=down", "reason=test", check=False)
            time.sleep(2)
            sh("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        return True

    def fill(self) -> None:
        """Leave no byte on the disk of the results for some seconds."""
        filler = self.disk / ".filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(2**16)):
                    pass
            except OSError:
                pass
        time.sleep(4)
        filler.unlink()

    def preempt(self, job: str, node: str) -> bool:
        """Let a job of a higher partition ask for the node; tell whether the job had to go."""
        command = ("-p", "gpu", "--exclusive", "-w", node, "-o", "/dev/null", "--wrap", "sleep 2")
        greedy = sh("sbatch", "--parsable", *command, check=False).strip()
        for _ in range(20):
            time.sleep(0.5)
            if sh("squeue", "-h", "-j", job, "-o", "%T", check=False).strip() != "RUNNING":
                return True
        sh("scancel", greedy, check=False)
        return False

    def restart(self, node: str) -> None:
        """Kill a node's daemon and start it again; its jobs are orphans in between."""
        lines = (STATE / "pids").read_text().splitlines()
        (pid,) = [line.split()[1] for line in lines if line.split()[0] == f"slurmd-{node}"]
        sh("kill", "-KILL", pid, check=False)
        time.sleep(2)
        new = subprocess.Popen(
            ["slurmd", "-D", "-N", node],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        lines = [line for line in lines if line.split()[0] != f"slurmd-{node}"]
        (STATE / "pids").write_text("\n".join([*lines, f"slurmd-{node} {new.pid}"]) + "\n")

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
        down = sh("sinfo", "-h", "-N", "-t", "down,drain", "-o", "%N", check=False)
        for node in set(down.split()):
            sh("scontrol", "update", f"nodename={node}", "state=resume", check=False)


def processes(job: str, words: str, name: str | None = None) -> list[str]:
    """Return the processes of a job whose command holds `words`, or that are called `name`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().decode(errors="replace")
            if name is not None:
                ours = (path / "comm").read_text().strip() == name and f"[{job}." in command
            else:
                environment = (path / "environ").read_bytes()
                ours = f"SLURM_JOB_ID={job}\0".encode() in environment and words in command
        except OSError:
            continue
        if ours:
            found.append(path.name)
    return found
