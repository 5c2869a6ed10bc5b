"""Digests that change with the code that a job runs, and with nothing else; the run record."""

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from langneurons.base.digests import digest, file_digest
from langneurons.jobs import code as provenance
from langneurons.jobs.code import NEUTRAL, PACKAGE, code_digests, source_digest
from langneurons.runtime.record import Record, versions

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "workflow" / "scripts"
SOURCE = '''"""Module."""
import math


class A:
    """Class."""

    def f(self, x=1):
        """Function."""
        return math.sqrt(x), "text"  # comment
'''


class Package:
    """A copy of the package and of a script, in which files are edited."""

    def __init__(self, path: Path):
        self.path = path / "langneurons"
        ignore = shutil.ignore_patterns("__pycache__", "mini")
        shutil.copytree(provenance.PACKAGE, self.path, ignore=ignore)
        self.script = Path(shutil.copy(SCRIPTS / "measure_perplexity.py", path))

    def digests(self, also=()):
        provenance._read.cache_clear()
        code_digests.cache_clear()
        return dict(code_digests(str(self.script), also))

    def changed(self, file: str, old: str, new: str) -> set[str]:
        """Return the modules whose digest an edit of a file changes."""
        before, path = self.digests(), self.path / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        after = self.digests()
        return {name for name in before.keys() | after if before.get(name) != after.get(name)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    copy = Package(tmp_path)
    monkeypatch.setattr(provenance, "PACKAGE", copy.path)
    yield copy
    provenance._read.cache_clear()
    code_digests.cache_clear()


# Source -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # comment", ""),
        ('"""Module."""', '"""Another\n\ntext."""\n# and a comment'),
        ('    """Class."""\n', ""),
        ('"""Function."""', "'''Other.'''"),
        ("(x), ", "(\n            x\n        ), "),
        ('"text"', "'text'"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(old, new):
    assert old in SOURCE
    assert source_digest(SOURCE.replace(old, new)) == source_digest(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("x=1", "x=2"), ("sqrt", "exp"), ('"text"', '"texts"'), ("def f", "def g"), ("x=1", "x=1.0")],
)
def test_code_counts(old, new):
    assert source_digest(SOURCE.replace(old, new)) != source_digest(SOURCE)


# Modules that a script reaches --------------------------------------------------------------------


def test_a_comment_or_a_docstring_in_a_reached_module_changes_nothing(package):
    first = '"""Plans hooked '
    assert package.changed("interventions/hooks.py", first, '"""# Other ') == set()
    assert package.changed("interventions/hooks.py", "import numpy", "# why\nimport numpy") == set()
    assert (
        package.changed("scoring/head.py", '    """Apply what some', '    """Do what some') == set()
    )


def test_code_in_a_reached_module_changes_that_module(package):
    name = "langneurons.interventions.hooks"
    assert package.changed("interventions/hooks.py", "old * scale + value", "old * scale") == {name}
    # Reached through others only.
    assert package.changed("models/families.py", "act: str", 'act: str = ""') == {
        "langneurons.models.families"
    }


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("reporting/figures/canvas.py", "import matplotlib", "import os\nimport matplotlib"),
        ("reporting/tables/tasks.py", "import pandas as pd", "import pandas as pd, os"),
        ("selection/methods/lape.py", "import numpy as np", "import numpy as np, os"),
        ("runtime/progress.py", "import logging", "import logging, os"),
        ("data/settings.py", "ge=1", "ge=2"),
    ],
)
def test_code_that_is_not_reached_or_decides_nothing_changes_nothing(package, file, old, new):
    assert package.changed(file, old, new) == set()


def test_the_script_itself_counts(package):
    before = package.digests()
    package.script.write_text(package.script.read_text() + "x = 1\n")
    after = package.digests()
    assert {k for k in after if after[k] != before[k]} == {"measure_perplexity.py"}


def test_imports_inside_functions_are_followed_those_for_types_are_not(package):
    (package.path / "deep.py").write_text("x = 1\n")
    (package.path / "typed.py").write_text("x = 1\n")
    (package.path / "middle.py").write_text(
        "from typing import TYPE_CHECKING\n\n"
        "if TYPE_CHECKING:\n    from langneurons.typed import x as X\n\n"
        "def f():\n    from langneurons import deep\n    return deep.x\n"
    )
    package.script.write_text("import langneurons.middle\n")
    found = package.digests()
    assert set(found) == {package.script.name, "langneurons.middle", "langneurons.deep"}
    assert package.changed("deep.py", "1", "2") == {"langneurons.deep"}
    also = package.digests(also=("langneurons.typed",))
    assert set(also) - set(found) == {"langneurons.typed"}
    with pytest.raises(ValueError, match="module langneurons.absent of .* does not exist"):
        package.digests(also=("langneurons.absent",))


