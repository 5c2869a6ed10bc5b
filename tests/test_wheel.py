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

    def run(*arguments, **more):
        given = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ} | more
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


EXAMPLE = """
import sys
import langneurons as ln

model = ln.load(sys.argv[1])
statistics = ln.collect(model, {"aa": "w1 w2 w3 " * 400, "bb": "w50 w51 w52 " * 400})
neurons = ln.select(statistics, "mean_difference", rate=0.1)
plan = ln.plan(neurons, "aa", "set", 3.0)
untouched, written = ln.generate(model, ["w1 w2"], under=[None, plan], max_new_tokens=3)
print(len(untouched), len(written), plan.neurons == neurons.counts()["aa"] > 0)
"""


def test_the_interface_works_away_from_the_repository(bare, tmp_path):
    from tiny import tiny_model, tiny_tokenizer

    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    done = bare("-c", EXAMPLE, str(tmp_path / "model"), LANGNEURONS_CACHE=str(tmp_path / "cache"))
    assert done.stdout.strip() == "1 1 True", done.stderr


def test_without_the_extras_the_interface_works_and_commands_name_what_is_missing(bare):
    names = ["snakemake", "bitsandbytes", "lm_eval"]
    hidden = f"import sys; sys.modules.update(dict.fromkeys({names}));"
    done = bare("-c", hidden + "import langneurons as ln; print(sorted(ln.mini_texts(['vi'])))")
    assert done.stdout.strip() == "['vi']", done.stderr
    command = hidden + "from langneurons.cli import main; sys.exit(main(['demo', '--dry-run']))"
    done = bare("-c", command)
    assert done.returncode == 1 and "pip install 'langneurons[workflow,model]'" in done.stderr
    assert "Traceback" not in done.stderr
