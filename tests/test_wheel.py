"""The wheel, in an environment that holds it and what it depends on, away from the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IGNORED = shutil.ignore_patterns(".*", "__pycache__", "build", "results", "resources", "logs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the wheel, built from a copy of the source."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=IGNORED)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    (built,) = folder.glob("*.whl")
    shutil.rmtree(source)
    return built


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """Return a function that runs Python in an environment with the wheel, in an empty folder.

    The libraries it depends on are seen where they are installed; the package's source is not.
    """
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True
    )
    python = folder / "venv" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    own = Path(own.stdout.strip())
    (own / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--force-reinstall", str(wheel)], check=True)
    work = folder / "work"
    work.mkdir()

    def run(*arguments):
        given = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        return subprocess.run(
            [python, *arguments], cwd=work, env=given, capture_output=True, text=True
        )

    return run


def test_what_the_wheel_holds(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "config", "workflow", "profiles", "Snakefile", "src/langneurons"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    wanted = {
        path.removeprefix("src/") if path.startswith("src/") else f"langneurons/project/{path}"
        for path in tracked
        if path
    }
    assert wanted - names == set() and len(wanted) > 200


def test_the_package_is_the_wheels(bare):
    done = bare("-c", "import langneurons; print(langneurons.__file__)")
    assert "/bare" in done.stdout and str(ROOT) not in done.stdout, done.stderr


def test_configurations_and_what_they_name_are_found(bare):
    for name in ("config.yaml", "papers/mondal2025.yaml", "papers/tang2024.yaml"):
        done = bare("-m", "langneurons", "check", f"config/{name}")
        assert done.returncode == 0, done.stderr
    done = bare("-m", "langneurons", "plan", "config/papers/mondal2025.yaml")
    assert done.returncode == 0 and "GPU" in done.stdout, done.stderr


def test_the_workflow_is_planned(bare):
    done = bare("-m", "langneurons", "demo", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "select_neurons" in done.stdout
