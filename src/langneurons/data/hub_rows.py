"""Rows of data sets of the hub, streamed, and streamed again from where a connection ended."""

import functools
import logging
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from langneurons.base.errors import InputError, nearest
from langneurons.base.settings import NEWEST
from langneurons.data.files import aligned, class_names, filled
from langneurons.data.rows import Row, Rows
from langneurons.data.typed import unknown_field
from langneurons.models.hub import (
    NotAnswered,
    commit_of,
    kept_commit,
    persist,
    switched_off,
)

log = logging.getLogger(__name__)
T = TypeVar("T")
BATCH, BLOCK = 100, 1 << 21  # rows that are decoded at once, bytes that are asked for at once


def read(
    source: Mapping[str, Any],
    key: str,
    lang: str,
    code: str,
    fields: Iterable[str] | None = None,
    needed: Iterable[str] = (),
) -> Rows:
    """Return the rows of a data set, streamed; see `sources.read`.

    source: dataset, config, split, revision, and of a shuffle seed, buffer and shards. `columns`
    (field -> config and field of the data set) takes fields from several configurations.
    """
    repo, split = source["dataset"], source["split"]
    commit = commit_of("dataset", repo, source["revision"], kept_commit(repo))
    origin = {"kind": "hub", "dataset": repo, "commit": commit, "split": split}
    if source["revision"] == NEWEST:
        origin["asked"] = NEWEST
    if columns := source.get("columns"):
        found, names, classes = {}, {}, {}
        for field, column in columns.items():
            own, template = column["field"], column["config"]
            config = filled(template, f"{key}.columns.{field}.config", lang, code)
            taken = list(_rows(repo, config, split, commit, [own], [own]))
            found[field], names[field] = [row[own] for row in taken], config
            if taken and own in taken[0].names:
                classes[field] = taken[0].names[own]
        where = f"{repo} ({', '.join(names.values())}, {split})"
        rows = aligned(found, lambda number: f"{where}, row {number}", where, classes)
        return Rows(rows, origin | {"config": sorted(set(names.values()))})
    template = source.get("config")
    name = filled(template, f"{key}.config", lang, code) if template else template
    origin["config"] = name
    shuffle = None
    if source.get("seed") is not None:
        origin["shuffle"] = shuffle = {key: source[key] for key in ("seed", "buffer", "shards")}
    wanted = None if fields is None else sorted(fields)
    return Rows(_rows(repo, name, split, commit, wanted, sorted(needed), shuffle), origin)


def _rows(
    repo: str,
    config: str | None,
    split: str,
    commit: str,
    fields: Sequence[str] | None = None,
    needed: Sequence[str] = (),
    shuffle: Mapping[str, int] | None = None,
) -> Iterator[Row]:
    """Return the rows of a commit of a data set, in its order or shuffled."""
    where = f"{repo} ({config or 'default'}, {split})"
    what = f"data set {where} at {commit}"
    if not switched_off():
        _resolve(repo, commit, what)
    files, names = persist(what, lambda: _files(repo, config, split, commit, fields, needed, what))
    parts: list[tuple[str, Iterable[dict[str, Any]]]] = [(f"{where}, row", _Chained(files))]
    if shuffle is not None:
        parts = [(f"{where}, file {number}, row", one) for number, one in enumerate(files, 1)]

    def rows_of(part: tuple[str, Iterable[dict[str, Any]]]) -> Iterator[Row]:
        name, own = part
        for number, row in enumerate(_lasting(own, what), 1):
            place = f"{name} {number}"
            for field in needed:
                if field not in row:
                    raise unknown_field(row, field, place)
            if fields is not None:
                row = {field: row[field] for field in fields if field in row}
            yield Row(row, place, names)

    if shuffle is None:
        return rows_of(parts[0])
    return _shuffled([functools.partial(rows_of, part) for part in parts], **shuffle)


def _lasting(stream: Iterable[T], what: str) -> Iterator[T]:
    """Yield what a stream yields; after a break it goes on behind what has come."""
    count, rows = 0, None

    def following() -> T | None:
        nonlocal rows
        if rows is None:
            rows = iter(stream)
            for _ in range(count):
                next(rows, None)
        try:
            return next(rows, None)
        except Exception:
            rows = None
            raise

    while (row := persist(what, following)) is not None:
        count += 1
        yield row


