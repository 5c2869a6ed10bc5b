"""One environment, said in four files: the pins agree and cover what is imported."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = ("src", "workflow", "tests")
# Extras whose packages the code imports.
EXTRAS = ("harness", "quantization", "workflow")


def pins(lines):
    """Return {canonical name: version} of lines `name==version`."""
    found = {}
    for line in lines:
        name, version = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line).groups()
        name = canonicalize_name(name)
        assert name not in found, f"{name} is pinned twice"
        found[name] = version
    return found


def requirements(name):
    lines = (ROOT / name).read_text().splitlines()
    return pins(line for line in lines if line.strip() and not line.startswith("#"))


REQUIREMENTS = requirements("requirements.txt")
MODEL = requirements("requirements-model.txt")
HARNESS = requirements("requirements-harness.txt")


def imported(*folders):
    """Return {top-level module: a file that imports it}, without the standard library."""
    found = {}
    for folder in folders:
        files = [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.smk")]
        for path in files:
            # Of a rules file the lines that import are Python.
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".smk":
                text = "\n".join(re.findall(r"^(?:import|from) .*$", text, re.MULTILINE))
            for node in ast.walk(ast.parse(text)):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                for name in names:
                    found.setdefault(name.split(".")[0], path.relative_to(ROOT))
    helpers = [path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("*.py")]
    own = {"langneurons", *(name for path in helpers for name in (path.parts[0], path.stem))}
    return {k: v for k, v in found.items() if k not in sys.stdlib_module_names | own}


def test_environment_yml_has_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pins(pip) == REQUIREMENTS | MODEL
    assert not REQUIREMENTS.keys() & (MODEL.keys() | HARNESS.keys())


def test_the_versions_of_python_are_the_same_everywhere():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (version,) = [one for one in environment["dependencies"] if str(one).startswith("python")]
    assert version.removeprefix("python") == PROJECT["requires-python"]
    specifier = Requirement(f"python{PROJECT['requires-python']}").specifier
    legal = [f"3.{minor}" for minor in range(30) if specifier.contains(f"3.{minor}")]
    assert legal == ["3.11", "3.12", "3.13"]
    makefile = (ROOT / "Makefile").read_text()
    assert " ".join(f"python{one}" for one in legal) in makefile
    assert f"Python {', '.join(legal[:-1])} or {legal[-1]} is needed" in makefile
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in makefile


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_pins_can_be_installed_on_other_pythons(version, tmp_path):
    """Ask for every pin on a version of Python; nothing is installed. Tests run on 3.11."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += ["--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(tmp_path)]
    pins_ = ["--python-version", version, "--report", str(report)]
    done = subprocess.run(
        [*command, *pins_, "-r", str(ROOT / "requirements.txt")], capture_output=True, text=True
    )
    if done.returncode and subprocess.run([*command, "six"], capture_output=True).returncode:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    found = [one["metadata"] for one in json.loads(report.read_text())["install"]]
    assert {canonicalize_name(one["name"]): one["version"] for one in found} == REQUIREMENTS
    place = {"python_version": version, "python_full_version": f"{version}.0", "extra": ""}
    unmet = []
    for one in found:
        legal = Requirement(f"python{one.get('requires_python', '')}").specifier
        assert legal.contains(f"{version}.0"), one["name"]
        for line in one.get("requires_dist", ()):
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate(place):
                pin = REQUIREMENTS.get(canonicalize_name(need.name))
                if pin is None or not need.specifier.contains(pin, prereleases=True):
                    unmet.append((canonicalize_name(one["name"]), line))
    # The libraries of a CUDA build, which a CPU build does without, are torch's to choose.
    assert {name for name, _ in unmet} <= {"torch"}, unmet


@pytest.mark.parametrize("extra", [None, *PROJECT["optional-dependencies"]])
def test_every_dependency_of_the_package_is_pinned_within_its_bounds(extra):
    optional = PROJECT["optional-dependencies"]
    declared = PROJECT["dependencies"] if extra is None else optional[extra]
    for line in declared:
        one = Requirement(line)
        pin = (REQUIREMENTS | MODEL | HARNESS).get(canonicalize_name(one.name))
        assert pin is not None, f"{one.name} has no pin"
        assert one.specifier.contains(pin), f"{line} against {pin}"


def uncovered(folders, names):
    """Return "file: module" for each import whose distribution is not among the names."""
    distributions = packages_distributions()
    found = imported(*folders)
    assert {"torch", "numpy", "yaml", "snakemake"} <= found.keys()
    return [
        f"{path}: {module}"
        for module, path in found.items()
        if not names & {canonicalize_name(name) for name in distributions.get(module, [module])}
    ]


def test_every_import_is_covered_by_a_pin():
    assert uncovered(FOLDERS, REQUIREMENTS.keys() | HARNESS.keys()) == []


def test_only_the_bridge_needs_the_harness():
    files = [
        str(path)
        for path in (ROOT / "src").rglob("*.py")
        if "import lm_eval" in path.read_text() or "from lm_eval" in path.read_text()
    ]
    assert files == [str(ROOT / "src" / "langneurons" / "integrations" / "harness.py")]


def test_the_package_declares_what_it_imports():
    optional = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *sum((optional[key] for key in EXTRAS), [])]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    assert uncovered(("src", "workflow"), declared) == []


def test_the_container_is_built_from_the_pins():
    text = (ROOT / "langneurons.def").read_text()
    (version,) = re.findall(r"^From: python:([\d.]+)-", text, re.M)
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)
    files = re.findall(r"^    (\S+) /opt/langneurons/(\S+)$", text, re.M)
    assert all(source == target and (ROOT / source).exists() for source, target in files)
    copied = {source for source, _ in files}
    installed = set(re.findall(r"-r (\S+)", text))
    assert {"requirements.txt", "requirements-model.txt"} <= installed <= copied
    # What the build of the wheel reads.
    parts = set(
        re.findall(r'"([^"]+)"', re.search(r"PARTS = \((.*)\)", (ROOT / "setup.py").read_text())[1])
    )
    assert parts | {"src", "setup.py", "pyproject.toml", "README.md"} <= copied
    assert "==" not in text.split("%post")[1]


def test_new_pins_are_written_into_both_files():
    spec = importlib.util.spec_from_file_location("pins", ROOT / "tools" / "pins.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    old = tool.pinned(ROOT / "requirements.txt")
    assert {canonicalize_name(name): version for name, version in old.items()} == REQUIREMENTS
    found = {"numpy": "99.1", "pyyaml": old["PyYAML"], "nvidia-nvtx": "1", "a-new-one": "0.1"}
    new = tool.bumped(old, found)
    assert new == {"a-new-one": "0.1", "numpy": "99.1", "PyYAML": old["PyYAML"]}
    text = tool.environment((ROOT / "environment.yml").read_text(), old, new)
    (pip,) = [one["pip"] for one in yaml.safe_load(text)["dependencies"] if isinstance(one, dict)]
    assert pins(pip) == pins(f"{name}=={version}" for name, version in new.items()) | MODEL
    same = tool.environment((ROOT / "environment.yml").read_text(), old, old)
    assert same == (ROOT / "environment.yml").read_text()


def test_the_tests_without_torch_import_none():
    makefile = (ROOT / "Makefile").read_text()
    names = re.search(r"^LIGHT_TESTS := ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)[1]
    files = [f"tests/test_{name}.py" for name in names.replace("\\", " ").split()]
    heavy = re.search(r"^HEAVY := (.*)$", makefile, re.MULTILINE)[1].split("|")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy})); import pytest;"
        f" sys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', *{files}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
