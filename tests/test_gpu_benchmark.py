"""benchmarks/gpu.py runs whole on a CPU: its checks pass, a failing one is an error."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu.py"
OPTIONS = ["--device", "cpu", "--shape", "tiny", "--repeats", "1", "--tokens", "128"]


def run(folder: Path, *more: str, code: str | None = None):
    """Run the script (or Python code beside it); return how it ended and what it wrote."""
    start = [str(SCRIPT)] if code is None else ["-c", code]
    command = [sys.executable, *start, *OPTIONS, "--length", "64", "--results", str(folder), *more]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    written = json.loads((folder / "gpu-cpu-tiny.json").read_text(encoding="utf-8"))
    return done, written, (folder / "gpu-cpu-tiny.md").read_text(encoding="utf-8")


def test_every_section_is_checked_and_timed(tmp_path):
    done, written, text = run(tmp_path)
    assert done.returncode == 0, done.stderr
    listed = "import sections, json; sections.load(); print(json.dumps([[n for n, _ in x] for x in"
    listed += " (sections.CHECKS, sections.TIMINGS)] + [sections.MODULES]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), *sys.path])}
    listing = subprocess.run(
        [sys.executable, "-c", listed], env=environment, capture_output=True, text=True, check=True
    )
    checks, timings, modules = (set(names) for names in json.loads(listing.stdout))
    assert checks == modules
    assert {one["section"] for one in written["checks"]} == checks
    assert {one["section"] for one in written["timings"]} == timings
    assert all(one["passed"] and one["found"] <= one["allowed"] for one in written["checks"])
    assert not written["failed"] and not written["dropped"]
    for row in written["timings"]:
        assert f"{row['section']}: {row['what']}" in text


def test_what_does_not_fit_into_the_time_is_left_out_by_name(tmp_path):
    done, written, text = run(tmp_path, "--minutes", "0", "--section", "card", "statistics")
    assert done.returncode == 0, done.stderr
    assert written["checks"] and not written["timings"]
    assert "statistics.prefill at tiny" in written["dropped"]
    assert "Left out for lack of time: card.yardsticks at tiny" in text


def test_a_check_that_fails_ends_it_with_an_error_and_without_times(tmp_path):
    code = """
import sys, gpu, sections
sections.load(("card",))
sections.check("card")(lambda setting: [sections.Check("wrong", float("nan"), 1.0)])
sections.check("card")(lambda setting: 1 / 0)
sys.exit(gpu.main())
"""
    done, written, _ = run(tmp_path, "--section", "card", code=code)
    assert done.returncode == 1
    assert len(written["failed"]) == 2 and not written["timings"]
    assert "wrong" in done.stderr and "nothing was timed" in done.stderr
