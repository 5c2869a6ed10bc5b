"""Strike runs on the one-host SLURM until so many faults are survived: `make soak FAULTS=200`.

Each round runs the small graph in a fresh folder under another seed, its results on a small disk of
its own. Beside jobs, the controller itself is killed once per round, its jobs are cancelled by the
run's name, the folder is unlocked and the command given again; every third round asks for less
memory than the jobs need, so that SLURM kills them. A run that ends with an error (a job struck
at each attempt) is started again, as an operator would. After each round every file of results is
compared with an undisturbed run. Prints one line per round and the totals; ends with 1 if a file
is lost or different.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from cluster import (  # noqa: E402
    Faults,
    cancel_all,
    controller,
    digests,
    leftovers,
    memory_kills,
    prepared,
    running,
    small_disk,
)

AGAIN = 9


def round_of(folder: Path, number: int, seed: int) -> tuple[Counter, dict[str, str], int]:
    """Return the faults of one round by kind, the digests, and how often the run was started."""
    checkout = prepared(folder, 500 if seed % 3 == 2 else 2000)
    results = folder / "results"
    kinds: Counter = Counter()
    with small_disk(results) as mounted:
        strikes = Faults(number, seed, results if mounted else None, often=5, pause=(0.5, 2.5))
        strikes.start()
        run, starts, kill_at = controller(checkout), 1, time.monotonic() + 30 + seed * 7 % 60
        while True:
            time.sleep(0.5)
            if run.poll() is None and kinds["controller"] == 0 and time.monotonic() > kill_at:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                kinds["controller"] += 1
                cancel_all()
                controller(checkout, "--unlock").wait()
                run, starts = controller(checkout), starts + 1
            elif run.poll() is not None:
                if run.returncode == 0 or starts > AGAIN:
                    break
                run, starts = controller(checkout), starts + 1
        strikes.end()
        leftovers(checkout)
        kinds.update(kind for kind, _ in strikes.done)
        kinds["memory"] += memory_kills(checkout)
        return kinds, digests(checkout), starts


def main() -> int:
    """Run rounds until the faults are spent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--per-round", type=int, default=45)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    total: Counter = Counter()
    lost = different = rounds = 0
    with tempfile.TemporaryDirectory() as name, running():
        quiet = prepared(Path(name) / "quiet")
        quiet.make()
        expected = digests(quiet)
        while total.total() < given.faults:
            seed, start = given.seed + rounds, time.monotonic()
            folder = Path(name) / f"round{rounds}"
            kinds, found, starts = round_of(folder, given.per_round, seed)
            missing = expected.keys() - found.keys()
            wrong = [key for key in expected.keys() & found.keys() if expected[key] != found[key]]
            rounds += 1
            total += kinds
            lost, different = lost + len(missing), different + len(wrong)
            print(
                f"round {rounds}, seed {seed}: {dict(kinds)}, {starts} starts, {len(found)} files,"
                f" lost {sorted(missing)}, different {wrong}, {time.monotonic() - start:.0f} s",
                flush=True,
            )
            if missing or wrong:
                print((folder / "controller.log").read_text(errors="replace")[-3000:], flush=True)
    count = f"{total.total()} faults in {rounds} rounds ({dict(total)})"
    print(f"{count}: lost {lost}, different {different}")
    return 1 if lost or different else 0


if __name__ == "__main__":
    sys.exit(main())
