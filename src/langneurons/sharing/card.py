"""The card of a shared folder: `README.md`, a YAML header and a text (docs/format.md, Card)."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import LFS_POINTER, write_text
from langneurons.base.settings import Frozen
from langneurons.base.yaml import parse_yaml
from langneurons.sharing.headers import FORMAT, Origin, header_of, hub_languages

CARD = "README.md"
PICTURE = "layers.svg"
LINE = "---\n"
TAGS = ("language-neurons", "interpretability")
CLASSES = {"neurons": "Neurons", "statistics": "Statistics", "directions": "Directions"}
# Libraries that the hub offers for a kind; langneurons for the others.
LOADED_BY = {"adapters": "peft"}
# Files beside those of tensors.
PLAIN = ("adapter_config.json",)
PLACE = "owner/name"  # what stands for a repository that is not known


class Card(Frozen):
    """The YAML header of a card: keys of the hub, and what the folder holds."""

    library_name: str = Field(description="What loads the folder: langneurons, or peft.")
    tags: tuple[str, ...] = Field(description="Of the hub.")
    base_model: str | None = Field(None, description="Repository of the model, if it is on a hub.")
    language: tuple[str, ...] = Field((), description="Codes that the hub knows.")
    license: str | None = Field(None, description="Licence, as the hub names it.")
    langneurons: dict[str, Any] = Field(description="Header and digests of the files.")


def card_text(
    header: Origin, files: Mapping[str, str], body: Sequence[str], license: str | None
) -> str:
    """Return the text of a card: header, digests of files (SHA-256 by name), and a body."""
    library = LOADED_BY.get(header.kind, FORMAT)
    keys: dict[str, Any] = {"library_name": library, "tags": [FORMAT, header.kind, *TAGS]}
    if header.model.count("/") == 1:
        keys["base_model"] = header.model
    languages = hub_languages(header.languages)
    if languages:
        keys["language"] = languages
    if license is not None:
        keys["license"] = license
    keys[FORMAT] = header.plain() | {"files": dict(files)}
    yaml_text = yaml.safe_dump(keys, sort_keys=True, allow_unicode=True, width=100)
    return f"{LINE}{yaml_text}{LINE}\n" + "\n".join(body) + "\n"


def write_card(path: str | os.PathLike[str], text: str) -> None:
    """Write a card."""
    write_text(path, text)


def read_card(path: str | os.PathLike[str], kind: str | None = None) -> tuple[Origin, Card]:
    """Return what a card says: the header of the folder's files, and all keys.

    Raises:
        InputError: There is no card of langneurons, or one of another format or version.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path.parent}: no {path.name} in it, so that it is not a shared folder"
            f" (docs/format.md); it holds {_listed(path.parent)}."
        )
    text = path.read_bytes()
    if text.startswith(LFS_POINTER):
        raise InputError(f"{path}: a Git LFS pointer; fetch the file with `git lfs pull`.")
    return parse_card(text.decode("utf-8", "replace"), str(path), kind)


def parse_card(text: str, shown: str, kind: str | None = None) -> tuple[Origin, Card]:
    """Return header and keys of the text of a card; see `read_card`."""
    parts = text.replace("\r\n", "\n").split(LINE, 2)
    if len(parts) != 3 or parts[0].strip("\ufeff"):
        raise InputError(f"{shown}: it does not begin with a YAML header between lines of `---`.")
    try:
        keys = parse_yaml(parts[1], shown)
    except ConfigError as error:
        raise InputError(str(error)) from None
    own = keys.get(FORMAT)
    if not isinstance(own, dict):
        raise InputError(
            f"{shown}: its header has no key `{FORMAT}`, so it is not a shared folder."
        )
    content = dict(own)
    files = content.pop("files", None)
    header = header_of(content, f"{shown}: {FORMAT}", kind)
    if not isinstance(files, dict) or not files:
        raise InputError(f"{shown}: {FORMAT}.files is missing; it lists each file's SHA-256.")
    wrong = [name for name in files if "/" in str(name) or not _named(str(name))]
    if wrong:
        raise InputError(f"{shown}: {FORMAT}.files: {wrong[0]!r} is not a name NAME.safetensors.")
    known = {key: keys[key] for key in Card.model_fields if key in keys}
    known |= {
        "library_name": LOADED_BY.get(header.kind, FORMAT),
        "tags": tuple(keys.get("tags") or ()),
    }
    return header, Card.model_validate(known)


def _named(file: str) -> bool:
    return file.endswith(".safetensors") or file in PLAIN


def files_of(card: Card) -> dict[str, str]:
    """Return the SHA-256 of each file that the card lists, by its name."""
    return {str(name): str(value) for name, value in card.langneurons["files"].items()}


def _listed(folder: Path) -> str:
    names = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"


# Body ---------------------------------------------------------------------------------------------


def body_of(
    header: Origin, sizes: Mapping[str, Sequence[Any]], more: Iterable[str], drawn: bool
) -> list[str]:
    """Return the first lines of a card's text: what it is, sizes, more tables, the picture.

    sizes: columns by their heads, a value for each language.
    """
    kind = header.kind
    revision = f" at revision `{header.revision}`" if header.revision else ""
    lines = [
        f"# {kind.capitalize()} of {len(header.languages)} languages in {header.model}",
        "",
        f"Model: `{header.model}`{revision}, {header.n_layers} layers, {_width(header)}.",
    ]
    method = getattr(header, "method", None)
    if method is not None:
        given = getattr(header, "parameters", {})
        shown = ", ".join(f"{key}: {given[key]}" for key in sorted(given) if key != "method")
        lines += ["", f"Method: `{method}`. Parameters: {shown or 'none'}."]
    lines += ["", "## Sizes", "", *table(["language", *sizes], _rows(header.languages, sizes))]
    lines += more
    if drawn:
        lines += ["", "## Layers", "", f"![By layer and language]({PICTURE})"]
    return lines


def how_to_load(header: Origin, loaded: str, place: str | None) -> list[str]:
    """Return the last lines of a card's text: how to load the folder.

    loaded: what `langneurons.load` takes for the model; place: the repository, if it is known.
    """
    kind, name = header.kind, CLASSES[header.kind]
    lines = [
        "",
        "## Load",
        "",
        "```python",
        "import langneurons as ln",
        f'model = ln.load("{loaded}"{_revision(header)})',
        f'{kind} = ln.{name}.from_pretrained("{place or PLACE}", model=model)',
        "```",
        "",
    ]
    if place is None:
        lines.append(f"`{PLACE}` is the repository of this card, or the path of its folder.")
    lines.append("The files are described in docs/format.md of langneurons.")
    return lines


def _width(header: Origin) -> str:
    what = "numbers in the residual stream"
    if header.NAMED == "d_mlp":
        what = f"{getattr(header, 'units', 'neurons')} each"
    return f"{header.width} {what}"


def _revision(header: Origin) -> str:
    commit = header.revision or ""
    is_commit = len(commit) == 40 and header.model.count("/") == 1
    return f', revision="{commit}"' if is_commit else ""


def _rows(languages: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> list[list[Any]]:
    return [[lang, *values] for lang, *values in zip(languages, *columns.values(), strict=True)]


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a Markdown table; numbers are aligned to the right."""
    lines = [f"| {' | '.join(heads)} |", "|" + "|".join(["---"] + ["--:"] * (len(heads) - 1)) + "|"]
    for row in rows:
        cells = (f"{one:,}" if isinstance(one, int) else str(one) for one in row)
        lines.append(f"| {' | '.join(cells)} |")
    return lines
