"""Digests of the code that a job reaches.

`code_digests` follows the imports of a script through this package and hashes the syntax tree of
each module without comments and docstrings. Given to a rule as a parameter, it reruns the rule
when the code it reaches changes, names the module that changed, and ignores comments and clones.
"""

import ast
import atexit
import hashlib
import json
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
NAME = PACKAGE.name
# Modules that only report, log or guard: they decide nothing in a result.
NEUTRAL = frozenset(
    f"{NAME}.{module}"
    for module in (
        "runtime.progress",
        "runtime.job",
        "runtime.halving",
        "runtime.gpus",
        "runtime.record",
        "base.digests",
        "base.errors",
        "scoring.canary",
        "scoring.engine",
        "scoring.engine_check",
        "jobs.code",
    )
)


def _strip(tree: ast.AST) -> ast.AST:
    """Remove docstrings and descriptions of fields; comments are not in the tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Field":
            node.keywords = [one for one in node.keywords if one.arg != "description"]
        body = getattr(node, "body", None)
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            if isinstance(body[0].value.value, str):
                node.body = body[1:]
    return tree


def source_digest(text: str, length: int = 12) -> str:
    """Return a digest of Python source that ignores comments, docstrings, descriptions, layout."""
    tree = _strip(ast.parse(text))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:length]


NOTHING = source_digest("")


def _module_file(module: str) -> Path | None:
    relative = PACKAGE.parent.joinpath(*module.split("."))
    for candidate in (relative.with_suffix(".py"), relative / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(tree: ast.AST) -> set[str]:
    """Return the modules of this package that a syntax tree imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == NAME}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == NAME:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for inner in ast.walk(ast.Module(body=node.body, type_ignores=[])):
                if isinstance(inner, ast.ImportFrom):
                    inner.module = ""
    return found


class _Sources:
    """Digest and imports of source files, kept on disk by what the files hold.

    A syntax tree takes milliseconds for each of a hundred files, in every process that parses the
    Snakefile; what a file holds decides both, with this module and the version of Python.
    """

    MOST = 2000  # files, of all versions

    def __init__(self) -> None:
        self._kept: dict[str, list] = {}
        self._path: Path | None = None
        self._known: set[str] = set()
        self._used: set[str] = set()
        self._own = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode())

    def keep_in(self, path: Path) -> None:
        """Use what is kept there, and keep there what is new when the process ends."""
        first, self._path = self._path is None, path
        try:
            self._kept = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self._kept = {}
        self._known, self._used = set(self._kept), set()
        if first:
            atexit.register(self.write)

    def read(self, path: Path) -> tuple[str, list[str]]:
        """Return the digest of a file and the names that it imports from this package."""
        content = path.read_bytes()
        whole = self._own.copy()
        whole.update(content)
        key = whole.hexdigest()
        if key not in self._kept:
            tree = ast.parse(content)
            imports = sorted(_imports(tree))
            dump = ast.dump(_strip(tree)).encode()
            self._kept[key] = [hashlib.sha256(dump).hexdigest()[:12], imports]
        self._used.add(key)
        digest, imports = self._kept[key]
        return digest, imports

    def write(self) -> None:
        """Keep what is new."""
        if self._path is None or set(self._kept) == self._known:
            return
        if len(self._kept) > self.MOST:
            self._kept = {key: self._kept[key] for key in self._used}
        new = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(self._kept), encoding="utf-8")
            new.replace(self._path)
        except OSError:  # a folder that cannot be written costs time, nothing else
            with suppress(OSError):
                new.unlink()


SOURCES = _Sources()


@cache
def _read(path: Path) -> tuple[str, frozenset[str]]:
    digest_, imports = SOURCES.read(path)
    return digest_, frozenset(module for module in imports if _module_file(module) is not None)


@cache
def code_digests(script: str, also: tuple[str, ...] = ()) -> dict[str, str]:
    """Return {module: digest} of a script and of the package modules it reaches by import.

    `also` names further modules, such as one selection method, reached through a registry.
    """
    path = Path(script)
    result = {path.name: _read(path)[0]}
    pending = sorted(_read(path)[1]) + list(also)
    while pending:
        module = pending.pop()
        if module in result or module in NEUTRAL:
            continue
        if module in {NAME, f"{NAME}.selection.methods"}:
            continue
        file = _module_file(module)
        if file is None:
            raise ValueError(f"module {module} of {script} does not exist")
        found, imports = _read(file)
        if file.name != "__init__.py" or found != NOTHING:
            result[module] = found
        pending.extend(imports)
    return dict(sorted(result.items()))
