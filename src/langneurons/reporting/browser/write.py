"""Write the pages of neurons: `index.html` and, beside it, a script per layer in `data`.

A page that is opened from disk cannot fetch files, so the data are scripts that call the page. The
page refers to nothing outside its folder. Equal results give equal bytes.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from langneurons.base.io import write_text
from langneurons.reporting.browser.records import Browser, Sources
from langneurons.reporting.labels import Labels

COMPACT: dict[str, Any] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}


def write_browser(
    folder: Path, names: Mapping[str, str], labels: Labels, link: str, inputs: Mapping[str, Any]
) -> int:
    """Write the pages of a model and language set; return their size in bytes.

    names: `model` and `langset`; inputs: the fields of `records.Sources` that are files.
    """
    browser = Browser(Sources(names=names, labels=labels, link=link, **inputs))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    write_text(folder / "data" / "index.js", _call("index", browser.index()))
    for number, layer in enumerate(browser.layers()):
        write_text(folder / "data" / f"layer-{number:03d}.js", _call("layer", number, layer))
    page = _template("browser.html")
    for name in ("browser.css", "browser.js"):
        page = page.replace(f"/*{name}*/", _template(name))
    write_text(folder / "index.html", page)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _call(name: str, *values: object) -> str:
    """Return a script that hands values to the page."""
    # These two end a line in scripts of old browsers.
    text = ",".join(json.dumps(value, **COMPACT) for value in values)
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f"LN.{name}({text});\n"


@cache
def _template(name: str) -> str:
    return files("langneurons.reporting").joinpath("templates", name).read_text(encoding="utf-8")
