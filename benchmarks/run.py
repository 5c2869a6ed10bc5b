"""Run the benchmarks, all or those named: python benchmarks/run.py [NAME ...] [-- OPTIONS]."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("statistics_pass", "two_pass", "intervention", "selection", "memory")


def main() -> int:
    """Run each script in a process of its own."""
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    names, options = arguments[:cut] or list(NAMES), arguments[cut + 1 :]
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    return max(
        subprocess.run([sys.executable, str(HERE / f"{name}.py"), *options]).returncode
        for name in names
    )


if __name__ == "__main__":
    sys.exit(main())
