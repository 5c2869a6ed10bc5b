"""Run the benchmarks, all or those named; each prints its table and keeps it in results/."""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = (
    "statistics_pass",
    "attribution",
    "two_pass",
    "intervention",
    "evaluation",
    "selection",
    "average_precision",
    "memory",
    "masked_lora",
    "selected_rows",
    "answers_engine",
    "exports",
    "experts",
    "loading",
    "planning",
    "growth",
)


def main() -> int:
    """Run each script in a process of its own; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    for name, text in (
        ("--repeats", "rounds, instead of each script's own default"),
        ("--threads", "CPU threads"),
        ("--model", "folder of a model in the layout of the hub"),
    ):
        parser.add_argument(name, help=text)
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    options = []
    for name in ("repeats", "threads", "model"):
        if (value := getattr(given, name)) is not None:
            options += [f"--{name}", value]
    failed = []
    for name in given.names or NAMES:
        if subprocess.run([sys.executable, str(HERE / f"{name}.py"), *options]).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
