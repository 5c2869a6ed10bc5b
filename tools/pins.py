"""Resolve the newest versions that fit together, and pin them.

requirements.txt and environment.yml are written.

    python tools/pins.py            write what changed
    python tools/pins.py --check    print what would change; exit status 1 if anything would

Packages of requirements-model.txt, requirements-harness.txt and requirements-nvrtc.txt keep their
pins. torch keeps its pin too, unless --torch is given: its builds differ by machine.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PINS, ENVIRONMENT = ROOT / "requirements.txt", ROOT / "environment.yml"
# Extras that are pinned in requirements.txt; the others have a file of their own.
EXTRAS = ("quantization", "workflow", "test")


def pinned(path: Path) -> dict[str, str]:
    """Return {name: version} of a file of pins, names as written."""
    lines = (line.split(";")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==") for line in lines if "==" in line)


def asked(keep_torch: bool) -> list[str]:
    """Return what the package asks for, in pip's words."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [*project["dependencies"]]
    for extra in EXTRAS:
        found += project["optional-dependencies"][extra]
    if keep_torch:
        found.append(f"torch=={pinned(PINS)['torch']}")
    return found


def resolved(requirements: list[str]) -> dict[str, str]:
    """Return the newest versions that fit together, by name; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--disable-pip-version-check", "--report", str(report)]
        subprocess.run([*command, *requirements], check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {one["metadata"]["name"]: one["metadata"]["version"] for one in found}


def bumped(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """Return the new pins, with the old spelling of names; CUDA libraries are torch's to choose."""
    spelling = {canonicalize_name(name): name for name in old}
    kept = {
        spelling.get(canonicalize_name(name), name): version.partition("+")[0]
        for name, version in new.items()
        if not re.match(r"(nvidia|cuda|triton)", canonicalize_name(name))
    }
    return dict(sorted(kept.items(), key=lambda item: item[0].lower()))


def environment(text: str, old: dict[str, str], new: dict[str, str]) -> str:
    """Return environment.yml with the new pins in place of the old ones."""
    lines = text.split("\n")
    mine = [number for number, line in enumerate(lines) if line.strip(" -").split("==")[0] in old]
    rows = [f"      - {name}=={version}" for name, version in new.items()]
    return "\n".join([*lines[: mine[0]], *rows, *lines[mine[-1] + 1 :]])


def main() -> int:
    """Resolve, and write or compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="print what would change")
    parser.add_argument("--torch", action="store_true", help="resolve torch too")
    given = parser.parse_args()
    old = pinned(PINS)
    new = bumped(old, resolved(asked(not given.torch)))
    for name in sorted({*old, *new}, key=str.lower):
        if old.get(name) != new.get(name):
            print(f"{name}: {old.get(name, 'new')} -> {new.get(name, 'no longer needed')}")
    if given.check:
        return int(old != new)
    PINS.write_text("".join(f"{n}=={v}\n" for n, v in new.items()), encoding="utf-8")
    text = environment(ENVIRONMENT.read_text(encoding="utf-8"), old, new)
    ENVIRONMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
