"""Strike runs on the one-host SLURM until so many faults are survived: `make soak FAULTS=200`.

Each round runs the small graph in a fresh folder under another seed; beside jobs, the controller
itself is killed once per round, its jobs are cancelled by the run's name, the folder is unlocked
and the command given again. After each round every file of results is compared with an undisturbed
run. Prints one line per round and the totals; ends with 1 if a file is lost or different.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from test_cluster import Faults, digests, prepared, sh  # noqa: E402

COMMAND = (
    "--profile", "profiles/slurm", "-j", "6", "--configfile", "tiny.yaml",
    "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "20",
)  # fmt: skip


def controller(checkout, *arguments: str) -> subprocess.Popen:
    """Start Snakemake as its own process group."""
    environment = os.environ | {
        "PYTHONPATH": str(checkout.path / "src"),
        "NUMBA_CACHE_DIR": str(checkout.path / ".numba"),
    }
    log = (checkout.path / "controller.log").open("ab")
    command = [sys.executable, "-m", "snakemake", *COMMAND, *arguments]
    return subprocess.Popen(
        command, cwd=checkout.path, env=environment, stdout=log, stderr=log, start_new_session=True
    )


def cancel_all() -> None:
    """Cancel what a dead controller left behind, and wait until it is gone."""
    names = set(sh("squeue", "-h", "-o", "%j", check=False).split())
    for name in names:
        sh("scancel", "--name", name, check=False)
    for _ in range(100):
        if not sh("squeue", "-h", check=False).strip():
            return
        time.sleep(0.2)


def round_of(folder: Path, faults: int, seed: int) -> tuple[Counter, dict[str, str], int]:
    """Return the faults of one round by kind, the digests, and the last exit code."""
    struck = prepared(folder)
    strikes = Faults(faults, seed)
    strikes.start()
    kinds: Counter = Counter()
    running = controller(struck)
    kill_at = time.monotonic() + 45 + seed % 30
    while running.poll() is None:
        time.sleep(0.5)
        if kinds["controller"] == 0 and time.monotonic() > kill_at:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            kinds["controller"] += 1
            cancel_all()
            controller(struck, "--unlock").wait()
            running = controller(struck)
    strikes.stopped.set()
    strikes.join(timeout=60)
    kinds.update(kind for kind, _ in strikes.done)
    return kinds, digests(struck), running.returncode


def main() -> int:
    """Run rounds until the faults are spent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--per-round", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    up = [str(HERE / "slurm_up.sh"), "--accounting", "none", "--nodes", "4", "--cpus", "2"]
    subprocess.run(up, check=True, stdout=subprocess.DEVNULL)
    total: Counter = Counter()
    lost = different = rounds = 0
    try:
        with tempfile.TemporaryDirectory() as name:
            quiet = prepared(Path(name) / "quiet")
            quiet.make()
            expected = digests(quiet)
            while total.total() < given.faults:
                seed, start = given.seed + rounds, time.monotonic()
                folder = Path(name) / f"round{rounds}"
                kinds, found, code = round_of(folder, given.per_round, seed)
                missing = expected.keys() - found.keys()
                wrong = [
                    key for key in expected.keys() & found.keys() if expected[key] != found[key]
                ]
                rounds += 1
                total += kinds
                lost, different = lost + len(missing), different + len(wrong)
                seconds = time.monotonic() - start
                print(
                    f"round {rounds}, seed {seed}: {dict(kinds)}, exit {code}, {len(found)} files,"
                    f" lost {sorted(missing)}, different {wrong}, {seconds:.0f} s",
                    flush=True,
                )
    finally:
        subprocess.run([str(HERE / "slurm_down.sh")], check=False, stdout=subprocess.DEVNULL)
    count = f"{total.total()} faults in {rounds} rounds ({dict(total)})"
    print(f"{count}: lost {lost}, different {different}")
    return 1 if lost or different else 0


if __name__ == "__main__":
    sys.exit(main())
