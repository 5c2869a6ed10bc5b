"""Planning: parsing the Snakefile, dry runs of the papers and of 10,000 jobs, several controllers.

Times are wall clock of a fresh process, medians; memory is that of the largest process.
"""

import json
import multiprocessing
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, median, parser, publish, table

PAPERS = sorted((ROOT / "config/papers").glob("*.yaml"))
COPIED = ("Snakefile", "workflow", "src", "config", "environment.yml")
SHARDS = 64


def child(command: list[str], folder: str, queue) -> None:
    """Run a command and report (seconds, peak MB, what it printed)."""
    start = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    queue.put((seconds, peak, done.stdout + done.stderr))


def together(commands: list[list[str]], folders: list[str]) -> list[tuple[float, float, str]]:
    """Run commands at the same time, each in a process that measures it."""
    queue = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=child, args=(command, folder, queue))
        for command, folder in zip(commands, folders, strict=True)
    ]
    for process in processes:
        process.start()
    found = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return found


def snakemake(*arguments: str) -> list[str]:
    """Return a command line of Snakemake."""
    return [sys.executable, "-m", "snakemake", *arguments]


def large(folder: Path) -> Path:
    """Write a configuration of more than 10,000 jobs: the first paper's models, many shards."""
    from langneurons.base.yaml import parse_yaml

    paper = ROOT / "config/papers/mondal2025.yaml"
    config = parse_yaml(paper.read_text(encoding="utf-8"), str(paper))
    first = next(iter(config["models"].values()))
    config["models"] |= {f"copy{number}": first for number in range(8)}
    config["statistics"]["shards"] = SHARDS
    config["results"].pop("figures", None)
    path = folder / "large.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def jobs(text: str) -> int:
    """Return the number of jobs that a dry run lists."""
    line = next(line for line in reversed(text.splitlines()) if line.startswith("total"))
    return int(line.split()[1])


def main() -> None:
    """Measure and print."""
    given = parser(__doc__, repeats=5).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for item in COPIED:
            source = ROOT / item
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / item)
        dry = ("-n", "--quiet", "rules", "--configfile")
        works = {
            "import of Snakemake alone": [sys.executable, "-c", "import snakemake.cli"],
            "parse (list of rules), default": snakemake("--list-rules"),
            "parse (list of rules), mondal2025": snakemake(
                "--list-rules", "--configfile", "config/papers/mondal2025.yaml"
            ),
            "dry run, default": snakemake("-n", "--quiet", "rules"),
        }
        for paper in PAPERS:
            works[f"dry run, {paper.stem}"] = snakemake(*dry, str(paper.relative_to(ROOT)))
        works["dry run, large"] = snakemake(*dry, str(large(folder)))
        for label, command in works.items():
            repeats = 1 if label.endswith("large") else given.repeats
            found = [together([command], [name])[0] for _ in range(repeats)]
            count = jobs(found[0][2]) if "dry run" in label else ""
            seconds = median([one[0] for one in found])
            rows.append((label, count, f"{seconds:.2f}", f"{max(one[1] for one in found):.0f}"))
        paper = snakemake(*dry, "config/papers/mondal2025.yaml", "--nolock")
        for number in (2, 4):
            found = together([paper] * number, [name] * number)
            seconds = max(one[0] for one in found)
            label = f"dry run, mondal2025, {number} controllers at once"
            rows.append((label, jobs(found[0][2]), f"{seconds:.2f}", f"{found[0][1]:.0f}"))
    header = ["work", "jobs", "seconds", "peak, MB"]
    publish("planning", table("Planning", header, rows))


if __name__ == "__main__":
    main()
