"""Shared folders: written whole, and checked against their cards."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langneurons.base.digests import file_digest
from langneurons.base.errors import InputError
from langneurons.sharing.card import (
    CARD,
    PICTURE,
    PLAIN,
    Card,
    card_text,
    files_of,
    read_card,
    write_card,
)
from langneurons.sharing.headers import Origin
from langneurons.sharing.tensors import check_start

FILES = (".safetensors", ".parquet", ".pth")  # suffixes that no folder has
Body = Callable[[bool], list[str]]  # whether there is a picture -> lines


def write_folder(
    folder: str | os.PathLike[str],
    header: Origin,
    tensors: Callable[[Path], list[str]],
    picture: Callable[[Path], bool],
    body: Body,
    license: str | None = None,
) -> None:
    """Write a shared folder, in place of an earlier one of the same name.

    tensors: writes the tensor files into a folder and returns their names; picture: draws
    `layers.svg` into it, or returns False where it cannot be drawn.

    Raises:
        InputError: The folder holds something else.
    """
    folder = Path(folder)
    check_free(folder, header.kind)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        names = tensors(made)
        drawn = picture(made)
        digests = {name: file_digest(made / name, 64) for name in sorted(names)}
        write_card(made / CARD, card_text(header, digests, body(drawn), license))
        _replace(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def check_free(folder: str | os.PathLike[str], kind: str) -> None:
    """Refuse a folder to write to that holds anything but an earlier shared folder of its kind.

    Raises:
        InputError: It does, it is a file, or its name is that of a file.
    """
    folder = Path(folder)
    if folder.suffix in FILES:
        raise InputError(
            f"{folder}: {kind} are written as a folder; name one without {folder.suffix}."
            " `langneurons convert` makes .parquet and .pth files of neurons."
        )
    if folder.is_file():
        raise InputError(f"{folder}: a file of this name is there; name a new folder.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        there = read_card(folder / CARD)[0].kind
    except ValueError:
        names = sorted(one.name for one in folder.iterdir())[:5]
        raise InputError(
            f"{folder}: the folder holds other files ({', '.join(names)}); name a new one."
        ) from None
    if there != kind:
        raise InputError(f"{folder}: the folder holds {there}, not {kind}; name a new one.")


def _replace(made: Path, folder: Path) -> None:
    """Put the files of a folder in place of those of an earlier shared folder; the card last."""
    folder.mkdir(exist_ok=True)
    if (folder / CARD).is_file():
        old = files_of(read_card(folder / CARD)[1])
        (folder / CARD).unlink()
        for name in [*old, PICTURE]:
            (folder / name).unlink(missing_ok=True)
    for path in sorted(made.iterdir(), key=lambda path: path.name == CARD):
        os.replace(path, folder / path.name)


def read_folder(
    folder: str | os.PathLike[str], kind: str | None = None
) -> tuple[Origin, Card, list[Path]]:
    """Return header, card and tensor files of a shared folder, each compared with its digest.

    Raises:
        InputError: The folder is not one, or a file is missing, damaged or another.
    """
    folder = Path(folder)
    header, card = read_card(folder / CARD, kind)
    paths = []
    for name, digest in files_of(card).items():
        path = folder / name
        if name in PLAIN:
            _check_there(path)
        else:
            check_start(path)
        if (found := file_digest(path, 64)) != digest:
            raise InputError(
                f"{path}: its SHA-256 is {found}; the card says {digest}. The file was changed or"
                " damaged after it was written; fetch the folder again."
            )
        paths.append(path)
    return header, card, paths


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")


def check_same(header: Origin, own: Origin, shown: str) -> None:
    """Refuse a file with another header than its card."""
    said, given = header.plain(), own.plain()
    for key in sorted({*said, *given}):
        if said.get(key) != given.get(key):
            raise InputError(
                f"{shown}: {key} is {_short(given.get(key))} in the file and"
                f" {_short(said.get(key))} in the card {CARD}."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
