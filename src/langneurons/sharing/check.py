"""What a shared folder or file is, in a few lines, or what is wrong with it."""

from pathlib import Path
from typing import cast

from langneurons.activations.statistics import Statistics
from langneurons.base.errors import InputError
from langneurons.base.io import damaged, read_header, read_parquet
from langneurons.sharing import adapters, directions, neurons
from langneurons.sharing.card import CARD
from langneurons.sharing.folder import check_same, read_folder
from langneurons.sharing.headers import (
    KINDS,
    Origin,
    StatisticsHeader,
    header_of,
)
from langneurons.sharing.statistics import read_statistics, statistics_header
from langneurons.sharing.tensors import check_start

SUFFIXES = (".safetensors", ".parquet", ".pth", ".pt")


def is_shared(path: Path) -> bool:
    """Return whether a path is a folder, or a file that is not a configuration."""
    return path.is_dir() or path.suffix in SUFFIXES


def described(path: Path) -> str:
    """Return what a shared folder, or a file of one, is: kind, model, languages, sizes.

    All of it is read, and compared with its card and its digests.

    Raises:
        ValueError: What is wrong with it.
        FileNotFoundError: It is not there.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".parquet":
        return _table(path)
    check_start(path)
    content = read_header(path)
    kind = content.get("kind") if isinstance(content, dict) else None
    if "schema" in content and kind not in KINDS:
        one = Statistics.read(path)
        one.verify()
        header: Origin = statistics_header({one.lang: one})
        return _lines(path, header, {one.lang: one.tokens}, "tokens")
    header = header_of(content, str(path))
    return _file(path, header)


def _folder(path: Path) -> str:
    if not (path / CARD).is_file() and any(path.glob("*.safetensors")):
        raise InputError(
            f"{path}: it has tensor files and no {CARD}; `save` writes both, and the graph's own"
            " folders have none. Check its files one by one."
        )
    header, _, paths = read_folder(path)
    if header.kind == "statistics":
        found = read_statistics(paths, cast(StatisticsHeader, header), verify=True)
        return _lines(path, header, {lang: one.tokens for lang, one in found.items()}, "tokens")
    if header.kind == "adapters":
        return _adapter(path, header, [one.name for one in paths])
    wanted = neurons.NAME if header.kind == "neurons" else directions.NAME
    if [one.name for one in paths] != [wanted]:
        raise InputError(f"{path}: {header.kind} are in {wanted} alone; the card lists others.")
    return _file(paths[0], header, path)


def _adapter(path: Path, header: Origin, names: list[str]) -> str:
    """Return the lines of an adapter, whose files are compared with the header."""
    if sorted(names) != sorted((adapters.NAME, adapters.CONFIG)):
        raise InputError(
            f"{path}: an adapter is {adapters.NAME} and {adapters.CONFIG}; the card lists"
            f" {', '.join(names)}."
        )
    _, own = adapters.read_adapter(path)
    check_same(header, own, str(path / adapters.NAME))
    lines = _lines(path, header, dict.fromkeys(own.languages, own.neurons), "neurons")
    return f"{lines}\n  plan: {own.plan}, a LoRA of rank {own.rank} on {len(own.modules)} layers"


def _file(path: Path, header: Origin, shown: Path | None = None) -> str:
    """Return the lines of a file of neurons or directions, compared with the header."""
    own: Origin
    unit: str
    if header.kind == "adapters":
        raise InputError(
            f"{path}: an adapter is a folder of two files and a card; name the folder."
        )
    if header.kind == "neurons":
        frame, found = neurons.read_neurons(path)
        own, unit = found, found.units
        counts = frame.groupby("lang").size().reindex(header.languages, fill_value=0)
        sizes = {lang: int(number) for lang, number in counts.items()}
    else:
        arrays, own = directions.read_directions(path)
        sizes, unit = {lang: len(one) for lang, one in arrays.items()}, "layers"
    check_same(header, own, str(path))
    return _lines(shown or path, header, sizes, unit)


def _table(path: Path) -> str:
    """Return the lines of a neuron table of the graph."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    frame, metadata = read_parquet(path)
    lacking = {"lang", "layer", "neuron", "score"} - set(frame.columns)
    lacking |= {"languages", "n_layers", "d_mlp"} - set(metadata)
    if lacking:
        raise InputError(
            damaged(path, f"not a neuron table: it lacks {', '.join(sorted(lacking))}")
        )
    counts = frame.groupby("lang").size().reindex(metadata["languages"], fill_value=0)
    header = neurons.neurons_header(frame, {"model": "not named"} | metadata, str(path))
    for lang, own in frame.groupby("lang"):
        columns = {name: own[name].to_numpy() for name in (*neurons.PLACE, *header.columns)}
        neurons.check_neurons(f"{path}: {lang}", columns, header)
    sizes = {lang: int(number) for lang, number in counts.items()}
    return _lines(path, header, sizes, header.units, by="")


def _lines(
    path: Path, header: Origin, sizes: dict[str, int], unit: str, by: str | None = None
) -> str:
    width = f"{header.n_layers} layers x {header.width}"
    revision = f" at {header.revision}" if header.revision else ""
    listed = ", ".join(f"{lang} {number:,}" for lang, number in sizes.items())
    lines = [f"{path}: {header.kind}, whole", f"  model: {header.model}{revision}, {width}"]
    method = getattr(header, "method", None)
    if method is not None:
        lines.append(f"  method: {method}")
    lines.append(f"  {unit}: {listed}")
    by = header.library if by is None else by
    if by:
        lines.append(f"  written by: {by}")
    return "\n".join(lines)
