"""Targets of the Makefile that must not install, and must leave tracked files alone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GRAPH = "docs/images/rulegraph.svg"
TOOLS = ("awk", "cat", "env", "ls", "make", "mktemp", "rm", "sed", "sh")


@pytest.fixture
def tools(tmp_path):
    """Return a folder with the commands that the targets need, and no graphviz."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name))
    return folder


def make(folder, *arguments, where=ROOT, path):
    environment = {"PATH": str(path), "PYTHONPATH": str(ROOT / "src"), "HOME": str(folder)}
    return subprocess.run(
        ["make", *arguments], cwd=where, env=environment, capture_output=True, text=True
    )


def test_bare_make_prints_help_and_installs_nothing(tmp_path, tools):
    shutil.copy2(ROOT / "Makefile", tmp_path)
    done = make(tmp_path, where=tmp_path, path=tools)
    assert done.returncode == 0 and not done.stderr
    shown = re.findall(r"^  ([a-z-]+) +\S", done.stdout, re.M)
    targets = re.findall(r"^([a-z-]+):[^#\n=]*##", (ROOT / "Makefile").read_text(), re.M)
    assert shown == targets and {"demo", "test", "plan", "graph"} <= set(shown)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile", "bin"]


def test_every_public_target_has_a_line_of_help():
    text = (ROOT / "Makefile").read_text()
    phony = {name for line in re.findall(r"^\.PHONY: (.*)$", text, re.M) for name in line.split()}
    assert phony - set(re.findall(r"^([a-z-]+):[^#\n=]*##", text, re.M)) == {"graphviz"}


def test_graph_without_graphviz_says_so_and_installs_nothing(tmp_path, tools):
    before = (ROOT / GRAPH).read_bytes()
    shutil.copy2(ROOT / "Makefile", tmp_path)
    done = make(tmp_path, "graph", where=tmp_path, path=tools)
    assert done.returncode and "Install graphviz" in done.stdout and GRAPH in done.stdout
    assert not (tmp_path / ".venv").exists()
    assert (ROOT / GRAPH).read_bytes() == before


@pytest.mark.parametrize(
    "dot, code", [("exit 1", 2), ("true", 2), ("cat > /dev/null; echo '<svg/>'", 0)]
)
def test_a_picture_is_replaced_by_a_whole_one_only(tmp_path, tools, dot, code):
    (tools / "dot").write_text(f"#!/bin/sh\n{dot}\n")
    (tools / "dot").chmod(0o755)
    (tools / "snakemake").write_text("#!/bin/sh\necho 'digraph g {}'\n")
    (tools / "snakemake").chmod(0o755)
    work = tmp_path / "work"
    (work / "docs/images").mkdir(parents=True)
    shutil.copy2(ROOT / "Makefile", work)
    (work / GRAPH).write_text("old")
    done = make(tmp_path, "-o", ".venv/installed", f"BIN={tools}", "graph", where=work, path=tools)
    assert done.returncode == code, done.stderr
    assert (work / GRAPH).read_text() == ("<svg/>\n" if code == 0 else "old")
    assert os.listdir(work / "docs/images") == ["rulegraph.svg"]


WITHOUT = """
import sys
sys.modules["lm_eval"] = None
try:
    import langneurons.integrations.harness
except ModuleNotFoundError as error:
    print("imported:", error)
from langneurons.cli import main
sys.exit(main(["evaluate", "mine.yaml", "--model", "m", "--task", "t"]))
"""


def test_the_bridge_without_the_harness_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    hint = "pip install 'langneurons[harness]'"
    assert done.returncode == 1
    assert hint in done.stdout and hint in done.stderr and "Traceback" not in done.stderr
    assert "requirements-harness.txt" in done.stdout


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"python3.11": 0, "python3.12": 0}, "python3.11"),
        ({"python3.12": 0, "python3.13": 0}, "python3.12"),
        ({"python3.11": 1, "python3.13": 0}, "python3.13"),  # a name without a Python behind it
        ({"python3": 0}, "python3"),
        ({"python3": 1}, ""),
        ({}, ""),
    ],
)
def test_whichever_python_is_there_is_taken(tmp_path, tools, there, found):
    for name, status in there.items():
        (tools / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tools / name).chmod(0o755)
    shutil.copy2(ROOT / "Makefile", tmp_path)
    done = make(
        tmp_path, "-n", "--eval", "say: ; @echo '[$(PYTHON)]'", "say", where=tmp_path, path=tools
    )
    assert f"[{found}]" in done.stdout, done.stderr
    if not found:
        (tmp_path / "requirements.txt").touch()
        (tmp_path / "pyproject.toml").touch()
        done = make(tmp_path, "lint", where=tmp_path, path=tools)
        assert done.returncode and "Python 3.11, 3.12 or 3.13 is needed" in done.stdout
        assert not (tmp_path / ".venv").exists()