@pytest.mark.parametrize("script", ["merge_statistics.py", "fetch_text.py"])
def test_every_module_that_python_loads_is_reached(script):
    program = (
        "import runpy, sys\n"
        "runpy.run_path(sys.argv[1], run_name='job')\n"
        "print(*(name for name in sys.modules if name.startswith('langneurons.')))\n"
    )
    command = [sys.executable, "-c", program, SCRIPTS / script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {n for n in done.stdout.split() if not n.startswith("langneurons.config")}
    # Loaded with the configuration, to check it: the registry of selection methods, the orders of
    # languages of published masks, the names of operations, the languages of an identifier.
    checked = ("selection", "interventions.operations", "evaluation.identification")
    registry = tuple(f"langneurons.{name}" for name in checked)
    loaded = {name for name in loaded if not name.startswith(registry)}
    assert len(loaded) > 2
    rooms = {
        name for name in loaded if f"{name}.".count(".") == 2 and (PACKAGE / name[12:]).is_dir()
    }
    assert loaded - rooms - NEUTRAL <= set(code_digests(str(SCRIPTS / script)))


def test_no_module_hides_an_import_from_the_digests():
    for path in [*provenance.PACKAGE.rglob("*.py"), *SCRIPTS.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            relative = isinstance(node, ast.ImportFrom) and node.level > 0
            assert not relative, f"{path}:{node.lineno}: relative imports are not followed"


# Values and files ---------------------------------------------------------------------------------


def test_digests_of_values():
    value = {"b": [1, None, "हि"], "a": {"y": 0.5, "x": True}}
    assert digest(value) == digest({"a": {"x": True, "y": 0.5}, "b": [1, None, "हि"]})
    assert len({digest(v) for v in (value, [], {}, "", 0, None, "0", [0], {"a": 0})}) == 9
    text = '{"a":{"x":true,"y":0.5},"b":[1,null,"हि"]}'
    assert digest(value, 64) == hashlib.sha256(text.encode()).hexdigest()


def test_digest_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert file_digest(tmp_path / "a", 64) == expected
    assert file_digest(tmp_path / "a") == expected[:16]


# Record -------------------------------------------------------------------------------------------

FIELDS = {
    "settings",
    "code",
    "code_digest",
    "started",
    "seconds",
    "peak_memory_mb",
    "python",
    "machine",
    "versions",
}


def test_record_says_what_made_a_result():
    record = Record({"tokens": 5}, ["a=1"]).finish(device="cpu", seconds=9)
    assert set(record) == FIELDS | {"device"}
    assert (record["settings"], record["code"]) == ({"tokens": 5}, ["a=1"])
    assert record["code_digest"] == digest(["a=1"]) != Record({}, ["a=2"]).finish()["code_digest"]
    assert record["seconds"] == 9 and record["peak_memory_mb"] > 10
    assert record["versions"]["numpy"] == __import__("numpy").__version__
    assert {"torch", "transformers"} <= set(record["versions"])
    json.dumps(record)
    assert versions(["no-such-package"]) == {}


def test_a_job_writes_its_record_beside_its_log(tmp_path):
    program = (
        "import os, signal, types\n"
        "from langneurons.runtime.job import start\n"
        "job = types.SimpleNamespace(log=['logs/x/a.log'], params={'cfg': {'k': 1}, 'code': []},"
        " threads=1, resources={})\n"
        "job = start(job)\n"
        "job.done(tokens=7)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True)
    assert done.returncode == 143
    record = json.loads((tmp_path / "logs/x/a.json").read_text())
    assert record.keys() >= FIELDS | {"device", "tokens"}
    assert (record["settings"], record["device"], record["tokens"]) == ({"k": 1}, "cpu", 7)
    assert "done in" in (tmp_path / "logs/x/a.log").read_text()


def test_what_files_hold_is_kept_and_a_damaged_file_is_no_harm(package, tmp_path, monkeypatch):
    kept, parsed = tmp_path / "kept" / "sources.json", []
    plain = provenance._imports
    monkeypatch.setattr(provenance, "_imports", lambda tree: parsed.append(1) or plain(tree))

    def process():
        parsed.clear()
        sources = provenance._Sources()
        monkeypatch.setattr(provenance, "SOURCES", sources)
        monkeypatch.setattr(provenance.atexit, "register", lambda _work: None)
        sources.keep_in(kept)
        found = package.digests()
        sources.write()
        return found, len(parsed)

    first, files = process()  # the files, and the faces of rooms, which hold no code
    assert files >= len(first) > 10
    assert process() == (first, 0)
    path = package.path / "evaluation/perplexity.py"
    path.write_text(path.read_text() + "\nMORE = 1\n")
    second, number = process()
    assert number == 1
    assert {name for name in first if first[name] != second[name]} == {
        "langneurons.evaluation.perplexity"
    }
    monkeypatch.setattr(provenance._Sources, "MOST", 5)
    path.write_text(path.read_text() + "\nMORE = 2\n")
    process()
    assert len(json.loads(kept.read_text())) == files  # nothing of former versions
    for text in ("", "[1]", '{"a": 1'):
        kept.write_text(text)
        assert process()[1] == files
    kept = package.path / "base/io.py" / "sources.json"  # no folder: nothing can be kept
    assert process()[1] == files
