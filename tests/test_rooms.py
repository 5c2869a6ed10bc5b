"""The rooms of the package: who imports whom, and what stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "langneurons"
# The data flow, from below to above: a room imports itself and the rooms before it.
ROOMS = (
    "base",
    "runtime",
    "models",
    "data",
    "activations",
    "sharing",
    "selection",
    "interventions",
    "scoring",
    "evaluation",
    "training",
    "exports",
    "reporting",
    "config",
    "api",
    "jobs",
    "integrations",
    "cli",
    "__main__",
)
# What draws; it is loaded by the jobs that draw.
DRAWING = ("reporting.figures", "reporting.lettering")
HEAVY = ("torch", "transformers", "numba", "datasets", "peft")
# Libraries and the only modules, or rooms, that import them.
KEPT_TO = {
    "datasets": {"data.hub_rows", "data.files", "models.hub"},
    "huggingface_hub": {
        "data.hub_rows",
        "models.hub",
        "models.prepare",
        "sharing.hub",
        "jobs.masks",
        "integrations",
    },
    "lm_eval": {"integrations"},
    "matplotlib": {"reporting"},
    "typer": {"cli"},
}


def modules():
    """Return each module's name below the package, and its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(path, typing=False):
    """Return the modules that a file imports, those for annotations only left out if not asked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in hidden and not typing:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module.startswith("langneurons"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module):
    return module.split(".")[0]


def own(names):
    """Return the imported modules of this package, below its name."""
    known = modules()
    parts = (name.removeprefix("langneurons.") for name in names if name.startswith("langneurons."))
    return {part for part in parts if part in known}


def test_every_folder_is_a_room():
    assert {room(module) for module in modules()} - {""} <= set(ROOMS)


@pytest.mark.parametrize(
    "module",
    [name for name in modules() if name],
)
def test_a_room_imports_only_from_rooms_before_it(module):
    above = {
        other
        for other in own(imports(modules()[module]))
        if ROOMS.index(room(other)) > ROOMS.index(room(module))
    }
    assert not above


def test_no_circle():
    edges = {
        name: {other for other in own(imports(path)) if other != name}
        for name, path in modules().items()
    }
    while edges:
        leaves = {name for name, others in edges.items() if not others & edges.keys()}
        assert leaves, f"a circle among: {', '.join(sorted(edges))}"
        edges = {name: others for name, others in edges.items() if name not in leaves}


@pytest.mark.parametrize("library", KEPT_TO)
def test_a_library_is_imported_in_its_place_only(library):
    users = {
        name
        for name, path in modules().items()
        if any(one.split(".")[0] == library for one in imports(path))
    }
    assert {name for name in users if not {name, room(name)} & KEPT_TO[library]} == set()


def test_scoring_does_not_know_configurations():
    for name, path in modules().items():
        if room(name) in ("scoring", "interventions", "exports", "activations", "models", "data"):
            assert not any(one.startswith("langneurons.config") for one in imports(path, True))


LIGHT = """
import sys, pkgutil, importlib, langneurons
from snakemake import api
names = [one.name for one in pkgutil.walk_packages(langneurons.__path__, "langneurons.")]
for name in names:
    if name.startswith(("langneurons.base", "langneurons.config")) or name in {light!r}:
        importlib.import_module(name)
print(",".join(sorted(set(sys.modules) & set({heavy!r}))))
"""


def test_light_rooms_load_no_heavy_library():
    light = [
        f"langneurons.{name}"
        for name in modules()
        if (room(name) == "reporting" and not name.startswith(DRAWING))
        or name in ("jobs.parameters", "jobs.code", "jobs.files", "jobs.costs", "jobs.evidence")
        or name.startswith("jobs.stages")
    ]
    heavy = (*HEAVY, "matplotlib")
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(light=light, heavy=heavy)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""


RULES_MAY = ("base", "config", "jobs", "reporting", "runtime")


def test_rules_import_what_they_may():
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        found = {line[1].removeprefix("langneurons.") for line in lines if line[:1] == ["from"]}
        mine = {room(name) for name in found if name in modules()}
        assert mine <= set(RULES_MAY), path.name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_is_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


def test_few_functions_take_many_parameters():
    many = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if len([one for one in given if one.arg not in ("self", "cls")]) >= 8:
                    many.append(f"{name}.{node.name}")
    assert len(many) <= 10, many
