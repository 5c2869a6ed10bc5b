"""Run the notebooks, and keep their outputs and their pages in docs/notebooks.

    python tools/notebooks.py             run each from its first cell; exit status 1 if one fails
    python tools/notebooks.py --write     the same, and keep outputs in the notebook and in docs/

The hub that they publish to is a server on this machine; a token is not needed.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, PAGES = ROOT / "notebooks", ROOT / "docs" / "notebooks"
SECONDS = 900  # of a cell


def main() -> None:
    """Run every notebook, or those that are named."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("names", nargs="*", help="names without suffix; left out: all")
    options.add_argument("--write", action="store_true", help="keep outputs and pages")
    given = options.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from hub.server import WRITER, Hub

    hub = Hub()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITER, "HF_HUB_DISABLE_XET": "1"}
    os.environ["OMP_WAIT_POLICY"] = "passive"  # idle threads leave the cores to others
    failed = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if given.names and path.stem not in given.names:
            continue
        began = time.monotonic()
        notebook = nbformat.read(path, 4)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HF_HOME"] = folder
            try:
                where = {"metadata": {"path": folder}}
                NotebookClient(notebook, timeout=SECONDS, resources=where).execute()
            except CellExecutionError as error:
                failed.append(path.stem)
                print(f"{path.name}: {error}", file=sys.stderr)
                continue
        print(f"{path.name}: {time.monotonic() - began:.0f} s", flush=True)
        if given.write:
            keep(path, notebook)
    sys.exit(1 if failed else 0)


def keep(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Write a notebook with its outputs, and its page; nothing in them is of this machine."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        # Warnings of the machine are not kept. A table is kept as text, which diffs can show.
        cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        for output in cell.outputs:
            output.get("data", {}).pop("text/html", None)
    text = nbformat.writes(notebook)
    for private in (str(ROOT), tempfile.gettempdir(), "127.0.0.1"):
        if private in text:
            sys.exit(f"{path.name}: an output names {private}; it is not kept")
    path.write_text(text + "\n", encoding="utf-8")
    exporter = MarkdownExporter()
    text, resources = exporter.from_notebook_node(
        notebook, {"output_files_dir": f"{path.stem}_files", "unique_key": "output"}
    )
    note = f"<!-- Written by tools/notebooks.py from notebooks/{path.name}. -->\n"
    PAGES.mkdir(parents=True, exist_ok=True)
    links = text.replace("](../docs/", "](../").replace(".ipynb)", ".md)")
    (PAGES / f"{path.stem}.md").write_text(note + links.rstrip() + "\n", encoding="utf-8")
    for name, content in resources.get("outputs", {}).items():
        (PAGES / name).parent.mkdir(exist_ok=True)
        (PAGES / name).write_bytes(content)


if __name__ == "__main__":
    main()