def _shuffled(
    parts: Sequence[Callable[[], Iterator[T]]], seed: int, buffer: int, shards: int
) -> Iterator[T]:
    """Yield rows of several files in a random order, each of them held once.

    `shards` of the files are read in turns, in a random order of the files. Of the `buffer` rows at
    hand a random one is yielded, and the next one read takes its place. The shuffle of the library
    holds its buffer several times, and its order is that of a version.
    """
    draw = random.Random(seed).random
    waiting = sorted(range(len(parts)), key=lambda _: draw())
    active: list[Iterator[T]] = []
    held: list[T] = []
    turn = 0
    while waiting or active:
        while waiting and len(active) < shards:
            active.append(parts[waiting.pop(0)]())
        turn %= len(active)
        row = next(active[turn], None)
        if row is None:
            active.pop(turn)
            continue
        turn += 1
        if len(held) < buffer:
            held.append(row)
            continue
        place = int(draw() * buffer)
        row, held[place] = held[place], row
        yield row
    while held:
        place = int(draw() * len(held))
        held[place], held[-1] = held[-1], held[place]
        yield held.pop()


def _resolve(repo: str, commit: str, what: str) -> None:
    """Ask the hub for a commit before anything is read, which a cache could answer as well."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    found = persist(what, lambda: api.dataset_info(repo, revision=commit)).sha
    if found != commit:
        raise InputError(f"{what}: the hub answers with commit {found}, which is not used.")


class _Chained(Generic[T]):
    """The rows of several files, one after the other, as often as they are asked for."""

    def __init__(self, files: Sequence[Iterable[T]]):
        self._files = files

    def __iter__(self) -> Iterator[T]:
        for one in self._files:
            yield from one


class _Parquet:
    """Some columns of a parquet file of the hub, as often as they are asked for.

    It is read a page at a time: the library's reader holds row groups, tens of MB for each file.
    """

    def __init__(self, url: str, columns: Sequence[str]):
        self._url, self._columns = url, list(columns)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet as pq
        from huggingface_hub import HfFileSystem

        with HfFileSystem().open(self._url, "rb", block_size=BLOCK) as opened:
            file = pq.ParquetFile(opened, buffer_size=BLOCK, pre_buffer=False)
            given = {"batch_size": BATCH, "columns": self._columns, "use_threads": False}
            for batch in file.iter_batches(**given):
                yield from batch.to_pylist()


def _files(
    repo: str,
    config: str | None,
    split: str,
    commit: str,
    fields: Sequence[str] | None,
    needed: Sequence[str],
    what: str,
) -> tuple[list[Iterable[dict[str, Any]]], Mapping[str, Sequence[str]]]:
    """Return the rows of each file of a split, of the commit and no other, and class names."""
    import datasets

    # An iterable data set would load torch for its data loader, which nobody asks for here.
    datasets.config.TORCH_AVAILABLE = False
    builder = _builder(repo, config, commit, what)
    try:
        stream = builder.as_streaming_dataset(split)
    except ValueError as error:
        if "Bad split" not in str(error):
            raise
        legal = re.findall(r"'([^']+)'", str(error).partition("Available splits")[2])
        raise InputError(
            f"{what}: no split {split!r}; splits: {', '.join(legal)}.{nearest(split, legal)} A part"
            " of a split is named with `rows` or `limit`."
        ) from None
    names, known = class_names(stream.features), stream.column_names
    for field in needed if known is not None else ():
        if field not in known:
            raise unknown_field(dict.fromkeys(known), field, what)
    chosen = [field for field in known or () if field in set(fields or ())]
    urls = (builder.config.data_files or {}).get(split, ())
    if chosen and type(builder).__name__.startswith("Parquet") and urls:
        return [_Parquet(url, chosen) for url in urls], names
    number = stream.num_shards
    return [stream.shard(number, index) for index in range(number)], names


def _builder(repo: str, config: str | None, commit: str, what: str) -> Any:
    import datasets

    if Path(repo).exists():
        raise InputError(
            f"{what}: a folder {repo} lies here, which would be read in place of the hub. Run in"
            " another folder, or rename it."
        )
    try:
        builder = datasets.load_dataset_builder(repo, config, revision=commit)
    except ValueError as error:
        if "not found. Available" not in str(error):
            raise
        legal = re.findall(r"'([^']+)'", str(error).partition("Available")[2])
        raise InputError(
            f"{what}: no configuration {config!r}; configurations: {', '.join(legal[:40])}."
            f"{nearest(config, legal)}"
        ) from None
    if builder.hash == commit:
        return builder
    other = f"the cache holds commit {builder.hash} in place of {commit}, which is not used"
    if switched_off():
        raise InputError(f"{what}: the hub is switched off, and {other}.")
    raise NotAnswered(f"no answer, and {other}")
