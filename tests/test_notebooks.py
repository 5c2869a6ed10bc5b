"""The notebooks as they are kept: whole, in step with their pages, with nothing of a machine."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

import langneurons as ln

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == [
        "find_and_steer",
        "language_or_script",
        "publish_and_load",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_as_it_ran(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell.outputs) for cell in code) >= 3
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert "error" not in kinds
    page = (ROOT / "docs/notebooks" / f"{path.stem}.md").read_text(encoding="utf-8")
    for cell in code:
        assert cell.source in page
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", path.read_text() + page)
    for picture in re.findall(r"!\[png\]\(([^)]+)\)", page):
        assert (ROOT / "docs/notebooks" / picture).is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_calls_what_there_is(path):
    notebook = nbformat.read(path, 4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    source = "\n".join(one for one in cells if not one.startswith("!"))
    called = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "ln"
    }
    assert called and called <= set(ln.__all__)
