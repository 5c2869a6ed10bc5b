"""Files that come with the package: task definitions, printed numbers, configurations."""

from pathlib import Path

from langneurons.base.paths import user_path

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "project"
# An installed package holds a copy; in a repository the files lie beside `src`.
PROJECT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parents[1]
TASK_DEFINITIONS = PROJECT / "config" / "tasks"


def project_file(given: str) -> Path:
    """Return a file that the configuration names: from where it is run, else of the project."""
    path = user_path(given)
    return path if path.exists() or path.is_absolute() else _shipped(path)


def definition_file(name: str, given: str | None) -> Path:
    """Return the file that defines a task: the one named, else the project's own of that name."""
    return TASK_DEFINITIONS / f"{name}.yaml" if given is None else project_file(given)


def _shipped(path: Path) -> Path:
    return PROJECT / path if (PROJECT / path).exists() else path
